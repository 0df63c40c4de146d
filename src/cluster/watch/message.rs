//! What processes send each other over a connection of the watch: messages in JSON, each behind its length in four bytes.

use super::loss::{Loss, Whereabouts};
use super::progress::Reached;
use super::token::Token;
use serde::{Deserialize, Serialize};
use std::io::{Error, ErrorKind, Read, Result};

/// The longest message, in bytes.
pub(super) const LONGEST: usize = 64 << 10;
/// The longest message of a connection that has not shown the token yet.
pub(super) const LONGEST_FIRST: usize = 2 << 10;

/// What a process says of itself when it joins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Join {
    pub token: Token,
    pub rank: usize,
    pub processes: usize,
    pub version: String,
    pub timeout_milliseconds: u64,
    pub member: Whereabouts,
}

/// A message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Message {
    /// A process joins.
    Join(Join),
    /// It has joined, and waits for the others.
    Accepted,
    /// It cannot join.
    Refused { reason: String },
    /// All have joined; where they run, by rank.
    Welcome { members: Vec<Whereabouts> },
    /// The sender is alive.
    Alive(Reached),
    /// The sender has waited too long for a collective.
    Waited { sequence: u64, name: String, seconds: f64 },
    /// The job has lost a process, perhaps the sender.
    Lost(Loss),
    /// The sender ends in an orderly way.
    Goodbye,
    /// The sender has read the last words of the receiver.
    Heard,
}

impl Message {
    /// Returns the bytes of the message.
    pub fn to_frame(&self) -> Result<Vec<u8>> {
        let mut frame = vec![0; 4];
        serde_json::to_writer(&mut frame, self)?;
        let length = frame.len() - 4;
        if length > LONGEST {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a message has {length} bytes, at most {LONGEST}"),
            ));
        }
        frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
        Ok(frame)
    }
}

/// What has arrived over a connection and is not read yet.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// The longest message that is expected.
    pub longest: usize,
}

impl Inbox {
    /// Creates an empty inbox.
    pub fn new(longest: usize) -> Self {
        Inbox { bytes: Vec::new(), longest }
    }

    /// Returns what was read and not taken.
    pub fn rest(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns the next message; none at the end of the connection. After an error of kind `WouldBlock`, `TimedOut` or `Interrupted` it
    /// can be called again.
    pub fn next(&mut self, from: &mut impl Read) -> Result<Option<Message>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let mut chunk = [0; 4096];
            match from.read(&mut chunk) {
                Ok(0) if self.bytes.is_empty() => return Ok(None),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.bytes.extend_from_slice(&chunk[..count]),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes a whole message out of the bytes.
    fn take(&mut self) -> Result<Option<Message>> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.longest {
            return Err(ErrorKind::InvalidData.into());
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_however_they_are_cut() {
        let sent = [Message::Accepted, Message::Alive(Reached { step: 1, begun: 2, ended: 3 }), Message::Goodbye];
        let bytes: Vec<u8> = sent.iter().flat_map(|message| message.to_frame().unwrap()).collect();
        /// Returns one byte a call.
        struct Trickle<'a>(&'a [u8]);
        impl Read for Trickle<'_> {
            fn read(&mut self, into: &mut [u8]) -> Result<usize> {
                self.0.read(&mut into[..1])
            }
        }
        let (mut inbox, mut from) = (Inbox::new(LONGEST_FIRST), Trickle(&bytes));
        for message in &sent {
            let read = inbox.next(&mut from).unwrap().unwrap();
            assert_eq!(format!("{read:?}"), format!("{message:?}"));
        }
        assert!(inbox.next(&mut from).unwrap().is_none());
    }

    #[test]
    fn garbage_is_an_error_and_never_fills_memory() {
        let frame = Message::Goodbye.to_frame().unwrap();
        let cases: [&[u8]; 5] =
            [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 64], &[0, 0, 0, 2, b'{', b'{'], &[0, 0, 0, 0], &frame[..6]];
        for mut bytes in cases {
            assert!(Inbox::new(LONGEST_FIRST).next(&mut bytes).is_err(), "{bytes:?}");
        }
        let mut inbox = Inbox::new(LONGEST_FIRST);
        assert!(inbox.next(&mut std::io::repeat(0x01)).is_err());
        assert!(inbox.bytes.len() <= 8192);
    }

    #[test]
    fn the_welcome_of_256_processes_with_long_names_fits() {
        let member = Whereabouts { host: "\u{1f600}".repeat(16), pid: u32::MAX };
        assert!(Message::Welcome { members: vec![member; 256] }.to_frame().is_ok());
        let loss = Loss::new(255, &"h".repeat(999), &"\u{7}\"\\".repeat(9999), Reached::default());
        assert!(Message::Lost(loss).to_frame().is_ok());
    }
}
