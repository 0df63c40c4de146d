//! Watches a run (`train.watch`): every so often, the size of the gradients of each layer, how far the update moves its weights, the
//! angle between this update and the one before, and which units are dead or values saturated. Warns of what goes wrong.
//!
//! Gradients are those of the batch, before the optimiser changes them. The update itself and the one before are found from the weights
//! between updates, so an update that is watched is preceded by one during which nothing is submitted ahead. Weights, gradients and outputs
//! are read from the devices, of large parameters only in part (`parts.rs`), and of outputs the first samples (`view.rs`); nothing that is
//! computed changes.

mod outputs;
mod parts;
mod signs;
mod sums;
mod view;
mod watcher;

pub use outputs::{RECTIFIERS, saturation};
pub(super) use watcher::Watch;
