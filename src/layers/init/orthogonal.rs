//! Orthogonal weights (Saxe, McClelland and Ganguli 2014, <https://arxiv.org/abs/1312.6120>): the weights of a layer as a
//! matrix with a row for each output have orthogonal rows of length gain, or orthogonal columns if there are more outputs than
//! inputs.
//!
//! Rows are drawn from the normal distribution and orthogonalised one block after another, each twice, in f64. For m outputs of n
//! inputs that takes about 2 m n min(m, n) multiplications on one thread.

use super::{InitialElement, Initializer};
use crate::cpu::{Matrix, Scalar};
use crate::device::Random;
use crate::settings::{POSITIVE, settings};
use crate::tensor::Shape;

/// The number of rows of a block.
const BLOCK: usize = 64;

settings! {
    /// Orthogonal outputs, or if there are more outputs than inputs, orthogonal inputs (Saxe et al. 2014).
    pub struct Orthogonal {
        /// The length of the weights of an output.
        pub gain: f64 = 1.0, in POSITIVE;
    }
}

impl Initializer for Orthogonal {
    fn key(&self) -> &'static str {
        "orthogonal"
    }
    fn value(&self, at: InitialElement) -> f64 {
        at.random.normal(at.index)
    }
    fn whole(&self, shape: &Shape, random: &Random) -> Option<Vec<f64>> {
        Some(orthogonal(shape, self.gain, random))
    }
    fn examples() -> Vec<Self> {
        vec![Orthogonal::default(), Orthogonal { gain: 0.5 }]
    }
}

/// Returns a matrix with a row for each output.
pub(super) fn orthogonal(shape: &Shape, gain: f64, random: &Random) -> Vec<f64> {
    let m = shape.0[0].max(1);
    let n = shape.elements() / m;
    let mut rows: Vec<f64> = (0..(m * n) as u64).map(|index| random.normal(index)).collect();
    if m > n {
        let mut columns = transposed(&rows, m, n);
        orthogonalise(&mut columns, n, m);
        rows = transposed(&columns, n, m);
    } else {
        orthogonalise(&mut rows, m, n);
    }
    rows.iter_mut().for_each(|value| *value *= gain);
    rows
}

fn transposed(matrix: &[f64], m: usize, n: usize) -> Vec<f64> {
    let mut other = vec![0.0; m * n];
    matrix.iter().enumerate().for_each(|(at, &value)| other[at % n * m + at / n] = value);
    other
}

/// Makes the m rows of n elements orthonormal, in order; m is at most n.
fn orthogonalise(rows: &mut [f64], m: usize, n: usize) {
    let mut products = vec![0.0; BLOCK * m];
    for start in (0..m).step_by(BLOCK) {
        let count = BLOCK.min(m - start);
        let (before, rest) = rows.split_at_mut(start * n);
        let block = &mut rest[..count * n];
        for _ in 0..2 {
            // block -= (block before^T) before
            f64::gemm(count, start, n, Matrix::rows(block, n), Matrix::transposed(before, n), &mut products, m, false);
            products.iter_mut().for_each(|product| *product = -*product);
            f64::gemm(count, n, start, Matrix::rows(&products, m), Matrix::rows(before, n), block, n, true);
            for i in 0..count {
                let (done, row) = block.split_at_mut(i * n);
                let row = &mut row[..n];
                for other in done.chunks_exact(n) {
                    let product = dot(row, other);
                    row.iter_mut().zip(other).for_each(|(x, &y)| *x -= product * y);
                }
                let length = dot(row, row).sqrt();
                row.iter_mut().for_each(|x| *x /= length);
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
