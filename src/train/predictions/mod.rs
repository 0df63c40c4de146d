//! Predictions for single samples in an evaluation, and what can be said of them.
//!
//! What the main loss reads is shown while the evaluation programs run (`outputs.rs`); the host makes probabilities of it (`scores.rs`), counts
//! (`report.rs`) and writes a file (`file.rs`). For a sample, nothing is kept but its part of the counts.

mod asked;
mod averages;
mod collected;
mod file;
mod mistakes;
mod names;
mod outputs;
mod report;
mod scores;

pub use asked::{Answer, Asked, Question};
pub use collected::Predictions;
pub use file::PredictionFile;
pub use mistakes::Mistake;
pub use names::class_name;
pub use outputs::{BatchOutputs, OutputKind};
pub use report::{CALIBRATION_BINS, ClassMeans, ClassResult, Confusion, Report};
pub use scores::ClassScores;
