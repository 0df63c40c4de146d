//! Augmentation: random changes to each training image, drawn again for every epoch.
//!
//! Step k of the list draws counters 2k and 2k + 1 of the stream (seed, epoch, index of the sample in its data set), so
//! the result depends on nothing else: not on the batch, the device, the threads or a restart. The host draws; the
//! pixels are moved on the host or on a GPU, with bit-identical results.
//!
//! To add a step: add a variant to [`Augment`], its arms in `check`, `fits`, `draw`, `apply` and `launch`, and a kernel
//! `augment_x` in `kernels/augment.cu`.

use crate::cpu::vectorized;
use crate::device::Random;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::gpu::{AnyMut, Const, Grid, Issue};
use serde::Deserialize;

/// One step of augmentation. Steps process raw pixels, before normalisation; pixels from outside the image are 0.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    /// `{ shift = 2 }`: shifts the image by whole pixels, uniform in -s..=s, vertically and horizontally; s is at least
    /// 1.
    Shift(usize),
    /// `{ rotate = 15.0 }`: rotates the image counter-clockwise about its centre by an angle uniform in -d to d
    /// degrees, 0 < d <= 180, with bilinear interpolation.
    Rotate(f64),
}

/// The launch of one step of augmentation: y from x, both raw; the last step normalises y by the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct AugmentLaunch<'a> {
    pub issue: Issue<'a>,
    /// One thread per pixel, a row per image.
    pub grid: Grid,
    /// Bytes or floats: (images, h, w, c).
    pub x: (Const<u8>, Const<f32>),
    /// (images, steps, 2), starting at the draws of this step.
    pub draws: Const<f32>,
    /// (1 + 2 c), or null.
    pub table: Const<f32>,
    /// (images, h, w, c); f32, except in the last step of a run in bf16.
    pub y: AnyMut,
    /// Images, pixels of each, h, w, c, steps.
    pub extents: [i32; 6],
}

impl Augment {
    /// Checks the range of the setting.
    ///
    /// # Errors
    /// A setting out of range, as a fault of the key `augment`.
    pub fn check(&self) -> Result<(), Fault> {
        match *self {
            Augment::Shift(0) => Err(Fault::at("augment", "shift = 0, expected at least 1 pixel")),
            Augment::Rotate(degrees) if !(degrees > 0.0 && degrees <= 180.0) => {
                Err(Fault::at("augment", format!("rotate = {degrees}, expected 0 < degrees <= 180")))
            }
            _ => Ok(()),
        }
    }

    /// Checks the step against the shape (H, W, C) of the images.
    ///
    /// # Errors
    /// A step that could move the whole image out of the frame, or that has no effect.
    pub fn fits(&self, [h, w, _]: [usize; 3]) -> Result<(), Fault> {
        match *self {
            Augment::Shift(most) if most >= h.min(w) => Err(Fault::at(
                "augment",
                format!("shift = {most} can move images of {h}x{w} out of the frame, expected less than {}", h.min(w)),
            )),
            Augment::Rotate(_) if h == 1 && w == 1 => {
                Err(Fault::at("augment", "rotate has no effect on images of 1x1; remove it"))
            }
            _ => Ok(()),
        }
    }

    /// The number of random draws of a step per image.
    pub const DRAWS: usize = 2;

    /// Draws the values for step `step` of the list: pixels down and right, or sine and cosine of the angle.
    pub(super) fn draw(&self, random: &Random, step: usize) -> [f32; Self::DRAWS] {
        let counter = 2 * step as u64;
        match *self {
            Augment::Shift(most) => {
                let draw = |counter| random.below(counter, 2 * most as u64 + 1) as f32 - most as f32;
                [draw(counter), draw(counter + 1)]
            }
            Augment::Rotate(degrees) => {
                let (sine, cosine) = ((2.0 * random.uniform(counter) - 1.0) * degrees).to_radians().sin_cos();
                [sine as f32, cosine as f32]
            }
        }
    }

    /// Computes `y` from `x`, both (H, W, C), with the values in `drawn`. `work` is scratch memory for one shape, empty
    /// at first and kept between calls.
    pub(super) fn apply(
        &self,
        drawn: [f32; Self::DRAWS],
        shape: [usize; 3],
        x: &[f32],
        work: &mut Vec<f32>,
        y: &mut [f32],
    ) {
        match *self {
            Augment::Shift(_) => shift(drawn.map(|pixels| pixels as isize), shape, x, y),
            Augment::Rotate(_) => rotate(drawn, shape, x, work, y),
        }
    }

