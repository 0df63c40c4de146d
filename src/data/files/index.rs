//! The file in which a list of pictures is kept from start to start.
//!
//! A line with the format and a checksum is followed by JSON. It lies beside the data, as `train.peristyle-index` for the folder `train`, or
//! where that cannot be written in the user's cache folder. A file that is damaged, or is not about the same pictures, is written anew.

use super::catalog::{Archive, Catalog, Entry};
use super::kept::{FileState, Kept, Witness};
use crate::error::Result;
use crate::storage::Fs;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

const FORMAT: &str = "peristyle index 2 ";
const ENDING: &str = ".peristyle-index";
/// A file or folder that was changed less than this before an index was written may have changed again with the same time, in nanoseconds.
const GRANULARITY: i64 = 2_000_000_000;

/// What an index is about.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// What was asked for.
    asked: String,
    /// When it was written, in nanoseconds since 1970.
    written: i64,
}

/// The contents of an index.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    header: Header,
    witnesses: Vec<(PathBuf, i64)>,
    folder: PathBuf,
    classes: Option<Vec<String>>,
    archives: Vec<Archive>,
    ignored: usize,
    names: Vec<String>,
    labels: Vec<u32>,
    bytes: Vec<u64>,
    stamps: Vec<i64>,
    /// The archive of each picture; empty without archives.
    places: Vec<u32>,
    /// Hashes of contents that are known.
    hashes: Vec<Option<u64>>,
    /// The pictures that cannot be decoded.
    bad: Vec<(u32, String)>,
}

/// Where the index of a list of pictures may lie, and what it must be about.
#[derive(Debug, Clone)]
pub(in crate::data) struct Index {
    places: Vec<PathBuf>,
    asked: String,
}

impl Index {
    /// Creates the index of the pictures of a folder or file, given all that the list depends on besides.
    pub fn new(data: &Path, asked: &str) -> Self {
        Index { places: places(data, ENDING), asked: asked.to_string() }
    }

    /// Returns the list that is kept, if nothing shows that it has changed, or else the one that `make` makes, which is kept.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn open(&self, make: impl FnOnce() -> Result<Kept>) -> Result<Kept> {
        let mut note = None;
        let earlier = self.places.iter().find_map(|place| read(place, &mut note));
        let is_current = |kept: &Kept, record: &Header| {
            record.asked == self.asked && kept.witnesses.iter().all(|witness| is_current(witness, record.written))
        };
        let earlier = match earlier {
            Some((record, kept)) if is_current(&kept, &record) => return Ok(kept),
            earlier => earlier,
        };
        let mut made = make()?;
        if let Some((_, earlier)) = earlier {
            made.learn(&earlier);
        }
        made.notes.extend(note);
        if let Err(place) = self.keep(&made) {
            let place = place.display();
            made.notes.push(format!(
                "the list of pictures cannot be kept at {place}, nor in the cache; it is made at every start"
            ));
        }
        Ok(made)
    }

    /// Writes a list where it can be written. Names that are not UTF-8 are not kept.
    ///
    /// # Errors
    /// If it cannot be written anywhere: the first place.
    pub fn keep(&self, kept: &Kept) -> std::result::Result<(), PathBuf> {
        let Some(text) = written(kept, &self.asked) else { return Ok(()) };
        let fs = Fs::default();
        let written = |place: &PathBuf| {
            let parent = place.parent().unwrap_or(Path::new("."));
            fs.create_folders(parent).and_then(|()| fs.replace(place, &text)).is_ok()
        };
        if self.places.iter().any(written) { Ok(()) } else { Err(self.places[0].clone()) }
    }
}

/// Returns where a file that belongs to a file or folder of data may lie, given the ending of its name: beside it, or in the user's cache.
pub(super) fn places(data: &Path, ending: &str) -> Vec<PathBuf> {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_path_buf());
    let mut beside = data.file_name().map_or_else(Default::default, |name| name.to_os_string());
    beside.push(ending);
    let mut places = vec![data.with_file_name(beside)];
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    if let Some(cache) = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home) {
        let hash = xxh3_128(data.as_os_str().as_encoded_bytes());
        places.push(cache.join("peristyle").join(format!("{hash:032x}{ending}")));
    }
    places
}

