//! Checkpoints: everything needed to resume a run bit for bit, in folders that are complete or absent.
//!
//! `checkpoints/step-00000500/` holds `model.safetensors` (parameters and running statistics, as PyTorch reads them),
//! `state.safetensors` (the optimiser's state) and `state.json` (the position of the run, and the length and CRC-32 of
//! every file, including itself). A folder is written under a temporary name, flushed to the disk, verified and
//! renamed; only then are old ones removed. A kill or a power cut at any moment leaves the previous checkpoint intact.

use super::weights::{self, NamedTensor};
use crate::error::{Error, Result};
use crate::gpu::libraries::Record;
use crate::tensor::Precision;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const MODEL: &str = "model.safetensors";
const STATE: &str = "state.safetensors";
const MANIFEST: &str = "state.json";
/// The folder of checkpoints in a run directory.
const FOLDER: &str = "checkpoints";
/// The suffix of a folder that is being written or removed; the next save removes any that a kill left.
const UNFINISHED: &str = ".unfinished";
/// The suffix of a checkpoint that is being replaced by another one of the same step.
const REPLACED: &str = ".replaced";
/// The advice for a checkpoint that cannot be used.
const ADVICE: &str = "resume from another checkpoint, or start the run again without --resume";

/// The format that this version writes, and the newest one that it reads.
const FORMAT: u32 = 1;

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Updates done.
    pub step: u64,
    /// The set: `test` or `validation`.
    pub split: String,
    /// Mean loss; NaN if it was not finite.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Fraction of images whose first guess is right.
    pub top1: f64,
    /// Fraction of images with the right class among the first five guesses.
    pub top5: f64,
    /// Number of images.
    pub images: u64,
}

fn null_is_nan<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(f64::NAN))
}

/// The position of a run, and the settings it was trained with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Updates done.
    pub step: u64,
    /// The current epoch, from 0.
    pub epoch: u64,
    /// Batches of the current epoch already used.
    pub batch_in_epoch: u64,
    /// Training images used since the start of the run.
    pub samples: u64,
    /// The seed of the run; with the counts above, the whole state of its random numbers.
    pub seed: u64,
    /// The element type.
    pub precision: Precision,
    /// The mesh, as data x columns.
    pub mesh: String,
    /// The version of peristyle.
    pub version: String,
    /// Every setting that affects training, as written in the file: `optimizer.lr` is `0.01`.
    #[serde(rename = "learned")]
    pub settings: BTreeMap<String, String>,
    /// The last evaluation of each set.
    pub evaluations: Vec<Evaluation>,
    /// The algorithms that NVIDIA's libraries used; others would round differently.
    #[serde(default)]
    pub algorithms: Record,
}

impl Info {
    /// Returns one line for every setting that affects training and differs from `settings`.
    pub fn differences(&self, settings: &BTreeMap<String, String>) -> Vec<String> {
        let show = |value: Option<&String>| value.map_or("not set", String::as_str).to_string();
        let mut keys: Vec<&String> = self.settings.keys().chain(settings.keys()).collect();
        keys.sort();
        keys.dedup();
        let differ = keys.into_iter().filter(|&key| self.settings.get(key) != settings.get(key));
        differ
            .map(|k| format!("{k}: {} in the checkpoint, {} now", show(self.settings.get(k)), show(settings.get(k))))
            .collect()
    }
}

/// The contents of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Parameters and running statistics.
    pub model: Vec<NamedTensor>,
    /// The optimiser's state.
    pub state: Vec<NamedTensor>,
    /// The position of the run.
    pub info: Info,
}

/// The newest usable checkpoint.
#[derive(Debug)]
pub struct LatestCheckpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Its contents.
    pub snapshot: Snapshot,
    /// The errors of newer checkpoints that were skipped, to be reported.
    pub skipped: Vec<Error>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FileChecksum {
    bytes: u64,
    crc32: String,
}

impl FileChecksum {
    fn of(bytes: &[u8]) -> Self {
        FileChecksum { bytes: bytes.len() as u64, crc32: format!("{:08x}", crc32fast::hash(bytes)) }
    }
}

/// The contents of `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    info: Info,
    model: FileChecksum,
    state: FileChecksum,
    /// CRC-32 of the file itself with zeros in place of this value: the last field of every format, because
    /// [`checksum_range`] searches for it from the end.
    crc32: String,
}

const BLANK: &str = "00000000";

/// Returns the position of the manifest's own checksum in its text.
fn checksum_range(text: &str) -> Option<std::ops::Range<usize>> {
    let key = "\"crc32\": \"";
    let start = text.rfind(key)? + key.len();
    text.is_char_boundary(start + BLANK.len()).then(|| start..start + BLANK.len())
}

impl Manifest {
    fn new(info: &Info, model: &[u8], state: &[u8]) -> Self {
        let (model, state) = (FileChecksum::of(model), FileChecksum::of(state));
        Manifest { format: FORMAT, info: info.clone(), model, state, crc32: BLANK.to_string() }
    }

