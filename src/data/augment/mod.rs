//! Augmentation: random changes to each training image, drawn again for every epoch.
//!
//! Each augmentation of the list takes its numbers from the stream (seed, epoch, index of the sample in its data set), after
//! those of the ones before it, so the result depends on nothing else: not on the batch, the device, the threads or a
//! restart. The host draws; the pixels are moved on the host or on a GPU, with bit-identical results.
//!
//! To add one: write `data/augment/x.rs` with a struct that implements [`Augmentation`], a kernel in
//! `kernels/augment_x.cu`, and add one line to the list in `registry!` below.

mod affine;
mod augmentation;
mod axes;
mod color;
mod crop;
mod cutout;
mod draws;
mod flip;
mod frames_only;
mod framing;
mod list;
mod noise;
mod pca_color;
mod random_resized_crop;
mod resize;
mod rotate;
mod scale;
mod shear;
mod shift;

pub use augmentation::{AugmentLaunch, Augmentation};
pub use axes::ColorAxes;
pub use crop::Crop;
pub use draws::Draws;
pub use frames_only::FramesOnly;
pub use framing::{Extent, Framing, View};
pub use list::Augment;
pub use rotate::Rotate;
pub use shift::Shift;

use crate::settings::registry;

registry! {
    Augmentation: Box<dyn Augmentation>, one => Box::new(one);
    "color" => color::Color,
    "crop" => crop::Crop,
    "cutout" => cutout::Cutout,
    "flip" => flip::Flip,
    "noise" => noise::Noise,
    "pca_color" => pca_color::PcaColor,
    "random_resized_crop" => random_resized_crop::RandomResizedCrop,
    "resize" => resize::Resize,
    "rotate" => Rotate,
    "scale" => scale::Scale,
    "shear" => shear::Shear,
    "shift" => Shift,
}
