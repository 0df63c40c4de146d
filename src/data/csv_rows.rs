//! The rows of a CSV file, with the lines in which they begin.

use super::file::{ByteStream, at_line};
use crate::error::{Error, Result};
use csv::{ByteRecord, ReaderBuilder};
use std::io::Read;
use std::path::PathBuf;

/// Ends every line with a line feed alone, so that lines are counted in the files of any system.
struct LineFeeds<'a> {
    stream: ByteStream<'a>,
    after_return: bool,
    /// The last byte; a line feed at the start.
    last: u8,
}

impl Read for LineFeeds<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let read = self.stream.read(bytes)?;
            if read == 0 {
                if self.last == b'\n' || bytes.is_empty() {
                    return Ok(0);
                }
                // The last line may lack its end.
                (bytes[0], self.last) = (b'\n', b'\n');
                return Ok(1);
            }
            let mut kept = 0;
            for index in 0..read {
                let byte = bytes[index];
                if !(byte == b'\n' && self.after_return) {
                    bytes[kept] = if byte == b'\r' { b'\n' } else { byte };
                    kept += 1;
                }
                self.after_return = byte == b'\r';
            }
            if kept > 0 {
                self.last = bytes[kept - 1];
                return Ok(kept);
            }
        }
    }
}

/// The rows of a file, one after another.
pub(super) struct Rows<'a> {
    pub path: PathBuf,
    reader: csv::Reader<LineFeeds<'a>>,
    record: ByteRecord,
    /// The line in which the record begins.
    pub line: u64,
}

impl<'a> Rows<'a> {
    /// Starts with the first row.
    pub fn new(stream: ByteStream<'a>, separator: u8) -> Self {
        let path = stream.path.clone();
        let reader = ReaderBuilder::new()
            .delimiter(separator)
            .has_headers(false)
            .flexible(true)
            .from_reader(LineFeeds { stream, after_return: false, last: b'\n' });
        Rows { path, reader, record: ByteRecord::new(), line: 0 }
    }

    /// Reads the next row, without blanks around its cells; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Vec<&str>>> {
        let start = self.reader.position().line();
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => {
                return Err(match error.into_kind() {
                    csv::ErrorKind::Io(error) => self.reader.get_ref().stream.failed(error),
                    other => Error::file(&self.path, format!("cannot be read: {other:?}")),
                });
            }
        }
        // Empty lines before the row are skipped.
        let lines = 1 + self.record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
        self.line = start + (self.reader.position().line() - start).saturating_sub(lines);
        let cells: Result<Vec<&str>, _> =
            self.record.iter().map(|cell| std::str::from_utf8(cell).map(str::trim)).collect();
        let message = "is not UTF-8 text; save the file as UTF-8, or give a CSV file";
        cells.map(Some).map_err(|_| at_line(&self.path, self.line, message))
    }
}
