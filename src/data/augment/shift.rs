//! Shifts: y[i + down, j + right] = x[i, j] by whole pixels; pixels from outside the image are 0.

use super::augmentation::{AugmentLaunch, Augmentation, Draws};
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
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
    /// Pixels down and right.
    fn draw(&self, _: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        let range = 2 * self.pixels as u64 + 1;
        let one = |index| draws.map_or(0.0, |draws| draws.below(index, range) as f32 - self.pixels as f32);
        to.copy_from_slice(&[one(0), one(1)]);
    }
    fn apply(&self, drawn: &[f32], shape: [usize; 3], x: &[f32], _: &mut Vec<f32>, y: &mut [f32]) {
        shift([drawn[0] as isize, drawn[1] as isize], shape, x, y);
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        let AugmentLaunch { x: (bytes, floats), draws, table, y, images, from: [h, w, c], stride, .. } = *launch;
        // SAFETY: x and y are (images, h, w, c) and do not overlap, and each image has `stride` drawn values.
        unsafe {
            any::augment_shift(&launch.issue, launch.grid, bytes, floats, draws, table, y, images, h, w, c, stride)
        }
    }
    fn examples() -> Vec<Self> {
        vec![Shift { pixels: 2 }]
    }
}

/// Computes y[i + down, j + right, c] = x[i, j, c], and 0 where there is no x.
fn shift([down, right]: [isize; 2], [h, w, c]: [usize; 3], x: &[f32], y: &mut [f32]) {
    let kept = w.saturating_sub(right.unsigned_abs()) * c;
    let (from, to) = (right.min(0).unsigned_abs() * c, right.max(0).unsigned_abs() * c);
    for (i, y) in y.chunks_exact_mut(w * c).enumerate() {
        y.fill(0.0);
        let source = i as isize - down;
        if (0..h as isize).contains(&source) && kept > 0 {
            let x = &x[source as usize * w * c..][..w * c];
            y[to..to + kept].copy_from_slice(&x[from..from + kept]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};

    #[test]
    fn a_shift_moves_pixels_and_fills_with_zero() {
        let x: Vec<f32> = (1..=12).map(|i| i as f32).collect();
        let mut y = vec![9.0; 12];
        shift([1, -1], [2, 3, 2], &x, &mut y);
        assert_eq!(y, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0]);
        shift([0, 2], [2, 3, 2], &x, &mut y);
        assert_eq!(y, [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 7.0, 8.0]);
        shift([0, 0], [2, 3, 2], &x, &mut y);
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
