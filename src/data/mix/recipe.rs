//! What becomes of two samples.

use crate::cpu::vectorized;

/// How a sample a and its partner b become one: b in a box, and weight a + (1 - weight) b outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// The weight of a outside the box.
    weight: f32,
    /// The first row and column of the box, and the row and column after it.
    corners: [usize; 4],
    /// The share of a in the target.
    share: f32,
}

impl Recipe {
    /// The number of its values, as a GPU receives them.
    pub const VALUES: usize = 5;
    /// All of a.
    pub const ALONE: Recipe = Recipe { weight: 1.0, corners: [0; 4], share: 1.0 };

    /// Returns a blend in which a has this weight.
    pub fn blend(weight: f64) -> Self {
        let weight = weight as f32;
        Recipe { weight, share: weight, ..Recipe::ALONE }
    }

    /// Returns the recipe of a box of b, given its first row and column, and the row and column after it, in images of h x w; its share is that of
    /// the pixels.
    pub fn cut(corners: [usize; 4], [h, w]: [usize; 2]) -> Self {
        let [top, left, bottom, right] = corners;
        let replaced = (bottom - top) * (right - left);
        Recipe { corners, share: ((h * w - replaced) as f64 / (h * w) as f64) as f32, ..Recipe::ALONE }
    }

    /// Returns the share of a in the target.
    pub fn share(&self) -> f32 {
        self.share
    }

    /// Returns the values that a GPU receives: the weight, and the corners of the box.
    pub(in crate::data) fn values(&self) -> [f32; Self::VALUES] {
        let [top, left, bottom, right] = self.corners.map(|at| at as f32);
        [self.weight, top, left, bottom, right]
    }

    /// Mixes images (H, W, C): `y` is a before, and the result after.
    pub(in crate::data) fn mix_images(&self, [_, w, c]: [usize; 3], y: &mut [f32], b: &[f32]) {
        if self.weight < 1.0 {
            blend(self.weight, y, b);
        }
        let [top, left, bottom, right] = self.corners;
        for row in top..bottom {
            let part = (row * w + left) * c..(row * w + right) * c;
            y[part.clone()].copy_from_slice(&b[part]);
        }
    }

    /// Mixes targets: `y` is that of a before, and the result after.
    pub(in crate::data) fn mix_targets(&self, y: &mut [f32], b: &[f32]) {
        blend(self.share, y, b);
    }
}

/// Every product is rounded on its own, as in kernels/augment_mix.cu.
fn blend(weight: f32, y: &mut [f32], b: &[f32]) {
    let other = 1.0 - weight;
    vectorized(
        #[inline(always)]
        || y.iter_mut().zip(b).for_each(|(y, &b)| *y = weight * *y + other * b),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blend_is_a_weighted_sum_of_pixels_and_of_targets() {
        let (mut y, mut target) = (vec![4.0, -8.0, 0.0, 1.0], vec![0.0, 1.0, 0.0]);
        let recipe = Recipe::blend(0.75);
        recipe.mix_images([2, 2, 1], &mut y, &[8.0, 8.0, -4.0, 1.0]);
        recipe.mix_targets(&mut target, &[1.0, 0.0, 0.0]);
        assert_eq!((y, target), (vec![5.0, -4.0, -1.0, 1.0], vec![0.25, 0.75, 0.0]));
    }

    #[test]
    fn a_box_replaces_all_channels_of_its_pixels_and_has_their_share() {
        let mut y: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..24).map(|i| 100.0 + i as f32).collect();
        // Rows 1 and 2, columns 0 and 1 of (3, 4, 2).
        let recipe = Recipe::cut([1, 0, 3, 2], [3, 4]);
        recipe.mix_images([3, 4, 2], &mut y, &b);
        let replaced: Vec<usize> = (0..24).filter(|&i| y[i] == b[i]).collect();
        assert_eq!(replaced, [8, 9, 10, 11, 16, 17, 18, 19]);
        assert!((0..24).all(|i| replaced.contains(&i) || y[i] == i as f32));
        assert_eq!(recipe.share(), 8.0 / 12.0);
        let mut target = vec![3.0, 0.0];
        recipe.mix_targets(&mut target, &[0.0, 6.0]);
        assert!((target[0] - 2.0).abs() < 1e-6 && (target[1] - 2.0).abs() < 1e-6, "{target:?}");
    }

    #[test]
    fn a_sample_alone_keeps_its_bits() {
        let mut y = [f32::INFINITY, -0.0, 3.5];
        Recipe::ALONE.mix_images([1, 3, 1], &mut y, &[f32::NAN; 3]);
        assert_eq!(y.map(f32::to_bits), [f32::INFINITY, -0.0, 3.5].map(f32::to_bits));
    }
}
