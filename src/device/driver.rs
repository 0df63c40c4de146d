//! The seam to GPUs: some 30 calls on raw addresses, answered by CUDA or by the emulated device. Nothing above this
//! file sees which.
//!
//! Streams are in-order; one host thread issues everything, so an event is recorded before it is waited for.
//! Events and graphs live as long as the driver that made them; so do streams that nobody discards.

use super::code::Code;
use super::cuda::Cuda;
use super::emu::Emu;
use crate::error::{Error, Result};
use std::ffi::c_void;

pub use super::address::{AnyConst, AnyMut, Const, Format, Mut};
pub use super::emu::{Order, Settings};

/// Which implementation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// NVIDIA's driver.
    Cuda,
    /// The same kernels compiled for the CPU.
    Emu,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Cuda => "cuda",
            Kind::Emu => "emu",
        })
    }
}

/// An in-order queue of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream(pub(super) u64);

/// A point in a stream that others can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event(pub(super) u64);

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
    /// A grid of blocks. [`Driver::launch`] refuses extents above what CUDA takes.
    pub fn new(x: usize, y: usize, z: usize) -> Self {
        Grid { blocks: [x, y, z].map(|extent| u32::try_from(extent).unwrap_or(u32::MAX)), shared: 0 }
    }
    /// Enough blocks for `n` things when each block treats `each`.
    pub fn cover(n: usize, each: usize) -> Self {
        Grid::new(n.div_ceil(each), 1, 1)
    }
    /// Refuses extents above what CUDA takes: 2^31 - 1 along x, 65535 along y and z.
    fn check(self) -> Result<()> {
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

/// Where a step's launches go: a device and one of its streams.
#[derive(Debug, Clone, Copy)]
pub struct Issue<'a> {
    /// The device.
    pub driver: &'a Driver,
    /// The stream.
    pub stream: Stream,
}

/// Rows of a strided copy: the address of the first, and the bytes from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Address of the first row.
    pub address: u64,
    /// Bytes between the starts of two rows.
    pub pitch: usize,
}

/// An opened device.
#[derive(Debug)]
pub enum Driver {
    /// A GPU.
    Cuda(Cuda),
    /// The emulated device.
    Emu(Emu),
}

/// Calls the same method of whichever device it is.
macro_rules! either {
    ($self:expr, $device:ident => $call:expr) => {
        match $self {
            Driver::Cuda($device) => $call,
            Driver::Emu($device) => $call,
        }
    };
}

impl Driver {
    /// Returns the number of devices of a kind: GPUs that the driver shows, or 1 emulated one.
    ///
    /// # Errors
    /// When there is no driver, or it is too old, or this build has no kernels: what is missing and what to do.
    pub fn count(kind: Kind) -> Result<usize> {
        match kind {
            Kind::Cuda => super::cuda::count(),
            Kind::Emu => super::emu::count(),
        }
    }

    /// Returns the first two of these GPUs that cannot read each other's memory, without opening any.
    ///
    /// # Errors
    /// As [`Driver::count`], and when a GPU does not exist.
    pub fn apart(kind: Kind, ordinals: &[usize]) -> Result<Option<(usize, usize)>> {
        match kind {
            Kind::Cuda => super::cuda::apart(ordinals),
            Kind::Emu => Ok(None),
        }
    }

    /// Opens a GPU by its number, or the emulated device (whose number is only a name) with `threads` threads.
    ///
    /// # Errors
    /// As [`Driver::count`], and when there is no such device.
    pub fn open(kind: Kind, ordinal: usize, threads: usize) -> Result<Driver> {
        match kind {
            Kind::Cuda => Ok(Driver::Cuda(Cuda::open(ordinal)?)),
            Kind::Emu => Ok(Driver::Emu(Emu::open(ordinal, Settings { threads, ..Settings::default() })?)),
        }
    }

    /// Opens an emulated device with an order of threads.
    ///
    /// # Errors
    /// When this build has no emulated device.
    pub fn emulated(settings: Settings) -> Result<Driver> {
        Ok(Driver::Emu(Emu::open(0, settings)?))
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        match self {
            Driver::Cuda(_) => Kind::Cuda,
            Driver::Emu(_) => Kind::Emu,
        }
    }

    /// Returns what the device calls itself.
    pub fn name(&self) -> &str {
        either!(self, device => device.name())
    }

    /// Returns the compute capability, as (major, minor); (0, 0) for the emulated device.
    pub fn capability(&self) -> (u32, u32) {
        either!(self, device => device.capability())
    }

    /// Returns what entry `kernel` of [`ENTRIES`](super::kernels::ENTRIES) runs as.
    ///
    /// # Errors
    /// When the device does not answer.
    pub fn code(&self, kernel: usize) -> Result<Code> {
        either!(self, device => device.code(kernel))
    }

    /// Returns the memory in bytes, as (free, total).
    ///
    /// # Errors
    /// When the device does not answer.
    pub fn memory(&self) -> Result<(usize, usize)> {
        either!(self, device => device.memory())
    }

    /// Allocates device memory, aligned to 256 bytes; its contents are undefined (NaN on the emulated device).
    ///
    /// # Errors
    /// When there is not enough: how much was asked for and how much is free.
    pub fn allocate(&self, bytes: usize) -> Result<u64> {
        either!(self, device => device.allocate(bytes))
    }

    /// Frees device memory.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Safety
    /// The address came from [`Driver::allocate`], and no issued work uses it any more.
    pub unsafe fn free(&self, address: u64) -> Result<()> {
        // SAFETY: passed on.
        either!(self, device => unsafe { device.free(address) })
    }

