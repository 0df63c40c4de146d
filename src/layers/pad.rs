//! Zeros around the image: y[top + i, left + j] = x[i, j], otherwise 0.
//!
//! x: (N, H, W, C); y: (N, top + H + bottom, left + W + right, C). Backward: dx is the middle of dy.

use super::rearrange::{self, Move, by_moves, samples};
use super::{Activation, Layer, Operands};
use crate::error::Fault;
use crate::settings::{Range, settings};

const WIDTH: Range<usize> = Range { text: "at most 65536", contains: |&width| width <= 1 << 16 };

settings! {
    /// The `pad` layer.
    pub struct Pad {
        /// Rows of zeros above.
        pub top: usize = 0, in WIDTH;
        /// Rows of zeros below.
        pub bottom: usize = 0, in WIDTH;
        /// Columns of zeros to the left.
        pub left: usize = 0, in WIDTH;
        /// Columns of zeros to the right.
        pub right: usize = 0, in WIDTH;
    }
}

impl Layer for Pad {
    fn key(&self) -> &'static str {
        "pad"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat {
            return Err(Fault::whole("pad needs images (height, width, channels); put it before flatten"));
        }
        Ok(Activation { h: self.top + x.h + self.bottom, w: self.left + x.w + self.right, ..x })
    }
    by_moves!();
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let pad = Pad { top: 1, bottom: 2, left: 0, right: 3 };
        vec![(pad, vec![Activation::new(3, 2, 4)]), (Pad::default(), vec![Activation::new(2, 2, 3)])]
    }
}

impl Pad {
    fn moves(&self, phase: &str, operands: &Operands) -> Vec<Move> {
        let Some([[h, w, c], [_, width, _]]) = samples(phase, operands) else { return Vec::new() };
        let first = (self.top * width + self.left) * c;
        let (from, to) = ([0, 0, 0, w * c, 1], [0, 0, 0, width * c, 1]);
        vec![Move { input: 0, dims: [1, 1, 1, h, w * c], from: (0, from), to: (first, to), copies: rearrange::ONCE }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Role, Setup, SingleLayer};

    #[test]
    fn values_and_gradients_move() {
        let (layer, x) = (Pad { top: 1, left: 1, ..Pad::default() }, [Activation::new(1, 1, 2)]);
        let mut single = SingleLayer::<f32>::new(&layer, &x, &Setup::of_rows(1)).unwrap();
        single.values_mut(Role::X(0)).copy_from_slice(&[7.0, 8.0]);
        single.values_mut(Role::Dy).copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        single.forward().unwrap();
        single.backward().unwrap();
        assert_eq!(single.values(Role::Y), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0, 8.0]);
        assert_eq!(single.values(Role::Dx(0)), [7.0, 8.0]);
    }
}
