//! Rectified linear unit with a learned slope: y = x where x > 0, otherwise w x (He et al. 2015,
//! <https://arxiv.org/abs/1502.01852>).
//!
//! x, y: (N, H, W, C); weight: (1), or (C) with `shared = false`. Backward: dx = dy where x > 0, otherwise w dy; dw = sum of
//! dy x over the values, of the channel, that are not above 0.

use super::layer::unknown_phase;
use super::row_sums::{self, Launches};
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Phase, Role, by_precision};
use crate::cpu::vectorized;
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::gpu::kernels::{self, any};
use crate::gpu::{Grid, int};
use crate::settings::{FINITE, settings};
use crate::tensor::{Dim, Real};

settings! {
    /// The `prelu` layer.
    pub struct Prelu {
        /// Slope at first.
        pub slope: f64 = 0.25, in FINITE;
        /// Whether all channels share one slope.
        pub shared: bool = true;
    }
}

/// Values per task.
const BLOCK: usize = 1 << 14;

impl Layer for Prelu {
    fn key(&self) -> &'static str {
        "prelu"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if !self.shared && x.flat && x.h * x.w > 1 {
            return Err(Fault::at("shared", "slopes of channels need an image; put prelu before flatten"));
        }
        Ok(x)
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        vec![Param::vector("weight", if self.shared { 1 } else { inputs[0].c }, self.slope)]
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let (param, gradient) = cx.param_layouts((!self.shared).then_some(Dim::OUTPUTS));
        Ok(LayerPhases {
            params: vec![param],
            ..LayerPhases::simple(
                Phase::new("forward").read(Role::X(0), x).read(Role::WEIGHT, param).write(Role::Y, x),
                Phase::new("backward")
                    .read(Role::X(0), x)
                    .read(Role::WEIGHT, param)
                    .read(Role::Dy, x)
                    .write(Role::Dx(0), x)
                    .write(Role::D_WEIGHT, gradient),
            )
        })
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        let x = &shapes[Role::X(0)];
        let (rows, c) = (x.len(0) * x.len(1) * x.len(2), x.len(3));
        match (phase, target) {
            ("backward", Target::Cpu { .. }) => c + row_sums::scratch(x.elements(), c),
            // The sums of channels, and the parts of these.
            ("backward", _) => Launches::new(rows, c).scratch().max(c),
            _ => 0,
        }
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => self.forward::<T>(args),
            "backward" => self.backward::<T>(args),
            _ => unknown_phase(phase),
        });
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let (o, n) = (launch.operand(Role::X(0)), launch.count(Role::X(0)));
        let (rows, c) = (o.len(0) * o.len(1) * o.len(2), o.len(3));
        let (x, w, slopes) = (launch.any(Role::X(0)), launch.read(Role::WEIGHT), int(if self.shared { 1 } else { c })?);
        let grid = launch.vectors(Role::X(0));
        match phase {
            // SAFETY: x and y have n elements in rows of c channels, w one slope or c of them.
            "forward" => unsafe {
                any::prelu_forward(&launch.issue, grid, x, w, launch.any_mut(Role::Y), n, int(c)?, slopes)
            },
            "backward" => {
                let dy = launch.any(Role::Dy);
                if launch.has(Role::Dx(0)) {
                    let dx = launch.any_mut(Role::Dx(0));
                    // SAFETY: as above, for x, dy and dx.
                    unsafe { any::prelu_backward(&launch.issue, grid, x, w, dy, dx, n, int(c)?, slopes)? };
                }
                self.launch_slopes(launch, rows, c)
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let plain = Prelu::default();
        vec![
            (Prelu { slope: -0.5, ..plain.clone() }, vec![Activation::new(3, 2, 4)]),
            (Prelu { shared: false, ..plain }, vec![Activation::new(3, 2, 6)]),
        ]
    }
}

