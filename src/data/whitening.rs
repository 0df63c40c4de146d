//! Whitening: x' = W (x - mean), where x is a normalised image as one vector of features. Mean and W are fitted to the training data once,
//! and kept in checkpoints.

use super::samples::ImageView;
use super::{Dataset, Normalization, Whiten};
use crate::cpu::{Eigen, Matrix, Scalar, vectorized};
use crate::error::Result;
use std::fmt;

/// Outputs that the host computes beside each other.
const TILE: usize = 64;
/// Images that the host whitens before it turns to other rows of W.
pub(super) const IMAGES: usize = 8;
/// Images whose products are added to the covariance at once.
const BLOCK: usize = 256;
/// Rows of the covariance that are computed at once.
const PANEL: usize = 256;

/// A whitening that was fitted to some images.
#[derive(Clone, PartialEq)]
pub struct Whitening {
    mean: Vec<f32>,
    /// W transposed, by tiles of outputs that are filled up with zeros: (tiles, inputs, TILE).
    tiles: Vec<f32>,
}

impl fmt::Debug for Whitening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Whitening({} features)", self.mean.len())
    }
}

impl Whitening {
    /// The name of the mean in checkpoints.
    pub const MEAN: &'static str = "data.whitening.mean";
    /// The name of W in checkpoints.
    pub const MATRIX: &'static str = "data.whitening.matrix";

    /// Returns the whitening with a mean and a matrix W, row-major: (outputs, inputs).
    ///
    /// # Panics
    /// If the matrix is not square with the size of the mean.
    pub fn new(mean: Vec<f32>, matrix: &[f32]) -> Self {
        let n = mean.len();
        assert_eq!(matrix.len(), n * n, "a square matrix");
        let mut tiles = vec![0.0; n.div_ceil(TILE) * n * TILE];
        for (o, row) in matrix.chunks_exact(n).enumerate() {
            let tile = &mut tiles[o / TILE * n * TILE..];
            tile.iter_mut().skip(o % TILE).step_by(TILE).zip(row).for_each(|(to, w)| *to = *w);
        }
        Whitening { mean, tiles }
    }

    /// Fits a whitening to some images of a data set, in f64 and in the order of the samples; only mean and W are rounded to f32.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn fit(how: &Whiten, normalization: &Normalization, data: &Dataset, samples: &[u32]) -> Result<Self> {
        let n = data.features();
        let (mean, covariance) = moments(normalization, data, samples)?;
        let Eigen { values, vectors } = Eigen::of(covariance, n);
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let (mut components, mut scaled) = (Vec::with_capacity(n * n), Vec::with_capacity(n * n));
        for k in order {
            let vector = &vectors[k * n..][..n];
            let sign = sign(vector);
            // Rounding may leave a variance of 0 below it.
            let factor = how.factor(values[k].max(0.0));
            components.extend(vector.iter().map(|x| sign * x));
            scaled.extend(vector.iter().map(|x| sign * factor * x));
        }
        if how.turns_back() {
            let turned = symmetric(&components, &scaled, n);
            scaled = turned;
        }
        let rounded = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        Ok(Whitening::new(rounded(&mean), &rounded(&scaled)))
    }

    /// Returns the number of features.
    pub fn features(&self) -> usize {
        self.mean.len()
    }

    /// Returns the mean.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Returns W, row-major: (outputs, inputs).
    pub fn matrix(&self) -> Vec<f32> {
        let n = self.mean.len();
        let row = |o: usize| self.tiles[o / TILE * n * TILE..].iter().skip(o % TILE).step_by(TILE).take(n);
        (0..n).flat_map(row).copied().collect()
    }

    /// Returns mean and matrix as kernels read them: the mean (features), then W transposed in tiles of outputs.
    pub(super) fn table(&self) -> [&[f32]; 2] {
        [&self.mean, &self.tiles]
    }

    /// Returns how many outputs a tile of the table has.
    pub(super) fn tile() -> usize {
        TILE
    }

    /// Whitens images, (N, features), in place. Every value is a sum over the inputs in order, so it does not depend on the images beside it.
    pub(super) fn apply(&self, images: &mut [f32], work: &mut Vec<f32>) {
        let n = self.mean.len();
        for images in images.chunks_mut(IMAGES * n) {
            work.clear();
            work.extend(images.iter().zip(self.mean.iter().cycle()).map(|(x, mean)| x - mean));
            for (first, tile) in (0..n).step_by(TILE).zip(self.tiles.chunks_exact(n * TILE)) {
                for (x, y) in work.chunks_exact(n).zip(images.chunks_exact_mut(n)) {
                    let sums = products(x, tile);
                    let y = &mut y[first..n.min(first + TILE)];
                    y.copy_from_slice(&sums[..y.len()]);
                }
            }
        }
    }
}

