//! The fast path: for each position a product of the filters with the windows of the samples, which are copied into the rows of a
//! matrix. The samples of a tile and of a task, and therefore the order of every sum, depend only on the shape.

use super::local::{LocalPart, SAMPLES};
use crate::cpu::{Matrix, Scalar};
use crate::layers::dense::sum_rows;
use crate::layers::{Args, Role};
use crate::tensor::Real;

/// Computes y; each task handles one position, so that its filters are read once.
pub(super) fn forward<T: Scalar>(part: &LocalPart, args: &Args) {
    let (x, w) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::WEIGHT));
    let bias = part.adds_bias.then(|| args.read::<T>(Role::BIAS));
    let LocalPart { o, .. } = *part;
    let (positions, filter, outputs) = (part.positions(), part.filter(), part.outputs());
    // SAFETY: each task writes the outputs of its own position.
    unsafe {
        args.strided(positions, args.write::<T>(Role::Y), args.scratch::<T>(), |p, y, tile| {
            for samples in part.tiles() {
                let m = samples.len();
                let y = &mut y[samples.start * outputs + p * o..];
                for y in y.chunks_mut(outputs).take(m) {
                    match bias {
                        Some(b) => y[..o].iter_mut().zip(b[p..].iter().step_by(positions)).for_each(|(y, &b)| *y = b),
                        None => y[..o].fill(T::ZERO),
                    }
                }
                part.gather(p, samples, x, tile);
                let filters = Matrix::transposed(&w[p * filter..], positions * filter);
                T::gemm(m, o, filter, Matrix::rows(tile, filter), filters, y, outputs, true);
            }
        });
    }
}

pub(super) fn backward<T: Scalar>(part: &LocalPart, args: &Args) {
    let dy = args.read::<T>(Role::Dy);
    let (sums, tiles) = args.scratch::<T>().split_at_mut(part.biases());
    if part.has_bias {
        sum_rows(dy, sums);
        transpose_bias(part, sums, args.write::<T>(Role::D_BIAS));
    }
    backward_weight(part, args, dy, tiles);
    if args.has(Role::Dx(0)) {
        backward_input(part, args, dy, tiles);
    }
}

/// Copies sums (positions, o) to db (o, positions).
fn transpose_bias<T: Real>(part: &LocalPart, sums: &[T], db: &mut [T]) {
    for (o, db) in db.chunks_exact_mut(part.positions()).enumerate() {
        db.iter_mut().zip(sums[o..].iter().step_by(part.o)).for_each(|(db, &sum)| *db = sum);
    }
}

/// Computes dw = dy^T windows; each task handles one position.
fn backward_weight<T: Scalar>(part: &LocalPart, args: &Args, dy: &[T], tiles: &mut [T]) {
    let (x, dw) = (args.read::<T>(Role::X(0)), args.write::<T>(Role::D_WEIGHT));
    let LocalPart { o, .. } = *part;
    let (positions, filter, outputs) = (part.positions(), part.filter(), part.outputs());
    if part.n == 0 {
        return dw.fill(T::ZERO);
    }
    // SAFETY: each task writes the filters of its own position.
    unsafe {
        args.strided(positions, dw, tiles, |p, dw, tile| {
            let dw = &mut dw[p * filter..];
            for samples in part.tiles() {
                let (first, k) = (samples.start, samples.len());
                part.gather(p, samples, x, tile);
                let dy = Matrix::transposed(&dy[first * outputs + p * o..], outputs);
                T::gemm(o, filter, k, dy, Matrix::rows(tile, filter), dw, positions * filter, first > 0);
            }
        });
    }
}

/// Computes dx: the gradients of the windows are dy w, and are added where the windows were taken from. Each task handles some samples.
fn backward_input<T: Scalar>(part: &LocalPart, args: &Args, dy: &[T], tiles: &mut [T]) {
    let w = args.read::<T>(Role::WEIGHT);
    let LocalPart { o, .. } = *part;
    let (positions, filter, outputs, image) = (part.positions(), part.filter(), part.outputs(), part.image());
    args.chunks_with_scratch(args.write::<T>(Role::Dx(0)), SAMPLES * image, tiles, |task, dx, tile| {
        dx.fill(T::ZERO);
        let (first, m) = (task * SAMPLES, dx.len() / image);
        for p in 0..positions {
            let dy = Matrix::rows(&dy[first * outputs + p * o..], outputs);
            let filters = Matrix::rows(&w[p * filter..], positions * filter);
            T::gemm(m, filter, o, dy, filters, tile, filter, false);
            part.scatter(p, tile, dx);
        }
    });
}
