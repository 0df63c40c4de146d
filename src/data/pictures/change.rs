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

/// A step of changing a picture.
#[derive(Debug, Clone, Copy)]
enum Step {
    Cut {
        from: [isize; 2],
        size: [usize; 2],
    },
    /// Resizes a part: top, left, height and width.
    Resize {
        part: [usize; 4],
        to: [usize; 2],
        filter: Filter,
    },
    /// Exchanges left and right.
    Mirror([usize; 2]),
}

/// A picture while it is changed. Its last change waits until it is known where the result is needed.
#[derive(Debug)]
pub(in crate::data) struct Changing<'m> {
    /// Its height and width, after all changes.
    pub size: [usize; 2],
    channels: usize,
    /// The picture, before its first change.
    stored: Option<&'m [u8]>,
    current: &'m mut Vec<u8>,
    next: &'m mut Vec<u8>,
    resizer: &'m mut Resizer,
    /// The height and width of what is stored or current.
    made: [usize; 2],
    last: Option<Step>,
}

impl<'m> Changing<'m> {
    /// Begins with a picture (H, W, C) of a height and width.
    pub fn new(x: &'m [u8], size: [usize; 2], channels: usize, memory: &'m mut PictureMemory) -> Self {
        let PictureMemory { pictures: [current, next], resizer } = memory;
        Changing { size, channels, stored: Some(x), current, next, resizer, made: size, last: None }
    }

    /// Makes some changes.
    pub fn make(&mut self, changes: Changes) {
        match changes {
            // A part of the picture is resized where it lies.
            [Some(PictureChange::Cut { from: [top, left], size: [h, w] }), Some(PictureChange::Resize(to, filter))]
                if top >= 0 && left >= 0 && top as usize + h <= self.size[0] && left as usize + w <= self.size[1] =>
            {
                self.then(Step::Resize { part: [top as usize, left as usize, h, w], to, filter });
            }
            _ => changes.into_iter().flatten().for_each(|change| self.one(change)),
        }
    }

    fn one(&mut self, change: PictureChange) {
        let [h, w] = self.size;
        self.then(match change {
            PictureChange::Resize(to, filter) => Step::Resize { part: [0, 0, h, w], to, filter },
            PictureChange::Cut { from, size } => Step::Cut { from, size },
        });
    }

    /// Returns the number of bytes after all changes.
    pub fn bytes(&self) -> usize {
        self.size[0] * self.size[1] * self.channels
    }

    /// Exchanges left and right.
    pub fn mirror(&mut self) {
        self.then(Step::Mirror(self.size));
    }

    /// Takes the steps before this one.
    fn then(&mut self, step: Step) {
        self.take_last();
        self.last = Some(step);
        self.size = match step {
            Step::Cut { size, .. } | Step::Resize { to: size, .. } | Step::Mirror(size) => size,
        };
    }

    fn take_last(&mut self) {
        let Some(step) = self.last.take() else { return };
        let ([h, w], x) = (self.size, self.stored.unwrap_or(self.current));
        self.next.resize(h * w * self.channels, 0);
        take(step, (x, self.made), self.channels, self.resizer, self.next);
        std::mem::swap(&mut self.current, &mut self.next);
        (self.stored, self.made) = (None, self.size);
    }

    /// Returns the pixels.
    pub fn pixels(mut self) -> &'m [u8] {
        self.take_last();
        self.stored.unwrap_or(self.current)
    }

    /// Writes the pixels to memory of their size.
    pub fn write(mut self, to: &mut [u8]) {
        let x = self.stored.unwrap_or(self.current);
        match self.last.take() {
            Some(step) => take(step, (x, self.made), self.channels, self.resizer, to),
            None => to.copy_from_slice(x),
        }
    }
}

/// Takes a step from a picture of a height and width to one of the size that results.
fn take(step: Step, (x, size): (&[u8], [usize; 2]), channels: usize, resizer: &mut Resizer, to: &mut [u8]) {
    match step {
        Step::Cut { from, size: part } => cut(x, [size[0], size[1], channels], from, part, to),
        Step::Resize { part, to: to_size, filter } => resizer.resize(x, size, part, channels, filter, to, to_size),
        Step::Mirror([_, w]) => {
            for (x, to) in x.chunks_exact(w * channels).zip(to.chunks_exact_mut(w * channels)) {
                let pixels = x.chunks_exact(channels).rev();
                pixels.zip(to.chunks_exact_mut(channels)).for_each(|(pixel, to)| to.copy_from_slice(pixel));
            }
        }
    }
}

/// Writes the part of a picture (H, W, C) that starts at a row and a column to `y`.
fn cut(x: &[u8], [h, w, c]: [usize; 3], [top, left]: [isize; 2], [_, columns]: [usize; 2], y: &mut [u8]) {
    // The columns of the part that lie on the picture.
    let (first, end) = (left.min(0).unsigned_abs(), (w as isize - left).clamp(0, columns as isize) as usize);
    for (i, y) in y.chunks_exact_mut(columns * c).enumerate() {
        let row = i as isize + top;
        if !(0..h as isize).contains(&row) || first >= end {
            y.fill(0);
            continue;
        }
        let from = (row as usize * w + (first as isize + left) as usize) * c;
        y[..first * c].fill(0);
        y[first * c..end * c].copy_from_slice(&x[from..][..(end - first) * c]);
        y[end * c..].fill(0);
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
            // Memory has old values.
            let mut written = vec![99; size[0] * size[1] * 2];
            changing.write(&mut written);
            written
        };
        assert_eq!(made([1, 1], [2, 2], false), [11, 12, 13, 14, 19, 20, 21, 22]);
        assert_eq!(made([1, 1], [2, 2], true), [13, 14, 11, 12, 21, 22, 19, 20]);
        assert_eq!(made([-1, -1], [2, 2], false), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(made([2, 3], [2, 2], false), [23, 24, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_last_change_is_the_same_wherever_it_is_written() {
        let x: Vec<u8> = (0..=239).collect();
        let changes = [
            PictureChange::Resize([7, 9], Filter::Bilinear),
            PictureChange::Cut { from: [-1, 2], size: [6, 5] },
            PictureChange::Resize([4, 8], Filter::Bicubic),
        ];
        let (mut memory, mut other) = (PictureMemory::default(), PictureMemory::default());
        for count in 0..=changes.len() {
            for mirrored in [false, true] {
                let [made, written] = [&mut memory, &mut other].map(|memory| {
                    let mut changing = Changing::new(&x, [8, 10], 3, memory);
                    changes[..count].iter().for_each(|change| changing.make([Some(*change), None]));
                    if mirrored {
                        changing.mirror();
                    }
                    changing
                });
                let mut to = vec![99; written.size[0] * written.size[1] * 3];
                written.write(&mut to);
                assert_eq!(made.pixels(), to, "{count} changes, {mirrored}");
            }
        }
    }

    #[test]
    fn a_picture_without_changes_is_not_copied() {
        let (x, mut memory) = (vec![7; 6], PictureMemory::default());
        let changing = Changing::new(&x, [1, 2], 3, &mut memory);
        assert!(std::ptr::eq(changing.pixels(), &x[..]));
    }
}
