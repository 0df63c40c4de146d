//! `peristyle launch`.

use super::output::message;
use crate::cluster::watch::{MOST_PROCESSES, Token};
use crate::error::{Error, Result};
use crate::train::signals;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// The variable that tells a process who started it.
const PARENT: &str = "PERISTYLE_LAUNCHED_BY";
/// How long the other processes have to notice that one has failed, which they do by themselves.
const NOTICE: Duration = Duration::from_secs(30);
/// How long they have after that to end on request.
const END: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// Arguments of `launch`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The number of processes.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_PROCESSES as i64))]
    processes: u16,
    /// The command and its arguments, as in `launch -n 8 train x.toml`.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Starts a command as several processes, and waits for them.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let unable = |error: std::io::Error| Error::Run(format!("the processes cannot be started: {error}"));
    let mut received = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1]).map_err(unable)?;
    let program = std::env::current_exe().map_err(unable)?;
    // Held until the end, so that no other job of this machine tries the same ports after it.
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(unable)?;
    let port = held.local_addr().map_err(unable)?.port();
    let (token, processes) = (Token::random()?, usize::from(arguments.processes));
    let start = |rank: usize| {
        Command::new(&program)
            .args(&arguments.command)
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", processes.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("LOCAL_WORLD_SIZE", processes.to_string())
            .env("MASTER_ADDR", Ipv4Addr::LOCALHOST.to_string())
            .env("MASTER_PORT", port.to_string())
            .env("PERISTYLE_TOKEN", token.to_string())
            .env(PARENT, std::process::id().to_string())
            // A terminal then sends its signals to this process alone, which passes them on.
            .process_group(0)
            .spawn()
            .map_err(unable)
    };
    let mut all = Processes { running: Vec::new(), culprit: None, several: processes > 1 };
    for rank in 0..processes {
        all.running.push((rank, start(rank)?));
    }
    all.wait(&mut received);
    match all.culprit {
        None => Ok(()),
        Some((_, status)) => end(status),
    }
}

/// The processes that have not ended. Those that remain when it is dropped are killed.
struct Processes {
    running: Vec<(usize, Child)>,
    /// The process whose failure ends the job, as far as is known.
    culprit: Option<(usize, ExitStatus)>,
    several: bool,
}

impl Processes {
    /// Waits until all have ended, passes signals on to them, and ends those that do not notice the failure of another one.
    fn wait(&mut self, received: &mut Signals) {
        let mut failed: Option<Instant> = None;
        let (mut asked, mut named) = (false, false);
        while !self.running.is_empty() {
            for signal in received.pending() {
                self.signal(signal);
            }
            self.collect(asked);
            if self.culprit.is_some() && failed.is_none() {
                failed = Some(Instant::now());
            }
            let since = failed.map_or(Duration::ZERO, |failed| failed.elapsed());
            if since > NOTICE && !asked {
                asked = true;
                self.signal(SIGTERM);
            }
            if since > NOTICE + END {
                self.kill();
            }
            if !named
                && (asked || self.running.is_empty() || self.culprit.is_some_and(|(_, status)| !only_noticed(status)))
            {
                named = true;
                self.name_culprit();
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Forgets those that have ended. Once they are asked to end, their failures tell nothing of the cause.
    fn collect(&mut self, asked: bool) {
        let culprit = &mut self.culprit;
        self.running.retain_mut(|(rank, child)| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                // The connections of a process close before its end can be seen: others may notice first, and end before it.
                let worse = culprit.is_none_or(|(_, known)| only_noticed(known) && !only_noticed(status));
                if !status.success() && worse && !asked {
                    *culprit = Some((*rank, status));
                }
                false
            }
            Err(_) => false,
        });
    }

    fn name_culprit(&self) {
        if let Some((rank, status)) = self.culprit
            && self.several
        {
            message(&format!("peristyle: process {rank} ended the job: {status}"));
        }
    }

    fn signal(&self, signal: i32) {
        let Some(signal) = Signal::from_named_raw(signal) else { return };
        for (_, child) in &self.running {
            // It may just have ended.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    fn kill(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a process ended so that it may be started again, as all do that notice the failure of another one.
fn only_noticed(status: ExitStatus) -> bool {
    status.code() == Some(signals::AGAIN)
}

/// Ends as the culprit did.
fn end(status: ExitStatus) -> ! {
    match status.signal() {
        Some(signal @ (SIGINT | SIGTERM | SIGHUP)) => signals::end(signal),
        Some(signal) => signals::leave(128 + signal),
        None => signals::leave(status.code().unwrap_or(1)),
    }
}

/// Makes a process that `launch` started end with it, however that ends.
pub(super) fn follow_parent() {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|text| text.parse::<i32>().ok()) else { return };
    let bound = set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    let here = getppid().map(Pid::as_raw_nonzero).map(std::num::NonZero::get);
    if bound && here != Some(parent) {
        // It ended before this process could say so; or this is the child of such a process.
        let grandchild = here.is_some_and(|here| here != 1);
        if !grandchild {
            signals::leave(1);
        }
        let _ = set_parent_process_death_signal(None);
    }
}
