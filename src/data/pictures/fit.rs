//! How pictures of any aspect are brought to a size.

use super::change::{Changes, PictureChange};
use super::{Filter, cover, fit_inside, middle, short_side};
use crate::settings::values;
use serde::Deserialize;

/// How pictures of another aspect are brought to a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The short side gets the size; pictures keep their aspect, and differ in their long sides.
    Short,
    /// Height and width are scaled independently.
    Stretch,
    /// The picture keeps its aspect and covers the size; what is left over at two sides is cut off.
    Cover,
    /// The picture keeps its aspect and fits into the size; the rest is 0.
    Pad,
}

values! {
    Fit, "`short`, `stretch`, `cover` or `pad`", fit => format!("{:?}", format!("{fit:?}").to_lowercase());
}

/// How pictures are brought to the size of their source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizing {
    /// Their height and width.
    pub size: [usize; 2],
    /// How another aspect is brought to it.
    pub fit: Fit,
    /// The filter.
    pub filter: Filter,
}

impl Sizing {
    /// Returns the changes of a picture of a height and width.
    pub(in crate::data) fn changes(self, from: [usize; 2]) -> Changes {
        if from == self.size { [None; 2] } else { self.fit.changes(from, self.size, self.filter) }
    }
}

impl Fit {
    /// Returns the changes that bring a picture to a size.
    pub(in crate::data) fn changes(self, size: [usize; 2], to: [usize; 2], filter: Filter) -> Changes {
        let scaled = match self {
            Fit::Short => short_side(size, to[0]),
            Fit::Stretch => to,
            Fit::Cover => cover(size, to),
            Fit::Pad => fit_inside(size, to),
        };
        let cut =
            (self != Fit::Short && scaled != to).then(|| PictureChange::Cut { from: middle(scaled, to), size: to });
        [Some(PictureChange::Resize(scaled, filter)), cut]
    }
}
