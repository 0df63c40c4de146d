//! Rectified linear unit: y = max(x, 0) (Nair and Hinton 2010, <https://dl.acm.org/doi/10.5555/3104322.3104425>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy where y > 0, else 0. No settings.

use super::*;
use crate::device::kernels::any;
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
    fn is_relu(&self) -> bool {
        true
    }
    fn launch(&self, pass: Pass, _: usize, launch: &Launch) -> Result<()> {
        match pass {
            Pass::Forward => {
                let n = launch.count(0);
                // SAFETY: operands (x, y) have n elements.
                unsafe { any::relu_forward(&launch.issue, launch.packs(0), launch.any(0), launch.any_mut(1), n) }
            }
            Pass::Backward if !launch.has(2) => Ok(()),
            Pass::Backward => {
                let (n, y, dy) = (launch.count(0), launch.any(0), launch.any(1));
                // SAFETY: operands (y, dy, dx) have n elements.
                unsafe { any::relu_backward(&launch.issue, launch.packs(0), y, dy, launch.any_mut(2), n) }
            }
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(Relu {}, vec![Activation::new(3, 2, 4)])]
    }
}
