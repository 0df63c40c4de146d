//! A connection with another process.

use super::lock::lock;
use super::message::Message;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

/// How long a write may wait for a process that does not read; the rest is sent with the next message.
const WRITE: Duration = Duration::from_millis(20);
/// With so many unsent bytes, signs of life are left out.
const MOST_UNSENT: usize = 4 << 10;

/// A connection with another process. One thread reads; all may send.
#[derive(Debug)]
pub(super) struct Peer {
    pub rank: usize,
    stream: TcpStream,
    outbox: Mutex<Outbox>,
}

/// What could not be sent yet.
#[derive(Debug, Default)]
struct Outbox {
    unsent: Vec<u8>,
    broken: bool,
}

impl Peer {
    /// Takes over the connection of a process that has joined.
    pub fn new(rank: usize, stream: TcpStream) -> std::io::Result<Peer> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(Some(WRITE))?;
        Ok(Peer { rank, stream, outbox: Mutex::default() })
    }

    /// Returns what the other end sends.
    pub fn incoming(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a message, or as much of it as the connection takes without waiting for long. A broken connection is left to the reader.
    pub fn send(&self, message: &Message) {
        let mut outbox = lock(&self.outbox);
        let sign_of_life = matches!(message, Message::Alive(_));
        if outbox.broken || (sign_of_life && outbox.unsent.len() > MOST_UNSENT) {
            return;
        }
        // No message is longer than its limit, since its texts are not.
        if let Ok(frame) = message.to_frame() {
            outbox.unsent.extend_from_slice(&frame);
        }
        while !outbox.unsent.is_empty() {
            match (&self.stream).write(&outbox.unsent) {
                Ok(count @ 1..) => drop(outbox.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return,
                Ok(0) | Err(_) => {
                    outbox.broken = true;
                    outbox.unsent.clear();
                }
            }
        }
    }

    /// Ends the sending direction: the other end reads what was sent, and then the end of the connection.
    pub fn close_sending(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends both directions.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
