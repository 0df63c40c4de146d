//! Decompresses gzip files of one or several members.
//!
//! As in `gzip` and Python, zeros behind a member are padding. Anything else that is not another member is an error:
//! `gzip` warns of it and ignores it, but then part of the data may be missing.

use flate2::bufread::GzDecoder;
use std::io::{BufRead, Error, ErrorKind, Read, Result};

/// The first byte of every member.
const MAGIC: u8 = 0x1f;

/// The contents of all members, one after another.
pub(super) struct Members<R> {
    /// `None` once the end was reached or reading failed.
    member: Option<GzDecoder<R>>,
    /// Whether a whole member was read.
    any: bool,
    /// Whether the present member has given bytes.
    begun: bool,
}

impl<R: BufRead> Members<R> {
    /// Starts with the first member.
    pub fn new(reader: R) -> Self {
        Members { member: Some(GzDecoder::new(reader)), any: false, begun: false }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        while let Some(mut member) = self.member.take() {
            match member.read(bytes) {
                Ok(0) => {}
                Err(error) if self.any && !self.begun && error.kind() == ErrorKind::InvalidInput => {
                    return Err(foreign(&[MAGIC]));
                }
                read => {
                    self.begun |= read.is_ok();
                    self.member = Some(member);
                    return read;
                }
            }
            (self.any, self.begun) = (true, false);
            let mut reader = member.into_inner();
            if another(&mut reader)? {
                self.member = Some(GzDecoder::new(reader));
            }
        }
        Ok(0)
    }
}

/// Skips padding; returns whether another member follows it.
fn another(reader: &mut impl BufRead) -> Result<bool> {
    loop {
        let bytes = match reader.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        match bytes.get(zeros..) {
            Some([MAGIC, ..]) => {
                reader.consume(zeros);
                return Ok(true);
            }
            Some(rest @ [_, ..]) => return Err(foreign(rest)),
            _ if zeros == 0 => return Ok(false),
            _ => reader.consume(zeros),
        }
    }
}

/// Returns the error about bytes that do not belong to the file.
fn foreign(bytes: &[u8]) -> Error {
    let start: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > 8 || bytes == [MAGIC] { "..." } else { "" };
    let message =
        format!("the compressed data ends, and 0x{start}{more} follows, expected the end, zeros or more data");
    Error::new(ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::{BufReader, Write};

    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Reads through a buffer of every small size, so that each byte is once the first of a buffer.
    fn read(parts: &[&[u8]]) -> std::result::Result<Vec<u8>, String> {
        let file = parts.concat();
        let read = |capacity| {
            let mut found = Vec::new();
            let mut members = Members::new(BufReader::with_capacity(capacity, file.as_slice()));
            members.read_to_end(&mut found).map(|_| found).map_err(|error| error.to_string())
        };
        let whole = read(file.len() + 1);
        for capacity in 1..20 {
            let piecewise = read(capacity);
            assert_eq!(piecewise.is_ok(), whole.is_ok(), "{capacity}");
            assert!(piecewise == whole || whole.is_err());
        }
        whole
    }

    #[test]
    fn zeros_behind_a_member_are_padding() {
        let (a, b) = (member(b"one"), member(b"two"));
        assert_eq!(read(&[&a]).unwrap(), b"one");
        assert_eq!(read(&[&a, &b]).unwrap(), b"onetwo");
        assert_eq!(read(&[&a, &[0; 700]]).unwrap(), b"one");
        assert_eq!(read(&[&a, &[0; 5], &b, &[0]]).unwrap(), b"onetwo");
        assert_eq!(read(&[&member(b""), &b]).unwrap(), b"two");
    }

    #[test]
    fn anything_else_behind_a_member_is_named() {
        let a = member(b"one");
        let error = |tail: &[u8]| read(&[&a, tail]).unwrap_err();
        let expected = "the compressed data ends, and 0x7461696c follows, expected the end, zeros or more data";
        assert_eq!(error(b"tail"), expected);
        assert!(error(b"\0\0a longer tail").contains("and 0x61206c6f6e676572... follows"));
        assert!(error(b"\x1f and more bytes").contains("and 0x1f... follows"));
        assert!(read(&[&a, &a[..a.len() - 1]]).is_err());
    }
}
