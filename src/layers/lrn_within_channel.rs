//! Local response normalisation within a channel: y[n, i, j, c] = x[n, i, j, c] / s[n, i, j, c]^beta, with
//! s = k + alpha / size^2 * sum of x[., ., ., c]^2 over the size x size pixels around (i, j) (cuda-convnet's response normalisation
//! within a map, Krizhevsky 2012; Caffe's `norm_region: WITHIN_CHANNEL`, whose `k` is 1).
//!
//! x, y, s: (N, H, W, C). Pixels outside the image count as zeros. Backward: dx[p] = dy[p] s[p]^-beta - 2 alpha beta / size^2 * x[p] *
//! sum of dy[q] x[q] s[q]^(-beta - 1) over the pixels q around p. In training, s is saved for this.

use super::layer::unknown_phase;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Phase, Role, by_precision};
use crate::cpu::vectorized;
use crate::device::{Operand, Target};
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::gpu::{AnyMut, ints};
use crate::settings::{NOT_NEGATIVE, POSITIVE, Range, settings};
use crate::tensor::Real;

/// In training, k + alpha / size^2 * the sum of squares of each window.
const SUMS: Role = Role::Saved(0);

const SIZE: Range<usize> =
    Range { text: "an odd number from 1 to 255", contains: |size| (1..=255).contains(size) && size % 2 == 1 };

settings! {
    /// The `lrn_within_channel` layer.
    pub struct LrnWithinChannel {
        /// Height and width of a window, an odd number of pixels.
        pub size: usize = 5, in SIZE;
        /// Weight of the squares, before division by the pixels of a window.
        pub alpha: f64 = 1e-4, in NOT_NEGATIVE;
        /// Exponent.
        pub beta: f64 = 0.75, in NOT_NEGATIVE;
        /// Constant added to the sum.
        pub k: f64 = 1.0, in POSITIVE;
    }
}

impl Layer for LrnWithinChannel {
    fn key(&self) -> &'static str {
        "lrn_within_channel"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat && x.h * x.w > 1 {
            return Err(Fault::whole(
                "lrn_within_channel normalises over the pixels of an image; put it before flatten",
            ));
        }
        Ok(x)
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        ((2 * self.size * self.size + 10) * inputs[0].features()) as u64
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let backward = Phase::new("backward").read(Role::X(0), x).read(SUMS, x).low_precision().read(Role::Dy, x);
        let mut phases = LayerPhases::simple(
            Phase::new("forward").read(Role::X(0), x).write(Role::Y, x),
            backward.write(Role::Dx(0), x),
        );
        if cx.training() {
            phases.saved.push(cx.inputs[0].batch(cx.batch));
            phases.forward[0] = phases.forward[0].clone().write(SUMS, x).low_precision();
        }
        Ok(phases)
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        let x = &shapes[Role::X(0)];
        match (phase, target) {
            ("backward", Target::Cpu { threads }) => threads * x.len(1) * x.len(2) * x.len(3),
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
        let image = Role::X(0);
        let (grid, n, o) = (launch.vectors(image), launch.count(image), launch.operand(image));
        let [h, w, c, reach] = ints([o.len(1), o.len(2), o.len(3), self.size / 2])?;
        let (scale, beta, k) = (self.scale(), self.beta as f32, self.k as f32);
        let x = launch.any(image);
        match phase {
            "forward" => {
                let (y, scale) = (launch.any_mut(Role::Y), scale as f32);
                let kept = if launch.has(SUMS) { launch.any_mut(SUMS) } else { AnyMut::NONE };
                // SAFETY: x, y and the sums, if they are not null, are (N, h, w, c), n elements.
                unsafe {
                    any::lrn_within_channel_forward(&launch.issue, grid, x, y, kept, n, h, w, c, reach, scale, beta, k)
                }
            }
            "backward" if !launch.has(Role::Dx(0)) => Ok(()),
            "backward" => {
                let (sums, dy, dx) = (launch.any(SUMS), launch.any(Role::Dy), launch.any_mut(Role::Dx(0)));
                let slope = (2.0 * scale * self.beta) as f32;
                // SAFETY: x, the sums, dy and dx are (N, h, w, c), n elements.
                unsafe {
                    any::lrn_within_channel_backward(
                        &launch.issue,
                        grid,
                        x,
                        sums,
                        dy,
                        dx,
                        n,
                        h,
                        w,
                        c,
                        reach,
                        slope,
                        beta,
                    )
                }
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let strong = LrnWithinChannel { size: 3, alpha: 0.9, k: 1.5, ..LrnWithinChannel::default() };
        vec![
            (strong.clone(), vec![Activation::new(4, 3, 4)]),
            (LrnWithinChannel { size: 5, beta: 0.6, ..strong }, vec![Activation::new(2, 3, 3)]),
        ]
    }
}

/// The sizes of the images of a device.
#[derive(Clone, Copy)]
struct Sizes {
    h: usize,
    w: usize,
    c: usize,
}

impl Sizes {
    fn of(x: &Operand) -> Sizes {
        Sizes { h: x.len(1), w: x.len(2), c: x.len(3) }
    }

    fn elements(self) -> usize {
        self.h * self.w * self.c
    }

    /// Computes sums[p] = sum of term(values[q]) over the pixels q at most `reach` rows and columns from p, in one channel.
    #[inline(always)]
    fn window_sums<T: Real>(self, reach: usize, values: &[T], sums: &mut [T], term: impl Fn(T) -> T) {
        let Sizes { h, w, c } = self;
        for (at, sums) in sums.chunks_exact_mut(c).enumerate() {
            let (i, j) = (at / w, at % w);
            sums.fill(T::ZERO);
            for row in i.saturating_sub(reach)..(i + reach + 1).min(h) {
                for column in j.saturating_sub(reach)..(j + reach + 1).min(w) {
                    let values = &values[(row * w + column) * c..][..c];
                    sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += term(value));
                }
            }
        }
    }
}

/// Returns s^-beta. Square roots are many times faster than a power, and can be vectorised.
#[inline(always)]
fn power<T: Real>(s: T, beta: f64) -> T {
    if beta == 0.75 {
        T::ONE / (s.sqrt() * s.sqrt().sqrt())
    } else if beta == 0.5 {
        T::ONE / s.sqrt()
    } else {
        Real::powf(s, -beta)
    }
}

impl LrnWithinChannel {
    /// Returns the weight of the sum of squares.
    fn scale(&self) -> f64 {
        self.alpha / (self.size * self.size) as f64
    }

