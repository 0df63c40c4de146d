//! Hyperbolic tangent: y = tanh(x) (LeCun et al. 1998, <https://doi.org/10.1109/5.726791>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy (1 - y^2). No settings.

use super::elementwise;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, by_precision};
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::tensor::Real;
use serde::Deserialize;

/// The `tanh` layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tanh {}

impl Layer for Tanh {
    fn key(&self) -> &'static str {
        "tanh"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(inputs[0])
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        10 * inputs[0].features() as u64
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        Ok(elementwise::phases(cx))
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => elementwise::run::<T>(
            phase,
            args,
            elementwise::tanh,
            #[inline(always)]
            |y, dy| dy * (T::ONE - y * y),
        ))
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        elementwise::launch(phase, launch, any::tanh_forward, any::tanh_backward)
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(Tanh {}, vec![Activation::new(2, 3, 2)])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Role, Setup, SingleLayer};

    #[test]
    fn known_values() {
        let mut tanh = SingleLayer::<f64>::new(&Tanh {}, &[Activation::new(1, 1, 3)], &Setup::of_rows(1)).unwrap();
        tanh.values_mut(Role::X(0)).copy_from_slice(&[0.0, 1.0, -40.0]);
        tanh.values_mut(Role::Dy).fill(2.0);
        tanh.forward().unwrap();
        tanh.backward().unwrap();
        assert_eq!(tanh.values(Role::Y), [0.0, 1f64.tanh(), -1.0]);
        assert_eq!(tanh.values(Role::Dx(0))[0], 2.0);
        assert_eq!(tanh.values(Role::Dx(0))[2], 0.0);
    }
}
