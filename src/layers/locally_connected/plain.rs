//! The plain loops, which the fast path is tested against.

use super::local::LocalPart;
use crate::cpu::Scalar;
use crate::layers::{Args, Role};

/// Calls `visit(index in x, index in w, index in y)` for every product of the layer.
fn products(part: &LocalPart, mut visit: impl FnMut(usize, usize, usize)) {
    let (positions, taps) = (part.positions(), part.window.kernel.h * part.window.kernel.w);
    for at in 0..part.n * positions {
        let (n, p) = (at / positions, at % positions);
        for o in 0..part.o {
            part.window.each_tap((p / part.ow, p % part.ow), (part.h, part.w), |pixel, tap| {
                let (x, w) = ((n * part.h * part.w + pixel) * part.c, ((o * positions + p) * taps + tap) * part.c);
                (0..part.c).for_each(|c| visit(x + c, w + c, at * part.o + o));
            });
        }
    }
}

pub(super) fn forward<T: Scalar>(part: &LocalPart, args: &Args) {
    let (x, w, y) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::WEIGHT), args.write::<T>(Role::Y));
    y.fill(T::ZERO);
    if part.adds_bias {
        let (bias, positions) = (args.read::<T>(Role::BIAS), part.positions());
        y.iter_mut().enumerate().for_each(|(i, y)| *y = bias[i % part.o * positions + i / part.o % positions]);
    }
    products(part, |i, j, k| y[k] += x[i] * w[j]);
}

pub(super) fn backward<T: Scalar>(part: &LocalPart, args: &Args) {
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
        let (db, positions) = (args.write::<T>(Role::D_BIAS), part.positions());
        db.fill(T::ZERO);
        dy.iter().enumerate().for_each(|(i, &dy)| db[i % part.o * positions + i / part.o % positions] += dy);
    }
}
