//! Product of two inputs, a gate for each value or for each channel: y = x g (squeeze-and-excitation, Hu et al. 2018,
//! <https://arxiv.org/abs/1709.01507>).
//!
//! x, y: (N, H, W, C); g: (N, H, W, C), or (N, 1, 1, C), which multiplies all pixels. Backward: dx = dy g; dg = dy x, summed over the
//! pixels if g has one. No settings.

use super::layer::unknown_phase;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Phase, Role, by_precision};
use crate::cpu::vectorized;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::gpu::{Grid, int};
use crate::settings::settings;
use crate::tensor::Real;

settings! {
    /// The `multiply` layer.
    pub struct Multiply {}
}

const X: Role = Role::X(0);
const GATE: Role = Role::X(1);
const DX: Role = Role::Dx(0);
const D_GATE: Role = Role::Dx(1);

/// The shape of the operands of a device: (N, pixels, C), and whether all pixels share a gate.
struct Sizes {
    samples: usize,
    pixels: usize,
    c: usize,
    shared: bool,
}

impl Sizes {
    fn of(operands: &Operands) -> Sizes {
        let (x, gate) = (&operands[X], &operands[GATE]);
        let pixels = x.len(1) * x.len(2);
        Sizes { samples: x.len(0), pixels, c: x.len(3), shared: gate.len(1) * gate.len(2) < pixels }
    }
}

impl Layer for Multiply {
    fn key(&self) -> &'static str {
        "multiply"
    }
    fn num_inputs(&self) -> std::ops::RangeInclusive<usize> {
        2..=2
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let (x, gate) = (inputs[0], inputs[1]);
        if gate == x || (gate.h == 1 && gate.w == 1 && gate.c == x.c) {
            return Ok(x);
        }
        Err(Fault::whole(format!(
            "its inputs are {x} and {gate}, expected a second one of the same shape or 1x1x{}; the gate is the second",
            x.c
        )))
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        Ok(LayerPhases::simple(
            Phase::new("forward").read(X, x).read(GATE, x).write(Role::Y, x),
            Phase::new("backward").read(X, x).read(GATE, x).read(Role::Dy, x).write(DX, x).write(D_GATE, x),
        ))
    }
    fn run(&self, phase: &str, args: &Args) {
        let sizes = Sizes::of(args.operands);
        by_precision!(args, T => match phase {
            "forward" => scale::<T>(args, &sizes, X, Role::Y),
            "backward" => {
                if args.has(DX) {
                    scale::<T>(args, &sizes, Role::Dy, DX);
                }
                if args.has(D_GATE) {
                    backward_gate::<T>(args, &sizes);
                }
            }
            _ => unknown_phase(phase),
        });
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let Sizes { samples, pixels, c, shared } = Sizes::of(launch.operands);
        let (n, gate) = (launch.count(X), launch.any(GATE));
        let (grid, image, channels) = (launch.vectors(X), int(pixels * c)?, int(c)?);
        let scale = |from: Role, to: Role| {
            let (from, to) = (launch.any(from), launch.any_mut(to));
            // SAFETY: both have n elements; the gate has n, or c for each sample.
            unsafe { any::multiply_forward(&launch.issue, grid, from, gate, to, n, image, channels, i32::from(shared)) }
        };
        match phase {
            "forward" => scale(X, Role::Y),
            "backward" => {
                if launch.has(DX) {
                    scale(Role::Dy, DX)?;
                }
                if !launch.has(D_GATE) {
                    return Ok(());
                }
                let (x, dy, dg) = (launch.any(X), launch.any(Role::Dy), launch.any_mut(D_GATE));
                // SAFETY: x and dy have n elements; dg has n, or c for each sample.
                unsafe {
                    match shared {
                        true => {
                            let grid = Grid::new(samples * c.div_ceil(32), 1, 1);
                            any::multiply_gate(&launch.issue, grid, x, dy, dg, int(pixels)?, channels)
                        }
                        false => any::multiply_forward(&launch.issue, grid, dy, x, dg, n, image, channels, 0),
                    }
                }
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let x = Activation::new(3, 2, 4);
        vec![(Multiply {}, vec![x, x]), (Multiply {}, vec![x, Activation::new(1, 1, 4)])]
    }
}

/// Computes from * gate; each task handles one sample.
fn scale<T: Real>(args: &Args, sizes: &Sizes, from: Role, to: Role) {
    let (from, gate, image) = (args.read::<T>(from), args.read::<T>(GATE), sizes.pixels * sizes.c);
    let own = if sizes.shared { sizes.c } else { image };
    args.chunks(args.write::<T>(to), image, |n, to, _| {
        let (from, gate) = (&from[n * image..][..image], &gate[n * own..][..own]);
        for (to, from) in to.chunks_exact_mut(own).zip(from.chunks_exact(own)) {
            vectorized(
                #[inline(always)]
                || to.iter_mut().zip(from).zip(gate).for_each(|((to, &from), &gate)| *to = from * gate),
            );
        }
    });
}

/// Computes the gradient of the gate; each task handles one sample.
fn backward_gate<T: Real>(args: &Args, sizes: &Sizes) {
    let (x, dy, image) = (args.read::<T>(X), args.read::<T>(Role::Dy), sizes.pixels * sizes.c);
    let own = if sizes.shared { sizes.c } else { image };
    args.chunks(args.write::<T>(D_GATE), own, |n, dg, _| {
        dg.fill(T::ZERO);
        let (x, dy) = (&x[n * image..][..image], &dy[n * image..][..image]);
        for (x, dy) in x.chunks_exact(own).zip(dy.chunks_exact(own)) {
            vectorized(
                #[inline(always)]
                || dg.iter_mut().zip(x).zip(dy).for_each(|((dg, &x), &dy)| *dg += x * dy),
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn a_gate_of_one_pixel_multiplies_all() {
        let x = [Activation::new(1, 2, 2), Activation::new(1, 1, 2)];
        let mut layer = SingleLayer::<f64>::new(&Multiply {}, &x, &Setup::of_rows(1)).unwrap();
        layer.values_mut(X).copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        layer.values_mut(GATE).copy_from_slice(&[10.0, 100.0]);
        layer.values_mut(Role::Dy).copy_from_slice(&[1.0, 1.0, 2.0, 2.0]);
        layer.forward().unwrap();
        layer.backward().unwrap();
        assert_eq!(layer.values(Role::Y), [10.0, 200.0, 30.0, 400.0]);
        assert_eq!(layer.values(DX), [10.0, 100.0, 20.0, 200.0]);
        assert_eq!(layer.values(D_GATE), [7.0, 10.0]);
        let fault = Multiply {}.output(&[x[1], x[0]]).unwrap_err();
        assert!(fault.message.contains("the gate is the second"), "{}", fault.message);
    }
}
