//! Opens data files, plain or gzip, and trusts no size that a file declares.

use super::gzip::Members;
use crate::error::{Error, Result};
use crate::storage::open_regular;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The highest compression ratio of Deflate.
const LARGEST_RATIO: u64 = 1032;
/// The memory reserved before any bytes of a file have been read; from then on, at most as much as was read.
const FIRST_PIECE: usize = 64 << 20;
/// The characters of a cell or a name that a message quotes.
const LONGEST_QUOTED: usize = 40;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The bytes of a file, decompressed if it is a gzip file (recognised by its first bytes, not by its name).
pub(super) struct ByteStream<'a> {
    /// The path, for messages.
    pub path: PathBuf,
    /// True if the file is a gzip file.
    pub packed: bool,
    /// An upper bound on the bytes left.
    left: u64,
    reader: Box<dyn BufRead + 'a>,
}

impl ByteStream<'static> {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, len) = open_regular(path)?;
        ByteStream::new(path.to_path_buf(), BufReader::with_capacity(1 << 16, file), len)
    }
}

impl<'a> ByteStream<'a> {
    /// Opens bytes in memory; `name` is for messages.
    pub fn of(name: &str, bytes: &'a [u8]) -> Result<Self> {
        ByteStream::new(PathBuf::from(name), bytes, bytes.len() as u64)
    }

    fn new(path: PathBuf, mut reader: impl BufRead + 'a, len: u64) -> Result<Self> {
        let packed = loop {
            match reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                start => break start.map_err(|error| Error::io(&path, "read", error))?.starts_with(&GZIP_MAGIC),
            }
        };
        if packed {
            let reader = Box::new(BufReader::new(Members::new(reader)));
            return Ok(ByteStream { path, packed: true, left: len.saturating_mul(LARGEST_RATIO), reader });
        }
        Ok(ByteStream { path, packed: false, left: len, reader: Box::new(reader) })
    }

    /// Returns the number of bytes left; for a compressed file, an upper bound.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Reads the next N bytes of the header.
    pub fn header<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        match self.reader.read_exact(&mut bytes) {
            Ok(()) => {
                self.left = self.left.saturating_sub(N as u64);
                Ok(bytes)
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && !self.packed => Err(Error::file(
                &self.path,
                format!("ends inside its header of {N} bytes; the file is truncated, download it again"),
            )),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Checks that `len` bytes are left, as far as the file's length shows. `what` describes them: `10 images of
    /// 28x28`.
    pub fn expect(&self, len: u64, what: &str) -> Result<()> {
        if self.packed && len > self.left {
            return Err(Error::file(
                &self.path,
                format!(
                    "its header declares {what} ({len} bytes), more than a gzip file of this size can hold; the \
                     header is damaged, download the file again"
                ),
            ));
        }
        if !self.packed && len != self.left {
            return Err(Error::file(&self.path, wrong_length(what, len, self.left)));
        }
        Ok(())
    }

    /// Reads the rest of the file, which must be exactly `len` bytes.
    pub fn rest(mut self, len: u64, what: &str) -> Result<Vec<u8>> {
        self.expect(len, what)?;
        let wrong = |message: String| Err(Error::file(&self.path, message));
        let whole = usize::try_from(len).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        while bytes.len() < whole {
            let piece = (whole - bytes.len()).min(bytes.len().max(FIRST_PIECE));
            if bytes.try_reserve_exact(piece).is_err() {
                return wrong(format!("needs {len} bytes of memory for {what}, more than there is; use fewer images"));
            }
            match self.reader.by_ref().take(piece as u64).read_to_end(&mut bytes) {
                Ok(read) if read < piece => return wrong(wrong_length(what, len, bytes.len() as u64)),
                read => read.map_err(|error| self.failed(error))?,
            };
        }
        // Reading one more byte detects trailing data and makes gzip verify its checksum.
        match self.reader.by_ref().take(1).read_to_end(&mut Vec::new()) {
            Ok(0) => Ok(bytes),
            Ok(_) => wrong(format!(
                "continues after {what} ({len} bytes), expected its end there; the file does not match its header"
            )),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Returns the error about reading that failed.
    pub fn failed(&self, error: std::io::Error) -> Error {
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData if self.packed => {
                Error::file(&self.path, format!("damaged gzip file: {error}; download it again"))
            }
            _ => Error::io(&self.path, "read", error),
        }
    }
}

impl Read for ByteStream<'_> {
    /// Reads what comes next, however long the file is.
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(bytes)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

/// Returns both values, or all that is wrong.
pub(super) fn both<A, B>(a: Result<A>, b: Result<B>) -> Result<(A, B)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(a.and(b)),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// Creates an error about a line of a file.
pub(super) fn at_line(path: &Path, line: u64, message: impl Into<String>) -> Error {
    let mut place = path.as_os_str().to_owned();
    place.push(format!(":{line}"));
    Error::file(Path::new(&place), message)
}

/// Returns a cell or a name for a message, in quotes.
pub(super) fn quoted(cell: &str) -> String {
    let shown: String = cell.chars().take(LONGEST_QUOTED).collect();
    let more = if shown.len() < cell.len() { "..." } else { "" };
    format!("\"{shown}{more}\"")
}

fn wrong_length(what: &str, expected: u64, found: u64) -> String {
    format!(
        "its header declares {what} ({expected} bytes), but {found} bytes follow it; the file is truncated or damaged, \
         download it again"
    )
}
