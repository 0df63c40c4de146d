//! The GPUs of a run. Each GPU is opened once; each logical device has one arena and three streams, and all share
//! pinned staging memory. The calling thread issues all work, in the order of the calls.

use super::address::{Const, Mut};
use super::driver::{Driver, Issue};
use super::handles::{DriverKind, GpuEvent, Graph, Grid, Stream};
use super::kernels;
use super::libraries::{Choices, LibraryReport, Record};
use super::staging::{INPUTS, Pinned, PinnedPool, Slot};
use crate::device::{HostBuffer, HostMemory, LibraryUse, Operand, Queue};
use crate::error::{Error, Result};
use crate::tensor::Element;
use std::ops::Range;
use std::sync::Arc;

/// A logical device. Several may share one GPU.
#[derive(Debug)]
struct Gpu {
    driver: Arc<Driver>,
    arena: u64,
    bytes: usize,
    streams: [Stream; Queue::COUNT],
    /// Tables that live as long as the device.
    tables: Vec<u64>,
}

/// The GPUs of a run.
#[derive(Debug)]
pub struct Gpus {
    devices: Vec<Gpu>,
    slots: Vec<Slot>,
    /// Pinned memory through which GPUs without peer access exchange data.
    host: Pinned,
    /// Pinned memory for batches.
    pool: Arc<PinnedPool>,
    choices: Arc<Choices>,
}

// SAFETY: the pinned memory is owned by this value; device addresses are plain integers.
unsafe impl Send for Gpus {}

/// The settings for opening the GPUs.
#[derive(Debug, Clone)]
pub struct GpuOptions<'a> {
    /// CUDA or emulated.
    pub kind: DriverKind,
    /// The GPU of each logical device.
    pub ordinals: &'a [usize],
    /// Bytes of each logical device's arena.
    pub arenas: &'a [usize],
    /// Whether GPUs access each other's memory.
    pub reach: bool,
    /// Bytes of host memory through which GPUs exchange data, with each other or with other processes.
    pub host: usize,
    /// Bytes of each part of the largest input.
    pub staging: [usize; INPUTS],
    /// The number of values that the host reads back after a step.
    pub values: usize,
    /// The number of steps that the host may have in progress at once.
    pub slots: usize,
    /// The number of threads of an emulated device.
    pub threads: usize,
}

impl Gpus {
    /// Opens the GPUs and allocates their memory.
    ///
    /// # Errors
    /// If a GPU is missing or has too little memory, or if GPUs are to access each other's memory and cannot.
    pub fn open(opening: &GpuOptions) -> Result<Gpus> {
        let mut opened: Vec<(usize, Arc<Driver>)> = Vec::new();
        for &ordinal in opening.ordinals {
            if !opened.iter().any(|(o, _)| *o == ordinal) {
                let driver = Driver::open(opening.kind, ordinal, opening.threads)?;
                opened.push((ordinal, Arc::new(driver)));
            }
        }
        for (a, this) in &opened {
            for (b, other) in opened.iter().filter(|(b, _)| b != a && opening.reach) {
                if !this.reach(other)? {
                    return Err(Error::Usage(format!(
                        "{0}:{a} cannot access the memory of {0}:{b}; set [devices] peer_access = \"off\", or use GPUs \
                         that are connected (nvidia-smi topo -p2p r shows which)",
                        opening.kind
                    )));
                }
            }
        }
        let first = &opened.first().ok_or_else(|| Error::Usage("the run uses no GPU".into()))?.1;
        let slot = |_| Slot::new(first, opening.staging, opening.values);
        let slots = (0..opening.slots).map(slot).collect::<Result<_>>()?;
        let host = Pinned::new(first, opening.host)?;
        let pool = PinnedPool::new(first);
        let mut gpus = Gpus { slots, host, pool, devices: Vec::new(), choices: Arc::default() };
        for (&ordinal, &bytes) in opening.ordinals.iter().zip(opening.arenas) {
            let driver = opened.iter().find(|(o, _)| *o == ordinal).map(|(_, d)| Arc::clone(d));
            let driver = driver.expect("every ordinal was opened");
            let streams = [driver.stream()?, driver.stream()?, driver.stream()?];
            let arena = driver.allocate(bytes.max(4))?;
            // SAFETY: the arena was just allocated. Weights, optimiser state and statistics start at zero.
            unsafe { driver.fill(arena, 0, bytes, streams[0])? };
            driver.synchronize(streams[0])?;
            gpus.devices.push(Gpu { driver, arena, bytes, streams, tables: Vec::new() });
        }
        Ok(gpus)
    }

