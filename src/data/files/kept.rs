//! A list of pictures with what is known of their contents, which is kept from start to start.

use super::catalog::{Catalog, nanoseconds};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// What is known of the contents of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::data) enum FileState {
    /// Nothing: it has not been read.
    #[default]
    Unknown,
    /// XXH3 (64 bits) of a file that can be decoded.
    Good(u64),
    /// XXH3 of a file that cannot be decoded, and why.
    Bad(u64, String),
}

/// A file or folder whose time shows whether a list is still right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::data) struct Witness {
    /// Its path.
    pub path: PathBuf,
    /// When it was changed, in nanoseconds since 1970.
    pub modified: i64,
}

impl Witness {
    /// Returns a file or folder as it is now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let data = std::fs::metadata(path).map_err(|error| Error::io(path, "read", error))?;
        Ok(Witness { path: path.to_path_buf(), modified: nanoseconds(&data) })
    }
}

/// A list of pictures with what is known of their contents.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::data) struct Kept {
    /// The pictures.
    pub catalog: Catalog,
    /// What is known of each.
    pub contents: Vec<FileState>,
    /// What shows whether the list is still right.
    pub witnesses: Vec<Witness>,
    /// What is to be said of where it is kept.
    pub notes: Vec<String>,
}

impl Kept {
    /// Creates a list of which no contents are known.
    pub fn new(catalog: Catalog, witnesses: Vec<Witness>) -> Self {
        let contents = vec![FileState::Unknown; catalog.len()];
        Kept { catalog, contents, witnesses, notes: Vec::new() }
    }

    /// Takes over what an earlier list says of files of the same names, sizes and times.
    pub fn learn(&mut self, earlier: &Kept) {
        let known: HashMap<_, usize> = (0..earlier.catalog.len()).map(|i| (earlier.catalog.identity(i), i)).collect();
        for (index, contents) in self.contents.iter_mut().enumerate() {
            if let Some(&same) = known.get(&self.catalog.identity(index)) {
                *contents = earlier.contents[same].clone();
            }
        }
    }

    /// Returns true if the contents of all files are known.
    pub fn is_complete(&self) -> bool {
        !self.contents.contains(&FileState::Unknown)
    }

    /// Returns the files that cannot be decoded, with the reasons.
    pub fn bad(&self) -> Vec<(usize, &str)> {
        let files = self.contents.iter().enumerate();
        let bad = files.filter_map(|(index, contents)| match contents {
            FileState::Bad(_, reason) => Some((index, &**reason)),
            _ => None,
        });
        bad.collect()
    }

    /// Reads the files whose contents are unknown, several at once, and decodes them with `decode`.
    ///
    /// # Errors
    /// The first file that cannot be read.
    pub fn complete(&mut self, decode: &(dyn Fn(&[u8]) -> std::result::Result<(), String> + Sync)) -> Result<()> {
        let unknown: Vec<usize> =
            (0..self.contents.len()).filter(|&i| self.contents[i] == FileState::Unknown).collect();
        let found = self.each(&unknown, &|bytes| {
            let hash = xxh3_64(bytes);
            decode(bytes).map_or_else(|reason| FileState::Bad(hash, reason), |()| FileState::Good(hash))
        })?;
        unknown.into_iter().zip(found).for_each(|(index, contents)| self.contents[index] = contents);
        Ok(())
    }

    /// Reads all files again, and returns those whose bytes are not those that are known.
    ///
    /// # Errors
    /// The first file that cannot be read.
    pub fn changed(&self) -> Result<Vec<usize>> {
        let known: Vec<usize> = (0..self.contents.len()).filter(|&i| self.contents[i] != FileState::Unknown).collect();
        let hashes = self.each(&known, &xxh3_64)?;
        let differs = |(index, hash): &(usize, u64)| match self.contents[*index] {
            FileState::Good(known) | FileState::Bad(known, _) => known != *hash,
            FileState::Unknown => false,
        };
        Ok(known.into_iter().zip(hashes).filter(differs).map(|(index, _)| index).collect())
    }

    /// Returns XXH3 (128 bits) of the contents of all files, if they are known.
    pub fn fingerprint(&self) -> Option<String> {
        let mut hash = Xxh3::new();
        for contents in &self.contents {
            match contents {
                FileState::Good(one) | FileState::Bad(one, _) => hash.update(&one.to_le_bytes()),
                FileState::Unknown => return None,
            }
        }
        Some(format!("{:032x}", hash.digest128()))
    }

    /// Returns the pictures that can be decoded, as far as that is known.
    pub fn good(&self) -> Catalog {
        let mut good = self.catalog.emptied();
        for index in 0..self.catalog.len() {
            if !matches!(self.contents[index], FileState::Bad(..)) {
                good.push(self.catalog.entry(index));
            }
        }
        good
    }

    /// Calls `visit` with the bytes of some files, on all cores.
    fn each<T: Send>(&self, files: &[usize], visit: &(dyn Fn(&[u8]) -> T + Sync)) -> Result<Vec<T>> {
        let archives = self.catalog.open_archives()?;
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None::<(usize, Error)>));
        let work = || {
            let (mut bytes, mut found) = (Vec::new(), Vec::new());
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(&index) = files.get(at) else { return found };
                match self.catalog.read(index, &archives, &mut bytes) {
                    Ok(()) => found.push((at, visit(&bytes))),
                    Err(error) => {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        if failed.as_ref().is_none_or(|(first, _)| at < *first) {
                            *failed = Some((at, error));
                        }
                        next.store(files.len(), Ordering::Relaxed);
                        return found;
                    }
                }
            }
        };
        let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (1..cores.min(files.len())).map(|_| scope.spawn(work)).collect();
            let own = work();
            let others = workers.into_iter().flat_map(|worker| match worker.join() {
                Ok(found) => found,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            own.into_iter().chain(others).collect()
        });
        if let Some((_, error)) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        all.sort_unstable_by_key(|(at, _)| *at);
        Ok(all.into_iter().map(|(_, found)| found).collect())
    }
}
