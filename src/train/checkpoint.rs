//! Checkpoints: everything needed to resume a run bit for bit, in folders that are complete or absent.
//!
//! `checkpoints/step-00000500/` holds `model.safetensors` (parameters and running statistics, as PyTorch reads them),
//! `state.safetensors` (the optimiser's state, and the whitening of the data) and `state.json` (see `manifest.rs`). A folder is written under a temporary
//! name, flushed to the disk, verified and renamed; only then are old ones removed. A kill or a power cut at any moment
//! leaves the previous checkpoint intact.
//!
//! A checkpoint that cannot be read is not a damaged one: a disk or a network may fail for a moment. Such an error ends
//! the command, and nothing is removed. Only checkpoints that a newer, verified one of the same run supersedes are removed.

use super::format_1;
use super::manifest::{ADVICE, FileChecksum, Info, MANIFEST, Manifest, Ranking, RunningChecksum};
use super::weights::{self, TensorFile, TensorSource};
use crate::error::{Error, Result};
use crate::storage::Fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

const MODEL: &str = "model.safetensors";
const STATE: &str = "state.safetensors";
/// The folder of checkpoints in a run directory.
const FOLDER: &str = "checkpoints";
/// The suffix of a folder that is being written or removed; the next start or save removes any that a kill left.
const UNFINISHED: &str = ".unfinished";
/// The suffix of a checkpoint that is being replaced by another one of the same step.
const REPLACED: &str = ".replaced";
/// Bytes that are written or read at once.
const BLOCK: usize = 1 << 20;

/// What is written into a checkpoint.
pub struct Snapshot<'a> {
    /// Parameters and running statistics.
    pub model: &'a dyn TensorSource,
    /// The optimiser's state, and the whitening of the data.
    pub state: &'a dyn TensorSource,
    /// The position of the run.
    pub info: &'a Info,
}

/// A complete, verified checkpoint that is open for reading.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// The position of the run.
    pub info: Info,
    /// Parameters and running statistics.
    pub model: TensorFile,
    /// The optimiser's state, and the whitening of the data.
    pub state: TensorFile,
}

impl Checkpoint {
    /// Returns the number of updates made before a transform joined the chain, which may be all of them. Checkpoints of
    /// versions up to 0.1.0 have none that joined later.
    pub(super) fn start(&self, transform: &str) -> u64 {
        let is_own = |name: &str| name.rsplit('.').nth(1) == Some(transform);
        let old = self.info.starts.is_empty();
        let kept = self.state.tensors.iter().any(|tensor| is_own(&tensor.name));
        self.info.starts.get(transform).copied().unwrap_or(if old && kept { 0 } else { self.info.step })
    }
}

/// The newest usable checkpoint.
#[derive(Debug)]
pub struct LatestCheckpoint {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The errors of newer checkpoints that were skipped, to be reported.
    pub skipped: Vec<Error>,
}

/// Which old checkpoints are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// How many of the newest, at least 1.
    pub newest: usize,
    /// How many of the best besides, among those whose weights were evaluated.
    pub best: usize,
    /// The result that makes them the best.
    pub best_by: Ranking,
}

/// Writes a checkpoint into a run directory, then removes the old ones that need not be kept, and returns the folder of
/// the new one. A checkpoint of the same step is replaced.
///
/// # Errors
/// When a file cannot be written, or does not read back as written. Existing checkpoints remain.
pub fn write(fs: &Fs, run_dir: &Path, snapshot: &Snapshot, retention: &Retention) -> Result<PathBuf> {
    let folder = run_dir.join(FOLDER);
    fs.create_folders(&folder)?;
    clean(fs, &folder)?;
    let path = folder.join(format!("step-{:08}", snapshot.info.step));
    let unfinished = with_end(&path, UNFINISHED);
    let written = fill(fs, &unfinished, snapshot).and_then(|()| publish(fs, &unfinished, &path));
    if let Err(error) = written {
        // If this fails, the next save removes the folder.
        let _ = fs.remove_folder(&unfinished);
        return Err(error);
    }
    // The new checkpoint is safe: failures from here on do not fail the save.
    if let Err(error) = clean(fs, &folder).and_then(|()| prune(fs, run_dir, snapshot.info, retention)) {
        tracing::warn!("an old checkpoint could not be removed: {}", error.with_causes());
    }
    Ok(path)
}

