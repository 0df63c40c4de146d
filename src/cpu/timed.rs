//! A wrapper that times every step of a program and otherwise behaves as the program.

use super::queues::QueueProgram;
use crate::device::{Clock, Pool};
use crate::error::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A program whose steps are timed individually, without the time spent waiting for events.
pub struct Timed {
    script: Arc<dyn QueueProgram>,
    nanoseconds: Vec<Vec<AtomicU64>>,
}

impl Timed {
    /// Wraps a program for `queues` queues.
    pub fn new(script: Arc<dyn QueueProgram>, queues: usize) -> Self {
        let clocks = |queue| (0..script.len(queue)).map(|_| AtomicU64::new(0)).collect();
        let nanoseconds = (0..queues).map(clocks).collect();
        Timed { script, nanoseconds }
    }

    /// Returns the time in seconds that a step took when it last ran.
    pub fn seconds(&self, queue: usize, step: usize) -> f64 {
        self.nanoseconds[queue][step].load(Ordering::Relaxed) as f64 * 1e-9
    }
}

impl QueueProgram for Timed {
    fn len(&self, queue: usize) -> usize {
        self.script.len(queue)
    }
    fn waits(&self, queue: usize, step: usize) -> &[(usize, usize)] {
        self.script.waits(queue, step)
    }
    fn perform(&self, queue: usize, step: usize, clock: Clock, pool: &Pool) -> Result<()> {
        let start = Instant::now();
        let result = self.script.perform(queue, step, clock, pool);
        self.nanoseconds[queue][step].store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
    fn name(&self, queue: usize, step: usize) -> String {
        self.script.name(queue, step)
    }
}
