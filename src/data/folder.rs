//! Folders of pictures: a folder for each class, which has the pictures of the class.

use super::files;
use super::picture_options::PictureOptions;
use super::picture_source::{Listed, picture_source};
use super::{DataFormat, Dataset, Description, SourceContext};
use crate::error::{Fault, Result};
use crate::settings::Settings;
use std::path::PathBuf;

picture_source! {
    /// `{ folder = "photos/train", size = 64 }`: JPEG and PNG files in a folder for each class, which are read while training. Classes are
    /// the names of the folders in order; a test set has those of the training set.
    pub struct Folder from folder {
        /// The folder above those of the classes.
        pub folder: PathBuf, example "\"photos/train\"";
    }
}

impl Folder {
    fn list(&self, cx: SourceContext) -> Result<Listed> {
        let folder = cx.base.find(&self.folder)?;
        let names = self.options().class_names(cx)?;
        let asked = format!("folder {names:?}");
        let index = files::Index::new(&folder, &asked);
        self.options().list(&index, cx.verify, || files::list_folder(&folder, names.as_ref()))
    }
}

impl DataFormat for Folder {
    fn key(&self) -> &'static str {
        "folder"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        self.options().check()
    }
    fn is_stream(&self) -> bool {
        true
    }
    fn pictures(&self) -> Option<PictureOptions> {
        Some(self.options())
    }
    fn varies(&self) -> bool {
        self.options().varies()
    }
    fn describe(&self, cx: SourceContext) -> Result<Description> {
        Ok(self.options().describe(&self.list(cx)?))
    }
    fn load(&self, cx: SourceContext) -> Result<Dataset> {
        self.options().load(self.list(cx)?)
    }
    fn examples() -> Vec<Self> {
        Vec::new()
    }
}
