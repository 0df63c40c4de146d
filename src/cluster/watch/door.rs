//! How process 0 lets the others join. One thread looks after all connections, none of which can make it wait.

use super::listener::Listener;
use super::loss::{Whereabouts, host_text};
use super::message::{Inbox, Join, LONGEST, LONGEST_FIRST, Message};
use crate::cluster::words::{in_seconds, name_ranks};
use crate::error::{Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long a connection may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// The most connections that have not said who they are.
const MOST_NEWCOMERS: usize = 64;
/// How long a connection is safe from newer ones.
const SAFE: Duration = Duration::from_millis(30);
/// How long a connection with a wrong token is held before it is closed, so that tokens cannot be tried quickly.
const PENALTY: Duration = Duration::from_millis(300);
/// The pause when nothing happens.
const PAUSE: Duration = Duration::from_millis(5);
/// The pause between two looks at the processes that have joined.
const LOOK: Duration = Duration::from_millis(100);
/// The most refusals of which the error reports.
const MOST_REFUSALS: usize = 4;

/// The connection of a process that has joined.
#[derive(Debug)]
pub(super) struct Joined {
    pub rank: usize,
    pub member: Whereabouts,
    pub stream: TcpStream,
    pub inbox: Inbox,
}

/// A connection that has not said who it is.
struct Newcomer {
    stream: TcpStream,
    inbox: Inbox,
    since: Instant,
    /// Whether it is only held until its penalty is over.
    wrong_token: bool,
}

struct Door<'a> {
    /// What process 0 would say of itself.
    own: &'a Join,
    newcomers: Vec<Newcomer>,
    joined: Vec<Joined>,
    strangers: u64,
    wrong_tokens: u64,
    refusals: Vec<String>,
}

/// Waits until all other processes have joined; returns their connections, which do not block, by rank.
///
/// # Errors
/// If they do not join in time, or one of them cannot belong to this job.
pub(super) fn open(listener: &Listener, own: &Join, start_timeout: Duration) -> Result<Vec<Joined>> {
    let (begin, mut looked) = (Instant::now(), Instant::now());
    let mut door = Door { own, newcomers: vec![], joined: vec![], strangers: 0, wrong_tokens: 0, refusals: vec![] };
    while !door.is_complete() {
        let accepted = door.accept(listener);
        door.hear().inspect_err(|error| door.dismiss(error))?;
        if looked.elapsed() > LOOK || door.is_complete() {
            door.forget_closed();
            looked = Instant::now();
        }
        if begin.elapsed() > start_timeout && !door.is_complete() {
            let error = door.incomplete(listener, start_timeout);
            door.dismiss(&error);
            return Err(error);
        }
        if !accepted {
            std::thread::sleep(PAUSE);
        }
    }
    door.joined.sort_by_key(|joined| joined.rank);
    Ok(door.joined)
}

