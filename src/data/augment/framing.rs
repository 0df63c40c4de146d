//! How pictures of any size are cut and resized to one shape, before all other augmentations.

use super::draws::Draws;
use crate::data::pictures::Changes;
use crate::error::Fault;

/// What is known of the heights and widths of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All pictures have this height and width.
    Exact([usize; 2]),
    /// Pictures differ; each has at least this height and width.
    AtLeast([usize; 2]),
}

/// What is taken of a picture where there is a choice.
#[derive(Debug, Clone, Copy)]
pub enum View<'a> {
    /// What the random numbers of a sample say: training.
    Random(&'a Draws),
    /// The middle: evaluations.
    Middle,
    /// A corner, given by whether it is at the bottom, and whether at the right.
    Corner([bool; 2]),
}

/// An augmentation that cuts or resizes pictures of any size.
pub trait Framing {
    /// Returns what is known of the pictures that it makes of some pictures.
    ///
    /// # Errors
    /// If some of these pictures do not suit it.
    fn outcome(&self, of: Extent) -> Result<Extent, Fault>;

    /// Returns what it does to a picture of a height and width.
    fn changes(&self, size: [usize; 2], view: View) -> Changes;

    /// Returns true if it takes a part of each picture, which may be a corner.
    fn cuts(&self) -> bool {
        false
    }

    /// Returns true if it is one of those that only cut and resize pictures, for which there is no kernel.
    fn is_only(&self) -> bool {
        false
    }
}
