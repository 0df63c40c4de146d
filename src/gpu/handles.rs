//! What the calls to a device take and return: its kind, streams, events, graphs, grids, the entries of kernels.
//!
//! A handle is a number that only the device that made it can read.

use crate::error::{Error, Result};

/// Which implementation answers.
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

/// An in-order queue of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream(pub(super) u64);

/// A point in a stream that others can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GpuEvent(pub(super) u64);

/// Work that was captured once and is launched as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Graph(pub(super) u64);

/// The blocks of a launch; none when an extent is 0. The threads of a block are the kernel's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y and z.
    pub blocks: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared: u32,
}

impl Grid {
    /// A grid of blocks. [`Driver::launch`](super::Driver::launch) refuses extents above what CUDA takes.
    pub fn new(x: usize, y: usize, z: usize) -> Self {
        Grid { blocks: [x, y, z].map(|extent| u32::try_from(extent).unwrap_or(u32::MAX)), shared: 0 }
    }
    /// Enough blocks for `n` things when each block treats `each`.
    pub fn cover(n: usize, each: usize) -> Self {
        Grid::new(n.div_ceil(each), 1, 1)
    }
    /// Refuses extents above what CUDA takes: 2^31 - 1 along x, 65535 along y and z.
    pub(super) fn check(self) -> Result<()> {
        let [x, y, z] = self.blocks;
        if x <= i32::MAX as u32 && y <= 65535 && z <= 65535 {
            return Ok(());
        }
        Err(Error::Run(format!(
            "a kernel needs {x} x {y} x {z} blocks, more than the 2147483647 x 65535 x 65535 that a GPU takes; use a \
             smaller layer, a smaller batch or more devices"
        )))
    }
    /// Returns true when there is nothing to launch.
    pub fn is_empty(self) -> bool {
        self.blocks.contains(&0)
    }
}

/// What is known about a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// The file in kernels/ that it comes from, without `.cu`.
    pub file: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// The types of its parameters, in CUDA's words.
    pub parameters: &'static [&'static str],
    /// The sizes of its parameters in bytes.
    pub sizes: &'static [usize],
}

impl Entry {
    /// Returns true when a parameter is an address.
    pub fn is_pointer(&self, parameter: usize) -> bool {
        self.parameters[parameter].ends_with('*')
    }
}

/// Rows of a strided copy: the address of the first, and the bytes from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Address of the first row.
    pub address: u64,
    /// Bytes between the starts of two rows.
    pub pitch: usize,
}
