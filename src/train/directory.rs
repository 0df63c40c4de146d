//! Run directories: the folders that hold the configuration, metrics, log and checkpoints of a run.

use super::owner::{Lock, Owner, owned};
use crate::data::Base;
use crate::error::{Error, Result};
use crate::network::CheckedConfig;
use crate::storage::Fs;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The folder that contains run directories.
const RUNS: &str = "runs";
/// The configuration of a run, with every `--set` applied.
const CONFIG: &str = "config.toml";
/// The prefix of the first lines of a run's configuration, which record the folders that relative paths refer to: seen from
/// the run directory, so that both can be moved together, and in full, so that the run directory can be moved alone.
const BASE: &str = "# relative to: ";

/// The prefix of the line that records the identity of the run.
const RUN: &str = "# run: ";

/// A run directory that this process owns.
#[derive(Debug)]
pub struct RunDir {
    /// Its path.
    pub path: PathBuf,
    /// The identity of its run.
    pub run: String,
    /// The record of this process as its owner.
    pub owner: Owner,
    lock: Lock,
}

impl RunDir {
    fn new(dir: &Path, mut lock: Lock) -> Result<RunDir> {
        let owner = lock.record()?;
        // Runs of versions that recorded none have no identity.
        let run = match fs::read_to_string(dir.join(CONFIG)) {
            Ok(text) => header(&text).find_map(|line| line.strip_prefix(RUN)).unwrap_or_default().to_string(),
            Err(e) if e.kind() == ErrorKind::NotFound => format!("{:x}-{:x}", owner.started, owner.pid),
            Err(e) => return Err(Error::io(&dir.join(CONFIG), "read", e)),
        };
        Ok(RunDir { path: dir.to_path_buf(), run, owner, lock })
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

    /// Returns whether there is a run of a name.
    pub fn any(name: &str) -> bool {
        !runs_of(name).is_empty()
    }

    /// Takes the directory of the run of a name that was started or resumed last.
    ///
    /// # Errors
    /// If there is none, or another process owns it.
    pub fn newest(name: &str) -> Result<RunDir> {
        // Runs of versions without a record are the oldest, in the order of their numbers.
        let newest =
            runs_of(name).into_iter().max_by_key(|(dir, number)| (Owner::of(dir).map(|owner| owner.started), *number));
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

/// Returns whether a directory holds a run; also if that cannot be found out, so that no run is overwritten.
pub fn holds_run(dir: &Path) -> bool {
    let exists = |name: &&str| dir.join(name).try_exists().unwrap_or_else(|e| e.kind() != ErrorKind::NotADirectory);
    [CONFIG, "checkpoints"].iter().any(exists)
}

/// Returns the directories of the runs of a name, with their numbers.
fn runs_of(name: &str) -> Vec<(PathBuf, usize)> {
    let entries = fs::read_dir(RUNS).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| number_of(entry.file_name().to_str()?, name));
    numbers.map(|number| (numbered(name, number), number)).filter(|(dir, _)| holds_run(dir)).collect()
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

/// Returns the lines before the configuration proper.
fn header(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| [BASE, RUN].iter().any(|prefix| line.starts_with(prefix)))
}

/// Writes the configuration of a run; its relative paths refer to `base`, otherwise to the current folder. `step` is the
/// number of updates made with the previous configuration, which is kept if it differs.
///
/// # Errors
/// When a file cannot be written.
pub fn write_config(fs: &Fs, dir: &Path, run: &str, resolved: &str, base: &Base, step: u64) -> Result<()> {
    fs.create_folders(dir)?;
    let mut text = if run.is_empty() { String::new() } else { format!("{RUN}{run}\n") };
    let from = fs::canonicalize(dir).map_err(|e| Error::io(dir, "read", e))?;
    for folder in base.0.iter().map(PathBuf::as_path).chain([Path::new(".")]) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let whole = fs::canonicalize(folder).map_err(|e| Error::io(folder, "read", e))?;
        for form in [between(&from, &whole), without_home(&whole)] {
            // A line cannot hold other paths; there is always the other form, or the current folder.
            let Some(form) = form.to_str().filter(|form| !form.contains(char::is_control)) else { continue };
            let line = format!("{BASE}{form}\n");
            if !text.contains(&line) {
                text += &line;
            }
        }
    }
    let path = dir.join(CONFIG);
    let settings = |text: &str| text.split_inclusive('\n').skip(header(text).count()).collect::<String>();
    if let Ok(before) = fs::read_to_string(&path)
        && settings(&before) != resolved
        && step > 0
    {
        let kept = dir.join(format!("config-until-step-{step:08}.toml"));
        // Of several resumes from one step, only the first replaces settings that were used.
        if !kept.exists() {
            fs.replace(&kept, before.as_bytes())?;
        }
    }
    fs.replace(&path, (text + resolved).as_bytes())
}

/// Returns the relative path from one folder to another; both are canonical.
fn between(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| Path::new(".."));
    let path: PathBuf = up.chain(to.components().skip(common).map(|part| Path::new(part.as_os_str()))).collect();
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
}

/// Returns a path with the user's home folder as `~`: runs are shared, and the name of a home folder tells who trained.
fn without_home(path: &Path) -> PathBuf {
    let inside = home().and_then(|home| path.strip_prefix(home).ok().map(Path::to_path_buf));
    inside.map_or_else(|| path.to_path_buf(), |inside| Path::new("~").join(inside))
}

fn with_home(form: &str) -> PathBuf {
    match (form.strip_prefix("~/"), home()) {
        (Some(inside), Some(home)) => home.join(inside),
        _ => PathBuf::from(form),
    }
}

fn home() -> Option<PathBuf> {
    let home = std::env::home_dir().filter(|home| home.is_absolute() && home != Path::new("/"))?;
    Some(fs::canonicalize(&home).unwrap_or(home))
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
    let folders: Vec<PathBuf> =
        header(&text).filter_map(|line| line.strip_prefix(BASE)).map(|form| dir.join(with_home(form))).collect();
    if let Some(config) = checked.config.as_mut().filter(|_| !folders.is_empty()) {
        config.base = Base(folders);
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_seen_from_the_run_directory() {
        let path = |from: &str, to: &str| between(Path::new(from), Path::new(to)).display().to_string();
        assert_eq!(path("/p/runs/a", "/p/configs"), "../../configs");
        assert_eq!(path("/p/runs/a", "/p"), "../..");
        assert_eq!(path("/p", "/p"), ".");
        assert_eq!(path("/x", "/y/z"), "../y/z");
    }
}
