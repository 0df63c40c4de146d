//! Maximum over windows: y[n, i, j, c] = max over the window of x[n, i s - p + a, j s - p + b, c] (LeCun et al.
//! 1998; overlapping windows as in Krizhevsky et al. 2012, <https://doi.org/10.1145/3065386>).
//!
//! x: (N, H, W, C); y: (N, floor((H + 2 p - K) / s) + 1, likewise for W, C), where 2 p is the padding before and after the image. With `ceil` the quotient is rounded up,
//! but as in PyTorch every window must start on the image or on the padding before it. Padding is never the maximum.
//! Backward: dy is added at the first maximum of each window, whose index in the window is saved. The maximum of a
//! window that contains a NaN is NaN.

use super::layer::unknown_phase;
use super::window::{Padding, Pair, WindowGeometry};
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Phase, ReluMask, Role, by_precision};
use crate::cpu::vectorized;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::gpu::{AnyConst, AnyMut};
use crate::settings::settings;
use crate::tensor::Real;

/// In training, the index of each maximum in its window.
pub(super) const ARGMAX: Role = Role::Saved(0);

/// The largest number of positions in a window: the indices that kernels/max_pool.cu can save in bf16.
const POSITIONS: usize = 65280;

settings! {
    /// The `max_pool` layer.
    pub struct MaxPool {
        /// Size of the windows, at least 1, with at most 65280 positions.
        pub kernel: Pair, example "2";
        /// Step between windows, at least 1.
        pub stride: Option<Pair> = None, default "kernel";
        /// Padding on each side, at most half the kernel; with `same`, so much that the output is as large as the input divided by the
        /// stride, rounded up, with an odd row or column below or to the right.
        pub pad: Padding = Padding::both(Pair::both(0));
        /// Whether to include windows that extend beyond the bottom or right edge.
        pub ceil: bool = false;
    }
}

impl MaxPool {
    /// Returns the windows over an image of a size.
    fn window(&self, h: usize, w: usize) -> WindowGeometry {
        WindowGeometry::of_pool(self.kernel, self.stride, self.pad, self.ceil, Pair { h, w })
    }
}

impl Layer for MaxPool {
    fn key(&self) -> &'static str {
        "max_pool"
    }
    fn check(&self) -> Result<(), Fault> {
        self.window(1, 1).check_pool()?;
        let positions = self.kernel.h * self.kernel.w;
        if positions > POSITIONS {
            let message = format!("kernel = {} has {positions} positions, expected at most {POSITIONS}", self.kernel);
            return Err(Fault::at("kernel", message));
        }
        Ok(())
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        self.window(inputs[0].h, inputs[0].w).output(self.key(), inputs[0], inputs[0].c)
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        let y = self.output(inputs).map_or(0, Activation::features);
        (y * self.kernel.h * self.kernel.w) as u64
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let mut phases = LayerPhases::simple(
            Phase::new("forward").read(Role::X(0), x).write(Role::Y, x),
            Phase::new("backward")
                .read(ARGMAX, x)
                .low_precision()
                .read(Role::Dy, x)
                .write(Role::Dx(0), x)
                .masks(ReluMask::Before, [(Role::X(0), x)]),
        );
        if cx.training() {
            phases.saved.push(cx.output.batch(cx.batch));
            phases.forward[0] = phases.forward[0].clone().write(ARGMAX, x).low_precision();
        }
        Ok(phases)
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => self.forward::<T>(args),
            "backward" => give_to_positions::<T>(args, |h, w| self.window(h, w)),
            _ => unknown_phase(phase),
        })
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        if phase == "backward" {
            return launch_positions(launch, |h, w| self.window(h, w));
        }
        let (x, y) = (launch.operand(Role::X(0)), launch.operand(Role::Y));
        let geometry = self.window(x.len(1), x.len(2)).geometry(x, y)?;
        let (grid, n) = (launch.vectors(Role::Y), launch.count(Role::Y));
        let (x, y) = (launch.any(Role::X(0)), launch.any_mut(Role::Y));
        let places = if launch.has(ARGMAX) { launch.any_mut(ARGMAX) } else { AnyMut::NONE };
        // SAFETY: y and the indices have n elements, x is (rows, h, w, c).
        unsafe { any::max_pool_forward(&launch.issue, grid, x, y, places, n, geometry) }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let pool = |kernel, stride, pad, ceil| MaxPool { kernel, stride, pad: Padding::both(Pair::both(pad)), ceil };
        vec![
            (pool(Pair::both(2), None, 0, false), vec![Activation::new(4, 6, 4)]),
            (pool(Pair::both(3), Some(Pair::both(2)), 1, true), vec![Activation::new(6, 5, 2)]),
            (pool(Pair { h: 3, w: 2 }, Some(Pair::both(1)), 0, false), vec![Activation::new(5, 4, 4)]),
            (
                MaxPool { pad: Padding::Same, ..pool(Pair::both(3), Some(Pair::both(2)), 0, false) },
                vec![Activation::new(6, 5, 4)],
            ),
        ]
    }
}

