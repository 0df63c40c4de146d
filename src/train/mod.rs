//! Training: the loop, evaluation, checkpoints, resume. Controls what happens around a step, not within one.

pub mod checkpoint;
mod devices;
pub mod directory;
pub mod evaluate;
pub mod exchange;
mod job;
pub mod launcher;
pub mod owner;
mod run;
pub mod signals;
mod start;
pub mod weights;

pub use job::{DataPolicy, Job};
pub use run::{Ended, Run};
pub use signals::Stop;

#[cfg(test)]
mod tests;
