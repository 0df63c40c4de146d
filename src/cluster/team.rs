//! The devices of a job that compute together, of which some are in this process.

use super::engine::{Engine, Incoming, Outgoing, Values};
use super::failure::{EngineFailure, Failed};
use super::flight::FlightRecorder;
use super::timeouts::Timeouts;
use super::watch::JobProgress;
use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Bytes for another device.
pub type Sent<'a> = (usize, &'a [u8]);
/// Room for the bytes of another device.
pub type Received<'a> = (usize, &'a mut [u8]);

/// Messages within this process, by the devices that they are from and for.
type Mail = HashMap<(usize, usize), VecDeque<Vec<u8>>>;

/// A collective as flight records have it.
#[derive(Debug, Clone)]
pub struct Flown {
    /// What it does.
    pub kind: &'static str,
    /// The name of the instruction.
    pub name: Arc<str>,
    /// The processes that take part.
    pub processes: Arc<[usize]>,
    /// The bytes of the device's tensor.
    pub bytes: u64,
}

/// The processes that train together. Each has the same number of devices; those of process 0 are the first.
#[derive(Debug)]
pub struct Team {
    engine: Box<dyn Engine>,
    progress: Arc<JobProgress>,
    flight: FlightRecorder,
    /// The devices of each process.
    each: usize,
    /// The hosts of the processes, once they are known.
    hosts: OnceLock<Vec<String>>,
    /// How long processes wait for each other.
    timeouts: Timeouts,
    /// What is called when the processes cannot go on.
    failed: Option<Failed>,
    mail: Mutex<Mail>,
    arrived: Condvar,
}

