//! Decodes files of every kind.

use super::kind::{Kind, kind};
use super::picture::Bitmap;
use super::{jpeg, png};

/// Decodes a JPEG or PNG file, whatever its name is, into a picture of `channels` channels, 1 or 3. Its memory is reused.
///
/// Grey pixels have the level in every channel; colours become grey by L = 0.299 R + 0.587 G + 0.114 B. Alpha is dropped, and
/// 16-bit samples keep their high byte. A photograph is turned upright, as its EXIF orientation demands.
///
/// # Errors
/// The reason, to be read behind the name of the file: `is a truncated JPEG file (..); replace it`. The picture is then
/// undefined. A file that is not whole is always refused.
///
/// # Panics
/// If `channels` is neither 1 nor 3.
pub fn decode(bytes: &[u8], channels: usize, to: &mut Bitmap) -> Result<(), String> {
    assert!(channels == 1 || channels == 3, "a picture of {channels} channels");
    match kind(bytes)? {
        Kind::Jpeg => jpeg::decode(bytes, channels, to),
        Kind::Png => png::decode(bytes, channels, to),
    }
}

/// Returns the height and the width of the picture that [`decode`] makes of a file, from its headers alone.
///
/// # Errors
/// The reason, as in [`decode`]; what follows the headers is not checked.
pub fn header(bytes: &[u8]) -> Result<[usize; 2], String> {
    match kind(bytes)? {
        Kind::Jpeg => jpeg::size(bytes),
        Kind::Png => png::size(bytes),
    }
}
