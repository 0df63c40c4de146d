//! The three in-order queues of a device: threads on a CPU device, streams on a GPU.

/// A device's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// Layers and updates.
    Compute,
    /// Collectives.
    Communication,
    /// Copies of batches to the device, and of values from it.
    Copy,
}

impl Queue {
    /// The number of queues per device.
    pub const COUNT: usize = 3;
    /// All queues of a device.
    pub const ALL: [Queue; 3] = [Queue::Compute, Queue::Communication, Queue::Copy];

    /// Returns the index of this queue of a device among the queues of all devices.
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
