//! The seam to GPUs: some 30 calls on raw addresses, answered by CUDA or by the emulated device. Nothing above this
//! file sees which.
//!
//! Streams are in-order; one host thread issues everything, so an event is recorded before it is waited for.
//! Events and graphs live as long as the driver that made them; so do streams that nobody discards.

use super::cuda::Cuda;
use super::embedded::ENTRIES;
use super::emulated::{Emu, EmulatorSettings};
use super::handles::{DriverKind, GpuEvent, Graph, Grid, Rows, Stream};
use super::kernel_image::KernelImage;
use super::libraries::{Choices, Convolution, Factors, Images, Product, Workspace};
use crate::error::Result;
use std::ffi::c_void;
use std::sync::Arc;

/// Where a step's launches go: a device and one of its streams.
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
    pub fn count(kind: DriverKind) -> Result<usize> {
        match kind {
            DriverKind::Cuda => super::cuda_api::count(),
            DriverKind::Emu => super::emulated::count(),
        }
    }

    /// Returns the first two of these GPUs that cannot read each other's memory, without opening any.
    ///
    /// # Errors
    /// As [`Driver::count`], and when a GPU does not exist.
    pub fn apart(kind: DriverKind, ordinals: &[usize]) -> Result<Option<(usize, usize)>> {
        match kind {
            DriverKind::Cuda => super::cuda_api::apart(ordinals),
            DriverKind::Emu => Ok(None),
        }
    }

    /// Opens a GPU by its number, or the emulated device (whose number is only a name) with `threads` threads.
    ///
    /// # Errors
    /// As [`Driver::count`], and when there is no such device.
    pub fn open(kind: DriverKind, ordinal: usize, threads: usize) -> Result<Driver> {
        match kind {
            DriverKind::Cuda => Ok(Driver::Cuda(Cuda::open(ordinal)?)),
            DriverKind::Emu => {
                Ok(Driver::Emu(Emu::open(ordinal, EmulatorSettings { threads, ..EmulatorSettings::default() })?))
            }
        }
    }

    /// Opens an emulated device with an order of threads.
    ///
    /// # Errors
    /// When this build has no emulated device.
    pub fn emulated(settings: EmulatorSettings) -> Result<Driver> {
        Ok(Driver::Emu(Emu::open(0, settings)?))
    }

    /// Returns the kind.
    pub fn kind(&self) -> DriverKind {
        match self {
            Driver::Cuda(_) => DriverKind::Cuda,
            Driver::Emu(_) => DriverKind::Emu,
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

    /// Returns what entry `kernel` of [`ENTRIES`] runs as.
    ///
    /// # Errors
    /// When the device does not answer.
    pub fn code(&self, kernel: usize) -> Result<KernelImage> {
        either!(self, device => device.code(kernel))
    }

    /// Returns what all kernels run as, each with the number of kernels.
    ///
    /// # Errors
    /// When the device does not answer.
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
    pub fn event(&self) -> Result<GpuEvent> {
        either!(self, device => device.event())
    }

    /// Records an event after everything issued to the stream so far.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn record(&self, event: GpuEvent, stream: Stream) -> Result<()> {
        either!(self, device => device.record(event, stream))
    }

    /// Makes everything issued to the stream from now on wait for an event, which may be another device's.
    ///
    /// # Errors
    /// When the device refuses; the emulated device also when the event was never recorded.
    pub fn wait(&self, stream: Stream, event: GpuEvent) -> Result<()> {
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
    pub fn synchronize_event(&self, event: GpuEvent) -> Result<()> {
        either!(self, device => device.synchronize_event(event))
    }

    /// Returns the seconds between two events that have happened.
    ///
    /// # Errors
    /// When one was not recorded.
    pub fn seconds_between(&self, start: GpuEvent, end: GpuEvent) -> Result<f64> {
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

    /// Launches entry `kernel` of [`ENTRIES`]; the typed launchers call this.
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

    /// Opens NVIDIA's libraries for this GPU, those that are there; does nothing on the emulated device.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn use_libraries(&self, choices: &Arc<Choices>) -> Result<()> {
        match self {
            Driver::Cuda(device) => device.use_libraries(choices),
            Driver::Emu(_) => Ok(()),
        }
    }

    /// Returns true when libraries may be used.
    pub fn has_libraries(&self) -> bool {
        matches!(self, Driver::Cuda(device) if device.has_libraries())
    }

    /// Issues a product to a library. Returns false when an own kernel shall compute it.
    ///
    /// # Errors
    /// When the library fails.
    ///
    /// # Safety
    /// The addresses are of this device, hold as much as the product says, stay valid until it is computed, and do not
    /// overlap.
    pub unsafe fn multiply(&self, product: &Product, at: &Factors, work: Workspace, stream: Stream) -> Result<bool> {
        match self {
            // SAFETY: passed on.
            Driver::Cuda(device) => unsafe { device.multiply(product, at, work, stream) },
            Driver::Emu(_) => Ok(false),
        }
    }

    /// Issues a convolution to a library. Returns false when an own kernel shall compute it.
    ///
    /// # Errors
    /// When the library fails.
    ///
    /// # Safety
    /// As for a product.
    pub unsafe fn convolve(&self, what: &Convolution, at: &Images, work: Workspace, stream: Stream) -> Result<bool> {
        match self {
            // SAFETY: passed on.
            Driver::Cuda(device) => unsafe { device.convolve(what, at, work, stream) },
            Driver::Emu(_) => Ok(false),
        }
    }
}
