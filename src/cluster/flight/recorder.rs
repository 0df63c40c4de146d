//! Flight records: the last collectives of a process, written to a file when a job ends badly, so that `culprit.rs` can name the process
//! that held up the others. They record; they do not decide.

use crate::cluster::watch::{JobProgress, host_name};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The number of collectives that are kept.
pub const KEPT: usize = 256;
/// The kind of collectives whose byte counts may differ between processes.
pub const EXCHANGE: &str = "exchange";

/// A collective of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlightEntry {
    /// Its number among the collectives that this process has begun, from 1. Processes that take part in different collectives number the
    /// same one differently.
    pub sequence: u64,
    /// The step that it is part of.
    pub step: u64,
    /// Its name, which is the same in all processes that take part.
    pub name: String,
    /// What it does: `all-reduce`, or [`EXCHANGE`].
    pub kind: String,
    /// The processes that take part; this one may be left out.
    pub peers: Vec<usize>,
    /// Its size, the same in all processes, unless it is an exchange.
    pub bytes: u64,
    /// When it began, in seconds since the job began.
    pub begun: f64,
    /// When it ended, if it did.
    pub ended: Option<f64>,
}

/// The record of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlightRecord {
    /// The process.
    pub rank: usize,
    /// The number of processes.
    pub processes: usize,
    /// The name of its host.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// The version of the program.
    pub version: String,
    /// Why the job ended, as this process knew.
    pub reason: String,
    /// When the record was made, in seconds since 1970.
    pub unix_seconds: u64,
    /// When the record was made, in seconds since the job began.
    pub seconds: f64,
    /// The step that it worked on.
    pub step: u64,
    /// The last collectives, in the order in which they began.
    pub collectives: Vec<FlightEntry>,
}

/// A collective that has begun; [`FlightRecorder::end`] takes it back.
#[derive(Debug)]
#[must_use = "a collective whose ticket is dropped never ends"]
pub struct Ticket {
    sequence: u64,
}

impl Ticket {
    /// Returns the number of the collective in this process, from 1.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// A collective that is kept.
#[derive(Debug)]
struct Kept {
    step: u64,
    name: Arc<str>,
    kind: &'static str,
    peers: Arc<[usize]>,
    bytes: u64,
    begun: f64,
    ended: Option<f64>,
}

/// The last collectives; the newest has the number `begun`.
#[derive(Debug)]
struct Ring {
    kept: VecDeque<Kept>,
    begun: u64,
}

/// Records the last [`KEPT`] collectives of a process.
#[derive(Debug)]
pub struct FlightRecorder {
    rank: usize,
    processes: usize,
    start: Instant,
    progress: Arc<JobProgress>,
    ring: Mutex<Ring>,
}

impl FlightRecorder {
    /// Creates a recorder of a job that began at `start`. It counts the collectives in `progress`, and takes the steps from there.
    pub fn new(rank: usize, processes: usize, start: Instant, progress: Arc<JobProgress>) -> Self {
        let ring = Mutex::new(Ring { kept: VecDeque::with_capacity(KEPT), begun: 0 });
        FlightRecorder { rank, processes, start, progress, ring }
    }

    /// Records that a collective begins.
    pub fn begin(&self, kind: &'static str, name: &Arc<str>, peers: &Arc<[usize]>, bytes: u64) -> Ticket {
        let mut ring = self.lock();
        ring.begun += 1;
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        let (step, begun) = (self.progress.reached().step, self.seconds());
        ring.kept.push_back(Kept {
            step,
            name: Arc::clone(name),
            kind,
            peers: Arc::clone(peers),
            bytes,
            begun,
            ended: None,
        });
        self.progress.begin(ring.begun);
        Ticket { sequence: ring.begun }
    }

    /// Records that a collective has ended.
    pub fn end(&self, ticket: Ticket) {
        let ended = self.seconds();
        let mut ring = self.lock();
        let newer = (ring.begun - ticket.sequence) as usize;
        // It may be too old to be kept.
        if let Some(index) = ring.kept.len().checked_sub(newer + 1) {
            ring.kept[index].ended = Some(ended);
        }
        self.progress.end(ticket.sequence);
    }

    /// Returns the last collectives, in the order in which they began.
    pub fn snapshot(&self) -> Vec<FlightEntry> {
        let ring = self.lock();
        let first = ring.begun + 1 - ring.kept.len() as u64;
        let entry = |(sequence, kept): (u64, &Kept)| FlightEntry {
            sequence,
            step: kept.step,
            name: kept.name.to_string(),
            kind: kept.kind.to_string(),
            peers: kept.peers.to_vec(),
            bytes: kept.bytes,
            begun: kept.begun,
            ended: kept.ended,
        };
        (first..).zip(&ring.kept).map(entry).collect()
    }

