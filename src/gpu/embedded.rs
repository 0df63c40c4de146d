//! What build.rs embeds: the table of the kernels, their images for GPUs, and the library of the emulated device.

use super::address::{Const, Mut};
use super::handles::Entry;
use half::bf16;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
