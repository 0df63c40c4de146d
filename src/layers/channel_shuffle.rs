//! Channel shuffle: the channels of `groups` groups are interleaved (Zhang et al. 2018, <https://arxiv.org/abs/1707.01083>):
//! y[j groups + i] = x[i C / groups + j].
//!
//! x, y: (N, H, W, C). Backward: the inverse. Every column needs all channels, unless columns share out the batch.

use super::rearrange::{self, Move, by_moves, samples};
use super::{Activation, Layer, Operands};
use crate::error::Fault;
use crate::settings::{AT_LEAST_ONE, settings};

settings! {
    /// The `channel_shuffle` layer.
    pub struct ChannelShuffle {
        /// Number of groups, a divisor of the channels.
        pub groups: usize = 2, in AT_LEAST_ONE;
    }
}

impl Layer for ChannelShuffle {
    fn key(&self) -> &'static str {
        "channel_shuffle"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat && x.h * x.w > 1 {
            return Err(Fault::whole("channel_shuffle needs images (height, width, channels); put it before flatten"));
        }
        if !x.c.is_multiple_of(self.groups) {
            let message = format!("groups = {} does not divide the {} channels of its input", self.groups, x.c);
            return Err(Fault::at("groups", message));
        }
        Ok(x)
    }
    by_moves!(all_channels);
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let shuffle = |groups| ChannelShuffle { groups };
        vec![(shuffle(2), vec![Activation::new(2, 2, 6)]), (shuffle(4), vec![Activation::new(1, 3, 8)])]
    }
}

impl ChannelShuffle {
    fn moves(&self, phase: &str, operands: &Operands) -> Vec<Move> {
        let Some([[h, w, c], _]) = samples(phase, operands) else { return Vec::new() };
        let (groups, each) = (self.groups, c / self.groups);
        let (from, to) = ([0, 0, c, each, 1], [0, 0, c, 1, groups]);
        vec![Move {
            input: 0,
            dims: [1, 1, h * w, groups, each],
            from: (0, from),
            to: (0, to),
            copies: rearrange::ONCE,
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Role, Setup, SingleLayer};

    #[test]
    fn values_and_gradients_move() {
        let (layer, x) = (ChannelShuffle { groups: 2 }, [Activation::new(1, 1, 6)]);
        let mut single = SingleLayer::<f32>::new(&layer, &x, &Setup::of_rows(1)).unwrap();
        single.values_mut(Role::X(0)).copy_from_slice(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        single.values_mut(Role::Dy).copy_from_slice(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        single.forward().unwrap();
        single.backward().unwrap();
        assert_eq!(single.values(Role::Y), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(single.values(Role::Dx(0)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}