/// Opens and verifies the checkpoint in a folder.
///
/// # Errors
/// A file that is missing, truncated, damaged or not finite, with advice; a file that cannot be read.
pub fn read(fs: &Fs, path: &Path) -> Result<Checkpoint> {
    let manifest = Manifest::read(fs, path)?;
    if let Some(step) = step_in(path).filter(|&step| step != manifest.info.step) {
        let message = format!(
            "the folder is named after step {step}, but holds step {}; rename or remove the folder",
            manifest.info.step
        );
        return Err(Error::file(path, message));
    }
    verify(fs, path, &manifest)?;
    let open = |name| TensorFile::open(fs, &path.join(name));
    let (model, mut state) = (open(MODEL)?, open(STATE)?);
    for file in [&model, &state] {
        if let Some(name) = file.first_nonfinite()? {
            let message = format!("\"{name}\" has values that are not finite: the run had diverged; {ADVICE}");
            return Err(Error::file(&file.path, message));
        }
    }
    if manifest.format == 1 {
        let names: Vec<String> = state.tensors.iter().map(|tensor| tensor.name.clone()).collect();
        state.tensors.iter_mut().zip(format_1::state_names(&names)).for_each(|(tensor, name)| tensor.name = name);
    }
    Ok(Checkpoint { path: path.to_path_buf(), info: manifest.info, model, state })
}

/// Reads the newest complete checkpoint of a run directory or of its folder of checkpoints, or the checkpoint at
/// `path`. If `run` is not empty, those of other runs are skipped.
///
/// # Errors
/// When there is none, with the errors of each; when `path` is an incomplete checkpoint; when a file cannot be read.
pub fn latest(fs: &Fs, path: &Path, run: &str) -> Result<LatestCheckpoint> {
    let named = step_in(path).is_some() && path.is_dir();
    if named || path.join(MANIFEST).is_file() {
        return Ok(LatestCheckpoint { checkpoint: read(fs, path)?, skipped: Vec::new() });
    }
    let inside = path.join(FOLDER);
    let folder = if inside.is_dir() { &inside } else { path };
    let mut skipped = Vec::new();
    for (_, path) in list(fs, folder)? {
        match read(fs, &path) {
            Ok(checkpoint) if is_of(&checkpoint.info, run) => return Ok(LatestCheckpoint { checkpoint, skipped }),
            Ok(_) => skipped.push(Error::file(&path, "belongs to another run; remove it, or resume that run")),
            // Not a fault of the checkpoint: an older one must not take its place.
            Err(error @ Error::Io { .. }) => {
                let cause = error.with_causes();
                return Err(Error::Run(format!(
                    "{cause}; nothing was changed: resume when the file can be read again"
                )));
            }
            Err(error) => skipped.push(error),
        }
    }
    let reasons: Vec<String> = skipped.iter().map(|error| format!("\n  {}", error.with_causes())).collect();
    Err(Error::file(folder, format!("holds no complete checkpoint to resume from{}", reasons.concat())))
}

/// Returns the best score of the checkpoints up to that of `newest` in a run directory.
///
/// # Errors
/// When a folder or manifest cannot be read.
pub fn best_score(fs: &Fs, run_dir: &Path, newest: &Info, by: &Ranking) -> Result<Option<f64>> {
    let scores = superseded(fs, run_dir, newest)?.into_iter().filter_map(|old| old.info?.score(by));
    Ok(scores.max_by(f64::total_cmp))
}

/// Returns whether a checkpoint belongs to a run; those of format 1 do not record their run.
fn is_of(info: &Info, run: &str) -> bool {
    run.is_empty() || info.run.is_empty() || info.run == run
}

/// Returns the checkpoints of a run directory or of its folder of checkpoints, the newest first, or the one at `path`.
///
/// # Errors
/// When there is none, or a folder cannot be read.
pub fn all(fs: &Fs, path: &Path) -> Result<Vec<PathBuf>> {
    if step_in(path).is_some() || path.join(MANIFEST).is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let inside = path.join(FOLDER);
    let folder = if inside.is_dir() { &inside } else { path };
    let all: Vec<PathBuf> = list(fs, folder)?.into_iter().map(|(_, path)| path).collect();
    if all.is_empty() {
        return Err(Error::file(folder, "holds no checkpoint; expected a run directory or a checkpoint"));
    }
    Ok(all)
}

