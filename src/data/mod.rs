//! From files to batches: formats, normalisation, augmentation, order, prefetch. Does not depend on the network; a
//! batch is bit-identical on any device, with any number of threads, after any restart.
//!
//! To add a format: write `data/x.rs` with a settings struct that implements [`DataFormat`], and add one line to the
//! list in `data/source.rs`.

mod augment;
mod batches;
mod cifar;
mod digits;
mod file;
mod idx;
mod loader;
mod prepare;
mod sample_sets;
mod settings;
mod source;
mod synthetic;
mod tensors;

pub use augment::Augment;
pub use batches::{Batch, Batches, EpochPlan};
pub use cifar::{Cifar, Files};
pub use digits::Digits;
pub use idx::Idx;
pub use loader::Loader;
pub use prepare::{Arrived, Augmented, LoadRole, Preparation, Preparer, Raw};
pub use sample_sets::{Normalization, SampleSet, SampleSets, open};
pub use settings::{DataSettings, Normalize, SampleOrder};
pub use source::{DataSource, KEYS};
pub use synthetic::Synthetic;
pub use tensors::Tensors;

use crate::error::{Error, Fault, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The subset of a data set that a source provides: `train` or `test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subset {
    /// The samples for training.
    Train,
    /// The samples for evaluation only.
    Test,
}

/// The pixels of all images, (N, H, W, C), as stored in the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// 8-bit values, 0 to 255.
    U8(Vec<u8>),
    /// Finite floats.
    F32(Vec<f32>),
}

/// The targets of all images.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// A class number for each image.
    Index(Vec<u32>),
    /// `classes` finite numbers for each image: (N, classes).
    Dense(Vec<f32>),
}

/// The type of the pixels of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelType {
    /// 8-bit values, 0 to 255.
    U8,
    /// Floats.
    F32,
}

/// The description of a data set, available without reading its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Number of images N.
    pub images: usize,
    /// Height H, width W and channels C of each image.
    pub shape: [usize; 3],
    /// Number of classes: one more than the largest label, or the width of dense labels.
    pub classes: usize,
    /// Type of the pixels.
    pub pixels: PixelType,
    /// Number of values in the target of one image: 1 for a class number, `classes` for dense labels.
    pub target_width: usize,
}

/// A data set in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Its images.
    pub pixels: Pixels,
    /// Its targets.
    pub labels: Labels,
    /// Height H, width W and channels C of each image.
    pub shape: [usize; 3],
    /// Number of classes.
    pub classes: usize,
}

impl Dataset {
    /// Returns the number of images.
    pub fn images(&self) -> usize {
        match &self.labels {
            Labels::Index(labels) => labels.len(),
            Labels::Dense(labels) => labels.len() / self.classes,
        }
    }

    /// Returns the number of values in one image.
    pub fn features(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the description of the data set.
    pub fn header(&self) -> Header {
        let (pixels, target_width) = (
            match self.pixels {
                Pixels::U8(_) => PixelType::U8,
                Pixels::F32(_) => PixelType::F32,
            },
            match self.labels {
                Labels::Index(_) => 1,
                Labels::Dense(_) => self.classes,
            },
        );
        Header { images: self.images(), shape: self.shape, classes: self.classes, pixels, target_width }
    }
}

/// The folders in which relative paths are looked up, in order; the current folder is tried last.
///
/// The first is the folder of the configuration. A run that is resumed also has the folder in which it was started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base(pub Vec<PathBuf>);

impl From<&Path> for Base {
    fn from(folder: &Path) -> Self {
        Base(vec![folder.to_path_buf()])
    }
}

impl Base {
    /// Finds a file that a setting names.
    ///
    /// # Errors
    /// When no folder contains it.
    pub fn find(&self, path: &Path) -> Result<PathBuf> {
        let folders = self.0.iter().filter(|folder| !folder.as_os_str().is_empty());
        let mut tried: Vec<PathBuf> = folders.map(|folder| folder.join(path)).chain([path.to_path_buf()]).collect();
        if let Some(found) = tried.iter().find(|file| file.exists()) {
            return Ok(found.clone());
        }
        tried.dedup();
        let advice = match path.is_absolute() {
            true => "correct the path".to_string(),
            false => {
                let tried: Vec<String> = tried.iter().map(|file| file.display().to_string()).collect();
                format!(
                    "tried {}; relative paths start at the folder of the configuration, or else at the current folder",
                    tried.join(" and ")
                )
            }
        };
        Err(Error::file(path, format!("no such file; {advice}")))
    }
}

/// The context of a source: its default subset, and the folders that its paths are relative to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SourceContext<'a> {
    /// The subset of the key that the source is given for.
    pub subset: Subset,
    /// The folders in which relative paths are looked up.
    pub base: &'a Base,
}

/// A data format: the settings that follow its key.
pub trait DataFormat {
    /// Checks the ranges of its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// Reads the description of the data set without reading its images.
    ///
    /// # Errors
    /// A file that is missing or not valid.
    fn header(&self, cx: SourceContext) -> Result<Header>;

    /// Reads the data set.
    ///
    /// # Errors
    /// A file that is missing or not valid.
    fn load(&self, cx: SourceContext) -> Result<Dataset>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_reported_with_the_paths_that_were_tried() {
        let find = |base: &[&str], path: &str| Base(base.iter().map(PathBuf::from).collect()).find(Path::new(path));
        let missing = |base, path| find(base, path).unwrap_err().to_string();
        for (base, tried) in [
            (&["configs"][..], "configs/nowhere.bin and nowhere.bin"),
            (&["configs", "tests"], "configs/nowhere.bin and tests/nowhere.bin and nowhere.bin"),
            (&[""], "nowhere.bin"),
        ] {
            let expected = format!(
                "nowhere.bin: no such file; tried {tried}; relative paths start at the folder of the configuration, or \
                 else at the current folder"
            );
            assert_eq!(missing(base, "nowhere.bin"), expected);
        }
        assert_eq!(missing(&["src"], "/nowhere.bin"), "/nowhere.bin: no such file; correct the path");
        assert_eq!(find(&["src"], "lib.rs").unwrap(), Path::new("src/lib.rs"));
        assert_eq!(find(&["configs", "src"], "lib.rs").unwrap(), Path::new("src/lib.rs"));
        assert_eq!(find(&["configs"], "src/lib.rs").unwrap(), Path::new("src/lib.rs"));
    }
}
