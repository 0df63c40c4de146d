//! Decodes PNG files of every colour type and depth, interlaced or not, to 8 bits; alpha is dropped.

use super::channels;
use super::picture::{Bitmap, check_size};
use png::{DecodeOptions, Decoder, DecodingError, Transformations};
use std::io::{Cursor, ErrorKind};

/// The most bytes that a compressed byte stands for: 258 in 2 bits.
const DEFLATE: f64 = 1032.0;

/// Returns the height and the width.
///
/// # Errors
/// The reason, if the header is not valid.
pub(super) fn size(bytes: &[u8]) -> Result<[usize; 2], String> {
    // The signature, then the chunk IHDR: its length, name, width, height, depth and colour type.
    let header = bytes.get(12..26).ok_or_else(|| truncated(bytes))?;
    let Some([w0, w1, w2, w3, h0, h1, h2, h3, depth, color]) = header.strip_prefix(b"IHDR") else {
        return Err("is a damaged PNG file (it does not begin with its size); replace it".into());
    };
    let side = |side: [u8; 4]| usize::try_from(u32::from_be_bytes(side)).unwrap_or(usize::MAX);
    let size = [side([*h0, *h1, *h2, *h3]), side([*w0, *w1, *w2, *w3])];
    let samples = match color {
        2 => 3.0,
        4 => 2.0,
        6 => 4.0,
        _ => 1.0,
    };
    let bits = f64::from((*depth).max(1)) * samples;
    check_size(size, bytes.len(), DEFLATE * 8.0 / bits)?;
    Ok(size)
}

fn truncated(bytes: &[u8]) -> String {
    format!("is a truncated PNG file ({} bytes, without the end of the image); replace it", bytes.len())
}

/// Decodes a file into a picture of 1 or 3 channels: of an animation, its first frame. 16-bit samples keep their high byte.
///
/// # Errors
/// The reason, if the file is truncated, damaged or too large. The picture is then undefined.
pub(super) fn decode(bytes: &[u8], channels: usize, to: &mut Bitmap) -> Result<(), String> {
    let [height, width] = size(bytes)?;
    let count = height * width;
    let reason = |error: DecodingError| reason(bytes, &error);
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    // A checksum that is wrong anywhere refuses the file, as in Pillow: what else is damaged is unknown.
    options.set_skip_ancillary_crc_failures(false);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(reason)?;
    let decoded = reader.output_color_type().0.samples();
    // All of it is zero, so that damaged files have the same pixels after any other.
    to.pixels.clear();
    to.pixels.resize(count * decoded.max(channels), 0);
    let frame = reader.next_frame(&mut to.pixels).map_err(reason)?;
    if [frame.height as usize, frame.width as usize] != [height, width] {
        return Err("is a damaged PNG file (its first frame is a part of the image); replace it".into());
    }
    reader.finish().map_err(reason)?;

    channels::convert(&mut to.pixels, count, decoded, channels);
    to.pixels.truncate(count * channels);
    (to.size, to.channels) = ([height, width], channels);
    Ok(())
}

/// Returns the sentence about an error of the decoder.
fn reason(bytes: &[u8], error: &DecodingError) -> String {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => truncated(bytes),
        error => {
            let mut text = error.to_string();
            if text.starts_with("CRC error") {
                text = "a checksum is wrong".into();
            }
            let words: Vec<&str> = text.split_whitespace().collect();
            format!("is a damaged PNG file ({}); replace it", words.join(" ").trim_end_matches('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use png::{BitDepth, ColorType, Encoder};

    fn decoded(bytes: &[u8], channels: usize) -> Result<Bitmap, String> {
        let mut picture = Bitmap::default();
        decode(bytes, channels, &mut picture).map(|()| picture)
    }

    /// A picture 2 pixels high and 3 wide of one or several frames.
    fn file(color: ColorType, depth: BitDepth, frames: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 3, 2);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(&[1, 2, 3, 255, 0, 0][..]);
            encoder.set_trns(&[7, 0][..]);
        }
        if frames.len() > 1 {
            encoder.set_animated(frames.len() as u32, 0).unwrap();
        }
        let mut writer = encoder.write_header().unwrap();
        frames.iter().for_each(|frame| writer.write_image_data(frame).unwrap());
        writer.finish().unwrap();
        bytes
    }

    #[test]
    fn every_depth_becomes_8_bits() {
        let grey = |depth, bytes: &[u8]| decoded(&file(ColorType::Grayscale, depth, &[bytes]), 1).unwrap().pixels;
        assert_eq!(grey(BitDepth::One, &[0b1010_0000, 0b0110_0000]), [255, 0, 255, 0, 255, 255]);
        assert_eq!(grey(BitDepth::Two, &[0b0001_1000, 0b1111_0000]), [0, 85, 170, 255, 255, 0]);
        assert_eq!(grey(BitDepth::Four, &[0x05, 0xf0, 0x10, 0xa0]), [0, 85, 255, 17, 0, 170]);
        assert_eq!(grey(BitDepth::Sixteen, &[0, 255, 1, 128, 255, 0, 2, 2, 3, 3, 4, 4]), [0, 1, 255, 2, 3, 4]);
    }

    #[test]
    fn palettes_are_expanded_and_their_alpha_is_dropped() {
        let bytes = file(ColorType::Indexed, BitDepth::Eight, &[&[0, 1, 0, 1, 1, 0]]);
        let [a, b] = [[1, 2, 3], [255, 0, 0]];
        assert_eq!(decoded(&bytes, 3).unwrap().pixels, [a, b, a, b, b, a].concat());
        assert_eq!(decoded(&bytes, 1).unwrap().pixels, [2, 76, 2, 76, 76, 2]);
    }

    #[test]
    fn the_first_frame_of_an_animation_is_decoded() {
        let bytes = file(ColorType::Grayscale, BitDepth::Eight, &[&[1, 2, 3, 4, 5, 6], &[9; 6]]);
        let expected = Bitmap { size: [2, 3], channels: 1, pixels: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(decoded(&bytes, 1), Ok(expected));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = file(ColorType::Rgba, BitDepth::Eight, &[&[77; 24]]);
        assert!(decoded(&bytes, 3).is_ok());
        for at in 8..bytes.len() {
            assert!(decoded(&bytes[..at], 3).unwrap_err().contains("truncated"), "{at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(decoded(&damaged, 3).is_err(), "{at}");
        }
        let mut wrong = bytes;
        let checksum = wrong.len() - 1;
        wrong[checksum] ^= 1;
        assert_eq!(decoded(&wrong, 3).unwrap_err(), "is a damaged PNG file (a checksum is wrong); replace it");
    }
}
