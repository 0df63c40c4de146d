//! Assigns bytes to the buffers of a step: one arena per device.
//!
//! Two buffers share bytes only if every use of one has finished before any use of the other starts, *in the event
//! order*: a bucket of gradients outlives its last compute instruction, and a ring reads its neighbour's buffers.

use super::clocks::{Clock, VectorClocks};
use super::{BufferId, Program};

/// The alignment of buffers, in bytes.
pub const ALIGN: usize = 64;

/// When a buffer is in use.
#[derive(Debug, Clone)]
struct Life {
    /// The first and the last instruction that use it, in the order of issue.
    span: (usize, usize),
    /// The queue of all these instructions; `None` if they are on several.
    queue: Option<usize>,
    /// The first uses, without those that follow another one.
    births: Vec<usize>,
    /// The clock at which all uses have finished.
    death: Clock,
}

impl Life {
    /// Returns true if all uses of this buffer finish before any use of the other one starts.
    fn ends_before(&self, other: &Life, clocks: &VectorClocks) -> bool {
        let ordered = || self.queue.is_some() && self.queue == other.queue;
        let waits = || other.births.iter().all(|&birth| clocks.includes(birth, self.death));
        self.span.1 < other.span.0 && (ordered() || waits())
    }
}

/// Returns the lives of all buffers; `None` for a buffer that is not used.
fn lives(program: &Program, clocks: &mut VectorClocks) -> Vec<Option<Life>> {
    let mut uses: Vec<Vec<usize>> = vec![Vec::new(); program.buffers.len()];
    for (number, step) in program.instructions.iter().enumerate() {
        for u in &step.uses {
            if uses[u.buffer].last() != Some(&number) {
                uses[u.buffer].push(number);
            }
        }
    }
    let steps = &program.instructions;
    let life = |uses: Vec<usize>| {
        let span = (*uses.first()?, *uses.last()?);
        let mut births: Vec<usize> = Vec::new();
        for &number in &uses {
            if !births.iter().any(|&birth| clocks.before(steps, birth, number)) {
                births.push(number);
            }
        }
        let death = clocks.clock(uses.iter().map(|&number| (steps[number].queue_index(), steps[number].index + 1)));
        let queue = Some(steps[span.0].queue_index());
        let single = uses.iter().all(|&number| Some(steps[number].queue_index()) == queue);
        Some(Life { span, queue: queue.filter(|_| single), births, death })
    };
    uses.into_iter().map(life).collect()
}

/// A buffer that has its bytes.
#[derive(Debug, Clone, Copy)]
struct Allocated {
    start: usize,
    end: usize,
    span: (usize, usize),
    queue: Option<usize>,
    buffer: BufferId,
}

/// Allocated buffers that follow each other in memory, by their first byte.
#[derive(Debug)]
struct Block {
    all: Vec<Allocated>,
    /// One past the last byte of all of them.
    end: usize,
    /// The first and the last instruction that use any of them.
    span: (usize, usize),
    /// The queue of all these instructions; `None` if they are on several.
    queue: Option<usize>,
    /// If no byte between the first and the last one is free: the last of their first instructions, and the first of their
    /// last ones.
    full: Option<(usize, usize)>,
}

impl Block {
    /// The largest number of buffers.
    const MOST: usize = 256;

    fn new(all: Vec<Allocated>) -> Self {
        let (mut end, mut gap, mut queue) = (all[0].start, false, all[0].queue);
        let (mut span, mut common) = (all[0].span, all[0].span);
        for buffer in &all {
            gap |= buffer.start > end;
            end = end.max(buffer.end);
            queue = queue.filter(|_| queue == buffer.queue);
            span = (span.0.min(buffer.span.0), span.1.max(buffer.span.1));
            common = (common.0.max(buffer.span.0), common.1.min(buffer.span.1));
        }
        Block { all, end, span, queue, full: (!gap).then_some(common) }
    }

    /// Returns true if each of them is in use at some time of this life, and none of their bytes is free then.
    fn is_taken(&self, life: &Life) -> bool {
        self.full.is_some_and(|(first, last)| first <= life.span.1 && life.span.0 <= last)
    }

