//! Opens files that a run reads.

use crate::error::{Error, Result};
use std::fs::{File, FileType, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens a regular file for reading and returns it with its length in bytes. Never waits, as opening a named pipe
/// would.
///
/// # Errors
/// If the path names something else, or the operating system reports an error.
pub fn open_regular(path: &Path) -> Result<(File, u64)> {
    let failed = |error| Error::io(path, "open", error);
    // Before it is opened, because opening a device may have effects; and after, because the name may have been reused.
    check(path, std::fs::metadata(path).map_err(failed)?.file_type())?;
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check(path, metadata.file_type())?;
    Ok((file, metadata.len()))
}

fn check(path: &Path, found: FileType) -> Result<()> {
    let found = match found {
        _ if found.is_file() => return Ok(()),
        _ if found.is_dir() => "a folder",
        _ if found.is_fifo() => "a named pipe",
        _ if found.is_socket() => "a socket",
        _ => "a device",
    };
    Err(Error::file(path, format!("this is {found}, expected a file; correct the path")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_is_opened() {
        let (_, len) = open_regular(Path::new("Cargo.toml")).unwrap();
        assert_eq!(len, std::fs::metadata("Cargo.toml").unwrap().len());
        let dir = std::env::temp_dir().join(format!("peristyle-regular-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let pipe = dir.join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for (path, found) in
            [(Path::new("src"), "a folder"), (Path::new("/dev/zero"), "a device"), (&pipe, "a named pipe")]
        {
            let error = open_regular(path).unwrap_err();
            let expected = format!("{}: this is {found}, expected a file; correct the path", path.display());
            assert_eq!((error.to_string(), error.exit_code()), (expected, 2));
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
