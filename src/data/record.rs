//! What a checkpoint keeps of the data: enough to evaluate without the training files, and to notice that they changed.

use super::augment::ColorAxes;
use super::dataset::{ClassNames, Dataset, Description, Header, Labels, Targets};
use super::format::SourceContext;
use super::normalization::Normalization;
use super::samples::{ImageView, PixelType, Pixels};
use super::source::DataSource;
use crate::error::{Error, Result, quantity};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use xxhash_rust::xxh3::Xxh3;

/// The data that a run was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataRecord {
    /// The training set, with its validation share.
    pub train: SetRecord,
    /// The test set.
    pub test: Option<SetRecord>,
    /// The normalisation of the pixels of all sets.
    pub normalization: Normalization,
    /// The axes of the colours of the training samples, if an augmentation uses them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colors: Option<ColorAxes>,
    /// The names of the classes; empty if they have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// Whether samples were held out for validation class by class.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stratified: bool,
}

impl DataRecord {
    /// Returns the description of the training set.
    pub fn describe_train(&self) -> Description {
        Description { names: self.names(), ..Description::from(self.train.header) }
    }

    /// Returns the names of the classes, if they have names.
    pub fn names(&self) -> Option<ClassNames> {
        (!self.class_names.is_empty()).then(|| self.class_names.as_slice().into())
    }

    /// Returns true if the test set and the training set have the same contents.
    pub fn is_test_train(&self) -> bool {
        self.test.as_ref().is_some_and(|test| test.fingerprint == self.train.fingerprint)
    }

    /// Returns the normalisation of images of a shape.
    ///
    /// # Errors
    /// If it was measured on another number of channels or of features.
    pub(super) fn normalization_of(&self, [h, w, channels]: [usize; 3]) -> Result<Normalization> {
        let measured = self.normalization.mean.len();
        if measured == channels || measured == h * w * channels {
            return Ok(self.normalization.clone());
        }
        let channels = quantity(channels as u64, "channel");
        Err(Error::Usage(format!(
            "[data]: images of {channels}, but the checkpoint's normalisation has {measured}; use the data of the run"
        )))
    }

    /// Returns one line for each set whose contents differ from those of `now`, under the key of its source.
    pub fn differences(&self, now: &DataRecord) -> Vec<(&'static str, String)> {
        let sets = [("data.train", Some(&self.train), Some(&now.train))];
        let sets = sets.into_iter().chain([("data.test", self.test.as_ref(), now.test.as_ref())]);
        let differ = sets.filter_map(|(key, then, now)| match (then, now) {
            (Some(then), Some(now)) if then.fingerprint != now.fingerprint => {
                Some((key, format!("{} in the checkpoint, {} now", then.described(), now.described())))
            }
            (Some(then), Some(now))
                if then.contents.as_ref().zip(now.contents.as_ref()).is_some_and(|(a, b)| a != b) =>
            {
                Some((key, "files in the checkpoint, other contents of the same names and sizes now".to_string()))
            }
            _ => None,
        });
        differ.collect()
    }
}

/// A data set as a run saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetRecord {
    /// Its description, with the number of images and of classes.
    #[serde(flatten)]
    pub header: Header,
    /// XXH3 (128 bits) of the description, the pixels and the labels, independent of how files are compressed.
    pub fingerprint: String,
    /// The machine on which the files had these sizes and times.
    pub host: String,
    /// The files, in the order of the source.
    pub files: Vec<FileStamp>,
    /// XXH3 (128 bits) of the contents of all files, if they are pictures whose contents have been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<String>,
}

impl SetRecord {
    /// Describes a data set; returns the fingerprint of `known` without reading the pixels if the set's files have the
    /// same sizes and times on the same machine, unless everything is to be verified.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub(super) fn new(data: &Dataset, files: Vec<FileStamp>, known: Option<&SetRecord>, verify: bool) -> Result<Self> {
        let host = host();
        let known = known.filter(|known| !verify && !files.is_empty() && known.files == files && known.host == host);
        let fingerprint = match known {
            Some(known) => known.fingerprint.clone(),
            None => fingerprint(data)?,
        };
        Ok(SetRecord { header: data.header(), fingerprint, host, files, contents: data.contents.clone() })
    }

    /// Returns a data set of this description that has no samples.
    pub(super) fn without_samples(&self) -> Dataset {
        let Header { shape, classes, pixels, .. } = self.header;
        let pixels = match pixels {
            PixelType::U8 => Pixels::U8(Vec::new()),
            PixelType::F32 => Pixels::F32(Vec::new()),
        };
        let labels = match self.header.targets() {
            Targets::Classes(_) => Labels::Index(Vec::new()),
            Targets::Distributions(_) => Labels::Dense(Vec::new()),
            Targets::Values(width) => Labels::Values(width, Vec::new()),
        };
        Dataset::loaded(pixels, labels, shape, classes)
    }

    /// Returns what the set has in common with copies of it on other machines.
    pub fn in_common(&self) -> String {
        let contents = self.contents.as_deref().map_or(String::new(), |contents| format!(", files {contents:.8}"));
        self.described() + &contents
    }

    fn described(&self) -> String {
        format!("{} images with fingerprint {:.8}", self.header.images, self.fingerprint)
    }
}

