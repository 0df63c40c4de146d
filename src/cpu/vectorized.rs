//! Loops in the widest vectors that this processor has.

/// Runs a closure compiled for the widest vectors that this processor has.
///
/// The closure must be `#[inline(always)]` for the wide instructions to reach its loops. Results do not depend
/// on the width: no multiplication is fused and no sum is reordered.
#[inline(always)]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
