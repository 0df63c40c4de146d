//! Run directories: the folders that hold the configuration, metrics, log and checkpoints of a run.

use crate::data::Base;
use crate::error::{Error, Result};
use crate::network::CheckedConfig;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder that contains run directories.
const RUNS: &str = "runs";
/// The configuration of a run, with every `--set` applied.
const CONFIG: &str = "config.toml";
/// The prefix of the first lines of a run's configuration, which record the folders that relative paths refer to.
const BASE: &str = "# relative to: ";

/// Returns a directory for a new run.
///
/// # Errors
/// When it already holds a run.
pub fn fresh(dir: &Path) -> Result<PathBuf> {
    if holds_run(dir) {
        return Err(Error::Usage(format!(
            "{} already holds a run; add --resume to continue it, or choose another --run-dir",
            dir.display()
        )));
    }
    Ok(dir.to_path_buf())
}

/// Returns a directory whose run is to be resumed.
///
/// # Errors
/// When it holds no run.
pub fn existing(dir: &Path) -> Result<PathBuf> {
    if holds_run(dir) {
        return Ok(dir.to_path_buf());
    }
    Err(Error::Usage(format!("{} holds no run to resume; omit --resume to start one there", dir.display())))
}

fn holds_run(dir: &Path) -> bool {
    dir.join(CONFIG).exists() || dir.join("checkpoints").exists()
}

fn numbered(name: &str, number: usize) -> PathBuf {
    let name = if number == 1 { name.to_string() } else { format!("{name}-{number}") };
    Path::new(RUNS).join(name)
}

/// Returns the first free directory for a name: `runs/NAME`, `runs/NAME-2`, and so on.
///
/// # Errors
/// When there are already a million runs of this name.
pub fn next(name: &str) -> Result<PathBuf> {
    let free = (1..1_000_000).map(|number| numbered(name, number)).find(|dir| !holds_run(dir));
    free.ok_or_else(|| Error::Usage(format!("too many runs named {name}; choose a --run-dir")))
}

/// Returns the last directory for a name that holds a run.
///
/// # Errors
/// When there is none.
pub fn newest(name: &str) -> Result<PathBuf> {
    let runs = (1..1_000_000).map(|number| numbered(name, number)).take_while(|dir| holds_run(dir));
    runs.last().ok_or_else(|| {
        Error::Usage(format!("{RUNS}/{name} holds no run to resume; choose one with --run-dir, or omit --resume"))
    })
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
    let path = dir.join(CONFIG);
    let text = lines.concat() + resolved;
    fs::write(&path, text).map_err(|e| Error::io(&path, "write", e))
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
