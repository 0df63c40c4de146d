//! The connections of one process, and what has arrived over them.
//!
//! Process 0 has a connection with every other process, and passes on what two others send each other. A thread reads each connection
//! and never waits for anything else, so that no two processes can block each other.

use super::frame::{Frame, Kind, bytes_of, values_of};
use crate::cluster::failure::{EngineFailure, Failed};
use crate::cluster::watch::Connection;
use crate::cluster::words::name_ranks;
use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What has arrived, and what is under way.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The parts of messages that nobody has taken, by sender and tag.
    pub mail: HashMap<(usize, u16), VecDeque<Vec<u8>>>,
    /// The bytes that were sent and not taken yet, by receiver and tag.
    pub sent: HashMap<(usize, u16), usize>,
    /// In process 0, the terms of sums that lack others, by process.
    terms: Vec<VecDeque<Vec<f64>>>,
    /// Those who wait for sums, in the order of the sums.
    waiting: VecDeque<Sender<Vec<f64>>>,
    /// The processes that have come to the end of the job; for others than process 0, only whether it says that all have.
    pub at_end: Vec<bool>,
    /// The connections that have closed.
    pub closed: usize,
    /// Whether the engine has ended.
    pub ended: bool,
}

/// A sum, and who waits for it.
type Total = (Vec<f64>, Option<Sender<Vec<f64>>>);

/// The connections of one process.
#[derive(Debug)]
pub(super) struct Links {
    pub rank: usize,
    pub processes: usize,
    /// By process; others than process 0 only have that one.
    writers: Vec<Option<Mutex<TcpStream>>>,
    state: Mutex<State>,
    pub moved: Condvar,
    /// Held while the frames of a sum are sent, so that all see the sums in one order. Nothing is written while the state is locked: the
    /// threads that read need it, and two processes could wait for each other.
    summing: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// Takes over connections, and begins to read them.
    ///
    /// # Errors
    /// If the operating system has no threads left.
    pub fn begin(rank: usize, processes: usize, connections: Vec<Connection>, failed: &Failed) -> Result<Arc<Links>> {
        let unable =
            |error: std::io::Error| Error::Run(format!("the processes of the job cannot be connected: {error}"));
        let mut writers: Vec<Option<Mutex<TcpStream>>> = (0..processes).map(|_| None).collect();
        for connection in &connections {
            writers[connection.rank] = Some(Mutex::new(connection.stream.try_clone().map_err(unable)?));
        }
        let state =
            State { terms: vec![VecDeque::new(); processes], at_end: vec![false; processes], ..State::default() };
        let links = Links {
            rank,
            processes,
            writers,
            state: Mutex::new(state),
            moved: Condvar::new(),
            summing: Mutex::new(()),
        };
        let links = Arc::new(links);
        for Connection { rank: peer, stream, read } in connections {
            let (links, failed) = (Arc::clone(&links), failed.clone());
            let thread = std::thread::Builder::new().name(format!("process {peer}"));
            let run = move || {
                let mut from = (&read[..]).chain(stream);
                links.read(peer, &mut from, &failed);
            };
            thread.spawn(run).map_err(unable)?;
        }
        Ok(links)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sends a frame of this process, perhaps by way of process 0.
    pub fn send(&self, kind: Kind, tag: u16, to: usize, body: &[u8]) {
        self.write(&Frame::bytes(kind, tag, (self.rank, to), body), to);
    }

    /// Writes a frame to where it goes. An error is left to the thread that reads: it learns why.
    fn write(&self, bytes: &[u8], to: usize) {
        let way = if self.rank == 0 { to } else { 0 };
        if let Some(writer) = &self.writers[way] {
            let _ = lock(writer).write_all(bytes);
        }
    }

    /// Adds a term of this process to the next sum.
    pub fn add(&self, values: Vec<f64>, done: Sender<Vec<f64>>) {
        let order = lock(&self.summing);
        let mut state = self.state();
        if state.ended {
            return;
        }
        state.waiting.push_back(done);
        if self.rank == 0 {
            state.terms[0].push_back(values);
            drop((state, order));
            self.total();
        } else {
            drop(state);
            self.send(Kind::Sum, 0, 0, &bytes_of(&values));
        }
    }

    /// Completes the sums in process 0 of which all terms are there.
    fn total(&self) {
        let _order = lock(&self.summing);
        while let Some((sum, done)) = self.next_total() {
            let body = bytes_of(&sum);
            (1..self.processes).for_each(|process| self.send(Kind::Sum, 0, process, &body));
            // Who no longer waits does not need it.
            let _ = done.map(|done| done.send(sum));
        }
    }

    /// Returns the next sum of which all terms are there, and who waits for it.
    fn next_total(&self) -> Option<Total> {
        let mut state = self.state();
        if state.terms.iter().any(VecDeque::is_empty) {
            return None;
        }
        let mut terms = state.terms.iter_mut().filter_map(VecDeque::pop_front);
        let mut sum = terms.next()?;
        for term in terms {
            sum.iter_mut().zip(&term).for_each(|(sum, value)| *sum += value);
        }
        Some((sum, state.waiting.pop_front()))
    }

    /// Reads a connection until it ends.
    fn read(&self, peer: usize, from: &mut impl Read, failed: &Failed) {
        let end = loop {
            match Frame::read(from) {
                Ok(Some(frame)) if self.fits(peer, &frame) => self.arrive(peer, frame),
                Ok(Some(_)) => break "it sent what nobody expects".to_string(),
                Ok(None) => break "its connection closed".to_string(),
                Err(error) => break format!("its connection broke: {error}"),
            }
        };
        let ended = {
            let mut state = self.state();
            state.closed += 1;
            // At the end, the first to leave is not lost.
            state.ended || state.at_end[peer]
        };
        self.moved.notify_all();
        if !ended {
            let message = format!("{} was lost: {end}", name_ranks(&[peer]));
            failed.fail(EngineFailure { peers: vec![peer], waited: Duration::ZERO, message });
        }
    }

    /// Returns whether a frame may come from a peer.
    fn fits(&self, peer: usize, frame: &Frame) -> bool {
        let known = frame.from < self.processes && frame.to < self.processes;
        known && if self.rank == 0 { frame.from == peer } else { frame.to == self.rank }
    }

    fn arrive(&self, peer: usize, frame: Frame) {
        let Frame { kind, tag, from, to, body } = frame;
        if to != self.rank {
            return self.write(&Frame::bytes(kind, tag, (from, to), &body), to);
        }
        let mut state = self.state();
        match kind {
            Kind::Bytes => state.mail.entry((from, tag)).or_default().push_back(body),
            Kind::Taken => {
                let taken = values_of(&body).first().map_or(0, |&bytes| bytes as usize);
                let sent = state.sent.entry((from, tag)).or_default();
                *sent = sent.saturating_sub(taken);
            }
            Kind::Sum if self.rank == 0 => {
                state.terms[peer].push_back(values_of(&body));
                drop(state);
                return self.total();
            }
            Kind::Sum => {
                if let Some(done) = state.waiting.pop_front() {
                    // Who no longer waits does not need it.
                    let _ = done.send(values_of(&body));
                }
            }
            Kind::End => state.at_end[peer] = true,
        }
        drop(state);
        self.moved.notify_all();
    }

    /// Closes all connections; who waits for a sum learns that it never comes.
    pub fn close(&self) {
        let mut state = self.state();
        state.ended = true;
        state.waiting.clear();
        drop(state);
        for writer in self.writers.iter().flatten() {
            // The other end may have closed it already.
            let _ = lock(writer).shutdown(Shutdown::Both);
        }
    }
}
