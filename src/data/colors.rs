//! Measures the principal axes of the colours of a training set.

use super::Dataset;
use super::augment::ColorAxes;
use super::normalization::moments;
use super::samples::{ImageView, PixelType};
use super::whitening::sign;
use crate::cpu::Eigen;
use crate::error::{Fault, Result};

/// Measures the axes on some images of three channels, in f64 and in the order of the samples.
///
/// # Errors
/// Pixels that all have one colour have no axes; nor have images that cannot be read.
pub(super) fn color_axes(data: &Dataset, samples: &[u32]) -> Result<ColorAxes, Fault> {
    let covariance = covariance(data, samples).map_err(|error| Fault::at("train", error.with_causes()))?;
    let Eigen { values, vectors } = Eigen::of(covariance.as_flattened().to_vec(), 3);
    let mut order = [0, 1, 2];
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    if values[order[0]] <= 0.0 {
        let message = "pca_color adds colours along the axes in which the training pixels vary, but they all have one colour; remove it";
        return Err(Fault::at("augment", message));
    }
    let scale = match data.pixels {
        PixelType::U8 => 255.0,
        PixelType::F32 => 1.0,
    };
    Ok(ColorAxes(order.map(|k| {
        let vector = &vectors[3 * k..][..3];
        // A variance in units of 1 / scale, times the scale. Rounding may leave a variance of 0 below it.
        let factor = sign(vector) * values[k].max(0.0) / scale;
        std::array::from_fn(|c| factor * vector[c])
    })))
}

/// Returns the covariance of the channels of pixels as they are stored.
///
/// # Errors
/// If an image cannot be read.
fn covariance(data: &Dataset, samples: &[u32]) -> Result<[[f64; 3]; 3]> {
    let means = moments(data, samples, 3)?;
    let (mut sums, mut pixels) = ([[0.0; 3]; 3], 0usize);
    let mut add = |pixel: [f64; 3]| {
        let x: [f64; 3] = std::array::from_fn(|c| pixel[c] - means[c][0]);
        for (row, a) in sums.iter_mut().zip(x) {
            row.iter_mut().zip(x).for_each(|(sum, b)| *sum += a * b);
        }
        pixels += 1;
    };
    data.each(samples.iter().map(|&sample| sample as usize), |image| match image {
        ImageView::U8(x) => x.as_chunks::<3>().0.iter().for_each(|pixel| add(pixel.map(f64::from))),
        ImageView::F32(x) => x.as_chunks::<3>().0.iter().for_each(|pixel| add(pixel.map(f64::from))),
    })?;
    Ok(sums.map(|row| row.map(|sum| sum / pixels.max(1) as f64)))
}

#[cfg(test)]
mod tests {
    use super::super::{Labels, Pixels};
    use super::*;

    /// Returns the axes of images of two pixels.
    fn axes(pixels: Pixels, samples: &[u32]) -> Result<ColorAxes, Fault> {
        let images = 4;
        color_axes(&Dataset::loaded(pixels, Labels::Index(vec![0; images]), [1, 2, 3], 1), samples)
    }

    #[test]
    fn axes_are_those_worked_by_hand() {
        // Six pixels around (60, 60, 60): +-(40, 20, 0), +-(-10, 20, 0) and +-(0, 0, 9). Their covariance has the axes (2, 1, 0) / sqrt(5),
        // (-1, 2, 0) / sqrt(5) and (0, 0, 1) with the variances 2 * 2000 / 6, 2 * 500 / 6 and 2 * 81 / 6. A last image, apart from these, has no
        // influence.
        let bytes =
            vec![100, 80, 60, 20, 40, 60, 50, 80, 60, 70, 40, 60, 60, 60, 69, 60, 60, 51, 255, 0, 0, 0, 255, 255];
        let (root, unit) = (5f64.sqrt(), 255.0 * 255.0);
        let (a, b, c) = (2000.0 / 3.0 / unit, 500.0 / 3.0 / unit, 27.0 / unit);
        let expected = [[2.0 * a / root, a / root, 0.0], [-b / root, 2.0 * b / root, 0.0], [0.0, 0.0, c]];
        let near = |got: ColorAxes, scale: f64| {
            let pairs = got.0.as_flattened().iter().zip(expected.as_flattened());
            assert!(
                pairs.clone().all(|(x, y)| (x - y * scale).abs() < 1e-6 * a * scale),
                "{got:?}, expected {expected:?}"
            );
        };
        near(axes(Pixels::U8(bytes.clone()), &[0, 1, 2]).unwrap(), 255.0);
        // The same pixels from 0 to 1 have changes from 0 to 1.
        let floats = bytes.iter().map(|&x| f32::from(x) / 255.0).collect();
        near(axes(Pixels::F32(floats), &[0, 1, 2]).unwrap(), 1.0);
        assert_ne!(axes(Pixels::U8(bytes.clone()), &[0, 1, 2, 3]), axes(Pixels::U8(bytes), &[0, 1, 2]));
    }

    #[test]
    fn one_colour_has_no_axes() {
        let fault = axes(Pixels::U8([7, 8, 200].repeat(8)), &[0, 1, 2, 3]).unwrap_err();
        assert!(fault.message.ends_with("but they all have one colour; remove it"), "{}", fault.message);
        assert!(axes(Pixels::F32([0.1, 0.7, -3.3].repeat(8)), &[0, 1, 2, 3]).is_err());
    }
}
