//! Schedules: how the learning rate changes during a run. A schedule is a factor of the rate that depends on the progress
//! of the run, and on what it has observed if it keeps a state. Several are applied in order: each multiplies the rate, and
//! one that delays others, as `warmup` does, moves their beginning to its end.
//!
//! To add a schedule: write `optim/schedules/x.rs` with a struct that implements [`Schedule`], and add one line to the list
//! in `schedules!` below.

mod constant;
mod cosine;
mod plateau;
mod polynomial;
mod schedule;
mod step;
mod warmup;

pub use constant::Constant;
pub use cosine::Cosine;
pub use plateau::Plateau;
pub use polynomial::Polynomial;
pub use schedule::{Monitor, Observation, RunProgress, Schedule, ScheduleList, ScheduleState};
pub use step::StepDecay;
pub use warmup::Warmup;

use serde::Deserialize;

/// The list of schedules: the key in the file, and the type.
macro_rules! schedules {
    ($($kind:literal => $type:ty),* $(,)?) => {
        /// The keys of all schedules.
        pub const KEYS: &[&str] = &[$($kind),*];

        /// Reads the settings of the schedule named `kind`. Returns `None` if there is no such schedule.
        pub fn read<'de, D: serde::Deserializer<'de>>(
            kind: &str,
            settings: D,
        ) -> Option<Result<Box<dyn Schedule>, D::Error>> {
            match kind {
                $($kind => Some(<$type>::deserialize(settings).map(|s| Box::new(s) as Box<dyn Schedule>)),)*
                _ => None,
            }
        }

        /// Returns the key and the settings of all schedules.
        pub fn all_settings() -> Vec<(&'static str, Vec<crate::settings::Setting>)> {
            vec![$(($kind, <$type as crate::settings::Settings>::settings())),*]
        }

        /// Returns the examples of all schedules.
        pub fn all_examples() -> Vec<Box<dyn Schedule>> {
            let mut all: Vec<Box<dyn Schedule>> = Vec::new();
            $(all.extend(<$type>::examples().into_iter().map(|s| Box::new(s) as Box<dyn Schedule>));)*
            all
        }
    };
}

schedules! {
    "constant" => Constant,
    "cosine" => Cosine,
    "plateau" => Plateau,
    "polynomial" => Polynomial,
    "step" => StepDecay,
    "warmup" => Warmup,
}

#[cfg(test)]
mod tests;
