//! The data that build.rs embeds: the table of kernels, their images for GPUs, and the emulated device's library.

use super::address::{Const, Mut};
use super::handles::Entry;
use half::bf16;

/// Bytes at an address like those that NVIDIA's tools give to fatbins.
#[repr(align(64))]
#[cfg_attr(not(peristyle_kernels), allow(dead_code, reason = "this build has no fatbins"))]
struct Aligned<T>(T);

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
    fn fatbins_are_aligned() {
        assert!(!IMAGES.is_empty());
        assert!(IMAGES.iter().all(|(_, image)| image.as_ptr().addr().is_multiple_of(64)));
    }
}
