//! Operations on files, one call of the operating system each.

use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An operation that is about to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// A file is created; it must not exist.
    Create(&'a Path),
    /// Bytes are appended to an open file.
    Write(&'a Path, &'a [u8]),
    /// A file is truncated to a length in bytes.
    Truncate(&'a Path, u64),
    /// The contents of a file are flushed to the disk.
    SyncFile(&'a Path),
    /// The names in a folder are flushed to the disk.
    SyncFolder(&'a Path),
    /// A folder is created.
    CreateFolder(&'a Path),
    /// A file or folder is renamed; a file of that name is replaced.
    Rename(&'a Path, &'a Path),
    /// A file is removed.
    RemoveFile(&'a Path),
    /// An empty folder is removed.
    RemoveFolder(&'a Path),
    /// A file is opened, or part of it is read.
    Read(&'a Path),
    /// The names in a folder are read.
    List(&'a Path),
}

/// Observes operations before they happen.
pub trait Interceptor: std::fmt::Debug + Send + Sync {
    /// Is called before an operation; an error fails the operation, which then does not happen.
    ///
    /// # Errors
    /// The error that the operation is to fail with.
    fn before(&self, operation: Operation) -> io::Result<()>;
}

/// The file system as a run uses it. Clones share their interceptor.
#[derive(Debug, Clone, Default)]
pub struct Fs(Option<Arc<dyn Interceptor>>);

impl Fs {
    /// Returns a file system whose operations are intercepted.
    pub fn intercepted(interceptor: Arc<dyn Interceptor>) -> Self {
        Fs(Some(interceptor))
    }

    fn call<T>(&self, operation: Operation, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if let Some(interceptor) = &self.0 {
            interceptor.before(operation)?;
        }
        call()
    }

    /// Creates a file, which must not exist.
    ///
    /// # Errors
    /// If the operating system reports one; so have all other methods.
    pub fn create(&self, path: &Path) -> Result<OutputFile> {
        self.open_file(path, "create", Operation::Create(path), OpenOptions::new().append(true).create_new(true))
    }

    /// Opens a file for appending, and creates it if it does not exist; the name of a new file is flushed.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn append(&self, path: &Path) -> Result<OutputFile> {
        if !path.try_exists().map_err(|e| Error::io(path, "open", e))? {
            let file = self.create(path)?;
            self.sync_folder(path.parent().unwrap_or(Path::new(".")))?;
            return Ok(file);
        }
        self.open_file(path, "open", Operation::Read(path), OpenOptions::new().append(true).read(true))
    }

    fn open_file(
        &self,
        path: &Path,
        action: &'static str,
        operation: Operation,
        options: &OpenOptions,
    ) -> Result<OutputFile> {
        let file = self.call(operation, || options.open(path)).map_err(|e| Error::io(path, action, e))?;
        Ok(OutputFile { fs: self.clone(), path: path.to_path_buf(), file })
    }

    /// Replaces a file as a whole: after a kill or a power cut it has the old contents or the new ones. First removes what
    /// a kill may have left of an earlier call.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let part = part_of(path);
        self.remove_file(&part)?;
        let mut file = self.create(&part)?;
        file.write_all(bytes)?;
        file.sync()?;
        self.rename(&part, path)?;
        self.sync_folder(path.parent().unwrap_or(Path::new(".")))
    }

    /// Begins to replace a file as a whole, in pieces. First removes what a kill may have left of an earlier call.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn begin_replacement(&self, path: &Path) -> Result<Replacement> {
        let part = part_of(path);
        self.remove_file(&part)?;
        let file = self.create(&part)?;
        Ok(Replacement { file, path: path.to_path_buf(), is_complete: false })
    }

    /// Creates a folder and its parents, and flushes the name of each new one.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn create_folders(&self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.create_folders(parent)?;
        match self.call(Operation::CreateFolder(path), || fs::create_dir(path)) {
            // Another process was faster.
            Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            created => created.map_err(|e| Error::io(path, "create", e))?,
        }
        // Some folders, such as those of other users, cannot be read and therefore not flushed.
        match self.sync_folder(parent) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => Ok(()),
            flushed => flushed,
        }
    }

    /// Creates a folder, which must not exist, in an existing one.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn create_folder(&self, path: &Path) -> Result<()> {
        let created = self.call(Operation::CreateFolder(path), || fs::create_dir(path));
        created.map_err(|e| Error::io(path, "create", e))
    }

    /// Flushes the names in a folder, so that they survive a power cut.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn sync_folder(&self, path: &Path) -> Result<()> {
        let folder = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let synced = self.call(Operation::SyncFolder(path), || File::open(folder)?.sync_all());
        synced.map_err(|e| Error::io(path, "flush", e))
    }

    /// Renames a file or folder.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let renamed = self.call(Operation::Rename(from, to), || fs::rename(from, to));
        renamed.map_err(|e| Error::io(from, "rename", e))
    }

    /// Removes a file if it exists.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn remove_file(&self, path: &Path) -> Result<()> {
        if fs::symlink_metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            return Ok(());
        }
        let removed = self.call(Operation::RemoveFile(path), || fs::remove_file(path));
        removed.map_err(|e| Error::io(path, "remove", e))
    }

    /// Removes a folder with everything in it.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn remove_folder(&self, path: &Path) -> Result<()> {
        for name in self.list(path)? {
            let inside = path.join(name);
            if inside.is_dir() && !inside.is_symlink() {
                self.remove_folder(&inside)?;
            } else {
                self.remove_file(&inside)?;
            }
        }
        let removed = self.call(Operation::RemoveFolder(path), || fs::remove_dir(path));
        removed.map_err(|e| Error::io(path, "remove", e))
    }

    /// Returns the names in a folder, sorted.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let names = || fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into())).collect::<io::Result<Vec<_>>>();
        loop {
            match self.call(Operation::List(path), names) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                names => {
                    let mut names = names.map_err(|e| Error::io(path, "read", e))?;
                    names.sort();
                    return Ok(names);
                }
            }
        }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn open(&self, path: &Path) -> io::Result<InputFile> {
        let file = self.call(Operation::Read(path), || File::open(path))?;
        Ok(InputFile { fs: self.clone(), path: path.to_path_buf(), file })
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Returns the name under which the new contents of a file are written.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// A file that is written at its end.
#[derive(Debug)]
pub struct OutputFile {
    fs: Fs,
    path: PathBuf,
    file: File,
}

impl OutputFile {
    /// Appends bytes.
    ///
    /// # Errors
    /// As [`Fs::create`]; some of the bytes may have been written.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.fs.call(Operation::Write(&self.path, bytes), || self.file.write_all(bytes));
        written.map_err(|e| Error::io(&self.path, "write", e))
    }

    /// Flushes the contents to the disk.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn sync(&mut self) -> Result<()> {
        let synced = self.fs.call(Operation::SyncFile(&self.path), || self.file.sync_all());
        synced.map_err(|e| Error::io(&self.path, "flush", e))
    }

    /// Truncates the file.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn truncate(&mut self, len: u64) -> Result<()> {
        let truncated = self.fs.call(Operation::Truncate(&self.path, len), || self.file.set_len(len));
        truncated.map_err(|e| Error::io(&self.path, "truncate", e))
    }

    /// Returns the length in bytes.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn length(&self) -> Result<u64> {
        self.file.metadata().map(|data| data.len()).map_err(|e| Error::io(&self.path, "read", e))
    }
}

