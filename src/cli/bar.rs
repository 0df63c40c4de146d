//! The progress bar of commands that compute for a while.

use crate::error::printable;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};

/// A bar that shows how much is done, on a terminal alone.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(all: usize, what: &str) -> Self {
        if !stderr().is_terminal() {
            return Progress(ProgressBar::hidden());
        }
        let template = format!("{{msg}}{{wide_bar}} {{pos}}/{{len}} {what}");
        let style = ProgressStyle::with_template(&template).expect("the template is well formed");
        Progress(ProgressBar::with_draw_target(Some(all as u64), ProgressDrawTarget::stderr()).with_style(style))
    }

    /// Shows what is being done, before the bar.
    pub(super) fn at_work_on(&self, what: &str) {
        self.0.set_message(printable(what));
    }

    /// Shows that one more is done.
    pub(super) fn step(&self) {
        self.0.inc(1);
    }

    /// Shows that so many are done.
    pub(super) fn at(&self, done: usize) {
        self.0.set_position(done as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
