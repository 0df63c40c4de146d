//! A program on GPUs: the globally ordered list issued to streams, captured once as one graph and replayed.

use super::{AllocatedRegion, Execution, Graphs, InputStaging, LocalOperand, Plan, Program, Work};
use crate::data::{Arrived, Augmented, Batch, LoadRole, Preparation, Raw};
use crate::device::{Clock, Epilogue, Operand, Operands, Queue};
use crate::error::{Error, Result};
use crate::gpu::libraries::Record;
use crate::gpu::{Const, GpuEvent, Gpus, Graph, Launch, bytes_of};
use crate::layers::{Layer, Mode, Role};
use crate::optim::{Chain, DeviceChain, UpdateRole};
use crate::placement::{Input, Region};
use crate::tensor::{Element, LocalSlice, MatmulPrecision, Shape, Strided};
use std::collections::VecDeque;
use std::sync::Arc;

/// A step that is ready to be issued.
#[derive(Debug)]
struct Ready {
    name: String,
    device: usize,
    queue: Queue,
    waits: Vec<GpuEvent>,
    record: Option<GpuEvent>,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Load {
        input: usize,
        first: usize,
        rows: usize,
        width: usize,
        to: Operands<LoadRole>,
    },
    Phase {
        layer: Arc<dyn Layer>,
        node: u64,
        phase: &'static str,
        operands: Operands<Role>,
        epilogue: Option<Epilogue>,
    },
    Cast {
        from: Operand,
        to: Operand,
    },
    Sum {
        element: Element,
        sources: Vec<(u64, Strided)>,
        targets: Vec<(u64, Strided)>,
    },
    Optim {
        stage: usize,
        operands: Operands<UpdateRole>,
    },
}

/// The parts of a batch, in the order of the inbox.
const IMAGES: usize = 0;
const TARGETS: usize = 1;
const DRAWS: usize = 2;

/// One program, ready to be issued or replayed.
#[derive(Debug)]
struct IssueList {
    steps: Vec<Ready>,
    /// Fork from device 0's compute queue, and one event per queue to join back.
    fork: GpuEvent,
    joins: Vec<(usize, Queue, GpuEvent)>,
    /// One for each slot.
    graphs: [Option<Graph>; InputStaging::SLOTS],
    /// Whether every step has run once, alone.
    proven: bool,
    /// Around every step, once somebody asked for its time.
    clocks: Vec<(GpuEvent, GpuEvent)>,
    rows: usize,
    augmented: Augmented,
}

/// What becomes of raw images, with the table of each device.
#[derive(Debug)]
struct Prepared {
    preparation: Preparation,
    tables: Vec<u64>,
}

/// The programs of a plan on its GPUs.
#[derive(Debug)]
pub(super) struct Programs {
    gpus: Gpus,
    scripts: Vec<IssueList>,
    chains: Vec<DeviceChain>,
    chain: Arc<Chain>,
    metrics: (usize, usize),
    /// The weights and their copy in bf16, where there is one.
    weights: Option<[AllocatedRegion; 2]>,
    seed: u64,
    /// Whether a program is captured at its first run.
    pub graphs: Graphs,
    tf32: bool,
    /// Serially, the host waits for each instruction before it issues the next.
    pub execution: Execution,
    /// Whether the host waits for every launch of every step.
    waits: bool,
    staging: At,
    /// None: batches come ready.
    prepared: Option<Prepared>,
    /// For each device and slot: the batch lies in the inbox.
    arrived: Vec<[GpuEvent; InputStaging::SLOTS]>,
    /// For each slot: device 0 is done with the step.
    done: [GpuEvent; InputStaging::SLOTS],
    /// The slot of the next step.
    next: usize,
    /// The slot and number of every step that was submitted and not finished.
    under_way: VecDeque<(usize, u64)>,
}

/// The inbox in the arena of every device.
#[derive(Debug, Clone, Copy)]
struct At {
    byte: usize,
    staging: InputStaging,
}

impl At {
    fn address(self, gpus: &Gpus, device: usize, slot: usize, input: usize) -> u64 {
        gpus.address(device, self.byte + self.staging.at(slot, input) * Element::F32.bytes())
    }
}

/// What else is done at every step.
enum Watch<'a> {
    /// Nothing.
    None,
    /// The host waits for it, so that what it does wrong is known by its name.
    Each,
    /// Events are recorded before and after it.
    VectorClocks(&'a [(GpuEvent, GpuEvent)]),
}

