//! Connections between process 0 and the others, for something else than the watch: a meeting has the same door.

use super::door;
use super::join::join;
use super::listener::Listener;
use super::message::{Join, Message};
use super::options::introduce;
use super::token::Token;
use crate::error::{Error, Result};
use std::io::Write;
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A process that comes to a meeting.
#[derive(Debug, Clone)]
pub struct Attendee {
    /// Its number, from 0.
    pub rank: usize,
    /// The number of processes.
    pub processes: usize,
    /// The secret of the job.
    pub token: Token,
    /// How long the meeting may take to be complete.
    pub start_timeout: Duration,
}

/// The connection with a process that has come.
#[derive(Debug)]
pub struct Connection {
    /// The process.
    pub rank: usize,
    /// The connection, whose calls block.
    pub stream: TcpStream,
    /// What has already been read of what it sends.
    pub read: Vec<u8>,
}

impl Attendee {
    fn introduce(&self) -> Result<Join> {
        introduce(&self.token, (self.rank, self.processes), [self.start_timeout; 2])
    }
}

/// Waits in process 0 until all others have come; returns the connections with them.
///
/// # Errors
/// If they do not come in time, or one of them cannot belong to this job.
pub fn lead_meeting(listener: &Listener, own: &Attendee) -> Result<Vec<Connection>> {
    let own_join = own.introduce()?;
    let joined = door::open(listener, &own_join, own.start_timeout)?;
    let mut members = vec![own_join.member];
    members.extend(joined.iter().map(|joined| joined.member.clone()));
    let welcome = Message::Welcome { members }.to_frame().map_err(failed)?;
    let connections = joined.into_iter().map(|joined| Connection::new(joined.rank, joined.stream, Vec::new()));
    let mut connections = connections.collect::<Result<Vec<_>>>()?;
    for connection in &mut connections {
        connection.stream.write_all(&welcome).map_err(failed)?;
    }
    Ok(connections)
}

/// Comes to the meeting that process 0 leads at one of the hosts and ports; returns the connection with it.
///
/// # Errors
/// If it cannot be reached in time, or refuses this process.
pub fn attend(hosts: &[String], ports: RangeInclusive<u16>, own: &Attendee) -> Result<Connection> {
    let welcomed = join(hosts, ports, &own.introduce()?, own.start_timeout)?;
    Connection::new(0, welcomed.stream, welcomed.inbox.rest())
}

fn failed(error: std::io::Error) -> Error {
    Error::Run(format!("the processes of the job cannot be connected: {error}"))
}

impl Connection {
    fn new(rank: usize, stream: TcpStream, read: Vec<u8>) -> Result<Self> {
        stream.set_nonblocking(false).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(None).map_err(failed)?;
        stream.set_write_timeout(None).map_err(failed)?;
        Ok(Connection { rank, stream, read })
    }
}
