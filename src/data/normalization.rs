//! The normalisation of pixels, by channel or by feature.

use super::samples::ImageView;
use super::{Dataset, GivenNormalization, Normalize, PixelType};
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};

/// The normalisation of pixels: y = (x / scale - mean\[i\]) / std\[i\], every operation in f32, where i is
/// the channel of a value, or its index in the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Constants")]
pub struct Normalization {
    /// Divisor of raw pixels: 255 or 1.
    pub scale: f32,
    /// Mean of each channel, or of each feature, after the division by `scale`.
    pub mean: Vec<f32>,
    /// Standard deviation of each after the division by `scale`.
    pub std: Vec<f32>,
    /// y of every 8-bit x, for each mean: (means, 256); empty if there are many.
    #[serde(skip)]
    table: Vec<f32>,
}

/// A normalisation as checkpoints store it.
#[derive(Deserialize)]
struct Constants {
    scale: f32,
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl TryFrom<Constants> for Normalization {
    type Error = String;
    fn try_from(Constants { scale, mean, std }: Constants) -> Result<Self, String> {
        let divisors = std.iter().chain([&scale]).all(|x| *x > 0.0 && x.is_finite());
        if mean.len() != std.len() || mean.is_empty() || !divisors || !mean.iter().all(|x| x.is_finite()) {
            return Err(format!(
                "a normalisation with scale {scale}, {} means and {} deviations, expected one of each for every channel, \
                 all finite, and scale and deviations above 0",
                mean.len(),
                std.len()
            ));
        }
        Ok(Normalization { scale, mean, std, table: Vec::new() }.tabulated())
    }
}

impl Normalization {
    /// Computes the normalisation of a data set, measured on some of its samples.
    ///
    /// # Errors
    /// A channel whose pixels are all equal cannot be standardised, unless by feature; nor can images that cannot be read.
    pub fn new(how: Normalize, data: &Dataset, samples: &[u32]) -> Result<Self, Fault> {
        let by_feature = how == Normalize::StandardizeFeatures;
        let channels = data.shape[2];
        let means = if by_feature { data.features() } else { data.shape[2] };
        let scale = match (&how, data.pixels) {
            (Normalize::None, _) | (_, PixelType::F32) => 1.0,
            (_, PixelType::U8) => 255.0,
        };
        let mut normalization =
            Normalization { scale, mean: vec![0.0; means], std: vec![1.0; means], table: Vec::new() };
        if let Normalize::Given(GivenNormalization { mean, std }) = &how {
            (normalization.mean, normalization.std) = (mean.of(channels), std.of(channels));
        }
        if how.is_measured() {
            let moments = moments(data, samples, means).map_err(|error| Fault::at("train", error.with_causes()))?;
            for (c, [mean, std]) in moments.into_iter().enumerate() {
                normalization.mean[c] = (mean / f64::from(scale)) as f32;
                normalization.std[c] = (std / f64::from(scale)) as f32;
                if normalization.std[c] == 0.0 && by_feature {
                    normalization.std[c] = 1.0;
                } else if normalization.std[c] == 0.0 {
                    let message = format!(
                        "normalize = \"standardize\" divides by the standard deviation, but channel {c} of the \
                         training images is {mean} everywhere; use \"none\" or \"unit\""
                    );
                    return Err(Fault::at("normalize", message));
                }
            }
        }
        Ok(normalization.tabulated())
    }

    fn tabulated(mut self) -> Self {
        let means = if self.mean.len() > MOST_TABULATED { 0 } else { self.mean.len() };
        let all = (0..means).flat_map(|c| (0..=255u8).map(move |x| (c, x)));
        self.table = all.map(|(c, x)| self.one(c, x.into())).collect();
        self
    }

    #[inline(always)]
    fn one(&self, c: usize, x: f32) -> f32 {
        (x / self.scale - self.mean[c]) / self.std[c]
    }

    /// Normalises raw pixels (H, W, C).
    pub(super) fn floats(&self, x: &[f32], y: &mut [f32]) {
        let channels = self.mean.len();
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
            for c in 0..channels {
                y[c] = self.one(c, x[c]);
            }
        }
    }

    /// Normalises raw 8-bit pixels (H, W, C): the same bits as [`Normalization::floats`] of the same values.
    pub(super) fn bytes(&self, x: &[u8], y: &mut [f32]) {
        let channels = self.mean.len();
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
            for c in 0..channels {
                y[c] = match self.table.get(c * 256 + usize::from(x[c])) {
                    Some(&tabulated) => tabulated,
                    None => self.one(c, f32::from(x[c])),
                };
            }
        }
    }
}

