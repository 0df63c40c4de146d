//! Logistic sigmoid: y = 1 / (1 + exp(-x)).
//!
//! x, y: (N, H, W, C). Backward: dx = dy y (1 - y) (Rumelhart et al. 1986, <https://doi.org/10.1038/323533a0>).
//! No settings.

use super::elementwise;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, by_precision};
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::tensor::Real;
use serde::Deserialize;

/// The `sigmoid` layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sigmoid {}

impl Layer for Sigmoid {
    fn key(&self) -> &'static str {
        "sigmoid"
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
            elementwise::sigmoid,
            #[inline(always)]
            |y, dy| dy * y * (T::ONE - y),
        ))
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        elementwise::launch(phase, launch, any::sigmoid_forward, any::sigmoid_backward)
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(Sigmoid {}, vec![Activation::new(2, 1, 8)])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Role, Setup, SingleLayer};

    #[test]
    fn known_values() {
        let mut sigmoid =
            SingleLayer::<f64>::new(&Sigmoid {}, &[Activation::new(1, 1, 3)], &Setup::of_rows(1)).unwrap();
        sigmoid.values_mut(Role::X(0)).copy_from_slice(&[0.0, 3f64.ln(), -800.0]);
        sigmoid.values_mut(Role::Dy).fill(1.0);
        sigmoid.forward().unwrap();
        sigmoid.backward().unwrap();
        let y = sigmoid.values(Role::Y);
        assert!(y[0] == 0.5 && (y[1] - 0.75).abs() < 1e-15 && y[2] == 0.0, "{y:?}");
        assert_eq!(sigmoid.values(Role::Dx(0))[0], 0.25);
    }
}
