//! What a command does that a launcher started as several processes.

use super::output::failure;
use crate::cluster::mpi::Failure;
use crate::cluster::{Process, Team, Timeouts, connect};
use crate::error::{Error, Result};
use crate::train::owner::Owner;
use crate::train::signals;
use crate::train::team::{agree, from_first};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a file system may take to show other machines a new file.
const VISIBLE: Duration = Duration::from_secs(10);

/// The run directory, as the first process took it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Place {
    /// Its path.
    pub path: PathBuf,
    /// The identity of the run.
    pub run: String,
    /// Whether it holds a run that is to be resumed.
    pub resumes: bool,
    /// Whether that run has a checkpoint.
    pub continues: bool,
    /// The record of its owner.
    pub owner: Owner,
}

/// Connects the processes of a job, and runs a command on all of them. An error that they agree on is printed once.
pub(super) fn run(process: &Process, each: usize, command: impl FnOnce(&Arc<Team>) -> Result<()>) -> Result<()> {
    let rank = process.rank;
    let failed = move |failure: &Failure| {
        let error = of_process(rank, Error::Run(failure.message.clone()));
        self::failure(&error);
        std::process::exit(signals::AGAIN);
    };
    let engine = connect(process, Timeouts::default(), failed).map_err(|error| of_process(rank, error))?;
    let team = Arc::new(Team::new(engine, each));
    let result = command(&team);
    team.engine().finish();
    match result {
        Err(error) if team.rank() > 0 => std::process::exit(error.exit_code()),
        result => result,
    }
}

/// Returns the error of one process, with its number.
fn of_process(rank: usize, error: Error) -> Error {
    let message = format!("process {rank}: {}", error.with_causes());
    if error.exit_code() == 2 { Error::Usage(message) } else { Error::Run(message) }
}

/// Ends a process whose training failed while the others go on, which cannot be told in an orderly way.
pub(super) fn failed(team: Option<&Arc<Team>>, error: Error) -> Error {
    let Some(team) = team else { return error };
    let error = of_process(team.rank(), error);
    failure(&error);
    std::process::exit(error.exit_code());
}

/// Returns the run directory of the first process, which all processes see.
///
/// # Errors
/// If one does not, or they cannot exchange data.
pub(super) fn place(team: Option<&Arc<Team>>, own: Option<Place>) -> Result<Place> {
    let Some(team) = team else { return Ok(own.expect("a process that is alone takes the directory")) };
    let own = own.map(|place| Place { path: std::path::absolute(&place.path).unwrap_or(place.path.clone()), ..place });
    let place = from_first(team, own.as_ref())?;
    let begin = Instant::now();
    let sees = || Owner::of(&place.path).is_some_and(|owner| owner == place.owner);
    while !sees() && begin.elapsed() < VISIBLE {
        std::thread::sleep(Duration::from_millis(50));
    }
    let seen = if sees() {
        Ok(())
    } else {
        let (dir, host) = (place.path.display(), &place.owner.host);
        Err(Error::Usage(format!(
            "{dir}, the run directory of process 0 on {host}, is not visible to process {}; choose a --run-dir on a file system that all nodes \
             share",
            team.rank()
        )))
    };
    agree(Some(team), seen).map(|()| place)
}