    fn encode(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest holds text and numbers") + "\n";
        let crc32 = FileChecksum::of(text.as_bytes()).crc32;
        text.replace_range(checksum_range(&text).expect("the checksum is a field of the manifest"), &crc32);
        text
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let wrong = |what: String| Error::file(&path, format!("{what}; {ADVICE}"));
        let mut text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(wrong("missing: the checkpoint is incomplete".into()));
            }
            Err(e) if e.kind() == ErrorKind::InvalidData => return Err(wrong("damaged: not UTF-8 text".into())),
            read => read.map_err(|e| Error::io(&path, "read", e))?,
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| wrong(format!("damaged: {e}")))?;
        if let Some(checksum) = checksum_range(&text) {
            text.replace_range(checksum, BLANK);
        }
        if value["crc32"] != FileChecksum::of(text.as_bytes()).crc32 {
            return Err(wrong("damaged: its checksum does not match".into()));
        }
        let format = value["format"].as_u64().unwrap_or(0);
        if format != u64::from(FORMAT) {
            let formats = format!("written in format {format}, but this version reads formats up to {FORMAT}");
            return Err(Error::file(&path, format!("{formats}; use the version of peristyle that wrote it")));
        }
        serde_json::from_value(value).map_err(|e| wrong(format!("not a valid manifest: {e}")))
    }
}

/// Writes a checkpoint into a run directory, then removes all but the newest `keep` complete ones, and returns the
/// folder of the new one. A checkpoint of the same step is replaced.
///
/// # Errors
/// When a file cannot be written, or does not read back as written. Existing checkpoints remain.
pub fn write(run_dir: &Path, snapshot: &Snapshot, keep: usize) -> Result<PathBuf> {
    let folder = run_dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, "create", e))?;
    sync(run_dir)?;
    clean(&folder)?;
    let path = folder.join(format!("step-{:08}", snapshot.info.step));
    let unfinished = with_end(&path, UNFINISHED);
    let written =
        fill(&unfinished, snapshot).and_then(|()| verify(&unfinished)).and_then(|()| publish(&unfinished, &path));
    if let Err(error) = written {
        // If this fails, the next save removes the folder.
        let _ = fs::remove_dir_all(&unfinished);
        return Err(error);
    }
    // The new checkpoint is safe: failures from here on do not fail the save.
    if let Err(error) = clean(&folder).and_then(|()| prune(&folder, keep, &path)) {
        tracing::warn!("an old checkpoint could not be removed: {}", error.with_causes());
    }
    Ok(path)
}

/// Reads a checkpoint's folder.
///
/// # Errors
/// A file that is missing, truncated or damaged, with advice.
pub fn read(path: &Path) -> Result<Snapshot> {
    let manifest = Manifest::read(path)?;
    let tensors = |name, checksum| {
        let bytes = read_verified(path, name, checksum)?;
        let read = weights::decode(&bytes).map_err(|wrong| Error::file(&path.join(name), wrong))?;
        Ok(read.tensors)
    };
    Ok(Snapshot {
        model: tensors(MODEL, &manifest.model)?,
        state: tensors(STATE, &manifest.state)?,
        info: manifest.info,
    })
}

/// Reads the newest complete checkpoint of a run directory or of its folder of checkpoints, or the checkpoint at
/// `path`.
///
/// # Errors
/// When there is none, with the errors of each; when `path` is an incomplete checkpoint.
pub fn latest(path: &Path) -> Result<LatestCheckpoint> {
    let named = path.file_name().and_then(|name| name.to_str()).and_then(step_of).is_some();
    if path.join(MANIFEST).exists() || (named && path.is_dir()) {
        return Ok(LatestCheckpoint { path: path.to_path_buf(), snapshot: read(path)?, skipped: Vec::new() });
    }
    let inside = path.join(FOLDER);
    let folder = if inside.is_dir() { &inside } else { path };
    let mut skipped = Vec::new();
    for (_, path) in list(folder)? {
        match read(&path) {
            Ok(snapshot) => return Ok(LatestCheckpoint { path, snapshot, skipped }),
            Err(error) => skipped.push(error),
        }
    }
    let reasons: Vec<String> = skipped.iter().map(|error| format!("\n  {}", error.with_causes())).collect();
    Err(Error::file(folder, format!("holds no complete checkpoint to resume from{}", reasons.concat())))
}

/// Returns whether a run directory holds a checkpoint, complete or not.
///
/// # Errors
/// When the folder cannot be read.
pub fn any(run_dir: &Path) -> Result<bool> {
    let folder = run_dir.join(FOLDER);
    Ok(folder.exists() && !list(&folder)?.is_empty())
}

/// Removes the checkpoints of later steps, because a run that goes back to `step` will write its own.
///
/// # Errors
/// When the folder cannot be read or a checkpoint cannot be removed.
pub fn cut_back(run_dir: &Path, step: u64) -> Result<()> {
    let mut later = list(&run_dir.join(FOLDER))?.into_iter().filter(|&(s, _)| s > step);
    later.try_for_each(|(_, path)| remove(&path))
}

