//! The fast path. The windows of x for a tile of output pixels are copied, some kernel rows at a time, into the rows
//! of a matrix that stays in the second-level cache ("im2col", Chellapilla et al. 2006,
//! <https://inria.hal.science/inria-00112631>); one thread then computes one product with it. Tiles, slices of kernel
//! rows and blocks of samples, and therefore the order of every sum, depend only on the shape.

use super::local::{Group, LocalConv};
use super::windows::{self, Slice};
use crate::cpu::{Matrix, Scalar, vectorized};
use crate::layers::dense::sum_rows;
use crate::layers::{Args, Role};
use crate::tensor::cut;
use std::ops::Range;

/// Number of elements in a tile of windows: 640 KiB of f32.
const TILE: usize = 160 << 10;

/// Minimum number of pixels in a tile, so that packing the filters pays off.
const PIXELS: usize = 256;

/// Maximum number of elements in all partial sums of the weight gradient together.
const SUMS: usize = 1 << 22;

/// Maximum number of blocks of samples over which the weight gradient is summed.
const BLOCKS: usize = 16;

/// How a pass traverses the windows: in tiles of pixels and slices of kernel rows.
#[derive(Debug, Clone, Copy)]
struct Walk {
    pixels: usize,
    rows: usize,
}

impl Walk {
    /// Creates a walk over `rows` kernel rows, in as few slices as allow tiles of [`PIXELS`] pixels.
    fn new(part: &LocalConv, rows: usize) -> Self {
        let row = part.row().max(1);
        let rows = (TILE / (PIXELS * row)).clamp(1, rows);
        Walk { pixels: (TILE / (rows * row)).clamp(PIXELS, 4 * PIXELS), rows }
    }

    /// Returns the number of elements in a worker's tile.
    fn scratch(&self, part: &LocalConv) -> usize {
        if part.is_pointwise() { 0 } else { self.pixels * self.rows * part.row() + windows::SLACK }
    }

    fn slices(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let (step, end) = (self.rows, rows.end);
        rows.step_by(step).map(move |start| start..end.min(start + step))
    }

    fn tiles(&self, pixels: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let (step, end) = (self.pixels, pixels.end);
        pixels.step_by(step).map(move |start| start..end.min(start + step))
    }
}

/// How the weight gradient is summed: each pair of a block of samples and a slab of kernel rows has separate sums.
struct Sums {
    blocks: usize,
    rows: usize,
    slabs: usize,
    /// Number of elements in the sums of one block and slab.
    size: usize,
    walk: Walk,
}

impl Sums {
    fn new(part: &LocalConv) -> Self {
        let weights = part.o * part.filter();
        let blocks = (SUMS / weights.max(1)).clamp(1, BLOCKS).min(part.n);
        // A large weight has few blocks; dividing it into slabs provides enough tasks.
        let rows = if blocks < BLOCKS { 1 } else { part.window.kernel.h };
        let slabs = part.window.kernel.h.div_ceil(rows);
        Sums { blocks, rows, slabs, size: part.o * rows * part.row(), walk: Walk::new(part, rows) }
    }

    fn weights(&self) -> usize {
        self.blocks * self.slabs * self.size
    }

    fn biases(&self, part: &LocalConv) -> usize {
        if part.has_bias { self.blocks * part.o } else { 0 }
    }

    fn samples(&self, part: &LocalConv, block: usize) -> Range<usize> {
        let (start, len) = cut(part.n, self.blocks, block);
        start..start + len
    }
}

/// Returns the scratch elements of the forward phase: a tile per worker.
pub(super) fn forward_scratch(part: &LocalConv, threads: usize) -> usize {
    threads * Walk::new(part, part.window.kernel.h).scratch(part)
}

/// Returns the scratch elements of the backward phase: the sums, then a tile per worker.
pub(super) fn backward_scratch(part: &LocalConv, threads: usize) -> usize {
    let sums = Sums::new(part);
    let tile = forward_scratch(part, 1).max(sums.walk.scratch(part));
    sums.weights() + sums.biases(part) + threads * tile
}

/// Computes y = windows w^T + b.
pub(super) fn forward<T: Scalar>(part: &LocalConv, args: &Args) {
    let (x, w) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::WEIGHT));
    let bias = part.adds_bias.then(|| args.read::<T>(Role::BIAS));
    let walk = Walk::new(part, part.window.kernel.h);
    let tiles = args.scratch::<T>();
    args.chunks_with_scratch(args.write::<T>(Role::Y), walk.pixels * part.o, tiles, |task, y, tile| {
        let pixels = task * walk.pixels..task * walk.pixels + y.len() / part.o;
        match bias {
            Some(b) => y.chunks_exact_mut(part.o).for_each(|y| y.copy_from_slice(b)),
            None => y.fill(T::ZERO),
        }
        for group in part.groups() {
            for rows in walk.slices(0..part.window.kernel.h) {
                let slice = Slice { part, pixels: pixels.clone(), rows, channel: group.channel };
                let (k, b) = (slice.width(), Matrix::transposed(filters(part, w, group, &slice), part.filter()));
                let a = matrix(&slice, x, tile);
                T::gemm(pixels.len(), group.outputs, k, a, b, &mut y[group.first..], part.o, true);
            }
        }
    });
}

