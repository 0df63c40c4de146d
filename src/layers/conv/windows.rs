//! Copies windows of x into the rows of a matrix, and adds such rows to the positions that they came from.

use super::local::LocalConv;
use crate::cpu::vectorized;
use crate::tensor::Real;
use std::ops::Range;

/// Number of elements copied at a time. Short rows are copied past their end; the next row overwrites the excess.
const CHUNK: usize = 16;

/// Number of elements that a tile needs beyond its windows.
pub(super) const SLACK: usize = CHUNK;

/// Some kernel rows of the windows of some output pixels, in the channels of one group.
#[derive(Debug, Clone)]
pub(super) struct Slice<'a> {
    pub part: &'a LocalConv,
    /// Output pixels, counted over all samples of the tensors with which the slice is used.
    pub pixels: Range<usize>,
    pub rows: Range<usize>,
    /// First channel.
    pub channel: usize,
}

impl Slice<'_> {
    /// Returns the number of elements in one window.
    pub fn width(&self) -> usize {
        self.rows.len() * self.part.row()
    }

    /// Copies the windows of x into the rows of `tile`, with zeros outside the image.
    pub fn gather<T: Real>(&self, x: &[T], tile: &mut [T]) {
        vectorized(
            #[inline(always)]
            || {
                self.each_row(
                    #[inline(always)]
                    |row| row.gather(self.part, x, tile),
                )
            },
        );
    }

    /// Adds the rows of `tile` to dx at the positions of their windows.
    pub fn scatter<T: Real>(&self, tile: &[T], dx: &mut [T]) {
        vectorized(
            #[inline(always)]
            || {
                self.each_row(
                    #[inline(always)]
                    |row| row.scatter(self.part, tile, dx),
                )
            },
        );
    }

    /// Visits the kernel rows of all windows, in the order in which a tile stores them.
    #[inline(always)]
    fn each_row(&self, mut visit: impl FnMut(Row)) {
        let (part, s) = (self.part, self.part.window);
        let start = self.pixels.start;
        let (mut n, mut oh, mut ow) = (start / part.pixels(), start / part.ow % part.oh, start % part.ow);
        let mut tile = 0;
        for _ in self.pixels.clone() {
            let cols = s.cols(ow, part.w);
            let (before, inside) = (cols.first * part.depth, (cols.end - cols.start).div_ceil(s.dilation.w));
            for kh in self.rows.clone() {
                let ih = (oh * s.stride.h + kh * s.dilation.h).wrapping_sub(s.pad.h);
                let (image, inside) = match ih < part.h && inside > 0 {
                    true => (((n * part.h + ih) * part.w + cols.start) * part.c + self.channel, inside),
                    false => (0, 0),
                };
                visit(Row { tile, image, before, inside });
                tile += part.row();
            }
            ow += 1;
            if ow == part.ow {
                (oh, ow) = (oh + 1, 0);
                if oh == part.oh {
                    (n, oh) = (n + 1, 0);
                }
            }
        }
    }
}

/// One kernel row of one window: `part.row()` elements of a tile.
struct Row {
    /// First element in the tile.
    tile: usize,
    /// First element in the image.
    image: usize,
    /// Number of elements of the row before the image.
    before: usize,
    /// Number of positions of the row on the image.
    inside: usize,
}

impl Row {
    #[inline(always)]
    fn gather<T: Real>(&self, part: &LocalConv, x: &[T], tile: &mut [T]) {
        let len = self.inside * part.depth;
        if len < part.row() {
            tile[self.tile..self.tile + part.row()].fill(T::ZERO);
        }
        let (to, step) = (self.tile + self.before, part.window.dilation.w * part.c);
        if part.depth == step {
            // A copy past the end would overwrite the zeros that follow.
            if self.before + len == part.row() {
                copy(x, self.image, tile, to, len);
            } else {
                tile[to..to + len].copy_from_slice(&x[self.image..self.image + len]);
            }
            return;
        }
        for i in 0..self.inside {
            let (to, from) = (to + i * part.depth, self.image + i * step);
            tile[to..to + part.depth].copy_from_slice(&x[from..from + part.depth]);
        }
    }

    #[inline(always)]
    fn scatter<T: Real>(&self, part: &LocalConv, tile: &[T], dx: &mut [T]) {
        let (from, step) = (self.tile + self.before, part.window.dilation.w * part.c);
        if part.depth == step {
            let len = self.inside * part.depth;
            return add(&mut dx[self.image..self.image + len], &tile[from..from + len]);
        }
        for i in 0..self.inside {
            let (to, from) = (self.image + i * step, from + i * part.depth);
            add(&mut dx[to..to + part.depth], &tile[from..from + part.depth]);
        }
    }
}

/// Copies `len` elements, in whole chunks if they are few and x is long enough.
#[inline(always)]
fn copy<T: Real>(x: &[T], from: usize, tile: &mut [T], to: usize, len: usize) {
    let whole = len.next_multiple_of(CHUNK);
    if len > 8 * CHUNK || from + whole > x.len() {
        return tile[to..to + len].copy_from_slice(&x[from..from + len]);
    }
    for at in (0..whole).step_by(CHUNK) {
        let chunk: &[T; CHUNK] = x[from + at..].first_chunk().expect("the chunk is within x");
        tile[to + at..to + at + CHUNK].copy_from_slice(chunk);
    }
}

#[inline(always)]
fn add<T: Real>(to: &mut [T], from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
}
