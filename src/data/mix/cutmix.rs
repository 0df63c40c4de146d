//! Cutmix: a box of one image replaces that of another (Yun et al. 2019, <https://arxiv.org/abs/1905.04899>).
//!
//! With l from Beta(alpha, alpha), the box has sqrt(1 - l) of the height and of the width, rounded, and its centre is uniform over the pixels. What reaches beyond
//! the image is cut off; targets are mixed by the share of the pixels that are left of a.

use super::beta::beta;
use super::mixture::Mixture;
use super::recipe::Recipe;
use crate::data::augment::Draws;
use crate::error::{Fault, Result};
use crate::settings::{POSITIVE, PROBABILITY, settings};

settings! {
    /// `{ cutmix = 1.0 }`: a box at a random place is taken from another sample; targets are mixed by the share of pixels.
    pub struct Cutmix from alpha {
        /// The share of pixels that stay, before the box is cut off at the edges of the image, is drawn from Beta(alpha, alpha).
        pub alpha: f64, in POSITIVE, example "1.0";
        /// The share of samples that are mixed.
        pub probability: f64 = 1.0, in PROBABILITY;
    }
}

impl Mixture for Cutmix {
    fn key(&self) -> &'static str {
        "cutmix"
    }
    fn suits(&self, shape: [usize; 3]) -> Result<(), Fault> {
        match shape {
            [1, 1, _] => Err(Fault::at("mix", "cutmix has no boxes in images of 1x1; use mixup")),
            _ => Ok(()),
        }
    }
    fn probability(&self) -> f64 {
        self.probability
    }
    fn draw(&self, [h, w, _]: [usize; 3], draws: &Draws) -> Recipe {
        let side = (1.0 - beta(self.alpha, draws, 0)).sqrt();
        let range = |index, extent: usize| {
            let size = (side * extent as f64).round() as usize;
            let end = draws.below(index, extent as u64) as usize + size - size / 2;
            // The centre is pixel size / 2 of the box.
            [end.saturating_sub(size), end.min(extent)]
        };
        let ([top, bottom], [left, right]) = (range(2, h), range(3, w));
        Recipe::cut([top, left, bottom, right], [h, w])
    }
    fn examples() -> Vec<Self> {
        vec![Cutmix { alpha: 1.0, probability: 1.0 }, Cutmix { alpha: 0.5, probability: 0.7 }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};

    /// Returns the pixels that a box replaces, and the share.
    fn replaced(sample: u64, [h, w]: [usize; 2], alpha: f64) -> (Vec<bool>, f32) {
        let draws = Draws::new(Random::new(1, RandomStream::Mix, 0, sample), 0);
        let recipe = Cutmix { alpha, probability: 1.0 }.draw([h, w, 1], &draws);
        let mut y = vec![0.0; h * w];
        recipe.mix_images([h, w, 1], &mut y, &vec![1.0; h * w]);
        (y.iter().map(|&y| y == 1.0).collect(), recipe.share())
    }

    #[test]
    fn shares_of_targets_are_those_of_pixels() {
        for sample in 0..500 {
            let (pixels, share) = replaced(sample, [6, 9], 1.0);
            let kept = pixels.iter().filter(|replaced| !**replaced).count();
            assert_eq!(share, kept as f32 / 54.0);
        }
    }

    #[test]
    fn boxes_have_their_sizes_and_reach_every_pixel() {
        // With a large alpha, l is 1/2: boxes have 0.7071 of 20 and 30 pixels, 14 and 21 if nothing is cut off.
        let (mut reached, mut largest) = (vec![0; 600], 0);
        for sample in 0..4000 {
            let (pixels, _) = replaced(sample, [20, 30], 1e9);
            largest = largest.max(pixels.iter().filter(|replaced| **replaced).count());
            reached.iter_mut().zip(pixels).for_each(|(count, replaced)| *count += usize::from(replaced));
        }
        assert_eq!(largest, 14 * 21);
        // A corner is within the box of the centres up to 7 rows and 11 columns away: (7 / 20) (10 or 11 / 30) of them. The middle is in most.
        for corner in [0, 29, 570, 599] {
            assert!((300..700).contains(&reached[corner]), "{corner}: {}", reached[corner]);
        }
        assert!(reached[10 * 30 + 15] > 1900, "{}", reached[10 * 30 + 15]);
        // The centres are uniform: mirror images are equally likely, up to the pixel by which an even box is off its centre.
        let half: usize = reached[..300].iter().sum();
        let all: usize = reached.iter().sum();
        assert!((half as f64 / all as f64 - 0.5).abs() < 0.03, "{half} of {all}");
    }

    #[test]
    fn single_pixels_have_no_boxes() {
        let message = Cutmix { alpha: 1.0, probability: 1.0 }.suits([1, 1, 3]).unwrap_err().message;
        assert_eq!(message, "cutmix has no boxes in images of 1x1; use mixup");
        assert_eq!(Cutmix { alpha: 1.0, probability: 1.0 }.suits([1, 2, 3]), Ok(()));
    }
}