/// The most means for which y of every 8-bit x is tabulated.
const MOST_TABULATED: usize = 4096;

/// Returns mean and standard deviation of the raw values with the same index modulo `channels`, the number of channels or of all values of an
/// image, in f64 and in the order of the samples.
///
/// # Errors
/// If an image cannot be read.
pub(super) fn moments(data: &Dataset, samples: &[u32], channels: usize) -> Result<Vec<[f64; 2]>> {
    let count = (samples.len() * data.features() / channels) as f64;
    let indices = || samples.iter().map(|&sample| sample as usize);
    match data.pixels {
        PixelType::U8 if channels <= MOST_TABULATED => {
            let parts = data.fold(
                samples,
                || vec![[0u64; 256]; channels],
                |histograms, image| {
                    let ImageView::U8(x) = image else { return };
                    for pixel in x.chunks_exact(channels) {
                        pixel.iter().zip(&mut *histograms).for_each(|(&x, histogram)| histogram[usize::from(x)] += 1);
                    }
                },
            )?;
            let mut histograms = vec![[0u64; 256]; channels];
            for part in parts {
                let sums = histograms.as_flattened_mut().iter_mut();
                sums.zip(part.as_flattened()).for_each(|(sum, &count)| *sum += count);
            }
            let moments = |histogram: &[u64; 256]| {
                let over = |f: &dyn Fn(f64) -> f64| {
                    histogram.iter().enumerate().fold(0.0, |sum, (x, &n)| sum + n as f64 * f(x as f64)) / count
                };
                let mean = over(&|x| x);
                [mean, over(&|x| (x - mean) * (x - mean)).sqrt()]
            };
            Ok(histograms.iter().map(moments).collect())
        }
        _ => {
            let sums = |f: &dyn Fn(usize, f64) -> f64| -> Result<Vec<f64>> {
                let mut sums = vec![0.0; channels];
                data.each(indices(), |image| {
                    each_value(image, |i, x| sums[i % channels] += f(i % channels, f64::from(x)));
                })?;
                Ok(sums)
            };
            // Differences from one pixel, so that a constant channel has a standard deviation of exactly zero.
            let mut one = Vec::new();
            data.each(indices().take(1), |image| {
                each_value(image, |i, x| {
                    if i < channels {
                        one.push(x)
                    }
                })
            })?;
            let offsets = sums(&|c, x| x - f64::from(one[c]))?;
            let means: Vec<f64> = one.iter().zip(offsets).map(|(&x, sum)| f64::from(x) + sum / count).collect();
            let squares = sums(&|c, x| (x - means[c]) * (x - means[c]))?;
            Ok(means.iter().zip(squares).map(|(&mean, square)| [mean, (square / count).sqrt()]).collect())
        }
    }
}