/// Returns the products of a vector with the outputs of a tile.
fn products(x: &[f32], tile: &[f32]) -> [f32; TILE] {
    vectorized(
        #[inline(always)]
        || {
            let mut sums = [0.0; TILE];
            for (&x, row) in x.iter().zip(tile.as_chunks::<TILE>().0) {
                sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += w * x);
            }
            sums
        },
    )
}

/// Returns the sign that makes the largest component of a vector positive, the first one of several.
pub(super) fn sign(vector: &[f64]) -> f64 {
    let largest = vector.iter().fold(0.0f64, |largest, x| if x.abs() > largest.abs() { *x } else { largest });
    if largest < 0.0 { -1.0 } else { 1.0 }
}

/// Returns A^T B for matrices of `n` rows whose product is symmetric: computed above the diagonal, and mirrored.
fn symmetric(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let mut product = vec![0.0; n * n];
    add_products([a, b], n, n, &mut product);
    mirror(&mut product, n);
    product
}

/// Adds A^T B to `to` above the diagonal, for matrices of `rows` rows and `n` columns.
fn add_products([a, b]: [&[f64]; 2], rows: usize, n: usize, to: &mut [f64]) {
    for first in (0..n).step_by(PANEL) {
        let (height, width) = (PANEL.min(n - first), n - first);
        let (a, b) = (Matrix::transposed(&a[first..], n), Matrix::rows(&b[first..], n));
        f64::gemm(height, width, rows, a, b, &mut to[first * n + first..], n, true);
    }
}

/// Copies what is above the diagonal below it.
fn mirror(a: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..i {
            a[i * n + j] = a[j * n + i];
        }
    }
}

/// Returns mean and covariance of the normalised features of some images.
///
/// # Errors
/// If an image cannot be read.
fn moments(normalization: &Normalization, data: &Dataset, samples: &[u32]) -> Result<(Vec<f64>, Vec<f64>)> {
    let (n, count) = (data.features(), samples.len().max(1) as f64);
    let each = |visit: &mut dyn FnMut(&[f32])| {
        let mut y = vec![0.0; n];
        data.each(samples.iter().map(|&sample| sample as usize), |image| {
            match image {
                ImageView::U8(x) => normalization.bytes(x, &mut y),
                ImageView::F32(x) => normalization.floats(x, &mut y),
            }
            visit(&y);
        })
    };
    let mut mean = vec![0.0; n];
    each(&mut |y| mean.iter_mut().zip(y).for_each(|(mean, &y)| *mean += f64::from(y)))?;
    mean.iter_mut().for_each(|mean| *mean /= count);
    let (mut covariance, mut block) = (vec![0.0; n * n], Vec::with_capacity(BLOCK * n));
    let mut add = |block: &mut Vec<f64>| {
        add_products([block, block], block.len() / n, n, &mut covariance);
        block.clear();
    };
    each(&mut |y| {
        block.extend(y.iter().zip(&mean).map(|(&y, mean)| f64::from(y) - mean));
        if block.len() == BLOCK * n {
            add(&mut block);
        }
    })?;
    add(&mut block);
    covariance.iter_mut().for_each(|sum| *sum /= count);
    mirror(&mut covariance, n);
    Ok((mean, covariance))
}

#[cfg(test)]
mod tests {
    use super::super::whiten::{Decorrelate, Pca, Zca};
    use super::super::{Labels, Normalize, Pixels};
    use super::*;

    /// Fits a whitening to images of so many values, as they are.
    fn fitted(how: impl Into<Whiten>, pixels: Vec<f32>, features: usize) -> Whitening {
        let images = pixels.len() / features;
        let labels = Labels::Index(vec![0; images]);
        let data = Dataset::loaded(Pixels::F32(pixels), labels, [1, features, 1], 1);
        let samples: Vec<u32> = (0..images as u32).collect();
        let normalization = Normalization::new(Normalize::None, &data, &samples).unwrap();
        Whitening::fit(&how.into(), &normalization, &data, &samples).unwrap()
    }

