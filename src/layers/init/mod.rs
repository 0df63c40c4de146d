//! Initial values of parameters. They depend on the seed, the parameter and the element, never on devices or layouts.
//!
//! To add a kind: write `layers/init/x.rs` with a `settings!` struct that implements [`Initializer`], and add one line to the
//! list below.

mod choice;
mod constant;
mod fan;
mod initializer;
mod kaiming;
mod listed;
mod lsuv;
mod normal;
mod norms;
mod orthogonal;
mod truncated_normal;
mod uniform;
mod xavier;
mod zeros;

pub use choice::Init;
pub use constant::ConstantValues;
pub use fan::{Distribution, Fan};
pub use initializer::{InitialElement, Initializer};
pub use kaiming::Kaiming;
pub use listed::Listed;
pub use lsuv::Lsuv;
pub use normal::NormalValues;
pub use norms::NormsOfWeight;
pub use orthogonal::Orthogonal;
pub use truncated_normal::TruncatedNormal;
pub use uniform::UniformValues;
pub use xavier::Xavier;
pub use zeros::Zeros;

use crate::settings::registry;

registry! {
    Initializer: Box<dyn Initializer>, one => Box::new(one);
    "constant" => ConstantValues,
    "kaiming" => Kaiming,
    "listed" => Listed,
    "lsuv" => Lsuv,
    "normal" => NormalValues,
    "orthogonal" => Orthogonal,
    "truncated_normal" => TruncatedNormal,
    "uniform" => UniformValues,
    "xavier" => Xavier,
    "zeros" => Zeros,
}

#[cfg(test)]
mod tests;
