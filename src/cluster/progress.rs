//! How far a process has come.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A place in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reached {
    /// The update that it works on.
    pub step: u64,
    /// The collectives with other processes that it has begun.
    pub collectives: u64,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at step {}, collective {}", self.step, self.collectives)
    }
}

/// The present place of a process.
#[derive(Debug, Default)]
pub struct JobProgress {
    step: AtomicU64,
    collectives: AtomicU64,
}

impl JobProgress {
    /// Declares that an update begins.
    pub fn at_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// Declares that a collective begins; returns its number, from 1.
    pub fn begin_collective(&self) -> u64 {
        self.collectives.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the place.
    pub fn position(&self) -> Reached {
        Reached { step: self.step.load(Ordering::Relaxed), collectives: self.collectives.load(Ordering::Relaxed) }
    }
}
