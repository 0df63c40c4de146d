//! What a command does that a launcher started as several processes.

use super::output::{failure, message};
use crate::cluster::flight::{FlightEntry, FlightRecord};
use crate::cluster::watch::{Listener, Loss, Token, Watch, WatchOptions};
use crate::cluster::{EngineFailure, Failed, Mover, Process, Team, Timeouts, connect};
use crate::error::{Error, Result};
use crate::train::owner::Owner;
use crate::train::signals;
use crate::train::team::{agree, from_first};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long a file system may take to show other machines a new file.
const VISIBLE: Duration = Duration::from_secs(10);

/// How long the watch has to notice a process whose end the engine has noticed.
const NOTICE: Duration = Duration::from_secs(2);

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
pub(super) fn run(
    process: &Process,
    mover: Mover,
    timeouts: Timeouts,
    each: usize,
    command: impl FnOnce(&Launched) -> Result<()>,
) -> Result<()> {
    let rank = process.rank;
    let ends: Arc<Ends> = Arc::default();
    let of_engine = Arc::clone(&ends);
    let failed = Failed::new(move |failure| of_engine.engine_failed(rank, timeouts, &failure));
    let engine = connect(process, mover, timeouts, failed.clone()).map_err(|error| of_process(rank, error))?;
    let team = Arc::new(Team::new(engine, each).with_limits(timeouts, failed));
    let _ = ends.team.set(Arc::clone(&team));
    let result = begin_watch(&team, timeouts, &ends).and_then(|watch| {
        let watch = ends.watch.get_or_init(|| watch);
        team.name_hosts(watch.hosts().iter().map(|at| at.host.clone()).collect());
        command(&Launched { team: &team, watch, ends: &ends })
    });
    if let Some(error) = result.as_ref().err().filter(|_| rank == 0) {
        // A launcher ends all processes as soon as one has failed: this is said before any of them does.
        failure(error);
    }
    team.engine().finish();
    if let Some(watch) = ends.watch.get() {
        watch.finish();
    }
    result.map_err(|error| signals::leave(error.exit_code()))
}

/// The processes of a job, and the watch over them.
pub(super) struct Launched<'a> {
    pub team: &'a Arc<Team>,
    watch: &'a Watch,
    ends: &'a Ends,
}

impl Launched<'_> {
    /// Ends a process whose training failed while the others go on, which cannot be told in an orderly way.
    pub fn fail(&self, error: &Error) -> ! {
        failure(&of_process(self.team.rank(), Error::Run(error.with_causes())));
        self.ends.record(&error.with_causes());
        self.watch.fail(&error.with_causes());
        signals::leave(error.exit_code());
    }

    /// Returns the name of the host of this process.
    pub fn host(&self) -> String {
        self.watch.hosts()[self.team.rank()].host.clone()
    }

    /// Sets the run directory, for flight records. Those of an earlier end are removed.
    pub fn records_in(&self, dir: &Path) {
        let _ = std::fs::remove_file(FlightRecord::path(dir, self.team.rank()));
        let _ = self.ends.dir.set(dir.to_path_buf());
    }

    /// Ends the connections, before this process ends itself.
    pub fn finish(&self) {
        self.team.engine().finish();
        self.watch.finish();
    }
}

/// Where process 0 waits for the others, as it tells them through the engine.
#[derive(Debug, Serialize, Deserialize)]
struct Meeting {
    addresses: Vec<String>,
    port: u16,
    token: Token,
}

/// Begins the watch over all processes.
fn begin_watch(team: &Arc<Team>, timeouts: Timeouts, ends: &Arc<Ends>) -> Result<Watch> {
    let of_watch = Arc::clone(ends);
    let own = (team.rank() == 0).then(|| Ok((Listener::bind(None)?, Token::random()?))).transpose();
    let own = agree(Some(team), own)?;
    let said = own.as_ref().map(|(listener, token)| Meeting {
        addresses: listener.addresses(),
        port: listener.port(),
        token: token.clone(),
    });
    let meeting: Meeting = from_first(team, said.as_ref())?;
    let rank = team.rank();
    let options = WatchOptions {
        rank,
        processes: team.processes(),
        timeout: timeouts.silence,
        start_timeout: timeouts.start,
        progress: Arc::clone(team.progress()),
        failed: Box::new(move |loss| of_watch.lost(rank, &loss)),
    };
    let watch = match own {
        Some((listener, token)) => Watch::lead(listener, &token, options),
        None => Watch::follow(&meeting.addresses, meeting.port, &meeting.token, options),
    };
    agree(Some(team), watch)
}

/// What a process that ends before the others needs, as far as it is known.
#[derive(Debug, Default)]
struct Ends {
    team: OnceLock<Arc<Team>>,
    watch: OnceLock<Watch>,
    dir: OnceLock<PathBuf>,
}

impl Ends {
    /// Writes the flight record, if training has begun.
    fn record(&self, reason: &str) {
        let (Some(team), Some(dir)) = (self.team.get(), self.dir.get()) else { return };
        // The process ends in any case, and has said why.
        let _ = team.flight().write(dir, reason);
    }

    /// Returns the collective that this process waits in, the first of several.
    fn waits(&self) -> Option<FlightEntry> {
        self.team.get()?.flight().snapshot().into_iter().find(|entry| entry.ended.is_none())
    }

    /// Ends this process because the job has lost another one. No checkpoint is tried: it needs all processes.
    fn lost(&self, rank: usize, loss: &Loss) {
        let waits = self.waits();
        let here =
            waits.map_or(String::new(), |entry| format!("; this one is at step {}, in {}", entry.step, entry.name));
        message(&format!("peristyle: process {rank}: the job ends: {loss}{here}"));
        self.record(&loss.to_string());
        signals::leave(signals::AGAIN);
    }

    /// Ends this process because the engine cannot go on.
    fn engine_failed(&self, rank: usize, timeouts: Timeouts, failure: &EngineFailure) -> ! {
        if let Some(watch) = self.watch.get() {
            if !failure.waited.is_zero()
                && let Some(entry) = self.waits()
            {
                // All find out who is to blame, and end.
                watch.report_timeout(entry.sequence, &entry.name, failure.waited);
                std::thread::sleep(timeouts.silence + NOTICE);
            } else {
                // If another process is lost, the watch finds out, and names it.
                std::thread::sleep(NOTICE);
            }
        }
        self::failure(&of_process(rank, Error::Run(failure.message.clone())));
        self.record(&failure.message);
        if let Some(watch) = self.watch.get() {
            watch.fail(&failure.message);
        }
        signals::leave(signals::AGAIN)
    }
}

/// Returns the error of one process, with its number.
fn of_process(rank: usize, error: Error) -> Error {
    let message = format!("process {rank}: {}", error.with_causes());
    if error.exit_code() == 2 { Error::Usage(message) } else { Error::Run(message) }
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
