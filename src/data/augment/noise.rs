//! Gaussian noise: y = x + s z for every value, with z standard normal.
//!
//! The host draws a key for each image; its words (Philox) become normal numbers by Wichura's quantile function (1988, algorithm AS 241,
//! <https://doi.org/10.2307/2347330>, 7 digits) in single precision, without fused operations, so that a GPU computes the same bits.

use super::augmentation::{AugmentLaunch, Augmentation};
use super::draws::Draws;
use crate::cpu::vectorized;
use crate::device::Random;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::settings::{POSITIVE, settings};

settings! {
    /// `{ noise = 8.0 }`: adds a normal random number to every value.
    pub struct Noise from std {
        /// The standard deviation, in the units of pixels as they are stored, before normalisation.
        pub std: f64, in POSITIVE, example "8.0";
    }
}

impl Augmentation for Noise {
    fn key(&self) -> &'static str {
        "noise"
    }
    fn output(&self, shape: [usize; 3]) -> Result<[usize; 3], Fault> {
        Ok(shape)
    }
    fn values_drawn(&self) -> usize {
        5
    }
    fn numbers(&self) -> u64 {
        2
    }
    /// The key in parts of 16 bits, which f32 holds exactly, and the deviation.
    fn draw(&self, _: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        for index in 0..2 {
            let word = draws.map_or(0, |draws| draws.below(index, 1 << 32));
            to[2 * index as usize] = (word & 0xffff) as f32;
            to[2 * index as usize + 1] = (word >> 16) as f32;
        }
        to[4] = draws.map_or(0.0, |_| self.std as f32);
    }
    fn apply(&self, drawn: &[f32], _: [usize; 3], x: &[f32], _: &mut Vec<f32>, y: &mut [f32]) {
        let key = [0, 2].map(|part| drawn[part] as u32 | (drawn[part + 1] as u32) << 16);
        let (random, std) = (Random::with_key(key), drawn[4]);
        vectorized(
            #[inline(always)]
            || {
                for (counter, (y, x)) in y.chunks_mut(4).zip(x.chunks(4)).enumerate() {
                    let words = random.words(counter as u64);
                    for ((y, &x), word) in y.iter_mut().zip(x).zip(words) {
                        *y = x + std * normal(word);
                    }
                }
            },
        );
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        let AugmentLaunch { x: (bytes, floats), draws, table, y, images, from: [h, w, c], stride, .. } = *launch;
        // SAFETY: x and y are (images, h, w, c) and do not overlap, and each image has `stride` drawn values. They launch one thread per
        // pixel of y.
        unsafe {
            any::augment_noise(&launch.issue, launch.grid, bytes, floats, draws, table, y, images, h, w, c, stride)
        }
    }
    fn examples() -> Vec<Self> {
        vec![Noise { std: 8.0 }]
    }
}

/// Returns the normal number of a random word: the quantile of p = (k + 1/2) / 2^23, where k are its upper 23 bits.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "the coefficients are as published")]
fn normal(word: u32) -> f32 {
    let p = ((word >> 9) as f32 + 0.5) * (1.0 / 8388608.0);
    let q = p - 0.5;
    let central = 0.180625 - q * q;
    let (a, b) = (
        ((59.109374720 * central + 159.29113202) * central + 50.434271938) * central + 3.3871327179,
        ((67.187563600 * central + 78.757757664) * central + 17.895169469) * central + 1.0,
    );
    let near = q * a / b;
    // Beyond 0.425 from the middle; elsewhere this is not used.
    let rest = if q < 0.0 { p } else { 1.0 - p };
    let r = (-logarithm(rest)).sqrt() - 1.6;
    let (c, d) = (
        ((0.17023821103 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777,
        (0.12021132975 * r + 0.73700164250) * r + 1.0,
    );
    let far = if q < 0.0 { -(c / d) } else { c / d };
    if q.abs() <= 0.425 { near } else { far }
}

/// Returns the natural logarithm of a positive normal number, to within 1e-7 of its size or of 1.
#[inline(always)]
fn logarithm(x: f32) -> f32 {
    let bits = x.to_bits();
    let mantissa = f32::from_bits(bits & 0x7f_ffff | 0x3f80_0000);
    let large = mantissa > std::f32::consts::SQRT_2;
    let m = if large { mantissa * 0.5 } else { mantissa };
    let exponent = (bits >> 23) as i32 - if large { 126 } else { 127 };
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = (((z * (1.0 / 9.0) + 1.0 / 7.0) * z + 0.2) * z + 1.0 / 3.0) * z + 1.0;
    exponent as f32 * std::f32::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::RandomStream;

    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        let word = |p: f64| ((p * 8388608.0 - 0.5).round() as u32) << 9;
        for (p, z) in [(0.5, 0.0), (0.841344746, 1.0), (0.977249868, 2.0), (0.99865010, 3.0), (0.001349898, -3.0)] {
            assert!((f64::from(normal(word(p))) - z).abs() < 2e-5, "{p}: {}", normal(word(p)));
        }
        // The ends, 5.3 deviations away, and the seams between the two formulas.
        assert!((f64::from(normal(0)) + 5.2947).abs() < 1e-3 && (f64::from(normal(!0)) - 5.2947).abs() < 1e-3);
        for seam in [0.075, 0.925] {
            let [a, b] = [word(seam), word(seam) + (1 << 9)].map(normal);
            assert!((a - b).abs() < 2e-6, "{a} {b}");
        }
        for x in [1e-7f32, 0.01, 0.3, 0.9999, 1.0, 1.5, 2.0] {
            assert!((logarithm(x) - x.ln()).abs() <= 2e-7 * x.ln().abs().max(1.0), "{x}: {}", logarithm(x));
        }
    }

    #[test]
    fn noise_has_its_deviation_and_other_keys_other_noise() {
        let (x, noise) = (vec![100.0; 20_001], Noise { std: 8.0 });
        let of = |sample| {
            let draws = Draws::new(Random::new(1, RandomStream::Augment, 0, sample), 0);
            let (mut drawn, mut y) = ([0.0; 5], vec![0.0; x.len()]);
            noise.draw([1, 20_001, 1], Some(&draws), &mut drawn);
            noise.apply(&drawn, [1, 20_001, 1], &x, &mut Vec::new(), &mut y);
            y
        };
        let (one, other) = (of(1), of(2));
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / x.len() as f64;
        let first = mean(&mut one.iter().map(|&y| f64::from(y) - 100.0));
        let square = mean(&mut one.iter().map(|&y| (f64::from(y) - 100.0).powi(2)));
        let product = mean(&mut one.iter().zip(&other).map(|(&a, &b)| f64::from(a - 100.0) * f64::from(b - 100.0)));
        assert!(
            first.abs() < 0.2 && (square.sqrt() - 8.0).abs() < 0.15 && product.abs() < 1.5,
            "{first} {square} {product}"
        );
        let fourth = mean(&mut one.iter().map(|&y| ((f64::from(y) - 100.0) / 8.0).powi(4)));
        assert!((fourth - 3.0).abs() < 0.2, "{fourth}");
    }
}
