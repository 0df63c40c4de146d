//! Sums over vectors of doubles, in a fixed order.

use super::vectorized::vectorized;

/// Numbers that are summed beside each other.
const LANES: usize = 8;

/// Returns the inner product.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    vectorized(
        #[inline(always)]
        || {
            let mut lanes = [0.0; LANES];
            for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
                lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
            }
            lanes.iter().sum()
        },
    )
}

/// Returns the Euclidean norm.
pub(crate) fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// Returns the largest absolute value.
pub(crate) fn largest(a: &[f64]) -> f64 {
    a.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()))
}

/// Adds `factor` times `b` to `a`.
pub(crate) fn add(a: &mut [f64], factor: f64, b: &[f64]) {
    vectorized(
        #[inline(always)]
        || a.iter_mut().zip(b).for_each(|(a, b)| *a += factor * b),
    );
}

/// Returns a + factor b.
pub(crate) fn sum(a: &[f64], factor: f64, b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + factor * b).collect()
}
