//! The fast path: for a tile of output pixels the windows of x are copied into rows of a matrix that stays in the
//! second-level cache ("im2col", Chellapilla et al. 2006, <https://inria.hal.science/inria-00112631>), and one
//! product on one thread makes the tile. The tiles and the order of every sum depend on the shape alone.

use super::{Group, Part};
use crate::device::{Args, Matrix, Scalar, vectorized};
use crate::tensor::cut;
use std::ops::Range;

/// Elements of a tile of windows: 256 KiB of f32.
const TILE: usize = 1 << 16;

/// Elements that all partial sums of the weight gradient may take together.
const SUMS: usize = 1 << 22;

/// Blocks of samples that the weight gradient is summed in, at most.
const BLOCKS: usize = 16;

/// Returns the pixels of a tile whose rows have `width` elements.
fn tile(width: usize) -> usize {
    (TILE / width.max(1)).clamp(32, 512)
}

/// Returns true when a window is one pixel and every pixel is a window: x itself is the matrix of windows.
fn is_pointwise(part: &Part) -> bool {
    let s = part.sliding;
    (s.kernel.h, s.kernel.w, s.stride.h, s.stride.w, s.pad.h, s.pad.w) == (1, 1, 1, 1, 0, 0)
}

/// How the weight gradient is cut: into blocks of samples and slices of kernel rows.
struct Cut {
    blocks: usize,
    /// Kernel rows per slice, and slices.
    rows: usize,
    slices: usize,
    /// Elements of one block's and slice's sums.
    size: usize,
}

impl Cut {
    fn new(part: &Part) -> Self {
        let weights = part.o * part.filter();
        let blocks = (SUMS / weights.max(1)).clamp(1, BLOCKS).min(part.n);
        // A large weight has few blocks: slices make up for the tasks.
        let rows = if blocks < BLOCKS { 1 } else { part.sliding.kernel.h };
        let slices = part.sliding.kernel.h.div_ceil(rows);
        Cut { blocks, rows, slices, size: part.o * rows * part.sliding.kernel.w * part.depth }
    }

    fn sums(&self) -> usize {
        self.blocks * self.slices * self.size
    }

    fn bias_sums(&self, part: &Part) -> usize {
        self.blocks * part.o
    }
}

/// Returns the scratch elements of the forward phase.
pub(super) fn forward_scratch(part: &Part, threads: usize) -> usize {
    if is_pointwise(part) { 0 } else { threads * tile(part.filter()) * part.filter() }
}

/// Returns the scratch elements of the backward phase: the sums, then each worker's tile.
pub(super) fn backward_scratch(part: &Part, threads: usize) -> usize {
    let cut = Cut::new(part);
    cut.sums() + cut.bias_sums(part) + forward_scratch(part, threads)
}

/// Operands (x, w, y, b, scratch).
pub(super) fn forward<T: Scalar>(part: &Part, args: &Args) {
    let (x, w) = (args.read::<T>(0), args.read::<T>(1));
    let bias = part.adds_bias.then(|| args.read::<T>(3));
    let (width, tile) = (part.filter(), tile(part.filter()));
    let scratch = scratch(args, forward_scratch(part, 1) > 0);
    args.chunks_with_scratch(args.write::<T>(2), tile * part.o, scratch, |task, y, windows| {
        let pixels = task * tile..task * tile + y.len() / part.o;
        match bias {
            Some(b) => y.chunks_exact_mut(part.o).for_each(|y| y.copy_from_slice(b)),
            None => y.fill(T::ZERO),
        }
        for group in part.groups() {
            let a = windows_of(part, x, &pixels, group, 0..part.sliding.kernel.h, windows);
            let b = Matrix::transposed(&w[group.first * width..], width);
            T::gemm(pixels.len(), group.outputs, width, a, b, &mut y[group.first..], part.o, true);
        }
    });
}

