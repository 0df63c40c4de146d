//! Reporting: sends the typed events of a run to sinks, regardless of what caused them.
//!
//! To add a sink: write `report/x.rs` with a struct that implements [`Sink`], and open it in [`Reporter::open`].

mod event;
mod json_lines;
mod log;
mod progress;
mod reporter;

pub use event::{MetricValue, RunEvent, RunSummary, Sink, SlowestProcess, WatchedLayer};
pub use json_lines::{JsonLines, Left, Patience, cut_back};
pub use log::Log;
pub use progress::Progress;
pub use reporter::{Reporter, ReporterOptions};
