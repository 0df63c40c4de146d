//! Loops that use the widest vectors of this processor.

/// Runs a closure, compiled for the widest vectors of this processor.
///
/// The closure must be `#[inline(always)]`, or its loops are not compiled for wide vectors. Results do not depend on
/// the width, because no multiplication is fused and no sum is reordered.
#[inline(always)]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