impl Programs {
    /// Places every program on opened GPUs whose arenas have the plan's sizes.
    pub fn new(plan: &Plan, mut gpus: Gpus) -> Result<Programs> {
        let scripts = plan.programs.iter().map(|program| script(plan, program, &gpus)).collect::<Result<_>>()?;
        let devices = plan.spec.mesh.devices();
        let mut chains = Vec::new();
        for device in 0..devices {
            chains.push(DeviceChain::new(&plan.chain, &plan.segments(device), &mut gpus, device)?);
        }
        let metrics = plan.region(Region::Metrics);
        let allocated = |region| plan.regions.get(region);
        let arrived = (0..devices).map(|device| Ok([gpus.event(device)?, gpus.event(device)?]));
        let arrived = arrived.collect::<Result<_>>()?;
        let staging = At { byte: plan.region(Region::InputStaging).0, staging: plan.staging() };
        Ok(Programs {
            scripts,
            chains,
            chain: Arc::clone(&plan.chain),
            metrics,
            weights: allocated(Region::Weights).zip(allocated(Region::Bf16Weights)).map(<[AllocatedRegion; 2]>::from),
            seed: plan.spec.seed,
            execution: Execution::default(),
            waits: std::env::var_os("PERISTYLE_WAIT").is_some(),
            tf32: plan.spec.products == MatmulPrecision::Tf32,
            graphs: Graphs::default(),
            staging,
            prepared: None,
            arrived,
            done: [gpus.event(0)?, gpus.event(0)?],
            next: 0,
            under_way: VecDeque::new(),
            gpus,
        })
    }

    /// Takes raw images from now on.
    pub fn prepare(&mut self, preparation: Preparation) -> Result<()> {
        let table = preparation.table();
        let tables = (0..self.arrived.len()).map(|device| self.gpus.upload(device, &table)).collect::<Result<_>>()?;
        self.prepared = Some(Prepared { preparation, tables });
        Ok(())
    }

    /// Returns true when it takes raw images.
    pub fn prepares(&self) -> bool {
        self.prepared.is_some()
    }

    /// Returns the steps that were submitted and not finished.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Hands a batch to the devices and starts a program on it. The batch is copied while earlier steps run.
    pub fn submit(&mut self, number: usize, batch: &Batch, clock: Clock) -> Result<()> {
        let slot = self.begin(number, batch, clock)?;
        let script = &self.scripts[number];
        if self.waits || self.execution == Execution::Serial || !script.proven {
            // What faults mostly faults at its first launch; alone it can be named. Capturing may load nothing new.
            self.issue(script, slot, &Watch::Each).map_err(|e| at_step(clock.step, &e))?;
            self.scripts[number].proven = true;
        } else if self.graphs == Graphs::Captured {
            let graph = match script.graphs[slot] {
                Some(graph) => graph,
                None => self.gpus.capture(|| self.issue(script, slot, &Watch::None))?,
            };
            self.scripts[number].graphs[slot] = Some(graph);
            self.gpus.launch_graph(graph)?;
        } else {
            self.issue(script, slot, &Watch::None)?;
        }
        self.gpus.record(0, Queue::Compute, self.done[slot])?;
        self.under_way.push_back((slot, clock.step));
        Ok(())
    }

    /// Waits for the oldest step that was submitted; returns its metrics.
    ///
    /// # Panics
    /// When none was.
    pub fn finish(&mut self) -> Result<&[f32]> {
        let (slot, step) = self.under_way.pop_front().expect("a step was submitted");
        self.gpus.synchronize_event(0, self.done[slot]).map_err(|e| at_step(step, &later(&e)))?;
        Ok(self.gpus.values(slot))
    }

    /// Puts a batch into the next slot and sends it to the inboxes; device 0's compute queue waits for it.
    fn begin(&mut self, number: usize, batch: &Batch, clock: Clock) -> Result<usize> {
        assert!(self.under_way.len() < InputStaging::SLOTS, "a slot is free");
        let slot = self.next;
        self.next = (slot + 1) % InputStaging::SLOTS;
        let (pixels, each) = batch.raw.as_ref().map_or((bytes_of(&batch.images), size_of::<f32>()), Raw::bytes);
        let draws = batch.raw.as_ref().map_or(&[][..], |raw| bytes_of(&raw.draws));
        self.gpus.stage(slot, [pixels, bytes_of(&batch.targets), draws], clock);
        let script = &self.scripts[number];
        for step in &script.steps {
            let Action::Load { input, first, rows, width, .. } = step.action else { continue };
            let part = |input: usize, width: usize| {
                let to = self.staging.address(&self.gpus, step.device, slot, input);
                self.gpus.send(step.device, Queue::Copy, (slot, input), first * width, to, rows * width)
            };
            if input == IMAGES {
                part(IMAGES, width * each)?;
                part(DRAWS, draws.len() / script.rows)?;
            } else {
                part(TARGETS, width * size_of::<f32>())?;
            }
        }
        for (device, arrived) in self.arrived.iter().enumerate() {
            self.gpus.record(device, Queue::Copy, arrived[slot])?;
            self.gpus.wait(0, Queue::Compute, arrived[slot])?;
        }
        Ok(slot)
    }

