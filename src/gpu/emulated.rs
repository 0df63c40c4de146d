//! The emulated device: the kernels of kernels/*.cu compiled for the CPU, so that the whole GPU path runs, and can be
//! tested, on a machine without a GPU.
//!
//! Every call finishes before it returns, in the order of issue. This order is one that the streams allow, because one
//! host thread issues all calls of a program and records every event before anything waits for it. The emulated device
//! also detects errors that a GPU would ignore: waiting for an event that was never recorded, addresses outside every
//! allocation, and streams that a capture does not join. New memory is filled with NaN.

use super::embedded::{EMULATOR, ENTRIES};
use super::emulated_world::{Command, lock};
use super::handles::{GpuEvent, Graph, Grid, HostCall, Rows, Stream};
use super::kernel_image::KernelImage;
use crate::device::Pool;
use crate::error::{Error, Result};
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// The order in which blocks, and the threads of a block, run. If results depend on it, a barrier is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThreadOrder {
    /// By number.
    #[default]
    Forward,
    /// From the last to the first.
    Reverse,
    /// Threads reshuffled after every barrier, with this seed; blocks by number.
    Random(u64),
}

/// How an emulated device runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmulatorSettings {
    /// Operating-system threads that share the blocks of a launch; at least 1.
    pub threads: usize,
    /// The order of the threads of a block.
    pub order: ThreadOrder,
}

impl Default for EmulatorSettings {
    fn default() -> Self {
        EmulatorSettings { threads: 1, order: ThreadOrder::Forward }
    }
}

type FindKernel = unsafe extern "C" fn(*const c_char) -> *const c_void;
type LaunchKernel = unsafe extern "C" fn(
    *const c_void,
    *const u32,
    *const u32,
    usize,
    *const *mut c_void,
    u64,
    u64,
    c_int,
    u64,
    *mut c_char,
    usize,
) -> c_int;

/// The loaded library.
struct Library {
    launch: LaunchKernel,
    /// In the order of [`ENTRIES`].
    kernels: Vec<*const c_void>,
}

// SAFETY: the library is never unloaded, and its functions keep no state outside the calling thread.
unsafe impl Send for Library {}
unsafe impl Sync for Library {}

/// Loads the embedded library once. `PERISTYLE_EMU_LIBRARY` names another one to use instead, built with a sanitizer.
fn library() -> Result<&'static Library> {
    static LIBRARY: OnceLock<std::result::Result<Library, String>> = OnceLock::new();
    LIBRARY.get_or_init(load).as_ref().map_err(|message| Error::Usage(message.clone()))
}

fn load() -> std::result::Result<Library, String> {
    let given = std::env::var_os("PERISTYLE_EMU_LIBRARY").map(PathBuf::from);
    let path = match &given {
        Some(path) => path.clone(),
        None if EMULATOR.is_empty() => {
            return Err(
                "this build has no emulated device: no C++ compiler was found; install g++ and build again, or \
                        use \"cpu\""
                    .into(),
            );
        }
        None => std::env::temp_dir().join(format!("peristyle-emu-{}.so", std::process::id())),
    };
    if given.is_none() {
        std::fs::write(&path, EMULATOR).map_err(|error| format!("{}: cannot write: {error}", path.display()))?;
    }
    let describe = |error: libloading::Error| format!("{}: cannot load: {error}", path.display());
    // SAFETY: the library's constructors only register its kernels.
    let opened = unsafe { libloading::Library::new(&path) };
    if given.is_none() {
        // The loader has mapped the file; without this, such files would accumulate in the temporary folder.
        let _ = std::fs::remove_file(&path);
    }
    let opened = Box::leak(Box::new(opened.map_err(describe)?));
    // SAFETY: kernels/host/runtime.cpp declares both functions with these types.
    let (find, launch) = unsafe {
        let find = *opened.get::<FindKernel>(b"emu_kernel\0").map_err(describe)?;
        (find, *opened.get::<LaunchKernel>(b"emu_launch\0").map_err(describe)?)
    };
    let kernels: Vec<*const c_void> = ENTRIES
        .iter()
        .map(|entry| CString::new(entry.name).expect("a kernel's name contains no zero byte"))
        // SAFETY: the name is a C string.
        .map(|name| unsafe { find(name.as_ptr()) })
        .collect();
    match kernels.iter().position(|kernel| kernel.is_null()) {
        Some(missing) => Err(format!("{}: does not contain kernel {}", path.display(), ENTRIES[missing].name)),
        None => Ok(Library { launch, kernels }),
    }
}

/// Returns 1; any number of emulated devices can be opened.
pub(super) fn count() -> Result<usize> {
    library().map(|_| 1)
}

/// An emulated device.
#[derive(Debug)]
pub struct Emu {
    name: String,
    order: ThreadOrder,
    pool: Mutex<Pool>,
}

