//! Pictures that are unpacked once from a file in which they are compressed, so that each can be read where it lies.
//!
//! The bytes of all pictures are followed by their lengths, their number and [`END`]. The file is as old as the one that it is unpacked from: when
//! that one changes, it is unpacked again.

use super::index::places;
use crate::error::{Error, Result};
use crate::storage::{Fs, free_bytes, needed_and_free, open_regular};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The last bytes of a file: its format.
const END: &[u8; 16] = b"peristyle unp. 1";
/// The bytes of the number of pictures and of [`END`].
const FOOTER: u64 = 8 + END.len() as u64;

/// A file of pictures that lie one behind the other.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::data) struct Unpacked {
    /// Its path.
    pub path: PathBuf,
    /// The bytes of each picture.
    pub lengths: Vec<u64>,
    /// Whether it was made now.
    pub is_new: bool,
}

/// What receives the bytes of each picture.
type Visit<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// Returns the unpacked pictures of a file: those that lie beside it or in the user's cache, or else those that `pictures` gives. `column` is the part
/// of the file that they are, `count` their number and `bytes` about how many bytes they have.
///
/// # Errors
/// Those of `pictures`; if there is no room for them.
pub(in crate::data) fn unpack(
    data: &Path,
    column: &str,
    (count, bytes): (usize, u64),
    pictures: &dyn Fn(&mut Visit) -> Result<()>,
) -> Result<Unpacked> {
    let failed = |error| Error::io(data, "read", error);
    // Whoever starts at the same time waits, and then finds what this process has made. Some file systems cannot lock.
    let lock = File::open(data).map_err(failed)?;
    let _ = lock.lock();
    let changed = lock.metadata().and_then(|data| data.modified()).map_err(failed)?;
    let name: String = column.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let places = places(data, &format!(".{name}.peristyle-unpacked"));
    let is_same = |place: &Path| {
        std::fs::metadata(place).and_then(|data| data.modified()).is_ok_and(|modified| modified == changed)
    };
    for place in places.iter().filter(|place| is_same(place)) {
        if let Some(lengths) = lengths_in(place).filter(|lengths| lengths.len() == count) {
            return Ok(Unpacked { path: place.clone(), lengths, is_new: false });
        }
    }
    let mut reasons = Vec::new();
    for place in places {
        match write(&place, bytes.saturating_add(8 * count as u64), pictures)? {
            Ok(lengths) => {
                let kept = File::options().write(true).open(&place).and_then(|file| file.set_modified(changed));
                kept.map_err(|error| Error::io(&place, "write", error))?;
                return Ok(Unpacked { path: place, lengths, is_new: true });
            }
            Err(reason) => reasons.push(reason),
        }
    }
    let message = format!(
        "its pictures are compressed, so they are unpacked once, for which there is no place: {}; make room, or set XDG_CACHE_HOME to a folder",
        reasons.join("; ")
    );
    Err(Error::file(data, message))
}

/// Writes pictures, and returns the length of each, or why the file cannot be written.
fn write(place: &Path, needed: u64, pictures: &dyn Fn(&mut Visit) -> Result<()>) -> Result<Result<Vec<u64>, String>> {
    let (fs, folder) = (Fs::default(), place.parent().unwrap_or(Path::new(".")));
    let mut file = match fs.create_folders(folder).and_then(|()| fs.begin_replacement(place)) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if let Some(free) = free_bytes(folder).filter(|free| *free < needed) {
        return Ok(Err(format!("{}: {}", folder.display(), needed_and_free(needed, free))));
    }
    let (mut lengths, mut refused) = (Vec::new(), None);
    let visited = pictures(&mut |bytes| {
        lengths.push(bytes.len() as u64);
        file.write_all(bytes).inspect_err(|error| refused = Some(error.to_string()))
    });
    if let Some(reason) = refused {
        return Ok(Err(reason));
    }
    visited?;
    let mut footer: Vec<u8> = lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
    footer.extend((lengths.len() as u64).to_le_bytes());
    footer.extend(END);
    let written = file.write_all(&footer).and_then(|()| file.finish());
    Ok(written.map(|()| lengths).map_err(|error| error.to_string()))
}

/// Returns the lengths of the pictures in a file; none if it is not whole.
fn lengths_in(place: &Path) -> Option<Vec<u64>> {
    let (file, len) = open_regular(place).ok()?;
    let mut footer = [0; FOOTER as usize];
    file.read_exact_at(&mut footer, len.checked_sub(FOOTER)?).ok()?;
    let (count, end) = footer.split_first_chunk::<8>()?;
    let table = u64::from_le_bytes(*count).checked_mul(8).filter(|_| end == END)?;
    let start = len.checked_sub(FOOTER)?.checked_sub(table)?;
    let mut bytes = vec![0; usize::try_from(table).ok()?];
    file.read_exact_at(&mut bytes, start).ok()?;
    let (lengths, _) = bytes.as_chunks::<8>();
    let lengths: Vec<u64> = lengths.iter().map(|length| u64::from_le_bytes(*length)).collect();
    let sum = lengths.iter().try_fold(0u64, |sum, length| sum.checked_add(*length));
    (sum == Some(start)).then_some(lengths)
}