/// Operands (x, w, dy, dw, dx, db, scratch).
pub(super) fn backward<T: Scalar>(part: &Part, args: &Args) {
    let cut = Cut::new(part);
    let all = scratch::<T>(args, backward_scratch(part, 1) > 0);
    let (sums, rest) = all.split_at_mut(cut.sums());
    let (bias_sums, windows) = rest.split_at_mut(cut.bias_sums(part));
    backward_filter(part, args, &cut, sums, windows);
    if part.has_bias {
        backward_bias(part, args, &cut, bias_sums);
    }
    if args.has(4) {
        backward_data(part, args, windows);
    }
}

/// Returns the last operand, which is the scratch where the phase asked for any.
fn scratch<'a, T: Scalar>(args: &'a Args, asked: bool) -> &'a mut [T] {
    if asked { args.write::<T>(args.operands.len() - 1) } else { Default::default() }
}

/// dw = dy^T windows: per block and slice into its own sums, then over the blocks in order.
fn backward_filter<T: Scalar>(part: &Part, args: &Args, cut: &Cut, sums: &mut [T], windows: &mut [T]) {
    let (x, dy) = (args.read::<T>(0), args.read::<T>(2));
    let kernel = part.sliding.kernel;
    let row = kernel.w * part.depth;
    args.chunks_with_scratch(sums, cut.size, windows, |task, sums, windows| {
        let rows = task % cut.slices * cut.rows..kernel.h.min((task % cut.slices + 1) * cut.rows);
        let width = rows.len() * row;
        let samples = block(part, cut, task / cut.slices);
        let pixels = samples.start * part.pixels()..samples.end * part.pixels();
        sums.fill(T::ZERO);
        let tile = tile(width);
        for start in pixels.clone().step_by(tile) {
            let pixels = start..pixels.end.min(start + tile);
            for group in part.groups() {
                let b = windows_of(part, x, &pixels, group, rows.clone(), windows);
                let a = Matrix::transposed(&dy[start * part.o + group.first..], part.o);
                let sums = &mut sums[group.first * width..];
                T::gemm(group.outputs, width, pixels.len(), a, b, sums, width, true);
            }
        }
    });
    let sums = &*sums;
    let width = part.filter();
    args.chunks(args.write::<T>(3), width, |o, dw, _| {
        dw.fill(T::ZERO);
        for (task, sums) in sums.chunks_exact(cut.size).enumerate() {
            let dw = &mut dw[task % cut.slices * cut.rows * row..];
            let len = dw.len().min(cut.rows * row);
            let sums = &sums[o * len..][..len];
            vectorized(
                #[inline(always)]
                || dw.iter_mut().zip(sums).for_each(|(dw, &s)| *dw += s),
            );
        }
    });
}

/// Returns the samples of a block.
fn block(part: &Part, blocks: &Cut, index: usize) -> Range<usize> {
    let (start, len) = cut(part.n, blocks.blocks, index);
    start..start + len
}

/// db = sum of dy over the pixels, in the same blocks.
fn backward_bias<T: Scalar>(part: &Part, args: &Args, cut: &Cut, sums: &mut [T]) {
    let dy = args.read::<T>(2);
    args.chunks(sums, part.o, |task, sums, _| {
        let samples = block(part, cut, task);
        let size = part.pixels() * part.o;
        crate::layers::dense::sum_rows(&dy[samples.start * size..samples.end * size], sums);
    });
    crate::layers::dense::sum_rows(sums, args.write::<T>(5));
}

/// dx: the gradients of the windows are dy w, and each goes where its window was taken from. A task is a sample.
fn backward_data<T: Scalar>(part: &Part, args: &Args, windows: &mut [T]) {
    let (w, dy) = (args.read::<T>(1), args.read::<T>(2));
    let (width, tile) = (part.filter(), tile(part.filter()));
    args.chunks_with_scratch(args.write::<T>(4), part.h * part.w * part.c, windows, |n, dx, windows| {
        dx.fill(T::ZERO);
        for start in (0..part.pixels()).step_by(tile) {
            let pixels = start..part.pixels().min(start + tile);
            for group in part.groups() {
                let at = (n * part.pixels() + start) * part.o + group.first;
                let (a, b) = (Matrix::rows(&dy[at..], part.o), Matrix::rows(&w[group.first * width..], width));
                if is_pointwise(part) {
                    let dx = &mut dx[start * part.c + group.channel..];
                    T::gemm(pixels.len(), width, group.outputs, a, b, dx, part.c, false);
                } else {
                    T::gemm(pixels.len(), width, group.outputs, a, b, windows, width, false);
                    scatter(part, windows, &pixels, group, dx);
                }
            }
        }
    });
}

