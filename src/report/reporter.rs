//! Sends the events of a run to its sinks.

use super::event::{RunEvent, Sink};
use super::{JsonLines, Log, Patience, Progress, cut_back};
use crate::error::Result;
use crate::storage::Fs;
use indicatif::ProgressBar;
use std::path::Path;

/// Where and how verbosely a run reports its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReporterOptions {
    /// Updates of the whole run.
    pub steps: u64,
    /// The step of the checkpoint from which the run resumes; `metrics.jsonl` is truncated to it.
    pub resume: Option<u64>,
    /// What follows when the metrics cannot be written.
    pub patience: Patience,
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
    pub fn open(fs: &Fs, dir: &Path, options: ReporterOptions) -> Result<Self> {
        fs.create_folders(dir)?;
        let path = dir.join("metrics.jsonl");
        let left = cut_back(fs, &path, options.resume)?;
        let progress = Progress::stderr(options.steps);
        let log = Log::open(fs, &dir.join("log.txt"), options.verbosity, progress.bar())?;
        let mut metrics = JsonLines::append(fs, &path, options.patience)?;
        if let Some(step) = options.resume.filter(|&step| step > 0 && !left.checkpoint) {
            // A kill after the checkpoint was complete can lose its line.
            metrics.emit(&RunEvent::Checkpoint { step, path: format!("checkpoints/step-{step:08}") })?;
        }
        let mut reporter = Reporter { sinks: vec![Box::new(metrics), Box::new(log), Box::new(progress)] };
        if let Some(line) = left.damaged {
            let text =
                format!("{}: line {line} is damaged, perhaps with others after it; they are kept", path.display());
            reporter.emit(&RunEvent::Note { text })?;
        }
        Ok(reporter)
    }

    /// Opens the log of another process than the first of several: `log-rank-007.txt`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn of_process(fs: &Fs, dir: &Path, rank: usize, verbosity: u8) -> Result<Self> {
        let log = Log::open(fs, &dir.join(format!("log-rank-{rank:03}.txt")), verbosity, ProgressBar::hidden())?;
        Ok(Reporter { sinks: vec![Box::new(log)] })
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
    use crate::layers::MetricKind;
    use crate::report::MetricValue;
    use std::fs;
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
            steps: 10,
            samples: 1437,
            classes: 10,
            seed: 3,
            host: "node7".into(),
            processes: 1,
            precision: "f32".to_string(),
            threads: 2,
            version: "0.1.0".into(),
        }
    }

    fn metrics(values: [f64; 2]) -> Vec<MetricValue> {
        let metric = |(name, value): (&str, f64)| MetricValue { name: name.into(), value, kind: MetricKind::Hits };
        ["top1", "top5"].into_iter().zip(values).map(metric).collect()
    }

    pub(in crate::report) fn step(step: u64) -> RunEvent {
        let (metrics, images_per_second) = (metrics([0.5, 0.75]), 100.0);
        RunEvent::Step {
            step,
            epoch: 0,
            loss: 2.25,
            metrics,
            lr: 0.01,
            images_per_second,
            seconds: 0.5,
            input_wait: 0.0,
            skipped: false,
        }
    }

    pub(in crate::report) fn eval(step: u64) -> RunEvent {
        RunEvent::Eval { step, split: "test".into(), loss: 0.125, metrics: metrics([0.975, 1.0]), images: 360 }
    }

    #[test]
    fn a_run_directory_holds_metrics_and_log() {
        let folder = Folder::new("open");
        let dir = folder.0.join("run");
        let report = |resume, events: &[RunEvent]| {
            let mut reporter = Reporter::open(
                &Fs::default(),
                &dir,
                ReporterOptions { steps: 3, resume, patience: Patience::None, verbosity: 0 },
            )
            .unwrap();
            events.iter().for_each(|event| reporter.emit(event).unwrap());
        };
        report(None, &[start(0), step(1), step(2), RunEvent::Note { text: "one device: split has no effect".into() }]);
        report(Some(1), &[start(1), step(2), eval(2)]);
        let metrics = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        let names: Vec<String> = metrics.lines().map(|line| line.split('"').nth(3).unwrap().to_string()).collect();
        assert_eq!(names, ["start", "step", "checkpoint", "start", "step", "eval"]);
        let log = fs::read_to_string(dir.join("log.txt")).unwrap();
        assert!(log.contains("note: one device: split has no effect") && log.contains("97.50 %"), "{log}");
        report(None, &[start(0)]);
        assert_eq!(fs::read_to_string(dir.join("metrics.jsonl")).unwrap().lines().count(), 1);
    }
}
