//! The thread that sends signs of life and looks at the clock.

use super::lock::lock;
use super::loss::Loss;
use super::message::Message;
use super::shared::{Known, Shared};
use super::silence::Silence;
use crate::cluster::words::in_seconds;
use std::time::{Duration, Instant};

/// How many times within the timeout a process says that it is alive.
const SIGNS: u32 = 5;

impl Shared {
    /// Sends signs of life and looks for silence until the watch ends.
    pub fn pulse(&self) {
        let interval = self.options.timeout / SIGNS;
        let mut sign = Instant::now();
        let mut silence = Silence::new(self.options.timeout, interval, sign);
        while self.wait(sign) {
            if Instant::now() >= sign {
                self.send_sign();
                sign = Instant::now() + interval;
            }
            if let Some(loss) = self.silent(&mut silence).or_else(|| self.overdue(interval)) {
                return self.lose(loss, None);
            }
        }
    }

    fn send_sign(&self) {
        #[cfg(test)]
        if self.muted.load(std::sync::atomic::Ordering::SeqCst) {
            return;
        }
        self.send(&Message::Alive(self.options.progress.reached()), |_| true);
    }

    /// Waits until the next sign of life is due or a process becomes silent; returns false at the end of the watch.
    fn wait(&self, sign: Instant) -> bool {
        let mut state = lock(&self.state);
        loop {
            if state.ended {
                return false;
            }
            let present = state.known.iter().filter(|known| !known.left && !known.closed);
            let silent = present.map(|known| known.heard + self.options.timeout).min();
            // A moment later it is silent for longer than the timeout.
            let until = silent.map_or(sign, |silent| sign.min(silent + Duration::from_millis(1)));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Returns the loss of a process that has been silent for too long.
    fn silent(&self, silence: &mut Silence) -> Option<Loss> {
        let (number, time) = {
            let mut state = lock(&self.state);
            let present = |known: &Known| (!known.left && !known.closed).then_some(known.heard);
            let mut heard: Vec<_> = state.known.iter().map(present).collect();
            let silent = silence.look(Instant::now(), &mut heard);
            state.known.iter_mut().zip(heard).for_each(|(known, heard)| known.heard = heard.unwrap_or(known.heard));
            silent?
        };
        let own = self.options.rank;
        let reason = format!(
            "was lost: process {own} (host {}) heard nothing of it for {}, so it is stopped or the network between them is down",
            self.members[own].host,
            in_seconds(time)
        );
        Some(self.loss(self.peers[number].rank, &reason))
    }

    /// Returns the loss of the process that has not begun an overdue collective, once all have given a sign of life since the report. The
    /// first to arrive may have been on its way before, so it is the second that counts.
    fn overdue(&self, interval: Duration) -> Option<Loss> {
        let overdue = {
            let state = lock(&self.state);
            let overdue = state.overdue.as_ref()?;
            let present = |known: &Known| !known.left && !known.closed;
            if state.known.iter().any(|known| present(known) && known.heard <= overdue.reported + interval) {
                return None;
            }
            overdue.clone()
        };
        let reached: Vec<_> = self.progress().into_iter().map(Option::unwrap_or_default).collect();
        let (rank, reason) = overdue.culprit(&reached);
        Some(self.loss(rank, &reason))
    }
}
