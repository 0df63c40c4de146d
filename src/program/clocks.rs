//! Vector clocks: which instructions have finished when another one starts.
//!
//! A clock has a count for every queue of every device, and most instructions change a few of them. A clock is therefore
//! a tree, and shares the nodes that did not change with the clocks that it was derived from. Clocks of instructions that
//! learn of few others take memory that does not depend on the number of queues.

use super::Instruction;
use crate::device::Queue;

/// The number of children of a node, and of counts in a leaf: a leaf is one cache line.
const WIDTH: usize = 16;

/// A clock, as the index of the root of its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock(u32);

/// For each instruction, the number of instructions of each queue that have certainly finished when it starts.
#[derive(Debug, Clone)]
pub struct VectorClocks {
    queues: usize,
    /// The levels of nodes above the leaves.
    levels: u32,
    /// Leaves hold counts, other nodes the indices of their children. Node 0 is a tree of zeros at every level.
    nodes: Vec<[u32; WIDTH]>,
    /// The clock at the start of each instruction.
    starts: Vec<Clock>,
    /// The clock at its end, when it has finished as well.
    ends: Vec<Clock>,
    /// The instructions of each queue.
    issued: Vec<Vec<u32>>,
}

impl VectorClocks {
    /// Creates the clocks of no instructions.
    pub(super) fn new(queues: usize) -> Self {
        let levels = queues.max(1).ilog2() / WIDTH.ilog2();
        let (starts, ends, issued) = (Vec::new(), Vec::new(), vec![Vec::new(); queues]);
        VectorClocks { queues, levels, nodes: vec![[0; WIDTH]], starts, ends, issued }
    }

    /// Computes the clocks from the waits of the instructions, which are in a valid order of issue.
    ///
    /// # Panics
    /// If an instruction waits for one that is issued later.
    pub fn of(steps: &[Instruction], queues: usize) -> VectorClocks {
        let mut clocks = VectorClocks::new(queues);
        for step in steps {
            let own = step.queue_index();
            assert_eq!(step.index, clocks.issued[own].len(), "the steps of a queue are numbered in order");
            clocks.issue(own);
            for &(queue, count) in &step.waits {
                let recorded = clocks.issued[queue].len();
                assert!(recorded >= count, "step {} waits for an event that is recorded later", step.name);
                clocks.wait(queue, count);
            }
            clocks.record(own);
        }
        clocks
    }

    /// Starts the next instruction of a queue, after the one before it.
    pub(super) fn issue(&mut self, queue: usize) {
        let before = self.issued[queue].last();
        self.starts.push(before.map_or(Clock(0), |&number| self.ends[number as usize]));
    }

    /// Makes the last instruction wait for the first `count` instructions of a queue.
    pub(super) fn wait(&mut self, queue: usize, count: usize) {
        let other = self.ends[self.issued[queue][count - 1] as usize];
        let last = self.starts.len() - 1;
        self.starts[last] = Clock(self.merge(self.starts[last].0, other.0, self.levels));
    }

    /// Records the end of the last instruction, which is on this queue and has all its waits.
    pub(super) fn record(&mut self, queue: usize) {
        self.issued[queue].push(self.ends.len() as u32);
        let (start, count) = (self.starts[self.ends.len()], self.issued[queue].len() as u32);
        let end = self.raise(start.0, self.position(queue), count, self.levels);
        self.ends.push(Clock(end));
    }

    /// Returns true if instruction `a` finishes before instruction `b` starts.
    pub fn before(&self, steps: &[Instruction], a: usize, b: usize) -> bool {
        self.finished(b, steps[a].queue_index()) > steps[a].index
    }

    /// Returns the number of instructions of `queue` that have finished when `step` starts.
    pub fn finished(&self, step: usize, queue: usize) -> usize {
        let at = self.position(queue);
        let path = (1..=self.levels).rev();
        let leaf = path.fold(self.starts[step].0, |node, level| self.nodes[node as usize][digit(at, level)]);
        self.nodes[leaf as usize][digit(at, 0)] as usize
    }

    /// Returns a clock in which the first `count` instructions of each queue have finished.
    pub(super) fn clock(&mut self, finished: impl IntoIterator<Item = (usize, usize)>) -> Clock {
        let at = |(queue, count)| (self.position(queue), count as u32);
        let mut counts: Vec<(usize, u32)> = finished.into_iter().map(at).collect();
        counts.sort_unstable();
        Clock(self.build(&counts, self.levels))
    }

