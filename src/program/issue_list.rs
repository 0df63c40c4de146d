//! A program as it is issued to the streams of GPUs: with addresses in place of buffers, and events in place of waits.

use super::host_side::HostSide;
use super::nccl::{NcclSide, Stage};
use super::{InputStaging, Instruction, LocalOperand, Peer, Plan, Program, Work, nccl_progress};
use crate::data::{Augmented, LoadRole};
use crate::device::{Epilogue, Operand, Operands, Queue};
use crate::error::Result;
use crate::gpu::{ArenaSlice, GpuEvent, Gpus, Graph, HostCall};
use crate::layers::{Layer, Mode, Role};
use crate::optim::UpdateRole;
use crate::placement::Input;
use crate::tensor::{Element, Strided};
use std::ops::Range;
use std::sync::Arc;

/// The parts of a step's input, in the order of their staging buffers.
pub(super) const IMAGES: usize = 0;
pub(super) const TARGETS: usize = 1;
pub(super) const DRAWS: usize = 2;
pub(super) const CLOCK: usize = 3;

/// An instruction that is ready to be issued.
#[derive(Debug)]
pub(super) struct Ready {
    pub name: String,
    pub device: usize,
    pub queue: Queue,
    pub waits: Vec<GpuEvent>,
    /// Those of a compute queue for communication, which come last.
    pub exposed: Vec<GpuEvent>,
    /// Of the first device, timers before and after these waits, for each slot.
    pub timers: Option<[(GpuEvent, GpuEvent); InputStaging::SLOTS]>,
    pub record: Option<GpuEvent>,
    pub action: Action,
}

#[derive(Debug)]
pub(super) enum Action {
    Load {
        input: usize,
        first: usize,
        rows: usize,
        width: usize,
        to: Operands<LoadRole>,
    },
    Phase {
        layer: Arc<dyn Layer>,
        stream: u64,
        loss_weight: f64,
        phase: &'static str,
        operands: Operands<Role>,
        epilogue: Option<Epilogue>,
    },
    Sum {
        element: Element,
        sources: Vec<ArenaSlice>,
        targets: Vec<ArenaSlice>,
        mask: Option<ArenaSlice>,
    },
    /// A collective between processes, in host memory.
    Call(Arc<HostCall>),
    /// A collective of NCCL. Those of one group follow each other, and are issued together.
    Nccl {
        peers: Arc<[Peer]>,
        stages: Vec<Stage>,
        /// Its number among those of the first device.
        number: Option<usize>,
    },
    Update {
        stage: usize,
        bucket: Option<usize>,
        operands: Operands<UpdateRole>,
    },
}

/// A program that is ready to be issued or replayed.
#[derive(Debug)]
pub(super) struct IssueList {
    pub steps: Vec<Ready>,
    /// The event at which all queues fork from device 0's compute queue, and one event per queue to join it again.
    pub fork: GpuEvent,
    pub joins: Vec<(usize, Queue, GpuEvent)>,
    /// A graph for each slot.
    pub graphs: [Option<Graph>; InputStaging::SLOTS],
    /// Whether every instruction has run once, alone.
    pub proven: bool,
    /// Timers before and after every instruction, once its time has been requested, and a graph with them for each
    /// slot.
    pub clocks: Vec<(GpuEvent, GpuEvent)>,
    pub timed: [Option<Graph>; InputStaging::SLOTS],
    pub rows: usize,
    /// The samples that the loss is divided by.
    pub divisor: usize,
    pub augmented: Augmented,
}

