//! Flatten: turns the values of a sample into one vector of H * W * C features, without moving any bytes.
//!
//! x, y: (N, H, W, C), in the same order in memory; a shard of the features is still a shard of the channels. In
//! files, the weights of the following layer are in PyTorch's order, C * H * W. No settings.

use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Split};
use crate::error::{Fault, Result};
use crate::settings::settings;

settings! {
    /// The `flatten` layer.
    pub struct Flatten {}
}

impl Layer for Flatten {
    fn key(&self) -> &'static str {
        "flatten"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(Activation { flat: true, ..inputs[0] })
    }
    fn cost(&self, _: &[Activation]) -> u64 {
        0
    }
    fn splits(&self) -> &'static [Split] {
        &[]
    }
    fn phases(&self, _: &LayerContext) -> Result<LayerPhases, Fault> {
        Ok(LayerPhases::view())
    }
    fn run(&self, _: &str, _: &Args) {
        unreachable!("a view has no phases")
    }
    fn launch(&self, _: &str, _: &Launch) -> Result<()> {
        unreachable!("a view has no phases")
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(Flatten {}, vec![Activation::new(2, 3, 4)])]
    }
}
