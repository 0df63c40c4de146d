//! Sends the events of a run to its sinks.

use super::event::{RunEvent, Sink};
use super::{JsonLines, Log, Progress, cut_back};
use crate::error::{Error, Result};
use std::fs;
use std::path::Path;

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
pub(super) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A folder of a test, removed at its end.
    pub(in crate::report) struct Folder(pub PathBuf);

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

    pub(in crate::report) fn start(step: u64) -> RunEvent {
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

    pub(in crate::report) fn step(step: u64) -> RunEvent {
        RunEvent::Step { step, epoch: 0, loss: 2.25, lr: 0.01, images_per_second: 100.0, seconds: 0.5 }
    }

    pub(in crate::report) fn eval(step: u64) -> RunEvent {
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