    /// Writes the record of this process into a directory, which is created, and returns the path of the file. A file is either whole or
    /// not there.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, dir: &Path, reason: &str) -> Result<PathBuf> {
        let record = FlightRecord {
            rank: self.rank,
            processes: self.processes,
            host: host_name(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            reason: reason.to_string(),
            unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            seconds: self.seconds(),
            step: self.progress.reached().step,
            collectives: self.snapshot(),
        };
        let path = FlightRecord::path(dir, self.rank);
        let failed = |error: std::io::Error| {
            Error::Run(format!(
                "cannot write the flight record {}: {error}; check the directory and its free space",
                path.display()
            ))
        };
        let text = record.to_json().map_err(|error| failed(error.into()))?;
        let unfinished = dir.join(format!(".flight-rank-{:03}.unfinished", self.rank));
        let write = || {
            std::fs::create_dir_all(dir)?;
            let mut file = std::fs::File::create(&unfinished)?;
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            std::fs::rename(&unfinished, &path)
        };
        write().map_err(|error| {
            // What is left of it is of no use.
            let _ = std::fs::remove_file(&unfinished);
            failed(error)
        })?;
        Ok(path)
    }

    /// Returns the seconds since the job began, to the microsecond.
    fn seconds(&self) -> f64 {
        self.start.elapsed().as_micros() as f64 / 1e6
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FlightRecord {
    /// Returns the path of a process's record in a directory: `flight-rank-007.json`.
    pub fn path(dir: &Path, rank: usize) -> PathBuf {
        dir.join(format!("flight-rank-{rank:03}.json"))
    }

    /// Returns the record as text, with one line for each collective.
    fn to_json(&self) -> serde_json::Result<String> {
        let head = serde_json::to_string_pretty(&FlightRecord { collectives: vec![], ..self.clone() })?;
        let mut text = head.strip_suffix("[]\n}").unwrap_or(&head).to_string();
        for (index, entry) in self.collectives.iter().enumerate() {
            let before = if index == 0 { "[" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(text, "{before}\n    {}", serde_json::to_string(entry)?);
        }
        text.push_str(if self.collectives.is_empty() { "[]\n}\n" } else { "\n  ]\n}\n" });
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> (FlightRecorder, Arc<JobProgress>) {
        let progress: Arc<JobProgress> = Arc::default();
        (FlightRecorder::new(7, 8, Instant::now(), Arc::clone(&progress)), progress)
    }

    #[test]
    fn the_last_collectives_are_kept_and_counted() {
        let (recorder, progress) = recorder();
        let (name, peers): (Arc<str>, Arc<[usize]>) = ("sum".into(), vec![6, 7].into());
        progress.at_step(3);
        let old = recorder.begin("all-reduce", &name, &peers, 8);
        for _ in 0..300 {
            recorder.end(recorder.begin("all-reduce", &name, &peers, 8));
        }
        let open = recorder.begin("broadcast", &name, &peers, 9);
        recorder.end(old);
        assert_eq!(open.sequence(), 302);
        let entries = recorder.snapshot();
        assert_eq!((entries.len(), entries[0].sequence, entries[255].sequence), (KEPT, 47, 302));
        assert!(entries[..255].iter().all(|entry| entry.ended.is_some_and(|ended| ended >= entry.begun)));
        let last = &entries[255];
        assert_eq!((last.step, &*last.kind, last.bytes, last.ended), (3, "broadcast", 9, None));
        assert_eq!((progress.reached().begun, progress.reached().ended), (302, 301));
    }

    #[test]
    fn threads_record_at_the_same_time() {
        let (recorder, progress) = recorder();
        let (name, peers): (Arc<str>, Arc<[usize]>) = ("sum".into(), vec![].into());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| recorder.end(recorder.begin("all-reduce", &name, &peers, 8))));
            }
        });
        assert!(recorder.snapshot().iter().all(|entry| entry.ended.is_some()));
        assert_eq!((progress.reached().begun, progress.reached().ended), (8000, 8000));
    }

    #[test]
    fn a_written_record_is_read_back_as_it_was() {
        let dir = std::env::temp_dir().join(format!("flight-{}-write", std::process::id()));
        let (recorder, _) = recorder();
        let empty = std::fs::read_to_string(recorder.write(&dir, "none").unwrap()).unwrap();
        assert!(serde_json::from_str::<FlightRecord>(&empty).unwrap().collectives.is_empty());
        for name in ["a", "b \"\n"] {
            let ticket = recorder.begin(EXCHANGE, &name.into(), &vec![1, 7].into(), 4);
            assert!(ticket.sequence() > 0);
        }
        let path = recorder.write(&dir, "process 2 \"was\" lost").unwrap();
        assert!(path.ends_with("flight-rank-007.json"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 14 + 1, "{text}");
        let record: FlightRecord = serde_json::from_str(&text).unwrap();
        assert_eq!((record.rank, record.processes, &*record.reason), (7, 8, "process 2 \"was\" lost"));
        assert_eq!(record.collectives, recorder.snapshot());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
        let error = recorder.write(Path::new("/dev/null/x"), "").unwrap_err().to_string();
        assert!(error.starts_with("cannot write the flight record /dev/null/x/flight-rank-007.json"), "{error}");
    }
}