/// Calls `visit(index, value)` for the values of an image.
fn each_value(image: ImageView, mut visit: impl FnMut(usize, f32)) {
    match image {
        ImageView::U8(x) => x.iter().enumerate().for_each(|(i, &x)| visit(i, f32::from(x))),
        ImageView::F32(x) => x.iter().enumerate().for_each(|(i, &x)| visit(i, x)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Labels, Pixels};
    use super::*;

    fn dataset(pixels: Pixels, images: usize, shape: [usize; 3]) -> Dataset {
        Dataset::loaded(pixels, Labels::Index(vec![0; images]), shape, 1)
    }

    #[test]
    fn standardised_channels_have_mean_0_and_deviation_1_over_the_samples_measured() {
        let bytes: Vec<u8> = (0..60u32).map(|i| (i * i % 251) as u8).collect();
        let floats: Vec<f32> = bytes.iter().map(|&x| f32::from(x)).collect();
        let shape = [2, 3, 2];
        let samples = [0, 2, 3];
        for pixels in [Pixels::U8(bytes), Pixels::F32(floats.clone())] {
            let data = dataset(pixels, 5, shape);
            let n = Normalization::new(Normalize::Standardize, &data, &samples).unwrap();
            let mut y = vec![0.0; 60];
            match &data.all_pixels().unwrap() {
                Pixels::U8(x) => n.bytes(x, &mut y),
                Pixels::F32(x) => n.floats(x, &mut y),
            }
            for c in 0..2 {
                let values: Vec<f32> = samples
                    .iter()
                    .flat_map(|&s| y[s as usize * 12..][..12].iter().skip(c).step_by(2).copied())
                    .collect();
                let mean = values.iter().sum::<f32>() / 18.0;
                let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / 18.0;
                // Rounding of 18 values of size 1 in f32.
                assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
            }
        }
    }

    #[test]
    fn bytes_and_the_same_floats_are_normalised_to_the_same_bits() {
        let bytes: Vec<u8> = (0..=255).collect();
        let floats: Vec<f32> = bytes.iter().map(|&x| f32::from(x)).collect();
        let data = dataset(Pixels::U8(bytes.clone()), 1, [16, 8, 2]);
        for how in [Normalize::None, Normalize::Unit, Normalize::Standardize] {
            let n = Normalization::new(how.clone(), &data, &[0]).unwrap();
            let (mut a, mut b) = (vec![0.0; 256], vec![0.0; 256]);
            n.bytes(&bytes, &mut a);
            n.floats(&floats, &mut b);
            assert_eq!(a, b);
            if how == Normalize::Unit {
                assert!(a.iter().zip(&floats).all(|(a, x)| *a == x / 255.0));
            }
        }
    }

    #[test]
    fn features_are_standardised_one_by_one_and_constant_ones_are_shifted() {
        let bytes: Vec<u8> = (0..60u32).map(|i| if i % 12 == 5 { 7 } else { (i * i % 251) as u8 }).collect();
        let floats: Vec<f32> = bytes.iter().map(|&x| f32::from(x)).collect();
        let how = Normalize::StandardizeFeatures;
        let samples = [0, 1, 2, 3, 4];
        let mut all = Vec::new();
        for pixels in [Pixels::U8(bytes.clone()), Pixels::F32(floats.clone())] {
            let data = dataset(pixels, 5, [2, 3, 2]);
            let n = Normalization::new(how.clone(), &data, &samples).unwrap();
            let mut y = vec![0.0; 60];
            for (x, y) in bytes.chunks(12).zip(y.chunks_mut(12)) {
                n.bytes(x, y);
            }
            if n.scale == 1.0 {
                n.floats(&floats, &mut y);
            }
            for feature in 0..12 {
                let values = || (0..5).map(|image| f64::from(y[image * 12 + feature]));
                let mean = values().sum::<f64>() / 5.0;
                let variance = values().map(|y| y * y).sum::<f64>() / 5.0;
                let expected = if feature == 5 { 0.0 } else { 1.0 };
                assert!(mean.abs() < 1e-6 && (variance - expected).abs() < 1e-5, "{feature}: {mean} {variance}");
            }
            all.push(y);
        }
        assert!(all[0].iter().zip(&all[1]).all(|(a, b)| (a - b).abs() < 1e-5));
        // Too many features for histograms and tables: the same values.
        let wide: Vec<u8> = (0..3 * 5000u32).map(|i| (i * 7 % 251) as u8).collect();
        let data = dataset(Pixels::U8(wide.clone()), 3, [50, 50, 2]);
        let n = Normalization::new(how, &data, &[0, 1, 2]).unwrap();
        let mut y = vec![0.0; 5000];
        n.bytes(&wide[5000..10_000], &mut y);
        let [a, b, c] = [0, 1, 2].map(|image| f64::from(wide[image * 5000 + 123]));
        let mean = (a + b + c) / 3.0;
        let deviation = (((a - mean).powi(2) + (b - mean).powi(2) + (c - mean).powi(2)) / 3.0).sqrt();
        assert!((f64::from(y[123]) - (b - mean) / deviation).abs() < 1e-5, "{}", y[123]);
    }

    #[test]
    fn a_constant_channel_cannot_be_standardised() {
        let data = dataset(Pixels::U8(vec![7, 1, 7, 2]), 1, [2, 1, 2]);
        let fault = Normalization::new(Normalize::Standardize, &data, &[0]).unwrap_err();
        assert_eq!(
            fault.message,
            "normalize = \"standardize\" divides by the standard deviation, but channel 0 of the training images is 7 \
             everywhere; use \"none\" or \"unit\""
        );
        let data = dataset(Pixels::F32(vec![0.1; 7]), 1, [7, 1, 1]);
        assert!(Normalization::new(Normalize::Standardize, &data, &[0]).is_err());
        // The deviation is above 0 in f64 and 0 in f32.
        let data = dataset(Pixels::F32(vec![0.0, f32::from_bits(1), 0.0, 0.0, 0.0, 0.0, 0.0]), 1, [7, 1, 1]);
        assert!(Normalization::new(Normalize::Standardize, &data, &[0]).is_err());
    }
}
