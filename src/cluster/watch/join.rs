//! How the processes of a job find each other: process 0 listens, the others connect to it.

use super::note::{Note, Token, Whereabouts};
use crate::error::{Error, Result, quantity};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How long a stranger has for its first note.
const FIRST: Duration = Duration::from_secs(3);
/// The most strangers at once.
const STRANGERS: usize = 64;
/// The pause between two looks for connections, or two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an attempt to connect may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Where process 0 listens, and the secret of the job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Meeting {
    /// The names and addresses of its machine.
    pub hosts: Vec<String>,
    /// The port.
    pub port: u16,
    /// The secret.
    pub token: Token,
}

/// Process 0 while it waits for the others.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    /// What the others need to know.
    pub meeting: Meeting,
}

/// The connection of a process that has joined.
#[derive(Debug)]
pub(super) struct Joined {
    pub rank: usize,
    pub member: Whereabouts,
    pub connection: TcpStream,
}

impl Listener {
    /// Listens on a free port of all interfaces.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn bind() -> Result<Self> {
        let failed = |error: std::io::Error| Error::Run(format!("cannot listen for other processes: {error}"));
        let listener =
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)));
        let listener = listener.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let mut hosts = vec![host_name()];
        // No packet is sent: the operating system only chooses the interface.
        let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
            socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
            socket.local_addr()
        });
        hosts.extend(probe.ok().map(|address| address.ip().to_string()));
        Ok(Listener { listener, meeting: Meeting { hosts, port, token: Token::random() } })
    }

    /// Waits for all other processes, and returns their connections by rank. Strangers are ignored.
    ///
    /// # Errors
    /// If they do not join in time.
    pub(super) fn wait(self, processes: usize, time: Duration) -> Result<Vec<Joined>> {
        let (begin, strangers) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let (sender, arrived): (Sender<Joined>, Receiver<Joined>) = channel();
        let mut all: Vec<Joined> = Vec::new();
        while all.len() + 1 < processes {
            match self.listener.accept() {
                Ok((connection, _)) if strangers.load(Ordering::SeqCst) < STRANGERS => {
                    let (sender, token, strangers) =
                        (sender.clone(), self.meeting.token.clone(), Arc::clone(&strangers));
                    strangers.fetch_add(1, Ordering::SeqCst);
                    let meet = move || {
                        if let Some(joined) = meet(connection, processes, &token) {
                            // Nobody waits any more once all have joined.
                            let _ = sender.send(joined);
                        }
                        strangers.fetch_sub(1, Ordering::SeqCst);
                    };
                    // Without a thread the stranger is ignored; a process of the job tries again.
                    let _ = std::thread::Builder::new().name("join".to_string()).spawn(meet);
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
                // A connection that ended before it was accepted, or too many files: the next attempt may succeed.
                Err(_) => std::thread::sleep(PAUSE),
            }
            for joined in arrived.try_iter() {
                match all.iter().any(|other| other.rank == joined.rank) {
                    true => drop(
                        Note::Refused(format!("process {} has joined already", joined.rank)).send(&joined.connection),
                    ),
                    false => all.push(joined),
                }
            }
            if begin.elapsed() > time {
                let missing: Vec<String> = (1..processes)
                    .filter(|rank| !all.iter().any(|other| other.rank == *rank))
                    .map(|rank| rank.to_string())
                    .collect();
                return Err(Error::Run(format!(
                    "{} of {} did not reach process 0 at {}, port {}, within {time:?}: {}; look at their messages, and whether a firewall \
                     is between the nodes",
                    quantity(missing.len() as u64, "process"),
                    processes,
                    self.meeting.hosts.join(" or "),
                    self.meeting.port,
                    missing.join(", ")
                )));
            }
        }
        all.sort_by_key(|joined| joined.rank);
        Ok(all)
    }
}

/// Reads who a stranger is; none if it does not belong to the job.
fn meet(connection: TcpStream, processes: usize, expected: &Token) -> Option<Joined> {
    connection.set_nonblocking(false).ok()?;
    let Note::Join { rank, processes: own, version, member, token } = Note::read_first(&connection, FIRST).ok()? else {
        return None;
    };
    if !token.is(expected) {
        return None;
    }
    let here = env!("CARGO_PKG_VERSION");
    let refusal = if version != here {
        Some(format!("process 0 is peristyle {here}, this one {version}; start the same program everywhere"))
    } else if own != processes || !(1..processes).contains(&rank) {
        Some(format!("process {rank} of {own} does not belong to a job of {processes}"))
    } else {
        None
    };
    match refusal {
        Some(why) => {
            let _ = Note::Refused(why).send(&connection);
            None
        }
        None => Some(Joined { rank, member, connection }),
    }
}

/// Connects to process 0.
///
/// # Errors
/// If it cannot be reached in time.
pub(super) fn connect(
    meeting: &Meeting,
    (rank, processes): (usize, usize),
    member: &Whereabouts,
    time: Duration,
) -> Result<TcpStream> {
    let begin = Instant::now();
    let own = host_name();
    // A machine that cannot find itself by its name or address has this one.
    let loopback = (meeting.hosts.first() == Some(&own)).then(|| Ipv4Addr::LOCALHOST.to_string());
    let hosts: Vec<String> = meeting.hosts.iter().cloned().chain(loopback).collect();
    let mut why = String::new();
    loop {
        for host in &hosts {
            match attempt(host, meeting.port) {
                Ok(connection) => {
                    let version = env!("CARGO_PKG_VERSION").to_string();
                    let join =
                        Note::Join { rank, processes, version, member: member.clone(), token: meeting.token.clone() };
                    match join.send(&connection) {
                        Ok(()) => return Ok(connection),
                        Err(error) => why = error.to_string(),
                    }
                }
                Err(error) => why = format!("{host}: {error}"),
            }
        }
        if begin.elapsed() > time {
            return Err(Error::Run(format!(
                "process 0 cannot be reached at {}, port {}, within {time:?} ({why}); is a firewall between the nodes?",
                hosts.join(" or "),
                meeting.port
            )));
        }
        std::thread::sleep(PAUSE);
    }
}

fn attempt(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ATTEMPT) {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Returns the name of this machine.
pub(super) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_string() } else { name.to_string() }
}
