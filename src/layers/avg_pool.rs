//! Mean over windows: y[n, i, j, c] = sum over the window of x[n, i s - p + a, j s - p + b, c] / D (LeCun et al.
//! 1998, <https://doi.org/10.1109/5.726791>).
//!
//! x: (N, H, W, C); y: (N, floor((H + 2 p - K) / s) + 1, likewise for W, C), where 2 p is the padding before and after the image. With `ceil` the quotient is rounded up,
//! but as in PyTorch every window must start on the image or on the padding before it. D is the number of positions
//! of the window on the image; with `count_include_pad` it includes those on the padding. Backward: each element of
//! dx is the sum of dy / D over the windows that contain it.

use super::layer::unknown_phase;
use super::window::{Padding, Pair, Span, WindowGeometry};
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Phase, Role, by_precision};
use crate::cpu::vectorized;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;

settings! {
    /// The `avg_pool` layer.
    pub struct AvgPool {
        /// Size of the windows, at least 1.
        pub kernel: Pair, example "2";
        /// Step between windows, at least 1.
        pub stride: Option<Pair> = None, default "kernel";
        /// Padding on each side, at most half the kernel; with `same`, so much that the output is as large as the input divided by the
        /// stride, rounded up, with an odd row or column below or to the right.
        pub pad: Padding = Padding::both(Pair::both(0));
        /// Whether to include windows that extend beyond the bottom or right edge.
        pub ceil: bool = false;
        /// Whether D includes padding; in TensorFlow, `same` padding does not count.
        pub count_include_pad: bool = true;
    }
}

impl AvgPool {
    /// Returns the windows over an image of a size.
    fn window(&self, h: usize, w: usize) -> WindowGeometry {
        WindowGeometry::of_pool(self.kernel, self.stride, self.pad, self.ceil, Pair { h, w })
    }

    /// Returns 1 / D.
    fn scale<T: Real>(&self, rows: Span, cols: Span) -> T {
        let size = |s: Span| if self.count_include_pad { s.padded } else { s.end - s.start };
        T::from_f64(1.0 / (size(rows) * size(cols)) as f64)
    }
}

impl Layer for AvgPool {
    fn key(&self) -> &'static str {
        "avg_pool"
    }
    fn check(&self) -> Result<(), Fault> {
        self.window(1, 1).check_pool()
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
        Ok(LayerPhases::simple(
            Phase::new("forward").read(Role::X(0), x).write(Role::Y, x),
            Phase::new("backward").read(Role::Dy, x).write(Role::Dx(0), x),
        ))
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => self.forward::<T>(args),
            "backward" => self.backward::<T>(args),
            _ => unknown_phase(phase),
        })
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let (x, y, from, to) = match phase {
            "forward" => (Role::X(0), Role::Y, Role::X(0), Role::Y),
            "backward" => (Role::Dx(0), Role::Dy, Role::Dy, Role::Dx(0)),
            _ => unknown_phase(phase),
        };
        if !launch.has(to) {
            return Ok(());
        }
        let (x_part, y_part) = (launch.operand(x), launch.operand(y));
        let geometry = self.window(x_part.len(1), x_part.len(2)).geometry(x_part, y_part)?;
        let (n, grid, padded) = (launch.count(to), launch.vectors(to), i32::from(self.count_include_pad));
        let (on, from, to) = (&launch.issue, launch.any(from), launch.any_mut(to));
        let launch_kernel = if phase == "forward" { any::avg_pool_forward } else { any::avg_pool_backward };
        // SAFETY: x or dx is (rows, h, w, c), y or dy (rows, oh, ow, c); the output has n elements.
        unsafe { launch_kernel(on, grid, from, to, n, geometry, padded) }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let pool = |kernel, stride, pad, ceil, count_include_pad| AvgPool {
            kernel: Pair::both(kernel),
            stride,
            pad: Padding::both(Pair::both(pad)),
            ceil,
            count_include_pad,
        };
        let uneven = Padding::Given(Pair { h: 0, w: 1 }, Pair { h: 1, w: 0 });
        vec![
            (pool(2, None, 0, false, true), vec![Activation::new(4, 6, 4)]),
            (pool(3, Some(Pair::both(2)), 1, true, true), vec![Activation::new(6, 5, 2)]),
            (pool(3, Some(Pair { h: 2, w: 1 }), 1, true, false), vec![Activation::new(4, 5, 4)]),
            (AvgPool { pad: uneven, ..pool(3, Some(Pair::both(2)), 0, true, true) }, vec![Activation::new(5, 4, 4)]),
            (
                AvgPool { pad: Padding::Same, ..pool(3, Some(Pair::both(2)), 0, false, false) },
                vec![Activation::new(6, 5, 4)],
            ),
        ]
    }
}

