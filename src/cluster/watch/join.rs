//! How another process finds and joins process 0.

use super::listener::resolve;
use super::loss::Whereabouts;
use super::message::{Inbox, Join, LONGEST, Message};
use crate::cluster::words::in_seconds;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// How long an attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long the name of a host may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(5);
/// How long process 0 may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// How much longer than the start the answer of process 0 may take, which names the missing processes.
const GRACE: Duration = Duration::from_secs(2);
/// The pause between two rounds.
const PAUSE: Duration = Duration::from_millis(100);

/// The connection with process 0, once all have joined.
pub(super) struct Welcomed {
    pub stream: TcpStream,
    pub inbox: Inbox,
    pub members: Vec<Whereabouts>,
}

/// Why an attempt to join failed.
enum Failure {
    /// Another may succeed.
    Again(String),
    /// None can.
    Final(Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Again(error.to_string())
    }
}

/// Joins the job at the first candidate that answers, and waits for the others.
///
/// # Errors
/// If process 0 cannot be reached in time or refuses this process.
pub(super) fn join(
    candidates: &[String],
    ports: RangeInclusive<u16>,
    own: &Join,
    start_timeout: Duration,
) -> Result<Welcomed> {
    let begin = Instant::now();
    let mut reasons: BTreeMap<usize, String> = BTreeMap::new();
    loop {
        let places = candidates.iter().enumerate().flat_map(|host| ports.clone().map(move |port| (host, port)));
        for ((number, host), port) in places {
            let left = || start_timeout.saturating_sub(begin.elapsed());
            let addresses = match resolve(host, port, RESOLVE.min(left())) {
                Ok(addresses) => addresses,
                Err(why) => {
                    // What was learned from a connection says more than that the last one had no time.
                    reasons.entry(number).or_insert_with(|| format!("{host}: {why}"));
                    continue;
                }
            };
            for address in addresses {
                match attempt(address, own, left()) {
                    Ok(welcomed) => return Ok(welcomed),
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Again(_)) if left().is_zero() && reasons.contains_key(&number) => {}
                    Err(Failure::Again(why)) => drop(reasons.insert(number, format!("{host}: {why}"))),
                }
            }
        }
        if begin.elapsed() >= start_timeout {
            let reasons: Vec<String> = reasons.into_values().collect();
            return Err(Error::Run(format!(
                "process {} could not connect to process 0 at {} of {} within {} ({}): check that process 0 has started and \
                 has not ended, that its host can be reached from this one, that no firewall blocks the port, and that this process was \
                 started once",
                own.rank,
                in_words(&ports),
                candidates.join(" or "),
                in_seconds(start_timeout),
                reasons.join("; ")
            )));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Names ports in a sentence.
fn in_words(ports: &RangeInclusive<u16>) -> String {
    let (first, last) = (ports.start(), ports.end());
    if first == last { format!("port {first}") } else { format!("ports {first} to {last}") }
}

fn attempt(address: SocketAddr, own: &Join, left: Duration) -> Result<Welcomed, Failure> {
    if left.is_zero() {
        return Err(Failure::Again("there was no time left to try".to_string()));
    }
    let begin = Instant::now();
    let stream = TcpStream::connect_timeout(&address, CONNECT.min(left))?;
    // A connection to a free port of the same host may end at itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(std::io::Error::from(ErrorKind::ConnectionRefused).into());
    }
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(ANSWER))?;
    (&stream).write_all(&Message::Join(own.clone()).to_frame()?)?;
    let mut inbox = Inbox::new(LONGEST);
    let silent = "a program listens there, but did not answer as process 0 of this job; check the port and the token";
    match next(&mut inbox, &stream, ANSWER.min(left)) {
        Ok(Some(Message::Accepted)) => {}
        Ok(Some(Message::Refused { reason })) => return Err(Failure::Final(Error::Usage(reason))),
        Ok(_) | Err(_) => return Err(Failure::Again(silent.to_string())),
    }
    match next(&mut inbox, &stream, left.saturating_sub(begin.elapsed()) + GRACE) {
        Ok(Some(Message::Welcome { members })) if members.len() == own.processes => {
            Ok(Welcomed { stream, inbox, members })
        }
        Ok(Some(Message::Refused { reason })) => Err(Failure::Final(Error::Run(reason))),
        Err(error) if is_timeout(&error) => Err(Failure::Final(Error::Run(format!(
            "process {} has joined process 0 at {address}, but the others did not all join in time; look at what they print",
            own.rank
        )))),
        Ok(_) | Err(_) => {
            Err(Failure::Again("process 0 closed the connection before all others had joined".to_string()))
        }
    }
}

/// Reads the next message within a time.
fn next(inbox: &mut Inbox, mut stream: &TcpStream, limit: Duration) -> std::io::Result<Option<Message>> {
    let begin = Instant::now();
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match inbox.next(&mut stream) {
            Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
            next => return next,
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}
