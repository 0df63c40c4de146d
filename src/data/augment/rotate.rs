//! Rotations counter-clockwise about the centre ((H - 1) / 2, (W - 1) / 2), with bilinear interpolation; pixels from outside
//! the image are 0.

use super::affine::{launch_warp, output, warp};
use super::augmentation::{AugmentLaunch, Augmentation};
use super::draws::Draws;
use crate::error::{Fault, Result};
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
        output(self.key(), shape)
    }
    fn values_drawn(&self) -> usize {
        4
    }
    fn numbers(&self) -> u64 {
        2
    }
    /// The map that turns a pixel back.
    fn draw(&self, _: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        let angle = draws.map_or(0.0, |draws| (2.0 * draws.uniform(0) - 1.0) * self.degrees);
        let (sine, cosine) = angle.to_radians().sin_cos();
        let (sine, cosine) = (sine as f32, cosine as f32);
        to.copy_from_slice(&[cosine, sine, -sine, cosine]);
    }
    fn apply(&self, drawn: &[f32], shape: [usize; 3], x: &[f32], work: &mut Vec<f32>, y: &mut [f32]) {
        warp([drawn[0], drawn[1], drawn[2], drawn[3]], shape, x, work, y);
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        launch_warp(launch)
    }
    fn examples() -> Vec<Self> {
        vec![Rotate { degrees: 15.0 }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meaningless_settings_are_rejected() {
        let message = Rotate { degrees: f64::NAN }.check().unwrap_err().message;
        assert_eq!(message, "degrees = NaN, expected a number above 0, at most 180");
        assert!(Rotate { degrees: 15.0 }.output([1, 1, 3]).is_err());
    }
}
