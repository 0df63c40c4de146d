//! The exponential moving average of the weights (Polyak and Juditsky 1992, <https://doi.org/10.1137/0330046>): after each
//! update, a = decay a + (1 - decay) w; after the first one, a = w, as in PyTorch's `AveragedModel`.
//!
//! It is the last transform of a chain: it leaves the gradient as it is, and keeps the average in a slot. The file has it as
//! `train.ema`, because evaluations use the average.

use super::transform::{Block, Elements, Transform, by_block};
use crate::cpu::vectorized;
use crate::gpu::kernels::{EmaSettings, TransformSettings};
use crate::settings::{FRACTION, settings};
use crate::tensor::Real;

settings! {
    /// The average: `train.ema = 0.9999`.
    #[derive(Copy)]
    pub struct Ema from decay {
        /// The fraction of the average that is kept from step to step.
        pub decay: f64, in FRACTION, example "0.9999";
    }
}

impl Ema {
    /// The key, which also names its tensors.
    pub const KEY: &'static str = "ema";
    /// The slot with the average.
    pub const AVERAGE: &'static str = "average";
}

impl Transform for Ema {
    fn key(&self) -> &'static str {
        Self::KEY
    }
    fn slots(&self) -> &'static [&'static str] {
        &[Self::AVERAGE]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => average(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        EmaSettings { decay: self.decay }.into()
    }
    fn examples() -> Vec<Self> {
        vec![Ema { decay: 0.9 }, Ema { decay: 0.9999 }]
    }
}

fn average<T: Real>(mut e: Elements<T>, s: &Ema) {
    let (rest, lr, is_first) = (T::from_f64(1.0 - s.decay), T::from_f64(e.lr), e.update == 1);
    let averages = e.slots.take(Ema::AVERAGE);
    vectorized(
        #[inline(always)]
        || {
            for ((a, &g), &w) in averages.iter_mut().zip(&*e.g).zip(e.w) {
                let w = w - lr * g;
                *a = if is_first { w } else { *a + rest * (w - *a) };
            }
        },
    );
}
