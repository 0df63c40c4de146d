//! The abstraction boundary to GPUs: about 30 calls on raw addresses, implemented by CUDA and by the emulated device.
//! Nothing above this file depends on which one is in use.
//!
//! Streams are in-order, and one host thread issues everything, so an event is always recorded before it is waited for.
//! Events and graphs live as long as the driver that created them; so do streams, unless they are discarded.

use super::cuda::Cuda;
use super::embedded::ENTRIES;
use super::emulated::{Emu, EmulatorSettings};
use super::handles::{DriverKind, GpuEvent, Graph, Grid, HostCall, Rows, Stream};
use super::kernel_image::KernelImage;
use super::libraries::{Choices, Convolution, Factors, Images, Product, Workspace};
use crate::device::LibraryUse;
use crate::error::{Error, Result};
use std::ffi::c_void;
use std::sync::Arc;

/// The target of a step's launches: a device and one of its streams.
#[derive(Debug, Clone, Copy)]
pub struct Issue<'a> {
    /// The device.
    pub driver: &'a Driver,
    /// The stream.
    pub stream: Stream,
}

/// An opened device.
#[derive(Debug)]
pub enum Driver {
    /// A GPU.
    Cuda(Cuda),
    /// The emulated device.
    Emu(Emu),
}

/// Calls the same method on whichever device this is.
macro_rules! either {
    ($self:expr, $device:ident => $call:expr) => {
        match $self {
            Driver::Cuda($device) => $call,
            Driver::Emu($device) => $call,
        }
    };
}

impl Driver {
    /// Returns the number of devices of a kind: the GPUs that the driver reports, or 1 for the emulated device.
    ///
    /// # Errors
    /// If there is no driver, it is too old, or this build has no kernels; the message explains what to do.
    pub fn count(kind: DriverKind) -> Result<usize> {
        match kind {
            DriverKind::Cuda => super::cuda_api::count(),
            DriverKind::Emu => super::emulated::count(),
        }
    }

    /// Returns the first two of these GPUs that cannot read each other's memory, without opening any of them.
    ///
    /// # Errors
    /// As for [`Driver::count`], and if a GPU does not exist.
    pub fn apart(kind: DriverKind, ordinals: &[usize]) -> Result<Option<(usize, usize)>> {
        match kind {
            DriverKind::Cuda => super::cuda_api::apart(ordinals),
            DriverKind::Emu => Ok(None),
        }
    }

    /// Opens GPU number `ordinal`, or an emulated device with `threads` threads, for which `ordinal` is only a name.
    ///
    /// # Errors
    /// As for [`Driver::count`], and if there is no such device.
    pub fn open(kind: DriverKind, ordinal: usize, threads: usize) -> Result<Driver> {
        match kind {
            DriverKind::Cuda => Ok(Driver::Cuda(Cuda::open(ordinal)?)),
            DriverKind::Emu => {
                Ok(Driver::Emu(Emu::open(ordinal, EmulatorSettings { threads, ..EmulatorSettings::default() })?))
            }
        }
    }

    /// Opens an emulated device with the given settings.
    ///
    /// # Errors
    /// If this build has no emulated device.
    pub fn emulated(settings: EmulatorSettings) -> Result<Driver> {
        Ok(Driver::Emu(Emu::open(0, settings)?))
    }

    /// Returns the kind of this device.
    pub fn kind(&self) -> DriverKind {
        match self {
            Driver::Cuda(_) => DriverKind::Cuda,
            Driver::Emu(_) => DriverKind::Emu,
        }
    }

    /// Returns the name that the device reports.
    pub fn name(&self) -> &str {
        either!(self, device => device.name())
    }

    /// Returns the compute capability, as (major, minor); (0, 0) for the emulated device.
    pub fn capability(&self) -> (u32, u32) {
        either!(self, device => device.capability())
    }

    /// Makes the device current in the calling thread, for the calls of a library.
    ///
    /// # Errors
    /// If the device was lost, or is emulated.
    pub fn enter(&self) -> Result<()> {
        match self {
            Driver::Cuda(device) => device.enter(),
            Driver::Emu(_) => Err(Error::Run("libraries do not run on emulated devices".to_string())),
        }
    }

    /// Returns where the device is on the bus of its machine.
    ///
    /// # Errors
    /// If the device cannot be queried, or is emulated.
    pub fn bus_id(&self) -> Result<String> {
        match self {
            Driver::Cuda(device) => device.bus_id(),
            Driver::Emu(_) => Err(Error::Run("an emulated device is on no bus".to_string())),
        }
    }

    /// Returns the kind of code that entry `kernel` of [`ENTRIES`] runs.
    ///
    /// # Errors
    /// If the device cannot be queried.
    pub fn code(&self, kernel: usize) -> Result<KernelImage> {
        either!(self, device => device.code(kernel))
    }

    /// Returns the kinds of code that the kernels run, each with its number of kernels.
    ///
    /// # Errors
    /// If the device cannot be queried.
    pub fn codes(&self) -> Result<Vec<(KernelImage, usize)>> {
        let mut all: Vec<(KernelImage, usize)> = Vec::new();
        for kernel in 0..ENTRIES.len() {
            let code = self.code(kernel)?;
            match all.iter_mut().find(|(known, _)| *known == code) {
                Some((_, count)) => *count += 1,
                None => all.push((code, 1)),
            }
        }
        Ok(all)
    }