impl Team {
    /// Creates the team of an engine's processes with `each` devices.
    pub fn new(engine: Box<dyn Engine>, each: usize) -> Self {
        let progress: Arc<JobProgress> = Arc::default();
        let flight = FlightRecorder::new(engine.rank(), engine.processes(), Instant::now(), Arc::clone(&progress));
        Team {
            engine,
            progress,
            flight,
            each,
            hosts: OnceLock::new(),
            timeouts: Timeouts::default(),
            failed: None,
            mail: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    /// Sets how long processes wait for each other, and what ends the process when they cannot go on.
    pub fn with_limits(self, timeouts: Timeouts, failed: Failed) -> Self {
        Team { timeouts, failed: Some(failed), ..self }
    }

    /// Returns how long processes wait for each other.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Ends the process, because the processes cannot go on.
    pub fn fail(&self, failure: EngineFailure) -> ! {
        match &self.failed {
            Some(failed) => failed.fail(failure),
            None => panic!("{}", failure.message),
        }
    }

    /// Returns what moves the data.
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// Records a collective while it runs.
    pub fn recorded<T>(&self, flown: &Flown, run: impl FnOnce() -> T) -> T {
        let ticket = self.flight.begin(flown.kind, &flown.name, &flown.processes, flown.bytes);
        let result = run();
        self.flight.end(ticket);
        result
    }

    /// Returns the record of the last collectives.
    pub fn flight(&self) -> &FlightRecorder {
        &self.flight
    }

    /// Returns how far this process has come.
    pub fn progress(&self) -> &Arc<JobProgress> {
        &self.progress
    }

    /// Returns the number of this process.
    pub fn rank(&self) -> usize {
        self.engine.rank()
    }

    /// Returns the number of processes.
    pub fn processes(&self) -> usize {
        self.engine.processes()
    }

    /// Sets the names of the hosts of all processes; only the first call counts.
    pub fn name_hosts(&self, hosts: Vec<String>) {
        let _ = self.hosts.set(hosts);
    }

    /// Returns the name of the host of a process, if it is known.
    pub fn host(&self, process: usize) -> Option<&str> {
        self.hosts.get()?.get(process).map(String::as_str)
    }

    /// Returns the process of a device.
    pub fn process_of(&self, device: usize) -> usize {
        device / self.each
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends and receives the messages of a device of this process, all at the same time; returns when the last has arrived. Messages
    /// between two devices arrive in the order in which they are sent. An empty message is not sent.
    ///
    /// # Errors
    /// If the engine has ended.
    pub fn exchange(&self, device: usize, outgoing: &[Sent<'_>], incoming: &mut [Received<'_>]) -> Result<()> {
        let tag = |from: usize, to: usize| (from % self.each * self.each + to % self.each) as u16;
        let near = |other: usize| self.process_of(other) == self.rank();
        let mut posted = false;
        for &(other, bytes) in outgoing.iter().filter(|(other, bytes)| near(*other) && !bytes.is_empty()) {
            self.lock().entry((device, other)).or_default().push_back(bytes.to_vec());
            posted = true;
        }
        if posted {
            self.arrived.notify_all();
        }
        let far = outgoing.iter().filter(|(other, _)| !near(*other));
        let out: Vec<Outgoing> = far
            .map(|&(other, bytes)| Outgoing { process: self.process_of(other), tag: tag(device, other), bytes })
            .collect();
        let far = incoming.iter_mut().filter(|(other, _)| !near(*other));
        let mut into: Vec<Incoming> = far
            .map(|(other, bytes)| Incoming { process: self.process_of(*other), tag: tag(*other, device), bytes })
            .collect();
        self.engine.exchange(&out, &mut into)?;
        for (other, bytes) in incoming.iter_mut().filter(|(other, bytes)| near(*other) && !bytes.is_empty()) {
            let mut mail = self.lock();
            let message = loop {
                match mail.get_mut(&(*other, device)).and_then(VecDeque::pop_front) {
                    Some(message) => break message,
                    None => mail = self.arrived.wait(mail).unwrap_or_else(PoisonError::into_inner),
                }
            };
            bytes.copy_from_slice(&message);
        }
        Ok(())
    }

    /// Replaces values by their sums over a prepared group of processes.
    ///
    /// # Errors
    /// If the engine has ended.
    pub fn sum(&self, group: usize, values: Values<'_>) -> Result<()> {
        self.engine.sum(group, values)
    }

    /// Sends bytes of the process `from` to all others, which have room for as many.
    ///
    /// # Errors
    /// If the engine has ended.
    pub fn broadcast(&self, from: usize, bytes: &mut [u8]) -> Result<()> {
        let tag = self.own_tag();
        if self.rank() != from {
            return self.engine.exchange(&[], &mut [Incoming { process: from, tag, bytes }]);
        }
        let others = (0..self.processes()).filter(|&process| process != from);
        let out: Vec<Outgoing> = others.map(|process| Outgoing { process, tag, bytes }).collect();
        self.engine.exchange(&out, &mut [])
    }

    /// Returns what every process says, in their order. All processes call it.
    ///
    /// # Errors
    /// If the engine has ended.
    pub fn gather(&self, own: &str) -> Result<Vec<String>> {
        let mut lengths = vec![[0u8; 8]; self.processes()];
        lengths[self.rank()] = (own.len() as u64).to_le_bytes();
        self.gather_bytes(&(own.len() as u64).to_le_bytes(), lengths.iter_mut().map(|length| &mut length[..]))?;
        let mut texts: Vec<Vec<u8>> =
            lengths.iter().map(|length| vec![0; u64::from_le_bytes(*length) as usize]).collect();
        texts[self.rank()].copy_from_slice(own.as_bytes());
        self.gather_bytes(own.as_bytes(), texts.iter_mut().map(|text| &mut text[..]))?;
        Ok(texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
    }

    /// Returns the result of every process as the same one: if it is an error anywhere, the error of the first process that has one. All
    /// processes call it.
    ///
    /// # Errors
    /// That error, or if the engine has ended.
    pub fn agree<T>(&self, own: Result<T>) -> Result<T> {
        let text = own
            .as_ref()
            .map_or_else(|error| format!("{}{}", error.exit_code(), error.with_causes()), |_| String::new());
        let all = self.gather(&text)?;
        let Some(first) = all.iter().position(|text| !text.is_empty()) else { return own };
        match own {
            // Its list of problems is kept.
            Err(error) if all[first] == text => Err(error),
            _ => Err(failed(first, &all[first])),
        }
    }

    fn gather_bytes<'a>(&self, own: &[u8], all: impl Iterator<Item = &'a mut [u8]>) -> Result<()> {
        let (rank, tag) = (self.rank(), self.own_tag());
        let others = (0..self.processes()).filter(|&process| process != rank);
        let out: Vec<Outgoing> = others.map(|process| Outgoing { process, tag, bytes: own }).collect();
        let others = all.enumerate().filter(|(process, _)| *process != rank);
        let mut into: Vec<Incoming> = others.map(|(process, bytes)| Incoming { process, tag, bytes }).collect();
        self.engine.exchange(&out, &mut into)
    }

    /// Sends bytes to one process.
    ///
    /// # Errors
    /// If the engine has ended.
    pub fn send(&self, process: usize, bytes: &[u8]) -> Result<()> {
        self.engine.exchange(&[Outgoing { process, tag: self.own_tag(), bytes }], &mut [])
    }

    /// Receives the bytes that one process sends.
    ///
    /// # Errors
    /// If the engine has ended.
    pub fn receive(&self, process: usize, bytes: &mut [u8]) -> Result<()> {
        self.engine.exchange(&[], &mut [Incoming { process, tag: self.own_tag(), bytes }])
    }

    /// Returns the tag of messages between processes, not devices.
    fn own_tag(&self) -> u16 {
        // Those of devices are smaller: a mesh has at most 256.
        (1 << 15) - 1
    }
}

/// Returns the error of a process, as others see it.
fn failed(process: usize, text: &str) -> Error {
    let (code, message) = text.split_at(1);
    let message = format!("process {process}: {message}");
    if code == "2" { Error::Usage(message) } else { Error::Run(message) }
}
