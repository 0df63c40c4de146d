//! Hyperbolic tangent: y = tanh(x) (LeCun et al. 1998, <https://doi.org/10.1109/5.726791>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy (1 - y^2). No settings.

use super::*;
use crate::device::kernels::any;
use crate::tensor::Real;

/// The layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tanh {}

impl Layer for Tanh {
    fn kind(&self) -> &'static str {
        "tanh"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(inputs[0])
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        10 * inputs[0].features() as u64
    }
    fn lower(&self, cx: &Lowering) -> Result<Lowered, Fault> {
        Ok(elementwise::lower(cx))
    }
    fn run(&self, pass: Pass, _: usize, args: &Args) {
        by_precision!(args, T => match pass {
            Pass::Forward => elementwise::forward::<T>(args, elementwise::tanh),
            Pass::Backward => elementwise::backward::<T>(
                args,
                #[inline(always)]
                |y, dy| dy * (T::ONE - y * y),
            ),
        })
    }
    fn launch(&self, pass: Pass, _: usize, launch: &Launch) -> Result<()> {
        match pass {
            Pass::Forward => {
                let n = launch.count(0);
                // SAFETY: operands (x, y) have n elements.
                unsafe { any::tanh_forward(&launch.issue, launch.packs(0), launch.any(0), launch.any_mut(1), n) }
            }
            Pass::Backward if !launch.has(2) => Ok(()),
            Pass::Backward => {
                let (n, y, dy) = (launch.count(0), launch.any(0), launch.any(1));
                // SAFETY: operands (y, dy, dx) have n elements.
                unsafe { any::tanh_backward(&launch.issue, launch.packs(0), y, dy, launch.any_mut(2), n) }
            }
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(Tanh {}, vec![Activation::new(2, 3, 2)])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let mut tanh = Alone::<f64>::new(&Tanh {}, &[Activation::new(1, 1, 3)], &Setting::of_rows(1)).unwrap();
        tanh.values_mut(Role::X(0)).copy_from_slice(&[0.0, 1.0, -40.0]);
        tanh.values_mut(Role::Dy).fill(2.0);
        tanh.forward().unwrap();
        tanh.backward().unwrap();
        assert_eq!(tanh.values(Role::Y), [0.0, 1f64.tanh(), -1.0]);
        assert_eq!(tanh.values(Role::Dx(0))[0], 2.0);
        assert_eq!(tanh.values(Role::Dx(0))[2], 0.0);
    }
}
