//! Free space on a file system.

use crate::error::Error;
use std::io::ErrorKind;
use std::path::Path;

/// Returns true if an operation failed because there was no room: a full disk, a quota, or the limit of a file's size.
pub fn is_full(error: &Error) -> bool {
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
    matches!(error, Error::Io { source, .. } if full.contains(&source.kind()))
}

/// Returns the free bytes of the file system of a folder, if they are known.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Returns how much is needed and free, in words.
pub fn needed_and_free(needed: u64, free: u64) -> String {
    format!("{} needed, {} free", size(needed), size(free))
}

/// Returns a size in words: `36.5 kB`, `12.3 MB`, `141.2 GB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_described_in_words() {
        assert!(free_bytes(Path::new("")).is_some() && free_bytes(Path::new("no such folder")).is_none());
        assert_eq!(needed_and_free(36_480, 1_234_000_000), "36.5 kB needed, 1234.0 MB free");
        assert!(is_full(&Error::io(Path::new("x"), "write", std::io::Error::from_raw_os_error(28))));
        assert!(!is_full(&Error::io(Path::new("x"), "write", std::io::Error::from_raw_os_error(5))));
    }
}
