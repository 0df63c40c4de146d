//! The owner of a run directory: only one process at a time writes to it.
//!
//! The lock is `flock` on a file in the directory, so the operating system releases it however the process ends, and
//! a run that was killed leaves no stale lock. The file also records who holds the lock, for messages.

use crate::data::host;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The file that is locked.
const LOCK: &str = "owner.lock";

/// The process that owns a run directory, or was the last to own it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The name of its machine.
    pub host: String,
    /// Its process id on that machine.
    pub pid: u32,
    /// When it took the directory, in nanoseconds since 1970.
    pub started: u64,
}

impl Owner {
    /// Reads the last owner of a directory; `None` if there is no complete record.
    pub fn of(dir: &Path) -> Option<Owner> {
        serde_json::from_str(&fs::read_to_string(dir.join(LOCK)).ok()?).ok()
    }

    fn this_process() -> Owner {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        Owner { host: host(), pid: std::process::id(), started }
    }
}

/// The ownership of a directory, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes a directory, which is created if it does not exist; `None` if another process owns it.
    ///
    /// # Errors
    /// If the directory or the file cannot be created or locked.
    pub fn take(dir: &Path) -> Result<Option<Lock>> {
        fs::create_dir_all(dir).map_err(|e| Error::io(dir, "create", e))?;
        let path = dir.join(LOCK);
        loop {
            let open = OpenOptions::new().create(true).read(true).append(true).open(&path);
            let file = open.map_err(|e| Error::io(&path, "open", e))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(Error::io(&path, "lock", error)),
            }
            // Its last owner may have removed the file after it was opened here; then it is not the one that others lock.
            let inode = |data: std::io::Result<fs::Metadata>| data.map(|data| (data.dev(), data.ino())).ok();
            if inode(file.metadata()) == inode(fs::metadata(&path)) {
                return Ok(Some(Lock { file, path }));
            }
        }
    }

    /// Records this process as the owner, and returns the record.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn record(&mut self) -> Result<Owner> {
        let owner = Owner::this_process();
        let mut write = || {
            self.file.set_len(0)?;
            self.file.write_all(&serde_json::to_vec(&owner)?)?;
            self.file.sync_all()
        };
        write().map_err(|e| Error::io(&self.path, "write", e))?;
        Ok(owner)
    }

    /// Removes the file, and the directory if it is then empty: for a run that failed to start in a new directory.
    pub fn remove(self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.path.parent().map(fs::remove_dir);
    }
}

/// Returns the error of a directory that another process owns.
pub fn owned(dir: &Path) -> Error {
    let owner = Owner::of(dir);
    let dir = dir.display();
    Error::Usage(match owner {
        Some(Owner { host, pid, .. }) => format!(
            "{dir} is in use by the run of process {pid} on {host}; wait for it or stop it, or choose another --run-dir"
        ),
        None => format!("{dir} is in use by another run; wait for it or stop it, or choose another --run-dir"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_until_the_lock_is_dropped() {
        let dir = std::env::temp_dir().join(format!("peristyle-owner-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let take = || {
            Lock::take(&dir).unwrap().map(|mut lock| {
                lock.record().unwrap();
                lock
            })
        };
        let lock = take().expect("no process owns it");
        assert!(take().is_none());
        let owner = Owner::of(&dir).unwrap();
        assert_eq!((owner.pid, owner.host.is_empty()), (std::process::id(), false));
        assert!(owned(&dir).to_string().contains(&format!("process {} on {}", owner.pid, owner.host)));
        drop(lock);
        let lock = take().expect("the lock was released");
        assert!(Owner::of(&dir).unwrap().started > owner.started);
        lock.remove();
        assert!(!dir.exists());
    }
}
