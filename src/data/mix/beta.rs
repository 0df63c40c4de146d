//! Symmetric beta numbers, from two uniform ones each: with T = sqrt(2 a (U^(-1/a) - 1)) cos(2 pi V), which has Student's t distribution of 2 a degrees
//! of freedom (Bailey 1994, <https://doi.org/10.1090/S0025-5718-1994-1219705-X>), (1 + T / sqrt(2 a + T^2)) / 2 is Beta(a, a) (Devroye 1996, "Random
//! variate generation in one line of code").

use crate::data::augment::Draws;

/// Returns a Beta(alpha, alpha) number in [0, 1], from numbers `index` and `index + 1`.
pub(super) fn beta(alpha: f64, draws: &Draws, index: u64) -> f64 {
    // 1 - U is in (0, 1], where the logarithm is finite.
    let excess = (-(1.0 - draws.uniform(index)).ln() / alpha).exp_m1();
    let cosine = (std::f64::consts::TAU * draws.uniform(index + 1)).cos();
    (1.0 + cosine.signum() / (1.0 + 1.0 / (excess * cosine * cosine)).sqrt()) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};

    const COUNT: usize = 20_000;

    type Distribution = fn(f64) -> f64;

    fn sample(alpha: f64) -> Vec<f64> {
        let draws = Draws::new(Random::new(5, RandomStream::Mix, 0, 0), 0);
        (0..COUNT as u64).map(|i| beta(alpha, &draws, 2 * i)).collect()
    }

    #[test]
    fn numbers_have_the_mean_and_the_variance_of_the_distribution() {
        for alpha in [0.05, 0.2, 0.5, 1.0, 2.0, 8.0, 100.0] {
            let all = sample(alpha);
            let mean = all.iter().sum::<f64>() / COUNT as f64;
            let square = all.iter().map(|x| (x - 0.5).powi(2)).sum::<f64>() / COUNT as f64;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!(all.iter().all(|x| (0.0..=1.0).contains(x)));
            // Four standard errors of the mean; those of the variance are at most as large in proportion.
            assert!((mean - 0.5).abs() < 4.0 * (expected / COUNT as f64).sqrt(), "{alpha}: {mean}");
            assert!((square / expected - 1.0).abs() < 4.0 * (2.0 / COUNT as f64).sqrt(), "{alpha}: {square}");
        }
    }

    #[test]
    fn numbers_follow_the_known_distribution_functions() {
        let cases: [(f64, Distribution); 4] = [
            (0.5, |x| x.sqrt().asin() * std::f64::consts::FRAC_2_PI),
            (1.0, |x| x),
            (2.0, |x| x * x * (3.0 - 2.0 * x)),
            (3.0, |x| x.powi(3) * (10.0 - 15.0 * x + 6.0 * x * x)),
        ];
        for (alpha, exact) in cases {
            let mut all = sample(alpha);
            all.sort_by(f64::total_cmp);
            let at = |i: usize| i as f64 / COUNT as f64;
            let apart = |(i, &x): (usize, &f64)| (exact(x) - at(i)).abs().max((exact(x) - at(i + 1)).abs());
            let largest = all.iter().enumerate().map(apart).fold(0.0, f64::max);
            // Kolmogorov and Smirnov: beyond 1.63 / sqrt(n) with a probability of 1 %.
            assert!(largest < 1.63 / (COUNT as f64).sqrt(), "{alpha}: {largest}");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_numbers() {
        for alpha in [f64::MIN_POSITIVE, 1e-3, 1e9, f64::MAX] {
            let all = sample(alpha);
            assert!(all.iter().all(|x| (0.0..=1.0).contains(x)), "{alpha}");
            let middle = all.iter().filter(|&&x| (x - 0.5).abs() < 1e-3).count();
            assert_eq!(middle, if alpha > 1.0 { COUNT } else { 0 }, "{alpha}");
        }
    }
}