/// The size and time of a file: a quick check for changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// Its path, as written in the configuration.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified: i64,
}

/// Returns the stamps of a source's files; none if one of them cannot be examined.
pub(super) fn stamps(source: &DataSource, cx: SourceContext) -> Vec<FileStamp> {
    let stamp = |path: PathBuf| -> Result<FileStamp> {
        let found = cx.base.find(&path)?;
        let data = std::fs::metadata(&found).map_err(|e| Error::io(&found, "read", e))?;
        let modified = data.mtime().saturating_mul(1_000_000_000).saturating_add(data.mtime_nsec());
        Ok(FileStamp { path, bytes: data.len(), modified })
    };
    source.files().into_iter().map(stamp).collect::<Result<_>>().unwrap_or_default()
}

/// Returns the name of this machine.
pub fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string()
}

/// Returns the fingerprint of a data set.
///
/// # Errors
/// If an image cannot be read.
pub(super) fn fingerprint(data: &Dataset) -> Result<String> {
    if let Some(known) = &data.fingerprint {
        return Ok(known.clone());
    }
    let mut hash = Xxh3::new();
    let Header { images, shape: [h, w, c], classes, target_width, pixels } = data.header();
    let kind = usize::from(pixels == PixelType::F32);
    [images, h, w, c, classes, target_width, kind].iter().for_each(|&n| hash.update(&(n as u64).to_le_bytes()));
    data.each(0..images, |image| match image {
        ImageView::U8(x) => hash.update(x),
        ImageView::F32(x) => words(&mut hash, x, |x| x.to_le_bytes()),
    })?;
    match &data.labels {
        Labels::Index(labels) => words(&mut hash, labels, |x| x.to_le_bytes()),
        Labels::Dense(labels) | Labels::Values(_, labels) => words(&mut hash, labels, |x| x.to_le_bytes()),
    }
    Ok(format!("{:032x}", hash.digest128()))
}

/// Adds words in blocks, because small updates are slow.
fn words<T: Copy>(hash: &mut Xxh3, values: &[T], bytes: impl Fn(T) -> [u8; 4]) {
    for block in values.chunks(4096) {
        hash.update(&block.iter().flat_map(|&x| bytes(x)).collect::<Vec<u8>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_depends_on_contents_and_not_on_the_type_of_the_file() {
        let data = |pixels: Vec<u8>, labels: Vec<u32>| {
            fingerprint(&Dataset::loaded(Pixels::U8(pixels), Labels::Index(labels), [2, 1, 1], 3)).unwrap()
        };
        let one = data(vec![1, 2, 3, 4], vec![0, 2]);
        assert_eq!(one.len(), 32);
        assert_eq!(one, data(vec![1, 2, 3, 4], vec![0, 2]));
        assert_ne!(one, data(vec![1, 2, 3, 5], vec![0, 2]));
        assert_ne!(one, data(vec![1, 2, 3, 4], vec![2, 0]));
    }

    #[test]
    fn unchanged_files_are_not_read_again_unless_they_are_to_be_verified() {
        let data = Dataset::loaded(Pixels::U8(vec![7]), Labels::Index(vec![0]), [1; 3], 1);
        let stamp = FileStamp { path: "a".into(), bytes: 1, modified: 5 };
        let new = SetRecord::new(&data, vec![stamp.clone()], None, false).unwrap();
        let (true_one, known) = (new.fingerprint.clone(), SetRecord { fingerprint: "as before".into(), ..new });
        let again = |stamp: FileStamp, known: &SetRecord, verify| {
            SetRecord::new(&data, vec![stamp], Some(known), verify).unwrap().fingerprint
        };
        assert_eq!(again(stamp.clone(), &known, false), "as before");
        assert_eq!(again(stamp.clone(), &known, true), true_one);
        assert_eq!(again(FileStamp { modified: 6, ..stamp.clone() }, &known, false), true_one);
        assert_eq!(again(stamp, &SetRecord { host: "other".into(), ..known }, false), true_one);
        assert_eq!(SetRecord::new(&data, Vec::new(), None, false).unwrap().fingerprint, true_one);
    }
}
