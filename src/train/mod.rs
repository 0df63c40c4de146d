//! Training: the loop, evaluation, checkpoints, resume. Controls what happens around a step, not within one.

pub mod changes;
pub mod checkpoint;
mod consent;
mod devices;
pub mod directory;
pub mod evaluate;
pub mod exchange;
mod fit;
mod format_1;
mod hard_examples;
mod headers;
mod initial;
mod job;
mod lsuv;
pub mod manifest;
mod matching;
mod memory;
mod method_run;
mod nonfinite;
pub mod owner;
mod pace;
pub mod predictions;
mod ranges;
mod resume;
mod run;
mod sample_losses;
pub mod signals;
mod start;
pub mod team;
mod together;
mod updates;
pub mod watch;
pub mod weights;
mod whitening;

pub use headers::DataPolicy;
pub use job::Job;
pub use memory::ProcessMemory;
pub use run::{EvaluatedWeights, Records, ResumeOptions, Run};
pub use signals::Stop;
pub use updates::Ended;

#[cfg(test)]
mod tests;