impl IssueList {
    /// Creates the list of a program and its events.
    pub fn new(
        plan: &Plan,
        program: &Program,
        gpus: &Gpus,
        outside: Option<&HostSide>,
        nccl: Option<&NcclSide>,
    ) -> Result<IssueList> {
        let queues = plan.own.len() * Queue::COUNT;
        let mut numbers: Vec<Vec<usize>> = vec![Vec::new(); queues];
        for (number, step) in program.instructions.iter().enumerate() {
            numbers[step.queue_index()].push(number);
        }
        let mut events: Vec<Option<GpuEvent>> = vec![None; program.instructions.len()];
        for step in &program.instructions {
            for &(queue, count) in &step.waits {
                let number = numbers[queue][count - 1];
                if events[number].is_none() {
                    events[number] = Some(gpus.event(queue / Queue::COUNT)?);
                }
            }
        }
        let counted = nccl_progress::numbers(program);
        let operand = |local: &LocalOperand| {
            let buffer = &program.buffers[local.buffer];
            let address = gpus.address(buffer.device, buffer.offset + local.offset * buffer.element.bytes());
            Operand::at(address, buffer.element, local.shape.clone(), local.window.clone())
        };
        let piece = |&(buffer, part): &(usize, Strided)| {
            let buffer = &program.buffers[buffer];
            (gpus.address(buffer.device, buffer.offset), part)
        };
        let pieces = |pieces: &[(usize, Strided)]| pieces.iter().map(piece).collect();
        let ready = |(number, step): (usize, &Instruction)| {
            let action = match &step.work {
                Work::Load { input, to, scratch } => {
                    let width = to.shape.elements() / to.shape.0[0];
                    let input = if *input == Input::Images { IMAGES } else { TARGETS };
                    let (first, rows) = (to.window.start[0], to.window.len[0]);
                    let batch: Operands<LoadRole> = [(LoadRole::Batch, operand(to))].into_iter().collect();
                    let to = batch.with_scratch(scratch.as_ref().map(operand));
                    Action::Load { input, first, rows, width, to }
                }
                Work::Phase { node, phase, operands, scratch, epilogue, .. } => {
                    let node = &plan.network.nodes[*node];
                    let (layer, stream, loss_weight) = (Arc::clone(&node.layer), node.stream(), node.loss_weight);
                    let operands: Operands<Role> = operands.iter().map(|(role, l)| (*role, operand(l))).collect();
                    let operands = operands.with_scratch(scratch.as_ref().map(operand));
                    let epilogue = epilogue.map(|(epilogue, _)| epilogue);
                    Action::Phase { layer, stream, loss_weight, phase, operands, epilogue }
                }
                Work::Sum { sources, targets, mask, .. } => {
                    let element = program.buffers[targets[0].0].element;
                    let mask = mask.as_ref().map(piece);
                    Action::Sum { element, sources: pieces(sources), targets: pieces(targets), mask }
                }
                Work::Collective { peers, .. } => match nccl {
                    Some(nccl) => {
                        let stages = nccl.stages(plan, program, &step.work, gpus);
                        Action::Nccl { peers: Arc::clone(peers), stages, number: counted[number] }
                    }
                    None => {
                        let side = outside.expect("a team runs the programs of processes");
                        Action::Call(side.call(plan, program, step, gpus))
                    }
                },
                Work::Update { stage, bucket, operands } => {
                    let operands = operands.iter().map(|(role, l)| (*role, operand(l))).collect();
                    Action::Update { stage: *stage, bucket: *bucket, operands }
                }
            };
            let is_exposed =
                |queue: usize| step.queue == Queue::Compute && Queue::ALL[queue % Queue::COUNT] == Queue::Communication;
            let waits = |exposed: bool| {
                let waits = step.waits.iter().filter(|(queue, _)| is_exposed(*queue) == exposed);
                waits.filter_map(|&(queue, count)| events[numbers[queue][count - 1]]).collect::<Vec<_>>()
            };
            let (waits, exposed) = (waits(false), waits(true));
            let pair = || Ok((gpus.timer(step.device)?, gpus.timer(step.device)?));
            let timers = (step.device == 0 && !exposed.is_empty()).then(|| Ok([pair()?, pair()?])).transpose()?;
            let (name, device, queue) = (step.name.clone(), step.device, step.queue);
            Ok(Ready { name, device, queue, waits, exposed, timers, record: events[number], action })
        };
        let steps = program.instructions.iter().enumerate().map(ready).collect::<Result<Vec<Ready>>>()?;
        let mut joins = Vec::new();
        for (queue, _) in numbers.iter().enumerate().filter(|(queue, n)| *queue > 0 && !n.is_empty()) {
            let device = queue / Queue::COUNT;
            joins.push((device, Queue::ALL[queue % Queue::COUNT], gpus.event(device)?));
        }
        Ok(IssueList {
            steps,
            fork: gpus.event(0)?,
            joins,
            graphs: [None; InputStaging::SLOTS],
            proven: false,
            clocks: Vec::new(),
            timed: [None; InputStaging::SLOTS],
            rows: program.variant.batch,
            divisor: program.variant.divisor,
            augmented: if program.variant.mode == Mode::Train { Augmented::Yes } else { Augmented::No },
        })
    }
}

impl IssueList {
    /// Returns the instructions in groups that are issued together: the collectives of NCCL among devices of this process, all others alone.
    pub fn together(&self) -> impl Iterator<Item = Range<usize>> {
        let one = |a: &Ready, b: &Ready| match (&a.action, &b.action) {
            (Action::Nccl { peers: a, .. }, Action::Nccl { peers: b, .. }) => Arc::ptr_eq(a, b),
            _ => false,
        };
        self.steps.chunk_by(one).scan(0, |at, group| {
            let start = *at;
            *at += group.len();
            Some(start..*at)
        })
    }
}
