//! Dropout: y = x m / (1 - rate) in training, y = x in evaluation; m is 0 with probability `rate`, otherwise 1
//! (Srivastava et al. 2014, <https://jmlr.org/papers/v15/srivastava14a.html>).
//!
//! x, y: (N, H, W, C). The mask is a function of (seed, step, the name of the layer, index in the global batch), so it does not
//! depend on how the layer is split. Backward recomputes it: dx = dy m / (1 - rate).

use super::layer::unknown_phase;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Phase, Role, Split, by_precision};
use crate::cpu::vectorized;
use crate::device::{Random, RandomStream};
use crate::error::{Fault, Result};
use crate::gpu::int;
use crate::gpu::kernels::any;
use crate::settings::{FRACTION, settings};
use crate::tensor::Real;

settings! {
    /// The `dropout` layer.
    pub struct Dropout {
        /// Probability of dropping a value.
        pub rate: f64 = 0.5, in FRACTION;
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
        by_precision!(args, T => self.mask::<T>(masked_operands(phase), args))
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
            (Dropout { rate: 0.5 }, vec![Activation::new(1, 1, 37)]),
            (Dropout { rate: 0.2 }, vec![Activation::new(3, 3, 6)]),
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
        let mut layer =
            SingleLayer::<f32>::new(&Dropout { rate: 0.25 }, &[Activation::new(5, 7, 9)], &Setup::of_rows(4)).unwrap();
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
    fn evaluation_is_a_view() {
        let setup = Setup { mode: Mode::Eval, ..Setup::default() };
        let layer = SingleLayer::<f32>::new(&Dropout { rate: 0.5 }, &[Activation::new(1, 1, 2)], &setup).unwrap();
        assert!(layer.phases().forward.is_empty());
    }
}
