//! Programs with their addresses, as the queues of CPU devices run them.

use super::exchange::{DeviceCollective, Outside, together};
use super::observer::{ArenaPart, Observer, Shown};
use super::{Execution, LocalOperand, PeerPart, Plan, Program, Work};
use crate::cluster::{Flown, Team, Values};
use crate::collectives::Piece;
use crate::cpu::{Args, ExchangeTask, Implementation, QueueProgram, Queues, SumTask, Timed, run_together};
use crate::data::{Batch, BatchPart};
use crate::device::{Clock, Key, Memory, MemorySlice, Operand, Operands, Pool, Queue};
use crate::error::Result;
use crate::layers::{Layer, Role};
use crate::optim::{Chain, Segment, UpdatePass, UpdateRole};
use crate::placement::{Input, Region};
use crate::tensor::{Dual, Element, LocalSlice, Precision, Real, Shape, Strided};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// The programs of a plan on its CPU devices.
pub(super) struct Programs {
    precision: Precision,
    /// The memory of each device, then that of the host.
    memories: Vec<Arc<Memory>>,
    queues: Queues,
    scripts: Vec<Arc<dyn QueueProgram>>,
    /// The batch that the devices work on.
    batch: Arc<RwLock<Batch>>,
    /// The thread pool for reads and writes by the host.
    host: Pool,
    /// The operand to which device 0 writes the metrics of a batch.
    metrics: Operands<Only>,
    /// How long the devices worked since [`Programs::take_worked`] was called last.
    worked: Duration,
    /// How long they waited for communication since [`Programs::take_exposed`] was called last.
    exposed: Duration,
    /// The order in which instructions run.
    pub execution: Execution,
    /// The instructions of each program, as the serial execution runs them.
    lists: Vec<SerialList>,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Programs({} on {} devices)", self.scripts.len(), self.memories.len() - 1)
    }
}

impl Programs {
    /// Allocates the arenas of a plan and starts its queues; `outside` connects them with other processes.
    pub fn new(plan: &Plan, outside: Option<&Outside>) -> Result<Self> {
        let precision = plan.spec.precision;
        let allocate = |&bytes: &usize| Memory::new(bytes).map(Arc::new);
        let memories: Vec<Arc<Memory>> = plan.arena.iter().chain(&plan.hosts).map(allocate).collect::<Result<_>>()?;
        let batch = Arc::new(RwLock::new(Batch::default()));
        let scratch = plan.scratch_of_messages().into_iter().map(|elements| allocate(&(elements * precision.bytes())));
        let scratch = scratch.collect::<Result<Vec<_>>>()?;
        let outside = outside.map(|outside| (outside, &scratch[..]));
        let script = |program| -> Arc<dyn QueueProgram> {
            Arc::new(Executable::new(plan, program, &memories, Arc::clone(&batch), outside))
        };
        let scripts = plan.programs.iter().map(script).collect();
        let queues = Queues::new(plan.own.len(), plan.spec.target.threads())?;
        let (offset, elements) = plan.region(Region::Metrics);
        let metrics = only(operand_at(&memories[0], offset, elements, precision));
        let lists = plan.programs.iter().map(SerialList::new).collect();
        let execution = Execution::default();
        Ok(Programs {
            precision,
            memories,
            queues,
            scripts,
            batch,
            host: Pool::new(1)?,
            metrics,
            worked: Duration::ZERO,
            exposed: Duration::ZERO,
            execution,
            lists,
        })
    }

    /// Runs a program on a batch.
    pub fn run(&mut self, number: usize, batch: &mut Batch, clock: Clock) -> Result<()> {
        self.exchange(batch);
        let result = match self.execution {
            Execution::Queues => {
                let result = self.queues.run(&self.scripts[number], clock);
                self.worked += self.queues.worked();
                self.exposed += self.queues.exposed();
                result
            }
            Execution::Serial => self.lists[number].run(&*self.scripts[number], clock, &self.host),
        };
        self.exchange(batch);
        result
    }

