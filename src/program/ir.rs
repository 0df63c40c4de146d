//! The intermediate representation: a program is one globally ordered list of [`Instruction`]s on the queues of all
//! devices, each with the parts of buffers that it uses and the events that it waits for.

use crate::collectives::Collective;
use crate::device::{Epilogue, Queue};
use crate::layers::{Access, Pass, Role};
use crate::optim::UpdateRole;
use crate::placement::{Input, MemoryUse, Region, Variant};
use crate::tensor::{Axis, Element, LocalSlice, Shape, Strided};

/// A buffer, as an index into [`Program::buffers`].
pub type BufferId = usize;

/// A part of a buffer.
pub type Slice = (BufferId, Strided);

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
    pub purpose: MemoryUse,
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
    pub fn bytes_of(&self, part: Strided) -> Strided {
        part.scaled(self.element.bytes()).shifted(self.offset)
    }
}

/// An instruction's use of a part of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The buffer.
    pub buffer: BufferId,
    /// The part, in elements of the buffer.
    pub part: Strided,
    /// What is done to it.
    pub access: Access,
}

/// An operand of an instruction on one device.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalOperand {
    /// The buffer.
    pub buffer: BufferId,
    /// First element in the buffer.
    pub offset: usize,
    /// Shape of the whole logical tensor.
    pub shape: Shape,
    /// The device's part of it.
    pub window: LocalSlice,
    /// What the instruction does to it.
    pub access: Access,
}

/// What an instruction does.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Brings the device's window of the batch.
    Load {
        /// Images or targets.
        input: Input,
        /// Where to.
        to: LocalOperand,
        /// Memory of the same size, where images are augmented in several steps.
        scratch: Option<LocalOperand>,
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
        operands: Vec<(Role, LocalOperand)>,
        /// The scratch memory, if it asks for any.
        scratch: Option<LocalOperand>,
        /// What it does to its output, and the node whose output that is.
        epilogue: Option<(Epilogue, usize)>,
    },
    /// The same values in another element type.
    Cast {
        /// What is read.
        from: LocalOperand,
        /// Where they go.
        to: LocalOperand,
    },
    /// Every target = the sum of the sources: a hop of a collective, a slice, or a sum of gradients.
    Sum {
        /// The collective that it is a part of, with its axis; none for a sum of gradients.
        collective: Option<(Collective, Axis)>,
        /// What is added.
        sources: Vec<Slice>,
        /// Where the sum goes.
        targets: Vec<Slice>,
        /// Bytes that cross between devices.
        wire: usize,
    },
    /// A stage of the optimiser's chain.
    Update {
        /// Which stage.
        stage: usize,
        /// The operands.
        operands: Vec<(UpdateRole, LocalOperand)>,
    },
}

/// One entry of the globally ordered list.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
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
    /// The events that it waits for: (queue, number of that queue's instructions that must be finished).
    pub waits: Vec<(usize, usize)>,
    /// Name for plans and messages.
    pub name: String,
}

impl Instruction {
    /// Returns the number of its queue among all queues.
    pub fn queue_index(&self) -> usize {
        self.queue.index(self.device)
    }
}

/// The instructions of one step of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// What it is for.
    pub variant: Variant,
    /// The buffers of all devices.
    pub buffers: Vec<Buffer>,
    /// The instructions, in the one order in which they are issued.
    pub instructions: Vec<Instruction>,
}

impl Program {
    /// Returns how many bytes a use reads or writes.
    pub fn bytes(&self, u: &Use) -> usize {
        u.part.elements() * self.buffers[u.buffer].element.bytes()
    }
}
