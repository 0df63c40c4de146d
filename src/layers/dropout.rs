//! Dropout: y = x m / (1 - rate) in training, y = x in evaluation; m is 0 with probability `rate`, otherwise 1
//! (Srivastava et al. 2014, <https://jmlr.org/papers/v15/srivastava14a.html>).
//!
//! x, y: (N, H, W, C). m is drawn for each value, or with `of` for each channel of a sample (Tompson et al. 2015,
//! <https://arxiv.org/abs/1411.4280>), or for each sample: stochastic depth, at the end of a residual branch (Huang et al. 2016,
//! <https://arxiv.org/abs/1603.09382>). The mask is a function of (seed, step, the name of the layer, index in the global batch),
//! so it does not depend on how the layer is split. Backward recomputes it: dx = dy m / (1 - rate).

use super::layer::unknown_phase;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Phase, Role, Split, by_precision};
use crate::cpu::vectorized;
use crate::device::{Random, RandomStream};
use crate::error::{Fault, Result};
use crate::gpu::int;
use crate::gpu::kernels::any;
use crate::settings::{FRACTION, settings, values};
use crate::tensor::Real;
use serde::Deserialize;

/// What `dropout` drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dropped {
    /// Single values.
    Values,
    /// All values of a channel of a sample.
    Channels,
    /// All values of a sample.
    Samples,
}

values! {
    Dropped, "\"values\", \"channels\" or \"samples\"", of => match of {
        Dropped::Values => "\"values\"".to_string(),
        Dropped::Channels => "\"channels\"".to_string(),
        Dropped::Samples => "\"samples\"".to_string(),
    };
}

settings! {
    /// The `dropout` layer.
    pub struct Dropout {
        /// Probability of dropping a value.
        pub rate: f64 = 0.5, in FRACTION;
        /// What is dropped together: each value on its own, all pixels of a channel of a sample, or a whole sample.
        pub of: Dropped = Dropped::Values;
    }
}

impl Layer for Dropout {
    fn key(&self) -> &'static str {
        "dropout"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(inputs[0])
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        20 * inputs[0].features() as u64
    }
    fn splits(&self) -> &'static [Split] {
        // In evaluation it is a view, which keeps the layout of its input. Training does the same.
        &[]
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        if !cx.training() {
            return Ok(LayerPhases::view());
        }
        let x = cx.x();
        Ok(LayerPhases::simple(
            Phase::new("forward").read(Role::X(0), x).write(Role::Y, x),
            Phase::new("backward").read(Role::Dy, x).write(Role::Dx(0), x),
        ))
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match self.of {
            Dropped::Values => self.mask::<T>(masked_operands(phase), args),
            _ => self.mask_units::<T>(masked_operands(phase), args),
        })
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let (from, to) = masked_operands(phase);
        if !launch.has(to) {
            return Ok(());
        }
        let (o, n) = (launch.operand(from), launch.count(from));
        let image = o.len(1) * o.len(2);
        let before = o.start(0) * image;
        // The step, which is the time of this sequence, is 0 here because the kernel reads it from memory.
        let [low, high] = Random::new(launch.seed, RandomStream::Dropout, 0, launch.layer).key();
        if self.of != Dropped::Values {
            let (grid, x, y) = (launch.vectors(from), launch.any(from), launch.any_mut(to));
            let (c, channels, first) = (int(o.len(3))?, int(o.shape.0[3])?, int(o.start(3))?);
            let (step, row, layer) = (launch.step(), launch.row(), launch.layer as u32);
            let (threshold, scale) = (self.threshold(), (1.0 / (1.0 - self.rate)) as f32);
            let (by_sample, start) = (i32::from(self.of == Dropped::Samples), o.start(0) as i64);
            let image = int(image * o.len(3))?;
            // SAFETY: x and y, or dy and dx, have n elements.
            return unsafe {
                any::dropout_units(
                    &launch.issue,
                    grid,
                    x,
                    y,
                    step,
                    row,
                    n,
                    image,
                    c,
                    channels,
                    start,
                    first,
                    by_sample,
                    low,
                    high,
                    layer,
                    threshold,
                    scale,
                )
            };
        }
        // SAFETY: x and y, or dy and dx, have n elements.
        unsafe {
            any::dropout_mask(
                &launch.issue,
                launch.vectors(from),
                launch.any(from),
                launch.any_mut(to),
                launch.step(),
                launch.row(),
                n,
                int(o.len(3))?,
                int(o.shape.0[3])?,
                before as i64,
                image as i64,
                int(o.start(3))?,
                low,
                high,
                launch.layer as u32,
                self.threshold(),
                (1.0 / (1.0 - self.rate)) as f32,
            )
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![
            (Dropout::default(), vec![Activation::new(1, 1, 37)]),
            (Dropout { rate: 0.2, of: Dropped::Values }, vec![Activation::new(3, 3, 6)]),
            (Dropout { rate: 0.4, of: Dropped::Channels }, vec![Activation::new(3, 2, 6)]),
            (Dropout { rate: 0.5, of: Dropped::Samples }, vec![Activation::new(2, 2, 6)]),
        ]
    }
}

