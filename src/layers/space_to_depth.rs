//! Blocks of pixels become channels (Shi et al. 2016, <https://arxiv.org/abs/1609.05158>, inverted):
//! y[i, j, (c block + a) block + b] = x[block i + a, block j + b, c], the order of PyTorch's `pixel_unshuffle`.
//!
//! x: (N, H, W, C); y: (N, H / block, W / block, block^2 C). Backward: the inverse. Every column needs all channels, unless columns
//! share out the batch.

use super::rearrange::{self, Move, by_moves, samples};
use super::{Activation, Layer, Operands};
use crate::error::Fault;
use crate::settings::{Range, settings};

const BLOCK: Range<usize> = Range { text: "1 to 256", contains: |block| (1..=256).contains(block) };

settings! {
    /// The `space_to_depth` layer.
    pub struct SpaceToDepth from block {
        /// Height and width of a block, a divisor of those of the image.
        pub block: usize = 2, in BLOCK;
    }
}

impl Layer for SpaceToDepth {
    fn key(&self) -> &'static str {
        "space_to_depth"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let (x, block) = (inputs[0], self.block);
        if x.flat {
            return Err(Fault::whole("space_to_depth needs images (height, width, channels); put it before flatten"));
        }
        if !x.h.is_multiple_of(block) || !x.w.is_multiple_of(block) {
            let message =
                format!("block = {block} does not divide the {}x{} pixels of its input; use pad before it", x.h, x.w);
            return Err(Fault::at("block", message));
        }
        Ok(Activation::new(x.h / block, x.w / block, x.c * block * block))
    }
    by_moves!(all_channels);
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![
            (SpaceToDepth { block: 2 }, vec![Activation::new(4, 2, 3)]),
            (SpaceToDepth { block: 3 }, vec![Activation::new(3, 6, 2)]),
        ]
    }
}

impl SpaceToDepth {
    fn moves(&self, phase: &str, operands: &Operands) -> Vec<Move> {
        let Some([[_, width, c], [h, w, _]]) = samples(phase, operands) else { return Vec::new() };
        let block = self.block;
        let (area, row) = (block * block, width * c);
        // By the first coordinate within a block: rows, columns, its second coordinate, channels.
        let one = |a: usize| {
            let (from, to) = ([0, block * row, block * c, c, 1], [0, w * c * area, c * area, 1, area]);
            Move {
                input: 0,
                dims: [1, h, w, block, c],
                from: (a * row, from),
                to: (a * block, to),
                copies: rearrange::ONCE,
            }
        };
        (0..block).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Role, Setup, SingleLayer};

    #[test]
    fn values_and_gradients_move() {
        let (layer, x) = (SpaceToDepth { block: 2 }, [Activation::new(2, 2, 2)]);
        let mut single = SingleLayer::<f32>::new(&layer, &x, &Setup::of_rows(1)).unwrap();
        single.values_mut(Role::X(0)).copy_from_slice(&[0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]);
        single.values_mut(Role::Dy).copy_from_slice(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        single.forward().unwrap();
        single.backward().unwrap();
        assert_eq!(single.values(Role::Y), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(single.values(Role::Dx(0)), [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]);
    }
}
