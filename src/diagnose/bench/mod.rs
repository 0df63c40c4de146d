//! Benchmarks of the training step, its layers, its all-reduces and its data, compared with the machine's peak rates.
//!
//! A benchmark runs the same program as `train`, on one batch of noise. Each repeat yields the median of its steps;
//! reported numbers are the median over the repeats, with minimum and maximum. The peak rates are measured in the same
//! run. Every report is a struct whose fields have the names of the keys in the JSON.

mod allreduce;
mod input;
mod layers;
mod limits;
mod peak;
mod processes;
mod spread;
mod step;
mod workload;

pub use allreduce::{AllReduce, AllReduces, all_reduce};
pub use input::{InputSpeed, InputStage, input};
pub use layers::{LayerTime, Layers, layers};
pub use peak::Limits;
pub use processes::{ProcessReduce, ProcessReduces, all_reduce_between, between_processes};
pub use spread::{Effort, Spread};
pub use step::{StepTime, flops_per_image, step};
pub use workload::{About, Bench};
