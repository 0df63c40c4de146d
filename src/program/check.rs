//! The race detector: proves from bytes and waits alone that a program is free of races and reads no byte that was
//! not written before.
//!
//! It shares no code with the derivation of waits or the assignment of bytes: it replays the waits and compares every
//! pair of uses whose bytes overlap.

use super::Program;
use super::events::VectorClocks;
use crate::tensor::Strided;
use std::collections::HashMap;

/// The reason why a program is unsafe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Race(String);

impl std::fmt::Display for Race {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a program that runs on `queues` queues.
///
/// # Errors
/// The first pair of instructions that may use the same bytes at the same time, or the first read of unwritten bytes.
pub fn check(program: &Program, queues: usize) -> Result<(), Race> {
    let clocks = VectorClocks::of(&program.instructions, queues);
    let devices = program.buffers.iter().map(|b| b.device + 1).max().unwrap_or(0);
    for device in 0..devices {
        // (instruction, part in bytes of the arena, read, write, buffer)
        let mut uses: Vec<(usize, Strided, bool, bool, usize)> = Vec::new();
        for (number, step) in program.instructions.iter().enumerate() {
            for u in &step.uses {
                let buffer = &program.buffers[u.buffer];
                if buffer.device == device {
                    if u.part.end() > buffer.elements {
                        return Err(Race(format!("step \"{}\" exceeds buffer \"{}\"", step.name, buffer.name)));
                    }
                    uses.push((number, buffer.bytes_of(u.part), u.access.reads(), u.access.writes(), u.buffer));
                }
            }
        }
        uses.sort_unstable_by_key(|u| u.1.offset);
        let mut open: Vec<usize> = Vec::new();
        // For two buffers that share bytes, the one that is used first.
        let mut first: HashMap<(usize, usize), usize> = HashMap::new();
        for (i, &(step, part, _, write, buffer)) in uses.iter().enumerate() {
            open.retain(|&j| uses[j].1.end() > part.offset);
            for &j in &open {
                let (other, other_part, _, other_write, other_buffer) = uses[j];
                if !part.overlaps(other_part) {
                    continue;
                }
                let earlier = clocks.before(&program.instructions, other, step);
                let ordered = other == step || earlier || clocks.before(&program.instructions, step, other);
                if buffer != other_buffer {
                    let before = if earlier { other_buffer } else { buffer };
                    let pair = (buffer.min(other_buffer), buffer.max(other_buffer));
                    if !ordered || other == step || *first.entry(pair).or_insert(before) != before {
                        return Err(Race(format!(
                            "device {device}: buffers \"{}\" and \"{}\" share bytes while both are alive (steps \"{}\" \
                             and \"{}\")",
                            program.buffers[buffer].name,
                            program.buffers[other_buffer].name,
                            program.instructions[step].name,
                            program.instructions[other].name
                        )));
                    }
                }
                if (write || other_write) && !ordered {
                    return Err(Race(format!(
                        "device {device}: steps \"{}\" and \"{}\" may use the same bytes at the same time (buffers \
                         \"{}\", \"{}\")",
                        program.instructions[step].name,
                        program.instructions[other].name,
                        program.buffers[buffer].name,
                        program.buffers[other_buffer].name
                    )));
                }
            }
            open.push(i);
        }
    }
    initialised(program, &clocks)
}

/// Checks that every part of a buffer that is read was written before through the same buffer. Regions are exempt
/// because they outlive the step. The check of bytes ensures that no other buffer overwrites it in between.
fn initialised(program: &Program, clocks: &VectorClocks) -> Result<(), Race> {
    let mut writes: Vec<Vec<(usize, Strided)>> = vec![Vec::new(); program.buffers.len()];
    let mut earlier = Vec::new();
    for (number, step) in program.instructions.iter().enumerate() {
        for u in step.uses.iter().filter(|u| u.access.reads() && program.buffers[u.buffer].region.is_none()) {
            earlier.clear();
            let done =
                writes[u.buffer].iter().filter(|(writer, _)| clocks.before(&program.instructions, *writer, number));
            earlier.extend(done.map(|(_, part)| *part));
            if !earlier.iter().any(|part| part.covers(u.part)) && !covered(u.part, &earlier) {
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
