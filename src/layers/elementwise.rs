//! What layers that map each value by itself share: their phases and their loops.

use super::*;
use crate::device::vectorized;
use crate::tensor::Real;

/// Elements per task.
const BLOCK: usize = 1 << 14;

/// Lowers y = f(x), dx = g(y, dy), wherever x is.
pub(super) fn lower(cx: &Lowering) -> Lowered {
    let x = cx.x();
    Lowered::simple(
        Phase::new("forward").read(Role::X(0), x).write(Role::Y, x),
        Phase::new("backward").read(Role::Y, x).read(Role::Dy, x).write(Role::Dx(0), x),
    )
}

/// y = f(x) over operands (x, y). `f` must be `#[inline(always)]`.
pub(super) fn forward<T: Real>(args: &Args, f: impl Fn(T) -> T + Sync) {
    let x = args.read::<T>(0);
    args.chunks(args.write::<T>(1), BLOCK, |i, y, _| {
        let x = &x[i * BLOCK..][..y.len()];
        vectorized(
            #[inline(always)]
            || y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x)),
        );
    });
}

/// dx = g(y, dy) over operands (y, dy, dx). `g` must be `#[inline(always)]`.
pub(super) fn backward<T: Real>(args: &Args, g: impl Fn(T, T) -> T + Sync) {
    if !args.has(2) {
        return;
    }
    let (y, dy) = (args.read::<T>(0), args.read::<T>(1));
    args.chunks(args.write::<T>(2), BLOCK, |i, dx, _| {
        let (y, dy) = (&y[i * BLOCK..][..dx.len()], &dy[i * BLOCK..][..dx.len()]);
        vectorized(
            #[inline(always)]
            || {
                for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
                    *dx = g(y, dy);
                }
            },
        );
    });
}
