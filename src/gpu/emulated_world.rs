//! The state shared by a process's emulated devices: allocations, streams, events and captures, with their checks.

use super::handles::{GpuEvent, Graph, Grid, HostCall, Rows, Stream};
use crate::error::{Error, Result};
use std::alloc::Layout;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Alignment of allocations, the same as on a GPU.
const ALIGN: usize = 256;

/// A call that may be executed later, as part of a graph.
#[derive(Debug, Clone)]
pub(super) enum Command {
    /// A copy between any two addresses, including host addresses.
    Copy { to: u64, from: u64, bytes: usize },
    /// A copy of `height` rows of `width` bytes.
    CopyRows { to: Rows, from: Rows, width: usize, height: usize },
    /// Sets every byte to the same value.
    Fill { to: u64, byte: u8, bytes: usize },
    /// A kernel and its argument values, each starting at a new word.
    Launch { kernel: usize, grid: Grid, values: Vec<u64> },
    /// Calls a function of the host.
    Call(Arc<HostCall>),
    /// Takes the time.
    Record(GpuEvent),
}

/// For a point in a capture, the number of commands of each stream that come before it.
type VectorClock = HashMap<Stream, u64>;

#[derive(Debug)]
enum Point {
    Never,
    Happened(Instant),
    Captured { origin: Stream, clock: VectorClock },
}

#[derive(Debug, Default)]
struct Capture {
    commands: Vec<Command>,
    clocks: HashMap<Stream, VectorClock>,
}

/// Addresses, handles and captures.
#[derive(Debug, Default)]
pub(super) struct World {
    /// Length of the allocation at each address.
    allocations: BTreeMap<u64, usize>,
    handles: u64,
    events: HashMap<GpuEvent, Point>,
    /// The origin of the capture that a stream is in.
    streams: HashMap<Stream, Option<Stream>>,
    captures: HashMap<Stream, Capture>,
    graphs: HashMap<Graph, Arc<Vec<Command>>>,
}

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(Mutex::default);

/// Locks the state of this process.
pub(super) fn lock() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn misuse<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Run(format!("emu: {}; this is a bug in peristyle, please report it", message.into())))
}

