//! A watch over the processes of a job, because MPI and its launchers may wait for ever for one that is lost, stopped or cut off.
//!
//! All processes are connected with process 0, and each end tells the other several times within `timeout` that it is alive. A closed
//! connection is a loss at once, silence after `timeout`. Process 0 tells all others of a loss. Nothing else crosses these connections.

mod join;
mod note;

pub use join::{Listener, Meeting};
pub use note::{Loss, Token, Whereabouts};

use crate::cluster::{JobProgress, Reached};
use crate::error::{Error, Result};
use join::{Joined, connect, host_name};
use note::Note;
use std::io::BufReader;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many times within the timeout a process says that it is alive.
const SIGNS: u32 = 5;
/// How long a write may take: a process that reads nothing is not waited for.
const WRITE: Duration = Duration::from_millis(500);
/// How long the others have to read of a loss before this process ends.
const FAREWELL: Duration = Duration::from_millis(200);

/// How a process is watched, and watches others.
pub struct WatchOptions {
    /// The number of this process, and of all.
    pub rank: usize,
    /// The number of all.
    pub processes: usize,
    /// The time of silence after which a process is lost.
    pub timeout: Duration,
    /// How long the start may take.
    pub start_timeout: Duration,
    /// How far this process has come.
    pub progress: Arc<JobProgress>,
    /// Is called once, when the job has lost a process.
    pub failed: Box<dyn Fn(&Loss) + Send + Sync>,
}

/// A process at the other end of a connection.
struct Peer {
    rank: usize,
    connection: TcpStream,
    /// When it was last heard of, and where it was.
    heard: Mutex<(Instant, Reached)>,
    /// Whether it has said goodbye.
    left: AtomicBool,
}

struct Shared {
    options: WatchOptions,
    members: Vec<Whereabouts>,
    peers: Vec<Peer>,
    /// Whether the watch has ended: by a loss, or because this process ends.
    over: AtomicBool,
}

/// The watch of one process.
pub struct Watch(Arc<Shared>);

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watch({} of {})", self.0.options.rank, self.0.options.processes)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn this_process() -> Whereabouts {
    Whereabouts { host: host_name(), pid: std::process::id() }
}

impl Watch {
    /// Begins the watch in process 0, once all others have joined.
    ///
    /// # Errors
    /// If they do not.
    pub fn lead(listener: Listener, options: WatchOptions) -> Result<Watch> {
        let joined = listener.wait(options.processes, options.start_timeout)?;
        let mut members = vec![this_process()];
        members.extend(joined.iter().map(|joined| joined.member.clone()));
        let welcome = Note::Welcome(members.clone());
        for Joined { connection, .. } in &joined {
            // One that has ended meanwhile is lost, as its reader finds out.
            let _ = welcome.send(connection);
        }
        Watch::begin(options, members, joined.into_iter().map(|joined| (joined.rank, joined.connection)).collect())
    }

    /// Begins the watch in another process.
    ///
    /// # Errors
    /// If process 0 cannot be reached, or refuses this one.
    pub fn follow(meeting: &Meeting, options: WatchOptions) -> Result<Watch> {
        let place = (options.rank, options.processes);
        let connection = connect(meeting, place, &this_process(), options.start_timeout)?;
        let failed = |why: String| Error::Run(format!("process 0 does not let this one join: {why}"));
        // The others may join later.
        connection.set_read_timeout(Some(options.start_timeout + WRITE)).map_err(|error| failed(error.to_string()))?;
        let mut reader = BufReader::new(&connection);
        let members = match Note::read(&mut reader) {
            Ok(Some(Note::Welcome(members))) if members.len() == options.processes => members,
            Ok(Some(Note::Refused(why))) => return Err(Error::Usage(why)),
            Ok(_) => return Err(failed("it ended the connection".to_string())),
            Err(error) => return Err(failed(error.to_string())),
        };
        connection.set_read_timeout(None).map_err(|error| failed(error.to_string()))?;
        Watch::begin(options, members, vec![(0, connection)])
    }

    fn begin(options: WatchOptions, members: Vec<Whereabouts>, connections: Vec<(usize, TcpStream)>) -> Result<Watch> {
        let failed = |error: std::io::Error| Error::Run(format!("cannot watch over other processes: {error}"));
        let mut peers = Vec::new();
        for (rank, connection) in connections {
            connection.set_nodelay(true).map_err(failed)?;
            connection.set_write_timeout(Some(WRITE)).map_err(failed)?;
            let heard = Mutex::new((Instant::now(), Reached::default()));
            peers.push(Peer { rank, connection, heard, left: AtomicBool::new(false) });
        }
        let shared = Arc::new(Shared { options, members, peers, over: AtomicBool::new(false) });
        for number in 0..shared.peers.len() {
            let of_thread = Arc::clone(&shared);
            let read = move || of_thread.read(number);
            std::thread::Builder::new()
                .name(format!("watch {}", shared.peers[number].rank))
                .spawn(read)
                .map_err(failed)?;
        }
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new().name("watch".to_string()).spawn(move || of_thread.signs()).map_err(failed)?;
        Ok(Watch(shared))
    }