    #[test]
    fn two_features_are_whitened_as_worked_by_hand() {
        // Two points on either side of the mean (3, 1) along (2, 1) and along (-1, 2), both of length sqrt(5): the covariance is
        // (2 * 8 / 5 (2, 1)(2, 1)^T + 2 * 2 / 5 (-1, 2)(-1, 2)^T) / 4, with variances 4 and 1 along these.
        let (p, q) = ((8.0f64 / 5.0).sqrt(), (2.0f64 / 5.0).sqrt());
        let steps = [(2.0 * p, p), (-2.0 * p, -p), (-q, 2.0 * q), (q, -2.0 * q)];
        let points: Vec<f32> = steps.iter().flat_map(|(x, y)| [(3.0 + x) as f32, (1.0 + y) as f32]).collect();
        let root = 5f64.sqrt();
        // 1 / sqrt(4 + 5) and 1 / sqrt(1 + 5).
        let (a, b) = (1.0 / 3.0, 1.0 / 6f64.sqrt());
        for (whitening, expected) in [
            (fitted(Decorrelate {}, points.clone(), 2), [2.0 / root, 1.0 / root, -1.0 / root, 2.0 / root]),
            (fitted(Pca { epsilon: 5.0 }, points.clone(), 2), [2.0 * a / root, a / root, -b / root, 2.0 * b / root]),
            (
                fitted(Zca { epsilon: 5.0 }, points.clone(), 2),
                [(4.0 * a + b) / 5.0, (2.0 * a - 2.0 * b) / 5.0, (2.0 * a - 2.0 * b) / 5.0, (a + 4.0 * b) / 5.0],
            ),
        ] {
            let near = |x: &[f32], y: &[f64]| x.iter().zip(y).all(|(x, y)| (f64::from(*x) - y).abs() < 1e-6);
            assert!(near(&whitening.matrix(), &expected), "{:?}, expected {expected:?}", whitening.matrix());
            assert!(near(whitening.mean(), &[3.0, 1.0]), "{:?}", whitening.mean());
            let mut image = [4.0, 3.0];
            whitening.apply(&mut image, &mut Vec::new());
            let [c, d, e, f] = expected;
            assert!(near(&image, &[c + 2.0 * d, e + 2.0 * f]), "{image:?}");
        }
    }

    #[test]
    fn images_are_whitened_to_the_same_bits_alone_and_with_others() {
        // Two tiles and a part of one; two blocks of images and a part of one.
        let n = 2 * TILE + 13;
        let values = |count: usize, step: usize| (0..count).map(|i| (i * step % 101) as f32 / 50.0 - 1.0).collect();
        let (mean, matrix, images): (Vec<f32>, Vec<f32>, Vec<f32>) =
            (values(n, 7), values(n * n, 37), values(19 * n, 53));
        let whitening = Whitening::new(mean.clone(), &matrix);
        assert_eq!(whitening.matrix(), matrix);
        let (mut all, mut work) = (images.clone(), Vec::new());
        whitening.apply(&mut all, &mut work);
        for (x, y) in images.chunks(n).zip(all.chunks(n)) {
            let mut alone = x.to_vec();
            whitening.apply(&mut alone, &mut work);
            assert_eq!(alone, y);
            for (y, w) in y.iter().zip(matrix.chunks(n)) {
                let sum = w.iter().zip(x.iter().zip(&mean)).fold(0.0f32, |sum, (w, (x, mean))| sum + w * (x - mean));
                assert_eq!(*y, sum);
            }
        }
    }

    #[test]
    fn a_fit_has_the_same_bits_every_time() {
        let n = 189;
        let pixels = |_| (0..19 * n).map(|i| (i * i % 1013) as f32 / 1013.0).collect::<Vec<f32>>();
        let way = || Whiten::from(Zca { epsilon: 0.1 });
        let first = fitted(way(), pixels(0), n);
        let mut kept = Vec::new();
        for round in 0..20usize {
            // Memory at other addresses.
            kept.push(vec![0u8; 1000 * round + 8 * round]);
            assert!(fitted(way(), pixels(round), n) == first, "{round}");
        }
    }

    #[test]
    fn vectors_get_one_sign() {
        assert_eq!([sign(&[1.0, -2.0]), sign(&[-1.0, 2.0]), sign(&[-3.0, 3.0]), sign(&[0.0])], [-1.0, 1.0, -1.0, 1.0]);
    }
}