    /// Returns true if none of them is in use at any time of this life.
    fn is_apart(&self, life: &Life) -> bool {
        let ordered = self.queue.is_some() && self.queue == life.queue;
        ordered && (self.span.1 < life.span.0 || life.span.1 < self.span.0)
    }
}

/// The allocated buffers of a device, by their first byte.
#[derive(Debug, Default)]
struct Allocations(Vec<Block>);

impl Allocations {
    fn add(&mut self, new: Allocated) {
        let after = |other: &Allocated| other.start <= new.start;
        let at = self.0.partition_point(|block| block.all.last().is_some_and(after));
        let at = at.min(self.0.len().saturating_sub(1));
        let mut all = if self.0.is_empty() { Vec::new() } else { self.0.remove(at).all };
        all.insert(all.partition_point(after), new);
        let rest = if all.len() > Block::MOST { all.split_off(Block::MOST / 2) } else { Vec::new() };
        self.0.insert(at, Block::new(all));
        if !rest.is_empty() {
            self.0.insert(at + 1, Block::new(rest));
        }
    }

    /// Returns the first byte, from `start`, of `bytes` that no buffer uses which meets `life`.
    fn first_free(&self, mut start: usize, bytes: usize, life: &Life, meets: impl Fn(&Allocated) -> bool) -> usize {
        for block in &self.0 {
            let first = block.all[0].start;
            if first >= start + bytes {
                break;
            }
            if block.end <= start || block.is_apart(life) {
                continue;
            }
            if block.is_taken(life) {
                start = block.end;
                continue;
            }
            for other in &block.all {
                if other.start >= start + bytes {
                    break;
                }
                if other.end > start && meets(other) {
                    start = other.end;
                }
            }
        }
        start
    }
}

/// Assigns an offset to every buffer that is not a region, starting at byte `base` of its device, or at 0 on the host;
/// returns the end of each device's arena and of the host's memory.
///
/// The largest buffers come first. Each gets the first bytes that no buffer uses whose life overlaps its own.
pub fn assign(
    program: &mut Program,
    mut clocks: VectorClocks,
    base: usize,
    (devices, hosts): (usize, usize),
) -> (Vec<usize>, Vec<usize>) {
    let lives = lives(program, &mut clocks);
    let mut own: Vec<Vec<BufferId>> = vec![Vec::new(); devices + hosts];
    for (id, buffer) in program.buffers.iter().enumerate() {
        if buffer.region.is_none() && buffer.elements > 0 && lives[id].is_some() {
            own[buffer.device].push(id);
        }
    }
    let mut ends = vec![base; devices];
    ends.resize(devices + hosts, 0);
    for (device, own) in own.iter_mut().enumerate() {
        own.sort_by_key(|&b| (std::cmp::Reverse(program.buffers[b].bytes()), b));
        let mut allocated = Allocations::default();
        for &buffer in own.iter() {
            let Some(life) = &lives[buffer] else { continue };
            let bytes = program.buffers[buffer].bytes().next_multiple_of(ALIGN);
            let first = if device >= devices { 0 } else { base };
            let start = allocated.first_free(first, bytes, life, |other| meet(other, life, &lives, &clocks));
            program.buffers[buffer].offset = start;
            ends[device] = ends[device].max(start + bytes);
            allocated.add(Allocated { start, end: start + bytes, span: life.span, queue: life.queue, buffer });
        }
    }
    let hosts = ends.split_off(devices);
    (ends, hosts)
}

/// Returns true if an allocated buffer may be in use while one with this life is.
fn meet(allocated: &Allocated, life: &Life, lives: &[Option<Life>], clocks: &VectorClocks) -> bool {
    if allocated.span.0 <= life.span.1 && life.span.0 <= allocated.span.1 {
        return true;
    }
    let other = lives[allocated.buffer].as_ref();
    other.is_some_and(|other| !other.ends_before(life, clocks) && !life.ends_before(other, clocks))
}
