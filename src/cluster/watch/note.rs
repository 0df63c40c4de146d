//! What processes tell each other over a connection of the watch: one line of JSON for each note.

use crate::cluster::Reached;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{BufRead, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The longest note, in bytes.
const LONGEST: u64 = 1 << 16;
/// The longest first note of a connection.
const LONGEST_FIRST: usize = 1 << 10;

/// A secret of a job, by which its processes know each other.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token(String);

impl Token {
    /// Creates a token that nobody can guess.
    pub fn random() -> Self {
        use rand::TryRng;
        let mut bytes = [0u8; 32];
        rand::rngs::SysRng.try_fill_bytes(&mut bytes).expect("the operating system has random numbers");
        Token(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Compares two tokens in a time that does not depend on where they differ.
    pub fn is(&self, other: &Token) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Where a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// The name of its machine.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
}

/// A process that is lost, and with it the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The process.
    pub rank: usize,
    /// The name of its machine.
    pub host: String,
    /// What happened to it.
    pub reason: String,
    /// Where it was when it was last heard of.
    pub at: Reached,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loss { rank, host, reason, at } = self;
        write!(f, "process {rank} on {host} {reason} ({at})")
    }
}

/// A note.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Note {
    /// The first one of a process that joins.
    Join { rank: usize, processes: usize, version: String, member: Whereabouts, token: Token },
    /// All have joined.
    Welcome(Vec<Whereabouts>),
    /// This process cannot join.
    Refused(String),
    /// It is alive, and so far.
    Alive(Reached),
    /// It waits for too long for others.
    Late(String),
    /// The job has lost a process.
    Lost(Loss),
    /// It ends as it should.
    Goodbye,
}

impl Note {
    pub fn send(&self, mut to: &TcpStream) -> Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        to.write_all(&line)
    }

    /// Reads the next note; none at the end of the connection.
    pub fn read(from: &mut impl BufRead) -> Result<Option<Note>> {
        let mut line = Vec::new();
        from.take(LONGEST).read_until(b'\n', &mut line)?;
        if line.is_empty() { Ok(None) } else { Note::of(&line).map(Some) }
    }

    /// Reads the first note of a stranger, who has a limited time for it.
    pub fn read_first(mut from: &TcpStream, time: Duration) -> Result<Note> {
        let (begin, mut line, mut byte) = (Instant::now(), Vec::new(), [0]);
        while line.last() != Some(&b'\n') {
            let left = time.saturating_sub(begin.elapsed());
            if left.is_zero() || line.len() >= LONGEST_FIRST {
                return Err(ErrorKind::TimedOut.into());
            }
            from.set_read_timeout(Some(left))?;
            from.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        from.set_read_timeout(None)?;
        Note::of(&line)
    }

    fn of(line: &[u8]) -> Result<Note> {
        let whole = line.strip_suffix(b"\n").ok_or(ErrorKind::UnexpectedEof)?;
        serde_json::from_slice(whole).map_err(|error| Error::new(ErrorKind::InvalidData, error))
    }
}
