//! Matrix products on one thread, computed by the `gemm` crate (with AVX-512 if the processor supports it).

use crate::tensor::{Dual, Real};
use std::cell::Cell;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Returns true while this thread is computing a product. The `gemm` crate allocates packing buffers in each call, and
/// the test that no step allocates counts them separately.
pub fn inside_gemm() -> bool {
    INSIDE.try_with(Cell::get).unwrap_or(false)
}

/// A strided view of a matrix in a slice: element (i, j) is at `i * row + j * col`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    /// The elements, starting with (0, 0).
    pub data: &'a [T],
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Returns a row-major matrix whose rows are `row` elements apart.
    pub fn rows(data: &'a [T], row: usize) -> Self {
        Matrix { data, row, col: 1 }
    }
    /// Returns the transpose of a row-major matrix whose rows are `row` elements apart.
    pub fn transposed(data: &'a [T], row: usize) -> Self {
        Matrix { data, row: 1, col: row }
    }
}

/// An element type with a matrix product.
pub trait Scalar: Real {
    /// Computes `c = a b` (m x k times k x n), or `c += a b` if `accumulate` is true; rows of `c` are `c_row` apart.
    ///
    /// # Panics
    /// If a slice is too short for its matrix.
    #[allow(clippy::too_many_arguments, reason = "the arguments of a product")]
    fn gemm(
        m: usize,
        n: usize,
        k: usize,
        a: Matrix<Self>,
        b: Matrix<Self>,
        c: &mut [Self],
        c_row: usize,
        accumulate: bool,
    );
}

fn check<T>(m: usize, n: usize, k: usize, a: &Matrix<T>, b: &Matrix<T>, c: &[T], c_row: usize) {
    assert!(a.data.len() > (m - 1) * a.row + (k - 1) * a.col, "a is too short");
    assert!(b.data.len() > (k - 1) * b.row + (n - 1) * b.col, "b is too short");
    assert!(c.len() > (m - 1) * c_row + n - 1, "c is too short");
}

/// Handles empty products. Returns true if there is nothing left to do.
fn trivial<T: Real>(m: usize, n: usize, k: usize, c: &mut [T], c_row: usize, accumulate: bool) -> bool {
    if m == 0 || n == 0 {
        return true;
    }
    if k == 0 && !accumulate {
        (0..m).for_each(|i| c[i * c_row..i * c_row + n].fill(T::ZERO));
    }
    k == 0
}

macro_rules! scalar {
    ($type:ty) => {
        impl Scalar for $type {
            fn gemm(
                m: usize,
                n: usize,
                k: usize,
                a: Matrix<Self>,
                b: Matrix<Self>,
                c: &mut [Self],
                c_row: usize,
                accumulate: bool,
            ) {
                if trivial(m, n, k, c, c_row, accumulate) {
                    return;
                }
                check(m, n, k, &a, &b, c, c_row);
                INSIDE.set(true);
                // SAFETY: `check` ensured that all three matrices are within their slices.
                unsafe {
                    gemm::gemm(
                        m,
                        n,
                        k,
                        c.as_mut_ptr(),
                        1,
                        c_row as isize,
                        accumulate,
                        a.data.as_ptr(),
                        a.col as isize,
                        a.row as isize,
                        b.data.as_ptr(),
                        b.col as isize,
                        b.row as isize,
                        1.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
                INSIDE.set(false);
            }
        }
    };
}
scalar!(f32);
scalar!(f64);

impl Scalar for Dual {
    /// Computes three real products: (A + A' e)(B + B' e) = A B + (A B' + A' B) e.
    fn gemm(
        m: usize,
        n: usize,
        k: usize,
        a: Matrix<Self>,
        b: Matrix<Self>,
        c: &mut [Self],
        c_row: usize,
        accumulate: bool,
    ) {
        if trivial(m, n, k, c, c_row, accumulate) {
            return;
        }
        check(m, n, k, &a, &b, c, c_row);
        INSIDE.set(true);
        let a0 = a.data.as_ptr().cast::<f64>();
        let b0 = b.data.as_ptr().cast::<f64>();
        let c0 = c.as_mut_ptr().cast::<f64>();
        // SAFETY: `Dual` is two doubles (repr(C)), so doubled strides visit one part of every element. `check` ensured
        // that all elements are within their slices.
        unsafe {
            for (part, left, right, add) in [(0, 0, 0, accumulate), (1, 0, 1, accumulate), (1, 1, 0, true)] {
                gemm::gemm(
                    m,
                    n,
                    k,
                    c0.add(part),
                    2,
                    2 * c_row as isize,
                    add,
                    a0.add(left),
                    2 * a.col as isize,
                    2 * a.row as isize,
                    b0.add(right),
                    2 * b.col as isize,
                    2 * b.row as isize,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        }
        INSIDE.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain<T: Scalar>(m: usize, n: usize, k: usize, at: fn(usize) -> T) {
        let a: Vec<T> = (0..m * k).map(at).collect();
        let b: Vec<T> = (0..k * n).map(|i| at(i + 5)).collect();
        let mut c = vec![T::ONE; m * n];
        T::gemm(m, n, k, Matrix::rows(&a, k), Matrix::transposed(&b, k), &mut c, n, true);
        for i in 0..m {
            for j in 0..n {
                let sum = (0..k).fold(T::ONE, |s, q| s + a[i * k + q] * b[j * k + q]);
                assert_eq!(c[i * n + j], sum);
            }
        }
    }

    #[test]
    fn products_of_small_integers_are_exact_in_every_type() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (33, 17, 40), (1, 9, 64), (4, 4, 0)] {
            plain::<f32>(m, n, k, |i| (i % 7) as f32 - 3.0);
            plain::<f64>(m, n, k, |i| (i % 5) as f64 - 2.0);
            plain::<Dual>(m, n, k, |i| Dual { re: (i % 5) as f64 - 2.0, eps: (i % 3) as f64 });
        }
    }
}
