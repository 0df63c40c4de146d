//! `state.json` of a checkpoint: the position of the run, the settings and the data it was trained with, and the length
//! and CRC-32 of every file of the checkpoint, including itself.

use super::format_1;
use crate::config::BestBy;
use crate::data::{DataRecord, Place};
use crate::error::{Error, Result};
use crate::gpu::libraries::Record;
use crate::layers::MetricKind;
use crate::network::Network;
use crate::storage::Fs;
use crate::tensor::Precision;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of the file.
pub(super) const MANIFEST: &str = "state.json";
/// The advice for a checkpoint that cannot be used.
pub(super) const ADVICE: &str = "resume from another checkpoint, or start the run again without --resume";

/// The format that this version writes, and the newest one that it reads.
pub(super) const FORMAT: u32 = 2;

fn newest_format() -> u32 {
    FORMAT
}

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
    /// Number of images.
    pub images: u64,
    /// The metrics besides the loss; NaN if one was not finite.
    #[serde(flatten, deserialize_with = "nulls_are_nan")]
    pub metrics: BTreeMap<String, f64>,
}

/// The result by which evaluations are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    /// The set: `test` or `validation`.
    pub split: String,
    /// `loss` or the name of a metric.
    pub metric: String,
    /// Whether it is an error or a number of hits.
    pub kind: MetricKind,
}

impl Ranking {
    /// Returns the ranking by a result of a network.
    pub fn new(by: &BestBy, network: &Network) -> Self {
        let fits = |(name, kind): &(&str, MetricKind)| match &by.metric {
            Some(metric) => metric == name,
            None => *kind == MetricKind::Hits,
        };
        let (metric, kind) = network.results().find(fits).unwrap_or(("loss", MetricKind::Mean));
        Ranking { split: by.split.to_string(), metric: metric.to_string(), kind }
    }
}

impl Evaluation {
    /// Returns a number that is higher for better results; `None` for another set or a result that is not a number.
    pub fn score(&self, by: &Ranking) -> Option<f64> {
        let value = if by.metric == "loss" { self.loss } else { *self.metrics.get(&by.metric)? };
        let score = if by.kind == MetricKind::Hits { value } else { -value };
        (self.split == by.split && score.is_finite() && self.loss.is_finite()).then_some(score)
    }
}

fn null_is_nan<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(f64::NAN))
}

fn nulls_are_nan<'de, D: Deserializer<'de>>(values: D) -> std::result::Result<BTreeMap<String, f64>, D::Error> {
    let values: BTreeMap<String, Option<f64>> = Deserialize::deserialize(values)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// What became of the time of a run until a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// When it was started first, in seconds since 1970; 0 if it is not known.
    pub started: f64,
    /// How often it was resumed.
    pub restarts: u64,
    /// The seconds of its updates.
    pub training_seconds: f64,
}

impl History {
    /// Returns the seconds since 1970.
    fn now() -> f64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
    }

    /// Returns the history of a run that starts now.
    pub(super) fn start() -> Self {
        History { started: History::now(), ..History::default() }
    }

    /// Returns the history of a run that is resumed now.
    pub(super) fn resumed(self) -> Self {
        let started = if self.started > 0.0 { self.started } else { History::now() };
        History { started, restarts: self.restarts + 1, ..self }
    }

    /// Returns the seconds since the first start.
    pub(super) fn total_seconds(&self) -> f64 {
        // A clock may be set back.
        (History::now() - self.started).max(self.training_seconds)
    }
}