impl Door<'_> {
    fn is_complete(&self) -> bool {
        self.joined.len() + 1 >= self.own.processes
    }

    /// Accepts what has connected; returns whether there was something. Who is silent makes room for newer connections.
    fn accept(&mut self, listener: &Listener) -> bool {
        for count in 0..MOST_NEWCOMERS {
            if self.newcomers.len() >= MOST_NEWCOMERS {
                if self.newcomers[0].since.elapsed() < SAFE {
                    return count > 0;
                }
                self.newcomers.remove(0);
                self.strangers += 1;
            }
            match listener.listener.accept() {
                Ok((stream, _)) => {
                    if stream.set_nonblocking(true).is_ok() {
                        let since = Instant::now();
                        self.newcomers.push(Newcomer {
                            stream,
                            inbox: Inbox::new(LONGEST_FIRST),
                            since,
                            wrong_token: false,
                        });
                    }
                }
                // Nobody, or too many open files, or a connection that ended before it was accepted: the next attempt may succeed.
                Err(_) => return count > 0,
            }
        }
        true
    }

    /// Reads what newcomers say.
    fn hear(&mut self) -> Result<()> {
        for mut newcomer in std::mem::take(&mut self.newcomers) {
            if newcomer.wrong_token {
                if newcomer.since.elapsed() < PENALTY {
                    self.newcomers.push(newcomer);
                }
                continue;
            }
            match newcomer.inbox.next(&mut &newcomer.stream) {
                Ok(Some(Message::Join(join))) => self.meet(newcomer, join)?,
                Err(error) if is_empty(&error) => match newcomer.since.elapsed() < HANDSHAKE {
                    true => self.newcomers.push(newcomer),
                    false => self.strangers += 1,
                },
                Ok(_) | Err(_) => self.strangers += 1,
            }
        }
        Ok(())
    }

    /// Lets a process join that says who it is.
    fn meet(&mut self, mut newcomer: Newcomer, mut join: Join) -> Result<()> {
        // What is passed on to all has a limit.
        join.member.host = host_text(&join.member.host);
        if join.token != self.own.token {
            self.wrong_tokens += 1;
            newcomer.wrong_token = true;
            newcomer.since = Instant::now();
            self.newcomers.push(newcomer);
            return Ok(());
        }
        if let Some(reason) = self.own.refusal_of(&join) {
            send(&newcomer.stream, &Message::Refused { reason: reason.clone() });
            return Err(Error::Usage(reason));
        }
        self.forget_closed();
        if let Some(first) = self.joined.iter().find(|joined| joined.rank == join.rank) {
            let reason = format!(
                "process {} (host {}, pid {}) cannot join: process {} has joined already, from host {} with pid {}; start each \
                 process once",
                join.rank, join.member.host, join.member.pid, join.rank, first.member.host, first.member.pid
            );
            send(&newcomer.stream, &Message::Refused { reason: reason.clone() });
            if self.refusals.len() < MOST_REFUSALS {
                self.refusals.push(reason);
            }
            return Ok(());
        }
        if send(&newcomer.stream, &Message::Accepted) {
            newcomer.inbox.longest = LONGEST;
            let Newcomer { stream, inbox, .. } = newcomer;
            self.joined.push(Joined { rank: join.rank, member: join.member, stream, inbox });
        }
        Ok(())
    }

    /// Forgets processes whose connections have closed: a launcher may start them again.
    fn forget_closed(&mut self) {
        // They say nothing before they are welcome.
        let waits = |mut stream: &TcpStream| stream.read(&mut [0]).is_err_and(|error| is_empty(&error));
        self.joined.retain(|joined| waits(&joined.stream));
    }

    /// Passes the reason on to the processes that wait.
    fn dismiss(&self, error: &Error) {
        let reason = error.to_string();
        self.joined.iter().for_each(|joined| {
            send(&joined.stream, &Message::Refused { reason: reason.clone() });
        });
    }

    /// Returns the error that names who is missing.
    fn incomplete(&self, listener: &Listener, start_timeout: Duration) -> Error {
        let missing: Vec<usize> =
            (1..self.own.processes).filter(|rank| !self.joined.iter().any(|joined| joined.rank == *rank)).collect();
        let have = if missing.len() == 1 { "has" } else { "have" };
        let mut others = Vec::new();
        let mut count = |number: u64, what: &str| match number {
            0 => {}
            1 => others.push(format!("1 connection {what}")),
            _ => others.push(format!("{number} connections {what}")),
        };
        count(self.wrong_tokens, "brought the token of another job");
        count(self.strangers, "did not belong to this program");
        others.extend(self.refusals.iter().cloned());
        let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join("; ")) };
        Error::Run(format!(
            "{} {have} not connected to {}:{} within {}{others}: look at what they print, and check that they have started, that their \
             hosts can reach this one, and that no firewall blocks the port",
            name_ranks(&missing),
            listener.addresses()[0],
            listener.port(),
            in_seconds(start_timeout)
        ))
    }
}

impl Join {
    /// Returns why a process cannot belong to the job of this one, if so.
    fn refusal_of(&self, other: &Join) -> Option<String> {
        let Join { rank, processes, version, .. } = other;
        let who = format!("process {rank} (host {}, pid {})", other.member.host, other.member.pid);
        if *version != self.version {
            return Some(format!(
                "{who} runs version {version}, process 0 runs {}; start the same program on all hosts",
                self.version
            ));
        }
        if *processes != self.processes {
            return Some(format!(
                "{who} belongs to a job of {processes} processes, process 0 to one of {}; start all with the same number",
                self.processes
            ));
        }
        if !(1..self.processes).contains(rank) {
            return Some(format!(
                "{who} cannot join, expected ranks from 1 to {}; correct its rank",
                self.processes - 1
            ));
        }
        if other.timeout_milliseconds != self.timeout_milliseconds {
            let seconds = |milliseconds| in_seconds(Duration::from_millis(milliseconds));
            return Some(format!(
                "{who} has a timeout of {}, process 0 of {}; use the same configuration on all hosts",
                seconds(other.timeout_milliseconds),
                seconds(self.timeout_milliseconds)
            ));
        }
        None
    }
}

/// Sends a message that the buffer of a new connection has room for; returns whether it could.
fn send(mut stream: &TcpStream, message: &Message) -> bool {
    message.to_frame().and_then(|frame| stream.write_all(&frame)).is_ok()
}

/// Returns whether a connection only has nothing to read yet.
fn is_empty(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