    /// Builds a tree of sorted counts.
    fn build(&mut self, counts: &[(usize, u32)], level: u32) -> u32 {
        let mut node = [0; WIDTH];
        for part in counts.chunk_by(|a, b| digit(a.0, level) == digit(b.0, level)) {
            let (at, count) = part[part.len() - 1];
            node[digit(at, level)] = if level == 0 { count } else { self.build(part, level - 1) };
        }
        self.add(node)
    }

    /// Returns true if everything that has finished in `clock` has finished when `step` starts.
    pub(super) fn includes(&self, step: usize, clock: Clock) -> bool {
        self.node_includes(self.starts[step].0, clock.0, self.levels)
    }

    /// Returns the place of a queue in a clock. Queues of one kind are neighbours: they change together.
    fn position(&self, queue: usize) -> usize {
        queue % Queue::COUNT * self.queues.div_ceil(Queue::COUNT) + queue / Queue::COUNT
    }

    /// Returns a tree with a larger count at a place.
    fn raise(&mut self, node: u32, at: usize, count: u32, level: u32) -> u32 {
        let mut raised = self.nodes[node as usize];
        let entry = &mut raised[digit(at, level)];
        *entry = if level == 0 { count } else { self.raise(*entry, at, count, level - 1) };
        self.add(raised)
    }

    /// Returns a tree with the larger count of both at every place.
    fn merge(&mut self, a: u32, b: u32, level: u32) -> u32 {
        if a == b || b == 0 {
            return a;
        }
        if a == 0 {
            return b;
        }
        let (left, right) = (self.nodes[a as usize], self.nodes[b as usize]);
        let mut merged = left;
        for (entry, other) in merged.iter_mut().zip(right) {
            *entry = if level == 0 { other.max(*entry) } else { self.merge(*entry, other, level - 1) };
        }
        match merged {
            _ if merged == left => a,
            _ if merged == right => b,
            _ => self.add(merged),
        }
    }

    fn node_includes(&self, node: u32, other: u32, level: u32) -> bool {
        if node == other || other == 0 {
            return true;
        }
        let mut pairs = self.nodes[node as usize].iter().zip(&self.nodes[other as usize]);
        pairs.all(|(&mine, &its)| if level == 0 { its <= mine } else { self.node_includes(mine, its, level - 1) })
    }

    fn add(&mut self, node: [u32; WIDTH]) -> u32 {
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).expect("a program has fewer nodes than 2^32")
    }
}

/// Returns which child of a node leads to a place.
fn digit(at: usize, level: u32) -> usize {
    at >> (level * WIDTH.ilog2()) & (WIDTH - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_trees_have_the_counts_of_plain_clocks() {
        for queues in [3, 15, 18, 300, 4200] {
            let mut clocks = VectorClocks::new(queues);
            let mut plain: Vec<Vec<usize>> = Vec::new();
            let mut issued: Vec<Vec<usize>> = vec![Vec::new(); queues];
            let mut state = 1_u64;
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % below
            };
            for number in 0..300 {
                let own = random(queues.min(40)) * (queues / queues.min(40));
                clocks.issue(own);
                let mut counts = vec![0; queues];
                let waits = (0..3).map(|_| random(queues)).filter(|&queue| !issued[queue].is_empty());
                let waits: Vec<(usize, usize)> = waits.map(|queue| (queue, issued[queue].len())).collect();
                let previous = (own, issued[own].len());
                for &(queue, count) in waits.iter().chain([&previous].into_iter().filter(|(_, count)| *count > 0)) {
                    let other: &Vec<usize> = &plain[issued[queue][count - 1]];
                    counts = counts.iter().zip(other).map(|(a, b)| *a.max(b)).collect();
                    counts[queue] = counts[queue].max(count);
                }
                waits.iter().for_each(|&(queue, count)| clocks.wait(queue, count));
                clocks.record(own);
                assert!((0..queues).all(|queue| clocks.finished(number, queue) == counts[queue]), "{queues}");
                let clock = clocks.clock(counts.iter().copied().enumerate());
                for (step, other) in plain.iter().enumerate() {
                    let expected = other.iter().zip(&counts).all(|(theirs, mine)| mine <= theirs);
                    assert_eq!(clocks.includes(step, clock), expected);
                }
                assert!(clocks.includes(number, clock));
                plain.push(counts);
                issued[own].push(number);
            }
        }
    }
}
