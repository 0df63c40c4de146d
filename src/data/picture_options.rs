//! The settings that all sources of pictures have.

use super::pictures::{Filter, Fit, Lengths, Sizing};
use crate::settings::values;
use serde::Deserialize;
use std::path::PathBuf;

/// What happens to files that cannot be read as pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBad {
    /// The run ends with the first of them.
    Fail,
    /// They are left out. All files are decoded once when the list of files is made.
    Skip,
}

values! {
    OnBad, "`fail` or `skip`", on_bad => format!("{:?}", format!("{on_bad:?}").to_lowercase());
}

/// The settings that all sources of pictures have.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureOptions {
    /// The height and width that pictures are resized to; without it, they differ in size.
    pub size: Option<Lengths>,
    /// How pictures of another aspect are brought to the size.
    pub fit: Fit,
    /// The filter.
    pub filter: Filter,
    /// The channels of an image, 1 or 3.
    pub channels: usize,
    /// The file with the names of all classes.
    pub classes: Option<PathBuf>,
    /// What happens to files that cannot be decoded.
    pub on_bad: OnBad,
    /// The largest share of files that may be left out.
    pub most_bad: f64,
}

impl PictureOptions {
    /// Returns how pictures are brought to one size, if they are.
    pub(super) fn sizing(&self) -> Option<Sizing> {
        let PictureOptions { fit, filter, .. } = *self;
        self.size.map(|size| Sizing { size: size.both(), fit, filter })
    }
}
