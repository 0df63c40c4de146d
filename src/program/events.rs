//! Events: derives the instructions of other queues that each instruction waits for from what they read and write.

use super::Program;
use super::clocks::VectorClocks;
use super::part_index::PartIndex;

/// Derives the waits: an instruction waits for each earlier one that writes what it uses or uses what it writes, unless
/// other waits imply the order. Returns the resulting clocks.
pub fn derive(program: &mut Program, queues: usize) -> VectorClocks {
    // The uses by buffer, each with its instruction.
    let mut reads: PartIndex<usize> = PartIndex::new(program.buffers.len());
    let mut writes = reads.clone();
    let mut clocks = VectorClocks::new(queues);
    for number in 0..program.instructions.len() {
        let step = &program.instructions[number];
        clocks.issue(step.queue_index());
        let mut after: Vec<usize> = Vec::new();
        for u in &step.uses {
            after.extend(writes.overlapping(u.buffer, u.part).map(|(_, earlier)| earlier));
            if u.access.writes() {
                after.extend(reads.overlapping(u.buffer, u.part).map(|(_, earlier)| earlier));
            }
        }
        after.sort_unstable();
        after.dedup();
        let mut waits: Vec<(usize, usize)> = Vec::new();
        // The latest first: it may imply earlier ones.
        for &earlier in after.iter().rev() {
            let other = &program.instructions[earlier];
            let (queue, count) = (other.queue_index(), other.index + 1);
            if clocks.finished(number, queue) < count {
                waits.push((queue, count));
                clocks.wait(queue, count);
            }
        }
        clocks.record(step.queue_index());
        for u in &step.uses {
            if u.access.writes() {
                // A later use that conflicts with a covered one also conflicts with this use, which follows it.
                reads.remove_covered(u.buffer, u.part);
                writes.remove_covered(u.buffer, u.part);
                writes.add(u.buffer, u.part, number);
            } else {
                let queue = step.queue_index();
                reads.add_latest(u.buffer, u.part, number, |old| program.instructions[old].queue_index() == queue);
            }
        }
        program.instructions[number].waits = waits;
    }
    clocks
}