impl Prelu {
    fn forward<T: Real>(&self, args: &Args) {
        let (x, w, c) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::WEIGHT), args.operand(Role::X(0)).len(3));
        let size = (BLOCK / c.max(1)).max(1) * c;
        args.chunks(args.write::<T>(Role::Y), size, |task, y, _| {
            let x = &x[task * size..][..y.len()];
            for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                self.each(
                    w,
                    c,
                    #[inline(always)]
                    |i, slope| y[i] = if x[i] > T::ZERO { x[i] } else { slope * x[i] },
                );
            }
        });
    }

    /// Calls `f` with every channel and its slope.
    #[inline(always)]
    fn each<T: Real>(&self, w: &[T], c: usize, mut f: impl FnMut(usize, T)) {
        match self.shared {
            true => (0..c).for_each(|i| f(i, w[0])),
            false => w.iter().enumerate().for_each(|(i, &slope)| f(i, slope)),
        }
    }

    fn backward<T: Real>(&self, args: &Args) {
        let (x, w, dy) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::WEIGHT), args.read::<T>(Role::Dy));
        let c = args.operand(Role::X(0)).len(3);
        if args.has(Role::Dx(0)) {
            let size = (BLOCK / c.max(1)).max(1) * c;
            args.chunks(args.write::<T>(Role::Dx(0)), size, |task, dx, _| {
                let part = task * size..task * size + dx.len();
                let rows = x[part.clone()].chunks_exact(c).zip(dy[part].chunks_exact(c));
                for (dx, (x, dy)) in dx.chunks_exact_mut(c).zip(rows) {
                    self.each(
                        w,
                        c,
                        #[inline(always)]
                        |i, slope| dx[i] = if x[i] > T::ZERO { dy[i] } else { slope * dy[i] },
                    );
                }
            });
        }
        let (sums, scratch) = args.scratch::<T>().split_at_mut(c);
        row_sums::sum(args, x.len(), sums, scratch, |first, sums| {
            let (x, dy) = (&x[first..first + c], &dy[first..first + c]);
            vectorized(
                #[inline(always)]
                || {
                    for ((sum, &x), &dy) in sums.iter_mut().zip(x).zip(dy) {
                        *sum += if x > T::ZERO { T::ZERO } else { x * dy };
                    }
                },
            );
        });
        match args.write::<T>(Role::D_WEIGHT) {
            [all] if self.shared => *all = sums.iter().fold(T::ZERO, |sum, &one| sum + one),
            each => each.copy_from_slice(sums),
        }
    }

    fn launch_slopes(&self, launch: &Launch, rows: usize, c: usize) -> Result<()> {
        let (x, dy) = (launch.any(Role::X(0)), launch.any(Role::Dy));
        let (columns, rows_as_int) = (int(c)?, rows as i64);
        let sums = Launches::new(rows, c);
        if !self.shared {
            return sums.run(launch, Role::D_WEIGHT, |grid, to, each| {
                // SAFETY: x and dy are (rows, c); the parts fit where `to` points.
                unsafe { any::prelu_slopes(&launch.issue, grid, x, dy, to, rows_as_int, columns, int(each)?) }
            });
        }
        let (grid, parts, each) = sums.in_parts();
        let to = launch.scratch();
        // SAFETY: x and dy are (rows, c), the scratch memory holds all parts, and all of them are one sum.
        unsafe {
            any::prelu_slopes(&launch.issue, grid, x, dy, to, rows_as_int, columns, int(each)?)?;
            let n = int(parts * c)?;
            kernels::sum_rows(&launch.issue, Grid::new(1, 1, 1), to.into(), launch.write(Role::D_WEIGHT), n, 1, n)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn the_slope_and_its_gradient() {
        for (shared, weights, dw) in [(true, vec![0.5], vec![-5.0]), (false, vec![0.5, 0.25], vec![-2.0, -3.0])] {
            let layer = Prelu { slope: 0.0, shared };
            let mut single = SingleLayer::<f64>::new(&layer, &[Activation::new(1, 2, 2)], &Setup::of_rows(1)).unwrap();
            single.values_mut(Role::X(0)).copy_from_slice(&[4.0, -3.0, -2.0, 5.0]);
            single.values_mut(Role::WEIGHT).copy_from_slice(&weights);
            single.values_mut(Role::Dy).fill(1.0);
            single.forward().unwrap();
            single.backward().unwrap();
            let last = *weights.last().unwrap();
            assert_eq!(single.values(Role::Y), [4.0, -3.0 * last, -1.0, 5.0]);
            assert_eq!(single.values(Role::Dx(0)), [1.0, last, 0.5, 1.0]);
            assert_eq!(single.values(Role::D_WEIGHT), dw);
        }
    }
}
