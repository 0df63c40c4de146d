//! From the channels of a file to those of a picture, in place.

/// Returns the grey level of a colour, Pillow's `L` of ITU-R 601: (19595 R + 38470 G + 7471 B + 2^15) / 2^16.
fn grey([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}

/// Turns the first `count` pixels of `from` channels into pixels of `to` channels, 1 or 3, in the same memory, which has room
/// for both. Of 2 or 4 channels, the last is alpha and is dropped; grey is replicated.
pub(super) fn convert(pixels: &mut [u8], count: usize, from: usize, to: usize) {
    match (from, to) {
        (1, 1) | (3, 3) => {}
        (2, 1) => (0..count).for_each(|i| pixels[i] = pixels[2 * i]),
        // Backwards, because the pixels grow.
        (1 | 2, 3) => (0..count).rev().for_each(|i| {
            let value = pixels[from * i];
            pixels[3 * i..3 * i + 3].fill(value);
        }),
        (4, 3) => (0..count).for_each(|i| pixels.copy_within(4 * i..4 * i + 3, 3 * i)),
        (3 | 4, 1) => (0..count).for_each(|i| {
            let at = from * i;
            pixels[i] = grey([pixels[at], pixels[at + 1], pixels[at + 2]]);
        }),
        _ => unreachable!("a picture of {to} channels from {from}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(from: &[u8], [channels, to]: [usize; 2]) -> Vec<u8> {
        let count = from.len() / channels;
        let mut pixels = from.to_vec();
        pixels.resize(count * channels.max(to), 0);
        convert(&mut pixels, count, channels, to);
        pixels.truncate(count * to);
        pixels
    }

    #[test]
    fn grey_is_that_of_pillow() {
        // Image.new("RGB", (1, 1), x).convert("L").getpixel((0, 0))
        for (color, expected) in [
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([255, 255, 255], 255),
            ([12, 200, 99], 132),
            ([1, 1, 0], 1),
            ([200, 13, 77], 76),
        ] {
            assert_eq!(converted(&color, [3, 1]), [expected]);
        }
    }

    #[test]
    fn channels_are_replicated_and_alpha_is_dropped() {
        assert_eq!(converted(&[1, 2, 3], [1, 3]), [1, 1, 1, 2, 2, 2, 3, 3, 3]);
        assert_eq!(converted(&[1, 9, 2, 8, 3, 7], [2, 3]), [1, 1, 1, 2, 2, 2, 3, 3, 3]);
        assert_eq!(converted(&[1, 9, 2, 8, 3, 7], [2, 1]), [1, 2, 3]);
        assert_eq!(converted(&[1, 2, 3, 9, 4, 5, 6, 8], [4, 3]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(converted(&[255, 0, 0, 9, 0, 255, 0, 8], [4, 1]), [76, 150]);
        assert_eq!(converted(&[5, 6], [1, 1]), [5, 6]);
    }
}