/// Returns whether a run directory holds a checkpoint, complete or not.
///
/// # Errors
/// When the folder cannot be read.
pub fn any(fs: &Fs, run_dir: &Path) -> Result<bool> {
    let folder = run_dir.join(FOLDER);
    match folder.try_exists() {
        Ok(exists) => Ok(exists && !list(fs, &folder)?.is_empty()),
        Err(e) => Err(Error::io(&folder, "read", e)),
    }
}

/// Removes what a kill during a save left: unfinished folders, and checkpoints that the one of `info`, which has been
/// verified, supersedes.
///
/// # Errors
/// When the folder cannot be read or a leftover cannot be removed.
pub fn tidy(fs: &Fs, run_dir: &Path, info: &Info, retention: &Retention) -> Result<()> {
    clean(fs, &run_dir.join(FOLDER))?;
    prune(fs, run_dir, info, retention)
}

/// Writes the files of a checkpoint, the manifest last, and verifies them.
fn fill(fs: &Fs, folder: &Path, snapshot: &Snapshot) -> Result<()> {
    fs.create_folder(folder)?;
    let model = save(fs, &folder.join(MODEL), snapshot.model)?;
    let state = save(fs, &folder.join(STATE), snapshot.state)?;
    let manifest = Manifest::new(snapshot.info, model, state);
    let mut file = fs.create(&folder.join(MANIFEST))?;
    file.write_all(manifest.encode().as_bytes())?;
    file.sync()?;
    fs.sync_folder(folder)?;
    verify(fs, folder, &Manifest::read(fs, folder)?)
}

fn save(fs: &Fs, path: &Path, tensors: &dyn TensorSource) -> Result<FileChecksum> {
    let mut file = fs.create(path)?;
    let (mut sum, mut block) = (RunningChecksum::default(), Vec::with_capacity(BLOCK));
    weights::write(tensors, &mut |bytes| {
        sum.add(bytes);
        if block.len() + bytes.len() > BLOCK {
            file.write_all(&block)?;
            block.clear();
        }
        if bytes.len() < BLOCK {
            block.extend_from_slice(bytes);
            return Ok(());
        }
        file.write_all(bytes)
    })?;
    file.write_all(&block)?;
    file.sync()?;
    Ok(sum.finish())
}

/// Renames a complete checkpoint to its final name. If it replaces another one, one of the two is complete at any time.
fn publish(fs: &Fs, unfinished: &Path, path: &Path) -> Result<()> {
    if path.exists() {
        fs.rename(path, &with_end(path, REPLACED))?;
    }
    fs.rename(unfinished, path)?;
    fs.sync_folder(path.parent().expect("a checkpoint is inside a folder"))
}

/// A checkpoint that may be removed because a newer one exists.
struct Superseded {
    step: u64,
    path: PathBuf,
    /// Its position, if it is complete.
    info: Option<Info>,
}

/// Returns the checkpoints of the same run up to that of `newest`, the newest first. Those of later steps are not
/// superseded before the run has passed them, even if they are damaged.
fn superseded(fs: &Fs, run_dir: &Path, newest: &Info) -> Result<Vec<Superseded>> {
    let mut all = Vec::new();
    for (step, path) in list(fs, &run_dir.join(FOLDER))?.into_iter().filter(|&(step, _)| step <= newest.step) {
        let info = info_if_complete(fs, &path)?;
        if info.as_ref().is_none_or(|info| is_of(info, &newest.run)) {
            all.push(Superseded { step, path, info });
        }
    }
    Ok(all)
}

/// Removes the checkpoints of a run directory that the one of `newest` supersedes and that need not be kept.
///
/// # Errors
/// When a folder or manifest cannot be read, or a checkpoint cannot be removed.
pub fn prune(fs: &Fs, run_dir: &Path, newest: &Info, retention: &Retention) -> Result<()> {
    let all = superseded(fs, run_dir, newest)?;
    let mut scores: Vec<(f64, u64)> =
        all.iter().filter_map(|old| Some((old.info.as_ref()?.score(&retention.best_by)?, old.step))).collect();
    // The best first, of equal ones the earliest.
    scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let is_best = |step| scores.iter().take(retention.best).any(|&(_, best)| best == step);
    let (most, mut kept) = (retention.newest.max(1), 0);
    for Superseded { step, path, info } in all {
        if step == newest.step || (kept < most && info.is_some()) {
            kept += 1;
        } else if kept >= most && !(info.is_some() && is_best(step)) {
            remove(fs, &path)?;
        }
    }
    Ok(())
}

