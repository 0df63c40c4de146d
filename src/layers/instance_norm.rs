//! Instance normalisation: y = (x - mean) / sqrt(var + epsilon), with the mean and the variance over the pixels of each channel of
//! each sample (Ulyanov et al. 2016, <https://arxiv.org/abs/1607.08022>), in training and in evaluation; with `affine`, then w y + b.
//!
//! x, y: (N, H, W, C); weight, bias: (C). The backward pass is that of `unit_norm.rs`.

use super::unit_norm::UnitNorm;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Role};
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::settings::{POSITIVE, settings};

settings! {
    /// The `instance_norm` layer.
    pub struct InstanceNorm {
        /// Number added to the variance.
        pub epsilon: f64 = 1e-5, in POSITIVE;
        /// Whether it has weight and bias.
        pub affine: bool = false;
    }
}

impl Layer for InstanceNorm {
    fn key(&self) -> &'static str {
        "instance_norm"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat && x.h * x.w > 1 {
            return Err(Fault::whole("instance_norm normalises the channels of images; put it before flatten"));
        }
        if x.h * x.w == 1 {
            return Err(Fault::whole("instance_norm of one pixel is always 0; remove it, or use layer_norm"));
        }
        Ok(x)
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        let c = inputs[0].c;
        let all = [Param::vector("weight", c, 1.0), Param::vector("bias", c, 0.0)];
        all.into_iter().filter(|_| self.affine).collect()
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        8 * inputs[0].features() as u64
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        Ok(self.norm(cx.inputs[0].c).phases(cx))
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        self.norm(self.channels(shapes)).scratch(phase, shapes, target)
    }
    fn run(&self, phase: &str, args: &Args) {
        self.norm(self.channels(args.operands)).run(phase, args);
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        self.norm(self.channels(launch.operands)).launch(phase, launch)
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let norm = |affine| InstanceNorm { affine, epsilon: 1e-3 };
        vec![(norm(true), vec![Activation::new(3, 2, 4)]), (norm(false), vec![Activation::new(2, 2, 6)])]
    }
}

impl InstanceNorm {
    fn norm(&self, channels: usize) -> UnitNorm {
        UnitNorm { groups: channels, by_pixel: false, flat: false, epsilon: self.epsilon, affine: self.affine }
    }

    /// Returns the number of channels on all devices.
    fn channels(&self, operands: &Operands) -> usize {
        operands[Role::X(0)].shape.0[3]
    }
}