fn is_current(witness: &Witness, written: i64) -> bool {
    let now = std::fs::metadata(&witness.path).map(|data| super::catalog::nanoseconds(&data));
    now.is_ok_and(|now| now == witness.modified && now < written.saturating_sub(GRANULARITY))
}

fn read(place: &Path, note: &mut Option<String>) -> Option<(Header, Kept)> {
    let bytes = Fs::default().read(place).ok()?;
    let read = parse(&bytes);
    if read.is_none() {
        *note = Some(format!("{}: is damaged or of another version; it is made anew", place.display()));
    }
    read
}

/// Reads an index; none if it is not whole.
fn parse(bytes: &[u8]) -> Option<(Header, Kept)> {
    let rest = bytes.strip_prefix(FORMAT.as_bytes())?;
    let end = rest.iter().position(|&byte| byte == b'\n').filter(|&end| end == 16)?;
    let checksum = u64::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
    let json = &rest[end + 1..];
    if xxh3_64(json) != checksum {
        return None;
    }
    let record: Record = serde_json::from_slice(json).ok()?;
    let count = record.names.len();
    let lists = [record.labels.len(), record.bytes.len(), record.stamps.len(), record.hashes.len()];
    let places = record.places.iter().all(|&archive| (archive as usize) < record.archives.len());
    let archived = if record.archives.is_empty() { 0 } else { count };
    let classes = record.classes.as_ref().map_or(usize::MAX, Vec::len);
    let labels = record.labels.iter().all(|&label| (label as usize) < classes);
    if lists != [count; 4] || record.places.len() != archived || !places || !labels {
        return None;
    }
    let mut catalog = Catalog::new(&record.folder);
    (catalog.archives, catalog.ignored) = (record.archives.clone(), record.ignored);
    catalog.classes = record.classes.as_deref().map(Into::into);
    for (index, name) in record.names.iter().enumerate() {
        catalog.push(Entry {
            name: name.as_bytes(),
            label: record.labels[index],
            bytes: record.bytes[index],
            stamp: record.stamps[index],
            archive: record.places.get(index).map(|&archive| archive as usize),
        });
    }
    let mut contents: Vec<FileState> =
        record.hashes.iter().map(|hash| hash.map_or(FileState::Unknown, FileState::Good)).collect();
    for (index, reason) in &record.bad {
        let one = contents.get_mut(*index as usize)?;
        let &mut FileState::Good(hash) = one else { return None };
        *one = FileState::Bad(hash, reason.clone());
    }
    let witnesses = record.witnesses.iter().cloned().map(|(path, modified)| Witness { path, modified }).collect();
    Some((record.header, Kept { catalog, contents, witnesses, notes: Vec::new() }))
}

