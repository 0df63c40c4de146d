//! Checkpoints: all that a run needs to go on bit for bit, in folders that exist whole or not at all.
//!
//! `checkpoints/step-00000500/` holds `model.safetensors` (parameters and running statistics, as PyTorch reads
//! them), `state.safetensors` (the optimiser's memory) and `state.json` (where the run stands, and the length and
//! CRC-32 of every file, its own included). A folder is written under another name, flushed to the disk, verified
//! and renamed; only then are old ones removed. A kill or a power cut at any moment leaves the checkpoint before.

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
/// Ends the name of a folder that is being written or removed; the next save removes what a kill left.
const UNFINISHED: &str = ".unfinished";
/// Ends the name of a checkpoint that another one of the same step is about to replace.
const REPLACED: &str = ".replaced";
/// What to do about a checkpoint that cannot be used.
const ADVICE: &str = "resume from another checkpoint, or start the run again without --resume";

/// The newest format that this version reads and the one it writes.
const FORMAT: u32 = 1;

/// What an evaluation said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Updates done.
    pub step: u64,
    /// Which set: `test`, `validation`.
    pub split: String,
    /// Mean loss; not a number when it was not finite.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Fraction whose first guess is right.
    pub top1: f64,
    /// Fraction with the right class among the first five guesses.
    pub top5: f64,
    /// Number of images.
    pub images: u64,
}

fn null_is_nan<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(f64::NAN))
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Updates done.
    pub step: u64,
    /// The epoch at hand, from 0.
    pub epoch: u64,
    /// Batches of it already used.
    pub batch_in_epoch: u64,
    /// Training images used since the run began.
    pub samples: u64,
    /// The run's seed: with the counts above, all there is to save of random numbers.
    pub seed: u64,
    /// The element type.
    pub precision: Precision,
    /// The mesh, as data x columns.
    pub mesh: String,
    /// The version of peristyle.
    pub version: String,
    /// Every setting of what is learned, as the file writes it: `optimizer.lr` is `0.01`.
    #[serde(rename = "learned")]
    pub settings: BTreeMap<String, String>,
    /// The last evaluation of each set.
    pub evaluations: Vec<Evaluation>,
    /// Which algorithms NVIDIA's libraries used: others would round otherwise.
    #[serde(default)]
    pub algorithms: Record,
}

impl Info {
    /// Returns one line for every setting of what is learned that differs from the settings of a run.
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

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Parameters and running statistics.
    pub model: Vec<NamedTensor>,
    /// The optimiser's memory.
    pub state: Vec<NamedTensor>,
    /// Where the run stands.
    pub info: Info,
}

/// A checkpoint that was found.
#[derive(Debug)]
pub struct LatestCheckpoint {
    /// Its folder.
    pub path: PathBuf,
    /// What it holds.
    pub snapshot: Snapshot,
    /// What is wrong with newer ones, to be said aloud.
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
    /// CRC-32 of the file itself with zeros in this place: the last field of every format, for [`checksum_range`] looks
    /// for it from the end.
    crc32: String,
}

const BLANK: &str = "00000000";

/// Returns where the checksum of a manifest's own text lies in it.
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
        text.replace_range(checksum_range(&text).expect("the checksum is a field"), &crc32);
        text
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let wrong = |what: String| Error::file(&path, format!("{what}; {ADVICE}"));
        let mut text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(wrong("missing: not a whole checkpoint".into())),
            Err(e) if e.kind() == ErrorKind::InvalidData => return Err(wrong("damaged: it is not text".into())),
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
            let formats = format!("written in format {format}, and this version reads formats up to {FORMAT}");
            return Err(Error::file(&path, format!("{formats}; use the peristyle that wrote it")));
        }
        serde_json::from_value(value).map_err(|e| wrong(format!("not a manifest: {e}")))
    }
}

/// Writes a checkpoint into a run directory, then removes all but the newest `keep` whole ones, and returns its
/// folder. A checkpoint of the same step is replaced.
///
/// # Errors
/// When a file cannot be written, or reads back other than it was written. The checkpoints that were there stay.
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
        // What cannot be removed now is removed by the next save.
        let _ = fs::remove_dir_all(&unfinished);
        return Err(error);
    }
    // The new checkpoint is safe: what goes wrong from here on does not fail the save.
    if let Err(error) = clean(&folder).and_then(|()| prune(&folder, keep, &path)) {
        tracing::warn!("an old checkpoint stays: {}", error.with_causes());
    }
    Ok(path)
}

/// Reads a checkpoint's folder.
///
/// # Errors
/// Which of its files is missing, cut short or damaged, and what to do.
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

/// Reads the newest whole checkpoint of a run directory or of its folder of checkpoints, or the one whose folder
/// `path` is.
///
/// # Errors
/// When there is none, with what is wrong with each; when `path` is a checkpoint and is not whole.
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
    Err(Error::file(folder, format!("holds no whole checkpoint to go on from{}", reasons.concat())))
}

/// Removes the checkpoints of later steps: a run that goes back to `step` is about to write its own.
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

/// Gives a whole checkpoint its name. Where another one has the name, one of the two is whole at any moment.
fn publish(unfinished: &Path, path: &Path) -> Result<()> {
    if path.exists() {
        rename(path, &with_end(path, REPLACED))?;
    }
    rename(unfinished, path)?;
    sync(path.parent().expect("a checkpoint lies in a folder"))
}

/// Removes all but the newest `keep` checkpoints, at least one, and the one just written. What is not whole does
/// not count.
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

/// Removes what saving and removing left: unfinished folders, and replaced ones that have their successor.
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

/// Removes a checkpoint so that a kill leaves it whole or unfinished, never half under its own name.
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

/// Flushes a folder, so that its names outlive a power cut.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(folder, "flush", e))
}

/// Reads every byte of a checkpoint.
fn verify(folder: &Path) -> Result<()> {
    let manifest = Manifest::read(folder)?;
    read_verified(folder, MODEL, &manifest.model)?;
    read_verified(folder, STATE, &manifest.state)?;
    Ok(())
}

/// Looks at a checkpoint's manifest and the lengths of its files only.
fn has_its_lengths(folder: &Path) -> bool {
    let fits =
        |name, checksum: &FileChecksum| fs::metadata(folder.join(name)).is_ok_and(|file| file.len() == checksum.bytes);
    Manifest::read(folder).is_ok_and(|manifest| fits(MODEL, &manifest.model) && fits(STATE, &manifest.state))
}

/// Reads a file of a checkpoint if it is what its checksum says.
fn read_verified(folder: &Path, name: &str, checksum: &FileChecksum) -> Result<Vec<u8>> {
    let path = folder.join(name);
    let wrong = |what: String| Err(Error::file(&path, format!("{what}; {ADVICE}")));
    // The length first: a file that is much too long is not read.
    let bytes = match fs::metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return wrong("missing: not a whole checkpoint".into()),
        file => file.map_err(|e| Error::io(&path, "read", e))?.len(),
    };
    if bytes != checksum.bytes {
        return wrong(format!("damaged: it has {bytes} bytes, and {} were written", checksum.bytes));
    }
    let read = fs::read(&path).map_err(|e| Error::io(&path, "read", e))?;
    if FileChecksum::of(&read) != *checksum {
        return wrong("damaged: its checksum does not match".into());
    }
    Ok(read)
}
