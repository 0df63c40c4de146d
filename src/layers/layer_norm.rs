//! Layer normalisation: y = w (x - mean) / sqrt(var + epsilon) + b, with the mean and the variance over the channels of each pixel
//! of each sample (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>), in training and in evaluation.
//!
//! x, y: (N, H, W, C); weight, bias: (C). After flatten, all values of a sample are channels, and w and b have one for each. The
//! backward pass is that of `unit_norm.rs`. Every column needs all channels, unless columns share out the batch.

use super::batch_norm::channels;
use super::rearrange;
use super::unit_norm::UnitNorm;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Role, Split};
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::settings::{POSITIVE, settings};
use crate::tensor::{Mesh, Placement};

settings! {
    /// The `layer_norm` layer.
    pub struct LayerNorm {
        /// Number added to the variance.
        pub epsilon: f64 = 1e-5, in POSITIVE;
        /// Whether it has weight and bias.
        pub affine: bool = true;
    }
}

impl Layer for LayerNorm {
    fn key(&self) -> &'static str {
        "layer_norm"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat && x.h * x.w > 1 && !self.affine {
            return Err(Fault::at("affine", "affine = false is only for images; use it before flatten"));
        }
        Ok(x)
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        let all = [channels("weight", inputs[0], 1.0), channels("bias", inputs[0], 0.0)];
        all.into_iter().filter(|_| self.affine).collect()
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        8 * inputs[0].features() as u64
    }
    fn splits(&self) -> &'static [Split] {
        &[Split::Batch, Split::None]
    }
    fn preferred_input(&self, _: Activation, incoming: Placement, split: Option<Split>, _: Mesh) -> Option<Placement> {
        rearrange::all_channels(incoming, split)
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        Ok(self.norm(cx.inputs[0].flat).phases(cx))
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        self.norm(self.is_flat(shapes)).scratch(phase, shapes, target)
    }
    fn run(&self, phase: &str, args: &Args) {
        self.norm(self.is_flat(args.operands)).run(phase, args);
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        self.norm(self.is_flat(launch.operands)).launch(phase, launch)
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let flat = Activation { flat: true, ..Activation::new(2, 1, 4) };
        vec![
            (LayerNorm::default(), vec![Activation::new(3, 2, 4)]),
            (LayerNorm { epsilon: 1e-2, affine: false }, vec![Activation::new(1, 2, 6)]),
            (LayerNorm::default(), vec![flat]),
        ]
    }
}

impl LayerNorm {
    fn norm(&self, flat: bool) -> UnitNorm {
        UnitNorm { groups: 1, by_pixel: true, flat, epsilon: self.epsilon, affine: self.affine }
    }

    /// Returns whether all values of a sample are channels: then there is a weight for each.
    fn is_flat(&self, operands: &Operands) -> bool {
        let x = &operands[Role::X(0)];
        self.affine && operands.has(Role::WEIGHT) && operands[Role::WEIGHT].elements() != x.len(3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn each_pixel_has_mean_0_and_deviation_1() {
        let layer = LayerNorm { epsilon: 1e-12, affine: true };
        let mut single = SingleLayer::<f64>::new(&layer, &[Activation::new(1, 2, 2)], &Setup::of_rows(1)).unwrap();
        single.values_mut(Role::X(0)).copy_from_slice(&[1.0, 3.0, -5.0, -9.0]);
        single.values_mut(Role::WEIGHT).copy_from_slice(&[2.0, 3.0]);
        single.values_mut(Role::BIAS).copy_from_slice(&[10.0, 20.0]);
        single.values_mut(Role::Dy).copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        single.forward().unwrap();
        single.backward().unwrap();
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(near(single.values(Role::Y), &[8.0, 23.0, 12.0, 17.0]), "{:?}", single.values(Role::Y));
        assert!(near(single.values(Role::D_WEIGHT), &[2.0, -2.0]), "{:?}", single.values(Role::D_WEIGHT));
        assert!(near(single.values(Role::D_BIAS), &[4.0, 6.0]));
        // Two values are +-1 whatever they are.
        assert!(near(single.values(Role::Dx(0)), &[0.0; 4]), "{:?}", single.values(Role::Dx(0)));
    }
}
