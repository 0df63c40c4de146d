//! The interface of a data format, and the paths that its files are found by.

use super::dataset::{Dataset, Description, Subset};
use super::picture_options::PictureOptions;
use crate::error::{Error, Fault, Result};
use crate::settings::Settings;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

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
    /// The names of the classes, if those of another set are to be used.
    pub names: Option<&'a [String]>,
    /// Whether the contents of all files that are read one by one are to be read now, and compared with what is kept of them.
    pub verify: bool,
}

impl<'a> SourceContext<'a> {
    /// Returns the context of a source that has its own names of classes.
    pub fn new(subset: Subset, base: &'a Base) -> Self {
        SourceContext { subset, base, names: None, verify: false }
    }
}

/// A data format: the settings that follow its key.
pub trait DataFormat: Settings + Debug + Send + Sync {
    /// Returns the key that selects it in the configuration file.
    fn key(&self) -> &'static str;

    /// Checks the ranges of its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()
    }

    /// Returns the files that it reads, as written in the configuration; none by default.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Returns those of its files that hold images; all by default.
    fn image_files(&self) -> Vec<PathBuf> {
        self.files()
    }

    /// Returns true if its files hold images in the order (N, C, H, W).
    fn is_channels_first(&self) -> bool {
        false
    }

    /// Returns true if its images are read when they are needed, and do not lie in memory.
    fn is_stream(&self) -> bool {
        false
    }

    /// Returns true if its images differ in height and width. Their shape is then 1x1xC in descriptions, until augmentations have brought them
    /// to one.
    fn varies(&self) -> bool {
        false
    }

    /// Returns how it brings pictures to a size, if it is a source of pictures.
    fn pictures(&self) -> Option<PictureOptions> {
        None
    }

    /// Reads the description of the data set without reading its images.
    ///
    /// # Errors
    /// Every file that is missing or not valid.
    fn describe(&self, cx: SourceContext) -> Result<Description>;

    /// Reads the data set; of a stream, all but the images.
    ///
    /// # Errors
    /// Every file that is missing or not valid.
    fn load(&self, cx: SourceContext) -> Result<Dataset>;

    /// Returns settings of this format that need no files, for the shared tests.
    fn examples() -> Vec<Self>
    where
        Self: Sized;
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
