//! Flight records: the last collectives of each process, written when a job ends because of a loss, so that the process that held the others up can
//! be named afterwards.

use super::progress::{JobProgress, Reached};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The number of collectives that are kept.
const KEPT: usize = 256;

/// A collective as an instruction knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flown {
    /// The name of the instruction.
    pub name: String,
    /// The processes that take part, in order.
    pub processes: Vec<usize>,
    /// The bytes of the device's tensors.
    pub bytes: usize,
}

/// A collective of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlightEntry {
    /// Its number among those of the process, from 1.
    pub number: u64,
    /// The update that it was a part of.
    pub step: u64,
    /// Its name.
    pub name: String,
    /// The processes that take part.
    pub processes: Vec<usize>,
    /// The bytes of this process's tensors.
    pub bytes: usize,
    /// When it began, in seconds since the start.
    pub begun: f64,
    /// When it ended, if it did.
    pub ended: Option<f64>,
}

/// The record of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlightRecord {
    /// The process, and how many there are.
    pub rank: usize,
    /// The number of all.
    pub processes: usize,
    /// The name of its machine.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// Why the job ended, as it knows.
    pub reason: String,
    /// Where it was.
    pub at: Reached,
    /// The last collectives.
    pub collectives: Vec<FlightEntry>,
}

/// A collective that is kept; times are seconds since the start.
#[derive(Debug)]
struct Kept {
    flown: Arc<Flown>,
    number: u64,
    step: u64,
    begun: f64,
    ended: Option<f64>,
}

/// What records.
#[derive(Debug)]
pub(super) struct FlightRecorder {
    begin: Instant,
    kept: Mutex<VecDeque<Kept>>,
}

impl Default for FlightRecorder {
    fn default() -> Self {
        FlightRecorder { begin: Instant::now(), kept: Mutex::new(VecDeque::with_capacity(KEPT)) }
    }
}

impl FlightRecorder {
    /// Records a collective while it runs.
    pub fn record<T>(&self, flown: &Arc<Flown>, progress: &JobProgress, run: impl FnOnce() -> T) -> T {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = progress.begin_collective();
        {
            let mut kept = lock();
            if kept.len() == KEPT {
                kept.pop_front();
            }
            let (step, begun) = (progress.position().step, self.begin.elapsed().as_secs_f64());
            kept.push_back(Kept { flown: Arc::clone(flown), number, step, begun, ended: None });
        }
        let result = run();
        let ended = self.begin.elapsed().as_secs_f64();
        if let Some(entry) = lock().iter_mut().rev().find(|entry| entry.number == number) {
            entry.ended = Some(ended);
        }
        result
    }

    /// Returns the entries of a record.
    pub fn entries(&self) -> Vec<FlightEntry> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = |kept: &Kept| FlightEntry {
            number: kept.number,
            step: kept.step,
            name: kept.flown.name.clone(),
            processes: kept.flown.processes.clone(),
            bytes: kept.flown.bytes,
            begun: kept.begun,
            ended: kept.ended,
        };
        kept.iter().map(entry).collect()
    }
}

impl FlightRecord {
    /// Returns the name of a process's record in a run directory: `flight-rank-007.json`.
    pub fn path(dir: &Path, rank: usize) -> PathBuf {
        dir.join(format!("flight-rank-{rank:03}.json"))
    }

    /// Reads a record.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub fn read(path: &Path) -> Result<FlightRecord> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, "read", error))?;
        serde_json::from_str(&text).map_err(|error| Error::file(path, format!("damaged: {error}")))
    }

    /// Returns the collective that the process waited in, the first of several.
    pub fn waits_in(&self) -> Option<&FlightEntry> {
        self.collectives.iter().find(|entry| entry.ended.is_none())
    }
}

/// Says what the records of a job show, line by line, and at last who held it up.
///
/// Processes take part in different collectives, so two of them are compared by name and update, not by number.
pub fn culprit(records: &[FlightRecord]) -> String {
    let processes = records.iter().map(|record| record.processes).max().unwrap_or(0);
    let mut text = String::new();
    for rank in 0..processes {
        let line = match records.iter().find(|record| record.rank == rank) {
            None => "left no record".to_string(),
            Some(record) => {
                let doing = match (record.waits_in(), record.collectives.last()) {
                    (Some(entry), _) => format!("waited in {} of step {}", entry.name, entry.step),
                    (None, Some(entry)) => format!("had finished {} of step {}", entry.name, entry.step),
                    (None, None) => "had begun no collective".to_string(),
                };
                format!("on {}: {doing}; {}", record.host, record.reason)
            }
        };
        text += &format!("process {rank} {line}\n");
    }
    text + &verdict(records, processes) + "\n"
}

