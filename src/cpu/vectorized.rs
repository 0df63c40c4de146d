//! Loops that use the widest vectors of this processor.

use crate::tensor::Real;

/// Runs a closure, compiled for the widest vectors of this processor.
///
/// The closure must be `#[inline(always)]`, or its loops are not compiled for wide vectors. Results do not depend on
/// the width, because no multiplication is fused and no sum is reordered.
#[inline(always)]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Sums f(x) over interleaved lanes, then over the lanes in order: a fixed order that vectors of any width can follow.
#[inline(always)]
pub fn sum_lanes<T: Real>(values: &[T], f: impl Fn(T) -> T) -> T {
    const LANES: usize = 32;
    vectorized(
        #[inline(always)]
        || {
            let mut lanes = [T::ZERO; LANES];
            let rows = values.chunks_exact(LANES);
            let last = rows.remainder();
            for row in rows {
                lanes.iter_mut().zip(row).for_each(|(lane, &x)| *lane += f(x));
            }
            lanes.iter_mut().zip(last).for_each(|(lane, &x)| *lane += f(x));
            lanes.iter().fold(T::ZERO, |sum, &lane| sum + lane)
        },
    )
}
