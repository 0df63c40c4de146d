//! Mirror images: y[i, j] = x[i, W - 1 - j], or x[H - 1 - i, j].

use super::augmentation::{AugmentLaunch, Augmentation};
use super::draws::Draws;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::settings::{PROBABILITY, settings, values};
use serde::Deserialize;

/// What `flip` exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlipAxis {
    /// Left and right.
    Horizontal,
    /// Above and below.
    Vertical,
}

values! {
    FlipAxis, "\"horizontal\" or \"vertical\"", axis => match axis {
        FlipAxis::Horizontal => "\"horizontal\"".to_string(),
        FlipAxis::Vertical => "\"vertical\"".to_string(),
    };
}

settings! {
    /// `{ flip = "horizontal" }`: mirrors half of the images.
    pub struct Flip from axis {
        /// Whether left and right, or above and below are exchanged.
        pub axis: FlipAxis, example "\"horizontal\"";
        /// The share of images that are mirrored.
        pub probability: f64 = 0.5, in PROBABILITY;
    }
}

impl Augmentation for Flip {
    fn key(&self) -> &'static str {
        "flip"
    }
    fn output(&self, shape: [usize; 3]) -> Result<[usize; 3], Fault> {
        Ok(shape)
    }
    fn values_drawn(&self) -> usize {
        2
    }
    fn numbers(&self) -> u64 {
        1
    }
    /// Whether rows, and whether columns are in the opposite order.
    fn draw(&self, _: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        let flips = draws.is_some_and(|draws| draws.uniform(0) < self.probability);
        to.fill(0.0);
        to[usize::from(self.axis == FlipAxis::Horizontal)] = f32::from(u8::from(flips));
    }
    fn apply(&self, drawn: &[f32], [h, w, c]: [usize; 3], x: &[f32], _: &mut Vec<f32>, y: &mut [f32]) {
        let (down, across) = (drawn[0] != 0.0, drawn[1] != 0.0);
        for (i, y) in y.chunks_exact_mut(w * c).enumerate() {
            let x = &x[if down { h - 1 - i } else { i } * w * c..][..w * c];
            if !across {
                y.copy_from_slice(x);
                continue;
            }
            for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c).rev()) {
                y.copy_from_slice(x);
            }
        }
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        let AugmentLaunch { x: (bytes, floats), draws, table, y, images, from: [h, w, c], stride, .. } = *launch;
        // SAFETY: x and y are (images, h, w, c) and do not overlap, and each image has `stride` drawn values. They launch one thread per
        // pixel of y.
        unsafe {
            any::augment_flip(&launch.issue, launch.grid, bytes, floats, draws, table, y, images, h, w, c, stride)
        }
    }
    fn examples() -> Vec<Self> {
        vec![Flip { axis: FlipAxis::Horizontal, probability: 0.5 }, Flip { axis: FlipAxis::Vertical, probability: 0.7 }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};

    #[test]
    fn columns_or_rows_are_exchanged_with_their_probability() {
        let (x, mut y) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [0.0; 8]);
        let across = Flip { axis: FlipAxis::Horizontal, probability: 0.25 };
        across.apply(&[0.0, 1.0], [2, 2, 2], &x, &mut Vec::new(), &mut y);
        assert_eq!(y, [3.0, 4.0, 1.0, 2.0, 7.0, 8.0, 5.0, 6.0]);
        across.apply(&[1.0, 0.0], [2, 2, 2], &x, &mut Vec::new(), &mut y);
        assert_eq!(y, [5.0, 6.0, 7.0, 8.0, 1.0, 2.0, 3.0, 4.0]);
        let flipped = (0..4000).filter(|&sample| {
            let draws = Draws::new(Random::new(1, RandomStream::Augment, 0, sample), 0);
            let mut drawn = [9.0; 2];
            across.draw([2, 2, 2], Some(&draws), &mut drawn);
            assert_eq!(drawn[0], 0.0);
            drawn[1] == 1.0
        });
        assert!((920..1080).contains(&flipped.count()));
    }
}
