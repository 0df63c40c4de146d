//! Turns gradients into updates: a chain of transforms, and the schedules of the learning rate. Does not depend on
//! networks or layers; works on flat regions in which each parameter's part is a [`Segment`].
//!
//! To add a transform: write `optim/x.rs` with a struct that implements [`Transform`], its device function in
//! `kernels/optim/x.cuh`, and one line in the list below. For schedules,
//! see `optim/schedules/mod.rs`.

mod adadelta;
mod adagrad;
mod adam;
mod adamw;
mod adaptive_clip;
mod chain;
mod clip_by_global_norm;
mod clip_by_layer_norm;
mod clip_by_value;
mod clipping;
mod delta_bar_delta;
mod device;
mod ema;
mod entry;
mod interval;
mod l1_decay;
mod lamb;
mod lars;
mod lion;
mod momentum;
mod nadam;
mod rmsprop;
mod role;
mod rprop;
pub mod schedules;
pub mod second_order;
mod transform;
mod weight_decay;

pub use adadelta::Adadelta;
pub use adagrad::Adagrad;
pub use adam::Adam;
pub use adamw::Adamw;
pub use adaptive_clip::AdaptiveClip;
pub use chain::{Chain, ChainGroup, Segment, UpdatePass, numbered};
pub use clip_by_global_norm::ClipByGlobalNorm;
pub use clip_by_layer_norm::ClipByLayerNorm;
pub use clip_by_value::ClipByValue;
pub use clipping::Clipping;
pub use delta_bar_delta::DeltaBarDelta;
pub use device::DeviceChain;
pub use ema::Ema;
pub use entry::ChainEntry;
pub use interval::Interval;
pub use l1_decay::L1Decay;
pub use lamb::Lamb;
pub use lars::Lars;
pub use lion::Lion;
pub use list::{KEYS, all_settings, read};
pub use momentum::{Momentum, MomentumForm};
pub use nadam::Nadam;
pub use rmsprop::Rmsprop;
pub use role::{Slot, UpdateArgs, UpdateRole};
pub use rprop::Rprop;
pub use schedules::{Monitor, Observation, RunProgress, ScheduleList, ScheduleState};
pub use transform::{Block, Elements, Norm, Norms, Slots, Transform, UnitNorms, UnitRun, is_single, power};
pub use weight_decay::WeightDecay;

use crate::settings::registry;

/// Returns the examples of all entries of chains, and of the average of the weights, which is not in the list.
pub fn all_examples() -> Vec<Box<dyn ChainEntry>> {
    let averages = Ema::examples().into_iter().map(|one| Box::new(one) as Box<dyn ChainEntry>);
    list::all_examples().into_iter().chain(averages).collect()
}

/// The list of transforms and short forms.
mod list {
    use super::*;

    registry! {
        ChainEntry: Box<dyn ChainEntry>, one => Box::new(one);
        "adadelta" => Adadelta,
        "adagrad" => Adagrad,
        "adam" => Adam,
        "adamw" => Adamw,
        "adaptive_clip" => AdaptiveClip,
        "clip_by_global_norm" => ClipByGlobalNorm,
        "clip_by_layer_norm" => ClipByLayerNorm,
        "clip_by_value" => ClipByValue,
        "delta_bar_delta" => DeltaBarDelta,
        "l1_decay" => L1Decay,
        "lamb" => Lamb,
        "lars" => Lars,
        "lion" => Lion,
        "momentum" => Momentum,
        "nadam" => Nadam,
        "rmsprop" => Rmsprop,
        "rprop" => Rprop,
        "weight_decay" => WeightDecay,
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod worked;
