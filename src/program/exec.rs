//! A program with its addresses: what the queues of CPU devices run.

use super::{Local, Plan, Program, Work};
use crate::device::{Args, Clock, Extent, Memory, Operand, Path, Pool, Queue, Script, Transfer};
use crate::layers::{Layer, Pass};
use crate::optim::{Chain, Segment, Stage};
use crate::placement::Input;
use crate::tensor::{Dual, Precision, Real, Strided};
use std::sync::{Arc, RwLock};

/// The batch that the host hands to the devices.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub images: Vec<f32>,
    pub targets: Vec<f32>,
}

/// A step that is ready to run.
struct Ready {
    name: String,
    waits: Vec<(usize, usize)>,
    operands: Vec<Option<Operand>>,
    action: Action,
}

enum Action {
    Load(Input),
    Phase { layer: Arc<dyn Layer>, node: u64, pass: Pass, phase: usize },
    Sum(Transfer),
    Optim(usize),
}

/// The steps of all queues, each with its operands in memory.
pub(super) struct Executable {
    queues: Vec<Vec<Ready>>,
    batch: Arc<RwLock<Batch>>,
    chain: Arc<Chain>,
    stages: Vec<Stage>,
    segments: Vec<Vec<Segment>>,
    precision: Precision,
    path: Path,
    seed: u64,
    rows: usize,
}

impl Executable {
    pub fn new(plan: &Plan, program: &Program, memories: &[Arc<Memory>], batch: Arc<RwLock<Batch>>) -> Self {
        let precision = plan.options.precision;
        let devices = memories.len();
        let mut queues: Vec<Vec<Ready>> = (0..devices * Queue::COUNT).map(|_| Vec::new()).collect();
        let operand = |local: &Local| {
            let buffer = &program.buffers[local.buffer];
            let offset = (buffer.offset + local.offset) * precision.bytes();
            let memory = &memories[buffer.device];
            Operand::new(memory, offset, local.shape.clone(), local.window.clone(), precision)
        };
        let operands = |locals: &[Option<Local>]| locals.iter().map(|l| l.as_ref().map(operand)).collect();
        let extents = |pieces: &[(usize, Strided)]| {
            let extent = |&(buffer, part): &(usize, Strided)| {
                let buffer = &program.buffers[buffer];
                Extent::new(&memories[buffer.device], part.shifted(buffer.offset), precision)
            };
            pieces.iter().map(extent).collect()
        };
        for step in &program.steps {
            let (operands, action) = match &step.work {
                Work::Load { input, to } => (vec![Some(operand(to))], Action::Load(*input)),
                Work::Phase { node, pass, phase, operands: locals } => {
                    let layer = Arc::clone(&plan.network.nodes[*node].layer);
                    (operands(locals), Action::Phase { layer, node: *node as u64, pass: *pass, phase: *phase })
                }
                Work::Sum { sources, targets, .. } => {
                    (Vec::new(), Action::Sum(Transfer::new(extents(sources), extents(targets), precision)))
                }
                Work::Optim { stage, operands: locals } => (operands(locals), Action::Optim(*stage)),
            };
            let ready = Ready { name: step.name.clone(), waits: step.waits.clone(), operands, action };
            queues[step.queue_index()].push(ready);
        }
        Executable {
            queues,
            batch,
            chain: Arc::clone(&plan.chain),
            stages: plan.chain.stages(),
            segments: (0..devices).map(|device| plan.segments(device)).collect(),
            precision,
            path: plan.options.path,
            seed: plan.options.seed,
            rows: program.variant.rows,
        }
    }
}

impl Script for Executable {
    fn len(&self, queue: usize) -> usize {
        self.queues[queue].len()
    }

    fn waits(&self, queue: usize, step: usize) -> &[(usize, usize)] {
        &self.queues[queue][step].waits
    }

    fn perform(&self, queue: usize, step: usize, clock: Clock, pool: &Pool) {
        let ready = &self.queues[queue][step];
        let layer = if let Action::Phase { node, .. } = ready.action { node } else { 0 };
        let args = Args {
            operands: &ready.operands,
            pool,
            precision: self.precision,
            path: self.path,
            clock,
            seed: self.seed,
            layer,
            rows: self.rows,
        };
        match &ready.action {
            Action::Load(input) => {
                let batch = self.batch.read().unwrap_or_else(|poisoned| poisoned.into_inner());
                let source = match input {
                    Input::Images => &batch.images,
                    Input::Targets => &batch.targets,
                };
                match self.precision {
                    Precision::F32 => load::<f32>(&args, source),
                    Precision::F64 => load::<f64>(&args, source),
                    Precision::Dual => load::<Dual>(&args, source),
                }
            }
            Action::Phase { layer, pass, phase, .. } => layer.run(*pass, *phase, &args),
            Action::Sum(transfer) => transfer.run(),
            Action::Optim(stage) => {
                let device = queue / Queue::COUNT;
                self.chain.run(&self.stages[*stage], &self.segments[device], &args);
            }
        }
    }

    fn name(&self, queue: usize, step: usize) -> String {
        self.queues[queue][step].name.clone()
    }
}

/// Copies the device's rows of the batch.
fn load<T: Real>(args: &Args, source: &[f32]) {
    let operand = args.operand(0);
    let width = operand.shape.elements() / operand.shape.0[0];
    let source = &source[operand.start(0) * width..][..operand.elements()];
    args.write::<T>(0).iter_mut().zip(source).for_each(|(to, &from)| *to = T::from_f64(f64::from(from)));
}
