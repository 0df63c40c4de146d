//! From files to batches: formats, normalisation, augmentation, order, prefetch. Knows no network; a batch is the
//! same floats whoever asks for it, whenever, on however many threads.
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
pub use source::{DataSource, KINDS};
pub use synthetic::Synthetic;
pub use tensors::Tensors;

use crate::error::{Error, Fault, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Which subset of a data set a source stands for: `train` or `test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subset {
    /// The samples that are learned from.
    Train,
    /// The samples that are only evaluated.
    Test,
}

/// The pixels of all images, (N, H, W, C), as the file holds them.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// 8-bit values, 0 to 255.
    U8(Vec<u8>),
    /// Floats, all finite.
    F32(Vec<f32>),
}

/// The targets of all images.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// A class number for each image.
    Index(Vec<u32>),
    /// A row of `classes` finite numbers for each image: (N, classes).
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

/// What a data set holds, known without reading its images.
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
    /// Numbers in the target of one image: 1 for a class number, `classes` for dense labels.
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

    /// Returns what it holds.
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

/// The folders in which relative paths are looked up, in their order; the current folder is tried after them.
///
/// The first is the configuration file's. A run that is read again has the folder in which it was started, too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base(pub Vec<PathBuf>);

impl From<&Path> for Base {
    fn from(folder: &Path) -> Self {
        Base(vec![folder.to_path_buf()])
    }
}

impl Base {
    /// Finds the file that a setting names.
    ///
    /// # Errors
    /// When no folder has it.
    pub fn find(&self, path: &Path) -> Result<PathBuf> {
        let named = self.0.iter().filter(|folder| !folder.as_os_str().is_empty());
        let places = named.clone().map(|folder| folder.join(path)).chain([path.to_path_buf()]);
        if let Some(found) = places.into_iter().find(|place| place.exists()) {
            return Ok(found);
        }
        let folders: Vec<String> = named.map(|folder| folder.display().to_string()).collect();
        let searched = match folders.is_empty() || path.is_absolute() {
            true => String::new(),
            false => format!(", neither in {} nor in the current folder", folders.join(" nor in ")),
        };
        Err(Error::file(path, format!("no such file{searched}; check the path")))
    }
}

/// Where a source stands: decides the default subset and what relative paths are relative to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SourceContext<'a> {
    /// The key at which the source stands.
    pub subset: Subset,
    /// The folders in which relative paths are looked up.
    pub base: &'a Base,
}

/// A data format: the settings that stand after its key.
pub trait DataFormat {
    /// Checks the ranges of its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// Reads what the data set holds, and no images.
    ///
    /// # Errors
    /// A file that is missing, or is not what it should be.
    fn header(&self, cx: SourceContext) -> Result<Header>;

    /// Reads the data set.
    ///
    /// # Errors
    /// A file that is missing, or is not what it should be.
    fn load(&self, cx: SourceContext) -> Result<Dataset>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_the_folders_that_were_searched() {
        let find = |base: &[&str], path: &str| Base(base.iter().map(PathBuf::from).collect()).find(Path::new(path));
        let missing = |base, path| find(base, path).unwrap_err().to_string();
        assert_eq!(
            missing(&["configs"], "nowhere.bin"),
            "nowhere.bin: no such file, neither in configs nor in the current folder; check the path"
        );
        assert_eq!(
            missing(&["configs", "tests"], "nowhere.bin"),
            "nowhere.bin: no such file, neither in configs nor in tests nor in the current folder; check the path"
        );
        assert_eq!(missing(&[""], "nowhere.bin"), "nowhere.bin: no such file; check the path");
        assert_eq!(missing(&["src"], "/nowhere.bin"), "/nowhere.bin: no such file; check the path");
        assert_eq!(find(&["src"], "lib.rs").unwrap(), Path::new("src/lib.rs"));
        assert_eq!(find(&["configs", "src"], "lib.rs").unwrap(), Path::new("src/lib.rs"));
        assert_eq!(find(&["configs"], "src/lib.rs").unwrap(), Path::new("src/lib.rs"));
    }
}