/// The new contents of a file, under another name until they are complete. Without that, they are removed.
#[derive(Debug)]
pub struct Replacement {
    file: OutputFile,
    path: PathBuf,
    is_complete: bool,
}

impl Replacement {
    /// Appends bytes.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes)
    }

    /// Gives the contents the name of the file.
    ///
    /// # Errors
    /// As [`Fs::create`]; the file then has its old contents, unless only its folder could not be flushed.
    pub fn finish(mut self) -> Result<()> {
        self.file.sync()?;
        let fs = self.file.fs.clone();
        fs.rename(&self.file.path, &self.path)?;
        self.is_complete = true;
        fs.sync_folder(self.path.parent().unwrap_or(Path::new(".")))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_complete {
            // The error that came before is the one to report.
            let _ = self.file.fs.remove_file(&self.file.path);
        }
    }
}

/// A file that is read.
#[derive(Debug)]
pub struct InputFile {
    fs: Fs,
    path: PathBuf,
    file: File,
}

impl InputFile {
    /// Returns the length in bytes.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn length(&self) -> io::Result<u64> {
        self.file.metadata().map(|data| data.len())
    }

    /// Reads bytes at a position.
    ///
    /// # Errors
    /// As [`Fs::create`]; also at the end of the file.
    pub fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.fs.call(Operation::Read(&self.path), || self.file.read_exact_at(bytes, at))
    }
}

impl Read for InputFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fs.call(Operation::Read(&self.path), || self.file.read(buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Records operations by name, and fails one of them.
    #[derive(Debug, Default)]
    struct Script {
        seen: Mutex<Vec<String>>,
        fails: Option<usize>,
    }

    impl Interceptor for Script {
        fn before(&self, operation: Operation) -> io::Result<()> {
            let mut seen = self.seen.lock().unwrap();
            let text = format!("{operation:?}");
            seen.push(text.split('(').next().unwrap_or_default().to_string());
            if self.fails == Some(seen.len() - 1) { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
        }
    }

    #[test]
    fn a_replaced_file_has_the_old_or_the_new_contents_whichever_operation_fails() {
        let dir = std::env::temp_dir().join(format!("peristyle-fs-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Fs::default().create_folders(&dir.join("a/b")).unwrap();
        let file = dir.join("a/b/config");
        Fs::default().replace(&file, b"old").unwrap();
        let operations = ["Create", "Write", "SyncFile", "Rename", "SyncFolder"];
        for fails in 0..operations.len() {
            let script = Arc::new(Script { fails: Some(fails), ..Script::default() });
            let error = Fs::intercepted(script.clone()).replace(&file, b"new").unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{error}");
            assert_eq!(*script.seen.lock().unwrap(), operations[..=fails]);
            assert_eq!(fs::read(&file).unwrap(), if fails < 4 { b"old" } else { b"new" });
            Fs::default().replace(&file, b"old").unwrap();
            assert_eq!(Fs::default().list(&dir.join("a/b")).unwrap(), [PathBuf::from("config")]);
        }
        Fs::default().remove_folder(&dir).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn a_replacement_in_pieces_is_seen_when_it_is_complete_and_leaves_nothing_otherwise() {
        let dir = std::env::temp_dir().join(format!("peristyle-replacement-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        let file = dir.join("rows");
        fs::write(&file, "old").unwrap();
        let begin = || {
            let mut replacement = Fs::default().begin_replacement(&file).unwrap();
            replacement.write_all(b"new").unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"old");
            replacement
        };
        drop(begin());
        assert_eq!(Fs::default().list(&dir).unwrap(), [PathBuf::from("rows")]);
        let mut replacement = begin();
        replacement.write_all(b"er").unwrap();
        replacement.finish().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"newer");
        assert_eq!(Fs::default().list(&dir).unwrap(), [PathBuf::from("rows")]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
