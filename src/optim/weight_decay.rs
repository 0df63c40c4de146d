//! L2 weight decay: g = g + decay * decay_mult * w, which adds the gradient of decay / 2 * |w|^2 to that of the loss
//! (Krogh and Hertz 1991,
//! <https://proceedings.neurips.cc/paper/1991/hash/8eefcfdf5990e441f0fb6f3fad709e21-Abstract.html>).
//!
//! Equals `weight_decay` of PyTorch's SGD if it comes before `momentum`.

use super::transform::{Block, Elements, Transform, by_block};
use crate::cpu::vectorized;
use crate::gpu::kernels::{TransformSettings, WeightDecaySettings};
use crate::settings::{SINGLE_OR_ZERO, settings};
use crate::tensor::Real;

settings! {
    /// The transform: `weight_decay = 5e-4`.
    #[derive(Copy)]
    pub struct WeightDecay from decay {
        /// The decay; 0 disables it.
        pub decay: f64 = 5e-4, in SINGLE_OR_ZERO;
    }
}

impl Transform for WeightDecay {
    fn key(&self) -> &'static str {
        "weight_decay"
    }
    fn is_identity(&self) -> bool {
        self.decay == 0.0
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => decay(e, self.decay))
    }
    fn decay(&self) -> f64 {
        self.decay
    }
    fn on_gpu(&self) -> TransformSettings {
        WeightDecaySettings { decay: self.decay as f32 }.into()
    }
    fn examples() -> Vec<Self> {
        vec![WeightDecay { decay: 5e-4 }]
    }
}

fn decay<T: Real>(e: Elements<T>, decay: f64) {
    let decay = T::from_f64(decay * e.decay_mult);
    vectorized(
        #[inline(always)]
        || e.g.iter_mut().zip(e.w).for_each(|(g, &w)| *g += decay * w),
    );
}