    /// Returns how long the slowest device worked since the last call, without waiting for others, if queues ran.
    pub fn take_worked(&mut self) -> Duration {
        std::mem::take(&mut self.worked)
    }

    /// Returns how long a device waited at most for communication since the last call, if queues ran.
    pub fn take_exposed(&mut self) -> Duration {
        std::mem::take(&mut self.exposed)
    }

    /// Runs a program on a batch, one instruction after another. After each, calls `goes_on` with its index, until that
    /// returns false.
    pub fn run_each(
        &mut self,
        number: usize,
        batch: &mut Batch,
        clock: Clock,
        mut goes_on: impl FnMut(&Self, usize) -> Result<bool>,
    ) -> Result<()> {
        self.exchange(batch);
        let mut result = Ok(true);
        let list = &self.lists[number];
        'list: for group in &list.groups {
            result = run_together(&*self.scripts[number], &list.steps[group.clone()], clock, &self.host).map(|()| true);
            for index in group.clone() {
                result = result.and_then(|_| goes_on(self, index));
                if !matches!(result, Ok(true)) {
                    break 'list;
                }
            }
        }
        self.exchange(batch);
        result.map(|_| ())
    }

    /// Runs a program on a batch and measures the time of every instruction.
    pub fn run_timed(&mut self, number: usize, batch: &mut Batch, clock: Clock) -> Result<Arc<Timed>> {
        let queues = (self.memories.len() - 1) * Queue::COUNT;
        let timed = Arc::new(Timed::new(Arc::clone(&self.scripts[number]), queues));
        let script: Arc<dyn QueueProgram> = Arc::clone(&timed) as Arc<dyn QueueProgram>;
        self.exchange(batch);
        let result = self.queues.run(&script, clock);
        self.exchange(batch);
        result.map(|()| timed)
    }

    /// Runs a program on a batch, and shows it to an observer.
    pub fn run_observed(
        &mut self,
        number: usize,
        batch: &mut Batch,
        clock: Clock,
        (shown, observer): (HashMap<usize, Shown>, &Arc<dyn Observer>),
    ) -> Result<()> {
        let list = &self.lists[number];
        let shown: HashMap<_, _> = shown.into_iter().map(|(index, shown)| (list.steps[index], shown)).collect();
        let (script, observer) = (Arc::clone(&self.scripts[number]), Arc::clone(observer));
        let (memories, precision) = (self.memories.clone(), self.precision);
        let observed: Arc<dyn QueueProgram> = Arc::new(Observed { script, shown, observer, memories, precision });
        self.exchange(batch);
        let result = match self.execution {
            Execution::Queues => self.queues.run(&observed, clock),
            Execution::Serial => list.run(&*observed, clock, &self.host),
        };
        self.exchange(batch);
        result
    }

    /// Returns values of a device's arena. No instruction runs meanwhile.
    pub fn values(&self, device: usize, at: ArenaPart) -> Vec<f64> {
        values(&self.memories[device], at, &self.host)
    }

    fn exchange(&self, batch: &mut Batch) {
        std::mem::swap(&mut *self.batch.write().unwrap_or_else(|poisoned| poisoned.into_inner()), batch);
    }

    /// Writes the metrics of the last run to `to`.
    pub fn metrics(&self, to: &mut [f64]) {
        match self.precision {
            Precision::F32 => self.metrics_in::<f32>(to),
            Precision::F64 => self.metrics_in::<f64>(to),
            Precision::Dual => self.metrics_in::<Dual>(to),
        }
    }

    fn metrics_in<T: Real>(&self, to: &mut [f64]) {
        let args = self.args(&self.metrics);
        to.iter_mut().zip(args.read::<T>(Only)).for_each(|(to, from)| *to = from.to_f64());
    }

    fn args<'a>(&'a self, operands: &'a Operands<Only>) -> Args<'a, Only> {
        Args::new(operands, &self.host, self.precision)
    }

    /// Calls `f` with elements of a device's arena. No instruction runs meanwhile: the queues are idle between runs.
    pub fn with<T: Real>(&self, device: usize, offset: usize, elements: usize, f: impl FnOnce(&mut [T])) {
        let operand = operand_at(&self.memories[device], offset, elements, self.precision);
        f(self.args(&only(operand)).write::<T>(Only));
    }
}

