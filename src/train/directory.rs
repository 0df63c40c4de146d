//! Run directories: the folders that hold the configuration, metrics, log and checkpoints of a run.

use super::owner::{Lock, Owner, owned};
use crate::data::Base;
use crate::error::{Error, Result};
use crate::network::CheckedConfig;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder that contains run directories.
const RUNS: &str = "runs";
/// The configuration of a run, with every `--set` applied.
const CONFIG: &str = "config.toml";
/// The prefix of the first lines of a run's configuration, which record the folders that relative paths refer to.
const BASE: &str = "# relative to: ";

/// A run directory that this process owns.
#[derive(Debug)]
pub struct RunDir {
    /// Its path.
    pub path: PathBuf,
    lock: Lock,
}

impl RunDir {
    fn new(dir: &Path, mut lock: Lock) -> Result<RunDir> {
        lock.record()?;
        Ok(RunDir { path: dir.to_path_buf(), lock })
    }

    /// Takes a directory for a new run.
    ///
    /// # Errors
    /// If it already holds a run, or another process owns it.
    pub fn fresh(dir: &Path) -> Result<RunDir> {
        let lock = Lock::take(dir)?.ok_or_else(|| owned(dir))?;
        if holds_run(dir) {
            return Err(Error::Usage(format!(
                "{} already holds a run; add --resume to continue it, or choose another --run-dir",
                dir.display()
            )));
        }
        Self::new(dir, lock)
    }

    /// Takes a directory whose run is to be resumed.
    ///
    /// # Errors
    /// If it holds no run, or another process owns it.
    pub fn existing(dir: &Path) -> Result<RunDir> {
        if !holds_run(dir) {
            let message = format!("{} holds no run to resume; omit --resume to start one there", dir.display());
            return Err(Error::Usage(message));
        }
        Self::new(dir, Lock::take(dir)?.ok_or_else(|| owned(dir))?)
    }

    /// Takes the first free directory for a name: `runs/NAME`, `runs/NAME-2`, and so on. Runs that start at the same
    /// moment get different ones.
    ///
    /// # Errors
    /// If there are already a million runs of this name.
    pub fn next(name: &str) -> Result<RunDir> {
        for path in (1..1_000_000).map(|number| numbered(name, number)) {
            if holds_run(&path) {
                continue;
            }
            // Another process may have started, and even ended, a run here since the check above.
            if let Some(lock) = Lock::take(&path)?.filter(|_| !holds_run(&path)) {
                return Self::new(&path, lock);
            }
        }
        Err(Error::Usage(format!("too many runs named {name}; choose a --run-dir")))
    }

    /// Takes the directory of the run of a name that was started or resumed last.
    ///
    /// # Errors
    /// If there is none, or another process owns it.
    pub fn newest(name: &str) -> Result<RunDir> {
        let entries = fs::read_dir(RUNS).into_iter().flatten().flatten();
        let runs = entries.filter_map(|entry| number_of(entry.file_name().to_str()?, name));
        let runs = runs.map(|number| (numbered(name, number), number)).filter(|(dir, _)| holds_run(dir));
        // Runs of versions without a record are the oldest, in the order of their numbers.
        let newest = runs.max_by_key(|(dir, number)| (Owner::of(dir).map(|owner| owner.started), *number));
        let (dir, _) = newest.ok_or_else(|| {
            Error::Usage(format!("{RUNS}/{name} holds no run to resume; choose one with --run-dir, or omit --resume"))
        })?;
        Self::existing(&dir)
    }

    /// Removes what a new run has written before it failed to start; the directory too if it is then empty.
    pub fn abandon(self) {
        let _ = fs::remove_file(self.path.join(CONFIG));
        self.lock.remove();
    }
}

fn holds_run(dir: &Path) -> bool {
    dir.join(CONFIG).exists() || dir.join("checkpoints").exists()
}

fn numbered(name: &str, number: usize) -> PathBuf {
    let name = if number == 1 { name.to_string() } else { format!("{name}-{number}") };
    Path::new(RUNS).join(name)
}

/// Returns the number of a folder of runs: 1 for `NAME`, 2 for `NAME-2`.
fn number_of(folder: &str, name: &str) -> Option<usize> {
    let rest = folder.strip_prefix(name)?;
    let number = if rest.is_empty() { 1 } else { rest.strip_prefix('-')?.parse().ok().filter(|&n| n > 1)? };
    (numbered(name, number) == Path::new(RUNS).join(folder)).then_some(number)
}

/// Writes the configuration of a run; its relative paths refer to `base`, otherwise to the current folder.
///
/// # Errors
/// When the file cannot be written.
pub fn write_config(dir: &Path, resolved: &str, base: &Base) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io(dir, "create", e))?;
    let mut lines = Vec::new();
    for folder in base.0.iter().map(PathBuf::as_path).chain([Path::new(".")]) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let whole = fs::canonicalize(folder).map_err(|e| Error::io(folder, "read", e))?;
        let line = format!("{BASE}{}\n", whole.display());
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let (path, part) = (dir.join(CONFIG), dir.join(format!("{CONFIG}.part")));
    // A kill or an error in between leaves the old file.
    let write = || {
        let mut file = File::create(&part)?;
        file.write_all((lines.concat() + resolved).as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|e| Error::io(&path, "write", e))
}

/// Reads the configuration of a run directory, or of the run that a checkpoint belongs to.
///
/// # Errors
/// When there is none.
pub fn read_config(path: &Path, sets: &[String]) -> Result<CheckedConfig> {
    let whole = fs::canonicalize(path).map_err(|e| Error::io(path, "read", e))?;
    let dir = whole.ancestors().take(3).find(|dir| dir.join(CONFIG).is_file()).ok_or_else(|| {
        Error::Usage(format!("{}: no {CONFIG} here; expected a run directory or a checkpoint in one", path.display()))
    })?;
    let file = dir.join(CONFIG);
    let text = fs::read_to_string(&file).map_err(|e| Error::io(&file, "read", e))?;
    let mut checked = CheckedConfig::new(crate::config::from_text(&file.display().to_string(), &text, dir, sets));
    let folders: Vec<PathBuf> = text.lines().map_while(|line| line.strip_prefix(BASE)).map(PathBuf::from).collect();
    if let Some(config) = checked.config.as_mut().filter(|_| !folders.is_empty()) {
        config.base = Base(folders);
    }
    Ok(checked)
}
