//! Decodes JPEG files: baseline and progressive, grey, colour and CMYK, turned upright. ICC profiles are ignored.

use super::channels;
use super::markers::{Headers, damaged};
use super::orientation::Orientation;
use super::picture::{Bitmap, check_size};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

/// The longest side, as in libjpeg.
const LONGEST: usize = 65_500;

/// The most pixels in a byte: a block of 64 coefficients takes at least a bit, and stands for at most 16 * 64 / 9 pixels, with
/// components of 4x1, 1x4 and 1x1 blocks.
const DENSEST: f64 = 1024.0;

/// Returns the height and the width of the upright picture.
///
/// # Errors
/// The reason, if the headers are not valid.
pub(super) fn size(bytes: &[u8]) -> Result<[usize; 2], String> {
    let headers = Headers::read(bytes)?;
    check(&headers, bytes)?;
    Ok(orientation(&headers).size(headers.size))
}

fn check(headers: &Headers, bytes: &[u8]) -> Result<(), String> {
    let [height, width] = headers.size;
    if height.max(width) > LONGEST {
        return Err(format!(
            "is {width} pixels wide and {height} high, expected at most {LONGEST} of each; make it smaller"
        ));
    }
    check_size(headers.size, bytes.len(), DENSEST)
}

fn orientation(headers: &Headers) -> Orientation {
    headers.exif.map_or(Orientation::default(), Orientation::of)
}

/// Decodes a file into a picture of 1 or 3 channels.
///
/// # Errors
/// The reason, if the file is truncated, damaged, too large or of a kind that is not decoded. The picture is then undefined.
pub(super) fn decode(bytes: &[u8], channels: usize, to: &mut Bitmap) -> Result<(), String> {
    let headers = Headers::read(bytes)?;
    check(&headers, bytes)?;
    // The decoder accepts a file that ends within the last blocks.
    headers.check_scans(bytes)?;
    let orientation = orientation(&headers);
    let [height, width] = headers.size;
    let count = height * width;
    let (space, decoded) =
        if headers.components == 1 && channels == 1 { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };

    // A transposed picture is decoded behind the memory of the upright one.
    let before = if orientation.is_transposed() { count * channels } else { 0 };
    // All of it is zero, so that damaged files have the same pixels after any other.
    to.pixels.clear();
    to.pixels.resize(before + count * decoded, 0);
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(width)
        .set_max_height(height)
        .jpeg_set_out_colorspace(space);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| reason(&error))?;
    if decoder.dimensions() != Some((width, height)) {
        return Err(damaged("its size is ambiguous"));
    }
    decoder.decode_into(&mut to.pixels[before..]).map_err(|error| reason(&error))?;

    channels::convert(&mut to.pixels[before..], count, decoded, channels);
    to.pixels.truncate(before + count * channels);
    match channels {
        1 => orientation.apply::<1>(headers.size, &mut to.pixels),
        _ => orientation.apply::<3>(headers.size, &mut to.pixels),
    }
    to.pixels.truncate(count * channels);
    (to.size, to.channels) = (orientation.size(headers.size), channels);
    Ok(())
}

/// Returns the sentence about an error of the decoder.
fn reason(error: &DecodeErrors) -> String {
    let text = match error {
        DecodeErrors::Format(text) => text.clone(),
        error => error.to_string(),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    damaged(words.join(" ").trim_matches(['"', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photo(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/photos/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn decoded(bytes: &[u8], channels: usize) -> Result<Bitmap, String> {
        let mut picture = Bitmap::default();
        decode(bytes, channels, &mut picture).map(|()| picture)
    }

    /// Returns where the frame's marker is.
    fn frame(bytes: &[u8]) -> usize {
        bytes.windows(2).position(|pair| pair[0] == 0xff && (0xc0..=0xc2).contains(&pair[1])).unwrap()
    }

    #[test]
    fn a_single_component_is_not_subsampled() {
        let mut bytes = photo("odd/gray_baseline.jpg");
        let plain = decoded(&bytes, 1).unwrap();
        let sampling = frame(&bytes) + 11;
        assert_eq!(bytes[sampling], 0x11);
        bytes[sampling] = 0x22;
        assert_eq!(decoded(&bytes, 1), Ok(plain));
    }

    #[test]
    fn sizes_are_checked_before_anything_is_decoded() {
        let bytes = photo("odd/UPPER.JPG");
        let claims = |height: u16, width: u16| {
            let mut bytes = bytes.clone();
            let at = frame(&bytes) + 5;
            bytes[at..at + 2].copy_from_slice(&height.to_be_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&width.to_be_bytes());
            let error = decoded(&bytes, 3).unwrap_err();
            assert_eq!(size(&bytes), Err(error.clone()));
            error
        };
        assert_eq!(
            claims(65_501, 10),
            "is 10 pixels wide and 65501 high, expected at most 65500 of each; make it smaller"
        );
        assert!(claims(65_000, 65_000).contains("expected at most 100000000 pixels in all"));
        assert!(claims(9_000, 9_000).starts_with("is a truncated file (9000 pixels wide and 9000 high according to"));
    }

    #[test]
    fn errors_of_the_decoder_are_one_phrase() {
        let text = |error| reason(&error);
        let expected = "is a damaged JPEG file (Bad Huffman Code 0x7, corrupt JPEG); replace it";
        assert_eq!(text(DecodeErrors::Format("Bad  Huffman\nCode 0x7, corrupt JPEG.\n".into())), expected);
        let expected = "is a damaged JPEG file (Premature end of buffer); replace it";
        assert_eq!(text(DecodeErrors::FormatStatic("Premature end of buffer")), expected);
    }
}