/// Returns an operand of consecutive elements that starts at a byte of an arena.
fn operand_at(memory: &Arc<Memory>, offset: usize, elements: usize, precision: Precision) -> Operand {
    let window = LocalSlice { start: vec![0], len: vec![elements] };
    Operand::new(memory, offset, Shape::from([elements]), window, precision)
}

/// Returns values of an arena that no instruction changes meanwhile.
fn values(memory: &Arc<Memory>, ArenaPart { byte, elements, element }: ArenaPart, pool: &Pool) -> Vec<f64> {
    let Element::Real(precision) = element else { unreachable!("CPU devices compute in full precision") };
    let operands = only(operand_at(memory, byte, elements, precision));
    let args = Args::new(&operands, pool, precision);
    match precision {
        Precision::F32 => args.read::<f32>(Only).iter().map(|&x| f64::from(x)).collect(),
        Precision::F64 => args.read::<f64>(Only).to_vec(),
        Precision::Dual => args.read::<Dual>(Only).iter().map(|x| x.re).collect(),
    }
}

/// A program that is shown to an observer.
struct Observed {
    script: Arc<dyn QueueProgram>,
    /// What is shown, by queue and index on it.
    shown: HashMap<(usize, usize), Shown>,
    observer: Arc<dyn Observer>,
    memories: Vec<Arc<Memory>>,
    precision: Precision,
}

impl QueueProgram for Observed {
    fn len(&self, queue: usize) -> usize {
        self.script.len(queue)
    }
    fn waits(&self, queue: usize, step: usize) -> &[(usize, usize)] {
        self.script.waits(queue, step)
    }
    /// What is shown, the instruction itself uses: the events that order its uses order this as well.
    fn perform(&self, queue: usize, step: usize, clock: Clock, pool: &Pool) -> Result<()> {
        let device = queue / Queue::COUNT;
        let shown = self.shown.get(&(queue, step));
        if let Some(Shown::Gradients { byte }) = shown {
            let element = Element::Real(self.precision);
            let read = |range: Range<usize>| {
                let at = ArenaPart { byte: byte + range.start * element.bytes(), elements: range.len(), element };
                Ok(values(&self.memories[device], at, pool))
            };
            self.observer.gradients(device, &read).expect("reads of memory do not fail");
        }
        self.script.perform(queue, step, clock, pool)?;
        if let Some(Shown::Output { node, operand, at }) = shown {
            self.observer.output(*node, operand, &values(&self.memories[device], *at, pool));
        }
        Ok(())
    }
    fn name(&self, queue: usize, step: usize) -> String {
        self.script.name(queue, step)
    }
}

/// The role of a single operand.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Only;

fn only(operand: Operand) -> Operands<Only> {
    [(Only, operand)].into_iter().collect()
}

/// An instruction that is ready to run.
struct Ready {
    name: String,
    waits: Vec<(usize, usize)>,
    action: Action,
}

enum Action {
    Load {
        input: Input,
        to: Operands<Only>,
    },
    Phase {
        layer: Arc<dyn Layer>,
        stream: u64,
        loss_weight: f64,
        phase: &'static str,
        operands: Operands<Role>,
        weight: Option<usize>,
    },
    Sum(SumTask),
    /// A collective between processes by messages.
    Exchange(Arc<Team>, Flown, ExchangeTask),
    /// One that the library sums, in the group with this number.
    LibrarySum(Arc<Team>, Flown, usize, Operands<Only>),
    Update {
        stage: usize,
        operands: Operands<UpdateRole>,
    },
}

/// The instructions of a program one after another: (queue, index on that queue), and those that run together.
struct SerialList {
    steps: Vec<(usize, usize)>,
    groups: Vec<Range<usize>>,
}