    /// Opens those of NVIDIA's libraries that are available, on every GPU. If the mesh mixes GPU models, no library is
    /// used: the libraries would choose different algorithms for them, and copies of a tensor would differ.
    ///
    /// # Errors
    /// If a device reports an error.
    pub fn use_libraries(&self, libraries: LibraryUse) -> Result<()> {
        let name = self.name(0);
        if libraries == LibraryUse::Off {
            return Ok(());
        }
        if let Some(other) = (1..self.devices.len()).map(|device| self.name(device)).find(|other| *other != name) {
            tracing::info!("products and convolutions use our own kernels: {name} and {other} are different models");
            return Ok(());
        }
        self.devices.iter().try_for_each(|gpu| gpu.driver.use_libraries(libraries, &self.choices))
    }

    /// Returns the algorithms that the libraries use.
    pub fn choices(&self) -> Record {
        self.choices.record()
    }

    /// Returns what the libraries compute so far.
    pub fn library_report(&self) -> LibraryReport {
        LibraryReport::of(&self.choices)
    }

    /// Restores the choices from a checkpoint; returns a message for each library whose choices do not apply.
    pub fn restore_choices(&self, record: &Record) -> Vec<String> {
        self.choices.restore(record)
    }

    fn gpu(&self, device: usize) -> &Gpu {
        &self.devices[device]
    }

    /// Returns the number of devices.
    #[allow(clippy::len_without_is_empty, reason = "a run has at least one device")]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Returns the driver of a device.
    pub fn driver(&self, device: usize) -> &Arc<Driver> {
        &self.gpu(device).driver
    }