    /// Runs a program on a batch without its graph; returns its metrics and the seconds of every step.
    pub fn run_timed(&mut self, number: usize, batch: &Batch, clock: Clock) -> Result<(&[f32], Vec<f64>)> {
        let slot = self.begin(number, batch, clock)?;
        let script = &mut self.scripts[number];
        for step in &script.steps[script.clocks.len()..] {
            script.clocks.push((self.gpus.event(step.device)?, self.gpus.event(step.device)?));
        }
        let script = &self.scripts[number];
        self.issue(script, slot, &Watch::VectorClocks(&script.clocks))?;
        self.gpus.synchronize(0, Queue::Compute).map_err(|e| at_step(clock.step, &e))?;
        let timed = script.steps.iter().zip(&script.clocks);
        let seconds = timed.map(|(step, &(start, end))| self.gpus.seconds_between(step.device, start, end));
        let seconds = seconds.collect::<Result<_>>()?;
        Ok((self.gpus.values(slot), seconds))
    }

    /// Issues every step in the one order: fork from device 0's compute queue, join back, and take the metrics out.
    fn issue(&self, script: &IssueList, slot: usize, watch: &Watch) -> Result<()> {
        let gpus = &self.gpus;
        gpus.record(0, Queue::Compute, script.fork)?;
        for &(device, queue, _) in &script.joins {
            gpus.wait(device, queue, script.fork)?;
        }
        for device in 0..self.chains.len() {
            gpus.load_clock(device, Queue::Compute, slot)?;
        }
        for (number, step) in script.steps.iter().enumerate() {
            let clocks = if let Watch::VectorClocks(clocks) = watch { Some(clocks[number]) } else { None };
            let issued = self.issue_step(step, script, slot, clocks);
            let waited = issued.and_then(|()| match watch {
                Watch::Each => gpus.synchronize(step.device, step.queue),
                _ => Ok(()),
            });
            waited.map_err(|e| named(&step.name, &e))?;
        }
        for &(device, queue, join) in &script.joins {
            gpus.record(device, queue, join)?;
            gpus.wait(0, Queue::Compute, join)?;
        }
        let (offset, elements) = self.metrics;
        gpus.unload(0, Queue::Compute, slot, gpus.address(0, offset), elements)
    }

    fn issue_step(
        &self,
        step: &Ready,
        script: &IssueList,
        slot: usize,
        clocks: Option<(GpuEvent, GpuEvent)>,
    ) -> Result<()> {
        let (gpus, device, queue) = (&self.gpus, step.device, step.queue);
        for &event in &step.waits {
            gpus.wait(device, queue, event)?;
        }
        if let Some((start, _)) = clocks {
            gpus.record(device, queue, start)?;
        }
        match &step.action {
            Action::Load { input, to, .. } => {
                let at = |input| self.staging.address(gpus, device, slot, input);
                match self.prepared.as_ref().filter(|_| *input == IMAGES) {
                    None => gpus.receive(device, queue, at(*input), &to[LoadRole::Batch])?,
                    Some(Prepared { preparation, tables }) => {
                        let (draws, table) = (Const::at(at(DRAWS)), Const::at(tables[device]));
                        let launch = self.launch(step, script, to);
                        preparation.launch(script.augmented, &Arrived { pixels: at(IMAGES), draws, table }, &launch)?;
                    }
                }
            }
            Action::Phase { layer, node, phase, operands, epilogue } => {
                let launch = Launch { layer: *node, epilogue: *epilogue, ..self.launch(step, script, operands) };
                layer.launch(phase, &launch)?;
            }
            Action::Cast { from, to } => gpus.to_bf16(device, queue, from, to)?,
            Action::Sum { element, sources, targets } => {
                for &target in targets {
                    gpus.sum(device, queue, *element, sources, target)?;
                }
            }
            Action::Optim { stage, operands } => {
                self.chain.launch(*stage, &self.chains[device], &self.launch(step, script, operands))?;
            }
        }
        if let Some((_, end)) = clocks {
            gpus.record(device, queue, end)?;
        }
        step.record.map_or(Ok(()), |event| gpus.record(device, queue, event))
    }

