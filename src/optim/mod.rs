//! Turns gradients into updates: a chain of transforms, and the schedules of the learning rate. Does not depend on
//! networks or layers; works on flat regions in which each parameter's part is a [`Segment`].
//!
//! To add a transform: write `optim/x.rs` with a struct that implements [`Transform`], its device function in
//! `kernels/optim/x.cuh`, and one line in the list in `transforms!` below. For schedules,
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
pub use momentum::Momentum;
pub use rmsprop::Rmsprop;
pub use role::{Slot, UpdateArgs, UpdateRole};
pub use schedules::{Monitor, Observation, RunProgress, ScheduleList, ScheduleState};
pub use transform::{Block, Elements, Norm, Norms, Slots, Transform, is_single, power};
pub use weight_decay::WeightDecay;

use serde::Deserialize;

/// The list of transforms: the key in the file, and the type.
macro_rules! transforms {
    ($($kind:literal => $type:ty),* $(,)?) => {
        /// The keys of all transforms.
        pub const KEYS: &[&str] = &[$($kind),*];

        /// Reads the settings of the transform named `kind`. Returns `None` if there is no such transform.
        pub fn read<'de, D: serde::Deserializer<'de>>(
            kind: &str,
            settings: D,
        ) -> Option<Result<Box<dyn Transform>, D::Error>> {
            match kind {
                $($kind => Some(<$type>::deserialize(settings).map(|t| Box::new(t) as Box<dyn Transform>)),)*
                _ => None,
            }
        }

        /// Returns the key and the settings of all transforms.
        pub fn all_settings() -> Vec<(&'static str, Vec<crate::settings::Setting>)> {
            vec![$(($kind, <$type as crate::settings::Settings>::settings())),*]
        }

        /// Returns the examples of all transforms, and of the average, which is not in the list.
        pub fn all_examples() -> Vec<Box<dyn Transform>> {
            let mut all: Vec<Box<dyn Transform>> = Vec::new();
            $(all.extend(<$type>::examples().into_iter().map(|t| Box::new(t) as Box<dyn Transform>));)*
            all.extend(Ema::examples().into_iter().map(|t| Box::new(t) as Box<dyn Transform>));
            all
        }
    };
}

transforms! {
    "adam" => Adam,
    "clip_by_global_norm" => ClipByGlobalNorm,
    "lars" => Lars,
    "momentum" => Momentum,
    "rmsprop" => Rmsprop,
    "weight_decay" => WeightDecay,
}

#[cfg(test)]
mod tests;
