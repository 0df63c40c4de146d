//! How long processes wait for each other.

use std::time::Duration;

/// How long processes wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until all have started.
    pub start: Duration,
    /// For a sign of life of each.
    pub silence: Duration,
    /// For a collective.
    pub collective: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            start: Duration::from_secs(30),
            silence: Duration::from_secs(10),
            collective: Duration::from_secs(600),
        }
    }
}