/// Returns the text of an index, unless it has names that are not UTF-8.
fn written(kept: &Kept, asked: &str) -> Option<Vec<u8>> {
    let Kept { catalog, contents, witnesses, .. } = kept;
    let entries = || (0..catalog.len()).map(|index| catalog.entry(index));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i64);
    let record = Record {
        header: Header { asked: asked.to_string(), written: now },
        witnesses: witnesses.iter().map(|witness| (witness.path.clone(), witness.modified)).collect(),
        folder: catalog.folder.clone(),
        classes: catalog.classes.as_deref().map(<[String]>::to_vec),
        archives: catalog.archives.clone(),
        ignored: catalog.ignored,
        names: entries().map(|entry| String::from_utf8(entry.name.to_vec()).ok()).collect::<Option<_>>()?,
        labels: entries().map(|entry| entry.label).collect(),
        bytes: entries().map(|entry| entry.bytes).collect(),
        stamps: entries().map(|entry| entry.stamp).collect(),
        places: entries().filter_map(|entry| entry.archive.map(|archive| archive as u32)).collect(),
        hashes: contents
            .iter()
            .map(|contents| match contents {
                FileState::Good(hash) | FileState::Bad(hash, _) => Some(*hash),
                FileState::Unknown => None,
            })
            .collect(),
        bad: kept.bad().into_iter().map(|(index, reason)| (index as u32, reason.to_string())).collect(),
    };
    let json = serde_json::to_vec(&record).ok()?;
    Some([format!("{FORMAT}{:016x}\n", xxh3_64(&json)).as_bytes(), &json].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kept(names: &[(String, u32, u64, i64)], states: &[Option<u64>], archives: usize) -> Kept {
        let mut catalog = Catalog::new(Path::new("photos/train"));
        catalog.classes = Some(["cat", "dog"].map(String::from)[..].into());
        catalog.archives = (0..archives)
            .map(|i| Archive { unpacked: (i > 0).then(|| "u".into()), ..Archive::new(Path::new(&format!("{i}.tar"))) })
            .collect();
        for (index, (name, label, bytes, stamp)) in names.iter().enumerate() {
            let archive = (archives > 0).then(|| index % archives);
            catalog.push(Entry { name: name.as_bytes(), label: *label, bytes: *bytes, stamp: *stamp, archive });
        }
        let mut kept = Kept::new(catalog, vec![Witness { path: "photos/train".into(), modified: 7 }]);
        for (index, state) in kept.contents.iter_mut().enumerate() {
            *state = match states.get(index).copied().flatten() {
                None => FileState::Unknown,
                Some(hash) if hash % 3 == 0 => FileState::Bad(hash, "is empty".to_string()),
                Some(hash) => FileState::Good(hash),
            };
        }
        kept
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_damage_is_found(
            names in proptest::collection::vec((any::<String>(), 0u32..2, any::<u64>(), any::<i64>()), 0..9),
            states in proptest::collection::vec(any::<Option<u64>>(), 9),
            archives in 0usize..3,
            at in any::<prop::sample::Index>(),
        ) {
            let kept = kept(&names, &states, archives);
            let mut text = written(&kept, "all").unwrap();
            let (header, read) = parse(&text).unwrap();
            prop_assert_eq!(header.asked, "all");
            prop_assert_eq!(read, kept);
            let at = at.index(text.len());
            text[at] ^= 1;
            prop_assert!(parse(&text).is_none(), "a flipped bit at {}", at);
        }

        #[test]
        fn any_record_with_a_right_checksum_is_read_or_refused(json in "\\PC*") {
            let text = format!("{FORMAT}{:016x}\n{json}", xxh3_64(json.as_bytes()));
            prop_assert!(parse(text.as_bytes()).is_none());
        }
    }

    #[test]
    fn lists_that_contradict_themselves_are_refused() {
        let one = ("a.jpg".to_string(), 1, 5, 7);
        let text = written(&kept(&[one.clone(), one], &[Some(1), Some(3)], 0), "all").unwrap();
        let json = String::from_utf8(text).unwrap().split_once('\n').unwrap().1.to_string();
        for (from, to) in [
            ("\"labels\":[1,1]", "\"labels\":[1]"),
            ("\"labels\":[1,1]", "\"labels\":[1,2]"),
            ("\"bytes\":[5,5]", "\"bytes\":[5,5,5]"),
            ("\"places\":[]", "\"places\":[0,0]"),
            ("\"bad\":[[1,", "\"bad\":[[2,"),
            ("\"hashes\":[1,3]", "\"hashes\":[1,null]"),
        ] {
            let wrong = json.replace(from, to);
            assert_ne!(wrong, json, "{from}");
            let text = format!("{FORMAT}{:016x}\n{wrong}", xxh3_64(wrong.as_bytes()));
            assert!(parse(text.as_bytes()).is_none(), "{to}");
        }
        let text = format!("{FORMAT}{:016x}\n{json}", xxh3_64(json.as_bytes()));
        assert!(parse(text.as_bytes()).is_some());
    }
}
