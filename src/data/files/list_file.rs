//! Lists of pictures, as Caffe reads them: a path and a class number in each line.

use super::LARGEST_LABEL;
use crate::data::file::{ByteStream, at_line, quoted};
use crate::error::{Error, Result};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The longest path, in bytes.
const LONGEST_PATH: usize = 4096;
/// The longest line, in bytes: a path, blanks and a number.
const LONGEST_LINE: usize = LONGEST_PATH + 16;

/// The pictures of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileList {
    /// The path of each, as written.
    pub paths: Vec<String>,
    /// The class of each.
    pub labels: Vec<u32>,
    /// The line of each, from 1.
    pub lines: Vec<u64>,
}

/// Reads a list, plain or gzip: in each line a path, blanks and a class number. Paths may have blanks in them. Empty lines and
/// lines that begin with `#` are skipped.
///
/// # Errors
/// If the file cannot be read or lists nothing; the first line that is not as expected.
pub fn read_list(path: &Path) -> Result<FileList> {
    FileList::read(ByteStream::open(path)?)
}

impl FileList {
    fn read(stream: ByteStream) -> Result<Self> {
        let path = stream.path.clone();
        let mut reader = BufReader::new(stream);
        let (mut list, mut bytes) = (FileList::default(), Vec::new());
        for line in 1.. {
            bytes.clear();
            let read = reader.by_ref().take(LONGEST_LINE as u64 + 5).read_until(b'\n', &mut bytes);
            if read.map_err(|error| reader.get_ref().failed(error))? == 0 {
                break;
            }
            let text = if line == 1 { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes) } else { &bytes };
            list.add(text).map_err(|message| at_line(&path, line, message))?;
            list.lines.resize(list.paths.len(), line);
        }
        if list.paths.is_empty() {
            return Err(Error::file(&path, "lists no pictures, expected a path and a class number in each line"));
        }
        Ok(list)
    }

    /// Appends the picture of a line, if there is one. Fails with what is wrong.
    fn add(&mut self, line: &[u8]) -> Result<(), String> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LONGEST_LINE {
            return Err(format!(
                "the line has more than {LONGEST_LINE} bytes, expected a path and a class number; correct it"
            ));
        }
        let Ok(line) = std::str::from_utf8(line) else {
            return Err("is not UTF-8 text; save the file as UTF-8, or give a list of pictures".to_string());
        };
        let blanks = [' ', '\t'];
        let line = line.trim_matches(blanks);
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let Some((path, label)) = line.rsplit_once(blanks) else {
            return Err(format!("{} has no label, expected a path, a blank and a class number; add it", quoted(line)));
        };
        let path = path.trim_end_matches(blanks);
        if path.len() > LONGEST_PATH || path.contains('\0') {
            return Err(format!(
                "{} is not a path, expected at most {LONGEST_PATH} bytes, none of them zero",
                quoted(path)
            ));
        }
        if !label.bytes().all(|byte| byte.is_ascii_digit()) {
            let (path, label) = (quoted(path), quoted(label));
            return Err(format!("the label of {path} is {label}, expected a whole number of at least 0; correct it"));
        }
        let Some(label) = label.parse().ok().filter(|label| *label <= LARGEST_LABEL) else {
            return Err(format!(
                "the label {} is too large, expected at most {LARGEST_LABEL}; correct it",
                quoted(label)
            ));
        };
        self.paths.push(path.to_string());
        self.labels.push(label);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn read(bytes: &[u8]) -> Result<FileList, String> {
        FileList::read(ByteStream::of("train.txt", bytes).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_label_follows_the_last_blanks() {
        let text =
            b"\xef\xbb\xbf# Pictures\nn01/a.jpg 0\r\n\n/b/my photo (2).png \t 16777216 \n  \na #1.jpg\t7\nn01/a.jpg 0";
        let list = read(text).unwrap();
        assert_eq!(list.paths, ["n01/a.jpg", "/b/my photo (2).png", "a #1.jpg", "n01/a.jpg"]);
        assert_eq!(list.labels, [0, 1 << 24, 7, 0]);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        assert_eq!(read(&encoder.finish().unwrap()).unwrap(), list);
        // The longest line, whatever ends it.
        let longest = format!("{} {:015}", "p".repeat(4096), 5);
        for end in ["", "\n", "\r\n"] {
            assert_eq!(read(format!("{longest}{end}").as_bytes()).unwrap().labels, [5]);
        }
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let long = format!("a 1\n{} 5\n", "p".repeat(5000));
        for (text, message) in [
            (
                &b"a.jpg 1\n\nb.jpg\n"[..],
                "train.txt:3: \"b.jpg\" has no label, expected a path, a blank and a class number; add it",
            ),
            (
                b"my b.jpg",
                "train.txt:1: the label of \"my\" is \"b.jpg\", expected a whole number of at least 0; correct it",
            ),
            (
                b"a.jpg -1",
                "train.txt:1: the label of \"a.jpg\" is \"-1\", expected a whole number of at least 0; correct it",
            ),
            (
                b"a.jpg 1.5",
                "train.txt:1: the label of \"a.jpg\" is \"1.5\", expected a whole number of at least 0; correct it",
            ),
            (b"a 16777217", "train.txt:1: the label \"16777217\" is too large, expected at most 16777216; correct it"),
            (
                b"a 99999999999",
                "train.txt:1: the label \"99999999999\" is too large, expected at most 16777216; correct it",
            ),
            (b"a 1\nb\xff 2", "train.txt:2: is not UTF-8 text; save the file as UTF-8, or give a list of pictures"),
            (b"a\0b 2", "train.txt:1: \"a\\u{0}b\" is not a path, expected at most 4096 bytes, none of them zero"),
            (b"# a 1\n", "train.txt: lists no pictures, expected a path and a class number in each line"),
            (b"", "train.txt: lists no pictures, expected a path and a class number in each line"),
            (
                long.as_bytes(),
                "train.txt:2: the line has more than 4112 bytes, expected a path and a class number; correct it",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), message);
        }
    }
}
