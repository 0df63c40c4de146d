//! Shifts: y[i + down, j + right] = x[i, j] by whole pixels; pixels from outside the image are 0.

use super::augmentation::{AugmentLaunch, Augmentation};
use super::crop::{launch_part, part};
use super::draws::Draws;
use crate::error::{Fault, Result};
use crate::settings::{AT_LEAST_ONE, settings};

settings! {
    /// `{ shift = 2 }`: moves the image by whole pixels, what comes from outside it is 0.
    pub struct Shift from pixels {
        /// The largest distance s, vertically and horizontally; distances are uniform in -s to s.
        pub pixels: usize, in AT_LEAST_ONE, unit "pixels", example "2";
    }
}

impl Augmentation for Shift {
    fn key(&self) -> &'static str {
        "shift"
    }
    fn output(&self, shape: [usize; 3]) -> Result<[usize; 3], Fault> {
        let ([h, w, _], most) = (shape, self.pixels);
        if most >= h.min(w) {
            let least = h.min(w);
            let message =
                format!("shift = {most} can move images of {h}x{w} out of the frame, expected less than {least}");
            return Err(Fault::at("augment", message));
        }
        Ok(shape)
    }
    fn values_drawn(&self) -> usize {
        2
    }
    /// The first row and the first column, as of a crop that has the size of the image.
    fn draw(&self, _: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        let range = 2 * self.pixels as u64 + 1;
        let one = |index| draws.map_or(0.0, |draws| self.pixels as f32 - draws.below(index, range) as f32);
        to.copy_from_slice(&[one(0), one(1)]);
    }
    fn apply(&self, drawn: &[f32], shape: [usize; 3], x: &[f32], _: &mut Vec<f32>, y: &mut [f32]) {
        part(drawn, shape, [shape[0], shape[1]], x, y);
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        launch_part(launch)
    }
    fn examples() -> Vec<Self> {
        vec![Shift { pixels: 2 }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};

    #[test]
    fn a_shift_moves_pixels_and_fills_with_zero() {
        let x: Vec<f32> = (1..=12).map(|i| i as f32).collect();
        let shift = |[down, right]: [f32; 2], y: &mut [f32]| part(&[-down, -right], [2, 3, 2], [2, 3], &x, y);
        let mut y = vec![9.0; 12];
        shift([1.0, -1.0], &mut y);
        assert_eq!(y, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0]);
        shift([0.0, 2.0], &mut y);
        assert_eq!(y, [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 7.0, 8.0]);
        shift([0.0, 0.0], &mut y);
        assert_eq!(y, x);
    }

    #[test]
    fn shifts_reach_both_ends_equally_often() {
        let mut counts = [[0; 5]; 2];
        for sample in 0..5000 {
            let draws = Draws::new(Random::new(1, RandomStream::Augment, 0, sample), 0);
            let (mut x, mut y, mut drawn) = ([0.0; 25], [0.0; 25], [0.0; 2]);
            x[12] = 1.0;
            let step = Shift { pixels: 2 };
            step.draw([5, 5, 1], Some(&draws), &mut drawn);
            step.apply(&drawn, [5, 5, 1], &x, &mut Vec::new(), &mut y);
            let at = y.iter().position(|&v| v == 1.0).unwrap();
            counts[0][at / 5] += 1;
            counts[1][at % 5] += 1;
        }
        assert!(counts.as_flattened().iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn no_shift_moves_an_image_out_of_its_frame() {
        assert_eq!(Shift { pixels: 0 }.check().unwrap_err().message, "pixels = 0, expected at least 1");
        assert_eq!(
            Shift { pixels: 4 }.output([4, 8, 1]).unwrap_err().message,
            "shift = 4 can move images of 4x8 out of the frame, expected less than 4"
        );
        assert_eq!(Shift { pixels: 3 }.output([4, 8, 1]), Ok([4, 8, 1]));
    }
}