impl MaxPool {
    /// Computes y; each task handles one row of it.
    fn forward<T: Real>(&self, args: &Args) {
        let (xo, yo) = (args.operand(Role::X(0)), args.operand(Role::Y));
        let (h, w, c, oh, row) = (xo.len(1), xo.len(2), xo.len(3), yo.len(1), yo.len(2) * yo.len(3));
        let window = self.window(h, w);
        let x = args.read::<T>(Role::X(0));
        let argmax = if args.has(ARGMAX) { args.write::<T>(ARGMAX) } else { Default::default() };
        let kept = if args.has(ARGMAX) { row } else { 0 };
        args.zip_chunks((args.write::<T>(Role::Y), row), (argmax, kept), |task, y, argmax| {
            let x = &x[task / oh * h * w * c..][..h * w * c];
            vectorized(
                #[inline(always)]
                || {
                    for (ow, y) in y.chunks_exact_mut(c).enumerate() {
                        let argmax = argmax.get_mut(ow * c..(ow + 1) * c).unwrap_or_default();
                        let mut first = true;
                        window.each_tap(
                            (task % oh, ow),
                            (h, w),
                            #[inline(always)]
                            |pixel, tap| {
                                take(&x[pixel * c..][..c], T::from_f64(tap as f64), first, y, argmax);
                                first = false;
                            },
                        );
                    }
                },
            );
        });
    }
}

/// Updates the maxima with the values of one tap, and their indices if these are saved.
#[inline(always)]
fn take<T: Real>(x: &[T], tap: T, first: bool, y: &mut [T], argmax: &mut [T]) {
    if first {
        y.copy_from_slice(x);
        argmax.fill(tap);
    } else if argmax.is_empty() {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = if wins(x, *y) { x } else { *y });
    } else {
        for ((y, &x), argmax) in y.iter_mut().zip(x).zip(argmax) {
            let wins = wins(x, *y);
            *y = if wins { x } else { *y };
            *argmax = if wins { tap } else { *argmax };
        }
    }
}

/// Returns true if `x` replaces the maximum `y`: it is larger, or NaN.
#[inline(always)]
fn wins<T: Real>(x: T, y: T) -> bool {
    x > y || x.to_f64().is_nan()
}

/// Computes dx, adding dy at the position that is saved of each window; each task handles one sample.
pub(super) fn give_to_positions<T: Real>(args: &Args, window: impl Fn(usize, usize) -> WindowGeometry) {
    if !args.has(Role::Dx(0)) {
        return;
    }
    let (dyo, dxo) = (args.operand(Role::Dy), args.operand(Role::Dx(0)));
    let (h, w, c, oh, ow) = (dxo.len(1), dxo.len(2), dxo.len(3), dyo.len(1), dyo.len(2));
    let window = window(h, w);
    let (argmax, dy) = (args.read::<T>(ARGMAX), args.read::<T>(Role::Dy));
    args.chunks(args.write::<T>(Role::Dx(0)), h * w * c, |n, dx, _| {
        dx.fill(T::ZERO);
        vectorized(
            #[inline(always)]
            || {
                for position in 0..oh * ow {
                    let at = (n * oh * ow + position) * c;
                    let (argmax, dy) = (&argmax[at..][..c], &dy[at..][..c]);
                    window.each_tap(
                        (position / ow, position % ow),
                        (h, w),
                        #[inline(always)]
                        |pixel, tap| give(&mut dx[pixel * c..][..c], T::from_f64(tap as f64), argmax, dy),
                    );
                }
            },
        );
    });
}

