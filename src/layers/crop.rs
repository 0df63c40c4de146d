//! A window of the image: y[i, j] = x[top + i, left + j].
//!
//! x: (N, H, W, C); y: (N, height, width, C). Backward: dx is dy in the window, otherwise 0.

use super::rearrange::{self, Move, by_moves, samples};
use super::{Activation, Layer, Operands};
use crate::error::Fault;
use crate::settings::{AT_LEAST_ONE, Range, settings};

const WIDTH: Range<usize> = Range { text: "at most 65536", contains: |&width| width <= 1 << 16 };

settings! {
    /// The `crop` layer.
    pub struct SpatialCrop {
        /// First row.
        pub top: usize = 0, in WIDTH;
        /// First column.
        pub left: usize = 0, in WIDTH;
        /// Rows of the window.
        pub height: usize, in AT_LEAST_ONE, example "1";
        /// Columns of the window.
        pub width: usize, in AT_LEAST_ONE, example "1";
    }
}

impl Layer for SpatialCrop {
    fn key(&self) -> &'static str {
        "crop"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat {
            return Err(Fault::whole("crop needs images (height, width, channels); put it before flatten"));
        }
        let SpatialCrop { top, left, height, width } = *self;
        if top.saturating_add(height) > x.h || left.saturating_add(width) > x.w {
            let message = format!(
                "a window of {height}x{width} pixels from row {top}, column {left} is not within its input {x}"
            );
            return Err(Fault::whole(message));
        }
        Ok(Activation { h: height, w: width, ..x })
    }
    by_moves!();
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let crop = |top, left, height, width| SpatialCrop { top, left, height, width };
        vec![(crop(1, 0, 2, 2), vec![Activation::new(4, 3, 4)]), (crop(0, 0, 1, 1), vec![Activation::new(2, 2, 3)])]
    }
}

impl SpatialCrop {
    fn moves(&self, phase: &str, operands: &Operands) -> Vec<Move> {
        let Some([[_, w, c], [height, width, _]]) = samples(phase, operands) else { return Vec::new() };
        let first = (self.top * w + self.left) * c;
        let (from, to) = ([0, 0, 0, w * c, 1], [0, 0, 0, width * c, 1]);
        let dims = [1, 1, 1, height, width * c];
        vec![Move { input: 0, dims, from: (first, from), to: (0, to), copies: rearrange::ONCE }]
    }
}
