//! Assigns bytes to the buffers of a step: one arena per device.
//!
//! Two buffers share bytes only if every use of one has finished before any use of the other starts, *in the event
//! order*: a bucket of gradients outlives its last compute instruction, and a ring reads its neighbour's buffers.

use super::Program;
use super::events::VectorClocks;

/// The alignment of buffers, in bytes.
pub const ALIGN: usize = 64;

/// A buffer's lifetime: its first and last instruction on each queue that uses it.
#[derive(Debug, Clone, Default)]
struct Life {
    /// (queue, first instruction, last instruction), as indices into the program.
    queues: Vec<(usize, usize, usize)>,
}

/// Assigns an offset to every buffer that is not a region, starting at byte `base` of its device, or at 0 on the host;
/// returns the end of each device's arena and of the host's memory.
pub fn assign(program: &mut Program, clocks: &VectorClocks, base: usize, devices: usize) -> (Vec<usize>, usize) {
    let mut lives = vec![Life::default(); program.buffers.len()];
    for (number, step) in program.instructions.iter().enumerate() {
        for u in &step.uses {
            let queue = step.queue_index();
            let life = &mut lives[u.buffer].queues;
            match life.iter_mut().find(|(q, ..)| *q == queue) {
                Some((_, _, last)) => *last = number,
                None => life.push((queue, number, number)),
            }
        }
    }
    let before = |a: &Life, b: &Life| {
        a.queues.iter().all(|&(_, _, last)| {
            b.queues.iter().all(|&(_, first, _)| last != first && clocks.before(&program.instructions, last, first))
        })
    };
    let mut ends = vec![base; devices];
    ends.push(0);
    for (device, end) in ends.iter_mut().enumerate() {
        let mine = |b: &usize| program.buffers[*b].device == device && program.buffers[*b].region.is_none();
        let mut own: Vec<usize> = (0..program.buffers.len()).filter(mine).collect();
        own.retain(|&b| program.buffers[b].elements > 0 && !lives[b].queues.is_empty());
        own.sort_by_key(|&b| (std::cmp::Reverse(program.buffers[b].bytes()), b));
        let mut placed: Vec<usize> = Vec::with_capacity(own.len());
        for &buffer in &own {
            let bytes = program.buffers[buffer].bytes().next_multiple_of(ALIGN);
            let mut taken: Vec<(usize, usize)> = placed
                .iter()
                .filter(|&&p| !before(&lives[p], &lives[buffer]) && !before(&lives[buffer], &lives[p]))
                .map(|&p| {
                    let start = program.buffers[p].offset;
                    (start, start + program.buffers[p].bytes().next_multiple_of(ALIGN))
                })
                .collect();
            taken.sort_unstable();
            let mut offset = if device == devices { 0 } else { base };
            for (start, stop) in taken {
                if start >= offset + bytes {
                    break;
                }
                offset = offset.max(stop);
            }
            program.buffers[buffer].offset = offset;
            *end = (*end).max(offset + bytes);
            placed.push(buffer);
        }
    }
    let host = ends.pop().expect("the last end is the host's");
    (ends, host)
}