/// Returns the windows of `pixels` (counted over all samples) in one group's channels, kernel rows `rows` alone, as
/// the rows of a matrix: x itself, or copies.
fn windows_of<'a, T: Scalar>(
    part: &Part,
    x: &'a [T],
    pixels: &Range<usize>,
    group: Group,
    rows: Range<usize>,
    windows: &'a mut [T],
) -> Matrix<'a, T> {
    if is_pointwise(part) {
        return Matrix::rows(&x[pixels.start * part.c + group.channel..], part.c);
    }
    let width = rows.len() * part.sliding.kernel.w * part.depth;
    for (pixel, window) in pixels.clone().zip(windows.chunks_exact_mut(width.max(1))) {
        let (n, pixel) = (pixel / part.pixels(), pixel % part.pixels());
        each_run(part, pixel, &rows, |image, column, pixels| {
            let Some(image) = image else { return window[column..column + pixels * part.depth].fill(T::ZERO) };
            let from = (n * part.h * part.w + image) * part.c + group.channel;
            if part.depth == part.c {
                let len = pixels * part.c;
                window[column..column + len].copy_from_slice(&x[from..from + len]);
            } else {
                for i in 0..pixels {
                    let (to, from) = (column + i * part.depth, from + i * part.c);
                    window[to..to + part.depth].copy_from_slice(&x[from..from + part.depth]);
                }
            }
        });
    }
    Matrix::rows(windows, width)
}

/// Adds the gradients of the windows of `pixels` (of one sample) to that sample's dx.
fn scatter<T: Scalar>(part: &Part, windows: &[T], pixels: &Range<usize>, group: Group, dx: &mut [T]) {
    let width = part.filter();
    vectorized(
        #[inline(always)]
        || {
            for (pixel, window) in pixels.clone().zip(windows.chunks_exact(width.max(1))) {
                each_run(part, pixel, &(0..part.sliding.kernel.h), |image, column, pixels| {
                    let Some(image) = image else { return };
                    let at = image * part.c + group.channel;
                    if part.depth == part.c {
                        let len = pixels * part.c;
                        add(&mut dx[at..at + len], &window[column..column + len]);
                    } else {
                        for i in 0..pixels {
                            let (to, from) = (at + i * part.c, column + i * part.depth);
                            add(&mut dx[to..to + part.depth], &window[from..from + part.depth]);
                        }
                    }
                });
            }
        },
    );
}

#[inline(always)]
fn add<T: Scalar>(to: &mut [T], from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
}

/// Calls `visit(image, column, pixels)` for the runs of pixels that make up the window of output pixel `pixel`: in
/// the window from element `column` on, in the image from pixel `image` on, or none where it is padding.
#[inline(always)]
fn each_run(part: &Part, pixel: usize, rows: &Range<usize>, mut visit: impl FnMut(Option<usize>, usize, usize)) {
    let (s, depth) = (part.sliding, part.depth);
    let cols = s.cols(pixel % part.ow, part.w);
    let len = cols.end - cols.start;
    let after = s.kernel.w - cols.first - len;
    for (i, kh) in rows.clone().enumerate() {
        let column = i * s.kernel.w * depth;
        let ih = (pixel / part.ow * s.stride.h + kh).wrapping_sub(s.pad.h);
        if ih >= part.h {
            visit(None, column, s.kernel.w);
            continue;
        }
        if cols.first > 0 {
            visit(None, column, cols.first);
        }
        visit(Some(ih * part.w + cols.start), column + cols.first * depth, len);
        if after > 0 {
            visit(None, column + (cols.first + len) * depth, after);
        }
    }
}
