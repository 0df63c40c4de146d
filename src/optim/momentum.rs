//! Momentum: a velocity that keeps a part of the updates before (Polyak 1964,
//! <https://doi.org/10.1016/0041-5553(64)90137-5>; Sutskever et al. 2013,
//! <https://proceedings.mlr.press/v28/sutskever13.html>). The velocity v is 0 initially, and r is the learning rate of the
//! parameter. The three forms agree while the rate is constant, up to the factor 1 - mu of the last one:
//!
//! | form | velocity | update |
//! | --- | --- | --- |
//! | `pytorch` | v = mu v + g | g = v, or g + mu v with `nesterov` |
//! | `heavy_ball` | v = mu v + r g | g = v / r |
//! | `lecture` | v = mu v + (1 - mu) r g | g = v / r |
//!
//! As in PyTorch's SGD without dampening, the rate multiplies v when it is used in the first form, so that a falling rate also
//! brakes what has accumulated. In the others, as in Caffe and cuda-convnet2, v is the last change of the weights,
//! W - W_before, whatever rate it was made with; if the rate is 0, nothing moves and v stays as it is.

use super::transform::{Block, Elements, Transform, by_block};
use crate::cpu::vectorized;
use crate::error::Fault;
use crate::gpu::kernels::{MomentumOfUpdatesSettings, MomentumSettings, TransformSettings};
use crate::settings::{FRACTION, Settings, settings, values};
use crate::tensor::Real;
use serde::Deserialize;

/// How the velocity accumulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MomentumForm {
    /// Of gradients.
    Pytorch,
    /// Of updates.
    HeavyBall,
    /// Of updates, of which the new one has the weight 1 - mu.
    Lecture,
}

values! {
    MomentumForm, "\"pytorch\", \"heavy_ball\" or \"lecture\"", form => match form {
        MomentumForm::Pytorch => "\"pytorch\"",
        MomentumForm::HeavyBall => "\"heavy_ball\"",
        MomentumForm::Lecture => "\"lecture\"",
    }.to_string();
}

settings! {
    /// The transform: `momentum = 0.9`, or `momentum = { mu = 0.9, nesterov = true }`.
    #[derive(Copy)]
    pub struct Momentum from mu {
        /// The fraction of the velocity that is kept from step to step; 0 disables it.
        pub mu: f64 = 0.9, in FRACTION;
        /// Whether to look ahead along the new velocity.
        pub nesterov: bool = false;
        /// Whether the velocity is one of gradients, or of updates, and with which weight.
        pub form: MomentumForm = MomentumForm::Pytorch, example "\"heavy_ball\"";
    }
}

impl Momentum {
    /// Returns the weight of a new gradient in the velocity.
    fn share(&self) -> f64 {
        if self.form == MomentumForm::Lecture { 1.0 - self.mu } else { 1.0 }
    }
}

impl Transform for Momentum {
    fn key(&self) -> &'static str {
        "momentum"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        if self.nesterov && self.form != MomentumForm::Pytorch {
            let message = "nesterov looks ahead in the form \"pytorch\" only; remove form or nesterov";
            return Err(Fault::at("nesterov", message));
        }
        Ok(())
    }
    fn is_identity(&self) -> bool {
        self.mu == 0.0
    }
    fn slots(&self) -> &'static [&'static str] {
        &["velocity"]
    }
    fn apply(&self, block: Block) {
        by_block!(block, e => accelerate(e, self))
    }
    fn on_gpu(&self) -> TransformSettings {
        let [mu, share] = [self.mu, self.share()].map(|x| x as f32);
        match self.form {
            MomentumForm::Pytorch => MomentumSettings { mu, nesterov: self.nesterov.into() }.into(),
            MomentumForm::HeavyBall | MomentumForm::Lecture => MomentumOfUpdatesSettings { mu, share }.into(),
        }
    }
    fn examples() -> Vec<Self> {
        let plain = Momentum::default();
        let lecture = Momentum { form: MomentumForm::Lecture, ..plain };
        vec![
            plain,
            Momentum { mu: 0.5, nesterov: true, ..plain },
            Momentum { mu: 0.75, form: MomentumForm::HeavyBall, ..plain },
            lecture,
        ]
    }
}

fn accelerate<T: Real>(mut e: Elements<T>, momentum: &Momentum) {
    let mu = T::from_f64(momentum.mu);
    let v = e.slots.take("velocity");
    let g = e.g;
    if momentum.form != MomentumForm::Pytorch {
        let [rate, share] = [e.lr, momentum.share()].map(T::from_f64);
        if rate == T::ZERO {
            g.fill(T::ZERO);
            return;
        }
        let new = rate * share;
        vectorized(
            #[inline(always)]
            || {
                for (g, v) in g.iter_mut().zip(v) {
                    *v = mu * *v + new * *g;
                    *g = *v / rate;
                }
            },
        );
        return;
    }
    vectorized(
        #[inline(always)]
        || {
            if momentum.nesterov {
                for (g, v) in g.iter_mut().zip(v) {
                    *v = mu * *v + *g;
                    *g += mu * *v;
                }
            } else {
                for (g, v) in g.iter_mut().zip(v) {
                    *v = mu * *v + *g;
                    *g = *v;
                }
            }
        },
    );
}
