//! Group normalisation: y = w (x - mean) / sqrt(var + epsilon) + b, with the mean and the variance over all pixels of C / groups
//! channels of each sample (Wu and He 2018, <https://arxiv.org/abs/1803.08494>), in training and in evaluation.
//!
//! x, y: (N, H, W, C); weight, bias: (C). The backward pass is that of `unit_norm.rs`. If `groups` is a multiple of the number of
//! columns, each column normalises its own channels; otherwise every column needs all channels.

use super::rearrange;
use super::unit_norm::UnitNorm;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Split};
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::settings::{AT_LEAST_ONE, POSITIVE, settings};
use crate::tensor::{Dim, Mesh, Placement};

settings! {
    /// The `group_norm` layer.
    pub struct GroupNorm {
        /// Number of groups of channels, a divisor of the channels.
        pub groups: usize = 32, in AT_LEAST_ONE;
        /// Number added to the variance.
        pub epsilon: f64 = 1e-5, in POSITIVE;
        /// Whether it has weight and bias.
        pub affine: bool = true;
    }
}

impl Layer for GroupNorm {
    fn key(&self) -> &'static str {
        "group_norm"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat && x.h * x.w > 1 {
            return Err(Fault::whole("group_norm normalises the channels of images; put it before flatten"));
        }
        if !x.c.is_multiple_of(self.groups) {
            let message = format!("groups = {} does not divide the {} channels of its input", self.groups, x.c);
            return Err(Fault::at("groups", message));
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
    fn preferred_input(
        &self,
        _: Activation,
        incoming: Placement,
        split: Option<Split>,
        mesh: Mesh,
    ) -> Option<Placement> {
        let divides = self.groups.is_multiple_of(mesh.columns);
        match split {
            Some(Split::Columns | Split::Rows) if divides => Some(Placement::Shard(Dim::CHANNELS)),
            None if divides => None,
            split => rearrange::all_channels(incoming, split),
        }
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        Ok(self.norm().phases(cx))
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        self.norm().scratch(phase, shapes, target)
    }
    fn run(&self, phase: &str, args: &Args) {
        self.norm().run(phase, args);
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        self.norm().launch(phase, launch)
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let norm = |groups, affine| GroupNorm { groups, affine, epsilon: 1e-3 };
        vec![
            (norm(2, true), vec![Activation::new(3, 2, 4)]),
            (norm(1, true), vec![Activation::new(2, 2, 3)]),
            (norm(4, false), vec![Activation::new(2, 3, 8)]),
        ]
    }
}

impl GroupNorm {
    fn norm(&self) -> UnitNorm {
        UnitNorm { groups: self.groups, by_pixel: false, flat: false, epsilon: self.epsilon, affine: self.affine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Role, Setup, SingleLayer};

    #[test]
    fn each_group_has_mean_0_and_deviation_1() {
        let layer = GroupNorm { groups: 2, epsilon: 1e-12, affine: false };
        let mut single = SingleLayer::<f64>::new(&layer, &[Activation::new(1, 2, 2)], &Setup::of_rows(1)).unwrap();
        single.values_mut(Role::X(0)).copy_from_slice(&[1.0, 30.0, 5.0, 10.0]);
        single.forward().unwrap();
        let y = single.values(Role::Y);
        assert!(y.iter().zip([-1.0, 1.0, 1.0, -1.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{y:?}");
    }
}
