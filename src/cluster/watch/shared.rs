//! What the threads of a watch share: what is known of each process, and how the watch ends.

use super::lock::lock;
use super::loss::{Loss, Whereabouts};
use super::message::Message;
use super::options::{FAREWELL, WatchOptions};
use super::overdue::Overdue;
use super::peer::Peer;
use super::progress::Reached;
use std::fmt;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long the others may take to confirm a loss before this process acts on it.
const NEWS: Duration = Duration::from_millis(500);

/// What is known of another process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// When it was last heard.
    pub heard: Instant,
    /// Where it was then.
    pub reached: Reached,
    /// Whether it has said goodbye.
    pub left: bool,
    /// Whether its connection has ended.
    pub closed: bool,
    /// Whether it has confirmed the last words of this process.
    pub confirmed: bool,
}

/// The changing part.
#[derive(Debug)]
pub(super) struct State {
    /// By number of the peer.
    pub known: Vec<Known>,
    /// Whether the watch has ended, by a loss or because this process ends.
    pub ended: bool,
    /// Whether the others have heard of the end, as far as they can.
    pub announced: bool,
    /// In process 0: the collective for which a process has waited too long.
    pub overdue: Option<Overdue>,
}

/// What the threads of a watch share.
pub(super) struct Shared {
    pub options: WatchOptions,
    pub members: Vec<Whereabouts>,
    pub peers: Vec<Peer>,
    pub state: Mutex<State>,
    pub changed: Condvar,
    /// Whether signs of life are left out.
    #[cfg(test)]
    pub muted: std::sync::atomic::AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of {}", self.options.rank, self.options.processes)
    }
}

impl Shared {
    pub fn new(options: WatchOptions, members: Vec<Whereabouts>, peers: Vec<Peer>) -> Self {
        let known =
            Known { heard: Instant::now(), reached: Reached::default(), left: false, closed: false, confirmed: false };
        let state = State { known: vec![known; peers.len()], ended: false, announced: false, overdue: None };
        Shared {
            options,
            members,
            peers,
            state: Mutex::new(state),
            changed: Condvar::new(),
            #[cfg(test)]
            muted: Default::default(),
        }
    }

    pub fn leads(&self) -> bool {
        self.options.rank == 0
    }

    /// Changes what is known, and wakes who waits for it.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }

    /// Returns the last known place of each process, by rank.
    pub fn progress(&self) -> Vec<Option<Reached>> {
        let mut all = vec![None; self.options.processes];
        all[self.options.rank] = Some(self.options.progress.reached());
        for (peer, known) in self.peers.iter().zip(&lock(&self.state).known) {
            all[peer.rank] = Some(known.reached);
        }
        all
    }

    /// Returns the loss of a process.
    pub fn loss(&self, rank: usize, reason: &str) -> Loss {
        let reached = self.progress()[rank].unwrap_or_default();
        Loss::new(rank, &self.members[rank].host, reason, reached)
    }

    /// Sends a message to the chosen peers that have not left.
    pub fn send(&self, message: &Message, chosen: impl Fn(&Peer) -> bool) {
        let begin = Instant::now();
        let away: Vec<bool> = lock(&self.state).known.iter().map(|known| known.left || known.closed).collect();
        for (peer, _) in self.peers.iter().zip(away).filter(|(peer, away)| !away && chosen(peer)) {
            peer.send(message);
            if begin.elapsed() > NEWS {
                // The rest find out by themselves; this happens only if many have stopped.
                return;
            }
        }
    }

    /// Declares the watch ended; returns whether it had not been.
    fn end(&self) -> bool {
        let first = !std::mem::replace(&mut lock(&self.state).ended, true);
        self.changed.notify_all();
        first
    }

    /// Waits until the chosen peers have confirmed the last words or can no longer do so.
    fn await_confirmation(&self, limit: Duration, chosen: impl Fn(&Peer) -> bool) {
        let waits = |state: &mut State| {
            let open = |known: &Known| !(known.left || known.closed || known.confirmed);
            self.peers.iter().zip(&state.known).any(|(peer, known)| chosen(peer) && open(known))
        };
        // Whether all have confirmed or not, it ends here.
        drop(self.changed.wait_timeout_while(lock(&self.state), limit, waits));
        self.update(|state| state.announced = true);
    }

    /// Sends the last words of this process, and waits for a limited time until they are heard.
    fn depart(&self, words: &Message) {
        if !self.end() {
            // A loss is being passed on: this process must not end meanwhile.
            drop(self.changed.wait_timeout_while(lock(&self.state), FAREWELL, |state| !state.announced));
            return;
        }
        let begin = Instant::now();
        self.send(&Message::Alive(self.options.progress.reached()), |_| true);
        self.send(words, |_| true);
        self.await_confirmation(FAREWELL.saturating_sub(begin.elapsed()), |_| true);
        self.peers.iter().for_each(Peer::close_sending);
    }

    /// Ends by an error of this process.
    pub fn fail(&self, reason: &str) {
        let loss = self.loss(self.options.rank, &format!("ended with an error: {reason}"));
        self.depart(&Message::Lost(loss));
    }

    /// Ends in an orderly way.
    pub fn finish(&self) {
        self.depart(&Message::Goodbye);
    }

    /// Ends without a word, unless a loss is being passed on.
    pub fn leave(&self) {
        if !self.end() {
            drop(self.changed.wait_timeout_while(lock(&self.state), FAREWELL, |state| !state.announced));
        }
        self.peers.iter().for_each(Peer::close);
    }

    /// Passes a loss on to all but the peer that reported it, and to the owner of this process.
    pub fn lose(&self, loss: Loss, reporter: Option<usize>) {
        if !self.end() {
            return;
        }
        self.send(&Message::Lost(loss.clone()), |peer| Some(peer.rank) != reporter);
        self.await_confirmation(NEWS, |peer| Some(peer.rank) != reporter && peer.rank != loss.rank);
        (self.options.failed)(loss);
        self.peers.iter().for_each(Peer::close_sending);
    }

    /// Takes the report of a process that has waited too long.
    pub fn report(&self, overdue: Overdue) {
        if self.leads() {
            self.update(|state| state.overdue = state.overdue.take().or(Some(overdue)));
        } else if lock(&self.state).known[0].left {
            let reason = format!("had ended when process {} waited for {}", self.options.rank, overdue.what());
            self.lose(self.loss(0, &reason), None);
        } else {
            self.send(&overdue.to_message(), |_| true);
        }
    }
}
