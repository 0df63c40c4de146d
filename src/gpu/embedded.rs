//! The data that build.rs embeds: the table of kernels, their images for GPUs, and the emulated device's library.

use super::address::{Const, Mut};
use super::handles::Entry;
use half::bf16;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
