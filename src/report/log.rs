//! `log.txt`: the events of a run as timestamped messages; and the messages of `-v` on stderr. Both use `tracing`.

use super::{MetricValue, RunEvent, RunSummary, Sink, SlowestProcess, WatchedLayer};
use crate::error::{Result, printable, quantity};
use crate::layers::MetricKind;
use crate::storage::{Fs, OutputFile};
use indicatif::ProgressBar;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

/// The `tracing` target of events, which stderr omits because the progress shows them already.
const EVENTS: &str = "run";

/// The sink that writes events, except steps, to the log.
#[derive(Debug)]
pub struct Log {
    dispatch: Dispatch,
    file: LogFile,
}

impl Log {
    /// Opens a log file for appending; the first log of a process also records the messages of all threads.
    ///
    /// Messages also go to stderr, above the progress bar: warnings with `verbosity` 0, information with 1, details
    /// with 2.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(fs: &Fs, path: &Path, verbosity: u8, bar: ProgressBar) -> Result<Self> {
        let file = LogFile(Arc::new(Mutex::new(fs.append(path)?)));
        let shown = match verbosity {
            0 => LevelFilter::WARN,
            1 => LevelFilter::INFO,
            _ => LevelFilter::DEBUG,
        };
        let to = file.clone();
        let to_file = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || Messages(to.clone()));
        let to_stderr = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .without_time()
            .with_writer(move || Messages(AboveBar(bar.clone())))
            .with_filter(shown)
            .with_filter(filter_fn(|message| message.target() != EVENTS));
        let subscriber =
            tracing_subscriber::registry().with(to_file.with_filter(shown.max(LevelFilter::INFO))).with(to_stderr);
        let dispatch = Dispatch::new(subscriber);
        // The global default can be set only once per process; events reach their own log through `with_default`.
        let _ = tracing::dispatcher::set_global_default(dispatch.clone());
        Ok(Log { dispatch, file })
    }
}

impl Sink for Log {
    fn emit(&mut self, event: &RunEvent) -> Result<()> {
        if let Some(sentence) = event.sentence() {
            tracing::dispatcher::with_default(&self.dispatch, || tracing::info!(target: EVENTS, "{sentence}"));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        // The log is for readers: a run does not depend on it.
        let _ = self.file.lock().sync();
        Ok(())
    }
}

impl MetricValue {
    /// Returns the name and the value, fractions in percent.
    fn in_words(&self) -> String {
        match self.kind {
            MetricKind::Mean => format!("{} {:.4}", self.name, self.value),
            MetricKind::Hits => format!("{} {:.2} %", self.name, 100.0 * self.value),
        }
    }
}

/// Returns sizes, a cosine and shares in words.
fn in_words(sizes: &[(&str, Option<&f64>)], cosine: Option<&f64>, shares: &[(&str, Option<f64>)]) -> String {
    let sizes = sizes.iter().filter_map(|(name, value)| Some(format!("{name} {:.2e}", value.as_ref()?)));
    let cosine = cosine.map(|cosine| format!("cosine {cosine:.2}"));
    let shares = shares.iter().filter_map(|(name, share)| Some(format!("{name} {:.0} %", 100.0 * share.as_ref()?)));
    sizes.chain(cosine).chain(shares).collect::<Vec<_>>().join(", ")
}

impl WatchedLayer {
    fn in_words(&self) -> String {
        let sizes = [("gradient", self.gradient_norm.as_ref()), ("update/weight", self.update_ratio.as_ref())];
        in_words(&sizes, self.cosine.as_ref(), &[("dead", self.dead), ("saturated", self.saturated)])
    }
}

impl SlowestProcess {
    /// Returns the process and its host: `process 3 on node7`.
    fn name(&self) -> String {
        let host = if self.host.is_empty() { String::new() } else { format!(" on {}", self.host) };
        format!("process {}{host}", self.process)
    }