/// Returns the operands that a phase reads and writes; both passes apply the same function.
fn masked_operands(phase: &str) -> (Role, Role) {
    match phase {
        "forward" => (Role::X(0), Role::Y),
        "backward" => (Role::Dy, Role::Dx(0)),
        _ => unknown_phase(phase),
    }
}

/// Approximate number of elements per task.
const BLOCK: usize = 1 << 13;

impl Dropout {
    /// Returns the threshold that a random word is below with probability `rate`, to within 2^-32.
    fn threshold(&self) -> u32 {
        (self.rate * 4_294_967_296.0).round() as u32
    }

    fn mask<T: Real>(&self, (from, to): (Role, Role), args: &Args) {
        if !args.has(to) {
            return;
        }
        let random = args.random(RandomStream::Dropout);
        let threshold = self.threshold();
        let scale = T::from_f64(1.0 / (1.0 - self.rate));
        let o = args.operand(from);
        let (c, channels, first) = (o.len(3), o.shape.0[3], o.start(3));
        let before = (args.clock.row as usize + o.start(0)) * o.len(1) * o.len(2);
        let x = args.read::<T>(from);
        // A run of values that are contiguous in the whole tensor: all of them, or the channels of one pixel.
        let pixels = (BLOCK / c.max(1)).max(1);
        let run = if c == channels { pixels * c } else { c };
        args.chunks(args.write::<T>(to), pixels * c, |task, y, _| {
            let x = &x[task * pixels * c..][..y.len()];
            for (i, (y, x)) in y.chunks_mut(run).zip(x.chunks(run)).enumerate() {
                let pixel = before + task * pixels + i * run / c;
                masked(&random, (pixel * channels + first) as u64, threshold, scale, x, y);
            }
        });
    }
}

impl Dropout {
    /// Masks channels of samples, or samples; each task handles one sample.
    fn mask_units<T: Real>(&self, (from, to): (Role, Role), args: &Args) {
        if !args.has(to) {
            return;
        }
        let random = args.random(RandomStream::Dropout);
        let (threshold, scale) = (self.threshold(), T::from_f64(1.0 / (1.0 - self.rate)));
        let o = args.operand(from);
        let (image, c, channels, first) = (o.len(1) * o.len(2) * o.len(3), o.len(3), o.shape.0[3], o.start(3));
        let before = args.clock.row as usize + o.start(0);
        let x = args.read::<T>(from);
        let factor = |unit: usize| if random.word(unit as u64) >= threshold { scale } else { T::ZERO };
        args.chunks(args.write::<T>(to), image, |n, y, _| {
            let x = &x[n * image..][..image];
            match self.of {
                Dropped::Samples => {
                    let factor = factor(before + n);
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * factor);
                }
                _ => {
                    for channel in 0..c {
                        let factor = factor((before + n) * channels + first + channel);
                        let pixels = x[channel..].iter().step_by(c);
                        y[channel..].iter_mut().step_by(c).zip(pixels).for_each(|(y, &x)| *y = x * factor);
                    }
                }
            }
        });
    }
}

