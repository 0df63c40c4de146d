//! A shortcut without parameters between different shapes: every `stride`-th pixel, with zeros as the further channels (option A
//! of He et al. 2016, <https://arxiv.org/abs/1512.03385>): y[i, j, first + c] = x[stride i, stride j, c], otherwise 0.
//!
//! x: (N, H, W, C); y: (N, ceil(H / stride), ceil(W / stride), channels). Backward: dx is dy at these pixels and channels, otherwise 0.
//! Every column needs all channels, unless columns share out the batch.

use super::rearrange::{self, Move, by_moves, samples};
use super::{Activation, Layer, Operands};
use crate::error::Fault;
use crate::settings::{Range, settings};

const SIZE: Range<usize> = Range { text: "1 to 16777216", contains: |size| (1..=1 << 24).contains(size) };

settings! {
    /// The `shortcut` layer.
    pub struct Shortcut {
        /// Number of channels of the output, at least those of the input.
        pub channels: usize, in SIZE, example "32";
        /// Step between pixels.
        pub stride: usize = 2, in SIZE;
        /// The channel of the output that is the first of the input.
        pub first: usize = 0;
    }
}

impl Layer for Shortcut {
    fn key(&self) -> &'static str {
        "shortcut"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat {
            return Err(Fault::whole("shortcut needs images (height, width, channels); put it before flatten"));
        }
        if self.first.saturating_add(x.c) > self.channels {
            let message = format!(
                "channels = {} with first = {} have no room for the {} channels of its input; use more channels",
                self.channels, self.first, x.c
            );
            return Err(Fault::at("channels", message));
        }
        Ok(Activation::new(x.h.div_ceil(self.stride), x.w.div_ceil(self.stride), self.channels))
    }
    by_moves!(all_channels);
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let two = Shortcut { channels: 6, stride: 2, first: 0 };
        let middle = Shortcut { channels: 8, stride: 1, first: 2 };
        vec![(two, vec![Activation::new(5, 4, 3)]), (middle, vec![Activation::new(2, 2, 4)])]
    }
}

impl Shortcut {
    fn moves(&self, phase: &str, operands: &Operands) -> Vec<Move> {
        let Some([[_, width, c], [h, w, channels]]) = samples(phase, operands) else { return Vec::new() };
        let (stride, first) = (self.stride, self.first);
        let (from, to) = ([0, 0, stride * width * c, stride * c, 1], [0, 0, w * channels, channels, 1]);
        vec![Move { input: 0, dims: [1, 1, h, w, c], from: (0, from), to: (first, to), copies: rearrange::ONCE }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Role, Setup, SingleLayer};

    #[test]
    fn values_and_gradients_move() {
        let (layer, x) = (Shortcut { channels: 2, stride: 2, first: 1 }, [Activation::new(1, 3, 1)]);
        let mut single = SingleLayer::<f32>::new(&layer, &x, &Setup::of_rows(1)).unwrap();
        single.values_mut(Role::X(0)).copy_from_slice(&[1.0, 2.0, 3.0]);
        single.values_mut(Role::Dy).copy_from_slice(&[5.0, 6.0, 7.0, 8.0]);
        single.forward().unwrap();
        single.backward().unwrap();
        assert_eq!(single.values(Role::Y), [0.0, 1.0, 0.0, 3.0]);
        assert_eq!(single.values(Role::Dx(0)), [6.0, 0.0, 8.0]);
    }
}
