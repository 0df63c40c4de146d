//! The race detector: proves from bytes and waits alone that a program is free of races and reads no byte that was
//! not written before.
//!
//! It does not depend on how waits were derived or bytes assigned: it replays the waits and compares the uses of the same
//! bytes.

use super::clocks::VectorClocks;
use super::part_index::PartIndex;
use super::{BufferId, Program, Work};
use crate::device::Queue;
use crate::placement::Processes;
use crate::tensor::Strided;
use std::sync::Arc;

/// The reason why a program is unsafe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Race(String);

impl std::fmt::Display for Race {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A use of bytes.
#[derive(Debug, Clone, Copy)]
struct ByteUse {
    step: usize,
    buffer: BufferId,
}

/// Checks a program that runs on `queues` queues.
///
/// # Errors
/// The first pair of instructions that may use the same bytes at the same time, or the first read of unwritten bytes.
pub fn check(program: &Program, queues: usize) -> Result<(), Race> {
    let clocks = VectorClocks::of(&program.instructions, queues);
    between_processes(program)?;
    bytes(program, &clocks)?;
    initialised(program, &clocks)
}

/// Checks that processes cannot wait for each other for ever: the parts of all peers in a collective follow each other, so that in the order of the
/// list, which is that of every queue, none is reached before all before it are done.
fn between_processes(program: &Program) -> Result<(), Race> {
    let mut rest = &program.instructions[..];
    while let Some((step, after)) = rest.split_first() {
        let Work::Collective { peers, .. } = &step.work else {
            rest = after;
            continue;
        };
        // One part is for a device, or for several of a process.
        let (mut missing, mut next) = (&peers[..], rest);
        while let Some(peer) = missing.first() {
            let devices = next.first().and_then(|part| match &part.work {
                Work::Collective { peers: own, parts, .. }
                    if Arc::ptr_eq(own, peers) && part.queue == Queue::Communication && part.device == peer.device =>
                {
                    Some(parts.iter().map(|part| part.device))
                }
                _ => None,
            });
            let Some(devices) = devices.filter(|devices| {
                let expected = missing.iter().map(|peer| peer.device);
                devices.len() > 0 && devices.len() <= missing.len() && expected.take(devices.len()).eq(devices.clone())
            }) else {
                let (name, device) = (&step.name, peer.device);
                return Err(Race(format!("step \"{name}\": the part of device {device} is not next to it")));
            };
            (missing, next) = (&missing[devices.len()..], &next[1..]);
        }
        rest = if peers.is_empty() { after } else { next };
    }
    Ok(())
}

/// Checks that no instruction of a process uses bytes of another one, or waits for it other than in a collective.
///
/// # Errors
/// The first instruction that does.
pub fn check_processes(program: &Program, processes: &Processes, devices: usize) -> Result<(), Race> {
    for step in &program.instructions {
        let own = processes.of(step.device);
        // Every process has host memory of its own.
        let process = |device: usize| if device < devices { processes.of(device) } else { device - devices };
        let is_far = |device: usize| process(device) != own;
        let far = step.waits.iter().any(|(queue, _)| is_far(queue / Queue::COUNT))
            || step.uses.iter().any(|u| is_far(program.buffers[u.buffer].device));
        if far {
            return Err(Race(format!("step \"{}\" of process {own} needs another one", step.name)));
        }
    }
    Ok(())
}

/// Checks that conflicting uses of the same bytes are ordered, and that no buffer is used after another one took any of
/// its bytes.
///
/// Uses are compared with those before them, without what a write has covered: whatever follows that write follows
/// what it covers. A read is only compared with writes: if it reads another buffer than an earlier read of the same
/// bytes, a write has come between them, or one of both has not been written.
fn bytes(program: &Program, clocks: &VectorClocks) -> Result<(), Race> {
    let (steps, buffers) = (&program.instructions, &program.buffers);
    let devices = buffers.iter().map(|b| b.device + 1).max().unwrap_or(0);
    let mut reads: PartIndex<ByteUse> = PartIndex::new(devices);
    let mut writes = reads.clone();
    // For each buffer that has lost bytes, the use that took them.
    let mut lost: Vec<Option<ByteUse>> = vec![None; buffers.len()];
    let shared = |device: usize, a: ByteUse, b: ByteUse| {
        Race(format!(
            "device {device}: buffers \"{}\" and \"{}\" share bytes while both are alive (steps \"{}\" and \"{}\")",
            buffers[a.buffer].name, buffers[b.buffer].name, steps[a.step].name, steps[b.step].name
        ))
    };
    for (number, step) in steps.iter().enumerate() {
        for u in step.uses.iter().filter(|u| u.part.elements() > 0) {
            let buffer = &buffers[u.buffer];
            let (device, part) = (buffer.device, buffer.bytes_of(u.part));
            let mine = ByteUse { step: number, buffer: u.buffer };
            if u.part.end() > buffer.elements {
                return Err(Race(format!("step \"{}\" exceeds buffer \"{}\"", step.name, buffer.name)));
            }
            if let Some(other) = lost[u.buffer] {
                return Err(shared(device, mine, other));
            }
            let read = reads.overlapping(device, part).filter(|_| u.access.writes());
            for (_, other) in writes.overlapping(device, part).chain(read) {
                let ordered = other.step == number || clocks.before(steps, other.step, number);
                if other.buffer != u.buffer {
                    let outlives = buffer.region.is_some() || buffers[other.buffer].region.is_some();
                    if !ordered || other.step == number || outlives {
                        return Err(shared(device, mine, other));
                    }
                    lost[other.buffer] = Some(mine);
                }
                if !ordered {
                    return Err(Race(format!(
                        "device {device}: steps \"{}\" and \"{}\" may use the same bytes at the same time (buffer \"{}\")",
                        step.name, steps[other.step].name, buffer.name
                    )));
                }
            }
            if u.access.writes() {
                reads.remove_covered(device, part);
                writes.remove_covered(device, part);
                writes.add(device, part, mine);
            } else {
                let follows = |old: ByteUse| old.buffer == u.buffer && clocks.before(steps, old.step, number);
                reads.add_latest(device, part, mine, follows);
            }
        }
    }
    Ok(())
}

/// Checks that every part of a buffer that is read was written before through the same buffer. Regions are exempt
/// because they outlive the step. The check of bytes ensures that no other buffer overwrites it in between.
fn initialised(program: &Program, clocks: &VectorClocks) -> Result<(), Race> {
    let mut writes: Vec<Vec<(usize, Strided)>> = vec![Vec::new(); program.buffers.len()];
    for (number, step) in program.instructions.iter().enumerate() {
        for u in step.uses.iter().filter(|u| u.access.reads() && program.buffers[u.buffer].region.is_none()) {
            let done = |(writer, _): &&(usize, Strided)| clocks.before(&program.instructions, *writer, number);
            let written = &writes[u.buffer];
            let earlier = || written.iter().filter(done).map(|(_, part)| *part).collect::<Vec<_>>();
            let mut whole = written.iter().filter(|(_, part)| part.covers(u.part));
            if !whole.any(|write| done(&write)) && !covered(u.part, &earlier()) {
                return Err(Race(format!(
                    "step \"{}\" reads elements of buffer \"{}\" that were never written",
                    step.name, program.buffers[u.buffer].name
                )));
            }
        }
        for u in step.uses.iter().filter(|u| u.access.writes()) {
            writes[u.buffer].push((number, u.part));
        }
    }
    Ok(())
}

/// The rows and columns of a rectangle on a grid, each as (first, end).
type Rectangle = [(usize, usize); 2];

/// Returns true when every element of `part` is in one of the pieces.
///
/// Memory is divided into rows as long as the stride that the pieces share; on that grid each piece is a few
/// rectangles.
fn covered(part: Strided, pieces: &[Strided]) -> bool {
    let shared = [part].iter().chain(pieces).find(|piece| piece.rows > 1).map_or(part.end(), |piece| piece.stride);
    let (mut required, mut given) = (Vec::new(), Vec::new());
    rectangles(part, shared, &mut required);
    pieces.iter().for_each(|&piece| rectangles(piece, shared, &mut given));
    let mut edges: Vec<usize> = required.iter().chain(&given).flat_map(|[_, cols]| [cols.0, cols.1]).collect();
    edges.sort_unstable();
    edges.dedup();
    // Between two adjacent edges, only the rows matter.
    edges.windows(2).all(|strip| {
        let rows = |all: &[Rectangle]| {
            let across = all.iter().filter(|[_, cols]| cols.0 <= strip[0] && strip[1] <= cols.1);
            let mut rows: Vec<(usize, usize)> = across.map(|[rows, _]| *rows).collect();
            rows.sort_unstable();
            rows
        };
        let given = rows(&given);
        rows(&required).iter().all(|&(first, end)| {
            let reached = given.iter().fold(first, |at, row| if row.0 <= at { at.max(row.1) } else { at });
            reached >= end
        })
    })
}

/// Adds the rectangles that a piece covers on a grid of rows of `stride` elements.
fn rectangles(piece: Strided, stride: usize, all: &mut Vec<Rectangle>) {
    if piece.elements() == 0 {
        return;
    }
    if piece.rows > 1 && piece.stride != stride {
        let run = |row| Strided::contiguous(piece.offset + row * piece.stride, piece.len);
        (0..piece.rows).for_each(|row| rectangles(run(row), stride, all));
        return;
    }
    let (row, col) = (piece.offset / stride, piece.offset % stride);
    if piece.rows > 1 {
        let end = col + piece.len;
        all.push([(row, row + piece.rows), (col, end.min(stride))]);
        if end > stride {
            all.push([(row + 1, row + 1 + piece.rows), (0, end - stride)]);
        }
        return;
    }
    let (last, end) = (piece.end() / stride, piece.end() % stride);
    if row == last {
        all.push([(row, row + 1), (col, end)]);
        return;
    }
    all.push([(row, row + 1), (col, stride)]);
    all.push([(row + 1, last), (0, stride)]);
    all.push([(last, last + 1), (0, end)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_agrees_with_sets_of_elements() {
        let set = |s: Strided| (0..s.rows).flat_map(move |r| (0..s.len).map(move |i| s.offset + r * s.stride + i));
        let mut pieces = Vec::new();
        for offset in [0, 1, 3, 5, 8] {
            for (rows, len, stride) in [(1, 4, 4), (1, 11, 11), (3, 2, 5), (2, 3, 5), (3, 5, 6), (2, 1, 3)] {
                pieces.push(Strided { offset, rows, len, stride });
            }
        }
        let mut cases = [0, 0];
        for &part in &pieces {
            for &a in &pieces {
                for &b in &pieces {
                    let exact = set(part).all(|e| set(a).chain(set(b)).any(|other| other == e));
                    assert_eq!(covered(part, &[a, b]), exact, "{part:?} {a:?} {b:?}");
                    cases[usize::from(exact)] += 1;
                }
            }
        }
        assert!(cases[0] > 1000 && cases[1] > 1000, "{cases:?}");
    }
}
