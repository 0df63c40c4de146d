//! Reporting: sends the typed events of a run to sinks, regardless of what caused them.
//!
//! To add a sink: write `report/x.rs` with a struct that implements [`Sink`], and open it in [`Reporter::open`].

mod json_lines;
mod log;
mod progress;

pub use json_lines::{JsonLines, cut_back};
pub use log::Log;
pub use progress::Progress;

use crate::error::{Error, Result};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// An event of a run. The names of variants and fields are those of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// The run starts or resumes.
    Start {
        /// The run's name.
        name: String,
        /// Updates already done: 0, or those of the checkpoint that the run resumes from.
        step: u64,
        /// The devices, as the user names them.
        devices: Vec<String>,
        /// The mesh, as data x columns.
        mesh: String,
        /// Number of values in all parameters.
        parameters: u64,
        /// The precision, as written in the configuration.
        precision: String,
        /// Threads of each device.
        threads: usize,
        /// The version of peristyle.
        version: String,
    },
    /// An update was made.
    Step {
        /// Its number, from 1.
        step: u64,
        /// The epoch, from 0.
        epoch: u64,
        /// Mean loss of the global batch, before the update.
        loss: f64,
        /// The learning rate.
        lr: f64,
        /// Training images per second since the previous step event.
        images_per_second: f64,
        /// Seconds since the run started or resumed.
        seconds: f64,
    },
    /// The network was evaluated on a set of images.
    Eval {
        /// Updates done.
        step: u64,
        /// The set: `test` or `validation`.
        split: String,
        /// Mean loss.
        loss: f64,
        /// Fraction of images whose first guess is right.
        top1: f64,
        /// Fraction of images with the right class among the first five guesses.
        top5: f64,
        /// Number of images.
        images: u64,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Updates done.
        step: u64,
        /// The checkpoint's folder inside the run directory.
        path: String,
    },
    /// A note for the user, logged once: a setting or a file was skipped, changed or replaced by a fallback.
    Note {
        /// The text of the note.
        text: String,
    },
    /// The run ended.
    End {
        /// Updates done.
        steps: u64,
        /// Seconds since the run started or resumed.
        seconds: f64,
        /// The reason: `finished`, `interrupted` or `failed`.
        reason: String,
        /// The error of a failed run.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// A destination of events.
pub trait Sink: Send {
    /// Writes an event.
    ///
    /// # Errors
    /// When it cannot be written.
    fn emit(&mut self, event: &RunEvent) -> Result<()>;

    /// Flushes all events to the disk, if the sink guarantees that they survive a power cut.
    ///
    /// # Errors
    /// When it cannot be written.
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Where and how verbosely a run reports its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReporterOptions {
    /// Updates of the whole run.
    pub steps: u64,
    /// The step of the checkpoint from which the run resumes; `metrics.jsonl` is truncated to it.
    pub resume: Option<u64>,
    /// The number of `-v`: 0 shows only the progress on stderr, 1 also messages, 2 also details.
    pub verbosity: u8,
}

/// The sinks of a run.
#[derive(Default)]
pub struct Reporter {
    sinks: Vec<Box<dyn Sink>>,
}

impl Reporter {
    /// Opens the sinks of a run directory: `metrics.jsonl`, `log.txt`, and progress on stderr. Creates the directory. A
    /// run that does not resume replaces the metrics of an earlier one.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn open(dir: &Path, options: ReporterOptions) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| Error::io(dir, "create", e))?;
        let metrics = dir.join("metrics.jsonl");
        cut_back(&metrics, options.resume)?;
        let progress = Progress::stderr(options.steps);
        let log = Log::open(&dir.join("log.txt"), options.verbosity, progress.bar())?;
        let metrics = JsonLines::append(&metrics)?;
        Ok(Reporter { sinks: vec![Box::new(metrics), Box::new(log), Box::new(progress)] })
    }

    /// Adds a sink.
    pub fn with(mut self, sink: impl Sink + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Sends an event to all sinks.
    ///
    /// # Errors
    /// The first of the sinks' errors; the other sinks still receive the event.
    pub fn emit(&mut self, event: &RunEvent) -> Result<()> {
        self.sinks.iter_mut().map(|sink| sink.emit(event)).fold(Ok(()), Result::and)
    }

    /// Flushes all sinks, so that no checkpoint includes steps that the metrics could lose in a power cut.
    ///
    /// # Errors
    /// The first of the sinks' errors.
    pub fn sync(&mut self) -> Result<()> {
        self.sinks.iter_mut().map(|sink| sink.sync()).fold(Ok(()), Result::and)
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reporter({} sinks)", self.sinks.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A folder of a test, removed at its end.
    pub(super) struct Folder(pub PathBuf);

    impl Folder {
        pub fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("peristyle-report-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    pub(super) fn start(step: u64) -> RunEvent {
        RunEvent::Start {
            name: "digits".into(),
            step,
            devices: vec!["cpu".into(), "cpu".into()],
            mesh: "2x1".into(),
            parameters: 1234,
            precision: "f32".to_string(),
            threads: 2,
            version: "0.1.0".into(),
        }
    }

    pub(super) fn step(step: u64) -> RunEvent {
        RunEvent::Step { step, epoch: 0, loss: 2.25, lr: 0.01, images_per_second: 100.0, seconds: 0.5 }
    }

    pub(super) fn eval(step: u64) -> RunEvent {
        RunEvent::Eval { step, split: "test".into(), loss: 0.125, top1: 0.975, top5: 1.0, images: 360 }
    }

    #[test]
    fn a_run_directory_holds_metrics_and_log() {
        let folder = Folder::new("open");
        let dir = folder.0.join("run");
        let report = |resume, events: &[RunEvent]| {
            let mut reporter = Reporter::open(&dir, ReporterOptions { steps: 3, resume, verbosity: 0 }).unwrap();
            events.iter().for_each(|event| reporter.emit(event).unwrap());
        };
        report(None, &[start(0), step(1), step(2), RunEvent::Note { text: "one device: split has no effect".into() }]);
        report(Some(1), &[start(1), step(2), eval(2)]);
        let metrics = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        let names: Vec<String> = metrics.lines().map(|line| line.split('"').nth(3).unwrap().to_string()).collect();
        assert_eq!(names, ["start", "step", "start", "step", "eval"]);
        let log = fs::read_to_string(dir.join("log.txt")).unwrap();
        assert!(log.contains("note: one device: split has no effect") && log.contains("97.50 %"), "{log}");
        report(None, &[start(0)]);
        assert_eq!(fs::read_to_string(dir.join("metrics.jsonl")).unwrap().lines().count(), 1);
    }
}
