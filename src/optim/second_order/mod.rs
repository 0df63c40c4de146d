//! Second-order methods: they take the place of the chain, and choose each update from the loss, the gradient and the
//! curvature of one batch, which they may evaluate several times. They work on the values of all trained weights in one
//! vector of doubles, and know nothing of networks.
//!
//! To add a method: write `optim/second_order/x.rs` with a struct that implements [`Method`], and add one line to the list
//! below.

mod lbfgs;
mod line_search;
mod method;
mod newton;
mod newton_cg;

pub use lbfgs::{Lbfgs, WolfeSearch};
pub use method::{Method, MethodState, MethodStep, Objective, StartPoint};
pub use newton::{Curvature, MOST_WEIGHTS, Newton, StepSearch};
pub use newton_cg::NewtonCg;

use crate::settings::registry;

registry! {
    Method: Box<dyn Method>, one => Box::new(one);
    "lbfgs" => Lbfgs,
    "newton" => Newton,
    "newton_cg" => NewtonCg,
}

#[cfg(test)]
mod tests;
