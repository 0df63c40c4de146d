//! The GPUs of a run: each opened once, one arena, three streams and pinned staging each. Everything is issued by the
//! thread that calls, in the order of the calls.

use super::address::{AnyConst, AnyMut, ComputeType, Const, Mut};
use super::driver::{Driver, Issue};
use super::handles::{DriverKind, GpuEvent, Graph, Grid, Rows, Stream};
use super::kernels;
use super::launch::{CLOCK_BYTES, threads};
use super::libraries::{Choices, Record};
use super::staging::{INPUTS, Pinned, Slot};
use crate::device::{Clock, Operand, Queue};
use crate::error::{Error, Result};
use crate::tensor::{Element, Strided};
use std::sync::Arc;

/// A logical device: several may share one GPU.
#[derive(Debug)]
struct Gpu {
    driver: Arc<Driver>,
    arena: u64,
    bytes: usize,
    streams: [Stream; Queue::COUNT],
    clock: u64,
    /// Tables that live as long as the device.
    tables: Vec<u64>,
}

/// The GPUs of a run.
#[derive(Debug)]
pub struct Gpus {
    devices: Vec<Gpu>,
    slots: Vec<Slot>,
    /// What GPUs exchange through that do not reach each other.
    host: Pinned,
    choices: Arc<Choices>,
}

// SAFETY: the pinned memory is this value's own; addresses of the device are numbers.
unsafe impl Send for Gpus {}

/// What opening needs to know.
#[derive(Debug, Clone)]
pub struct GpuOptions<'a> {
    /// CUDA or emulated.
    pub kind: DriverKind,
    /// The GPU of each logical device.
    pub ordinals: &'a [usize],
    /// Bytes of each logical device's arena.
    pub arenas: &'a [usize],
    /// Bytes of host memory that GPUs exchange through; none: they reach each other's.
    pub host: Option<usize>,
    /// Bytes of each part of the largest batch.
    pub staging: [usize; INPUTS],
    /// Elements of the values that come back after a step.
    pub values: usize,
    /// Steps that the host may have under way at once.
    pub slots: usize,
    /// Threads that an emulated device runs on.
    pub threads: usize,
}

impl Gpus {
    /// Opens the GPUs and allocates what they need.
    ///
    /// # Errors
    /// When a GPU is missing or has too little memory, or two of them cannot reach each other's.
    pub fn open(opening: &GpuOptions) -> Result<Gpus> {
        let mut opened: Vec<(usize, Arc<Driver>)> = Vec::new();
        for &ordinal in opening.ordinals {
            if !opened.iter().any(|(o, _)| *o == ordinal) {
                let driver = Driver::open(opening.kind, ordinal, opening.threads)?;
                opened.push((ordinal, Arc::new(driver)));
            }
        }
        for (a, this) in &opened {
            for (b, other) in opened.iter().filter(|(b, _)| b != a && opening.host.is_none()) {
                if !this.reach(other)? {
                    return Err(Error::Usage(format!(
                        "{0}:{a} cannot reach the memory of {0}:{b}; set [devices] peer_access = \"off\", or use GPUs \
                         that are connected (nvidia-smi topo -p2p r shows which)",
                        opening.kind
                    )));
                }
            }
        }
        let first = &opened.first().ok_or_else(|| Error::Usage("no GPU was asked for".into()))?.1;
        let slot = |_| Slot::new(first, opening.staging, opening.values);
        let slots = (0..opening.slots).map(slot).collect::<Result<_>>()?;
        let host = Pinned::new(first, opening.host.unwrap_or(0))?;
        let mut gpus = Gpus { slots, host, devices: Vec::new(), choices: Arc::default() };
        for (&ordinal, &bytes) in opening.ordinals.iter().zip(opening.arenas) {
            let driver = opened.iter().find(|(o, _)| *o == ordinal).map(|(_, d)| Arc::clone(d));
            let driver = driver.expect("every ordinal was opened");
            let streams = [driver.stream()?, driver.stream()?, driver.stream()?];
            let (arena, clock) = (driver.allocate(bytes.max(4))?, driver.allocate(CLOCK_BYTES)?);
            // SAFETY: both were just allocated. Weights, optimiser state and statistics start at zero.
            unsafe { driver.fill(arena, 0, bytes, streams[0])? };
            driver.synchronize(streams[0])?;
            gpus.devices.push(Gpu { driver, arena, bytes, streams, clock, tables: Vec::new() });
        }
        Ok(gpus)
    }