pub(super) fn backward<T: Scalar>(part: &LocalConv, args: &Args) {
    let sums = Sums::new(part);
    let all = args.scratch::<T>();
    let (weights, rest) = all.split_at_mut(sums.weights());
    let (biases, tiles) = rest.split_at_mut(sums.biases(part));
    backward_filter(part, args, &sums, weights, tiles);
    if part.has_bias {
        let (dy, size) = (args.read::<T>(Role::Dy), part.pixels() * part.o);
        args.chunks(biases, part.o, |block, biases, _| {
            let samples = sums.samples(part, block);
            sum_rows(&dy[samples.start * size..samples.end * size], biases);
        });
        sum_rows(biases, args.write::<T>(Role::D_BIAS));
    }
    if args.has(Role::Dx(0)) {
        backward_data(part, args, tiles);
    }
}

/// Computes dw = dy^T windows: first the sums of each block and slab, then their sum over the blocks in order.
fn backward_filter<T: Scalar>(part: &LocalConv, args: &Args, sums: &Sums, weights: &mut [T], tiles: &mut [T]) {
    let (x, dy) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::Dy));
    let slab = |task: usize| {
        let start = task % sums.slabs * sums.rows;
        start..part.window.kernel.h.min(start + sums.rows)
    };
    args.chunks_with_scratch(weights, sums.size, tiles, |task, dw, tile| {
        let (slab, samples) = (slab(task), sums.samples(part, task / sums.slabs));
        let width = slab.len() * part.row();
        dw.fill(T::ZERO);
        for pixels in sums.walk.tiles(samples.start * part.pixels()..samples.end * part.pixels()) {
            for group in part.groups() {
                let a = Matrix::transposed(&dy[pixels.start * part.o + group.first..], part.o);
                for rows in sums.walk.slices(slab.clone()) {
                    let at = group.first * width + (rows.start - slab.start) * part.row();
                    let slice = Slice { part, pixels: pixels.clone(), rows, channel: group.channel };
                    let n = slice.width();
                    let b = matrix(&slice, x, tile);
                    T::gemm(group.outputs, n, pixels.len(), a, b, &mut dw[at..], width, true);
                }
            }
        }
    });
    let weights = &*weights;
    args.chunks(args.write::<T>(Role::D_WEIGHT), part.filter(), |o, dw, _| {
        dw.fill(T::ZERO);
        for (task, sum) in weights.chunks_exact(sums.size).enumerate() {
            let (slab, row) = (slab(task), part.row());
            let width = slab.len() * row;
            let (dw, sum) = (&mut dw[slab.start * row..slab.end * row], &sum[o * width..][..width]);
            vectorized(
                #[inline(always)]
                || dw.iter_mut().zip(sum).for_each(|(dw, &s)| *dw += s),
            );
        }
    });
}

/// Computes dx: the gradients of the windows are dy w, and are added where the windows were taken from. Each task
/// handles one sample, or several small ones.
fn backward_data<T: Scalar>(part: &LocalConv, args: &Args, tiles: &mut [T]) {
    let (w, dy) = (args.read::<T>(Role::WEIGHT), args.read::<T>(Role::Dy));
    let walk = Walk::new(part, part.window.kernel.h);
    let samples = (PIXELS / 2).div_ceil(part.pixels());
    let image = part.h * part.w * part.c;
    args.chunks_with_scratch(args.write::<T>(Role::Dx(0)), samples * image, tiles, |task, dx, tile| {
        dx.fill(T::ZERO);
        let first = task * samples * part.pixels();
        let count = dx.len() / image * part.pixels();
        for pixels in walk.tiles(0..count) {
            let m = pixels.len();
            for group in part.groups() {
                let a = Matrix::rows(&dy[(first + pixels.start) * part.o + group.first..], part.o);
                for rows in walk.slices(0..part.window.kernel.h) {
                    let slice = Slice { part, pixels: pixels.clone(), rows, channel: group.channel };
                    let (n, b) = (slice.width(), Matrix::rows(filters(part, w, group, &slice), part.filter()));
                    if part.is_pointwise() {
                        let dx = &mut dx[pixels.start * part.c + group.channel..];
                        T::gemm(m, n, group.outputs, a, b, dx, part.c, false);
                    } else {
                        T::gemm(m, n, group.outputs, a, b, tile, n, false);
                        slice.scatter(tile, dx);
                    }
                }
            }
        }
    });
}

/// Returns the windows of a slice as the rows of a matrix, which is either x itself or a copy in `tile`.
fn matrix<'a, T: Scalar>(slice: &Slice, x: &'a [T], tile: &'a mut [T]) -> Matrix<'a, T> {
    let part = slice.part;
    if part.is_pointwise() {
        return Matrix::rows(&x[slice.pixels.start * part.c + slice.channel..], part.c);
    }
    slice.gather(x, tile);
    Matrix::rows(tile, slice.width())
}

/// Returns the weights of a group starting at the first kernel row of a slice; filters are `part.filter()` apart.
fn filters<'a, T: Scalar>(part: &LocalConv, w: &'a [T], group: Group, slice: &Slice) -> &'a [T] {
    &w[group.first * part.filter() + slice.rows.start * part.row()..]
}