    /// Returns where each process runs.
    pub fn members(&self) -> &[Whereabouts] {
        &self.0.members
    }

    /// Tells the others that this process ends by an error of its own, and ends the watch.
    pub fn fail(&self, reason: &str) {
        self.0.fail(reason);
    }

    /// Declares that a collective takes too long. Process 0 finds out who has not begun it, and all lose that one; otherwise this one.
    pub fn late(&self, what: &str) {
        self.0.late(self.0.options.rank, what);
    }

    /// Says goodbye and ends the watch.
    pub fn finish(&self) {
        self.0.finish();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl Shared {
    fn leads(&self) -> bool {
        self.options.rank == 0
    }

    /// Returns the loss of a process.
    fn loss(&self, rank: usize, reason: String) -> Loss {
        let known = self.peers.iter().find(|peer| peer.rank == rank).map(|peer| lock(&peer.heard).1);
        let at = known.unwrap_or_else(|| self.options.progress.position());
        Loss { rank, host: self.members[rank].host.clone(), reason, at }
    }

    /// Tells others of a loss, and this process.
    fn lose(&self, loss: &Loss) {
        if self.over.swap(true, Ordering::SeqCst) {
            return;
        }
        self.tell(&Note::Lost(loss.clone()));
        (self.options.failed)(loss);
    }

    fn tell(&self, note: &Note) {
        for peer in self.peers.iter().filter(|peer| !peer.left.load(Ordering::SeqCst)) {
            // One that cannot be told finds out by itself.
            let _ = note.send(&peer.connection);
        }
    }

    fn fail(&self, reason: &str) {
        if self.over.swap(true, Ordering::SeqCst) {
            return;
        }
        self.tell(&Note::Lost(self.loss(self.options.rank, reason.to_string())));
        std::thread::sleep(FAREWELL);
    }

    fn late(&self, rank: usize, what: &str) {
        if !self.leads() {
            self.tell(&Note::Late(what.to_string()));
            // Process 0 answers with a loss, unless it is lost itself.
            std::thread::sleep(self.options.timeout);
            self.lose(&self.loss(rank, format!("waits: {what}")));
            return;
        }
        let own = (0, self.options.progress.position());
        let all = self.peers.iter().map(|peer| (peer.rank, lock(&peer.heard).1)).chain([own]);
        let all: Vec<(usize, Reached)> = all.collect();
        let most = all.iter().map(|(_, at)| at.collectives).max().unwrap_or(0);
        let (behind, at) = all.into_iter().min_by_key(|(_, at)| at.collectives).unwrap_or(own);
        let loss = if at.collectives < most {
            self.loss(
                behind,
                format!("is behind: process {rank} waits for {what}, and others have begun {most} collectives"),
            )
        } else {
            self.loss(rank, format!("waits, but no process is behind: {what}"))
        };
        self.lose(&loss);
    }

    fn finish(&self) {
        if !self.over.swap(true, Ordering::SeqCst) {
            self.tell(&Note::Goodbye);
        }
        for peer in &self.peers {
            let _ = peer.connection.shutdown(Shutdown::Write);
        }
    }

    /// Reads the notes of a peer until its connection ends.
    fn read(&self, number: usize) {
        let peer = &self.peers[number];
        let mut reader = BufReader::new(&peer.connection);
        loop {
            match Note::read(&mut reader) {
                Ok(Some(Note::Alive(at))) => *lock(&peer.heard) = (Instant::now(), at),
                Ok(Some(Note::Lost(loss))) => self.lose(&loss),
                Ok(Some(Note::Late(what))) if self.leads() => self.late(peer.rank, &what),
                Ok(Some(Note::Goodbye)) => peer.left.store(true, Ordering::SeqCst),
                // Nothing else is said here; a stranger cannot be at the other end.
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        if !peer.left.load(Ordering::SeqCst) {
            self.lose(&self.loss(peer.rank, "was lost: its connection closed".to_string()));
        }
    }

    /// Gives signs of life, and looks for silence.
    fn signs(&self) {
        let (timeout, pause) = (self.options.timeout, self.options.timeout / SIGNS);
        let mut last = Instant::now();
        while !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(pause);
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            self.tell(&Note::Alive(self.options.progress.position()));
            // A process that was stopped itself has heard nothing, through no fault of the others.
            if last.elapsed() > timeout / 2 {
                self.peers.iter().for_each(|peer| lock(&peer.heard).0 = Instant::now());
            }
            last = Instant::now();
            for peer in self.peers.iter().filter(|peer| !peer.left.load(Ordering::SeqCst)) {
                let silent = lock(&peer.heard).0.elapsed();
                if silent > timeout {
                    let reason = format!("was lost: nothing was heard of it for {:.1} s", silent.as_secs_f64());
                    return self.lose(&self.loss(peer.rank, reason));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
