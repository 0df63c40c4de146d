//! Some of the channels: y[c] = x[first + c].
//!
//! x: (N, H, W, C); y: (N, H, W, channels). Backward: dx is dy in these channels, otherwise 0. Every column needs all channels,
//! unless columns share out the batch.

use super::rearrange::{self, Move, samples};
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Split};
use crate::error::{Fault, Result};
use crate::settings::{AT_LEAST_ONE, settings};
use crate::tensor::{Mesh, Placement};

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
    fn cost(&self, _: &[Activation]) -> u64 {
        0
    }
    fn splits(&self) -> &'static [Split] {
        &[Split::Batch, Split::None]
    }
    fn preferred_input(&self, _: Activation, incoming: Placement, split: Option<Split>, _: Mesh) -> Option<Placement> {
        rearrange::all_channels(incoming, split)
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        Ok(rearrange::phases(cx))
    }
    fn run(&self, phase: &str, args: &Args) {
        rearrange::run(phase, args, &self.moves(phase, args.operands));
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        rearrange::launch(phase, launch, &self.moves(phase, launch.operands))
    }
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
