//! Layers that apply a function to each element: such a layer implements [`Elementwise`], which states its formulas and
//! its kernels, and is a [`Layer`] by that.

use super::layer::unknown_phase;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Phase, Role, by_precision};
use crate::cpu::vectorized;
use crate::device::Epilogue;
use crate::error::{Fault, Result};
use crate::gpu::kernels::{BinaryMap, BinaryMapWith, UnaryMap, UnaryMapWith};
use crate::gpu::{AnyConst, AnyMut};
use crate::settings::Settings;
use crate::tensor::Real;
use std::fmt::Debug;

/// Elements per task.
const BLOCK: usize = 1 << 14;

/// What the backward pass of such a layer reads besides dy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Its input x.
    Input,
    /// Its output y.
    Output,
}

impl Keeps {
    fn role(self) -> Role {
        match self {
            Keeps::Input => Role::X(0),
            Keeps::Output => Role::Y,
        }
    }
}

/// A layer y = f(x) whose gradient dx = g(y, dy) follows from its output, or dx = g(x, dy) from its input.
pub trait Elementwise: Settings + Debug + Default + Send + Sync {
    /// The key in the file.
    const KEY: &'static str;
    /// Floating-point operations per element.
    const COST: u64 = 1;
    /// What g reads besides dy.
    const KEEPS: Keeps = Keeps::Output;

    /// Checks the ranges of its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()
    }

    /// Returns y = f(x). Implementations must be `#[inline(always)]`.
    fn forward<T: Real>(&self, x: T) -> T;

    /// Returns dx = g(y, dy), or g(x, dy) if the layer keeps x. Implementations must be `#[inline(always)]`.
    fn backward<T: Real>(&self, kept: T, dy: T) -> T;

    /// Returns the kernels of both.
    fn kernels(&self) -> Maps;

    /// Returns the epilogue that has the same effect, if there is one.
    fn as_epilogue(&self) -> Option<Epilogue> {
        None
    }

    /// Returns a few layers of this kind, for the shared test suite.
    fn examples() -> Vec<Self> {
        vec![Self::default()]
    }
}

/// The kernels of y = f(x), and of dx = g(y, dy) or g(x, dy).
#[derive(Debug, Clone, Copy)]
pub enum Maps {
    /// Kernels without settings.
    Plain(UnaryMap, BinaryMap),
    /// Kernels whose last argument is this setting.
    With(f64, UnaryMapWith, BinaryMapWith),
}

impl<E: Elementwise> Layer for E {
    fn key(&self) -> &'static str {
        E::KEY
    }
    fn check(&self) -> Result<(), Fault> {
        Elementwise::check(self)
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(inputs[0])
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        E::COST * inputs[0].features() as u64
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        Ok(LayerPhases::simple(
            Phase::new("forward").read(Role::X(0), x).write(Role::Y, x),
            Phase::new("backward").read(E::KEEPS.role(), x).read(Role::Dy, x).write(Role::Dx(0), x),
        ))
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => forward::<T, E>(self, args),
            "backward" => backward::<T, E>(self, args),
            _ => unknown_phase(phase),
        });
    }
    fn as_epilogue(&self) -> Option<Epilogue> {
        Elementwise::as_epilogue(self)
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let x = |role| launch.any(role);
        match phase {
            "forward" => self.kernels().forward(launch, x(Role::X(0)), launch.any_mut(Role::Y)),
            "backward" if !launch.has(Role::Dx(0)) => Ok(()),
            "backward" => self.kernels().backward(launch, x(E::KEEPS.role()), x(Role::Dy), launch.any_mut(Role::Dx(0))),
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        E::examples().into_iter().map(|one| (one, vec![Activation::new(3, 2, 4)])).collect()
    }
}

impl Maps {
    fn forward(self, launch: &Launch, x: AnyConst, y: AnyMut) -> Result<()> {
        let (on, grid, n) = (&launch.issue, launch.vectors(Role::Y), launch.count(Role::Y));
        // SAFETY: the launch is of n elements, and x and y have as many.
        unsafe {
            match self {
                Maps::Plain(launch, _) => launch(on, grid, x, y, n),
                Maps::With(setting, launch, _) => launch(on, grid, x, y, n, setting as f32),
            }
        }
    }

    fn backward(self, launch: &Launch, kept: AnyConst, dy: AnyConst, dx: AnyMut) -> Result<()> {
        let (on, grid, n) = (&launch.issue, launch.vectors(Role::Dy), launch.count(Role::Dy));
        // SAFETY: the launch is of n elements, and x or y, dy and dx have as many.
        unsafe {
            match self {
                Maps::Plain(_, launch) => launch(on, grid, kept, dy, dx, n),
                Maps::With(setting, _, launch) => launch(on, grid, kept, dy, dx, n, setting as f32),
            }
        }
    }
}

fn forward<T: Real, E: Elementwise>(layer: &E, args: &Args) {
    let x = args.read::<T>(Role::X(0));
    args.chunks(args.write::<T>(Role::Y), BLOCK, |i, y, _| {
        let x = &x[i * BLOCK..][..y.len()];
        vectorized(
            #[inline(always)]
            || y.iter_mut().zip(x).for_each(|(y, &x)| *y = layer.forward(x)),
        );
    });
}

fn backward<T: Real, E: Elementwise>(layer: &E, args: &Args) {
    if !args.has(Role::Dx(0)) {
        return;
    }
    let (kept, dy) = (args.read::<T>(E::KEEPS.role()), args.read::<T>(Role::Dy));
    args.chunks(args.write::<T>(Role::Dx(0)), BLOCK, |i, dx, _| {
        let (kept, dy) = (&kept[i * BLOCK..][..dx.len()], &dy[i * BLOCK..][..dx.len()]);
        vectorized(
            #[inline(always)]
            || {
                for ((dx, &kept), &dy) in dx.iter_mut().zip(kept).zip(dy) {
                    *dx = layer.backward(kept, dy);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{leaky_relu::LeakyRelu, relu::Relu, sigmoid::Sigmoid, tanh::Tanh};

    #[test]
    fn nan_stays_nan() {
        fn is_kept<E: Elementwise>() -> bool {
            E::default().forward(f32::NAN).is_nan() && E::default().forward(f64::NAN).is_nan()
        }
        assert!(is_kept::<Relu>() && is_kept::<LeakyRelu>() && is_kept::<Tanh>() && is_kept::<Sigmoid>());
    }
}