impl SerialList {
    fn new(program: &Program) -> Self {
        let steps = program.instructions.iter().map(|step| (step.queue_index(), step.index)).collect();
        SerialList { steps, groups: together(program) }
    }

    fn run(&self, script: &dyn QueueProgram, clock: Clock, pool: &Pool) -> Result<()> {
        self.groups.iter().try_for_each(|group| run_together(script, &self.steps[group.clone()], clock, pool))
    }
}

/// The instructions of all queues, each with its operands in memory.
struct Executable {
    queues: Vec<Vec<Ready>>,
    batch: Arc<RwLock<Batch>>,
    chain: Arc<Chain>,
    stages: Vec<UpdatePass>,
    segments: Vec<Vec<Segment>>,
    /// For each segment of each device, whether the backward pass showed that its gradient is finite.
    known: Vec<Vec<AtomicBool>>,
    precision: Precision,
    implementation: Implementation,
    seed: u64,
    /// The samples that the loss is divided by.
    divisor: usize,
}

impl Executable {
    fn new(
        plan: &Plan,
        program: &Program,
        memories: &[Arc<Memory>],
        batch: Arc<RwLock<Batch>>,
        outside: Option<(&Outside, &[Arc<Memory>])>,
    ) -> Self {
        let precision = plan.spec.precision;
        let devices = plan.own.len();
        let mut queues: Vec<Vec<Ready>> = (0..devices * Queue::COUNT).map(|_| Vec::new()).collect();
        let operand = |local: &LocalOperand| {
            let buffer = &program.buffers[local.buffer];
            let offset = buffer.offset + local.offset * precision.bytes();
            let memory = &memories[buffer.device];
            Operand::new(memory, offset, local.shape.clone(), local.window.clone(), precision)
        };
        let slice = |&(buffer, part): &(usize, Strided)| {
            let buffer = &program.buffers[buffer];
            MemorySlice::new(&memories[buffer.device], buffer.offset, part, Element::Real(precision))
        };
        let slices = |pieces: &[(usize, Strided)]| pieces.iter().map(slice).collect();
        let mut segment_of = vec![0; plan.flat.order.len()];
        plan.flat.order.iter().enumerate().for_each(|(segment, &param)| segment_of[param] = segment);
        for step in &program.instructions {
            let action = match &step.work {
                Work::Load { input, to, .. } => Action::Load { input: *input, to: only(operand(to)) },
                Work::Phase { node, phase, operands, scratch, .. } => {
                    let node = &plan.network.nodes[*node];
                    let (layer, stream, loss_weight) = (Arc::clone(&node.layer), node.stream(), node.loss_weight);
                    let operands: Operands<Role> = operands.iter().map(|(role, l)| (*role, operand(l))).collect();
                    let operands = operands.with_scratch(scratch.as_ref().map(operand));
                    // What a part shows of its gradient is not true of the sum.
                    let shows = operands.has(Role::DParam(0)) && program.variant.part == BatchPart::Whole;
                    let weight = shows.then(|| segment_of[node.params[0]]);
                    Action::Phase { layer, stream, loss_weight, phase, operands, weight }
                }
                Work::Sum { sources, targets, .. } => {
                    Action::Sum(SumTask::new(slices(sources), slices(targets), Element::Real(precision)))
                }
                Work::Collective { .. } => {
                    let (outside, scratch) = outside.expect("a team runs the programs of processes");
                    let (team, element) = (outside.team, Element::Real(precision));
                    let (own, part) = DeviceCollective::of(&step.work).next().expect("a collective has parts");
                    let PeerPart { from, to, .. } = part;
                    let flown = own.flown(&step.name, part, element, &plan.spec.processes);
                    match outside.summed(&own, element, &plan.spec.processes) {
                        Some(group) => {
                            let buffer = &program.buffers[to.0];
                            let offset = buffer.offset + to.1.offset * precision.bytes();
                            let values = operand_at(&memories[buffer.device], offset, to.1.len, precision);
                            Action::LibrarySum(Arc::clone(team), flown, group, only(values))
                        }
                        None => {
                            let memory = |piece| match piece {
                                Piece::From(part) => slice(&(from.0, part.shifted(from.1.offset))),
                                Piece::To(part) => slice(&(to.0, part.shifted(to.1.offset))),
                                Piece::Received(_) => unreachable!("these are in scratch memory"),
                            };
                            let task = own.task(&memory, &scratch[step.device], element);
                            Action::Exchange(Arc::clone(team), flown, task)
                        }
                    }
                }
                Work::Update { stage, operands, .. } => {
                    let operands = operands.iter().map(|(role, l)| (*role, operand(l))).collect();
                    Action::Update { stage: *stage, operands }
                }
            };
            queues[step.queue_index()].push(Ready { name: step.name.clone(), waits: step.waits.clone(), action });
        }
        let segments: Vec<Vec<Segment>> = (0..devices).map(|device| plan.segments(device)).collect();
        let unknown = |segments: &Vec<Segment>| segments.iter().map(|_| AtomicBool::new(false)).collect();
        Executable {
            queues,
            batch,
            chain: Arc::clone(&plan.chain),
            stages: plan.chain.stages(),
            known: segments.iter().map(unknown).collect(),
            segments,
            precision,
            implementation: plan.spec.implementation,
            seed: plan.spec.seed,
            divisor: program.variant.divisor,
        }
    }
}

