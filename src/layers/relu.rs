//! Rectified linear unit: y = max(x, 0) (Nair and Hinton 2010, <https://dl.acm.org/doi/10.5555/3104322.3104425>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy where y > 0, else 0. No settings.

use super::*;
use crate::tensor::Real;

/// The layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relu {}

impl Layer for Relu {
    fn kind(&self) -> &'static str {
        "relu"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(inputs[0])
    }
    fn lower(&self, cx: &Lowering) -> Result<Lowered, Fault> {
        Ok(elementwise::lower(cx))
    }
    fn run(&self, pass: Pass, _: usize, args: &Args) {
        by_precision!(args, T => match pass {
            Pass::Forward => elementwise::forward::<T>(
                args,
                #[inline(always)]
                |x| if x > T::ZERO { x } else { T::ZERO },
            ),
            Pass::Backward => elementwise::backward::<T>(
                args,
                #[inline(always)]
                |y, dy| if y > T::ZERO { dy } else { T::ZERO },
            ),
        })
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(Relu {}, vec![Activation::new(3, 2, 4)])]
    }
}