    /// Returns the sentence of a process that has been slow for long.
    pub fn in_words(&self) -> String {
        let (name, behind) = (self.name(), 100.0 * self.behind);
        format!(
            "{name} works {behind:.0} % longer for an update than the median of the processes, and the others wait for it"
        )
    }
}

impl RunSummary {
    fn in_words(&self) -> String {
        let RunSummary { restarts, training_seconds, total_seconds, exposed_communication, slowest } = self;
        let effective = match restarts {
            0 => String::new(),
            _ => format!(
                "; effective training time {:.1} % of {total_seconds:.1} seconds since the first start, {}",
                100.0 * training_seconds / total_seconds,
                quantity(*restarts, "restart")
            ),
        };
        let slowest = slowest.as_ref().map_or(String::new(), |slowest| {
            format!("; slowest: {}, {:.1} % above the median", slowest.name(), 100.0 * slowest.behind)
        });
        let exposed = exposed_communication
            .map_or(String::new(), |seconds| format!("; waited {:.3} ms an update for communication", 1e3 * seconds));
        effective + &exposed + &slowest
    }
}

impl RunEvent {
    /// Returns the event as a sentence, or `None` for steps, which are too many.
    pub fn sentence(&self) -> Option<String> {
        Some(match self {
            RunEvent::Step { .. } | RunEvent::Watch { in_log: false, .. } => return None,
            RunEvent::Watch { step, gradient_norm, update_ratio, cosine, layers, .. } => {
                let all = [("gradient", Some(gradient_norm)), ("update/weight", update_ratio.as_ref())];
                let all = in_words(&all, cosine.as_ref(), &[]);
                let layers = layers.iter().map(|layer| format!("\n    {}: {}", layer.name, layer.in_words()));
                format!("step {step}: {all}{}", layers.collect::<String>())
            }
            RunEvent::Start { name, step, devices, mesh, parameters, precision, threads, version, .. } => {
                let from = if *step == 0 { String::new() } else { format!(", resumed after step {step}") };
                let devices = devices.join(" ");
                let threads = quantity(*threads as u64, "thread");
                format!(
                    "{name}: {parameters} parameters in {precision}, mesh {mesh} on {devices}, {threads} \
                     each, peristyle {version}{from}"
                )
            }
            RunEvent::Eval { step, split, loss, metrics, images } => {
                let metrics: String = metrics.iter().map(|metric| format!(", {}", metric.in_words())).collect();
                format!("step {step}: {split} loss {loss:.4}{metrics} of {}", quantity(*images, "image"))
            }
            RunEvent::Checkpoint { step, path } => format!("step {step}: checkpoint {path}"),
            RunEvent::Note { text } => format!("note: {text}"),
            RunEvent::End { steps, seconds, input_wait, summary, reason, error } => {
                let error = error.as_ref().map_or(String::new(), |error| format!(": {error}"));
                let steps = quantity(*steps, "step");
                let waited = 100.0 * input_wait / seconds;
                let waited = if waited.is_finite() {
                    format!(", {waited:.1} % of them waiting for data")
                } else {
                    String::new()
                };
                format!("{reason} after {steps} in {seconds:.1} seconds{waited}{}{error}", summary.in_words())
            }
        })
    }
}

/// Writes to the log; lines that cannot be written, as on a full disk, are lost.
#[derive(Debug, Clone)]
struct LogFile(Arc<Mutex<OutputFile>>);

impl LogFile {
    fn lock(&self) -> MutexGuard<'_, OutputFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.lock().write_all(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes messages, one with each call, whatever names, paths and values are in them.
struct Messages<W>(W);

impl<W: Write> Write for Messages<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let message = printable(text.trim_end_matches('\n')) + "\n";
        self.0.write_all(message.as_bytes())?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Writes to stderr above the progress bar.
struct AboveBar(ProgressBar);

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.suspend(|| std::io::stderr().write(bytes))
    }
    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::reporter::tests::{Folder, eval, start, step};
    use super::*;

    #[test]
    fn each_run_has_its_own_log_without_steps() {
        let folder = Folder::new("log");
        let log = |name: &str| Log::open(&Fs::default(), &folder.0.join(name), 0, ProgressBar::hidden()).unwrap();
        let (mut a, mut b) = (log("a.txt"), log("b.txt"));
        a.emit(&start(0)).unwrap();
        a.emit(&step(1)).unwrap();
        b.emit(&eval(3)).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.0.join(name)).unwrap();
        let (a, b) = (read("a.txt"), read("b.txt"));
        assert_eq!((a.lines().count(), b.lines().count()), (1, 1), "{a}{b}");
        assert!(a.contains("INFO run: digits: 1234 parameters in f32, mesh 2x1 on cpu cpu, 2 threads each"), "{a}");
        assert!(b.contains("step 3: test loss 0.1250, top1 97.50 %, top5 100.00 % of 360 images"), "{b}");
    }
}
