//! What the arrival of each message means.

use super::lock::lock;
use super::loss::Loss;
use super::message::{Inbox, Message};
use super::overdue::Overdue;
use super::progress::Reached;
use super::shared::Shared;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

impl Shared {
    /// Reads the messages of a peer until its connection ends.
    pub fn read(&self, number: usize, mut inbox: Inbox) {
        let mut stream = self.peers[number].incoming();
        let end = loop {
            match inbox.next(&mut stream) {
                Ok(Some(message)) => self.receive(number, message),
                Ok(None) => break "its connection closed without a goodbye".to_string(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    break "it sent no message of a watch".to_string();
                }
                Err(error) => break format!("its connection broke: {error}"),
            }
        };
        self.update(|state| state.known[number].closed = true);
        if !lock(&self.state).known[number].left {
            let rank = self.peers[number].rank;
            self.lose(self.loss(rank, &format!("was lost: {end}")), Some(rank));
        }
    }

    fn receive(&self, number: usize, message: Message) {
        let peer = &self.peers[number];
        match message {
            Message::Alive(reached) => {
                let mut state = lock(&self.state);
                state.known[number].heard = Instant::now();
                state.known[number].reached = reached;
            }
            Message::Heard => self.update(|state| state.known[number].confirmed = true),
            Message::Goodbye => {
                peer.send(&Message::Heard);
                self.update(|state| state.known[number].left = true);
            }
            Message::Lost(loss) if loss.rank < self.options.processes => {
                peer.send(&Message::Heard);
                // Its texts may be longer than those of this version.
                let Loss { rank, host, reason, step, sequence } = loss;
                let loss = Loss::new(rank, &host, &reason, Reached { step, begun: sequence, ended: 0 });
                self.lose(loss, Some(peer.rank));
            }
            Message::Waited { sequence, name, seconds } if self.leads() => {
                let waited = Duration::try_from_secs_f64(seconds).unwrap_or_default();
                self.report(Overdue::new(peer.rank, sequence, &name, waited, Instant::now()));
            }
            // Process 0 says nothing else here, nor do the others.
            _ => {}
        }
    }
}