fn verdict(records: &[FlightRecord], processes: usize) -> String {
    let missing: Vec<usize> =
        (0..processes).filter(|rank| !records.iter().any(|record| record.rank == *rank)).collect();
    if let [rank] = missing[..] {
        return format!("process {rank} was lost: it was killed or cut off, and could not write a record");
    }
    if !missing.is_empty() {
        let numbers: Vec<String> = missing.iter().map(usize::to_string).collect();
        return format!("processes {} were lost: they could not write a record", numbers.join(", "));
    }
    let has = |record: &FlightRecord, entry: &FlightEntry| {
        record
            .collectives
            .iter()
            .find(|own| (&own.name, own.step, &own.processes) == (&entry.name, entry.step, &entry.processes))
            .cloned()
    };
    for record in records {
        for entry in &record.collectives {
            for other in records.iter().filter(|other| entry.processes.contains(&other.rank)) {
                if let Some(own) = has(other, entry).filter(|own| own.bytes != entry.bytes) {
                    return format!(
                        "{} of step {}: process {} has {} bytes, process {} {}; they do not run the same program",
                        entry.name, entry.step, record.rank, entry.bytes, other.rank, own.bytes
                    );
                }
            }
        }
    }
    let waiting = records.iter().filter_map(|record| Some((record, record.waits_in()?)));
    // The first collective in which anyone waits: later ones wait for what this one holds up.
    let first = waiting.min_by_key(|(_, entry)| entry.step);
    let Some((record, entry)) = first else { return "no process waited for another one".to_string() };
    let behind: Vec<String> = records
        .iter()
        .filter(|other| entry.processes.contains(&other.rank) && has(other, entry).is_none())
        .map(|other| other.rank.to_string())
        .collect();
    match behind.len() {
        0 => format!(
            "all processes had begun {} of step {}; the network between them, or MPI, held it up",
            entry.name, entry.step
        ),
        _ => format!(
            "process {} had not begun {} of step {}, in which process {} waited",
            behind.join(", "),
            entry.name,
            entry.step,
            record.rank
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, name: &str, step: u64, ended: bool) -> FlightEntry {
        let processes = vec![0, 1, 2];
        FlightEntry { number, step, name: name.into(), processes, bytes: 400, begun: 1.0, ended: ended.then_some(2.0) }
    }

    fn record(rank: usize, collectives: Vec<FlightEntry>) -> FlightRecord {
        let (host, reason) = (format!("node{rank}"), "the job ended".to_string());
        FlightRecord { rank, processes: 3, host, pid: 1, reason, at: Reached::default(), collectives }
    }

    #[test]
    fn the_process_that_held_up_the_others_is_named() {
        let (done, waits) = (entry(1, "all-reduce a", 7, true), entry(2, "all-reduce b", 7, false));
        let stuck = |rank| record(rank, vec![done.clone(), waits.clone()]);
        let behind = record(1, vec![done.clone()]);
        let text = culprit(&[stuck(0), behind, stuck(2)]);
        assert!(text.contains("process 1 on node1: had finished all-reduce a of step 7"), "{text}");
        assert!(
            text.ends_with("process 1 had not begun all-reduce b of step 7, in which process 0 waited\n"),
            "{text}"
        );
        let text = culprit(&[stuck(0), stuck(2)]);
        assert!(
            text.ends_with("process 1 was lost: it was killed or cut off, and could not write a record\n"),
            "{text}"
        );
        let text = culprit(&[stuck(0), stuck(1), stuck(2)]);
        assert!(text.contains("all processes had begun all-reduce b of step 7"), "{text}");
        let mut other = stuck(1);
        other.collectives[1].bytes = 800;
        let text = culprit(&[stuck(0), other, stuck(2)]);
        assert!(text.contains("process 0 has 400 bytes, process 1 800"), "{text}");
        assert_eq!(culprit(&[record(0, vec![done.clone()])]).lines().count(), 4);
    }

    #[test]
    fn the_last_collectives_are_kept() {
        let (recorder, progress) = (FlightRecorder::default(), JobProgress::default());
        let flown = Arc::new(Flown { name: "sum".to_string(), processes: vec![0, 1], bytes: 8 });
        progress.at_step(3);
        (0..300).for_each(|_| recorder.record(&flown, &progress, || ()));
        recorder.record(&flown, &progress, || {
            let entries = recorder.entries();
            assert_eq!((entries.len(), entries[0].number, entries[255].number), (256, 46, 301));
            assert!(entries[254].ended.is_some() && entries[255].ended.is_none());
            assert_eq!((entries[255].step, &*entries[255].name), (3, "sum"));
        });
    }
}
