//! Stochastic pooling: y[n, i, j, c] = x[n, l, c] at a pixel l of the window that is drawn with probability p_l = max(x_l, 0) / sum of
//! max(x, 0) over the window (Zeiler and Fergus 2013, <https://arxiv.org/abs/1301.3557>). In evaluation, y = sum of p_l x_l.
//!
//! x: (N, H, W, C); y: (N, floor((H + 2 p - K) / s) + 1, likewise for W, C), as for `max_pool`. Put it after a relu: values below 0, and
//! padding, are never drawn, and y is 0 where a window has no value above 0. A draw is a function of (seed, step, the name of the layer,
//! index of y in the global batch), so it does not depend on how the layer is split: it is the first pixel, row by row, where the sum of
//! max(x, 0) so far reaches u times the whole, with u uniform in (0, 1). Backward: dy is added at the pixels that were drawn, whose indices in
//! the window are saved. The y of a window that contains a NaN is NaN.

use super::layer::unknown_phase;
use super::max_pool::{ARGMAX, give_to_positions, launch_positions};
use super::window::{Padding, Pair, WindowGeometry};
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Phase, ReluMask, Role, by_precision};
use crate::cpu::vectorized;
use crate::device::{Random, RandomStream};
use crate::error::{Fault, Result};
use crate::gpu::int;
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;

/// The largest number of positions in a window: one less than for `max_pool`, since the number itself says that none was drawn.
const POSITIONS: usize = 65279;

settings! {
    /// The `stochastic_pool` layer.
    pub struct StochasticPool {
        /// Size of the windows, at least 1, with at most 65279 positions.
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

impl StochasticPool {
    /// Returns the windows over an image of a size.
    fn window(&self, h: usize, w: usize) -> WindowGeometry {
        WindowGeometry::of_pool(self.kernel, self.stride, self.pad, self.ceil, Pair { h, w })
    }
}

impl Layer for StochasticPool {
    fn key(&self) -> &'static str {
        "stochastic_pool"
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
        (y * (3 * self.kernel.h * self.kernel.w + 20)) as u64
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let name = if cx.training() { "draw" } else { "evaluate" };
        let mut phases = LayerPhases::simple(
            Phase::new(name).read(Role::X(0), x).write(Role::Y, x),
            Phase::new("backward")
                .read(ARGMAX, x)
                .low_precision()
                .read(Role::Dy, x)
                .write(Role::Dx(0), x)
                .masks(ReluMask::Before, []),
        );
        if cx.training() {
            phases.saved.push(cx.output.batch(cx.batch));
            phases.forward[0] = phases.forward[0].clone().write(ARGMAX, x).low_precision();
        }
        Ok(phases)
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "draw" => self.draw::<T>(args),
            "evaluate" => self.evaluate::<T>(args),
            "backward" => give_to_positions::<T>(args, |h, w| self.window(h, w)),
            _ => unknown_phase(phase),
        })
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        if phase == "backward" {
            return launch_positions(launch, |h, w| self.window(h, w));
        }
        let (xo, yo) = (launch.operand(Role::X(0)), launch.operand(Role::Y));
        let geometry = self.window(xo.len(1), xo.len(2)).geometry(xo, yo)?;
        let (grid, n, x, y) =
            (launch.vectors(Role::Y), launch.count(Role::Y), launch.any(Role::X(0)), launch.any_mut(Role::Y));
        if phase == "evaluate" {
            // SAFETY: y has n elements, x is (rows, h, w, c).
            return unsafe { any::stochastic_pool_evaluate(&launch.issue, grid, x, y, n, geometry) };
        }
        let (places, step, row) = (launch.any_mut(ARGMAX), launch.step(), launch.row());
        let (channels, first, before) = (int(xo.shape.0[3])?, int(xo.start(3))?, xo.start(0) as i64);
        // The step, which is the time of this sequence, is 0 here because the kernel reads it from memory.
        let [low, high] = Random::new(launch.seed, RandomStream::Pool, 0, launch.layer).key();
        let layer = launch.layer as u32;
        // SAFETY: y and the indices have n elements, x is (rows, h, w, c).
        unsafe {
            any::stochastic_pool_draw(
                &launch.issue,
                grid,
                x,
                y,
                places,
                step,
                row,
                n,
                geometry,
                before,
                channels,
                first,
                low,
                high,
                layer,
            )
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let pool = |kernel, stride, pad, ceil| StochasticPool { kernel, stride, pad, ceil };
        let none = Padding::both(Pair::both(0));
        vec![
            (pool(Pair::both(2), None, none, false), vec![Activation::new(4, 6, 4)]),
            (
                pool(Pair::both(3), Some(Pair::both(2)), Padding::both(Pair::both(1)), true),
                vec![Activation::new(6, 5, 2)],
            ),
            (pool(Pair { h: 3, w: 2 }, Some(Pair::both(1)), Padding::Same, false), vec![Activation::new(5, 4, 20)]),
        ]
    }
}

