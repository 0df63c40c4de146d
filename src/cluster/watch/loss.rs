//! A lost process.

use super::progress::Reached;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest reason that is passed on, in bytes.
const LONGEST_REASON: usize = 8 << 10;
/// The longest name of a host that is passed on, as in Linux.
const LONGEST_HOST: usize = 64;

/// Where a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// The name of its host.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
}

/// A process that is lost, and with it the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The process.
    pub rank: usize,
    /// The name of its host.
    pub host: String,
    /// What happened, as the predicate of a sentence about the process.
    pub reason: String,
    /// The step that it was last known to work on.
    pub step: u64,
    /// The last collective that it was known to have begun.
    pub sequence: u64,
}

impl Loss {
    /// Creates the loss of a process that was last known at `reached`.
    pub(super) fn new(rank: usize, host: &str, reason: &str, reached: Reached) -> Self {
        let (host, reason) = (printable(host, LONGEST_HOST), printable(reason, LONGEST_REASON));
        Loss { rank, host, reason, step: reached.step, sequence: reached.begun }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loss { rank, host, reason, step, sequence } = self;
        write!(f, "process {rank} (host {host}) {reason}")?;
        // It may not have said yet where it is.
        if (*step, *sequence) == (0, 0) { Ok(()) } else { write!(f, "; it was at step {step}, collective {sequence}") }
    }
}

/// Returns text of at most `longest` bytes without control characters.
pub(super) fn printable(text: &str, longest: usize) -> String {
    let mut short = String::new();
    for character in text.chars() {
        let character = if character.is_control() { ' ' } else { character };
        if short.len() + character.len_utf8() > longest {
            break;
        }
        short.push(character);
    }
    short
}

/// Returns the name of a host as it is passed on.
pub(super) fn host_text(name: &str) -> String {
    printable(name, LONGEST_HOST)
}
