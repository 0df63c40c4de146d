//! The three in-order queues of a device: threads of a CPU device, streams of a GPU.

/// A device's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// Layers and updates.
    Compute,
    /// Collectives.
    Communication,
    /// Batches in, values out.
    Copy,
}

impl Queue {
    /// Queues per device.
    pub const COUNT: usize = 3;
    /// All of them.
    pub const ALL: [Queue; 3] = [Queue::Compute, Queue::Communication, Queue::Copy];

    /// Returns the number of this queue of a device among all queues.
    pub fn index(self, device: usize) -> usize {
        device * Self::COUNT + self as usize
    }
}

impl std::fmt::Display for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Queue::Compute => "compute",
            Queue::Communication => "communication",
            Queue::Copy => "copy",
        })
    }
}