/// Channels of an inner loop.
const LANES: usize = 16;

/// Returns the weight of a value in its window; that of a NaN is NaN.
#[inline(always)]
fn weight<T: Real>(x: T) -> T {
    if x > T::ZERO || x.to_f64().is_nan() { x } else { T::ZERO }
}

/// Returns the number in (0, 1) of a random word. It has 24 bits, so that it is the same in every precision.
#[inline(always)]
fn uniform<T: Real>(word: u32) -> T {
    T::from_f64((f64::from(word >> 9) + 0.5) / f64::from(1u32 << 23))
}

/// Up to [`LANES`] channels of a window.
struct Taps<'a, T> {
    window: WindowGeometry,
    /// The output pixel of the window.
    at: (usize, usize),
    /// Height and width of the image.
    size: (usize, usize),
    /// The image, from the first of these channels on.
    x: &'a [T],
    /// Channels of the image.
    c: usize,
    /// How many of them these are.
    len: usize,
}

impl<T: Real> Taps<'_, T> {
    /// Calls `visit(position in the window, lane, value)` for all values on the image, position by position.
    #[inline(always)]
    fn each(&self, mut visit: impl FnMut(usize, usize, T)) {
        self.window.each_tap(
            self.at,
            self.size,
            #[inline(always)]
            |pixel, tap| {
                for (lane, &x) in self.x[pixel * self.c..][..self.len].iter().enumerate() {
                    visit(tap, lane, x);
                }
            },
        );
    }

    /// Returns the sum of the weights of each channel.
    #[inline(always)]
    fn totals(&self) -> [T; LANES] {
        let mut totals = [T::ZERO; LANES];
        self.each(|_, lane, x| totals[lane] += weight(x));
        totals
    }
}

impl StochasticPool {
    /// Calls `each(index of the output pixel on this device, first channel, taps, part of y, part of the indices)` for every output pixel
    /// and up to [`LANES`] of its channels. Each task handles one row of y.
    fn each_part<T: Real>(
        &self,
        args: &Args,
        drawn: &mut [T],
        each: impl Fn(usize, usize, Taps<T>, &mut [T], &mut [T]) + Sync,
    ) {
        let (xo, yo) = (args.operand(Role::X(0)), args.operand(Role::Y));
        let (h, w, c, oh, width) = (xo.len(1), xo.len(2), xo.len(3), yo.len(1), yo.len(2));
        let (window, x, row) = (self.window(h, w), args.read::<T>(Role::X(0)), width * c);
        let kept = if drawn.is_empty() { 0 } else { row };
        args.zip_chunks((args.write::<T>(Role::Y), row), (drawn, kept), |task, y, drawn| {
            let x = &x[task / oh * h * w * c..][..h * w * c];
            for (column, y) in y.chunks_exact_mut(c).enumerate() {
                for (part, y) in y.chunks_mut(LANES).enumerate() {
                    let from = part * LANES;
                    let drawn = drawn.get_mut(column * c + from..column * c + from + y.len()).unwrap_or_default();
                    let at = (task % oh, column);
                    let taps = Taps { window, at, size: (h, w), x: &x[from..], c, len: y.len() };
                    vectorized(
                        #[inline(always)]
                        || each(task * width + column, from, taps, y, drawn),
                    );
                }
            }
        });
    }