impl World {
    /// Allocates memory filled with NaN.
    pub(super) fn allocate(&mut self, bytes: usize) -> Result<u64> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGN);
        // SAFETY: the size is at least 1.
        let base = layout.map_or(std::ptr::null_mut(), |layout| unsafe { std::alloc::alloc(layout) });
        if base.is_null() {
            return Err(Error::Run(format!("emu: cannot allocate {bytes} bytes; use a smaller batch or more devices")));
        }
        // SAFETY: inside the allocation.
        unsafe { std::ptr::write_bytes(base, 0xff, bytes) };
        self.allocations.insert(base as u64, bytes);
        Ok(base as u64)
    }

    pub(super) fn free(&mut self, address: u64) -> Result<()> {
        let Some(bytes) = self.allocations.remove(&address) else {
            return misuse(format!("address {address:#x} was never allocated or is freed twice"));
        };
        let layout = Layout::from_size_align(bytes.max(1), ALIGN).expect("the same layout was used to allocate");
        // SAFETY: allocated in `allocate` with this layout, and just removed from the list.
        unsafe { std::alloc::dealloc(address as *mut u8, layout) };
        Ok(())
    }

    /// Checks that a range is within one allocation; `action` is a verb that names the use, for the message.
    pub(super) fn inside(&self, address: u64, bytes: usize, action: &str) -> Result<()> {
        let holds = |(&start, &length): (&u64, &usize)| address - start + bytes as u64 <= length as u64;
        if bytes == 0 || self.allocations.range(..=address).next_back().is_some_and(holds) {
            return Ok(());
        }
        misuse(format!("cannot {action} {bytes} bytes at {address:#x}: they are outside every allocation"))
    }

    fn handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    pub(super) fn stream(&mut self) -> Stream {
        let stream = Stream(self.handle());
        self.streams.insert(stream, None);
        stream
    }

    pub(super) fn discard(&mut self, stream: Stream) -> Result<()> {
        match self.streams.remove(&stream) {
            Some(None) => Ok(()),
            Some(Some(_)) => misuse("a stream is discarded while it is captured"),
            None => misuse("a stream was never created or is discarded twice"),
        }
    }

    pub(super) fn event(&mut self) -> GpuEvent {
        let event = GpuEvent(self.handle());
        self.events.insert(event, Point::Never);
        event
    }

    pub(super) fn record(&mut self, event: GpuEvent, stream: Stream) -> Result<()> {
        let point = match self.streams[&stream] {
            None => Point::Happened(Instant::now()),
            Some(origin) => Point::Captured { origin, clock: self.clock(origin, stream).clone() },
        };
        self.events.insert(event, point);
        Ok(())
    }

    /// Takes the time of a timer that a stream or a graph has reached.
    pub(super) fn reached(&mut self, timer: GpuEvent) {
        self.events.insert(timer, Point::Happened(Instant::now()));
    }

    pub(super) fn wait(&mut self, stream: Stream, event: GpuEvent) -> Result<()> {
        let mine = self.streams[&stream];
        match &self.events[&event] {
            Point::Never => misuse("a stream waits for an event that was never recorded, which a GPU would ignore"),
            Point::Happened(_) if mine.is_some() => {
                misuse("a captured stream waits for an event from outside the capture")
            }
            Point::Happened(_) => Ok(()),
            Point::Captured { origin, .. } if mine.is_some_and(|mine| mine != *origin) => {
                misuse("one capture waits for another; captures fork from one stream")
            }
            Point::Captured { origin, clock } => {
                let (origin, clock) = (*origin, clock.clone());
                if !self.captures.contains_key(&origin) {
                    return misuse("a stream waits for an event of a capture that has ended");
                }
                self.streams.insert(stream, Some(origin));
                let mine = self.clock(origin, stream);
                for (other, count) in clock {
                    let known = mine.entry(other).or_default();
                    *known = count.max(*known);
                }
                Ok(())
            }
        }
    }

    fn clock(&mut self, origin: Stream, stream: Stream) -> &mut VectorClock {
        self.captures.entry(origin).or_default().clocks.entry(stream).or_default()
    }

    /// Checks that the host may wait for a stream: it must not be captured.
    pub(super) fn not_captured(&mut self, stream: Stream) -> Result<()> {
        match self.streams[&stream] {
            None => Ok(()),
            Some(_) => misuse("the host waits for a stream, or launches a graph on it, while the stream is captured"),
        }
    }

    /// Returns when an event happened.
    pub(super) fn happened(&mut self, event: GpuEvent) -> Result<Instant> {
        match self.events[&event] {
            Point::Happened(at) => Ok(at),
            _ => misuse("the host waits for an event that was not recorded"),
        }
    }

    /// Adds a command to the capture of its stream; if there is none, returns it to be executed now.
    pub(super) fn captured(&mut self, stream: Stream, command: Command) -> Option<Command> {
        let Some(origin) = self.streams[&stream] else { return Some(command) };
        *self.clock(origin, stream).entry(stream).or_default() += 1;
        self.captures.entry(origin).or_default().commands.push(command);
        None
    }

    pub(super) fn begin_capture(&mut self, origin: Stream) -> Result<()> {
        if self.streams[&origin].is_some() {
            return misuse("a capture begins on a stream that is already captured");
        }
        self.streams.insert(origin, Some(origin));
        self.captures.insert(origin, Capture::default());
        Ok(())
    }

    /// Ends a capture: every stream in it must have been joined back to the origin after its last command.
    pub(super) fn end_capture(&mut self, origin: Stream) -> Result<Graph> {
        let Some(mut capture) = self.captures.remove(&origin) else {
            return misuse("a capture ends on a stream on which none began");
        };
        self.streams.values_mut().filter(|of| **of == Some(origin)).for_each(|of| *of = None);
        let joined = capture.clocks.remove(&origin).unwrap_or_default();
        for (stream, clock) in &capture.clocks {
            if clock.get(stream).copied().unwrap_or(0) > joined.get(stream).copied().unwrap_or(0) {
                return misuse("a capture ends before every stream in it has been joined to its origin");
            }
        }
        let graph = Graph(self.handle());
        self.graphs.insert(graph, Arc::new(capture.commands));
        Ok(graph)
    }

    pub(super) fn graph(&self, graph: Graph) -> Arc<Vec<Command>> {
        Arc::clone(&self.graphs[&graph])
    }
}