/// Launches [`give_to_positions`] on a GPU.
pub(super) fn launch_positions(launch: &Launch, window: impl Fn(usize, usize) -> WindowGeometry) -> Result<()> {
    let to = Role::Dx(0);
    if !launch.has(to) {
        return Ok(());
    }
    let (dxo, dyo) = (launch.operand(to), launch.operand(Role::Dy));
    let geometry = window(dxo.len(1), dxo.len(2)).geometry(dxo, dyo)?;
    let (grid, n, dx) = (launch.vectors(to), launch.count(to), launch.any_mut(to));
    let (places, dy) = (launch.any(ARGMAX), launch.any(Role::Dy));
    let mask = if launch.has(Role::X(0)) { launch.any(Role::X(0)) } else { AnyConst::NONE };
    // SAFETY: dx, and x if it is given, have n elements, the positions and dy are (rows, oh, ow, c).
    unsafe { any::max_pool_backward(&launch.issue, grid, places, dy, mask, dx, n, geometry) }
}

/// Adds dy where the saved position is this one.
#[inline(always)]
fn give<T: Real>(dx: &mut [T], tap: T, argmax: &[T], dy: &[T]) {
    for ((dx, &argmax), &dy) in dx.iter_mut().zip(argmax).zip(dy) {
        *dx += if argmax == tap { dy } else { T::ZERO };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    fn pool(x: [f32; 4], dy: f32) -> (f32, Vec<f32>) {
        let layer = MaxPool { kernel: Pair::both(2), stride: None, pad: Padding::both(Pair::both(0)), ceil: false };
        let mut pool = SingleLayer::<f32>::new(&layer, &[Activation::new(2, 2, 1)], &Setup::of_rows(1)).unwrap();
        pool.values_mut(Role::X(0)).copy_from_slice(&x);
        pool.values_mut(Role::Dy).fill(dy);
        pool.forward().unwrap();
        pool.backward().unwrap();
        (pool.values(Role::Y)[0], pool.values(Role::Dx(0)).to_vec())
    }

    #[test]
    fn the_first_of_equal_maxima_gets_the_gradient() {
        assert_eq!(pool([1.0, 3.0, 3.0, 2.0], 5.0), (3.0, vec![0.0, 5.0, 0.0, 0.0]));
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        assert!(pool([1.0, f32::NAN, 3.0, 2.0], 1.0).0.is_nan());
    }

    #[test]
    fn padding_never_wins() {
        let layer = MaxPool { kernel: Pair::both(3), stride: None, pad: Padding::both(Pair::both(1)), ceil: false };
        let mut pool = SingleLayer::<f32>::new(&layer, &[Activation::new(2, 2, 1)], &Setup::of_rows(1)).unwrap();
        pool.values_mut(Role::X(0)).copy_from_slice(&[-4.0, -3.0, -2.0, -5.0]);
        pool.forward().unwrap();
        assert_eq!(pool.values(Role::Y), [-2.0]);
    }

    #[test]
    fn padding_over_half_the_kernel_is_rejected() {
        let layer = MaxPool { kernel: Pair::both(3), stride: None, pad: Padding::both(Pair::both(2)), ceil: false };
        assert_eq!(layer.check().unwrap_err().message, "pad = 2, expected at most half the kernel, 1");
        let layer = MaxPool { pad: Padding::Given(Pair::both(0), Pair { h: 0, w: 2 }), ..layer };
        assert_eq!(layer.check().unwrap_err().message, "pad = [0, 0, 0, 2], expected at most half the kernel, 1");
    }

    #[test]
    fn a_kernel_with_more_positions_than_can_be_saved_is_rejected() {
        let pool =
            |h, w| MaxPool { kernel: Pair { h, w }, stride: None, pad: Padding::both(Pair::both(0)), ceil: false };
        assert_eq!(pool(255, 256).check(), Ok(()));
        let message = "kernel = 256 has 65536 positions, expected at most 65280";
        assert_eq!(pool(256, 256).check().unwrap_err().message, message);
    }
}
