//! Progress on stderr: a bar on a terminal, otherwise an occasional line.

use super::{RunEvent, Sink};
use crate::error::{Result, printable};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between two updates of the bar.
const REDRAW: Duration = Duration::from_millis(50);
/// Time between two lines if there is no bar.
const LINE: Duration = Duration::from_secs(10);

/// The sink that shows the progress of a run. Evaluations, notes and checkpoints are always shown.
pub struct Progress {
    bar: ProgressBar,
    /// The destination of lines; `None` if there is a bar.
    lines: Option<Box<dyn Write + Send>>,
    steps: u64,
    shown: Option<Instant>,
}

impl Progress {
    /// Shows the progress of a run of `steps` updates on stderr.
    pub fn stderr(steps: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::lines(steps, std::io::stderr());
        }
        let style = ProgressStyle::with_template("{wide_bar} {msg}, {eta} left").expect("the template is well formed");
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr()).with_style(style);
        Progress { bar, lines: None, steps, shown: None }
    }

    /// Writes plain lines: the first step, then at most one line every ten seconds.
    pub fn lines(steps: u64, out: impl Write + Send + 'static) -> Self {
        Progress { bar: ProgressBar::hidden(), lines: Some(Box::new(out)), steps, shown: None }
    }

    /// Returns the bar, so that others can write above it; a hidden one if there is no terminal.
    pub fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    fn print(&mut self, line: &str) {
        let line = printable(line);
        // A closed stderr must not end the run.
        let _ = match &mut self.lines {
            Some(out) => writeln!(out, "{line}"),
            None => self.bar.suspend(|| writeln!(std::io::stderr(), "{line}")),
        };
    }
}

impl Sink for Progress {
    fn emit(&mut self, event: &RunEvent) -> Result<()> {
        match event {
            RunEvent::Step { step, epoch, loss, lr, images_per_second, .. } => {
                let wait = if self.lines.is_some() { LINE } else { REDRAW };
                if self.shown.is_some_and(|shown| shown.elapsed() < wait) {
                    return Ok(());
                }
                self.shown = Some(Instant::now());
                let steps = self.steps;
                let text = format!(
                    "step {step}/{steps}, epoch {epoch}, loss {loss:.4}, lr {}, {images_per_second:.0} images/s",
                    // Rounded, because 0.01 * 0.2 * 0.2 is 0.0004000000000000001.
                    *lr as f32
                );
                if self.lines.is_some() {
                    self.print(&text);
                } else {
                    self.bar.set_position(*step);
                    self.bar.set_message(text);
                }
            }
            RunEvent::Start { step, .. } => {
                self.bar.set_position(*step);
                self.bar.reset_eta();
            }
            RunEvent::End { error, .. } => {
                self.bar.finish_and_clear();
                if error.is_some() {
                    // The caller that receives the error prints it.
                    return Ok(());
                }
            }
            RunEvent::Eval { .. } | RunEvent::Checkpoint { .. } | RunEvent::Note { .. } | RunEvent::Watch { .. } => {}
        }
        if let Some(line) = event.sentence() {
            self.print(&line);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Progress({} of {} steps)", self.bar.position(), self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reporter::tests::{eval, start, step};
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn without_a_terminal_steps_are_few_and_evaluations_are_all_shown() {
        let page = Page::default();
        let mut progress = Progress::lines(100, page.clone());
        progress.emit(&start(0)).unwrap();
        (1..=100).for_each(|i| progress.emit(&step(i)).unwrap());
        progress.emit(&eval(50)).unwrap();
        progress.emit(&eval(100)).unwrap();
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[1], "step 1/100, epoch 0, loss 2.2500, lr 0.01, 100 images/s");
        assert!(lines[2].starts_with("step 50: test loss") && lines[3].starts_with("step 100: test loss"));
    }
}
