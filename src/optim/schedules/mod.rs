//! Schedules: how the learning rate changes during a run. A schedule is a factor of the rate that depends on the progress
//! of the run, and on what it has observed if it keeps a state. Several are applied in order: each multiplies the rate, and
//! one that delays others, as `warmup` does, moves their beginning to its end.
//!
//! To add a schedule: write `optim/schedules/x.rs` with a struct that implements [`Schedule`], and add one line to the list
//! below.

mod constant;
mod cosine;
mod dexp;
mod exponential;
mod inv;
mod inverse;
mod multi_step;
mod one_cycle;
mod plateau;
mod polynomial;
mod schedule;
mod step;
mod warmup;

pub use constant::Constant;
pub use cosine::Cosine;
pub use dexp::Dexp;
pub use exponential::Exponential;
pub use inv::Inv;
pub use inverse::Inverse;
pub use multi_step::MultiStep;
pub use one_cycle::OneCycle;
pub use plateau::Plateau;
pub use polynomial::Polynomial;
pub use schedule::{Monitor, Observation, RunProgress, Schedule, ScheduleList, ScheduleState};
pub use step::StepDecay;
pub use warmup::Warmup;

use crate::settings::registry;

registry! {
    Schedule: Box<dyn Schedule>, one => Box::new(one);
    "constant" => Constant,
    "cosine" => Cosine,
    "dexp" => Dexp,
    "exponential" => Exponential,
    "inv" => Inv,
    "inverse" => Inverse,
    "multi_step" => MultiStep,
    "one_cycle" => OneCycle,
    "plateau" => Plateau,
    "polynomial" => Polynomial,
    "step" => StepDecay,
    "warmup" => Warmup,
}

#[cfg(test)]
mod tests;
