//! The ways to whiten images: linear maps of whole images, as one vector of features, that make the features uncorrelated. They are
//! settings here; what is fitted to the training data is a [`Whitening`](super::Whitening).
//!
//! To add one: write `data/whiten/x.rs` with a struct that implements [`Whitener`], and add one line to the list in `registry!` below.

mod choice;
mod decorrelate;
mod pca;
mod whitener;
mod zca;

pub use choice::Whiten;
pub use decorrelate::Decorrelate;
pub use pca::Pca;
pub use whitener::{MOST_WHITENED, Whitener};
pub use zca::Zca;

use crate::settings::registry;

registry! {
    Whitener: Box<dyn Whitener>, one => Box::new(one);
    "decorrelate" => Decorrelate,
    "pca" => Pca,
    "zca" => Zca,
}
