//! Scaling about the centre, with bilinear interpolation; pixels from outside the image are 0.

use super::affine::{launch_warp, output, warp};
use super::augmentation::{AugmentLaunch, Augmentation};
use super::draws::Draws;
use crate::error::{Fault, Result};
use crate::settings::{Range, settings};

const FACTORS: Range<[f64; 2]> = Range {
    text: "two factors from 0.01 to 100, the smaller one first",
    contains: |&[least, most]| least >= 0.01 && most <= 100.0 && least <= most,
};

settings! {
    /// `{ scale = [0.8, 1.25] }`: enlarges or shrinks what is on the image about its centre, with bilinear interpolation; what comes from
    /// outside it is 0.
    pub struct Scale from factors {
        /// The smallest and the largest factor; the logarithms of factors are uniform between theirs. Above 1, things grow.
        pub factors: [f64; 2], in FACTORS, example "[0.8, 1.25]";
        /// Whether height and width have factors of their own.
        pub stretch: bool = false;
    }
}

impl Augmentation for Scale {
    fn key(&self) -> &'static str {
        "scale"
    }
    fn output(&self, shape: [usize; 3]) -> Result<[usize; 3], Fault> {
        output(self.key(), shape)
    }
    fn values_drawn(&self) -> usize {
        4
    }
    fn numbers(&self) -> u64 {
        2
    }
    /// The map from the scaled image back.
    fn draw(&self, _: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        let [least, most] = self.factors.map(f64::ln);
        let factor = |index| draws.map_or(1.0, |draws| (-(least + (most - least) * draws.uniform(index))).exp() as f32);
        let height = factor(0);
        let width = if self.stretch { factor(1) } else { height };
        to.copy_from_slice(&[height, 0.0, 0.0, width]);
    }
    fn apply(&self, drawn: &[f32], shape: [usize; 3], x: &[f32], work: &mut Vec<f32>, y: &mut [f32]) {
        warp([drawn[0], drawn[1], drawn[2], drawn[3]], shape, x, work, y);
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        launch_warp(launch)
    }
    fn examples() -> Vec<Self> {
        vec![Scale { factors: [0.7, 1.4], stretch: false }, Scale { factors: [0.5, 0.9], stretch: true }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};

    #[test]
    fn twice_the_size_is_seen_at_half_the_distance() {
        let draws = Draws::new(Random::new(1, RandomStream::Augment, 0, 0), 0);
        let (mut drawn, mut y) = ([0.0; 4], [0.0; 5]);
        let twice = Scale { factors: [2.0, 2.0], stretch: false };
        twice.draw([1, 5, 1], Some(&draws), &mut drawn);
        twice.apply(&drawn, [1, 5, 1], &[1.0, 2.0, 3.0, 5.0, 9.0], &mut Vec::new(), &mut y);
        assert!(y.iter().zip([2.0, 2.5, 3.0, 4.0, 5.0]).all(|(y, expected)| (y - expected).abs() < 1e-5), "{y:?}");
    }

    #[test]
    fn factors_in_the_wrong_order_are_refused() {
        let message = Scale { factors: [1.5, 0.5], stretch: false }.check().unwrap_err().message;
        assert_eq!(message, "factors = [1.5, 0.5], expected two factors from 0.01 to 100, the smaller one first");
    }
}
