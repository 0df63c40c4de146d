//! Turns gradients into updates: a chain of transforms, and the schedules of the learning rate. Does not depend on
//! networks or layers; works on flat regions in which each parameter's part is a [`Segment`].
//!
//! To add a transform: write `optim/x.rs` with a struct that implements [`Transform`], its device function in
//! `kernels/optim/x.cuh`, and one line in the list below. For schedules,
//! see `optim/schedules/mod.rs`.

mod adam;
mod chain;
mod clip_by_global_norm;
mod device;
mod ema;
mod interval;
mod lars;
mod momentum;
mod rmsprop;
mod role;
pub mod schedules;
mod transform;
mod weight_decay;

pub use adam::Adam;
pub use chain::{Chain, Segment, UpdatePass, numbered};
pub use clip_by_global_norm::ClipByGlobalNorm;
pub use device::DeviceChain;
pub use ema::Ema;
pub use interval::Interval;
pub use lars::Lars;
pub use list::{KEYS, all_settings, read};
pub use momentum::Momentum;
pub use rmsprop::Rmsprop;
pub use role::{Slot, UpdateArgs, UpdateRole};
pub use schedules::{Monitor, Observation, RunProgress, ScheduleList, ScheduleState};
pub use transform::{Block, Elements, Norm, Norms, Slots, Transform, is_single, power};
pub use weight_decay::WeightDecay;

use crate::settings::registry;

/// Returns the examples of all transforms, and of the average of the weights, which is not in the list.
pub fn all_examples() -> Vec<Box<dyn Transform>> {
    let averages = Ema::examples().into_iter().map(|one| Box::new(one) as Box<dyn Transform>);
    list::all_examples().into_iter().chain(averages).collect()
}

/// The list of transforms.
mod list {
    use super::*;

    registry! {
        Transform: Box<dyn Transform>, one => Box::new(one);
        "adam" => Adam,
        "clip_by_global_norm" => ClipByGlobalNorm,
        "lars" => Lars,
        "momentum" => Momentum,
        "rmsprop" => Rmsprop,
        "weight_decay" => WeightDecay,
    }
}

#[cfg(test)]
mod tests;
