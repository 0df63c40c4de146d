//! Pictures of any size: decoding, resizing, and the geometry of crops. Does not depend on where their files lie.
//!
//! To add a kind of file: write `x.rs` with a `size` and a `decode`, and add it to the list in `kind.rs` and to `decode.rs`.

mod change;
mod channels;
mod decode;
mod fit;
mod geometry;
mod jpeg;
mod kind;
mod lengths;
mod markers;
mod orientation;
mod picture;
mod png;
mod resize;

pub(in crate::data) use change::Changing;
pub use change::{Changes, PictureChange, PictureMemory};
pub use decode::{decode, header};
pub use fit::{Fit, Sizing};
pub(in crate::data) use geometry::{NUMBERS_OF_A_PART, cover, fit_inside, middle, random_part, short_side};
pub use lengths::Lengths;
pub(in crate::data) use lengths::corner;
pub use picture::{Bitmap, MOST_PIXELS};
pub use resize::Filter;
pub(in crate::data) use resize::Resizer;