/// The position of a run, and what it was trained with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// The format of the checkpoint.
    #[serde(skip, default = "newest_format")]
    pub format: u32,
    /// The run that the checkpoint belongs to, as recorded in its `config.toml`; empty in format 1.
    pub run: String,
    /// Updates done.
    pub step: u64,
    /// The place of the next sample in the training data.
    #[serde(flatten)]
    pub place: Place,
    /// Training images used since the start of the run.
    pub samples: u64,
    /// The updates in a row before this one that were skipped because the loss or a gradient was not finite.
    #[serde(default)]
    pub skips: u64,
    /// The seed of the run; with the counts above, the whole state of its random numbers.
    pub seed: u64,
    /// The element type.
    pub precision: Precision,
    /// The mesh, as data x columns.
    pub mesh: String,
    /// The version of peristyle.
    pub version: String,
    /// Every setting that affects what is learned, under the key that `--set` uses: `optimizer.lr` is `0.01`.
    /// In format 1, the elements of lists are numbered.
    #[serde(rename = "learned")]
    pub settings: BTreeMap<String, String>,
    /// The data that the run was trained on; `None` in format 1.
    pub data: Option<DataRecord>,
    /// The last evaluation of each set.
    pub evaluations: Vec<Evaluation>,
    /// The states of the schedules, by name.
    #[serde(default)]
    pub schedules: BTreeMap<String, Vec<f64>>,
    /// The numbers of the state of a second-order method, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub method: BTreeMap<String, f64>,
    /// For each transform of the optimiser, by its name, the updates made before it joined the chain.
    #[serde(default)]
    pub starts: BTreeMap<String, u64>,
    /// The time of the run.
    #[serde(default)]
    pub history: History,
    /// The algorithms that NVIDIA's libraries used; others would round differently.
    #[serde(default)]
    pub algorithms: Record,
}

impl Info {
    /// Returns the score of an evaluation of these very weights.
    pub fn score(&self, by: &Ranking) -> Option<f64> {
        self.evaluations.iter().filter(|e| e.step == self.step).find_map(|e| e.score(by))
    }
}

/// The length and checksum of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FileChecksum {
    pub bytes: u64,
    pub crc32: String,
}

impl FileChecksum {
    fn of(bytes: &[u8]) -> Self {
        let mut sum = RunningChecksum::default();
        sum.add(bytes);
        sum.finish()
    }
}

/// The checksum of a file that is read or written piece by piece.
#[derive(Debug, Default)]
pub(super) struct RunningChecksum {
    bytes: u64,
    crc32: crc32fast::Hasher,
}

impl RunningChecksum {
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc32.update(bytes);
    }
    pub fn finish(self) -> FileChecksum {
        FileChecksum { bytes: self.bytes, crc32: format!("{:08x}", self.crc32.finalize()) }
    }
}

/// The contents of `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u32,
    pub info: Info,
    pub model: FileChecksum,
    pub state: FileChecksum,
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
    pub fn new(info: &Info, model: FileChecksum, state: FileChecksum) -> Self {
        Manifest { format: FORMAT, info: info.clone(), model, state, crc32: BLANK.to_string() }
    }

    pub fn encode(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest holds text and numbers") + "\n";
        let crc32 = FileChecksum::of(text.as_bytes()).crc32;
        text.replace_range(checksum_range(&text).expect("the checksum is a field of the manifest"), &crc32);
        text
    }

    /// Reads the manifest of a checkpoint's folder.
    pub fn read(fs: &Fs, folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let wrong = |what: String| Error::file(&path, format!("{what}; {ADVICE}"));
        let bytes = match fs.read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(wrong("missing: the checkpoint is incomplete".into()));
            }
            read => read.map_err(|e| Error::io(&path, "read", e))?,
        };
        let mut text = String::from_utf8(bytes).map_err(|_| wrong("damaged: not UTF-8 text".into()))?;
        let mut value: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("damaged: {e}")))?;
        if let Some(checksum) = checksum_range(&text) {
            text.replace_range(checksum, BLANK);
        }
        if value["crc32"] != FileChecksum::of(text.as_bytes()).crc32 {
            return Err(wrong("damaged: its checksum does not match".into()));
        }
        let format = value["format"].as_u64().unwrap_or(0);
        if format == 1 {
            format_1::upgrade(&mut value["info"]);
        } else if format != u64::from(FORMAT) {
            let formats = format!("written in format {format}, but this version reads formats up to {FORMAT}");
            return Err(Error::file(&path, format!("{formats}; use the version of peristyle that wrote it")));
        }
        let mut manifest: Manifest =
            serde_json::from_value(value).map_err(|e| wrong(format!("not a valid manifest: {e}")))?;
        manifest.info.format = manifest.format;
        Ok(manifest)
    }
}