    /// Returns the driver and stream of a queue.
    pub fn issue(&self, device: usize, queue: Queue) -> Issue<'_> {
        let gpu = self.gpu(device);
        Issue { driver: &gpu.driver, stream: gpu.streams[queue as usize] }
    }

    /// Returns the name that a device reports.
    pub fn name(&self, device: usize) -> &str {
        self.gpu(device).driver.name()
    }

    /// Returns the address of a byte in a device's arena. The device number after the last one selects the host memory
    /// through which GPUs exchange data.
    ///
    /// # Panics
    /// If the byte is outside this memory.
    pub fn address(&self, device: usize, byte: usize) -> u64 {
        let (start, bytes) = match self.devices.get(device) {
            Some(gpu) => (gpu.arena, gpu.bytes),
            // Pinned memory has the same address on the host and on every GPU.
            None => (self.host.at as u64, self.host.bytes),
        };
        assert!(byte <= bytes, "an address must be within its arena");
        start + byte as u64
    }

    /// Copies a table to a device, where it stays as long as `self` lives; returns its address.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn upload<T: Copy>(&mut self, device: usize, table: &[T]) -> Result<u64> {
        let gpu = &mut self.devices[device];
        let address = gpu.driver.allocate(size_of_val(table).max(4))?;
        gpu.tables.push(address);
        let stream = gpu.streams[Queue::Copy as usize];
        // SAFETY: the memory was just allocated; the stream is synchronised before `table` is released.
        unsafe { gpu.driver.copy_in(address, table.as_ptr().cast(), size_of_val(table), stream)? };
        gpu.driver.synchronize(stream)?;
        Ok(address)
    }

    /// Creates an event on a device.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn event(&self, device: usize) -> Result<GpuEvent> {
        self.gpu(device).driver.event()
    }

    /// Records an event on a queue.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn record(&self, device: usize, queue: Queue, event: GpuEvent) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, queue);
        driver.record(event, stream)
    }

    /// Creates a timer on a device.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn timer(&self, device: usize) -> Result<GpuEvent> {
        self.gpu(device).driver.timer()
    }

    /// Records a timer on a queue, or in its capture.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn record_timer(&self, device: usize, queue: Queue, timer: GpuEvent) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, queue);
        driver.record_timer(timer, stream)
    }

    /// Returns the time in seconds between two timers of a device, both of which have been reached.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn seconds_between(&self, device: usize, start: GpuEvent, end: GpuEvent) -> Result<f64> {
        self.gpu(device).driver.seconds_between(start, end)
    }

    /// Makes a queue wait for an event.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn wait(&self, device: usize, queue: Queue, event: GpuEvent) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, queue);
        driver.wait(stream, event)
    }

    /// Stores the input of a step in slot `slot` of the staging memory. No step of this slot may be in progress.
    ///
    /// # Errors
    /// If there is not enough memory.
    ///
    /// # Panics
    /// If a part is larger than the slot was allocated for.
    pub fn stage(&mut self, slot: usize, inputs: [&[u8]; INPUTS]) -> Result<()> {
        self.slots[slot].stage(&self.devices[0].driver, inputs)
    }

    /// Returns the memory for batches that are copied without staging.
    pub fn host_memory(&self) -> &dyn HostMemory {
        &self.pool
    }

    /// Copies some bytes of a buffer of [`Gpus::host_memory`] to an address in a device's arena. They must not change
    /// until the copy has finished.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Panics
    /// If the buffer is not pinned, or smaller.
    pub fn send_pinned(
        &self,
        device: usize,
        queue: Queue,
        from: &HostBuffer,
        bytes: Range<usize>,
        to: u64,
    ) -> Result<()> {
        assert!(from.is_pinned(), "other memory may be freed before it is copied");
        let (from, Issue { driver, stream }) = (&from.as_slice()[bytes], self.issue(device, queue));
        // SAFETY: pinned memory lives as long as its pool, which lives as long as `self`; `to` comes from `address`.
        unsafe { driver.copy_in(to, from.as_ptr(), from.len(), stream) }
    }

    /// Copies `bytes` bytes of a part of a slot's batch, starting at byte `from`, to an address in a device's arena.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Panics
    /// If they are outside the part.
    pub fn send(
        &self,
        device: usize,
        queue: Queue,
        (slot, input): (usize, usize),
        from: usize,
        to: u64,
        bytes: usize,
    ) -> Result<()> {
        let staging = self.slots[slot].staging[input];
        assert!(from + bytes <= staging.bytes, "the rows must be within the batch");
        let Issue { driver, stream } = self.issue(device, queue);
        // SAFETY: the range is within both; `to` comes from `address`.
        unsafe { driver.copy_in(to, staging.at.add(from), bytes, stream) }
    }

    /// Copies f32 values from an address on a device to an operand of the same device, rounding them if that is bf16.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn receive(&self, device: usize, queue: Queue, from: u64, to: &Operand) -> Result<()> {
        if to.element == Element::Bf16 {
            let from = Operand::at(from, Element::F32, to.shape.clone(), to.window.clone());
            return self.to_bf16(device, queue, &from, to);
        }
        let Issue { driver, stream } = self.issue(device, queue);
        // SAFETY: both are in the device's arena and do not overlap; events order conflicting accesses.
        unsafe { driver.copy(to.address(), from, to.bytes(), stream) }
    }

    /// Writes `elements` f32 values at a device address to the slot, where [`Gpus::values`] returns them. A kernel
    /// writes them to the mapped host memory, so a graph ends without a copy.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn unload(&self, device: usize, queue: Queue, slot: usize, from: u64, elements: usize) -> Result<()> {
        let values = self.slots[slot].values;
        assert!(elements * 4 <= values.bytes);
        let (from, to) = (Const::at(from), Mut::at(values.at as u64));
        // SAFETY: the values fit; `from` comes from `address`; pinned memory has the same address on every GPU.
        unsafe { kernels::results_to_host(&self.issue(device, queue), Grid::new(1, 1, 1), from, to, elements as i32) }
    }

    /// Returns the values that the last step of a slot wrote. That step must have finished.
    pub fn values(&self, slot: usize) -> &[f32] {
        self.slots[slot].values()
    }

    /// Reads elements from a device's arena, starting at a byte. No step may be running.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn fetch(&self, device: usize, byte: usize, to: &mut [f32]) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, Queue::Copy);
        let from = self.address(device, byte);
        let _end = self.address(device, byte + size_of_val(to));
        // SAFETY: the range is within the arena; the stream is synchronised before the host memory is released.
        unsafe { driver.copy_out(to.as_mut_ptr().cast(), from, size_of_val(to), stream)? };
        driver.synchronize(stream)
    }

    /// Writes elements to a device's arena, starting at a byte. No step may be running.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn store(&self, device: usize, byte: usize, from: &[f32]) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, Queue::Copy);
        let to = self.address(device, byte);
        let _end = self.address(device, byte + size_of_val(from));
        // SAFETY: the range is within the arena; the stream is synchronised before the host memory is released.
        unsafe { driver.copy_in(to, from.as_ptr().cast(), size_of_val(from), stream)? };
        driver.synchronize(stream)
    }

    /// Captures the work that `issue` issues as a graph that starts and ends on device 0's compute queue.
    ///
    /// # Errors
    /// If a device reports an error.
    pub fn capture(&self, issue: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let origin = self.issue(0, Queue::Compute);
        origin.driver.begin_capture(origin.stream)?;
        let issued = issue();
        // The stream must not stay in capture mode, whatever happened.
        let graph = origin.driver.end_capture(origin.stream);
        issued.and(graph)
    }

    /// Launches a graph on device 0's compute queue.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn launch_graph(&self, graph: Graph) -> Result<()> {
        let origin = self.issue(0, Queue::Compute);
        // SAFETY: every address in the graph belongs to `self`.
        unsafe { origin.driver.launch_graph(graph, origin.stream) }
    }

    /// Destroys all graphs, once the work of every queue has finished; none of them is launched again.
    pub fn discard_graphs(&self) {
        for gpu in &self.devices {
            let finished = gpu.streams.iter().try_for_each(|&stream| gpu.driver.synchronize(stream));
            // A device that was lost keeps them until the process ends.
            let _ = finished.and_then(|()| gpu.driver.discard_graphs());
        }
    }

    /// Waits for an event of a device.
    ///
    /// # Errors
    /// If a kernel faulted or the device was lost.
    pub fn synchronize_event(&self, device: usize, event: GpuEvent) -> Result<()> {
        self.gpu(device).driver.synchronize_event(event)
    }

    /// Waits for everything issued to a queue.
    ///
    /// # Errors
    /// If a kernel faulted or the device was lost.
    pub fn synchronize(&self, device: usize, queue: Queue) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, queue);
        driver.synchronize(stream)
    }
}

impl Drop for Gpus {
    fn drop(&mut self) {
        for gpu in &self.devices {
            let waited = gpu.streams.iter().all(|&stream| gpu.driver.synchronize(stream).is_ok());
            if waited {
                // SAFETY: allocated in `open` or `upload`, and all work has finished. The memory of a failed device is
                // left until the process ends.
                for &address in gpu.tables.iter().chain([&gpu.arena]) {
                    let _ = unsafe { gpu.driver.free(address) };
                }
            }
        }
        let Some(first) = self.devices.first() else { return };
        let all = self.slots.iter().flat_map(Slot::all);
        for pinned in all.chain([self.host]) {
            // SAFETY: as above.
            let _ = unsafe { first.driver.free_pinned(pinned.at) };
        }
    }
}
