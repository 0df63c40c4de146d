//! Delta-bar-delta: a rate for each weight, which grows while its direction is steady and falls when the weight oscillates
//! (Jacobs 1988, <https://doi.org/10.1016/0893-6080(88)90003-2>): r = r + `increase` if g has the sign of the mean gradient
//! d of the updates before, r = r * `decrease` if it has the other one, within `min_gain` and `max_gain`; then
//! d = decay d + (1 - decay) g and g = r g.
//!
//! r is a factor of the learning rate and 1 initially; d is 0 initially.

use super::transform::{Block, Elements, Transform, by_block};
use crate::cpu::vectorized;
use crate::error::Fault;
use crate::gpu::kernels::{DeltaBarDeltaSettings, TransformSettings};
use crate::settings::{FRACTION, INSIDE, SINGLE, Settings, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `delta_bar_delta = {}`.
    #[derive(Copy)]
    pub struct DeltaBarDelta {
        /// What is added to the rate of a weight whose direction is steady.
        pub increase: f64 = 0.05, in SINGLE;
        /// The factor of the rate of a weight that oscillates.
        pub decrease: f64 = 0.9, in INSIDE;
        /// The fraction of the mean gradient that is kept from step to step.
        pub decay: f64 = 0.7, in FRACTION;
        /// The smallest rate, as a factor of the learning rate.
        pub min_gain: f64 = 0.01, in SINGLE;
        /// The largest rate, as a factor of the learning rate.
        pub max_gain: f64 = 100.0, in SINGLE;
    }
}

impl Transform for DeltaBarDelta {
    fn key(&self) -> &'static str {
        "delta_bar_delta"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        if self.min_gain > self.max_gain {
            let message = format!("min_gain = {}, expected at most max_gain = {}", self.min_gain, self.max_gain);
            return Err(Fault::at("min_gain", message));
        }
        Ok(())
    }
    fn slots(&self) -> &'static [&'static str] {
        &["mean", "gain"]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => adapt(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        let [increase, decrease, least, most] =
            [self.increase, self.decrease, self.min_gain, self.max_gain].map(|x| x as f32);
        DeltaBarDeltaSettings { decay: self.decay, increase, decrease, least, most }.into()
    }
    fn examples() -> Vec<Self> {
        let plain = DeltaBarDelta::default();
        vec![plain, DeltaBarDelta { increase: 1.0, decrease: 0.5, decay: 0.0, min_gain: 0.6, max_gain: 2.5 }]
    }
}

fn adapt<T: Real>(mut e: Elements<T>, s: &DeltaBarDelta) {
    let [increase, decrease, rest, least, most] =
        [s.increase, s.decrease, 1.0 - s.decay, s.min_gain, s.max_gain].map(T::from_f64);
    let (mean, gain) = (e.slots.take("mean"), e.slots.take("gain"));
    vectorized(
        #[inline(always)]
        || {
            for ((g, mean), gain) in e.g.iter_mut().zip(mean).zip(gain) {
                // A gain is 0 only before the first update.
                let old = if *gain == T::ZERO { T::ONE } else { *gain };
                let agreement = *g * *mean;
                let new = if agreement > T::ZERO {
                    old + increase
                } else if agreement < T::ZERO {
                    old * decrease
                } else {
                    old
                };
                *gain = new.max(least).min(most);
                *mean += rest * (*g - *mean);
                *g = *gain * *g;
            }
        },
    );
}
