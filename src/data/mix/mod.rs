//! Mixing: two training samples, and their targets, become one.
//!
//! The partner of a sample, the kind and what it draws are functions of (seed, epoch, index of the sample in its data set), so the result depends
//! on nothing else: not on the batch, the device, the threads or a restart. Both images are augmented, with draws of their own, and normalised before
//! they are mixed, on the host or on a GPU, with bit-identical results. Evaluations mix nothing.
//!
//! To add one that blends images or cuts boxes: write `data/mix/x.rs` with a struct that implements [`Mixture`], and add one line to the list in
//! `registry!` below.

mod beta;
mod cutmix;
mod list;
mod mixture;
mod mixup;
mod recipe;

pub use list::{Mix, Partner};
pub use mixture::Mixture;
pub use recipe::Recipe;

use crate::settings::registry;

registry! {
    Mixture: Box<dyn Mixture>, one => Box::new(one);
    "cutmix" => cutmix::Cutmix,
    "mixup" => mixup::Mixup,
}
