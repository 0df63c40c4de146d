//! Sum of 2 to 8 inputs of the same shape: y = x0 + x1 + ... (the shortcut of He et al. 2016,
//! <https://arxiv.org/abs/1512.03385>).
//!
//! x0, x1, ..., y: (N, H, W, C). Backward: dx_i = dy. The output is where the first input is. No settings.

use super::*;
use crate::device::kernels::any;
use crate::device::vectorized;
use crate::tensor::Real;

/// The layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {}

/// Elements per task.
const BLOCK: usize = 1 << 14;

impl Layer for Add {
    fn kind(&self) -> &'static str {
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
    fn lower(&self, cx: &Lowering) -> Result<Lowered, Fault> {
        let x = cx.x();
        let mut forward = Phase::new("forward").write(Role::Y, x);
        let mut backward = Phase::new("backward").read(Role::Dy, x);
        for i in 0..cx.inputs.len() {
            forward = forward.read(Role::X(i), x);
            backward = backward.write(Role::Dx(i), x);
        }
        Ok(Lowered::simple(forward, backward))
    }
    fn run(&self, pass: Pass, _: usize, args: &Args) {
        by_precision!(args, T => match pass {
            Pass::Forward => forward::<T>(args),
            Pass::Backward => backward::<T>(args),
        })
    }
    fn takes_relu(&self) -> bool {
        true
    }
    fn launch(&self, pass: Pass, _: usize, launch: &Launch) -> Result<()> {
        let operands = launch.operands.len();
        match pass {
            // Operands (y, x0, x1, ...).
            Pass::Forward => (2..operands).try_for_each(|i| {
                let relu = i32::from(launch.relu && i + 1 == operands);
                let (n, y) = (launch.count(0), launch.any_mut(0));
                let sum = if i == 2 { launch.any(1) } else { y.into() };
                // SAFETY: all operands have n elements; y may be read too.
                unsafe { any::add_forward(&launch.issue, launch.packs(0), sum, launch.any(i), y, n, relu) }
            }),
            // Operands (dy, dx0, dx1, ...).
            Pass::Backward => (1..operands).filter(|&i| launch.has(i)).try_for_each(|i| launch.copy(0, 0, i)),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(Add {}, vec![Activation::new(2, 2, 4); 2]), (Add {}, vec![Activation::new(1, 3, 2); 3])]
    }
}

/// Operands (y, x0, x1, ...).
fn forward<T: Real>(args: &Args) {
    args.chunks(args.write::<T>(0), BLOCK, |task, y, _| {
        let part = task * BLOCK..task * BLOCK + y.len();
        let x = |i| &args.read::<T>(i)[part.clone()];
        vectorized(
            #[inline(always)]
            || {
                y.iter_mut().zip(x(1)).zip(x(2)).for_each(|((y, &a), &b)| *y = a + b);
                for i in 3..args.operands.len() {
                    y.iter_mut().zip(x(i)).for_each(|(y, &v)| *y += v);
                }
            },
        );
    });
}

/// Operands (dy, dx0, dx1, ...).
fn backward<T: Real>(args: &Args) {
    let dy = args.read::<T>(0);
    for i in (1..args.operands.len()).filter(|&i| args.has(i)) {
        args.chunks(args.write::<T>(i), BLOCK, |task, dx, _| dx.copy_from_slice(&dy[task * BLOCK..][..dx.len()]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_input_gets_the_gradient_of_the_sum() {
        let x = [Activation::new(1, 1, 2); 3];
        let mut add = Alone::<f32>::new(&Add {}, &x, &Setting::of_rows(1)).unwrap();
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
    fn inputs_of_different_shapes_are_refused() {
        let fault = Add {}.output(&[Activation::new(2, 2, 3), Activation::new(2, 2, 4)]).unwrap_err();
        assert!(fault.message.starts_with("its inputs are 2x2x3 and 2x2x4"), "{}", fault.message);
    }
}