/// Counters per inner loop.
const LANES: usize = 64;

/// Sets y[i] to x[i] scale if word `start + i` is at least the threshold, otherwise to 0.
fn masked<T: Real>(random: &Random, start: u64, threshold: u32, scale: T, x: &[T], y: &mut [T]) {
    let mut words = [0; 4 * LANES];
    let skip = (start % 4) as usize;
    let mut counter = start / 4;
    let (mut done, mut from) = (0, skip);
    while done < y.len() {
        let n = (words.len() - from).min(y.len() - done);
        let (x, y, words) = (&x[done..done + n], &mut y[done..done + n], &mut words);
        let used = (from + n).div_ceil(4);
        vectorized(
            #[inline(always)]
            || {
                for (i, words) in words.as_chunks_mut::<4>().0[..used].iter_mut().enumerate() {
                    *words = random.words(counter + i as u64);
                }
                for ((y, &x), &word) in y.iter_mut().zip(x).zip(&words[from..]) {
                    *y = if word >= threshold { x * scale } else { T::ZERO };
                }
            },
        );
        counter += LANES as u64;
        done += n;
        from = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Mode, Setup, SingleLayer};

    #[test]
    fn values_are_kept_where_the_random_word_reaches_the_threshold() {
        let mut layer = SingleLayer::<f32>::new(
            &Dropout { rate: 0.25, of: Dropped::Values },
            &[Activation::new(5, 7, 9)],
            &Setup::of_rows(4),
        )
        .unwrap();
        layer.values_mut(Role::X(0)).fill(3.0);
        layer.values_mut(Role::Dy).fill(3.0);
        layer.forward().unwrap();
        layer.backward().unwrap();
        let random = Random::new(1, RandomStream::Dropout, 1, 0);
        let y = layer.values(Role::Y);
        for (i, &y) in y.iter().enumerate() {
            assert_eq!(y, if random.word(i as u64) >= 1 << 30 { 4.0 } else { 0.0 });
        }
        assert_eq!(layer.values(Role::Dx(0)), y);
        let kept = y.iter().filter(|&&y| y > 0.0).count() as f64 / y.len() as f64;
        assert!((kept - 0.75).abs() < 0.05, "{kept}");
    }

    #[test]
    fn channels_and_samples_are_dropped_as_a_whole() {
        for (of, together) in [(Dropped::Channels, 6), (Dropped::Samples, 6 * 4)] {
            let layer = Dropout { rate: 0.5, of };
            let mut single = SingleLayer::<f32>::new(&layer, &[Activation::new(3, 2, 4)], &Setup::of_rows(40)).unwrap();
            single.values_mut(Role::X(0)).fill(1.0);
            single.forward().unwrap();
            let random = Random::new(1, RandomStream::Dropout, 1, 0);
            let mut kept = 0;
            for (i, &y) in single.values(Role::Y).iter().enumerate() {
                let unit = if together == 6 { i / 24 * 4 + i % 4 } else { i / 24 };
                assert_eq!(y, if random.word(unit as u64) >= 1 << 31 { 2.0 } else { 0.0 });
                kept += usize::from(y > 0.0);
            }
            assert!(kept % together == 0 && (200..760).contains(&kept), "{kept}");
        }
    }

    #[test]
    fn evaluation_is_a_view() {
        let setup = Setup { mode: Mode::Eval, ..Setup::default() };
        let layer =
            SingleLayer::<f32>::new(&Dropout { rate: 0.5, of: Dropped::Values }, &[Activation::new(1, 1, 2)], &setup)
                .unwrap();
        assert!(layer.phases().forward.is_empty());
    }
}