    /// Allocates host memory that copies reach without staging; its contents are undefined.
    ///
    /// # Errors
    /// When there is not enough.
    pub fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8> {
        either!(self, device => device.allocate_pinned(bytes))
    }

    /// Frees pinned host memory.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Safety
    /// The address came from [`Driver::allocate_pinned`], and no issued copy uses it any more.
    pub unsafe fn free_pinned(&self, address: *mut u8) -> Result<()> {
        // SAFETY: passed on.
        either!(self, device => unsafe { device.free_pinned(address) })
    }

    /// Lets kernels of this device read the other's memory; false when the hardware cannot.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn reach(&self, other: &Driver) -> Result<bool> {
        match (self, other) {
            (Driver::Cuda(this), Driver::Cuda(other)) => this.reach(other),
            (Driver::Emu(_), Driver::Emu(_)) => Ok(true),
            _ => Ok(false),
        }
    }

    /// Makes a stream.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn stream(&self) -> Result<Stream> {
        either!(self, device => device.stream())
    }

    /// Discards a stream that this device made, once its work is done.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn discard(&self, stream: Stream) -> Result<()> {
        either!(self, device => device.discard(stream))
    }

    /// Makes an event.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn event(&self) -> Result<Event> {
        either!(self, device => device.event())
    }

    /// Records an event after everything issued to the stream so far.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn record(&self, event: Event, stream: Stream) -> Result<()> {
        either!(self, device => device.record(event, stream))
    }

    /// Makes everything issued to the stream from now on wait for an event, which may be another device's.
    ///
    /// # Errors
    /// When the device refuses; the emulated device also when the event was never recorded.
    pub fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        either!(self, device => device.wait(stream, event))
    }

    /// Returns when everything issued to the stream is done.
    ///
    /// # Errors
    /// When a kernel faulted or the device was lost.
    pub fn synchronize(&self, stream: Stream) -> Result<()> {
        either!(self, device => device.synchronize(stream))
    }

    /// Returns when an event has happened.
    ///
    /// # Errors
    /// When a kernel faulted or the device was lost.
    pub fn synchronize_event(&self, event: Event) -> Result<()> {
        either!(self, device => device.synchronize_event(event))
    }

    /// Returns the seconds between two events that have happened.
    ///
    /// # Errors
    /// When one was not recorded.
    pub fn seconds_between(&self, start: Event, end: Event) -> Result<f64> {
        either!(self, device => device.seconds_between(start, end))
    }

    /// Copies from the host to the device.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Safety
    /// Both ranges are valid, and stay so until the copy is done.
    pub unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize, stream: Stream) -> Result<()> {
        // SAFETY: passed on.
        either!(self, device => unsafe { device.copy_in(to, from, bytes, stream) })
    }

    /// Copies from the device to the host.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Safety
    /// Both ranges are valid, and stay so until the copy is done.
    pub unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize, stream: Stream) -> Result<()> {
        // SAFETY: passed on.
        either!(self, device => unsafe { device.copy_out(to, from, bytes, stream) })
    }

    /// Copies between device memories, of one device or of two, and pinned host memory.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Safety
    /// Both ranges are valid, and stay so until the copy is done; they do not overlap.
    pub unsafe fn copy(&self, to: u64, from: u64, bytes: usize, stream: Stream) -> Result<()> {
        // SAFETY: passed on.
        either!(self, device => unsafe { device.copy(to, from, bytes, stream) })
    }

    /// Copies `height` rows of `width` bytes between device memories, of one device or of two, and pinned host memory.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Safety
    /// All rows are valid, and stay so until the copy is done; they do not overlap.
    pub unsafe fn copy_rows(&self, to: Rows, from: Rows, width: usize, height: usize, stream: Stream) -> Result<()> {
        // SAFETY: passed on.
        either!(self, device => unsafe { device.copy_rows(to, from, width, height, stream) })
    }

    /// Sets every byte of device memory.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Safety
    /// The range is valid, and stays so until it is filled.
    pub unsafe fn fill(&self, to: u64, byte: u8, bytes: usize, stream: Stream) -> Result<()> {
        // SAFETY: passed on.
        either!(self, device => unsafe { device.fill(to, byte, bytes, stream) })
    }

    /// Launches entry `kernel` of [`ENTRIES`](super::kernels::ENTRIES); the typed launchers call this.
    ///
    /// # Errors
    /// When the device refuses, or the grid is too large.
    ///
    /// # Safety
    /// `args` point to values of the kernel's parameter types, and the addresses among them are valid.
    pub unsafe fn launch(&self, kernel: usize, grid: Grid, args: &[*mut c_void], stream: Stream) -> Result<()> {
        if grid.is_empty() {
            return Ok(());
        }
        grid.check()?;
        // SAFETY: passed on.
        either!(self, device => unsafe { device.launch(kernel, grid, args, stream) })
    }

    /// Starts to capture what is issued to a stream, and to the streams that wait for its events, instead of doing it.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn begin_capture(&self, origin: Stream) -> Result<()> {
        either!(self, device => device.begin_capture(origin))
    }

    /// Ends a capture, once every stream in it has been joined back to the origin.
    ///
    /// # Errors
    /// When a stream was not joined, or the device refuses.
    pub fn end_capture(&self, origin: Stream) -> Result<Graph> {
        either!(self, device => device.end_capture(origin))
    }

    /// Launches captured work.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Safety
    /// Every address in the graph is still valid.
    pub unsafe fn launch_graph(&self, graph: Graph, stream: Stream) -> Result<()> {
        // SAFETY: passed on.
        either!(self, device => unsafe { device.launch_graph(graph, stream) })
    }
}

/// A device cannot be used, and the user can do something about it.
pub(super) fn unusable(message: impl Into<String>) -> Error {
    Error::Usage(message.into())
}
