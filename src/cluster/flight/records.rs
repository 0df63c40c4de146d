//! The flight records in a directory, as far as they can be believed.

use super::recorder::{FlightEntry, FlightRecord};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest file that is read, in bytes.
const LONGEST_FILE: u64 = 16 << 20;
/// The most processes and collectives of a record that are believed.
const MOST: usize = 1 << 16;

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The number of processes.
    pub processes: usize,
    /// By rank.
    pub whole: BTreeMap<usize, FlightRecord>,
    /// Why a record cannot be read, by rank.
    pub damaged: BTreeMap<usize, String>,
}

impl Records {
    /// Reads the records of a directory.
    ///
    /// # Errors
    /// If the directory cannot be read, or has none.
    pub fn read(dir: &Path) -> Result<Records> {
        let failed = |error: std::io::Error| {
            Error::Usage(format!("cannot read the flight records in {}: {error}", dir.display()))
        };
        let mut records = Records::default();
        for file in std::fs::read_dir(dir).map_err(failed)? {
            let name = file.map_err(failed)?.file_name();
            let Some(rank) = name.to_str().and_then(rank_of) else { continue };
            match read(&FlightRecord::path(dir, rank), rank) {
                Ok(record) => drop(records.whole.insert(rank, record)),
                Err(why) => drop(records.damaged.insert(rank, why)),
            }
        }
        let stated = records.whole.values().map(|record| record.processes);
        let present = records.damaged.keys().map(|rank| rank + 1);
        records.processes = stated.chain(present).max().unwrap_or(0);
        let processes = records.processes;
        records.whole.retain(|rank, record| {
            let fits = record.processes == processes;
            if !fits {
                let why = format!("it is of a job of {} processes, others of {processes}", record.processes);
                records.damaged.insert(*rank, why);
            }
            fits
        });
        if records.processes == 0 {
            return Err(Error::Usage(format!(
                "{} has no flight records, expected files like flight-rank-007.json, which processes write when their job ends badly; \
                 name the directory of the run",
                dir.display()
            )));
        }
        Ok(records)
    }
}

/// Returns the rank in the name of a record.
fn rank_of(name: &str) -> Option<usize> {
    let number = name.strip_prefix("flight-rank-")?.strip_suffix(".json")?;
    let rank: usize = number.parse().ok().filter(|rank| *rank < MOST)?;
    (format!("{rank:03}") == number).then_some(rank)
}

/// Reads a record; or returns what is wrong with it.
fn read(path: &Path, rank: usize) -> Result<FlightRecord, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(LONGEST_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(format!("it has more than {LONGEST_FILE} bytes"));
    }
    if text.trim().is_empty() {
        return Err("it is empty".to_string());
    }
    let mut record: FlightRecord = serde_json::from_str(&text).map_err(|error| format!("it is damaged: {error}"))?;
    if record.rank != rank {
        return Err(format!("it is of process {}", record.rank));
    }
    if rank >= record.processes || record.processes > MOST || record.collectives.len() > MOST {
        return Err(format!("it states {} processes and {} collectives", record.processes, record.collectives.len()));
    }
    // The lists of different processes may be ordered differently, and may leave the process itself out.
    let complete = |entry: &mut FlightEntry| {
        entry.peers.push(rank);
        entry.peers.sort_unstable();
        entry.peers.dedup();
    };
    record.collectives.iter_mut().for_each(complete);
    if record.collectives.iter().any(|entry| entry.peers.last().is_some_and(|last| *last >= record.processes)) {
        return Err(format!("a collective has more processes than the job, which has {}", record.processes));
    }
    Ok(record)
}
