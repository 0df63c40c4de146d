//! A program as it is issued to the streams of GPUs: with addresses in place of buffers, and events in place of waits.

use super::host_side::HostSide;
use super::{InputStaging, Instruction, LocalOperand, Plan, Program, Work};
use crate::data::{Augmented, LoadRole};
use crate::device::{Epilogue, Operand, Operands, Queue};
use crate::error::Result;
use crate::gpu::{ArenaSlice, GpuEvent, Gpus, Graph, HostCall};
use crate::layers::{Layer, Mode, Role};
use crate::optim::UpdateRole;
use crate::placement::Input;
use crate::tensor::{Element, Strided};
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
    pub fn new(plan: &Plan, program: &Program, gpus: &Gpus, outside: Option<&HostSide>) -> Result<IssueList> {
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
                Work::Collective { .. } => {
                    let side = outside.expect("a team runs the programs of processes");
                    Action::Call(side.call(plan, program, step, gpus))
                }
                Work::Update { stage, bucket, operands } => {
                    let operands = operands.iter().map(|(role, l)| (*role, operand(l))).collect();
                    Action::Update { stage: *stage, bucket: *bucket, operands }
                }
            };
            let waits = step.waits.iter().filter_map(|&(queue, count)| events[numbers[queue][count - 1]]).collect();
            let (name, device, queue) = (step.name.clone(), step.device, step.queue);
            Ready { name, device, queue, waits, record: events[number], action }
        };
        let steps = program.instructions.iter().enumerate().map(ready).collect();
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
