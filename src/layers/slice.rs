//! Some of the channels: y[c] = x[first + c].
//!
//! x: (N, H, W, C); y: (N, H, W, channels). Backward: dx is dy in these channels, otherwise 0. Every column needs all channels,
//! unless columns share out the batch.

use super::rearrange::{self, Move, by_moves, samples};
use super::{Activation, Layer, Operands};
use crate::error::Fault;
use crate::settings::{AT_LEAST_ONE, settings};

settings! {
    /// The `slice` layer.
    pub struct ChannelSlice {
        /// The first channel.
        pub first: usize = 0;
        /// Number of channels.
        pub channels: usize, in AT_LEAST_ONE, example "58";
    }
}

impl Layer for ChannelSlice {
    fn key(&self) -> &'static str {
        "slice"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat && x.h * x.w > 1 {
            return Err(Fault::whole("slice needs images (height, width, channels); put it before flatten"));
        }
        if self.first.saturating_add(self.channels) > x.c {
            let (first, channels) = (self.first, self.channels);
            let message =
                format!("first = {first} and channels = {channels} need more than the {} channels of its input", x.c);
            return Err(Fault::at("channels", message));
        }
        Ok(Activation { c: self.channels, ..x })
    }
    by_moves!(all_channels);
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let slice = |first, channels| ChannelSlice { first, channels };
        vec![(slice(0, 3), vec![Activation::new(2, 2, 6)]), (slice(5, 2), vec![Activation::new(1, 3, 8)])]
    }
}

impl ChannelSlice {
    fn moves(&self, phase: &str, operands: &Operands) -> Vec<Move> {
        let Some([[h, w, c], [_, _, channels]]) = samples(phase, operands) else { return Vec::new() };
        let (from, to) = ([0, 0, 0, c, 1], [0, 0, 0, channels, 1]);
        vec![Move {
            input: 0,
            dims: [1, 1, 1, h * w, channels],
            from: (self.first, from),
            to: (0, to),
            copies: rearrange::ONCE,
        }]
    }
}
