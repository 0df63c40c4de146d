//! The orientation of a photograph: how the stored pixels are to be turned.

use exif::{In, Reader, Tag};

/// What turns the stored picture upright: first transposed, then mirrored.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Orientation {
    transposed: bool,
    /// The first row becomes the last.
    upside_down: bool,
    /// The first column becomes the last.
    left_right: bool,
}

impl Orientation {
    /// Reads the tag Orientation (0x0112) of EXIF data, which begin with their TIFF header. What is not readable, and
    /// a value outside 1 to 8, leaves the picture as it is stored.
    pub fn of(exif: &[u8]) -> Self {
        let read = Reader::new().continue_on_error(true).read_raw(exif.to_vec());
        let read = read.or_else(|error| error.distill_partial_result(|_| {}));
        let tag = read.ok().and_then(|exif| exif.get_field(Tag::Orientation, In::PRIMARY)?.value.get_uint(0));
        tag.map_or(Self::default(), Self::numbered)
    }

    /// Returns the orientation of a number of EXIF 2.32, table 6: 1 is upright, 2 to 4 are mirrored or upside down, and 5 to
    /// 8 are the same four, transposed.
    fn numbered(number: u32) -> Self {
        let (upside_down, left_right) = match number {
            2 | 6 => (false, true),
            3 | 7 => (true, true),
            4 | 8 => (true, false),
            _ => (false, false),
        };
        Orientation { transposed: (5..=8).contains(&number), upside_down, left_right }
    }

    /// Returns whether rows become columns.
    pub fn is_transposed(self) -> bool {
        self.transposed
    }

    /// Returns the size of the upright picture.
    pub fn size(self, [height, width]: [usize; 2]) -> [usize; 2] {
        if self.transposed { [width, height] } else { [height, width] }
    }

    /// Turns a stored picture of C channels upright. It fills `pixels`, or their second half if it [`Self::is_transposed`]; the
    /// result is at the beginning of `pixels`.
    pub fn apply<const C: usize>(self, [height, width]: [usize; 2], pixels: &mut [u8]) {
        let (pixels, _) = pixels.as_chunks_mut::<C>();
        let [rows, columns] = if self.transposed { [width, height] } else { [height, width] };
        if self.transposed {
            let (to, from) = pixels.split_at_mut(height * width);
            transpose([height, width], from, to);
            mirror(self, rows * columns, columns, to);
        } else {
            mirror(self, rows * columns, columns, pixels);
        }
    }
}

/// Mirrors rows of `width` pixels in place.
fn mirror<const C: usize>(how: Orientation, count: usize, width: usize, pixels: &mut [[u8; C]]) {
    let pixels = &mut pixels[..count];
    if how.upside_down {
        // The pixels in opposite order are upside down and mirrored.
        pixels.reverse();
    }
    if how.left_right != how.upside_down {
        pixels.chunks_exact_mut(width).for_each(<[_]>::reverse);
    }
}

/// The side of the squares in which a picture is transposed, so that both lie in the cache.
const SQUARE: usize = 16;

fn transpose<const C: usize>([height, width]: [usize; 2], from: &[[u8; C]], to: &mut [[u8; C]]) {
    for top in (0..height).step_by(SQUARE) {
        for left in (0..width).step_by(SQUARE) {
            for column in left..width.min(left + SQUARE) {
                for row in top..height.min(top + SQUARE) {
                    to[column * height + row] = from[row * width + column];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns the picture 1 2 3 / 4 5 6.
    fn turned(number: u32) -> ([usize; 2], Vec<u8>) {
        let how = Orientation::numbered(number);
        let mut pixels = if how.is_transposed() { vec![0; 6] } else { Vec::new() };
        pixels.extend([1, 2, 3, 4, 5, 6]);
        how.apply::<1>([2, 3], &mut pixels);
        pixels.truncate(6);
        (how.size([2, 3]), pixels)
    }

    #[test]
    fn every_orientation_is_that_of_the_standard() {
        let upright = ([2, 3], vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(turned(1), upright);
        assert_eq!(turned(2), ([2, 3], vec![3, 2, 1, 6, 5, 4]));
        assert_eq!(turned(3), ([2, 3], vec![6, 5, 4, 3, 2, 1]));
        assert_eq!(turned(4), ([2, 3], vec![4, 5, 6, 1, 2, 3]));
        assert_eq!(turned(5), ([3, 2], vec![1, 4, 2, 5, 3, 6]));
        // The stored first row is the right column, and the stored first column the top row.
        assert_eq!(turned(6), ([3, 2], vec![4, 1, 5, 2, 6, 3]));
        assert_eq!(turned(7), ([3, 2], vec![6, 3, 5, 2, 4, 1]));
        assert_eq!(turned(8), ([3, 2], vec![3, 6, 2, 5, 1, 4]));
        assert_eq!(turned(0), upright);
        assert_eq!(turned(9), upright);
    }

    #[test]
    fn large_pictures_are_transposed_square_by_square() {
        let (height, width) = (37, 50);
        let from: Vec<[u8; 3]> = (0..height * width).map(|i| [(i % 251) as u8, (i / 251) as u8, 7]).collect();
        let mut to = vec![[0; 3]; from.len()];
        transpose([height, width], &from, &mut to);
        for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
            assert_eq!(to[column * height + row], from[row * width + column]);
        }
    }

    #[test]
    fn unreadable_exif_is_ignored() {
        for exif in [&b""[..], b"II", b"II*\0\x08\0\0\0", b"MM\0*\xff\xff\xff\xff", &[0; 40]] {
            assert_eq!(Orientation::of(exif), Orientation::default());
        }
        // Big-endian, one entry: tag 0x0112, type SHORT, 1 value.
        let tag =
            |value: u8| [&b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"[..], &[value, 0, 0, 0, 0, 0, 0]].concat();
        for value in 0..=9 {
            assert_eq!(Orientation::of(&tag(value)), Orientation::numbered(u32::from(value)));
        }
        assert!(Orientation::of(&tag(6)).is_transposed());
        // An entry behind it is cut off.
        let mut cut = tag(6);
        cut[9] = 2;
        assert!(Orientation::of(&cut[..cut.len() - 4]).is_transposed());
    }
}