    /// Computes y, and keeps the position that was drawn in each window, or one past the last.
    fn draw<T: Real>(&self, args: &Args) {
        let (xo, yo) = (args.operand(Role::X(0)), args.operand(Role::Y));
        let (channels, first, pixels) = (xo.shape.0[3], xo.start(3), yo.len(1) * yo.len(2));
        let before = (args.clock.row as usize + xo.start(0)) * pixels;
        let random = args.random(RandomStream::Pool);
        let none = T::from_f64((self.kernel.h * self.kernel.w) as f64);
        self.each_part::<T>(
            args,
            args.write::<T>(ARGMAX),
            #[inline(always)]
            |pixel, from, taps, y, drawn| {
                let mut aims = taps.totals();
                let index = ((before + pixel) * channels + first + from) as u64;
                for (lane, (aim, y)) in aims.iter_mut().zip(&mut *y).enumerate() {
                    // A NaN stays one.
                    *y = *aim * T::ZERO;
                    *aim *= uniform(random.word(index + lane as u64));
                }
                drawn.fill(none);
                let mut sums = [T::ZERO; LANES];
                taps.each(|tap, lane, x| {
                    sums[lane] += weight(x);
                    let takes = drawn[lane] == none && sums[lane] > T::ZERO && sums[lane] >= aims[lane];
                    y[lane] = if takes { x } else { y[lane] };
                    drawn[lane] = if takes { T::from_f64(tap as f64) } else { drawn[lane] };
                });
            },
        );
    }

    /// Computes the mean of each window by the probabilities.
    fn evaluate<T: Real>(&self, args: &Args) {
        self.each_part::<T>(
            args,
            &mut [],
            #[inline(always)]
            |_, _, taps, y, _| {
                let totals = taps.totals();
                y.fill(T::ZERO);
                taps.each(|_, lane, x| y[lane] += weight(x) * x);
                for (y, &total) in y.iter_mut().zip(&totals) {
                    *y = if total == T::ZERO { T::ZERO } else { *y / total };
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Mode, Setup, SingleLayer};

    const POOL: StochasticPool =
        StochasticPool { kernel: Pair::both(2), stride: None, pad: Padding::both(Pair::both(0)), ceil: false };

    fn pool(mode: Mode, rows: usize, image: Activation) -> SingleLayer<'static, f64> {
        SingleLayer::new(&POOL, &[image], &Setup { mode, ..Setup::of_rows(rows) }).unwrap()
    }

    #[test]
    fn pixels_are_drawn_as_often_as_their_values_say() {
        let mut layer = pool(Mode::Train, 4000, Activation::new(2, 2, 1));
        for x in layer.values_mut(Role::X(0)).chunks_exact_mut(4) {
            x.copy_from_slice(&[1.0, 0.0, 5.0, 2.0]);
        }
        layer.values_mut(Role::Dy).fill(3.0);
        layer.forward().unwrap();
        layer.backward().unwrap();
        let (y, dx) = (layer.values(Role::Y), layer.values(Role::Dx(0)));
        for (&y, dx) in y.iter().zip(dx.chunks_exact(4)) {
            let expected = [1.0, 0.0, 5.0, 2.0].map(|x| if x == y { 3.0 } else { 0.0 });
            assert_eq!(dx, expected);
        }
        // The deviation of such a share of 4000 is at most 0.008.
        for (value, share) in [(1.0, 0.125), (0.0, 0.0), (5.0, 0.625), (2.0, 0.25)] {
            let found = y.iter().filter(|&&y| y == value).count() as f64 / 4000.0;
            assert!((found - share).abs() < 0.03, "{value}: {found}, expected {share}");
        }
    }

    #[test]
    fn evaluation_is_the_mean_of_the_draws() {
        let mut layer = pool(Mode::Eval, 1, Activation::new(2, 4, 1));
        layer.values_mut(Role::X(0)).copy_from_slice(&[1.0, 0.0, -1.0, 0.0, 5.0, 2.0, -4.0, 0.0]);
        layer.forward().unwrap();
        assert_eq!(layer.values(Role::Y), [(1.0 + 25.0 + 4.0) / 8.0, 0.0]);
    }

    #[test]
    fn windows_without_values_above_0_give_0_and_have_no_gradient() {
        let mut layer = pool(Mode::Train, 1, Activation::new(2, 2, 2));
        layer.values_mut(Role::X(0)).copy_from_slice(&[-1.0, f64::NAN, 0.0, 1.0, -5.0, 1.0, 0.0, 1.0]);
        layer.values_mut(Role::Dy).fill(1.0);
        layer.forward().unwrap();
        layer.backward().unwrap();
        let y = layer.values(Role::Y);
        assert!(y[0] == 0.0 && y[1].is_nan(), "{y:?}");
        assert!(layer.values(Role::Dx(0)).iter().all(|&dx| dx == 0.0));
    }
}
