//! The eigenvalues and eigenvectors of a symmetric matrix.

use super::vectors::{add, dot, norm};

/// The most rotations for an eigenvalue; two are usual.
const MOST_SWEEPS: usize = 60;

/// The eigenvalues of a symmetric matrix, in no order, and its eigenvectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigen {
    /// The eigenvalues.
    pub values: Vec<f64>,
    /// The eigenvectors, of length 1 and orthogonal, one after another.
    pub vectors: Vec<f64>,
}

impl Eigen {
    /// Decomposes a matrix of `n` rows: reflections make it tridiagonal, then implicitly shifted QL steps make it diagonal
    /// (Golub and Van Loan 2013, section 8.3). Takes about 10 n^3 operations.
    ///
    /// # Panics
    /// If there are not n^2 values.
    pub fn of(mut a: Vec<f64>, n: usize) -> Eigen {
        assert_eq!(a.len(), n * n, "a square matrix");
        let mut vectors = vec![0.0; n * n];
        (0..n).for_each(|i| vectors[i * n + i] = 1.0);
        let (mut values, mut beside) = (vec![0.0; n], vec![0.0; n]);
        for k in 0..n {
            values[k] = a[k * n + k];
            if k + 1 < n {
                beside[k] = reflect(&mut a, &mut vectors, k, n);
            }
        }
        for first in 0..n {
            for _ in 0..MOST_SWEEPS {
                let is_split = |m: &usize| beside[*m].abs() <= f64::EPSILON * (values[*m].abs() + values[*m + 1].abs());
                let last = (first..n - 1).find(is_split).unwrap_or(n - 1);
                if last == first {
                    break;
                }
                shift(&mut values, &mut beside, &mut vectors, [first, last]);
            }
        }
        Eigen { values, vectors }
    }
}

/// Makes everything below the subdiagonal of column `k` zero; returns the element on the subdiagonal. Only the part of `a`
/// after row and column `k` is kept up to date.
fn reflect(a: &mut [f64], vectors: &mut [f64], k: usize, n: usize) -> f64 {
    let mut v: Vec<f64> = (k + 1..n).map(|i| a[i * n + k]).collect();
    let length = norm(&v);
    if norm(&v[1..]) == 0.0 {
        return v[0];
    }
    let target = if v[0] > 0.0 { -length } else { length };
    v[0] -= target;
    let factor = 2.0 / dot(&v, &v);
    // A - v w' - w v', with w = p - (factor / 2) (p'v) v and p = factor A v.
    let rows = || (k + 1..n).map(|i| i * n + k + 1..(i + 1) * n);
    let mut w: Vec<f64> = rows().map(|row| factor * dot(&a[row], &v)).collect();
    let half = 0.5 * factor * dot(&w, &v);
    add(&mut w, -half, &v);
    for (i, row) in rows().enumerate() {
        add(&mut a[row.clone()], -v[i], &w);
        add(&mut a[row], -w[i], &v);
    }
    // The vectors, row by row, are multiplied by the same reflection from the left.
    let mut sums = vec![0.0; n];
    for (i, v) in v.iter().enumerate() {
        add(&mut sums, *v, &vectors[(k + 1 + i) * n..][..n]);
    }
    for (i, v) in v.iter().enumerate() {
        add(&mut vectors[(k + 1 + i) * n..][..n], -factor * v, &sums);
    }
    target
}

/// One QL step with an implicit shift on the block from `first` to `last`; rotates the vectors with it.
fn shift(d: &mut [f64], e: &mut [f64], vectors: &mut [f64], [first, last]: [usize; 2]) {
    let n = d.len();
    let slope = (d[first + 1] - d[first]) / (2.0 * e[first]);
    // Wilkinson's shift: the eigenvalue of the first two rows that is nearer to the first.
    let mut g = d[last] - d[first] + e[first] / (slope + slope.hypot(1.0).copysign(slope));
    let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
    for i in (first..last).rev() {
        let (f, b) = (s * e[i], c * e[i]);
        let r = f.hypot(g);
        if i + 1 < n {
            e[i + 1] = r;
        }
        if r == 0.0 {
            d[i + 1] -= p;
            e[last] = 0.0;
            return;
        }
        (s, c) = (f / r, g / r);
        g = d[i + 1] - p;
        let t = (d[i] - g) * s + 2.0 * c * b;
        p = s * t;
        d[i + 1] = g + p;
        g = c * t - b;
        let (upper, lower) = vectors.split_at_mut((i + 1) * n);
        for (x, y) in upper[i * n..].iter_mut().zip(&mut lower[..n]) {
            (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
        }
    }
    d[first] -= p;
    e[first] = g;
    e[last] = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};

    #[test]
    fn eigenvectors_of_random_matrices_decompose_them() {
        let random = Random::new(1, RandomStream::Probe, 0, 0);
        for n in [0, 1, 2, 3, 10, 40] {
            let draw = |i: usize, j: usize| random.normal((i.min(j) * 40 + i.max(j)) as u64);
            // The second kind has rank 1 and many equal eigenvalues, the third is diagonal already.
            let kinds: [&dyn Fn(usize, usize) -> f64; 3] =
                [&draw, &|i, j| draw(0, i) * draw(0, j), &|i, j| if i == j { draw(i, i) } else { 0.0 }];
            for element in kinds {
                let a: Vec<f64> = (0..n * n).map(|at| element(at / n, at % n)).collect();
                let Eigen { values, vectors } = Eigen::of(a.clone(), n);
                for (i, l) in values.iter().enumerate() {
                    let q = &vectors[i * n..][..n];
                    let product: Vec<f64> = a.chunks_exact(n).map(|row| dot(row, q)).collect();
                    let scaled: Vec<f64> = q.iter().map(|q| l * q).collect();
                    let near = product.iter().zip(&scaled).all(|(a, b)| (a - b).abs() <= 1e-12 * n as f64);
                    assert!(near, "{n}: {product:?} {scaled:?}");
                    for j in 0..=i {
                        let wanted = if i == j { 1.0 } else { 0.0 };
                        assert!((dot(q, &vectors[j * n..][..n]) - wanted).abs() < 1e-12 * n as f64);
                    }
                }
            }
        }
    }
}
