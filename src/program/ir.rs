//! The intermediate representation: a program is one globally ordered list of [`Instruction`]s on the queues of all
//! devices, each with the parts of buffers that it uses and the events that it waits for.

use crate::collectives::Collective;
use crate::device::{Epilogue, Queue};
use crate::layers::{Access, Pass, Role};
use crate::optim::UpdateRole;
use crate::placement::{Input, MemoryUse, Region, Variant};
use crate::tensor::{Axis, Element, LocalSlice, Shape, Strided};
use std::ops::Range;
use std::sync::Arc;

/// A buffer, as an index into [`Program::buffers`].
pub type BufferId = usize;

/// A part of a buffer.
pub type Slice = (BufferId, Strided);

/// A contiguous range of one device's arena.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    /// The device; the index after the last device is the host.
    pub device: usize,
    /// The number of elements.
    pub elements: usize,
    /// The type of its elements in memory.
    pub element: Element,
    /// Its purpose.
    pub purpose: MemoryUse,
    /// Its region if it outlives the step, otherwise `None`.
    pub region: Option<Region>,
    /// The name for plans and messages.
    pub name: String,
    /// Its first byte in the device's arena.
    pub offset: usize,
}

impl Buffer {
    /// Returns its length in bytes.
    pub fn bytes(&self) -> usize {
        self.elements * self.element.bytes()
    }

    /// Returns the bytes of the arena that a part of the buffer occupies.
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
    /// How the instruction accesses it.
    pub access: Access,
}

/// An operand of an instruction on one device.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalOperand {
    /// The buffer.
    pub buffer: BufferId,
    /// Its first element in the buffer.
    pub offset: usize,
    /// The shape of the whole logical tensor.
    pub shape: Shape,
    /// The device's part of it.
    pub window: LocalSlice,
    /// How the instruction accesses it.
    pub access: Access,
}

/// A device that takes part in a collective.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The device.
    pub device: usize,
    /// Its part of the tensor before.
    pub from: LocalSlice,
    /// Its part after.
    pub to: LocalSlice,
}

/// The tensor of a device in a collective.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPart {
    /// The device, with the number that it has among those of all processes.
    pub device: usize,
    /// Its part before.
    pub from: Slice,
    /// Its part after; the same elements if the collective works in place.
    pub to: Slice,
    /// Scratch memory of a GPU, if it needs any.
    pub scratch: Option<Slice>,
}

/// The work of an instruction.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Loads the device's window of the batch.
    Load {
        /// Images or targets.
        input: Input,
        /// The destination.
        to: LocalOperand,
        /// Memory for images between two steps, if they are prepared in several.
        scratch: Option<LocalOperand>,
    },
    /// A phase of a layer.
    Phase {
        /// The node.
        node: usize,
        /// Forward or backward.
        pass: Pass,
        /// The name of the phase.
        phase: &'static str,
        /// The operands.
        operands: Vec<(Role, LocalOperand)>,
        /// The scratch memory, if it needs any.
        scratch: Option<LocalOperand>,
        /// The epilogue that it applies to its output, and the node that this replaces.
        epilogue: Option<(Epilogue, usize)>,
    },
    /// Sets every target to the sum of the sources: a hop of a collective, a slice, or a sum of gradients.
    Sum {
        /// The collective that it belongs to, with its axis; `None` for a sum of gradients.
        collective: Option<(Collective, Axis)>,
        /// The terms.
        sources: Vec<Slice>,
        /// The destinations of the sum.
        targets: Vec<Slice>,
        /// The output of a relu, if the sum is 0 where that is not positive; everything is then one run of elements.
        mask: Option<Slice>,
        /// Bytes that cross between devices.
        wire: usize,
    },
    /// The part in a collective between processes of a device, or of all devices of a process that share host memory for it. The parts of
    /// all peers follow each other.
    Collective {
        /// The collective.
        collective: Collective,
        /// The axis of the mesh.
        axis: Axis,
        /// The devices that take part, in the order of the axis, and their parts of the tensor before and after.
        peers: Arc<[Peer]>,
        /// The tensors of the devices.
        parts: Vec<PeerPart>,
        /// Bytes that cross between devices for these.
        wire: usize,
    },
    /// A stage of the optimiser's chain.
    Update {
        /// The index of the stage.
        stage: usize,
        /// The bucket of gradients that is checked; `None` if the stage works on all gradients.
        bucket: Option<usize>,
        /// The operands.
        operands: Vec<(UpdateRole, LocalOperand)>,
    },
}

/// One entry of the globally ordered list.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// The device that executes it.
    pub device: usize,
    /// The queue of the device.
    pub queue: Queue,
    /// Its index on that queue.
    pub index: usize,
    /// Its work.
    pub work: Work,
    /// The parts of buffers that it reads and writes.
    pub uses: Vec<Use>,
    /// The events that it waits for: (queue, number of that queue's instructions that must have finished).
    pub waits: Vec<(usize, usize)>,
    /// The name for plans and messages.
    pub name: String,
}

impl Instruction {
    /// Returns the index of its queue among the queues of all devices.
    pub fn queue_index(&self) -> usize {
        self.queue.index(self.device)
    }
}

/// The instructions of one step of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// The mode and batch size that it was compiled for.
    pub variant: Variant,
    /// The buffers of all devices.
    pub buffers: Vec<Buffer>,
    /// The instructions, in the order in which they are issued.
    pub instructions: Vec<Instruction>,
}

impl Program {
    /// Returns the instructions of a process: those of its devices `own`, of `devices` in all, in the same order. Its devices count from 0, and
    /// its host memory, number `host`, follows them. Buffers keep their numbers, peers of collectives the numbers of their devices.
    pub fn of_process(&self, own: Range<usize>, host: usize) -> Program {
        let mut instructions: Vec<Instruction> =
            self.instructions.iter().filter(|step| own.contains(&step.device)).cloned().collect();
        for step in &mut instructions {
            step.device -= own.start;
            step.waits.iter_mut().for_each(|(queue, _)| *queue -= own.start * Queue::COUNT);
        }
        let mut buffers = self.buffers.clone();
        for buffer in &mut buffers {
            buffer.device = match buffer.device {
                device if device == host => own.len(),
                device if own.contains(&device) => device - own.start,
                _ => usize::MAX,
            };
        }
        Program { variant: self.variant, buffers, instructions }
    }

    /// Returns how many bytes a use reads or writes.
    pub fn bytes(&self, u: &Use) -> usize {
        u.part.elements() * self.buffers[u.buffer].element.bytes()
    }
}
