//! Folders of pictures: a folder for each class, which has the pictures of the class.

use super::SourceContext;
use super::files;
use super::picture_source::{Listed, picture_source};
use crate::error::{Fault, Result};
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
    fn check_own(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn listed(&self, cx: SourceContext) -> Result<Listed> {
        let folder = cx.base.find(&self.folder)?;
        let names = self.options().class_names(cx)?;
        let asked = format!("folder {names:?}");
        let index = files::Index::new(&folder, &asked);
        self.options().list(&index, cx.verify, || files::list_folder(&folder, names.as_ref()))
    }
}
