//! Noise along the principal axes of colours (Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural networks",
//! section 4.1): y = x + sum over k of a_k lambda_k u_k for every pixel, with a_k normal, and lambda_k and u_k the eigenvalues and eigenvectors of the
//! covariance of the training set's pixels. The formula multiplies by variances, so it depends on the unit of pixels: the paper's is sensible where they
//! are 0 to 1, so 8-bit pixels are divided by 255 for it, and the change is multiplied by 255. Floats are taken as they are.

use super::augmentation::{AugmentLaunch, Augmentation};
use super::color::{VALUES, launch_recolor, recolor};
use super::draws::Draws;
use crate::error::{Fault, Result};
use crate::settings::{POSITIVE, settings};

settings! {
    /// `{ pca_color = 0.1 }`: adds one colour to all pixels of an image, drawn along the principal axes of the colours of the training set (AlexNet). Each
    /// axis is the eigenvector of their covariance times its eigenvalue, for pixels from 0 to 1: 8-bit pixels are divided by 255 for that, floats
    /// are taken as they are. The covariance is measured on the training samples once and kept in checkpoints. Only for images of 3 channels.
    pub struct PcaColor from std {
        /// The standard deviation of the factor of each axis.
        pub std: f64 = 0.1, in POSITIVE;
    }
}

impl Augmentation for PcaColor {
    fn key(&self) -> &'static str {
        "pca_color"
    }
    fn output(&self, shape: [usize; 3]) -> Result<[usize; 3], Fault> {
        match shape[2] {
            3 => Ok(shape),
            c => Err(Fault::at("augment", format!("pca_color needs images of 3 channels, not {c}; remove it"))),
        }
    }
    fn uses_colors(&self) -> bool {
        true
    }
    fn values_drawn(&self) -> usize {
        VALUES
    }
    fn numbers(&self) -> u64 {
        3
    }
    /// The values of `color`: the identity, the factor 0, and the colour that is added.
    fn draw(&self, _: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        to.fill(0.0);
        [0, 4, 8].into_iter().for_each(|diagonal| to[diagonal] = 1.0);
        let Some(draws) = draws else { return };
        let factors = [0, 1, 2].map(|index| self.std * draws.normal(index));
        for (c, to) in to[10..].iter_mut().enumerate() {
            *to = factors.iter().zip(draws.colors().0).map(|(factor, axis)| factor * axis[c]).sum::<f64>() as f32;
        }
    }
    fn apply(&self, drawn: &[f32], shape: [usize; 3], x: &[f32], _: &mut Vec<f32>, y: &mut [f32]) {
        recolor(drawn, shape, x, y);
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        launch_recolor(launch)
    }
    fn examples() -> Vec<Self> {
        vec![PcaColor { std: 0.1 }]
    }
}

#[cfg(test)]
mod tests {
    use super::super::ColorAxes;
    use super::*;
    use crate::device::{Random, RandomStream};

    /// Returns what is added to every pixel of a sample's image.
    fn added(std: f64, axes: ColorAxes, sample: u64) -> [f64; 3] {
        let draws = Draws::new(Random::new(1, RandomStream::Augment, 0, sample), 0).with_colors(axes);
        let mut drawn = [9.0; VALUES];
        PcaColor { std }.draw([1, 2, 3], Some(&draws), &mut drawn);
        let (x, mut y) = ([10.0, 20.0, 30.0, 1.0, 2.0, 3.0], [0.0; 6]);
        PcaColor { std }.apply(&drawn, [1, 2, 3], &x, &mut Vec::new(), &mut y);
        let change: [f32; 6] = std::array::from_fn(|i| y[i] - x[i]);
        assert!((0..3).all(|c| (change[c] - change[3 + c]).abs() < 1e-5), "all pixels change alike: {change:?}");
        [0, 1, 2].map(|c| f64::from(drawn[10 + c]))
    }

    #[test]
    fn changes_have_the_covariance_of_the_formula() {
        // Eigenvalues 5, 2 and 1 and orthogonal vectors with the length 3: the covariance is std^2 sum of lambda^2 u u^T, worked by hand.
        let vectors = [[1.0, 2.0, 2.0], [2.0, 1.0, -2.0], [2.0, -2.0, 1.0]];
        let axes = ColorAxes(std::array::from_fn(|k| vectors[k].map(|x| x / 3.0 * [5.0, 2.0, 1.0][k])));
        // (25 (1, 2, 2)(1, 2, 2)^T + 4 (2, 1, -2)(2, 1, -2)^T + (2, -2, 1)(2, -2, 1)^T) / 9.
        let expected = [[45.0, 54.0, 36.0], [54.0, 108.0, 90.0], [36.0, 90.0, 117.0]].map(|row| row.map(|x| x / 9.0));
        let (std, count) = (0.5, 40_000);
        let changes: Vec<[f64; 3]> = (0..count).map(|sample| added(std, axes, sample)).collect();
        for i in 0..3 {
            let mean = changes.iter().map(|change| change[i]).sum::<f64>() / count as f64;
            assert!(mean.abs() < 0.04, "{mean}");
            for j in 0..3 {
                let product = changes.iter().map(|change| change[i] * change[j]).sum::<f64>() / count as f64;
                // Four standard errors of the largest: sqrt(2 / 40000) of it.
                assert!((product / (std * std) - expected[i][j]).abs() < 0.4, "{i}, {j}: {product}");
            }
        }
    }

    #[test]
    fn an_evaluation_changes_nothing_and_grey_images_are_refused() {
        let color = PcaColor { std: 0.1 };
        assert!(!color.evaluates());
        let (x, mut y, mut drawn) = ([1.5, 2.5, 3.5], [0.0; 3], [9.0; VALUES]);
        color.draw([1, 1, 3], None, &mut drawn);
        color.apply(&drawn, [1, 1, 3], &x, &mut Vec::new(), &mut y);
        assert_eq!(y, x);
        for c in [1, 4] {
            let expected = format!("pca_color needs images of 3 channels, not {c}; remove it");
            assert_eq!(color.output([2, 2, c]).unwrap_err().message, expected);
        }
        assert!(PcaColor { std: 0.0 }.check().is_err());
    }
}