    /// Returns true if the device can no longer be used in this process, because a kernel faulted or the hardware failed.
    pub fn is_lost(&self) -> bool {
        match self {
            Driver::Cuda(device) => device.is_lost(),
            Driver::Emu(_) => false,
        }
    }

    /// Returns the device's memory in bytes, as (free, total).
    ///
    /// # Errors
    /// If the device cannot be queried.
    pub fn memory(&self) -> Result<(usize, usize)> {
        either!(self, device => device.memory())
    }

    /// Allocates device memory, aligned to 256 bytes; its contents are undefined (NaN on the emulated device).
    ///
    /// # Errors
    /// If there is not enough memory; on a GPU, the message gives the size requested and how much is free.
    pub fn allocate(&self, bytes: usize) -> Result<u64> {
        either!(self, device => device.allocate(bytes))
    }

    /// Frees device memory.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Safety
    /// The address came from [`Driver::allocate`], and no issued work still uses it.
    pub unsafe fn free(&self, address: u64) -> Result<()> {
        // SAFETY: the caller's guarantees are passed on.
        either!(self, device => unsafe { device.free(address) })
    }

    /// Allocates pinned host memory, which devices copy without staging; its contents are undefined.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8> {
        either!(self, device => device.allocate_pinned(bytes))
    }

    /// Frees pinned host memory.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Safety
    /// The address came from [`Driver::allocate_pinned`], and no issued copy still uses it.
    pub unsafe fn free_pinned(&self, address: *mut u8) -> Result<()> {
        // SAFETY: the caller's guarantees are passed on.
        either!(self, device => unsafe { device.free_pinned(address) })
    }

    /// Lets kernels on this device access the other's memory. Returns false if the hardware does not support this.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn reach(&self, other: &Driver) -> Result<bool> {
        match (self, other) {
            (Driver::Cuda(this), Driver::Cuda(other)) => this.reach(other),
            (Driver::Emu(_), Driver::Emu(_)) => Ok(true),
            _ => Ok(false),
        }
    }

    /// Creates a stream.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn stream(&self) -> Result<Stream> {
        either!(self, device => device.stream())
    }

    /// Discards a stream of this device once its work has finished.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn discard(&self, stream: Stream) -> Result<()> {
        either!(self, device => device.discard(stream))
    }

    /// Creates an event, which orders work.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn event(&self) -> Result<GpuEvent> {
        either!(self, device => device.event())
    }

    /// Creates an event that measures time and orders nothing.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn timer(&self) -> Result<GpuEvent> {
        either!(self, device => device.timer())
    }

    /// Records a timer after everything issued to the stream so far. In a capture, it becomes part of the graph and is
    /// recorded each time that the graph runs.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn record_timer(&self, timer: GpuEvent, stream: Stream) -> Result<()> {
        either!(self, device => device.record_timer(timer, stream))
    }

    /// Records an event after everything issued to the stream so far.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn record(&self, event: GpuEvent, stream: Stream) -> Result<()> {
        either!(self, device => device.record(event, stream))
    }

    /// Makes all work issued to the stream from now on wait for an event, which may belong to another device.
    ///
    /// # Errors
    /// If the device reports an error; on the emulated device, also if the event was never recorded.
    pub fn wait(&self, stream: Stream, event: GpuEvent) -> Result<()> {
        either!(self, device => device.wait(stream, event))
    }

    /// Waits until all work issued to the stream has finished.
    ///
    /// # Errors
    /// If a kernel faulted or the device was lost.
    pub fn synchronize(&self, stream: Stream) -> Result<()> {
        either!(self, device => device.synchronize(stream))
    }

    /// Waits until an event has occurred.
    ///
    /// # Errors
    /// If a kernel faulted or the device was lost.
    pub fn synchronize_event(&self, event: GpuEvent) -> Result<()> {
        either!(self, device => device.synchronize_event(event))
    }

    /// Returns the time in seconds between two timers, both of which have been reached.
    ///
    /// # Errors
    /// If one of them was not recorded or is not a timer.
    pub fn seconds_between(&self, start: GpuEvent, end: GpuEvent) -> Result<f64> {
        either!(self, device => device.seconds_between(start, end))
    }

    /// Calls a function of the host once all work issued to the stream so far has finished; work issued to it later waits for its end. It
    /// must not use the device.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Safety
    /// The call outlives the work, and every graph that captures it.
    pub unsafe fn call(&self, call: &Arc<HostCall>, stream: Stream) -> Result<()> {
        // SAFETY: the caller's guarantees are passed on.
        either!(self, device => unsafe { device.host_call(call, stream) })
    }

    /// Copies from the host to the device.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Safety
    /// Both ranges are valid and remain so until the copy has finished.
    pub unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize, stream: Stream) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's guarantees are passed on.
        either!(self, device => unsafe { device.copy_in(to, from, bytes, stream) })
    }

    /// Copies from the device to the host.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Safety
    /// Both ranges are valid and remain so until the copy has finished.
    pub unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize, stream: Stream) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's guarantees are passed on.
        either!(self, device => unsafe { device.copy_out(to, from, bytes, stream) })
    }

    /// Copies within the memory of a device, between two devices, or between a device and pinned host memory.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Safety
    /// Both ranges are valid and remain so until the copy has finished; they do not overlap.
    pub unsafe fn copy(&self, to: u64, from: u64, bytes: usize, stream: Stream) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's guarantees are passed on.
        either!(self, device => unsafe { device.copy(to, from, bytes, stream) })
    }

    /// Copies `height` rows of `width` bytes, within or between the same kinds of memory as [`Driver::copy`].
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Safety
    /// All rows are valid and remain so until the copy has finished; they do not overlap.
    pub unsafe fn copy_rows(&self, to: Rows, from: Rows, width: usize, height: usize, stream: Stream) -> Result<()> {
        if width * height == 0 {
            return Ok(());
        }
        // SAFETY: the caller's guarantees are passed on.
        either!(self, device => unsafe { device.copy_rows(to, from, width, height, stream) })
    }

    /// Sets every byte of a range of device memory to `byte`.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Safety
    /// The range is valid and remains so until it is filled.
    pub unsafe fn fill(&self, to: u64, byte: u8, bytes: usize, stream: Stream) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's guarantees are passed on.
        either!(self, device => unsafe { device.fill(to, byte, bytes, stream) })
    }

    /// Launches entry `kernel` of [`ENTRIES`]; the typed launchers call this.
    ///
    /// # Errors
    /// If the device reports an error or the grid is too large.
    ///
    /// # Safety
    /// `args` point to values of the kernel's parameter types, and the addresses among them are valid.
    pub unsafe fn launch(&self, kernel: usize, grid: Grid, args: &[*mut c_void], stream: Stream) -> Result<()> {
        if grid.is_empty() {
            return Ok(());
        }
        grid.check()?;
        // SAFETY: the caller's guarantees are passed on.
        either!(self, device => unsafe { device.launch(kernel, grid, args, stream) })
    }

    /// Captures, instead of executing, the work issued from now on to a stream and to streams that wait for its events.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn begin_capture(&self, origin: Stream) -> Result<()> {
        either!(self, device => device.begin_capture(origin))
    }

    /// Ends a capture, after every stream in it has been joined back to the origin.
    ///
    /// # Errors
    /// If a stream was not joined or the device reports an error.
    pub fn end_capture(&self, origin: Stream) -> Result<Graph> {
        either!(self, device => device.end_capture(origin))
    }

    /// Launches captured work.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Safety
    /// Every address in the graph is still valid.
    pub unsafe fn launch_graph(&self, graph: Graph, stream: Stream) -> Result<()> {
        // SAFETY: the caller's guarantees are passed on.
        either!(self, device => unsafe { device.launch_graph(graph, stream) })
    }

    /// Destroys all graphs, whose work has finished; none of them is launched again.
    ///
    /// # Errors
    /// If the device was lost.
    pub fn discard_graphs(&self) -> Result<()> {
        match self {
            Driver::Cuda(device) => device.discard_graphs(),
            Driver::Emu(_) => Ok(()),
        }
    }

    /// Opens those of NVIDIA's libraries that are available for this GPU; does nothing on the emulated device.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn use_libraries(&self, libraries: LibraryUse, choices: &Arc<Choices>) -> Result<()> {
        match self {
            Driver::Cuda(device) => device.use_libraries(libraries, choices),
            Driver::Emu(_) => Ok(()),
        }
    }

    /// Returns what libraries may compute.
    pub fn libraries(&self) -> LibraryUse {
        match self {
            Driver::Cuda(device) => device.libraries(),
            Driver::Emu(_) => LibraryUse::Off,
        }
    }

    /// Issues a product to a library. Returns false if the caller should fall back to its own kernel.
    ///
    /// # Errors
    /// If the library fails.
    ///
    /// # Safety
    /// The addresses belong to this device, are large enough for the product, remain valid until it is computed, and do
    /// not overlap.
    pub unsafe fn multiply(&self, product: &Product, at: &Factors, work: Workspace, stream: Stream) -> Result<bool> {
        match self {
            // SAFETY: the caller's guarantees are passed on.
            Driver::Cuda(device) => unsafe { device.multiply(product, at, work, stream) },
            Driver::Emu(_) => Ok(false),
        }
    }

    /// Issues a convolution to a library. Returns false if the caller should fall back to its own kernel.
    ///
    /// # Errors
    /// If the library fails.
    ///
    /// # Safety
    /// As for [`Driver::multiply`].
    pub unsafe fn convolve(&self, what: &Convolution, at: &Images, work: Workspace, stream: Stream) -> Result<bool> {
        match self {
            // SAFETY: the caller's guarantees are passed on.
            Driver::Cuda(device) => unsafe { device.convolve(what, at, work, stream) },
            Driver::Emu(_) => Ok(false),
        }
    }
}
