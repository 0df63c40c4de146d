//! `peristyle diagnose flight RUN`.

use crate::cli::output::{message, print};
use crate::cluster::flight::{FlightRecord, culprit};
use crate::error::{Error, Result};
use std::path::PathBuf;

/// Arguments of `diagnose flight`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The run directory.
    run: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let dir = &arguments.run;
    let entries = std::fs::read_dir(dir).map_err(|error| Error::io(dir, "read", error))?;
    let is_record = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("flight-rank-") && name.ends_with(".json")
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_record).collect();
    paths.sort();
    if paths.is_empty() {
        return Err(Error::Usage(format!(
            "{}: no flight records (flight-rank-000.json and so on), which processes write when their job loses one of them",
            dir.display()
        )));
    }
    let mut records = Vec::new();
    for path in &paths {
        match FlightRecord::read(path) {
            Ok(record) => records.push(record),
            Err(error) => message(&format!("note: {}", error.with_causes())),
        }
    }
    print(&culprit(&records))
}
