//! How far a process has come.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A place in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reached {
    /// The step that it works on.
    pub step: u64,
    /// The number of the last collective that it has begun, from 1; 0 before the first.
    pub begun: u64,
    /// The highest number of a collective that it has ended; 0 before the first.
    pub ended: u64,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at step {}, collective {}", self.step, self.begun)
    }
}

/// The present place of this process, which its owner updates and the watch reports to process 0.
#[derive(Debug, Default)]
pub struct JobProgress {
    step: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
}

impl JobProgress {
    /// Declares that a step begins.
    pub fn at_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// Declares that a collective begins. Numbers may arrive out of order from several threads.
    pub fn begin(&self, sequence: u64) {
        self.begun.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Declares that a collective has ended.
    pub fn end(&self, sequence: u64) {
        self.ended.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Returns the place.
    pub fn reached(&self) -> Reached {
        Reached {
            step: self.step.load(Ordering::Relaxed),
            begun: self.begun.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
        }
    }
}