impl Emu {
    pub(super) fn open(ordinal: usize, settings: EmulatorSettings) -> Result<Self> {
        library()?;
        let pool = Mutex::new(Pool::new(settings.threads)?);
        Ok(Emu { name: format!("emulated device {ordinal}"), order: settings.order, pool })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn capability(&self) -> (u32, u32) {
        (0, 0)
    }

    pub(super) fn code(&self, _kernel: usize) -> Result<KernelImage> {
        Ok(KernelImage::Cpu)
    }

    pub(super) fn memory(&self) -> Result<(usize, usize)> {
        let said = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let bytes = |key: &str| {
            let line = said.lines().find(|line| line.starts_with(key))?;
            Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
        };
        Ok((bytes("MemAvailable:").unwrap_or(0), bytes("MemTotal:").unwrap_or(0)))
    }

    pub(super) fn allocate(&self, bytes: usize) -> Result<u64> {
        lock().allocate(bytes)
    }

    pub(super) unsafe fn free(&self, address: u64) -> Result<()> {
        lock().free(address)
    }

    pub(super) fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8> {
        lock().allocate(bytes).map(|address| address as *mut u8)
    }

    pub(super) unsafe fn free_pinned(&self, address: *mut u8) -> Result<()> {
        lock().free(address as u64)
    }

    pub(super) fn stream(&self) -> Result<Stream> {
        Ok(lock().stream())
    }

    pub(super) fn discard(&self, stream: Stream) -> Result<()> {
        lock().discard(stream)
    }

    pub(super) fn event(&self) -> Result<GpuEvent> {
        Ok(lock().event())
    }

    pub(super) fn timer(&self) -> Result<GpuEvent> {
        Ok(lock().event())
    }

    pub(super) fn record_timer(&self, timer: GpuEvent, stream: Stream) -> Result<()> {
        // SAFETY: the command uses no memory.
        unsafe { self.issue(Command::Record(timer), stream) }
    }

    pub(super) fn record(&self, event: GpuEvent, stream: Stream) -> Result<()> {
        lock().record(event, stream)
    }

    pub(super) fn wait(&self, stream: Stream, event: GpuEvent) -> Result<()> {
        lock().wait(stream, event)
    }

    pub(super) fn synchronize(&self, stream: Stream) -> Result<()> {
        lock().not_captured(stream)
    }

    pub(super) fn synchronize_event(&self, event: GpuEvent) -> Result<()> {
        lock().happened(event).map(|_: Instant| ())
    }

    pub(super) fn seconds_between(&self, start: GpuEvent, end: GpuEvent) -> Result<f64> {
        let mut world = lock();
        let (start, end) = (world.happened(start)?, world.happened(end)?);
        Ok(end.duration_since(start).as_secs_f64())
    }

    pub(super) unsafe fn host_call(&self, call: &Arc<HostCall>, stream: Stream) -> Result<()> {
        // SAFETY: the command uses no memory of its own.
        unsafe { self.issue(Command::Call(Arc::clone(call)), stream) }
    }

    pub(super) unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize, stream: Stream) -> Result<()> {
        lock().inside(to, bytes, "copy to")?;
        // SAFETY: the caller vouches for the host range.
        unsafe { self.issue(Command::Copy { to, from: from as u64, bytes }, stream) }
    }