    /// Computes y, and keeps s in training; each task handles one sample.
    fn forward<T: Real>(&self, args: &Args) {
        let sizes = Sizes::of(args.operand(Role::X(0)));
        let (k, scale) = (T::from_f64(self.k), T::from_f64(self.scale()));
        let (x, size) = (args.read::<T>(Role::X(0)), sizes.elements());
        let task = |task: usize, y: &mut [T], kept: &mut [T]| {
            let x = &x[task * size..][..y.len()];
            vectorized(
                #[inline(always)]
                || {
                    sizes.window_sums(self.size / 2, x, y, |x| x * x);
                    y.iter_mut().for_each(|s| *s = k + scale * *s);
                    if !kept.is_empty() {
                        kept.copy_from_slice(y);
                    }
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * power(*y, self.beta));
                },
            );
        };
        match args.has(SUMS) {
            true => args.zip_chunks((args.write::<T>(Role::Y), size), (args.write::<T>(SUMS), size), task),
            false => args.chunks(args.write::<T>(Role::Y), size, |i, y, _| task(i, y, &mut [])),
        }
    }

    /// Computes dx; each task handles one sample.
    fn backward<T: Real>(&self, args: &Args) {
        if !args.has(Role::Dx(0)) {
            return;
        }
        let sizes = Sizes::of(args.operand(Role::X(0)));
        let (slope, size) = (T::from_f64(2.0 * self.scale() * self.beta), sizes.elements());
        let (x, s, dy) = (args.read::<T>(Role::X(0)), args.read::<T>(SUMS), args.read::<T>(Role::Dy));
        args.chunks_with_scratch(args.write::<T>(Role::Dx(0)), size, args.scratch::<T>(), |task, dx, terms| {
            let part = task * size..task * size + dx.len();
            let (x, s, dy, terms) = (&x[part.clone()], &s[part.clone()], &dy[part], &mut terms[..size]);
            vectorized(
                #[inline(always)]
                || {
                    for (((t, &x), &s), &dy) in terms.iter_mut().zip(x).zip(s).zip(dy) {
                        *t = dy * power(s, self.beta) * x / s;
                    }
                    sizes.window_sums(self.size / 2, terms, dx, |term| term);
                    for (((dx, &x), &s), &dy) in dx.iter_mut().zip(x).zip(s).zip(dy) {
                        *dx = dy * power(s, self.beta) - slope * x * *dx;
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

    #[test]
    fn windows_end_at_the_edges_of_the_image() {
        let layer = LrnWithinChannel { size: 3, alpha: 9.0, beta: 0.5, k: 1.0 };
        let x = [Activation::new(2, 3, 1)];
        let mut single = SingleLayer::<f64>::new(&layer, &x, &Setup::of_rows(1)).unwrap();
        single.values_mut(Role::X(0)).copy_from_slice(&[1.0, 2.0, 0.0, 3.0, 1.0, 1.0]);
        single.forward().unwrap();
        // 1 + the squares of the window: 16, 17 and 7 in both rows.
        let s = [16.0, 17.0, 7.0].map(f64::sqrt);
        let expected = [1.0 / s[0], 2.0 / s[1], 0.0, 3.0 / s[0], 1.0 / s[1], 1.0 / s[2]];
        for (y, expected) in single.values(Role::Y).iter().zip(expected) {
            assert!((y - expected).abs() < 1e-14, "{y}, expected {expected}");
        }
    }
}
