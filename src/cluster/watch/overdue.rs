//! Who is to blame when a collective takes too long.

use super::loss::printable;
use super::message::Message;
use super::progress::Reached;
use crate::cluster::words::{in_seconds, name_ranks};
use std::time::{Duration, Instant};

/// The longest name of a collective that is passed on, in bytes.
const LONGEST_NAME: usize = 200;

/// A collective for which a process has waited too long.
#[derive(Debug, Clone)]
pub(super) struct Overdue {
    /// The process.
    rank: usize,
    /// The number of the collective in that process.
    sequence: u64,
    name: String,
    waited: Duration,
    /// When this was reported.
    pub reported: Instant,
}

impl Overdue {
    pub fn new(rank: usize, sequence: u64, name: &str, waited: Duration, reported: Instant) -> Self {
        Overdue { rank, sequence, name: printable(name, LONGEST_NAME), waited, reported }
    }

    /// Returns the message to process 0.
    pub fn to_message(&self) -> Message {
        Message::Waited { sequence: self.sequence, name: self.name.clone(), seconds: self.waited.as_secs_f64() }
    }

    /// Names the collective in a sentence.
    pub fn what(&self) -> String {
        format!("collective {} \"{}\"", self.sequence, self.name)
    }

    /// Returns who is to blame and why, by the last known place of each process.
    ///
    /// It is the process that has begun the fewest collectives: if processes take part in different collectives, so that their numbers do
    /// not mean the same, the flight records say it with certainty. If all have begun this one, it is the process that reported it: others
    /// may have left it behind, and if not, none of them is known to be at fault.
    pub fn culprit(&self, reached: &[Reached]) -> (usize, String) {
        let (what, waited) = (self.what(), in_seconds(self.waited));
        // What the reporter says is newer than its last sign of life.
        let begun = |rank: usize| if rank == self.rank { self.sequence } else { reached[rank].begun };
        let fewest = (0..reached.len()).map(begun).min().unwrap_or_default();
        let most = (0..reached.len()).map(begun).max().unwrap_or_default();
        if fewest >= self.sequence && most > self.sequence {
            return (
                self.rank,
                format!("did not get beyond {what} within {waited}, as others did: its device may hang"),
            );
        }
        if fewest >= self.sequence {
            return (
                self.rank,
                format!(
                    "waited {waited} for {what}, which all processes had begun: a device, or the network between them, may have failed"
                ),
            );
        }
        let behind: Vec<usize> = (0..reached.len()).filter(|rank| begun(*rank) == fewest).collect();
        let others = match &behind[1..] {
            [] => String::new(),
            others => format!(", nor did {}", name_ranks(others)),
        };
        (behind[0], format!("did not begin {what} within {waited}, for which process {} waits{others}", self.rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn culprit(begun: &[u64]) -> (usize, String) {
        let reached: Vec<Reached> = begun.iter().map(|begun| Reached { step: 1, begun: *begun, ended: 0 }).collect();
        Overdue::new(1, 1234, "all-reduce conv1", Duration::from_secs(600), Instant::now()).culprit(&reached)
    }

    #[test]
    fn who_has_begun_the_fewest_collectives_is_to_blame() {
        let (rank, reason) = culprit(&[1234, 1230, 1233, 1234]);
        assert_eq!(rank, 2);
        assert_eq!(
            reason,
            "did not begin collective 1234 \"all-reduce conv1\" within 600 s, for which process 1 waits"
        );
        let (rank, reason) = culprit(&[1235, 1234, 7, 7, 7, 1233]);
        assert!(rank == 2 && reason.ends_with(", nor did processes 3 and 4"), "{reason}");
    }

    #[test]
    fn if_all_have_begun_it_no_other_process_is_blamed() {
        let (rank, reason) = culprit(&[1234, 1233, 1234]);
        assert!(rank == 1 && reason.contains("which all processes had begun"), "{reason}");
        let (rank, reason) = culprit(&[1234, 1233, 1240]);
        assert!(rank == 1 && reason.ends_with("as others did: its device may hang"), "{reason}");
    }
}
