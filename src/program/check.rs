//! The race detector of the whole project: proves from bytes and waits alone that a program is free of races and
//! reads nothing that was not written.
//!
//! It shares no code with the derivation of waits or the assignment of bytes: it replays the waits, and compares
//! every pair of uses whose bytes meet.

use super::Program;
use super::events::Clocks;
use crate::tensor::Strided;
use std::collections::HashMap;

/// Checks a program for a number of queues.
///
/// # Errors
/// The first pair of steps that may run at the same time on the same bytes, or the first read of unwritten bytes.
pub fn check(program: &Program, queues: usize) -> Result<(), String> {
    let clocks = Clocks::of(&program.steps, queues);
    let devices = program.buffers.iter().map(|b| b.device + 1).max().unwrap_or(0);
    for device in 0..devices {
        // (step, part in arena elements, read, write, buffer)
        let mut uses: Vec<(usize, Strided, bool, bool, usize)> = Vec::new();
        for (number, step) in program.steps.iter().enumerate() {
            for u in &step.uses {
                let buffer = &program.buffers[u.buffer];
                if buffer.device == device {
                    if u.part.end() > buffer.elements {
                        return Err(format!("step \"{}\" leaves buffer \"{}\"", step.name, buffer.name));
                    }
                    uses.push((number, u.part.shifted(buffer.offset), u.read, u.write, u.buffer));
                }
            }
        }
        uses.sort_unstable_by_key(|u| u.1.offset);
        let mut open: Vec<usize> = Vec::new();
        // Of two buffers that share bytes, which one was used before the other.
        let mut first: HashMap<(usize, usize), usize> = HashMap::new();
        for (i, &(step, part, _, write, buffer)) in uses.iter().enumerate() {
            open.retain(|&j| uses[j].1.end() > part.offset);
            for &j in &open {
                let (other, other_part, _, other_write, other_buffer) = uses[j];
                if !part.overlaps(other_part) {
                    continue;
                }
                let earlier = clocks.before(&program.steps, other, step);
                let ordered = other == step || earlier || clocks.before(&program.steps, step, other);
                if buffer != other_buffer {
                    let before = if earlier { other_buffer } else { buffer };
                    let pair = (buffer.min(other_buffer), buffer.max(other_buffer));
                    if !ordered || other == step || *first.entry(pair).or_insert(before) != before {
                        return Err(format!(
                            "device {device}: buffers \"{}\" and \"{}\" share bytes while both are alive (steps \"{}\" \
                             and \"{}\")",
                            program.buffers[buffer].name,
                            program.buffers[other_buffer].name,
                            program.steps[step].name,
                            program.steps[other].name
                        ));
                    }
                }
                if (write || other_write) && !ordered {
                    return Err(format!(
                        "device {device}: steps \"{}\" and \"{}\" may use the same bytes at the same time (buffers \
                         \"{}\", \"{}\")",
                        program.steps[step].name,
                        program.steps[other].name,
                        program.buffers[buffer].name,
                        program.buffers[other_buffer].name
                    ));
                }
            }
            open.push(i);
        }
    }
    initialised(program, &clocks)
}

/// Every part of a step's own buffer that is read was written before, by steps of the same buffer, and nobody else
/// wrote over it in between.
fn initialised(program: &Program, clocks: &Clocks) -> Result<(), String> {
    let mut writes: Vec<Vec<(usize, Strided)>> = vec![Vec::new(); program.buffers.len()];
    for (number, step) in program.steps.iter().enumerate() {
        for u in step.uses.iter().filter(|u| u.read && program.buffers[u.buffer].region.is_none()) {
            let mut missing: Vec<bool> = vec![true; u.part.elements().min(1 << 16)];
            let place = |e: usize| u.part.offset + e / u.part.len * u.part.stride + e % u.part.len;
            for (writer, part) in writes[u.buffer].iter().filter(|(w, _)| clocks.before(&program.steps, *w, number)) {
                debug_assert!(*writer < number);
                if part.covers(u.part) {
                    missing.clear();
                    break;
                }
                for (e, missing) in missing.iter_mut().enumerate() {
                    let at = place(e);
                    let inside = at >= part.offset && (at - part.offset) % part.stride.max(1) < part.len;
                    *missing &= !(inside && (at - part.offset) / part.stride.max(1) < part.rows);
                }
            }
            if missing.contains(&true) {
                return Err(format!(
                    "step \"{}\" reads what nobody wrote of buffer \"{}\"",
                    step.name, program.buffers[u.buffer].name
                ));
            }
        }
        for u in step.uses.iter().filter(|u| u.write) {
            writes[u.buffer].push((number, u.part));
        }
    }
    Ok(())
}
