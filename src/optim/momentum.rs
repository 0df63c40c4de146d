//! Momentum: v = mu * v + g, with v = 0 initially; then g = v or, with Nesterov's look-ahead, g = g + mu * v
//! (Sutskever et al. 2013, <https://proceedings.mlr.press/v28/sutskever13.html>).
//!
//! As in PyTorch's SGD without dampening, the learning rate multiplies v when it is used, not when it is accumulated.

use super::transform::{Block, Elements, Transform, by_block};
use crate::cpu::vectorized;
use crate::error::Fault;
use crate::gpu::kernels::{MomentumSettings, TransformSettings};
use crate::tensor::Real;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

/// The transform: `momentum = 0.9`, or `momentum = { mu = 0.9, nesterov = true }`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Momentum {
    /// The fraction of the velocity that is kept from step to step, at least 0, where 0 disables it, and below 1.
    pub mu: f64,
    /// Whether to look ahead along the new velocity; false by default.
    pub nesterov: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    mu: f64,
    #[serde(default)]
    nesterov: bool,
}

impl<'de> Deserialize<'de> for Momentum {
    fn deserialize<D: Deserializer<'de>>(settings: D) -> Result<Self, D::Error> {
        settings.deserialize_any(NumberOrTable)
    }
}

/// Used instead of an untagged enum, whose errors would not name the wrong key of the table.
struct NumberOrTable;

impl<'de> Visitor<'de> for NumberOrTable {
    type Value = Momentum;
    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a number, or a table with mu and nesterov")
    }
    fn visit_f64<E: Error>(self, mu: f64) -> Result<Momentum, E> {
        Ok(Momentum { mu, nesterov: false })
    }
    fn visit_i64<E: Error>(self, mu: i64) -> Result<Momentum, E> {
        self.visit_f64(mu as f64)
    }
    fn visit_u64<E: Error>(self, mu: u64) -> Result<Momentum, E> {
        self.visit_f64(mu as f64)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Momentum, A::Error> {
        let Table { mu, nesterov } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Momentum { mu, nesterov })
    }
}

impl Transform for Momentum {
    fn key(&self) -> &'static str {
        "momentum"
    }
    fn check(&self) -> Result<(), Fault> {
        if (0.0..1.0).contains(&self.mu) {
            return Ok(());
        }
        let message = format!("momentum = {}, expected a number of at least 0 and below 1", self.mu);
        Err(Fault::at("mu", message))
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
        MomentumSettings { mu: self.mu as f32, nesterov: self.nesterov.into() }.into()
    }
    fn examples() -> Vec<Self> {
        vec![Momentum { mu: 0.9, nesterov: false }, Momentum { mu: 0.5, nesterov: true }]
    }
}

fn accelerate<T: Real>(mut e: Elements<T>, momentum: &Momentum) {
    let mu = T::from_f64(momentum.mu);
    let v = e.slots.take("velocity");
    let g = e.g;
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
