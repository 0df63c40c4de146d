//! The plain loops, which the fast path is tested against.

use super::local::LocalConv;
use crate::cpu::Scalar;
use crate::layers::dense::sum_rows;
use crate::layers::{Args, Role};

/// Calls `visit(index in x, index in w, index in y)` for every product of the layer.
fn products(part: &LocalConv, mut visit: impl FnMut(usize, usize, usize)) {
    let taps = part.window.kernel.h * part.window.kernel.w;
    for position in 0..part.n * part.pixels() {
        let n = position / part.pixels();
        let at = (position / part.ow % part.oh, position % part.ow);
        for group in part.groups() {
            for o in group.first..group.first + group.outputs {
                part.window.each_tap(at, (part.h, part.w), |pixel, tap| {
                    let x = (n * part.h * part.w + pixel) * part.c + group.channel;
                    let w = (o * taps + tap) * part.depth;
                    (0..part.depth).for_each(|c| visit(x + c, w + c, position * part.o + o));
                });
            }
        }
    }
}

pub(super) fn forward<T: Scalar>(part: &LocalConv, args: &Args) {
    let (x, w, y) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::WEIGHT), args.write::<T>(Role::Y));
    y.fill(T::ZERO);
    if part.adds_bias {
        let bias = args.read::<T>(Role::BIAS);
        y.chunks_exact_mut(part.o).for_each(|y| y.copy_from_slice(bias));
    }
    products(part, |i, j, k| y[k] += x[i] * w[j]);
}

pub(super) fn backward<T: Scalar>(part: &LocalConv, args: &Args) {
    let (x, w, dy, dw) = (
        args.read::<T>(Role::X(0)),
        args.read::<T>(Role::WEIGHT),
        args.read::<T>(Role::Dy),
        args.write::<T>(Role::D_WEIGHT),
    );
    dw.fill(T::ZERO);
    products(part, |i, j, k| dw[j] += x[i] * dy[k]);
    if args.has(Role::Dx(0)) {
        let dx = args.write::<T>(Role::Dx(0));
        dx.fill(T::ZERO);
        products(part, |i, j, k| dx[i] += dy[k] * w[j]);
    }
    if part.has_bias {
        sum_rows(dy, args.write::<T>(Role::D_BIAS));
    }
}
