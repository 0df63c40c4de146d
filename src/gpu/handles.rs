//! The types in the calls to a device: its kind, streams, events, graphs, grids, and the table entries of kernels.
//!
//! A handle is a number that only the device that created it can interpret.

use crate::error::{Error, Result};

/// Which implementation executes the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DriverKind {
    /// NVIDIA's driver.
    Cuda,
    /// The same kernels compiled for the CPU.
    Emu,
}

impl std::fmt::Display for DriverKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DriverKind::Cuda => "cuda",
            DriverKind::Emu => "emu",
        })
    }
}

/// A function of the host that a stream calls.
pub struct HostCall(pub Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for HostCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostCall")
    }
}

/// An in-order queue of work on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream(pub(super) u64);

impl Stream {
    /// Returns the stream as libraries know it.
    pub(super) fn raw(self) -> *mut std::ffi::c_void {
        self.0 as _
    }
}

/// A point in a stream for which the host and other streams can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GpuEvent(pub(super) u64);

/// Work that was captured once and is launched as a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Graph(pub(super) u64);

/// The blocks of a launch; none if an extent is 0. The kernel determines the threads per block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y and z.
    pub blocks: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared: u32,
    /// Whether the blocks of a product compute small tiles; other kernels have one size.
    pub small_tiles: bool,
}

impl Grid {
    /// Returns a grid of blocks. [`Driver::launch`](super::Driver::launch) rejects extents above CUDA's limits.
    pub fn new(x: usize, y: usize, z: usize) -> Self {
        Grid {
            blocks: [x, y, z].map(|extent| u32::try_from(extent).unwrap_or(u32::MAX)),
            shared: 0,
            small_tiles: false,
        }
    }
    /// Returns a grid with enough blocks for `n` items if each block processes `each` of them.
    pub fn cover(n: usize, each: usize) -> Self {
        Grid::new(n.div_ceil(each), 1, 1)
    }
    /// Returns the grid of a product whose blocks compute small tiles, or large ones.
    pub fn with_small_tiles(self, small_tiles: bool) -> Self {
        Grid { small_tiles, ..self }
    }
    /// Rejects extents above CUDA's limits: 2^31 - 1 along x, 65535 along y and z.
    pub(super) fn check(self) -> Result<()> {
        let [x, y, z] = self.blocks;
        if x <= i32::MAX as u32 && y <= 65535 && z <= 65535 {
            return Ok(());
        }
        Err(Error::Run(format!(
            "a kernel needs {x} x {y} x {z} blocks, more than the 2147483647 x 65535 x 65535 that a GPU supports; use \
             a smaller layer, a smaller batch or more devices"
        )))
    }
    /// Returns true if there is nothing to launch.
    pub fn is_empty(self) -> bool {
        self.blocks.contains(&0)
    }
}

/// The description of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Its source file in kernels/, without `.cu`.
    pub file: &'static str,
    /// Threads per block.
    pub threads: u32,
    /// The types of its parameters, as written in CUDA.
    pub parameters: &'static [&'static str],
    /// The sizes of its parameters in bytes.
    pub sizes: &'static [usize],
}

impl Entry {
    /// Returns true if a parameter is an address.
    pub fn is_pointer(&self, parameter: usize) -> bool {
        self.parameters[parameter].ends_with('*')
    }
}

/// The rows of a strided copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Address of the first row.
    pub address: u64,
    /// Bytes from the start of one row to the start of the next.
    pub pitch: usize,
}
