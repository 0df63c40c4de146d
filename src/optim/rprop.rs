//! Rprop: a step size for each weight, which grows while its gradient keeps its sign and shrinks when the sign changes
//! (Riedmiller and Braun 1993, <https://doi.org/10.1109/ICNN.1993.298623>): s = s * `increase` or s * `decrease`, between
//! `min_factor` and `max_factor`; then g = s sign(g). After a change of sign, the gradient counts as 0 for this update and
//! the comparison in the next one.
//!
//! s is a factor of the learning rate and 1 initially; PyTorch's limits are step sizes instead. The method compares
//! gradients of successive updates, so it needs batches that are the whole data or nearly so.

use super::transform::{Block, Elements, Transform, by_block, sign};
use crate::cpu::vectorized;
use crate::error::Fault;
use crate::gpu::kernels::{RpropSettings, TransformSettings};
use crate::settings::{INSIDE, Range, SINGLE, Settings, settings};
use crate::tensor::Real;

const INCREASE: Range<f64> =
    Range { text: "a number above 1 within single precision", contains: |x| *x > 1.0 && (SINGLE.contains)(x) };

settings! {
    /// The transform: `rprop = {}`.
    #[derive(Copy)]
    pub struct Rprop {
        /// The factor of a step size after a change of sign.
        pub decrease: f64 = 0.5, in INSIDE;
        /// The factor of a step size while the sign stays.
        pub increase: f64 = 1.2, in INCREASE;
        /// The smallest step size, as a factor of the learning rate.
        pub min_factor: f64 = 1e-6, in SINGLE;
        /// The largest step size, as a factor of the learning rate.
        pub max_factor: f64 = 50.0, in SINGLE;
    }
}

impl Transform for Rprop {
    fn key(&self) -> &'static str {
        "rprop"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        if self.min_factor > self.max_factor {
            let message =
                format!("min_factor = {}, expected at most max_factor = {}", self.min_factor, self.max_factor);
            return Err(Fault::at("min_factor", message));
        }
        Ok(())
    }
    fn slots(&self) -> &'static [&'static str] {
        &["gradient", "size"]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => turn(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        let [decrease, increase, least, most] =
            [self.decrease, self.increase, self.min_factor, self.max_factor].map(|x| x as f32);
        RpropSettings { decrease, increase, least, most }.into()
    }
    fn examples() -> Vec<Self> {
        vec![Rprop::default(), Rprop { decrease: 0.25, increase: 3.0, min_factor: 0.5, max_factor: 2.0 }]
    }
}

fn turn<T: Real>(mut e: Elements<T>, s: &Rprop) {
    let [decrease, increase, least, most] = [s.decrease, s.increase, s.min_factor, s.max_factor].map(T::from_f64);
    let (before, size) = (e.slots.take("gradient"), e.slots.take("size"));
    vectorized(
        #[inline(always)]
        || {
            for ((g, before), size) in e.g.iter_mut().zip(before).zip(size) {
                let agreement = sign(*g) * sign(*before);
                let factor = if agreement > T::ZERO {
                    increase
                } else if agreement < T::ZERO {
                    decrease
                } else {
                    T::ONE
                };
                // A size is 0 only before the first update.
                let old = if *size == T::ZERO { T::ONE } else { *size };
                *size = (old * factor).max(least).min(most);
                *before = if agreement < T::ZERO { T::ZERO } else { *g };
                *g = sign(*before) * *size;
            }
        },
    );
}