    /// Launches the step on a GPU.
    ///
    /// # Errors
    /// When the launch fails.
    pub(super) fn launch(&self, args: &AugmentLaunch) -> Result<()> {
        let AugmentLaunch { ref issue, grid, x, draws, table, y, extents: [images, pixels, h, w, c, steps] } = *args;
        let (bytes, floats) = x;
        let launch = match self {
            Augment::Shift(_) => any::augment_shift,
            Augment::Rotate(_) => any::augment_rotate,
        };
        // SAFETY: x and y have the shape (images, h, w, c) and do not overlap, and there are draws for every image.
        unsafe { launch(issue, grid, bytes, floats, draws, table, y, images, pixels, h, w, c, steps) }
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

/// Rotates an image counter-clockwise about ((H - 1) / 2, (W - 1) / 2): y at p is x at p rotated back, bilinear.
fn rotate(turn: [f32; 2], [h, w, c]: [usize; 3], x: &[f32], framed: &mut Vec<f32>, y: &mut [f32]) {
    // A frame of zeros, one pixel before and two after the image, so that reading neighbours needs no bounds check.
    let across = (w + 3) * c;
    framed.resize((h + 3) * across, 0.0);
    for (framed, x) in framed[across..].chunks_exact_mut(across).zip(x.chunks_exact(w * c)) {
        framed[c..(w + 1) * c].copy_from_slice(x);
    }
    vectorized(
        #[inline(always)]
        || match c {
            // The two common numbers of channels are compile-time constants.
            1 => turned(turn, [h, w, 1], framed, y),
            3 => turned(turn, [h, w, 3], framed, y),
            _ => turned(turn, [h, w, c], framed, y),
        },
    );
}

#[inline(always)]
fn turned([sin, cos]: [f32; 2], [h, w, c]: [usize; 3], framed: &[f32], y: &mut [f32]) {
    let (middle_i, middle_j) = ((h - 1) as f32 / 2.0, (w - 1) as f32 / 2.0);
    let (last_i, last_j) = ((h + 1) as f32, (w + 1) as f32);
    let across = (w + 3) * c;
    for (row, y) in y.chunks_exact_mut(w * c).enumerate() {
        let di = row as f32 - middle_i;
        for (column, y) in y.chunks_exact_mut(c).enumerate() {
            let dj = column as f32 - middle_j;
            // Coordinates in the framed image; positions far outside are clamped to the frame.
            let i = (sin * dj + cos * di + middle_i + 1.0).clamp(0.0, last_i);
            let j = (cos * dj - sin * di + middle_j + 1.0).clamp(0.0, last_j);
            let (top, left) = (i as i32, j as i32);
            let (down, right) = (i - top as f32, j - left as f32);
            let start = top as usize * across + left as usize * c;
            let (upper, lower) = (&framed[start..][..2 * c], &framed[start + across..][..2 * c]);
            for k in 0..c {
                y[k] = (1.0 - down) * ((1.0 - right) * upper[k] + right * upper[k + c])
                    + down * ((1.0 - right) * lower[k] + right * lower[k + c]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::RandomStream;

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
    fn a_quarter_turn_is_counter_clockwise_and_no_turn_is_exact() {
        let x: Vec<f32> = (0..9).map(|i| i as f32).collect();
        let mut y = vec![0.0; 9];
        let mut work = Vec::new();
        rotate([0.0, 1.0], [3, 3, 1], &x, &mut work, &mut y);
        assert_eq!(y, x);
        rotate([1.0, 0.0], [3, 3, 1], &x, &mut work, &mut y);
        let turned = [2.0, 5.0, 8.0, 1.0, 4.0, 7.0, 0.0, 3.0, 6.0];
        assert!(y.iter().zip(turned).all(|(y, t)| (y - t).abs() < 1e-5), "{y:?}");
    }

    #[test]
    fn channels_rotate_alike_whatever_their_number() {
        let plane: Vec<f32> = (0..20).map(|i| (i * i % 17) as f32).collect();
        let turn = [0.4f32.sin(), 0.4f32.cos()];
        let mut expected = vec![0.0; 20];
        rotate(turn, [4, 5, 1], &plane, &mut Vec::new(), &mut expected);
        for c in [2, 3, 4] {
            let x: Vec<f32> = plane.iter().flat_map(|&v| (0..c).map(move |k| v * (1 << k) as f32)).collect();
            let mut y = vec![0.0; 20 * c];
            rotate(turn, [4, 5, c], &x, &mut Vec::new(), &mut y);
            assert!(y.iter().enumerate().all(|(i, &v)| v == expected[i / c] * (1 << (i % c)) as f32));
        }
    }

    #[test]
    fn half_a_pixel_is_the_mean_of_its_neighbours() {
        let mut y = vec![0.0; 2];
        rotate([1.0, 0.0], [1, 2, 1], &[2.0, 4.0], &mut Vec::new(), &mut y);
        // Both pixels rotate back to half a row above or below the only row.
        assert!((y[0] - 1.5).abs() < 1e-5 && (y[1] - 1.5).abs() < 1e-5, "{y:?}");
    }

    #[test]
    fn shifts_reach_both_ends_equally_often() {
        let mut counts = [[0; 5]; 2];
        for sample in 0..5000 {
            let random = Random::new(1, RandomStream::Augment, 0, sample);
            let (mut x, mut y) = ([0.0; 25], [0.0; 25]);
            x[12] = 1.0;
            let step = Augment::Shift(2);
            step.apply(step.draw(&random, 0), [5, 5, 1], &x, &mut Vec::new(), &mut y);
            let at = y.iter().position(|&v| v == 1.0).unwrap();
            counts[0][at / 5] += 1;
            counts[1][at % 5] += 1;
        }
        assert!(counts.as_flattened().iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn meaningless_settings_are_rejected() {
        let text = |result: Result<(), Fault>| result.unwrap_err().message;
        assert_eq!(text(Augment::Shift(0).check()), "shift = 0, expected at least 1 pixel");
        assert_eq!(text(Augment::Rotate(f64::NAN).check()), "rotate = NaN, expected 0 < degrees <= 180");
        assert_eq!(
            text(Augment::Shift(4).fits([4, 8, 1])),
            "shift = 4 can move images of 4x8 out of the frame, expected less than 4"
        );
        assert!(Augment::Rotate(15.0).fits([1, 1, 3]).is_err() && Augment::Shift(3).fits([4, 8, 1]).is_ok());
    }
}
