//! What the processes of a team agree on, so that all of them stop and save at the same place.

use crate::cluster::{PendingSum, Team};
use crate::error::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::sync::Arc;

/// The signals of which processes tell each other; the first that any of them got counts.
const SIGNALS: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1];

/// What a process wishes, or any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wishes {
    /// The run is to end.
    pub requested: bool,
    /// The signal that has arrived; 0 if none has.
    pub signal: i32,
    /// The time of the run is over.
    pub out_of_time: bool,
    /// A checkpoint is due by the clock.
    pub saves: bool,
}

impl Wishes {
    /// Returns a count for each wish, so that sums over processes show whether any has it.
    fn counts(self) -> Vec<f64> {
        let others = [self.requested, self.out_of_time, self.saves];
        let signals = SIGNALS.map(|signal| signal == self.signal);
        others.into_iter().chain(signals).map(f64::from).collect()
    }

    fn of_counts(counts: &[f64]) -> Self {
        let any = |index: usize| counts[index] > 0.0;
        let signal = (0..SIGNALS.len()).find(|&index| any(3 + index)).map_or(0, |index| SIGNALS[index]);
        Wishes { requested: any(0), out_of_time: any(1), saves: any(2), signal }
    }
}

/// The wishes of all processes. While a sum of them is under way, the run goes on: each look returns what was wished at the one before.
#[derive(Debug)]
pub(super) struct Consent {
    team: Arc<Team>,
    pending: Option<PendingSum>,
    /// Whether the checkpoint that the sum under way asks for has been written.
    is_saved: bool,
    /// What any process wished, as all of them know.
    pub agreed: Wishes,
    /// The seconds that each process worked before the look before.
    pub worked: Vec<f64>,
}

impl Consent {
    pub fn new(team: &Arc<Team>) -> Self {
        Consent {
            team: Arc::clone(team),
            pending: None,
            is_saved: false,
            agreed: Wishes::default(),
            worked: Vec::new(),
        }
    }

    /// Learns what was wished at the look before, and tells the others what this process wishes now, and how many seconds it worked.
    pub fn look(&mut self, own: Wishes, worked: f64) -> Result<()> {
        let mut counts = own.counts();
        if let Some(pending) = self.pending.take() {
            let found = pending.wait()?;
            self.worked = found[counts.len()..].to_vec();
            let found = Wishes::of_counts(&found);
            let saves = found.saves && !std::mem::take(&mut self.is_saved);
            // A wish to end stays.
            self.agreed = Wishes {
                requested: self.agreed.requested || found.requested,
                out_of_time: self.agreed.out_of_time || found.out_of_time,
                signal: if self.agreed.signal != 0 { self.agreed.signal } else { found.signal },
                saves,
            };
        }
        counts.extend((0..self.team.processes()).map(|rank| if rank == self.team.rank() { worked } else { 0.0 }));
        self.pending = Some(self.team.engine().start_sum(counts));
        Ok(())
    }

    /// Declares that a checkpoint was written, so that wishes from before it are met.
    pub fn saved(&mut self) {
        (self.agreed.saves, self.is_saved) = (false, true);
    }
}