    /// Opens NVIDIA's libraries on every GPU, those that are there. GPUs of several models do without: their libraries
    /// choose other algorithms, and copies of a tensor would differ.
    ///
    /// # Errors
    /// When a device refuses.
    pub fn use_libraries(&self) -> Result<()> {
        let name = self.name(0);
        if let Some(other) = (1..self.devices.len()).map(|device| self.name(device)).find(|other| *other != name) {
            tracing::info!("own kernels compute products and convolutions: {name} and {other} are different GPUs");
            return Ok(());
        }
        self.devices.iter().try_for_each(|gpu| gpu.driver.use_libraries(&self.choices))
    }

    /// Returns which algorithms the libraries use.
    pub fn choices(&self) -> Record {
        self.choices.record()
    }

    /// Takes over the choices of a checkpoint; returns a line for those that do not fit.
    pub fn restore_choices(&self, record: &Record) -> Vec<String> {
        self.choices.restore(record)
    }

    fn gpu(&self, device: usize) -> &Gpu {
        &self.devices[device]
    }

    /// Returns where a queue's launches go.
    pub fn issue(&self, device: usize, queue: Queue) -> Issue<'_> {
        let gpu = self.gpu(device);
        Issue { driver: &gpu.driver, stream: gpu.streams[queue as usize] }
    }

    /// Returns what a device calls itself.
    pub fn name(&self, device: usize) -> &str {
        self.gpu(device).driver.name()
    }

    /// Returns the address of a byte of a device's arena, or of the host's memory, which is the device after the last.
    ///
    /// # Panics
    /// When it lies outside.
    pub fn address(&self, device: usize, byte: usize) -> u64 {
        let (start, bytes) = match self.devices.get(device) {
            Some(gpu) => (gpu.arena, gpu.bytes),
            // Pinned memory has one address for the host and for every GPU.
            None => (self.host.at as u64, self.host.bytes),
        };
        assert!(byte <= bytes, "an address lies inside its arena");
        start + byte as u64
    }

    /// Returns the address of a device's clock.
    pub fn clock(&self, device: usize) -> u64 {
        self.gpu(device).clock
    }

    /// Copies a table to a device, where it stays; returns its address.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn upload<T: Copy>(&mut self, device: usize, table: &[T]) -> Result<u64> {
        let gpu = &mut self.devices[device];
        let address = gpu.driver.allocate(size_of_val(table).max(4))?;
        gpu.tables.push(address);
        let stream = gpu.streams[Queue::Copy as usize];
        // SAFETY: just allocated; the wait follows.
        unsafe { gpu.driver.copy_in(address, table.as_ptr().cast(), size_of_val(table), stream)? };
        gpu.driver.synchronize(stream)?;
        Ok(address)
    }

    /// Makes an event of a device.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn event(&self, device: usize) -> Result<GpuEvent> {
        self.gpu(device).driver.event()
    }

    /// Records an event on a queue.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn record(&self, device: usize, queue: Queue, event: GpuEvent) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, queue);
        driver.record(event, stream)
    }

    /// Returns the seconds between two events of a device that are both past.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn seconds_between(&self, device: usize, start: GpuEvent, end: GpuEvent) -> Result<f64> {
        self.gpu(device).driver.seconds_between(start, end)
    }

    /// Makes a queue wait for an event.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn wait(&self, device: usize, queue: Queue, event: GpuEvent) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, queue);
        driver.wait(stream, event)
    }

    /// Puts a batch and the clock into slot `slot` of the staging memory. No step of this slot is under way.
    ///
    /// # Panics
    /// When the batch is larger than what was opened for.
    pub fn stage(&mut self, slot: usize, inputs: [&[u8]; INPUTS], clock: Clock) {
        self.slots[slot].stage(inputs, clock);
    }

    /// Copies a slot's clock to a device.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn load_clock(&self, device: usize, queue: Queue, slot: usize) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, queue);
        // SAFETY: both are CLOCK_BYTES long and live as long as `self`.
        unsafe { driver.copy_in(self.clock(device), self.slots[slot].clock.at, CLOCK_BYTES, stream) }
    }

    /// Copies `bytes` of a part of a slot's batch, from byte `from` on, to an address of a device's arena.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Panics
    /// When they lie outside.
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
        assert!(from + bytes <= staging.bytes, "the rows lie inside the batch");
        let Issue { driver, stream } = self.issue(device, queue);
        // SAFETY: inside both; `to` comes from `address`.
        unsafe { driver.copy_in(to, staging.at.add(from), bytes, stream) }
    }

    /// Copies the bytes of an operand from an address of the same device.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn receive(&self, device: usize, queue: Queue, from: u64, to: &Operand) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, queue);
        // SAFETY: both lie in the device's arena and do not overlap; the event order keeps others away.
        unsafe { driver.copy(to.address(), from, to.bytes(), stream) }
    }

    /// Copies the first `elements` of an address to where [`Gpus::values`] finds them.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn unload(&self, device: usize, queue: Queue, slot: usize, from: u64, elements: usize) -> Result<()> {
        let values = self.slots[slot].values;
        assert!(elements * 4 <= values.bytes);
        let Issue { driver, stream } = self.issue(device, queue);
        // SAFETY: it fits; `from` comes from `address`.
        unsafe { driver.copy_out(values.at, from, elements * 4, stream) }
    }

    /// Returns the values that the last step of a slot left. It is done.
    pub fn values(&self, slot: usize) -> &[f32] {
        self.slots[slot].values()
    }

    /// Sets target = sum of the sources, for strided pieces at arena addresses. With several sources there is one
    /// target, and it may be the first or second source. Each piece is one run, or in runs of one common length.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn sum(
        &self,
        device: usize,
        queue: Queue,
        element: Element,
        sources: &[(u64, Strided)],
        (target, part): (u64, Strided),
    ) -> Result<()> {
        let issue = self.issue(device, queue);
        let (width, height) = run(sources.iter().chain([&(target, part)]));
        let stride = |p: Strided| if p.len == width { p.stride } else { width };
        let bytes = element.bytes();
        let at = |(base, p): (u64, Strided)| base + (p.offset * bytes) as u64;
        if let [source] = sources {
            let rows = |piece: (u64, Strided)| Rows { address: at(piece), pitch: stride(piece.1) * bytes };
            // SAFETY: the plan's checker proved that the pieces lie inside their buffers and do not overlap.
            return unsafe {
                issue.driver.copy_rows(rows((target, part)), rows(*source), width * bytes, height, issue.stream)
            };
        }
        let format = ComputeType::of(element, false);
        let mut first = sources[0];
        for &next in &sources[1..] {
            // SAFETY: as above; element by element, so the target may be a source.
            unsafe {
                kernels::any::strided_add(
                    &issue,
                    threads(width * height),
                    AnyConst { address: at(first), format },
                    AnyConst { address: at(next), format },
                    AnyMut { address: at((target, part)), format },
                    stride(first.1) as i64,
                    stride(next.1) as i64,
                    stride(part) as i64,
                    width as i64,
                    height as i64,
                )?;
            }
            first = (target, part);
        }
        Ok(())
    }

    /// Copies f32 operand `from` to bf16 operand `to`, rounded to nearest, ties to even.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Panics
    /// When their lengths or types are others.
    pub fn to_bf16(&self, device: usize, queue: Queue, from: &Operand, to: &Operand) -> Result<()> {
        assert_eq!((from.element, to.element, from.elements()), (Element::F32, Element::Bf16, to.elements()));
        let (x, y, n) = (Const::at(from.address()), Mut::at(to.address()), to.elements());
        // SAFETY: both operands have n elements; the event order keeps others away.
        unsafe { kernels::cast_to_bf16(&self.issue(device, queue), Grid::cover(n, 256 * 8), x, y, n as i64) }
    }

    /// Reads elements of a device's arena from a byte on. No step runs meanwhile.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn fetch(&self, device: usize, byte: usize, to: &mut [f32]) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, Queue::Copy);
        let from = self.address(device, byte);
        let _end = self.address(device, byte + size_of_val(to));
        // SAFETY: inside the arena; the wait follows.
        unsafe { driver.copy_out(to.as_mut_ptr().cast(), from, size_of_val(to), stream)? };
        driver.synchronize(stream)
    }

    /// Writes elements of a device's arena from a byte on. No step runs meanwhile.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn store(&self, device: usize, byte: usize, from: &[f32]) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, Queue::Copy);
        let to = self.address(device, byte);
        let _end = self.address(device, byte + size_of_val(from));
        // SAFETY: inside the arena; the wait follows.
        unsafe { driver.copy_in(to, from.as_ptr().cast(), size_of_val(from), stream)? };
        driver.synchronize(stream)
    }

    /// Captures what `issue` issues into a graph that starts and ends on device 0's compute queue.
    ///
    /// # Errors
    /// When a device refuses.
    pub fn capture(&self, issue: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let origin = self.issue(0, Queue::Compute);
        origin.driver.begin_capture(origin.stream)?;
        issue()?;
        origin.driver.end_capture(origin.stream)
    }

    /// Launches a graph on device 0's compute queue.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn launch_graph(&self, graph: Graph) -> Result<()> {
        let origin = self.issue(0, Queue::Compute);
        // SAFETY: every address in the graph belongs to `self`.
        unsafe { origin.driver.launch_graph(graph, origin.stream) }
    }

    /// Waits for an event of a device.
    ///
    /// # Errors
    /// When a kernel faulted or the device was lost.
    pub fn synchronize_event(&self, device: usize, event: GpuEvent) -> Result<()> {
        self.gpu(device).driver.synchronize_event(event)
    }

    /// Waits for everything issued to a queue.
    ///
    /// # Errors
    /// When a kernel faulted or the device was lost.
    pub fn synchronize(&self, device: usize, queue: Queue) -> Result<()> {
        let Issue { driver, stream } = self.issue(device, queue);
        driver.synchronize(stream)
    }
}

/// The common shape of pieces: the shortest run, and how many of them.
fn run<'a>(pieces: impl Iterator<Item = &'a (u64, Strided)>) -> (usize, usize) {
    let (mut width, mut elements, mut longest) = (usize::MAX, 0, 0);
    for (_, part) in pieces {
        width = width.min(part.len);
        elements = part.elements();
        if part.rows > 1 {
            longest = longest.max(part.len);
        }
    }
    assert!(longest <= width, "pieces are in one run, or in runs of one length");
    (width, elements.checked_div(width).unwrap_or(0))
}

impl Drop for Gpus {
    fn drop(&mut self) {
        for gpu in &self.devices {
            let waited = gpu.streams.iter().all(|&stream| gpu.driver.synchronize(stream).is_ok());
            if waited {
                // SAFETY: allocated in `open`; nothing runs any more. A device that failed is left to the process' end.
                for &address in gpu.tables.iter().chain([&gpu.arena, &gpu.clock]) {
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
