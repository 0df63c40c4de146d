//! One length or two, as settings.

use crate::error::Fault;
use crate::settings::values;
use serde::Deserialize;

/// The largest height and width that pictures are brought to.
const MOST: usize = 16_384;

/// A height and width: one number for both, or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a length, or [height, width]")]
pub enum Lengths {
    /// Height and width.
    One(usize),
    /// Height, width.
    Two([usize; 2]),
}

values! {
    Lengths, "integer or list of 2 integers", lengths => match lengths {
        Lengths::One(length) => length.to_string(),
        Lengths::Two([h, w]) => format!("[{h}, {w}]"),
    };
}

impl Lengths {
    /// Returns height and width.
    pub fn both(self) -> [usize; 2] {
        match self {
            Lengths::One(length) => [length; 2],
            Lengths::Two(both) => both,
        }
    }

    /// Checks that both are in range; `key` names the setting.
    pub(in crate::data) fn check(self, key: &'static str) -> Result<(), Fault> {
        match self.both().into_iter().find(|length| !(1..=MOST).contains(length)) {
            Some(length) => Err(Fault::at(key, format!("{key} = {length}, expected 1 to {MOST} pixels"))),
            None => Ok(()),
        }
    }
}

/// Returns the first row and column of a part in a corner of a picture, given whether that is at the bottom, and whether at the right.
pub(in crate::data) fn corner(size: [usize; 2], part: [usize; 2], far: [bool; 2]) -> [isize; 2] {
    [0, 1].map(|i| if far[i] { size[i] as isize - part[i] as isize } else { 0 })
}
