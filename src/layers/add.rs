//! Sum of 2 to 8 inputs of the same shape: y = x0 + x1 + ... (the shortcut connection of He et al. 2016,
//! <https://arxiv.org/abs/1512.03385>).
//!
//! x0, x1, ..., y: (N, H, W, C). Backward: dx_i = dy, without a copy. The output has the layout of the first input.
//! No settings.

use super::layer::unknown_phase;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Phase, Role, by_precision};
use crate::cpu::vectorized;
use crate::device::Epilogue;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;

settings! {
    /// The `add` layer.
    pub struct Add {}
}

/// Elements per task.
const BLOCK: usize = 1 << 14;

impl Layer for Add {
    fn key(&self) -> &'static str {
        "add"
    }
    fn num_inputs(&self) -> std::ops::RangeInclusive<usize> {
        2..=8
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        match inputs.iter().find(|&&x| x != inputs[0]) {
            None => Ok(inputs[0]),
            Some(other) => Err(Fault::whole(format!(
                "its inputs are {} and {other}, expected the same shape; give the branches the same channels and \
                 strides",
                inputs[0]
            ))),
        }
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        ((inputs.len() - 1) * inputs[0].features()) as u64
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let mut forward = Phase::new("forward").write(Role::Y, x).accepts(Epilogue::Relu);
        for i in 0..cx.inputs.len() {
            forward = forward.read(Role::X(i), x);
        }
        Ok(LayerPhases { forward: vec![forward], ..LayerPhases::default() })
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => forward::<T>(args),
            _ => unknown_phase(phase),
        })
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        match phase {
            "forward" => {
                let inputs = inputs(launch.operands);
                (1..inputs).try_for_each(|i| {
                    let relu = i32::from(launch.relu() && i + 1 == inputs);
                    let (n, y) = (launch.count(Role::Y), launch.any_mut(Role::Y));
                    let sum = if i == 1 { launch.any(Role::X(0)) } else { y.into() };
                    let (grid, x) = (launch.vectors(Role::Y), launch.any(Role::X(i)));
                    // SAFETY: all operands have n elements; y may also be read.
                    unsafe { any::add_forward(&launch.issue, grid, sum, x, y, n, relu) }
                })
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(Add {}, vec![Activation::new(2, 2, 4); 2]), (Add {}, vec![Activation::new(1, 3, 2); 3])]
    }
}

/// Returns the number of inputs.
fn inputs(operands: &Operands) -> usize {
    operands.roles().filter(|role| matches!(role, Role::X(_))).count()
}

fn forward<T: Real>(args: &Args) {
    let inputs = inputs(args.operands);
    args.chunks(args.write::<T>(Role::Y), BLOCK, |task, y, _| {
        let part = task * BLOCK..task * BLOCK + y.len();
        let x = |i| &args.read::<T>(Role::X(i))[part.clone()];
        vectorized(
            #[inline(always)]
            || {
                y.iter_mut().zip(x(0)).zip(x(1)).for_each(|((y, &a), &b)| *y = a + b);
                for i in 2..inputs {
                    y.iter_mut().zip(x(i)).for_each(|(y, &v)| *y += v);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn each_input_gets_the_gradient_of_the_sum() {
        let x = [Activation::new(1, 1, 2); 3];
        let mut add = SingleLayer::<f32>::new(&Add {}, &x, &Setup::of_rows(1)).unwrap();
        for i in 0..3 {
            add.values_mut(Role::X(i)).copy_from_slice(&[i as f32, 10.0]);
        }
        add.values_mut(Role::Dy).copy_from_slice(&[5.0, 6.0]);
        add.forward().unwrap();
        add.backward().unwrap();
        assert_eq!(add.values(Role::Y), [3.0, 30.0]);
        (0..3).for_each(|i| assert_eq!(add.values(Role::Dx(i)), [5.0, 6.0]));
    }

    #[test]
    fn inputs_of_different_shapes_are_rejected() {
        let fault = Add {}.output(&[Activation::new(2, 2, 3), Activation::new(2, 2, 4)]).unwrap_err();
        assert!(fault.message.starts_with("its inputs are 2x2x3 and 2x2x4"), "{}", fault.message);
    }
}
