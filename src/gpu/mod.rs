//! GPUs: memory, streams, events, copies, launches of kernels, graphs and NVIDIA's libraries, on CUDA or on the
//! emulated device. No CUDA type is visible outside this room.
//!
//! It does not depend on layers or on `cpu/`, and does not choose an order: it issues each call to the stream that the
//! caller names.
//!
//! To add a device call, add a method to `cuda.rs`, `emulated.rs` and `driver.rs`, which dispatches to one of the other
//! two; its argument and result types go into `handles.rs`. To add a library, add a file to `libraries/` and its
//! computations to `libraries/on_gpu.rs`. A new kernel needs no change here: build.rs generates its launcher.

mod address;
mod allocations;
pub mod cast;
mod cuda;
mod cuda_api;
mod cuda_context;
mod driver;
mod embedded;
mod emulated;
mod emulated_world;
mod gpus;
mod handles;
mod host_numbers;
mod host_side;
mod kernel_image;
pub mod kernels;
mod launch;
pub mod libraries;
pub mod nccl;
mod staging;
mod sums;

pub use address::{AnyConst, AnyMut, ComputeType, Const, Mut, bytes_of};
pub use allocations::{Allocations, LaunchOptions};
pub use driver::{Driver, Issue};
pub use emulated::{EmulatorSettings, ThreadOrder};
pub use gpus::{GpuOptions, Gpus};
pub use handles::{DriverKind, Entry, GpuEvent, Graph, Grid, HostCall, Rows, Stream};
pub use host_numbers::HostNumbers;
pub use kernel_image::KernelImage;
pub use launch::{CLOCK_BYTES, Launch, int, ints, threads};
pub use staging::{INPUTS, clock_words};
pub use sums::ArenaSlice;