    pub(super) unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize, stream: Stream) -> Result<()> {
        lock().inside(from, bytes, "copy from")?;
        // SAFETY: the caller vouches for the host range.
        unsafe { self.issue(Command::Copy { to: to as u64, from, bytes }, stream) }
    }

    pub(super) unsafe fn copy(&self, to: u64, from: u64, bytes: usize, stream: Stream) -> Result<()> {
        lock().inside(to, bytes, "copy to")?;
        lock().inside(from, bytes, "copy from")?;
        // SAFETY: both ranges were checked.
        unsafe { self.issue(Command::Copy { to, from, bytes }, stream) }
    }

    pub(super) unsafe fn copy_rows(
        &self,
        to: Rows,
        from: Rows,
        width: usize,
        height: usize,
        stream: Stream,
    ) -> Result<()> {
        if width == 0 || height == 0 {
            return Ok(());
        }
        assert!(height == 1 || (width <= to.pitch && width <= from.pitch), "rows must not overlap");
        lock().inside(to.address, (height - 1) * to.pitch + width, "copy to")?;
        lock().inside(from.address, (height - 1) * from.pitch + width, "copy from")?;
        // SAFETY: all rows were checked.
        unsafe { self.issue(Command::CopyRows { to, from, width, height }, stream) }
    }

    pub(super) unsafe fn fill(&self, to: u64, byte: u8, bytes: usize, stream: Stream) -> Result<()> {
        lock().inside(to, bytes, "fill")?;
        // SAFETY: the range was checked.
        unsafe { self.issue(Command::Fill { to, byte, bytes }, stream) }
    }

    pub(super) unsafe fn launch(&self, kernel: usize, grid: Grid, args: &[*mut c_void], stream: Stream) -> Result<()> {
        let entry = &ENTRIES[kernel];
        assert_eq!(args.len(), entry.parameters.len(), "wrong number of arguments for {}", entry.name);
        let mut values = Vec::new();
        {
            let world = lock();
            for (i, &argument) in args.iter().enumerate() {
                // SAFETY: the caller vouches for the types behind the pointers.
                let words = unsafe { words(argument, entry.sizes[i]) };
                if entry.is_pointer(i) && words[0] != 0 {
                    world.inside(words[0], 1, &format!("launch {} (parameter {}) with", entry.name, i + 1))?;
                }
                values.extend(words);
            }
        }
        // SAFETY: the addresses point into live allocations; the caller vouches for their extents.
        unsafe { self.issue(Command::Launch { kernel, grid, values }, stream) }
    }

    pub(super) fn begin_capture(&self, origin: Stream) -> Result<()> {
        lock().begin_capture(origin)
    }

    pub(super) fn end_capture(&self, origin: Stream) -> Result<Graph> {
        lock().end_capture(origin)
    }

    pub(super) unsafe fn launch_graph(&self, graph: Graph, stream: Stream) -> Result<()> {
        let commands = {
            let mut world = lock();
            world.not_captured(stream)?;
            world.graph(graph)
        };
        // SAFETY: the caller guarantees that the addresses are still valid.
        commands.iter().try_for_each(|command| unsafe { self.perform(command) })
    }

    /// Executes a command, or adds it to the capture that includes its stream.
    unsafe fn issue(&self, command: Command, stream: Stream) -> Result<()> {
        let Some(command) = lock().captured(stream, command) else { return Ok(()) };
        // SAFETY: the caller's guarantees are passed on.
        unsafe { self.perform(&command) }
    }

    unsafe fn perform(&self, command: &Command) -> Result<()> {
        // SAFETY: `issue` and `launch_graph` vouch for every address.
        unsafe {
            match *command {
                Command::Copy { to, from, bytes } => std::ptr::copy(from as *const u8, to as *mut u8, bytes),
                Command::CopyRows { to, from, width, height } => {
                    for row in 0..height {
                        let (from, to) =
                            (from.address as usize + row * from.pitch, to.address as usize + row * to.pitch);
                        std::ptr::copy(from as *const u8, to as *mut u8, width);
                    }
                }
                Command::Fill { to, byte, bytes } => std::ptr::write_bytes(to as *mut u8, byte, bytes),
                Command::Launch { kernel, grid, ref values } => return self.run(kernel, grid, values),
                Command::Call(ref call) => (call.0)(),
                Command::Record(timer) => lock().reached(timer),
            }
        }
        Ok(())
    }

    unsafe fn run(&self, kernel: usize, grid: Grid, values: &[u64]) -> Result<()> {
        let (entry, library) = (&ENTRIES[kernel], library()?);
        let (order, seed) = match self.order {
            ThreadOrder::Forward => (0, 0),
            ThreadOrder::Reverse => (1, 0),
            ThreadOrder::Random(seed) => (2, seed),
        };
        let blocks: u64 = grid.blocks.iter().map(|&extent| u64::from(extent)).product();
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = blocks.min(pool.threads() as u64 * 4);
        let failure = Mutex::new(None);
        // Addresses are kept as integers, because pointers may not be sent to the pool's threads.
        let mut rest = values;
        let args: Vec<usize> = (entry.sizes.iter())
            .map(|bytes| {
                let (words, others) = rest.split_at(bytes.div_ceil(8));
                rest = others;
                words.as_ptr() as usize
            })
            .collect();
        pool.run(parts as usize, |part, _| {
            let (first, end) = (blocks * part as u64 / parts, blocks * (part as u64 + 1) / parts);
            let mut text = [0u8; 1024];
            // SAFETY: the arguments have the kernel's parameter types; the library keeps `text` zero-terminated.
            let code = unsafe {
                (library.launch)(
                    library.kernels[kernel],
                    grid.blocks.as_ptr(),
                    [entry.threads, 1, 1].as_ptr(),
                    grid.shared as usize,
                    args.as_ptr().cast(),
                    first,
                    end - first,
                    order,
                    seed,
                    text.as_mut_ptr().cast(),
                    text.len(),
                )
            };
            if code != 0 {
                let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
                let said = String::from_utf8_lossy(&text[..end]).into_owned();
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(said);
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(said) => Err(Error::Run(format!("emu: {} of kernels/{}.cu: {said}", entry.name, entry.file))),
            None => Ok(()),
        }
    }
}

/// Copies an argument of `bytes` bytes into new words; the processor is little-endian, so its bytes come first.
unsafe fn words(argument: *mut c_void, bytes: usize) -> Vec<u64> {
    let mut words = vec![0u64; bytes.div_ceil(8)];
    // SAFETY: the caller vouches for `bytes` readable bytes; the words have room for them.
    unsafe { std::ptr::copy_nonoverlapping(argument.cast::<u8>(), words.as_mut_ptr().cast::<u8>(), bytes) };
    words
}