impl Executable {
    fn args<'a, R: Key>(&self, operands: &'a Operands<R>, pool: &'a Pool, clock: Clock, layer: u64) -> Args<'a, R> {
        let Executable { precision, implementation, seed, divisor, .. } = *self;
        Args { implementation, clock, seed, layer, divisor, ..Args::new(operands, pool, precision) }
    }
}

impl QueueProgram for Executable {
    fn len(&self, queue: usize) -> usize {
        self.queues[queue].len()
    }

    fn waits(&self, queue: usize, step: usize) -> &[(usize, usize)] {
        &self.queues[queue][step].waits
    }

    fn perform(&self, queue: usize, step: usize, clock: Clock, pool: &Pool) -> Result<()> {
        let device = queue / Queue::COUNT;
        match &self.queues[queue][step].action {
            Action::Load { input, to } => {
                let args = self.args(to, pool, clock, 0);
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
            Action::Phase { layer, stream, loss_weight, phase, operands, weight } => {
                let args = Args { loss_weight: *loss_weight, ..self.args(operands, pool, clock, *stream) };
                layer.run(phase, &args);
                if let Some(segment) = *weight {
                    // The events that order the gradient before its check order this as well.
                    self.known[device][segment].store(args.gradient_is_finite(), Ordering::Relaxed);
                }
            }
            Action::Sum(transfer) => transfer.run(),
            Action::Exchange(team, flown, task) => team.recorded(flown, || task.run(team))?,
            Action::LibrarySum(team, flown, group, operands) => {
                let args = self.args(operands, pool, clock, 0);
                team.recorded(flown, || match self.precision {
                    Precision::F32 => team.sum(*group, Values::F32(args.write::<f32>(Only))),
                    Precision::F64 => team.sum(*group, Values::F64(args.write::<f64>(Only))),
                    Precision::Dual => unreachable!("dual numbers are for one process"),
                })?;
            }
            Action::Update { stage, operands } => {
                let args = self.args(operands, pool, clock, 0);
                let known = |segment: usize| self.known[device][segment].load(Ordering::Relaxed);
                self.chain.run(&self.stages[*stage], &self.segments[device], known, &args);
            }
        }
        Ok(())
    }

    fn name(&self, queue: usize, step: usize) -> String {
        self.queues[queue][step].name.clone()
    }
}

/// Copies the device's rows of the batch.
fn load<T: Real>(args: &Args<Only>, source: &[f32]) {
    let operand = args.operand(Only);
    let width = operand.shape.elements() / operand.shape.0[0];
    let source = &source[operand.start(0) * width..][..operand.elements()];
    args.write::<T>(Only).iter_mut().zip(source).for_each(|(to, &from)| *to = T::from_f64(f64::from(from)));
}
