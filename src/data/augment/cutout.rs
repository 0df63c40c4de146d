//! Cutout: a square of the image is replaced by one value (DeVries and Taylor 2017, <https://arxiv.org/abs/1708.04552>).

use super::augmentation::{AugmentLaunch, Augmentation};
use super::draws::Draws;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::settings::{AT_LEAST_ONE, FINITE, settings};

settings! {
    /// `{ cutout = 8 }`: replaces a square at a random place by one value. Its centre is uniform over the pixels, so it may reach beyond the image.
    pub struct Cutout from size {
        /// The height and width of the square.
        pub size: usize, in AT_LEAST_ONE, unit "pixels", example "8";
        /// The value, as pixels are stored, before normalisation.
        pub fill: f64 = 0.0, in FINITE;
    }
}

impl Augmentation for Cutout {
    fn key(&self) -> &'static str {
        "cutout"
    }
    fn output(&self, shape: [usize; 3]) -> Result<[usize; 3], Fault> {
        let ([h, w, _], size) = (shape, self.size);
        if size > h.max(w) {
            let message = format!("cutout = {size} can replace whole images of {h}x{w}, expected at most {}", h.max(w));
            return Err(Fault::at("augment", message));
        }
        Ok(shape)
    }
    fn values_drawn(&self) -> usize {
        4
    }
    fn numbers(&self) -> u64 {
        2
    }
    /// The first row and the first column, the size, and the value.
    fn draw(&self, [h, w, _]: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        let first = |index, extent: usize| {
            let centre = draws.map_or(0, |draws| draws.below(index, extent as u64));
            centre as f32 - (self.size / 2) as f32
        };
        let size = draws.map_or(0, |_| self.size);
        to.copy_from_slice(&[first(0, h), first(1, w), size as f32, self.fill as f32]);
    }
    fn apply(&self, drawn: &[f32], [h, w, c]: [usize; 3], x: &[f32], _: &mut Vec<f32>, y: &mut [f32]) {
        y.copy_from_slice(x);
        let part = |first: f32, extent: usize| {
            let clamp = |at: f32| at.clamp(0.0, extent as f32) as usize;
            clamp(first)..clamp(first + drawn[2])
        };
        let columns = part(drawn[1], w);
        for row in part(drawn[0], h) {
            y[(row * w + columns.start) * c..(row * w + columns.end) * c].fill(drawn[3]);
        }
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        let AugmentLaunch { x: (bytes, floats), draws, table, y, images, from: [h, w, c], stride, .. } = *launch;
        // SAFETY: x and y are (images, h, w, c) and do not overlap, and each image has `stride` drawn values. They launch one thread per
        // pixel of y.
        unsafe {
            any::augment_cutout(&launch.issue, launch.grid, bytes, floats, draws, table, y, images, h, w, c, stride)
        }
    }
    fn examples() -> Vec<Self> {
        vec![Cutout { size: 4, fill: 0.0 }, Cutout { size: 5, fill: 127.5 }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};

    #[test]
    fn a_square_is_replaced_and_its_centre_may_be_any_pixel() {
        let cutout = Cutout { size: 3, fill: 7.0 };
        let (x, mut y) = ([1.0; 20], [0.0; 20]);
        cutout.apply(&[-1.0, 3.0, 3.0, 7.0], [4, 5, 1], &x, &mut Vec::new(), &mut y);
        let filled: Vec<usize> = (0..20).filter(|&i| y[i] == 7.0).collect();
        assert_eq!(filled, [3, 4, 8, 9]);
        let mut centres = [0; 20];
        for sample in 0..4000 {
            let draws = Draws::new(Random::new(1, RandomStream::Augment, 0, sample), 0);
            let mut drawn = [0.0; 4];
            cutout.draw([4, 5, 1], Some(&draws), &mut drawn);
            centres[((drawn[0] + 1.0) * 5.0 + drawn[1] + 1.0) as usize] += 1;
        }
        assert!(centres.iter().all(|count| (140..260).contains(count)), "{centres:?}");
        assert!(Cutout { size: 6, fill: 0.0 }.output([4, 5, 1]).is_err());
    }
}
