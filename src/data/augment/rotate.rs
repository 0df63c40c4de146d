//! Rotations counter-clockwise about the centre ((H - 1) / 2, (W - 1) / 2), with bilinear interpolation; pixels from outside
//! the image are 0.

use super::augmentation::{AugmentLaunch, Augmentation, Draws};
use crate::cpu::vectorized;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::settings::{Range, settings};

const DEGREES: Range<f64> = Range { text: "a number above 0, at most 180", contains: |&d| d > 0.0 && d <= 180.0 };

settings! {
    /// `{ rotate = 15.0 }`: turns the image about its centre, with bilinear interpolation; what comes from outside it is 0.
    pub struct Rotate from degrees {
        /// The largest angle d; angles are uniform in -d to d.
        pub degrees: f64, in DEGREES, unit "degrees", example "15.0";
    }
}

impl Augmentation for Rotate {
    fn key(&self) -> &'static str {
        "rotate"
    }
    fn output(&self, shape: [usize; 3]) -> Result<[usize; 3], Fault> {
        match shape {
            [1, 1, _] => Err(Fault::at("augment", "rotate has no effect on images of 1x1; remove it")),
            _ => Ok(shape),
        }
    }
    fn values_drawn(&self) -> usize {
        2
    }
    /// Sine and cosine of the angle.
    fn draw(&self, _: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        let angle = draws.map_or(0.0, |draws| (2.0 * draws.uniform(0) - 1.0) * self.degrees);
        let (sine, cosine) = angle.to_radians().sin_cos();
        to.copy_from_slice(&[sine as f32, cosine as f32]);
    }
    fn apply(&self, drawn: &[f32], shape: [usize; 3], x: &[f32], work: &mut Vec<f32>, y: &mut [f32]) {
        rotate([drawn[0], drawn[1]], shape, x, work, y);
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        let AugmentLaunch { x: (bytes, floats), draws, table, y, images, from: [h, w, c], stride, .. } = *launch;
        // SAFETY: x and y are (images, h, w, c) and do not overlap, and each image has `stride` drawn values.
        unsafe {
            any::augment_rotate(&launch.issue, launch.grid, bytes, floats, draws, table, y, images, h, w, c, stride)
        }
    }
    fn examples() -> Vec<Self> {
        vec![Rotate { degrees: 15.0 }]
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
    fn meaningless_settings_are_rejected() {
        let message = Rotate { degrees: f64::NAN }.check().unwrap_err().message;
        assert_eq!(message, "degrees = NaN, expected a number above 0, at most 180");
        assert!(Rotate { degrees: 15.0 }.output([1, 1, 3]).is_err());
    }
}
