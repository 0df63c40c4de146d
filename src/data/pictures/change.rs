//! Changes of the size of a picture, one after another.

use super::{Filter, Resizer};

/// A change of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureChange {
    /// Takes the part that starts at a row and a column; what is not on the picture is 0.
    Cut {
        /// The first row and the first column, which may be negative.
        from: [isize; 2],
        /// Height and width of the part.
        size: [usize; 2],
    },
    /// Resizes it to a height and width.
    Resize([usize; 2], Filter),
}

/// The changes that one setting makes, in order.
pub type Changes = [Option<PictureChange>; 2];

/// Memory for pictures between changes, and for resizing.
#[derive(Debug, Default)]
pub struct PictureMemory {
    pictures: [Vec<u8>; 2],
    resizer: Resizer,
}

/// A picture while it is changed.
#[derive(Debug)]
pub(in crate::data) struct Changing<'m> {
    /// Its height and width.
    pub size: [usize; 2],
    channels: usize,
    /// The picture, before its first change.
    stored: Option<&'m [u8]>,
    current: &'m mut Vec<u8>,
    next: &'m mut Vec<u8>,
    resizer: &'m mut Resizer,
}

impl<'m> Changing<'m> {
    /// Begins with a picture (H, W, C) of a height and width.
    pub fn new(x: &'m [u8], size: [usize; 2], channels: usize, memory: &'m mut PictureMemory) -> Self {
        let PictureMemory { pictures: [current, next], resizer } = memory;
        Changing { size, channels, stored: Some(x), current, next, resizer }
    }

    /// Makes some changes.
    pub fn make(&mut self, changes: Changes) {
        match changes {
            // A part of the picture is resized where it lies.
            [Some(PictureChange::Cut { from: [top, left], size: [h, w] }), Some(PictureChange::Resize(to, filter))]
                if top >= 0 && left >= 0 && top as usize + h <= self.size[0] && left as usize + w <= self.size[1] =>
            {
                self.resize([top as usize, left as usize, h, w], to, filter);
            }
            _ => changes.into_iter().flatten().for_each(|change| self.one(change)),
        }
    }

    fn one(&mut self, change: PictureChange) {
        match change {
            PictureChange::Resize(to, filter) => self.resize([0, 0, self.size[0], self.size[1]], to, filter),
            PictureChange::Cut { from, size } => {
                let ([h, w], c) = (self.size, self.channels);
                let x = self.stored.unwrap_or(self.current);
                cut(x, [h, w, c], from, size, self.next);
                self.advance(size);
            }
        }
    }

    fn resize(&mut self, part: [usize; 4], to: [usize; 2], filter: Filter) {
        self.next.resize(to[0] * to[1] * self.channels, 0);
        let x = self.stored.unwrap_or(self.current);
        self.resizer.resize(x, self.size, part, self.channels, filter, self.next, to);
        self.advance(to);
    }

    /// Exchanges left and right.
    pub fn mirror(&mut self) {
        let (x, c) = (self.stored.unwrap_or(self.current), self.channels);
        self.next.clear();
        for row in x.chunks_exact(self.size[1] * c) {
            row.chunks_exact(c).rev().for_each(|pixel| self.next.extend_from_slice(pixel));
        }
        self.advance(self.size);
    }

    fn advance(&mut self, size: [usize; 2]) {
        std::mem::swap(&mut self.current, &mut self.next);
        (self.stored, self.size) = (None, size);
    }

    /// Returns the pixels.
    pub fn pixels(self) -> &'m [u8] {
        self.stored.unwrap_or(self.current)
    }
}

/// Writes the part of a picture (H, W, C) that starts at a row and a column to `y`.
fn cut(x: &[u8], [h, w, c]: [usize; 3], [top, left]: [isize; 2], [rows, columns]: [usize; 2], y: &mut Vec<u8>) {
    y.clear();
    y.resize(rows * columns * c, 0);
    // The columns of the part that lie on the picture.
    let (first, end) = (left.min(0).unsigned_abs(), (w as isize - left).clamp(0, columns as isize) as usize);
    for (i, y) in y.chunks_exact_mut(columns * c).enumerate() {
        let row = i as isize + top;
        if (0..h as isize).contains(&row) && first < end {
            let from = (row as usize * w + (first as isize + left) as usize) * c;
            y[first * c..end * c].copy_from_slice(&x[from..][..(end - first) * c]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_black_beyond_the_picture_and_mirrored_as_a_whole() {
        let x: Vec<u8> = (1..=24).collect();
        let mut memory = PictureMemory::default();
        let mut made = |from, size, mirrored| {
            let mut changing = Changing::new(&x, [3, 4], 2, &mut memory);
            changing.make([Some(PictureChange::Cut { from, size }), None]);
            if mirrored {
                changing.mirror();
            }
            assert_eq!(changing.size, size);
            changing.pixels().to_vec()
        };
        assert_eq!(made([1, 1], [2, 2], false), [11, 12, 13, 14, 19, 20, 21, 22]);
        assert_eq!(made([1, 1], [2, 2], true), [13, 14, 11, 12, 21, 22, 19, 20]);
        assert_eq!(made([-1, -1], [2, 2], false), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(made([2, 3], [2, 2], false), [23, 24, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_picture_without_changes_is_not_copied() {
        let (x, mut memory) = (vec![7; 6], PictureMemory::default());
        let changing = Changing::new(&x, [1, 2], 3, &mut memory);
        assert!(std::ptr::eq(changing.pixels(), &x[..]));
    }
}
