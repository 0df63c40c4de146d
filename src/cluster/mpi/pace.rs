//! How often the thread looks at what is under way: at once where something moves, rarely where processes wait for one that computes.

use std::time::{Duration, Instant};

/// How long the thread looks again at once after something has moved. A library passes on the pieces of a large message only while it is looked
/// at: with 50 us, updates of 7.4 MB of gradients on 2 processes were 7 % slower.
const SPIN: Duration = Duration::from_millis(2);
/// The first and the longest time between two looks after that.
const RESTS: [Duration; 2] = [Duration::from_micros(20), Duration::from_micros(200)];
/// The first and the longest time between two looks when nothing is under way. A library may have messages left to pass on that for
/// it have ended.
const IDLE_RESTS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// When the thread looks again.
#[derive(Debug)]
pub(super) struct Pace {
    moved: Instant,
    rest: Duration,
    idle_rest: Duration,
}

impl Pace {
    /// Creates a pace that begins fast.
    pub fn new() -> Self {
        Pace { moved: Instant::now(), rest: RESTS[0], idle_rest: IDLE_RESTS[0] }
    }

    /// Begins fast again: a job has begun, or a request has ended.
    pub fn moved(&mut self) {
        *self = Pace::new();
    }

    /// Returns how long to rest before the next look. Where it is not at all, other threads of the core have had their turn.
    pub fn rest(&mut self) -> Duration {
        if self.moved.elapsed() < SPIN {
            std::thread::yield_now();
            return Duration::ZERO;
        }
        let rest = self.rest;
        self.rest = (rest * 2).min(RESTS[1]);
        rest
    }

    /// Returns how long to wait for a job when nothing is under way.
    pub fn idle_rest(&mut self) -> Duration {
        let rest = self.idle_rest;
        self.idle_rest = (rest * 2).min(IDLE_RESTS[1]);
        rest
    }
}