/// Removes leftovers of interrupted saves: unfinished folders, and replaced ones whose successor exists.
fn clean(fs: &Fs, folder: &Path) -> Result<()> {
    let names = names(fs, folder)?;
    for name in &names {
        let finished = name.strip_suffix(UNFINISHED).unwrap_or(name);
        let checkpoint = finished.strip_suffix(REPLACED).unwrap_or(finished);
        let succeeded = finished != checkpoint && names.iter().any(|name| name == checkpoint);
        if step_of(checkpoint).is_some() && (finished != name || succeeded) {
            fs.remove_folder(&folder.join(name))?;
        }
    }
    Ok(())
}

/// Removes a checkpoint so that a kill leaves it either complete or marked as unfinished.
fn remove(fs: &Fs, path: &Path) -> Result<()> {
    let unfinished = with_end(path, UNFINISHED);
    fs.rename(path, &unfinished)?;
    fs.remove_folder(&unfinished)
}

/// Returns the checkpoints in a folder with their steps, the newest first.
fn list(fs: &Fs, folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let step = |name: String| {
        let replaced = name.ends_with(REPLACED);
        step_of(name.strip_suffix(REPLACED).unwrap_or(&name)).map(|step| (step, !replaced, folder.join(&name)))
    };
    let mut all: Vec<_> = names(fs, folder)?.into_iter().filter_map(step).collect();
    all.sort();
    Ok(all.into_iter().rev().map(|(step, _, path)| (step, path)).collect())
}

fn names(fs: &Fs, folder: &Path) -> Result<Vec<String>> {
    Ok(fs.list(folder)?.into_iter().filter_map(|name| name.into_os_string().into_string().ok()).collect())
}

fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}

/// Returns the step in the name of a checkpoint's folder.
fn step_in(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    step_of(name.strip_suffix(REPLACED).unwrap_or(name))
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Verifies every byte of a checkpoint's tensors.
fn verify(fs: &Fs, folder: &Path, manifest: &Manifest) -> Result<()> {
    for (name, checksum) in [(MODEL, &manifest.model), (STATE, &manifest.state)] {
        let path = folder.join(name);
        let wrong = |what: String| Err(Error::file(&path, format!("{what}; {ADVICE}")));
        let unreadable = |e| Error::io(&path, "read", e);
        let mut file = match fs.open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return wrong("missing: the checkpoint is incomplete".into()),
            file => file.map_err(unreadable)?,
        };
        // The length first, so that a file that is much too long is not read.
        let bytes = file.length().map_err(unreadable)?;
        if bytes != checksum.bytes {
            return wrong(format!("damaged: it has {bytes} bytes, but {} were written", checksum.bytes));
        }
        let (mut sum, mut block) = (RunningChecksum::default(), vec![0; BLOCK.min(bytes as usize)]);
        loop {
            match read_some(&mut file, &mut block).map_err(unreadable)? {
                0 => break,
                read => sum.add(&block[..read]),
            }
        }
        if sum.finish() != *checksum {
            return wrong("damaged: its checksum does not match".into());
        }
    }
    Ok(())
}

/// Reads some bytes, however often a signal interrupts.
fn read_some(file: &mut impl Read, block: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read(block) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Returns the position of a checkpoint if its manifest is valid and its files have the right lengths, without reading
/// them.
fn info_if_complete(fs: &Fs, folder: &Path) -> Result<Option<Info>> {
    let manifest = match Manifest::read(fs, folder) {
        Ok(manifest) => manifest,
        Err(error @ Error::Io { .. }) => return Err(error),
        Err(_) => return Ok(None),
    };
    let fits = |name, checksum: &FileChecksum| {
        std::fs::metadata(folder.join(name)).is_ok_and(|file| file.len() == checksum.bytes)
    };
    let agrees = step_in(folder) == Some(manifest.info.step);
    let complete = agrees && fits(MODEL, &manifest.model) && fits(STATE, &manifest.state);
    Ok(complete.then_some(manifest.info))
}