/// Writes the files of a checkpoint, the manifest last.
fn fill(folder: &Path, snapshot: &Snapshot) -> Result<()> {
    fs::create_dir(folder).map_err(|e| Error::io(folder, "create", e))?;
    let (model, state) = (weights::encode(&snapshot.model), weights::encode(&snapshot.state));
    save(&folder.join(MODEL), &model)?;
    save(&folder.join(STATE), &state)?;
    save(&folder.join(MANIFEST), Manifest::new(&snapshot.info, &model, &state).encode().as_bytes())?;
    sync(folder)
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|e| Error::io(path, "write", e))
}

/// Renames a complete checkpoint to its final name. If it replaces another one, one of the two is complete at any time.
fn publish(unfinished: &Path, path: &Path) -> Result<()> {
    if path.exists() {
        rename(path, &with_end(path, REPLACED))?;
    }
    rename(unfinished, path)?;
    sync(path.parent().expect("a checkpoint is inside a folder"))
}

/// Removes all but the newest `keep` checkpoints (at least one) and the one just written. Incomplete ones do not count.
fn prune(folder: &Path, keep: usize, written: &Path) -> Result<()> {
    let mut kept = 0;
    for (_, path) in list(folder)? {
        if kept >= keep.max(1) && path != written {
            remove(&path)?;
        } else if path == written || has_its_lengths(&path) {
            kept += 1;
        }
    }
    Ok(())
}

/// Removes leftovers of interrupted saves: unfinished folders, and replaced ones whose successor exists.
fn clean(folder: &Path) -> Result<()> {
    let names = names(folder)?;
    for name in &names {
        let finished = name.strip_suffix(UNFINISHED).unwrap_or(name);
        let checkpoint = finished.strip_suffix(REPLACED).unwrap_or(finished);
        let succeeded = finished != checkpoint && names.iter().any(|name| name == checkpoint);
        if step_of(checkpoint).is_some() && (finished != name || succeeded) {
            let path = folder.join(name);
            fs::remove_dir_all(&path).map_err(|e| Error::io(&path, "remove", e))?;
        }
    }
    Ok(())
}

/// Removes a checkpoint so that a kill leaves it either complete or marked as unfinished.
fn remove(path: &Path) -> Result<()> {
    let unfinished = with_end(path, UNFINISHED);
    rename(path, &unfinished)?;
    fs::remove_dir_all(&unfinished).map_err(|e| Error::io(&unfinished, "remove", e))
}

/// Returns the checkpoints in a folder with their steps, the newest first.
fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let step = |name: String| {
        let replaced = name.ends_with(REPLACED);
        step_of(name.strip_suffix(REPLACED).unwrap_or(&name)).map(|step| (step, !replaced, folder.join(&name)))
    };
    let mut all: Vec<_> = names(folder)?.into_iter().filter_map(step).collect();
    all.sort();
    Ok(all.into_iter().rev().map(|(step, _, path)| (step, path)).collect())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let unreadable = |e| Error::io(folder, "read", e);
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    let name = |entry: std::io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
    entries.filter_map(|entry| name(entry).transpose()).collect::<std::io::Result<_>>().map_err(unreadable)
}

fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io(from, "rename", e))
}

/// Flushes a folder, so that the names in it survive a power cut.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(folder, "flush", e))
}

/// Verifies every byte of a checkpoint.
fn verify(folder: &Path) -> Result<()> {
    let manifest = Manifest::read(folder)?;
    read_verified(folder, MODEL, &manifest.model)?;
    read_verified(folder, STATE, &manifest.state)?;
    Ok(())
}

/// Returns true if the manifest is valid and the files have the right lengths, without reading them.
fn has_its_lengths(folder: &Path) -> bool {
    let fits =
        |name, checksum: &FileChecksum| fs::metadata(folder.join(name)).is_ok_and(|file| file.len() == checksum.bytes);
    Manifest::read(folder).is_ok_and(|manifest| fits(MODEL, &manifest.model) && fits(STATE, &manifest.state))
}

/// Reads a file of a checkpoint and verifies its checksum.
fn read_verified(folder: &Path, name: &str, checksum: &FileChecksum) -> Result<Vec<u8>> {
    let path = folder.join(name);
    let wrong = |what: String| Err(Error::file(&path, format!("{what}; {ADVICE}")));
    // The length first, so that a file that is much too long is not read.
    let bytes = match fs::metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return wrong("missing: the checkpoint is incomplete".into()),
        file => file.map_err(|e| Error::io(&path, "read", e))?.len(),
    };
    if bytes != checksum.bytes {
        return wrong(format!("damaged: it has {bytes} bytes, but {} were written", checksum.bytes));
    }
    let read = fs::read(&path).map_err(|e| Error::io(&path, "read", e))?;
    if FileChecksum::of(&read) != *checksum {
        return wrong("damaged: its checksum does not match".into());
    }
    Ok(read)
}
