//! What crosses a connection: frames, each a head of 16 bytes and a body.

use std::io::{Error, ErrorKind, Read, Result};

/// The longest body, in bytes: longer messages are sent in parts.
pub(super) const LONGEST: usize = 4 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes of a message.
    Bytes,
    /// A part of a message was taken; the body has its length.
    Taken,
    /// The terms of a sum, or the sum.
    Sum,
    /// The sender has come to the end of the job.
    End,
}

const KINDS: [Kind; 4] = [Kind::Bytes, Kind::Taken, Kind::Sum, Kind::End];

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: Kind,
    pub tag: u16,
    pub from: usize,
    pub to: usize,
    pub body: Vec<u8>,
}

/// The length of a head: kind, tag, sender and receiver in two bytes each, and the length of the body in eight.
const HEAD: usize = 16;

impl Frame {
    /// Returns the bytes of a frame.
    pub fn bytes(kind: Kind, tag: u16, (from, to): (usize, usize), body: &[u8]) -> Vec<u8> {
        let kind = KINDS.iter().position(|own| *own == kind).unwrap_or_default() as u16;
        let mut bytes = Vec::with_capacity(HEAD + body.len());
        for word in [kind, tag, from as u16, to as u16] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// Reads a frame; none at the end of the connection.
    pub fn read(from: &mut impl Read) -> Result<Option<Frame>> {
        let mut head = [0; HEAD];
        let mut filled = 0;
        while filled < HEAD {
            match from.read(&mut head[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let word = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let length = u64::from_le_bytes(std::array::from_fn(|index| head[8 + index]));
        let kind = KINDS.get(usize::from(word(0))).copied();
        let (Some(kind), true) = (kind, length <= LONGEST as u64) else {
            return Err(Error::new(ErrorKind::InvalidData, "it sent something else than a frame"));
        };
        let mut body = vec![0; length as usize];
        from.read_exact(&mut body)?;
        Ok(Some(Frame { kind, tag: word(2), from: word(4).into(), to: word(6).into(), body }))
    }
}

/// Returns the bytes of numbers.
pub(super) fn bytes_of(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Returns the numbers in bytes.
pub(super) fn values_of(bytes: &[u8]) -> Vec<f64> {
    let (values, _) = bytes.as_chunks::<8>();
    values.iter().map(|value| f64::from_le_bytes(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written() {
        let mut bytes = Frame::bytes(Kind::Sum, 7, (255, 3), &bytes_of(&[1.5, -2.0]));
        bytes.extend(Frame::bytes(Kind::End, 0, (3, 0), &[]));
        let mut from = &bytes[..];
        let first = Frame::read(&mut from).unwrap().unwrap();
        assert_eq!((first.kind, first.tag, first.from, first.to), (Kind::Sum, 7, 255, 3));
        assert_eq!(values_of(&first.body), [1.5, -2.0]);
        assert_eq!(Frame::read(&mut from).unwrap().unwrap().kind, Kind::End);
        assert_eq!(Frame::read(&mut from).unwrap(), None);
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_never_fills_memory() {
        let frame = Frame::bytes(Kind::Bytes, 0, (0, 1), &[1, 2, 3]);
        for mut bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 40], &frame[..10], &frame[..18]] {
            assert!(Frame::read(&mut bytes).is_err(), "{bytes:?}");
        }
        let long = [&frame[..8], &(LONGEST as u64 + 1).to_le_bytes()].concat();
        assert!(Frame::read(&mut &long[..]).is_err());
    }
}
