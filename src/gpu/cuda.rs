//! A GPU accessed through NVIDIA's driver.

use super::cuda_api::able;
use super::cuda_context::CudaContext;
use super::embedded::ENTRIES;
use super::handles::{GpuEvent, Graph, Grid, HostCall, Rows, Stream};
use super::kernel_image::KernelImage;
use super::libraries::{Choices, Convolution, Factors, Images, Libraries, Product, Workspace};
use crate::device::LibraryUse;
use crate::error::{Error, Result};
use cudarc::driver::{DriverError, result, sys};
use std::ffi::c_void;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bytes of shared memory that a block may use without opting in to more.
const PLAIN_SHARED: u32 = 48 << 10;

/// A GPU, and the objects that one of its users created on it.
#[derive(Debug)]
pub struct Cuda {
    context: Arc<CudaContext>,
    streams: Mutex<Vec<sys::CUstream>>,
    events: Mutex<Vec<sys::CUevent>>,
    graphs: Mutex<Vec<sys::CUgraphExec>>,
    libraries: OnceLock<Libraries>,
}

// SAFETY: the driver's handles may be used from any thread in which the context is current; `enter` makes it so.
unsafe impl Send for Cuda {}
unsafe impl Sync for Cuda {}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cuda {
    /// Opens a GPU with every kernel.
    pub(super) fn open(ordinal: usize) -> Result<Self> {
        let (streams, events, graphs) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Cuda { context: CudaContext::of(ordinal)?, streams, events, graphs, libraries: OnceLock::new() })
    }

    pub(super) fn enter(&self) -> Result<()> {
        self.context.enter()
    }

    pub(super) fn bus_id(&self) -> Result<String> {
        let mut text = [0u8; 32];
        // SAFETY: the text has room for its length.
        self.call("report its place on the bus", || unsafe {
            sys::cuDeviceGetPCIBusId(text.as_mut_ptr().cast(), text.len() as i32, self.context.device).result()
        })?;
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        Ok(String::from_utf8_lossy(&text[..end]).into_owned())
    }

    fn fail(&self, action: &str, error: DriverError) -> Error {
        self.context.fail(action, error)
    }

    fn call<T>(&self, action: &str, f: impl FnOnce() -> std::result::Result<T, DriverError>) -> Result<T> {
        self.context.call(action, f)
    }

    pub(super) fn name(&self) -> &str {
        &self.context.name
    }

    pub(super) fn capability(&self) -> (u32, u32) {
        self.context.capability
    }

    pub(super) fn code(&self, kernel: usize) -> Result<KernelImage> {
        self.context.code(kernel)
    }

    /// Returns true if a fault or a hardware error has ended the context, in which no call succeeds any more.
    pub(super) fn is_lost(&self) -> bool {
        self.call("finish its work", result::ctx::synchronize).is_err()
    }

    pub(super) fn memory(&self) -> Result<(usize, usize)> {
        self.call("report its memory", result::mem_get_info)
    }

    pub(super) fn allocate(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        // SAFETY: the allocation has no type.
        unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|error| {
            let free = result::mem_get_info().map_or(0, |(free, _)| free);
            Error::Run(format!(
                "cuda:{} cannot allocate {bytes} bytes ({:?}): {free} are free; use a smaller batch, more devices or \
                 \"precision\" = \"bf16\"",
                self.context.ordinal, error.0
            ))
        })
    }

    pub(super) unsafe fn free(&self, address: u64) -> Result<()> {
        // SAFETY: the caller owns the memory.
        self.call("free memory", || unsafe { result::free_sync(address) })
    }

    pub(super) fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8> {
        // SAFETY: the allocation has no type. No flags: write-combined memory is slow to read back.
        self.call("allocate pinned memory", || unsafe { result::malloc_host(bytes.max(1), 0) }).map(<*mut c_void>::cast)
    }

    pub(super) unsafe fn free_pinned(&self, address: *mut u8) -> Result<()> {
        // SAFETY: the caller owns the memory.
        self.call("free pinned memory", || unsafe { result::free_host(address.cast()) })
    }

    pub(super) fn reach(&self, other: &Cuda) -> Result<bool> {
        if self.context.device == other.context.device {
            return Ok(true);
        }
        if !able(self.context.ordinal, self.context.device, other.context.device)? {
            return Ok(false);
        }
        self.enter()?;
        // SAFETY: both contexts are alive.
        match unsafe { sys::cuCtxEnablePeerAccess(other.context.context, 0) } {
            sys::CUresult::CUDA_SUCCESS | sys::CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => Ok(true),
            error => Err(self.fail("access the memory of its peer", DriverError(error))),
        }
    }

    pub(super) fn stream(&self) -> Result<Stream> {
        let made = self.call("create a stream", || result::stream::create(result::stream::StreamKind::NonBlocking))?;
        lock(&self.streams).push(made);
        Ok(Stream(made as u64))
    }

    pub(super) fn discard(&self, stream: Stream) -> Result<()> {
        lock(&self.streams).retain(|&kept| kept as u64 != stream.0);
        // SAFETY: this driver created the stream and no longer lists it; CUDA destroys it after its work has finished.
        self.call("discard a stream", || unsafe { result::stream::destroy(stream.0 as _) })
    }

    pub(super) fn event(&self) -> Result<GpuEvent> {
        self.event_with(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    pub(super) fn timer(&self) -> Result<GpuEvent> {
        self.event_with(sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    fn event_with(&self, flags: sys::CUevent_flags) -> Result<GpuEvent> {
        let made = self.call("create an event", || result::event::create(flags))?;
        lock(&self.events).push(made);
        Ok(GpuEvent(made as u64))
    }

    pub(super) fn record_timer(&self, timer: GpuEvent, stream: Stream) -> Result<()> {
        use sys::CUevent_record_flags as Flags;
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: streams live as long as their driver; `status` is valid for the call.
        self.call("query a capture", || unsafe { sys::cuStreamIsCapturing(stream.0 as _, &raw mut status).result() })?;
        let flags = match status {
            sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE => Flags::CU_EVENT_RECORD_EXTERNAL,
            _ => Flags::CU_EVENT_RECORD_DEFAULT,
        };
        // SAFETY: streams and events live as long as their driver.
        self.call("record a timer", || unsafe {
            sys::cuEventRecordWithFlags(timer.0 as _, stream.0 as _, flags as u32).result()
        })
    }

    pub(super) fn record(&self, event: GpuEvent, stream: Stream) -> Result<()> {
        // SAFETY: streams and events live as long as their driver.
        self.call("record an event", || unsafe { result::event::record(event.0 as _, stream.0 as _) })
    }

    pub(super) fn wait(&self, stream: Stream, event: GpuEvent) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: streams and events live as long as their driver.
        self.call("wait for an event", || unsafe { result::stream::wait_event(stream.0 as _, event.0 as _, flags) })
    }

    pub(super) fn synchronize(&self, stream: Stream) -> Result<()> {
        // SAFETY: streams live as long as their driver.
        self.context.finish(|| unsafe { sys::cuStreamQuery(stream.0 as _) })
    }

    pub(super) fn synchronize_event(&self, event: GpuEvent) -> Result<()> {
        // SAFETY: events live as long as their driver.
        self.context.finish(|| unsafe { sys::cuEventQuery(event.0 as _) })
    }

    pub(super) fn seconds_between(&self, start: GpuEvent, end: GpuEvent) -> Result<f64> {
        // SAFETY: events live as long as their driver.
        let elapsed = self.call("time its work", || unsafe { result::event::elapsed(start.0 as _, end.0 as _) })?;
        Ok(f64::from(elapsed) * 1e-3)
    }

    pub(super) unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize, stream: Stream) -> Result<()> {
        // SAFETY: the caller vouches for both ranges.
        self.call("copy from the host", || unsafe {
            sys::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, stream.0 as _).result()
        })
    }

    pub(super) unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize, stream: Stream) -> Result<()> {
        // SAFETY: the caller vouches for both ranges.
        self.call("copy to the host", || unsafe {
            sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, stream.0 as _).result()
        })
    }

    pub(super) unsafe fn copy(&self, to: u64, from: u64, bytes: usize, stream: Stream) -> Result<()> {
        // SAFETY: the caller vouches for both ranges; the driver derives the devices from the unified addresses.
        self.call("copy", || unsafe { sys::cuMemcpyAsync(to, from, bytes, stream.0 as _).result() })
    }

    pub(super) unsafe fn host_call(&self, call: &Arc<HostCall>, stream: Stream) -> Result<()> {
        unsafe extern "C" fn run(call: *mut c_void) {
            // SAFETY: the pointer is the one passed below, to a call that is still alive.
            let call = unsafe { &*call.cast::<HostCall>() };
            (call.0)();
        }
        let data = Arc::as_ptr(call).cast_mut().cast::<c_void>();
        // SAFETY: the caller keeps the call until the work has finished.
        self.call("call a function of the host", || unsafe {
            sys::cuLaunchHostFunc(stream.0 as _, Some(run), data).result()
        })
    }

    pub(super) unsafe fn copy_rows(
        &self,
        to: Rows,
        from: Rows,
        width: usize,
        height: usize,
        stream: Stream,
    ) -> Result<()> {
        if height == 1 {
            // Copies of rows are limited to a pitch of 2^31 - 1 bytes, whatever their number.
            // SAFETY: passed on.
            return unsafe { self.copy(to.address, from.address, width, stream) };
        }
        let unified = sys::CUmemorytype::CU_MEMORYTYPE_UNIFIED;
        let plan = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: unified,
            srcHost: std::ptr::null(),
            srcDevice: from.address,
            srcArray: std::ptr::null_mut(),
            srcPitch: from.pitch,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: unified,
            dstHost: std::ptr::null_mut(),
            dstDevice: to.address,
            dstArray: std::ptr::null_mut(),
            dstPitch: to.pitch,
            WidthInBytes: width,
            Height: height,
        };
        // SAFETY: the caller vouches for all rows.
        self.call("copy rows", || unsafe { sys::cuMemcpy2DAsync_v2(&raw const plan, stream.0 as _).result() })
    }

    pub(super) unsafe fn fill(&self, to: u64, byte: u8, bytes: usize, stream: Stream) -> Result<()> {
        // SAFETY: the caller vouches for the range.
        self.call("fill memory", || unsafe { result::memset_d8_async(to, byte, bytes, stream.0 as _) })
    }

    pub(super) unsafe fn launch(&self, kernel: usize, grid: Grid, args: &[*mut c_void], stream: Stream) -> Result<()> {
        let [x, y, z] = grid.blocks;
        let threads = ENTRIES[kernel].threads;
        self.enter()?;
        if grid.shared > PLAIN_SHARED {
            self.call(&format!("give {} bytes of shared memory to {}", grid.shared, ENTRIES[kernel].name), || {
                let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                // SAFETY: the function belongs to the context.
                unsafe { sys::cuFuncSetAttribute(self.context.functions[kernel], most, grid.shared as i32).result() }
            })?;
        }
        // SAFETY: the caller vouches for the arguments; the driver copies them before it returns.
        let launched = unsafe {
            sys::cuLaunchKernel(
                self.context.functions[kernel],
                x,
                y,
                z,
                threads,
                1,
                1,
                grid.shared,
                stream.0 as _,
                args.as_ptr().cast_mut(),
                std::ptr::null_mut(),
            )
        };
        launched.result().map_err(|error| self.fail(&format!("launch {}", ENTRIES[kernel].name), error))
    }

    pub(super) fn use_libraries(&self, used: LibraryUse, choices: &Arc<Choices>) -> Result<()> {
        self.enter()?;
        self.libraries.get_or_init(|| {
            Libraries::new(format!("cuda:{}", self.context.ordinal), &self.context.name, used, choices)
        });
        Ok(())
    }

    pub(super) fn libraries(&self) -> LibraryUse {
        self.libraries.get().map_or(LibraryUse::Off, |libraries| libraries.used)
    }

    pub(super) unsafe fn multiply(
        &self,
        product: &Product,
        at: &Factors,
        workspace: Workspace,
        stream: Stream,
    ) -> Result<bool> {
        let Some(libraries) = self.libraries.get() else { return Ok(false) };
        self.enter()?;
        // SAFETY: passed on; the context is current.
        unsafe { libraries.multiply(product, at, workspace, stream) }
    }

    pub(super) unsafe fn convolve(
        &self,
        convolution: &Convolution,
        at: &Images,
        workspace: Workspace,
        stream: Stream,
    ) -> Result<bool> {
        let Some(libraries) = self.libraries.get() else { return Ok(false) };
        self.enter()?;
        // SAFETY: passed on; the context is current.
        unsafe { libraries.convolve(convolution, at, workspace, stream) }
    }

    pub(super) fn begin_capture(&self, origin: Stream) -> Result<()> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: streams live as long as their driver.
        self.call("capture a graph", || unsafe { result::stream::begin_capture(origin.0 as _, mode) })
    }

    pub(super) fn end_capture(&self, origin: Stream) -> Result<Graph> {
        // SAFETY: streams live as long as their driver.
        let graph = self.call("end a capture", || unsafe { result::stream::end_capture(origin.0 as _) })?;
        let mut made: sys::CUgraphExec = std::ptr::null_mut();
        let instantiated = self.call("instantiate a graph", || {
            // SAFETY: the graph was just captured.
            unsafe { sys::cuGraphInstantiateWithFlags(&raw mut made, graph, 0).result() }
        });
        // SAFETY: the executable graph does not need the captured one.
        let destroyed = self.call("discard a graph", || unsafe { result::graph::destroy(graph) });
        instantiated.and(destroyed)?;
        lock(&self.graphs).push(made);
        Ok(Graph(made as u64))
    }

    /// Destroys all graphs, whose work has finished.
    pub(super) fn discard_graphs(&self) -> Result<()> {
        self.enter()?;
        for graph in lock(&self.graphs).drain(..) {
            // SAFETY: created in this context; the caller launches it no more.
            let _ = unsafe { result::graph::exec_destroy(graph) };
        }
        Ok(())
    }

    pub(super) unsafe fn launch_graph(&self, graph: Graph, stream: Stream) -> Result<()> {
        // SAFETY: graphs live as long as their driver; the caller vouches for the addresses in the graph.
        self.call("launch a graph", || unsafe { result::graph::launch(graph.0 as _, stream.0 as _) })
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        let streams = std::mem::take(&mut *lock(&self.streams));
        for &stream in &streams {
            // SAFETY: the stream was created in this context and is destroyed below. After a fault, nothing is left to
            // wait for.
            let _ = self.context.finish(|| unsafe { sys::cuStreamQuery(stream) });
        }
        // A GPU that hangs keeps everything until the process ends.
        if self.enter().is_err() {
            return;
        }
        // SAFETY: all of them were created in this context, and nothing can use them after the driver is dropped.
        unsafe {
            drop(self.libraries.take());
            for graph in lock(&self.graphs).drain(..) {
                let _ = result::graph::exec_destroy(graph);
            }
            for event in lock(&self.events).drain(..) {
                let _ = result::event::destroy(event);
            }
            for stream in streams {
                let _ = result::stream::destroy(stream);
            }
        }
    }
}
