//! What each queue does, in order, in which bytes.
//!
//! [`lower::lower`] turns the operations of a step into one globally ordered list of [`Step`]s on the queues of all
//! devices; [`events`] derives from what each step reads and writes which steps of other queues it waits for;
//! [`arena`] gives every buffer its bytes; [`check`] proves, from the bytes alone, that no two steps race;
//! [`Session`] runs the list. [`Plan`] is all of it as data: what `peristyle plan` prints is what `train` runs.

pub mod arena;
pub mod check;
mod cpu;
pub mod estimate;
pub mod events;
mod gpu;
pub mod lower;
mod plan;
pub mod print;
mod session;
mod staged;

pub use plan::{Inbox, Laid, Options, Plan, Target, Usage, lay_out};
pub use session::{Execution, Graphs, Metrics, Session, Which};
pub use staged::Peers;

use crate::collectives::Collective;
use crate::device::{Epilogue, Queue};
use crate::layers::{Pass, Role};
use crate::optim::UpdateRole;
use crate::placement::{Input, Purpose, Region, Variant};
use crate::tensor::{Axis, Element, Shape, Strided, Window};

/// A buffer, as an index into [`Program::buffers`].
pub type BufferId = usize;

/// A stretch of one device's arena.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    /// The device; the host is the one after the last.
    pub device: usize,
    /// Its length.
    pub elements: usize,
    /// How an element lies in memory.
    pub element: Element,
    /// What it is for.
    pub purpose: Purpose,
    /// Set when it outlives the step.
    pub region: Option<Region>,
    /// Name for plans and messages.
    pub name: String,
    /// First byte in the device's arena.
    pub offset: usize,
}

impl Buffer {
    /// Returns its length in bytes.
    pub fn bytes(&self) -> usize {
        self.elements * self.element.bytes()
    }

    /// Returns the bytes of the arena that a part of it takes.
    pub fn place(&self, part: Strided) -> Strided {
        part.scaled(self.element.bytes()).shifted(self.offset)
    }
}

/// A step's use of a part of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The buffer.
    pub buffer: BufferId,
    /// The part, in elements of the buffer.
    pub part: Strided,
    /// Whether it is read.
    pub read: bool,
    /// Whether it is written.
    pub write: bool,
}

/// An operand of a step on one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// The buffer.
    pub buffer: BufferId,
    /// First element in the buffer.
    pub offset: usize,
    /// Shape of the whole logical tensor.
    pub shape: Shape,
    /// The device's part of it.
    pub window: Window,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Brings the device's window of the batch.
    Load {
        /// Images or targets.
        input: Input,
        /// Where to.
        to: Local,
        /// Memory of the same size, where images are augmented in several steps.
        scratch: Option<Local>,
    },
    /// A phase of a layer.
    Phase {
        /// The node.
        node: usize,
        /// Forward or backward.
        pass: Pass,
        /// Which of its phases.
        phase: &'static str,
        /// The operands.
        operands: Vec<(Role, Local)>,
        /// The scratch memory, if it asks for any.
        scratch: Option<Local>,
        /// What it does to its output, and the node whose output that is.
        epilogue: Option<(Epilogue, usize)>,
    },
    /// The same values in another element type.
    Cast {
        /// What is read.
        from: Local,
        /// Where they go.
        to: Local,
    },
    /// Every target = the sum of the sources: a step of a collective, a slice, or a sum of gradients.
    Sum {
        /// The collective that it is a part of, with its axis; none for a sum of gradients.
        collective: Option<(Collective, Axis)>,
        /// What is added.
        sources: Vec<(BufferId, Strided)>,
        /// Where the sum goes.
        targets: Vec<(BufferId, Strided)>,
        /// Bytes that cross between devices.
        wire: usize,
    },
    /// A stage of the optimiser's chain.
    Optim {
        /// Which stage.
        stage: usize,
        /// The operands.
        operands: Vec<(UpdateRole, Local)>,
    },
}

/// One entry of the globally ordered list.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The device that does it.
    pub device: usize,
    /// On which of its queues.
    pub queue: Queue,
    /// Its number on that queue.
    pub index: usize,
    /// What it does.
    pub work: Work,
    /// What it reads and writes.
    pub uses: Vec<Use>,
    /// The events that it waits for: (queue, number of that queue's steps that must be finished).
    pub waits: Vec<(usize, usize)>,
    /// Name for plans and messages.
    pub name: String,
}

impl Step {
    /// Returns the number of its queue among all queues.
    pub fn queue_index(&self) -> usize {
        self.queue.index(self.device)
    }
}

/// The list of one step of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// What it is for.
    pub variant: Variant,
    /// The buffers of all devices.
    pub buffers: Vec<Buffer>,
    /// The steps, in the one order in which they are issued.
    pub steps: Vec<Step>,
}

impl Program {
    /// Returns how many bytes a use reads or writes.
    pub fn bytes(&self, u: &Use) -> usize {
        u.part.elements() * self.buffers[u.buffer].element.bytes()
    }
}