    fn launch<'a, R>(&'a self, step: &Ready, script: &IssueList, operands: &'a Operands<R>) -> Launch<'a, R> {
        Launch {
            issue: self.gpus.issue(step.device, step.queue),
            operands,
            clock: self.gpus.clock(step.device),
            seed: self.seed,
            layer: 0,
            batch: script.rows,
            tf32: self.tf32,
            epilogue: None,
        }
    }

    /// Returns which algorithms libraries use.
    pub fn choices(&self) -> Record {
        self.gpus.choices()
    }

    /// Takes over the choices of a checkpoint; returns a line for those that do not fit.
    pub fn restore_choices(&self, record: &Record) -> Vec<String> {
        self.gpus.restore_choices(record)
    }

    /// Reads elements of a device's arena from a byte on.
    pub fn fetch(&self, device: usize, byte: usize, to: &mut [f32]) -> Result<()> {
        self.idle();
        self.gpus.fetch(device, byte, to)
    }

    /// Writes elements of a device's arena from a byte on; where they are weights, also their copy in bf16, which a
    /// step reads as the last one left it.
    pub fn store(&self, device: usize, byte: usize, from: &[f32]) -> Result<()> {
        self.idle();
        self.gpus.store(device, byte, from)?;
        let Some([weights, bf16_weights]) = self.weights else { return Ok(()) };
        let written = weights.offset..weights.offset + weights.elements * Element::F32.bytes();
        if !written.contains(&byte) || from.is_empty() {
            return Ok(());
        }
        let operand = |byte, element| {
            let window = LocalSlice { start: vec![0], len: vec![from.len()] };
            Operand::at(self.gpus.address(device, byte), element, Shape::from([from.len()]), window)
        };
        let copy = bf16_weights.offset + (byte - weights.offset) / Element::F32.bytes() * Element::Bf16.bytes();
        let (from, to) = (operand(byte, Element::F32), operand(copy, Element::Bf16));
        self.gpus.to_bf16(device, Queue::Compute, &from, &to)?;
        self.gpus.synchronize(device, Queue::Compute)
    }

    fn idle(&self) {
        assert!(self.under_way.is_empty(), "arenas are read and written between steps");
    }
}

/// Says in which part of a step a device failed.
fn named(part: &str, error: &Error) -> Error {
    Error::Run(format!("\"{part}\": {error}"))
}

/// Says at which update a device failed.
fn at_step(step: u64, error: &Error) -> Error {
    Error::Run(format!("step {step}: {error}"))
}

/// Says how to learn more about a failure that showed only at the end of a step.
fn later(error: &Error) -> Error {
    Error::Run(format!("{error}; run with PERISTYLE_WAIT=1, which waits for every launch, to learn in which layer"))
}

fn script(plan: &Plan, program: &Program, gpus: &Gpus) -> Result<IssueList> {
    let queues = plan.spec.mesh.devices() * Queue::COUNT;
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
    let pieces = |pieces: &[(usize, Strided)]| {
        let piece = |&(buffer, part): &(usize, Strided)| {
            let buffer = &program.buffers[buffer];
            (gpus.address(buffer.device, buffer.offset), part)
        };
        pieces.iter().map(piece).collect()
    };
    let ready = |(number, step): (usize, &super::Instruction)| {
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
                let layer = Arc::clone(&plan.network.nodes[*node].layer);
                let operands: Operands<Role> = operands.iter().map(|(role, l)| (*role, operand(l))).collect();
                let operands = operands.with_scratch(scratch.as_ref().map(operand));
                let epilogue = epilogue.map(|(epilogue, _)| epilogue);
                Action::Phase { layer, node: *node as u64, phase, operands, epilogue }
            }
            Work::Cast { from, to } => Action::Cast { from: operand(from), to: operand(to) },
            Work::Sum { sources, targets, .. } => {
                let element = program.buffers[targets[0].0].element;
                Action::Sum { element, sources: pieces(sources), targets: pieces(targets) }
            }
            Work::Optim { stage, operands } => {
                let operands = operands.iter().map(|(role, l)| (*role, operand(l))).collect();
                Action::Optim { stage: *stage, operands }
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
    // The clock goes to every device's compute queue, so each takes part.
    for device in 1..plan.spec.mesh.devices() {
        if !joins.iter().any(|&(d, queue, _)| (d, queue) == (device, Queue::Compute)) {
            joins.push((device, Queue::Compute, gpus.event(device)?));
        }
    }
    Ok(IssueList {
        steps,
        fork: gpus.event(0)?,
        joins,
        graphs: [None; InputStaging::SLOTS],
        proven: false,
        clocks: Vec::new(),
        rows: program.variant.batch,
        augmented: if program.variant.mode == Mode::Train { Augmented::Yes } else { Augmented::No },
    })
}
