//! The pictures of a source, in order: where each lies, and its class.

use crate::data::ClassNames;
use crate::error::{Error, Result};
use crate::storage::open_regular;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// The largest file that is read as a picture.
const LARGEST: u64 = 1 << 30;

/// A picture of a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::data) struct Entry<'n> {
    /// The path of its file below the catalog's folder, or its name in an archive.
    pub name: &'n [u8],
    /// Its class.
    pub label: u32,
    /// The size of its file in bytes.
    pub bytes: u64,
    /// When its file was changed, in nanoseconds since 1970; of a member of an archive, where it begins there.
    pub stamp: i64,
    /// The archive that it is in.
    pub archive: Option<usize>,
}

/// A file that holds several pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::data) struct Archive {
    /// Its path.
    pub path: PathBuf,
    /// The file in which the bytes of its pictures lie, if that is another one.
    pub unpacked: Option<PathBuf>,
}

impl Archive {
    /// Creates an archive in which pictures lie as they are.
    pub fn new(path: &Path) -> Self {
        Archive { path: path.to_path_buf(), unpacked: None }
    }
}

/// The pictures of a source. Names lie in one text, so that a million pictures need some tens of megabytes.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::data) struct Catalog {
    /// The folder that names are relative to.
    pub folder: PathBuf,
    /// The names of the classes, if they have names.
    pub classes: Option<ClassNames>,
    /// The archives, if pictures are members of archives.
    pub archives: Vec<Archive>,
    /// Files that are not pictures.
    pub ignored: usize,
    names: Vec<u8>,
    /// Where each name ends.
    ends: Vec<u64>,
    labels: Vec<u32>,
    bytes: Vec<u64>,
    stamps: Vec<i64>,
    /// The archive of each picture, if there are any.
    places: Vec<u32>,
}

impl Catalog {
    /// Creates a catalog of a folder, without pictures.
    pub fn new(folder: &Path) -> Self {
        Catalog { folder: folder.to_path_buf(), ..Catalog::default() }
    }

    /// Returns the catalog without pictures.
    pub fn emptied(&self) -> Self {
        let Catalog { folder, classes, archives, ignored, .. } = self.clone();
        Catalog { folder, classes, archives, ignored, ..Catalog::default() }
    }

    /// Returns what a picture and its contents are recognised by: all but its class.
    pub fn identity(&self, index: usize) -> (&[u8], u64, i64, Option<usize>) {
        let Entry { name, bytes, stamp, archive, .. } = self.entry(index);
        (name, bytes, stamp, archive)
    }

    /// Adds a picture.
    pub fn push(&mut self, entry: Entry) {
        self.names.extend_from_slice(entry.name);
        self.ends.push(self.names.len() as u64);
        self.labels.push(entry.label);
        self.bytes.push(entry.bytes);
        self.stamps.push(entry.stamp);
        self.places.extend(entry.archive.map(|archive| archive as u32));
    }

    /// Returns the number of pictures.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns the classes of all pictures.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Returns the number of classes: of names, or one more than the largest label.
    pub fn num_classes(&self) -> usize {
        let labels = || self.labels.iter().max().map_or(0, |&largest| largest as usize + 1);
        self.classes.as_ref().map_or_else(labels, |names| names.len())
    }

    /// Returns a picture.
    pub fn entry(&self, index: usize) -> Entry<'_> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        Entry {
            name: &self.names[start..self.ends[index] as usize],
            label: self.labels[index],
            bytes: self.bytes[index],
            stamp: self.stamps[index],
            archive: self.places.get(index).map(|&archive| archive as usize),
        }
    }

    /// Returns the path of a picture; of a member of an archive, that of the archive followed by its name.
    pub fn path(&self, index: usize) -> PathBuf {
        let Entry { name, archive, .. } = self.entry(index);
        let name = Path::new(OsStr::from_bytes(name));
        archive.map_or(&self.folder, |archive| &self.archives[archive].path).join(name)
    }

    /// Opens the archives.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn open_archives(&self) -> Result<Vec<File>> {
        let open = |archive: &Archive| open_regular(archive.unpacked.as_ref().unwrap_or(&archive.path));
        self.archives.iter().map(|archive| open(archive).map(|(file, _)| file)).collect()
    }

    /// Reads the bytes of a picture into `to`, given the open archives.
    ///
    /// # Errors
    /// If its file cannot be read, or is not the one that was listed.
    pub fn read(&self, index: usize, archives: &[File], to: &mut Vec<u8>) -> Result<()> {
        let Entry { bytes, stamp, archive, .. } = self.entry(index);
        to.clear();
        let path = || self.path(index);
        if bytes > LARGEST {
            return Err(Error::file(
                &path(),
                format!("has {bytes} bytes, expected at most {LARGEST}; is it a picture?"),
            ));
        }
        if let Some(archive) = archive {
            to.resize(bytes as usize, 0);
            return archives[archive].read_exact_at(to, stamp as u64).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => Error::file(&path(), "the archive was cut while it was in use; restore it"),
                _ => Error::io(&path(), "read", error),
            });
        }
        let path = path();
        let (mut file, len) = open_regular(&path)?;
        let found = modified(&file).map_err(|error| Error::io(&path, "read", error))?;
        if (len, found) != (bytes, stamp) {
            let message = "has changed since the list of files was made; start again, and it is read anew";
            return Err(Error::file(&path, message));
        }
        to.reserve_exact(len as usize);
        file.by_ref().take(len).read_to_end(to).map_err(|error| Error::io(&path, "read", error))?;
        Ok(())
    }

    /// Returns XXH3 (128 bits) of the names, sizes and classes of all pictures.
    pub fn fingerprint(&self) -> String {
        let mut hash = Xxh3::new();
        for index in 0..self.len() {
            let Entry { name, label, bytes, .. } = self.entry(index);
            hash.update(&(name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update(&bytes.to_le_bytes());
            hash.update(&label.to_le_bytes());
        }
        for name in self.classes.iter().flat_map(|names| names.iter()) {
            hash.update(&(name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
        }
        format!("{:032x}", hash.digest128())
    }
}

/// Returns when a file was changed, in nanoseconds since 1970.
pub(in crate::data) fn modified(file: &File) -> std::io::Result<i64> {
    file.metadata().map(|data| nanoseconds(&data))
}

/// Returns when a file was changed, in nanoseconds since 1970.
pub(in crate::data) fn nanoseconds(data: &std::fs::Metadata) -> i64 {
    data.mtime().saturating_mul(1_000_000_000).saturating_add(data.mtime_nsec())
}
