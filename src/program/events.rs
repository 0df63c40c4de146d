//! Events: derives the instructions of other queues that each instruction waits for from what they read and write.

use super::{Instruction, Program, Use};

/// For each instruction, the number of instructions of each queue that have certainly finished when it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorClocks {
    queues: usize,
    counts: Vec<u32>,
}

impl VectorClocks {
    /// Returns true if instruction `a` finishes before instruction `b` starts.
    pub fn before(&self, steps: &[Instruction], a: usize, b: usize) -> bool {
        self.finished(b, steps[a].queue_index()) > steps[a].index
    }

    /// Returns the number of instructions of `queue` that have finished when `step` starts.
    pub fn finished(&self, step: usize, queue: usize) -> usize {
        self.counts[step * self.queues + queue] as usize
    }

    /// Computes the clocks from the waits of the instructions, which are in a valid order of issue.
    ///
    /// # Panics
    /// If an instruction waits for one that is issued later.
    pub fn of(steps: &[Instruction], queues: usize) -> VectorClocks {
        let mut clocks = VectorClocks { queues, counts: vec![0; steps.len() * queues] };
        let mut issued: Vec<Vec<usize>> = vec![Vec::new(); queues];
        for (number, step) in steps.iter().enumerate() {
            let own = step.queue_index();
            assert_eq!(step.index, issued[own].len(), "the steps of a queue are numbered in order");
            let previous = step.index.checked_sub(1).map(|index| (own, index + 1));
            for (queue, count) in previous.into_iter().chain(step.waits.iter().copied()) {
                assert!(issued[queue].len() >= count, "step {} waits for an event that is recorded later", step.name);
                clocks.join(number, queue, count, issued[queue][count - 1]);
            }
            issued[own].push(number);
        }
        clocks
    }

    /// Merges the clock of `other`, the `count`-th instruction of `queue`, into that of `step`, and marks `other` as
    /// finished.
    fn join(&mut self, step: usize, queue: usize, count: usize, other: usize) {
        for q in 0..self.queues {
            let known = self.counts[other * self.queues + q];
            let mine = &mut self.counts[step * self.queues + q];
            *mine = (*mine).max(known);
        }
        let mine = &mut self.counts[step * self.queues + queue];
        *mine = (*mine).max(count as u32);
    }
}

/// Derives the waits: an instruction waits for each earlier one that writes what it uses or uses what it writes, unless
/// other waits imply the order. Returns the resulting clocks.
pub fn derive(program: &mut Program, queues: usize) -> VectorClocks {
    let mut seen: Vec<Vec<(usize, Use)>> = vec![Vec::new(); program.buffers.len()];
    let mut issued: Vec<Vec<usize>> = vec![Vec::new(); queues];
    let mut clocks = VectorClocks { queues, counts: vec![0; program.instructions.len() * queues] };
    for number in 0..program.instructions.len() {
        let step = &program.instructions[number];
        let own = step.queue_index();
        if let Some(&previous) = issued[own].last() {
            clocks.join(number, own, step.index, previous);
        }
        let mut after: Vec<usize> = Vec::new();
        for u in &step.uses {
            let clashes = |(_, other): &&(usize, Use)| {
                (u.access.writes() || other.access.writes()) && u.part.overlaps(other.part)
            };
            after.extend(seen[u.buffer].iter().filter(clashes).map(|(earlier, _)| *earlier));
        }
        after.sort_unstable();
        after.dedup();
        let mut waits: Vec<(usize, usize)> = Vec::new();
        // The latest first: it may imply earlier ones.
        for &earlier in after.iter().rev() {
            let other = &program.instructions[earlier];
            let queue = other.queue_index();
            if clocks.finished(number, queue) <= other.index {
                waits.push((queue, other.index + 1));
                clocks.join(number, queue, other.index + 1, earlier);
            }
        }
        for u in step.uses.clone() {
            if u.access.writes() {
                // A later use that conflicts with a covered one also conflicts with this use, which follows it.
                seen[u.buffer].retain(|(_, other)| !u.part.covers(other.part));
            }
            seen[u.buffer].push((number, u));
        }
        issued[own].push(number);
        program.instructions[number].waits = waits;
    }
    clocks
}
