//! Rectified linear unit: y = max(x, 0) (Nair and Hinton 2010, <https://dl.acm.org/doi/10.5555/3104322.3104425>).
//!
//! x, y: (N, H, W, C). Backward: dx = dy where y > 0, else 0. No settings.

use super::*;
use crate::device::vectorized;
use crate::tensor::Real;

/// The layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relu {}

/// Elements per task.
const BLOCK: usize = 1 << 14;

impl Layer for Relu {
    fn kind(&self) -> &'static str {
        "relu"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(inputs[0])
    }
    fn lower(&self, cx: &Lowering) -> Result<Lowered, Fault> {
        let x = cx.x();
        Ok(Lowered::simple(
            Phase::new("forward").read(Role::X(0), x).write(Role::Y, x),
            Phase::new("backward").read(Role::Y, x).read(Role::Dy, x).write(Role::Dx(0), x),
        ))
    }
    fn run(&self, pass: Pass, _: usize, args: &Args) {
        by_precision!(args, T => match pass {
            Pass::Forward => forward::<T>(args),
            Pass::Backward => backward::<T>(args),
        })
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(Relu {}, vec![Activation::new(3, 2, 4)])]
    }
}

fn forward<T: Real>(args: &Args) {
    let x = args.read::<T>(0);
    args.chunks(args.write::<T>(1), BLOCK, |i, y, _| {
        let x = &x[i * BLOCK..][..y.len()];
        vectorized(
            #[inline(always)]
            || y.iter_mut().zip(x).for_each(|(y, &x)| *y = if x > T::ZERO { x } else { T::ZERO }),
        );
    });
}

fn backward<T: Real>(args: &Args) {
    if !args.has(2) {
        return;
    }
    let (y, dy) = (args.read::<T>(0), args.read::<T>(1));
    args.chunks(args.write::<T>(2), BLOCK, |i, dx, _| {
        let (y, dy) = (&y[i * BLOCK..][..dx.len()], &dy[i * BLOCK..][..dx.len()]);
        vectorized(
            #[inline(always)]
            || {
                for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
                    *dx = if y > T::ZERO { dy } else { T::ZERO };
                }
            },
        );
    });
}
