//! Experiments: variants of configurations, trained with several seeds, drawn together and compared with what is expected of them.
//! The command is `peristyle compare`; docs/EXPERIMENTS.md describes the file.

mod canvas;
mod course;
mod curves;
mod experiment;
mod file;
mod finding;
mod names;
mod path;
mod pictures;
mod quantity;
mod run;

pub use course::{Course, median};
pub use experiment::{
    Condition, Expectation, Experiment, ExperimentVariant, Horizontal, Outline as ExperimentOutline, Picture,
};
pub use finding::{Band, Finding};
pub use quantity::{MeasuredSet, Moment, Quantity, shown};
pub use run::{Comparison, ExperimentProgress};
