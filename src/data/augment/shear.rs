//! Shear about the centre, with bilinear interpolation; pixels from outside the image are 0.

use super::affine::{launch_warp, output, warp};
use super::augmentation::{AugmentLaunch, Augmentation};
use super::draws::Draws;
use crate::error::{Fault, Result};
use crate::settings::{Range, settings};

const DEGREES: Range<f64> = Range { text: "a number from 0 to 80", contains: |&d| (0.0..=80.0).contains(&d) };

settings! {
    /// `{ shear = 10.0 }`: leans the image to one side, with bilinear interpolation; what comes from outside it is 0.
    pub struct Shear from degrees {
        /// The largest angle d by which vertical lines lean; angles are uniform in -d to d.
        pub degrees: f64, in DEGREES, unit "degrees", example "10.0";
        /// The same for horizontal lines.
        pub vertical: f64 = 0.0, in DEGREES, unit "degrees";
    }
}

impl Augmentation for Shear {
    fn key(&self) -> &'static str {
        "shear"
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
    /// The map that moves a pixel back: first along its column, then along its row.
    fn draw(&self, _: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        let slope = |index, most: f64| {
            let angle = draws.map_or(0.0, |draws| (2.0 * draws.uniform(index) - 1.0) * most);
            angle.to_radians().tan()
        };
        let (across, down) = (slope(0, self.degrees), slope(1, self.vertical));
        to.copy_from_slice(&[1.0, -down, -across, 1.0 + across * down].map(|value| value as f32));
    }
    fn apply(&self, drawn: &[f32], shape: [usize; 3], x: &[f32], work: &mut Vec<f32>, y: &mut [f32]) {
        warp([drawn[0], drawn[1], drawn[2], drawn[3]], shape, x, work, y);
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        launch_warp(launch)
    }
    fn examples() -> Vec<Self> {
        vec![Shear { degrees: 12.0, vertical: 0.0 }, Shear { degrees: 20.0, vertical: 10.0 }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};

    #[test]
    fn vertical_lines_lean_by_at_most_the_angle() {
        let mut largest = 0.0f32;
        for sample in 0..1000 {
            let draws = Draws::new(Random::new(1, RandomStream::Augment, 0, sample), 0);
            let mut drawn = [0.0; 4];
            Shear { degrees: 45.0, vertical: 0.0 }.draw([5, 5, 1], Some(&draws), &mut drawn);
            assert_eq!([drawn[0], drawn[1], drawn[3]], [1.0, 0.0, 1.0]);
            largest = largest.max(drawn[2].abs());
        }
        assert!((0.95..=1.0).contains(&largest), "{largest}");
        let (x, mut y) = ([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0], [0.0; 9]);
        Shear { degrees: 45.0, vertical: 0.0 }.apply(&[1.0, 0.0, -1.0, 1.0], [3, 3, 1], &x, &mut Vec::new(), &mut y);
        // The upper row moves to the left, the lower one to the right.
        assert_eq!(y, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn both_shears_invert_the_map_of_the_image() {
        // Across by v, then down by u: (i, j) goes to (i + u (j + v i), j + v i).
        let (u, v) = (0.25, 0.5);
        let back = [1.0, -u, -v, 1.0 + u * v];
        let there = |[i, j]: [f64; 2]| [i + u * (j + v * i), j + v * i];
        let [i, j] = there([3.0, -2.0]);
        assert_eq!([back[0] * i + back[1] * j, back[2] * i + back[3] * j], [3.0, -2.0]);
    }
}
