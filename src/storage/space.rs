//! Free space on a file system.

use crate::error::Error;
use std::io::ErrorKind;
use std::path::Path;

/// Returns true if an operation failed because there was no room: a full disk, a quota, or the limit of a file's size.
pub fn is_full(error: &Error) -> bool {
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
    matches!(error, Error::Io { source, .. } if full.contains(&source.kind()))
}

/// Returns `it needs 3.2 MB, and 0.1 MB are free` if the file system of a folder has fewer than `needed` bytes left.
pub fn shortage(folder: &Path, needed: u64) -> Option<String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let stat = rustix::fs::statvfs(folder).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    (free < needed).then(|| format!("it needs {:.1} MB, and {:.1} MB are free", megabytes(needed), megabytes(free)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_described_in_megabytes() {
        assert_eq!(shortage(Path::new("src"), 1), None);
        let text = shortage(Path::new(""), u64::MAX).unwrap();
        assert!(text.starts_with("it needs 18446744073709.6 MB, and ") && text.ends_with(" MB are free"), "{text}");
        assert!(is_full(&Error::io(Path::new("x"), "write", std::io::Error::from_raw_os_error(28))));
        assert!(!is_full(&Error::io(Path::new("x"), "write", std::io::Error::from_raw_os_error(5))));
    }
}