impl AvgPool {
    /// Computes y; each task handles one row of it.
    fn forward<T: Real>(&self, args: &Args) {
        let (xo, yo) = (args.operand(Role::X(0)), args.operand(Role::Y));
        let (h, w, c, oh) = (xo.len(1), xo.len(2), xo.len(3), yo.len(1));
        let window = self.window(h, w);
        let x = args.read::<T>(Role::X(0));
        args.chunks(args.write::<T>(Role::Y), yo.len(2) * c, |task, y, _| {
            let x = &x[task / oh * h * w * c..][..h * w * c];
            vectorized(
                #[inline(always)]
                || {
                    for (ow, y) in y.chunks_exact_mut(c).enumerate() {
                        let scale = self.scale::<T>(window.rows(task % oh, h), window.cols(ow, w));
                        y.fill(T::ZERO);
                        window.each_tap(
                            (task % oh, ow),
                            (h, w),
                            #[inline(always)]
                            |pixel, _| y.iter_mut().zip(&x[pixel * c..][..c]).for_each(|(y, &x)| *y += x),
                        );
                        y.iter_mut().for_each(|y| *y *= scale);
                    }
                },
            );
        });
    }

    /// Computes dx; each task handles one sample.
    fn backward<T: Real>(&self, args: &Args) {
        if !args.has(Role::Dx(0)) {
            return;
        }
        let (dyo, dxo) = (args.operand(Role::Dy), args.operand(Role::Dx(0)));
        let (h, w, c, oh, ow) = (dxo.len(1), dxo.len(2), dxo.len(3), dyo.len(1), dyo.len(2));
        let window = self.window(h, w);
        let dy = args.read::<T>(Role::Dy);
        args.chunks(args.write::<T>(Role::Dx(0)), h * w * c, |n, dx, _| {
            dx.fill(T::ZERO);
            vectorized(
                #[inline(always)]
                || {
                    for position in 0..oh * ow {
                        let at = (position / ow, position % ow);
                        let scale = self.scale::<T>(window.rows(at.0, h), window.cols(at.1, w));
                        let dy = &dy[(n * oh * ow + position) * c..][..c];
                        window.each_tap(
                            at,
                            (h, w),
                            #[inline(always)]
                            |pixel, _| {
                                let dx = &mut dx[pixel * c..][..c];
                                dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy * scale);
                            },
                        );
                    }
                },
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    fn corner(count_include_pad: bool) -> Vec<f64> {
        let both = Pair::both;
        let layer =
            AvgPool { kernel: both(2), stride: None, pad: Padding::both(both(1)), ceil: false, count_include_pad };
        let mut pool = SingleLayer::<f64>::new(&layer, &[Activation::new(2, 2, 1)], &Setup::of_rows(1)).unwrap();
        pool.values_mut(Role::X(0)).copy_from_slice(&[4.0, 8.0, 12.0, 16.0]);
        pool.forward().unwrap();
        pool.values(Role::Y).to_vec()
    }

    #[test]
    fn padding_counts_by_default() {
        assert_eq!(corner(true), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(corner(false), [4.0, 8.0, 12.0, 16.0]);
    }
}
