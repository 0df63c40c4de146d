//! Logistic sigmoid: y = 1 / (1 + exp(-x)).
//!
//! x, y: (N, H, W, C). Backward: dx = dy y (1 - y) (Rumelhart et al. 1986, <https://doi.org/10.1038/323533a0>).
//! No settings.

use super::*;
use crate::device::kernels::any;
use crate::tensor::Real;

/// The layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sigmoid {}

impl Layer for Sigmoid {
    fn kind(&self) -> &'static str {
        "sigmoid"
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
            Pass::Forward => elementwise::forward::<T>(args, elementwise::sigmoid),
            Pass::Backward => elementwise::backward::<T>(
                args,
                #[inline(always)]
                |y, dy| dy * y * (T::ONE - y),
            ),
        })
    }
    fn launch(&self, pass: Pass, _: usize, launch: &Launch) -> Result<()> {
        match pass {
            Pass::Forward => {
                let n = launch.count(0);
                // SAFETY: operands (x, y) have n elements.
                unsafe { any::sigmoid_forward(&launch.issue, launch.packs(0), launch.any(0), launch.any_mut(1), n) }
            }
            Pass::Backward if !launch.has(2) => Ok(()),
            Pass::Backward => {
                let (n, y, dy) = (launch.count(0), launch.any(0), launch.any(1));
                // SAFETY: operands (y, dy, dx) have n elements.
                unsafe { any::sigmoid_backward(&launch.issue, launch.packs(0), y, dy, launch.any_mut(2), n) }
            }
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(Sigmoid {}, vec![Activation::new(2, 1, 8)])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let mut sigmoid = Alone::<f64>::new(&Sigmoid {}, &[Activation::new(1, 1, 3)], &Setting::of_rows(1)).unwrap();
        sigmoid.values_mut(Role::X(0)).copy_from_slice(&[0.0, 3f64.ln(), -800.0]);
        sigmoid.values_mut(Role::Dy).fill(1.0);
        sigmoid.forward().unwrap();
        sigmoid.backward().unwrap();
        let y = sigmoid.values(Role::Y);
        assert!(y[0] == 0.5 && (y[1] - 0.75).abs() < 1e-15 && y[2] == 0.0, "{y:?}");
        assert_eq!(sigmoid.values(Role::Dx(0))[0], 0.25);
    }
}
