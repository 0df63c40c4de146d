//! The programs of a plan on GPUs: each is issued to streams, captured as a graph, and replayed while the host prepares
//! the next batch.

use super::exchange::Outside;
use super::host_side::HostSide;
use super::issue_list::{Action, CLOCK, DRAWS, IMAGES, IssueList, TARGETS};
use super::issuer::{Issuer, Moment, Prepared, StagingBuffers, Watch};
use super::nccl::NcclSide;
use super::nccl_progress::NcclProgress;
use super::observer::{ArenaPart, Observer, Shown};
use super::{AllocatedRegion, Execution, Graphs, InputStaging, Plan};
use crate::data::{Batch, Preparation};
use crate::device::{Clock, HostMemory, Operand, Queue};
use crate::error::{Error, Result};
use crate::gpu::libraries::{LibraryReport, Record};
use crate::gpu::{CLOCK_BYTES, GpuEvent, Gpus, Graph, bytes_of, clock_words};
use crate::optim::DeviceChain;
use crate::placement::Region;
use crate::tensor::{Element, LocalSlice, MatmulPrecision, Shape};
use half::bf16;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// A submitted step.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    program: usize,
    slot: usize,
    step: u64,
}

/// The programs of a plan on its GPUs.
#[derive(Debug)]
pub(super) struct Programs {
    issuer: Issuer,
    lists: Vec<IssueList>,
    /// The weights and their copy in bf16, if they have one.
    weights: Option<[AllocatedRegion; 2]>,
    /// Whether a program is captured at its first run.
    pub graphs: Graphs,
    /// In serial execution, the host waits for each instruction before it issues the next.
    pub execution: Execution,
    /// Whether the host waits for every launch of every step.
    waits: bool,
    /// For each device and slot: the batch has reached the staging buffers.
    arrived: Vec<[GpuEvent; InputStaging::SLOTS]>,
    /// For each slot: device 0 has finished the step.
    done: [GpuEvent; InputStaging::SLOTS],
    /// The slot of the next step.
    next: usize,
    /// The submitted steps that have not finished.
    under_way: VecDeque<UnderWay>,
    /// The seconds that the first device waited for communication since [`Programs::take_exposed`] was called last.
    exposed: f64,
    /// Why a collective between processes failed, if one did.
    failure: Arc<Mutex<Option<String>>>,
}

impl Programs {
    /// Creates the programs on open GPUs whose arenas have the plan's sizes.
    pub fn new(plan: &Plan, mut gpus: Gpus, nccl: Option<NcclSide>, outside: Option<&Outside>) -> Result<Programs> {
        let by_host = outside.filter(|_| nccl.is_none());
        let side = by_host.map(|outside| HostSide::new(plan, outside)).transpose()?;
        let list = |program| IssueList::new(plan, program, &gpus, side.as_ref(), nccl.as_ref());
        let lists = plan.programs.iter().map(list).collect::<Result<_>>()?;
        let failure = side.map(|side| side.failure).unwrap_or_default();
        let devices = plan.own.len();
        let buckets: Vec<_> = plan.flat.buckets.iter().map(|b| b.offset..b.offset + b.len).collect();
        let mut chains = Vec::new();
        for device in 0..devices {
            chains.push(DeviceChain::new(
                &plan.chain,
                &plan.segments(device),
                &buckets,
                plan.network.num_units(),
                &mut gpus,
                device,
            )?);
        }
        let connected = nccl.as_ref().zip(outside);
        let progress =
            connected.map(|(side, outside)| NcclProgress::begin(plan, &mut gpus, outside.team, &side.communicators));
        let progress = progress.transpose()?;
        let allocated = |region| plan.regions.get(region);
        let arrived = (0..devices).map(|device| Ok([gpus.event(device)?, gpus.event(device)?]));
        let arrived = arrived.collect::<Result<_>>()?;
        let done = [gpus.event(0)?, gpus.event(0)?];
        let issuer = Issuer {
            nccl,
            gpus,
            progress,
            chains,
            chain: Arc::clone(&plan.chain),
            metrics: plan.region(Region::Metrics),
            staging: StagingBuffers { byte: plan.region(Region::InputStaging).0, staging: plan.staging() },
            prepared: None,
            seed: plan.spec.seed,
            tf32: plan.spec.products == MatmulPrecision::Tf32,
        };
        Ok(Programs {
            issuer,
            lists,
            weights: allocated(Region::Weights).zip(allocated(Region::Bf16Weights)).map(<[AllocatedRegion; 2]>::from),
            execution: Execution::default(),
            waits: std::env::var_os("PERISTYLE_WAIT").is_some(),
            graphs: Graphs::default(),
            arrived,
            done,
            next: 0,
            under_way: VecDeque::new(),
            exposed: 0.0,
            failure,
        })
    }

    /// Accepts raw images from now on, and prepares them on the GPUs.
    pub fn prepare(&mut self, preparation: Preparation) -> Result<()> {
        let table = preparation.table();
        let tables =
            (0..self.arrived.len()).map(|device| self.issuer.gpus.upload(device, &table)).collect::<Result<_>>()?;
        self.issuer.prepared = Some(Prepared { preparation, tables });
        Ok(())
    }

    /// Returns the memory for raw images that are copied without staging.
    pub fn host_memory(&self) -> &dyn HostMemory {
        self.issuer.gpus.host_memory()
    }

    /// Returns true if it accepts raw images.
    pub fn prepares(&self) -> bool {
        self.issuer.prepared.is_some()
    }

    /// Returns the number of submitted steps that have not finished.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Starts a program on a batch, which is copied to the devices while earlier steps run.
    pub fn submit(&mut self, number: usize, batch: &Batch, clock: Clock) -> Result<()> {
        let slot = self.begin(number, batch, clock)?;
        let list = &self.lists[number];
        if self.waits || self.execution == Execution::Serial || !list.proven {
            // A faulty kernel usually faults at its first launch, and can be named if it runs alone. Besides, a kernel
            // must not be loaded during a capture.
            self.issuer.issue(list, slot, &Watch::Each).map_err(|e| at_step(clock.step, &e))?;
            self.lists[number].proven = true;
        } else if self.graphs == Graphs::Captured {
            let graph = self.replay(list.graphs[slot], number, slot, &Watch::None)?;
            self.lists[number].graphs[slot] = graph;
        } else {
            self.issuer.issue(list, slot, &Watch::None)?;
        }
        self.submitted(number, slot, clock)
    }

    /// Records that a step has been issued.
    fn submitted(&mut self, program: usize, slot: usize, clock: Clock) -> Result<()> {
        self.issuer.gpus.record(0, Queue::Compute, self.done[slot])?;
        self.under_way.push_back(UnderWay { program, slot, step: clock.step });
        Ok(())
    }

    /// Starts a program on a batch, without a graph, and shows it to an observer.
    pub fn submit_observed(
        &mut self,
        number: usize,
        batch: &Batch,
        clock: Clock,
        (shown, observer): (&HashMap<usize, Shown>, &dyn Observer),
    ) -> Result<()> {
        let slot = self.begin(number, batch, clock)?;
        let list = &self.lists[number];
        let show = |index: usize, moment: Moment| {
            let step = &list.steps[index];
            match (shown.get(&index), moment) {
                (Some(Shown::Gradients { byte }), Moment::Before) => {
                    for (device, queue) in (0..self.arrived.len()).flat_map(|d| Queue::ALL.map(|queue| (d, queue))) {
                        self.issuer.gpus.synchronize(device, queue)?;
                    }
                    observer.gradients(step.device, &|range| {
                        let byte = byte + range.start * Element::F32.bytes();
                        self.values(step.device, ArenaPart { byte, elements: range.len(), element: Element::F32 })
                    })
                }
                (Some(Shown::Output { node, operand, at }), Moment::After) => {
                    self.issuer.gpus.synchronize(step.device, step.queue)?;
                    observer.output(*node, operand, &self.values(step.device, *at)?);
                    Ok(())
                }
                _ => Ok(()),
            }
        };
        self.issuer.issue(list, slot, &Watch::Shown(&show)).map_err(|e| at_step(clock.step, &e))?;
        self.submitted(number, slot, clock)
    }

    /// Returns values of a device's arena.
    pub fn values(&self, device: usize, ArenaPart { byte, elements, element }: ArenaPart) -> Result<Vec<f64>> {
        let mut words = vec![0.0f32; (elements * element.bytes()).div_ceil(size_of::<f32>())];
        self.fetch(device, byte, &mut words)?;
        if element != Element::Bf16 {
            return Ok(words.into_iter().map(f64::from).collect());
        }
        let halves = |word: f32| [word.to_bits() as u16, (word.to_bits() >> 16) as u16];
        let values = words.into_iter().flat_map(halves).map(|bits| bf16::from_bits(bits).to_f64());
        Ok(values.take(elements).collect())
    }

    /// Launches the graph of a program, which is captured first if there is none. If that fails, issues the program
    /// without a graph, this time and from now on.
    fn replay(&mut self, graph: Option<Graph>, number: usize, slot: usize, watch: &Watch) -> Result<Option<Graph>> {
        let (issuer, list) = (&self.issuer, &self.lists[number]);
        match graph.map_or_else(|| issuer.gpus.capture(|| issuer.issue(list, slot, watch)), Ok) {
            Ok(graph) => issuer.gpus.launch_graph(graph).map(|()| Some(graph)),
            Err(error) => {
                tracing::warn!("{error}; steps are issued launch by launch instead, which is slower");
                self.graphs = Graphs::None;
                issuer.issue(list, slot, watch).map(|()| None)
            }
        }
    }

    /// Waits for the oldest submitted step and returns its metrics.
    ///
    /// # Panics
    /// If no step was submitted.
    pub fn finish(&mut self) -> Result<&[f32]> {
        let UnderWay { program, slot, step } = self.under_way.pop_front().expect("a step was submitted");
        self.issuer.gpus.synchronize_event(0, self.done[slot]).map_err(|e| at_step(step, &later(&e)))?;
        self.ended();
        if let Some(message) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Error::Run(message));
        }
        for (start, end) in self.lists[program].steps.iter().filter_map(|step| Some(step.timers?[slot])) {
            self.exposed += self.issuer.gpus.seconds_between(0, start, end)?;
        }
        Ok(self.issuer.gpus.values(slot))
    }

    /// Returns the seconds that the first device waited for communication since the last call.
    pub fn take_exposed(&mut self) -> f64 {
        std::mem::take(&mut self.exposed)
    }

    /// Records that the oldest step has ended.
    fn ended(&self) {
        if let Some(progress) = &self.issuer.progress {
            progress.ended();
        }
    }

    /// Copies a batch to the next slot of the staging buffers; device 0's compute queue waits for it.
    fn begin(&mut self, number: usize, batch: &Batch, clock: Clock) -> Result<usize> {
        assert!(self.under_way.len() < InputStaging::SLOTS, "a slot is free");
        let slot = self.next;
        self.next = (slot + 1) % InputStaging::SLOTS;
        if let Some(progress) = &self.issuer.progress {
            progress.begins(number, slot, clock.step);
        }
        let (pixels, pinned) = match &batch.raw {
            Some(raw) => (raw.pixels.bytes(), raw.pixels.pinned()),
            None => (bytes_of(&batch.images), None),
        };
        let draws = batch.raw.as_ref().map_or(&[][..], |raw| bytes_of(&raw.draws));
        let staged = if pinned.is_some() { &[][..] } else { pixels };
        self.issuer.gpus.stage(slot, [staged, bytes_of(&batch.targets), draws, bytes_of(&clock_words(clock))])?;
        let list = &self.lists[number];
        // Images may be stored in another shape than the network's input.
        let image = pixels.len() / list.rows;
        for step in &list.steps {
            let Action::Load { input, first, rows, width, .. } = step.action else { continue };
            let part = |input: usize, width: usize| {
                let to = self.issuer.staging.address(&self.issuer.gpus, step.device, slot, input);
                self.issuer.gpus.send(step.device, Queue::Copy, (slot, input), first * width, to, rows * width)
            };
            if input == IMAGES {
                if let Some(pinned) = pinned {
                    let own = first * image..(first + rows) * image;
                    let to = self.issuer.staging.address(&self.issuer.gpus, step.device, slot, IMAGES);
                    self.issuer.gpus.send_pinned(step.device, Queue::Copy, pinned, own, to)?;
                } else {
                    part(IMAGES, image)?;
                }
                part(DRAWS, draws.len() / list.rows)?;
            } else {
                part(TARGETS, width * size_of::<f32>())?;
            }
        }
        for (device, arrived) in self.arrived.iter().enumerate() {
            let clock = self.issuer.staging.address(&self.issuer.gpus, device, slot, CLOCK);
            self.issuer.gpus.send(device, Queue::Copy, (slot, CLOCK), 0, clock, CLOCK_BYTES)?;
            self.issuer.gpus.record(device, Queue::Copy, arrived[slot])?;
            self.issuer.gpus.wait(0, Queue::Compute, arrived[slot])?;
        }
        Ok(slot)
    }

    /// Runs a program on a batch, one instruction after another. After each, calls `goes_on` with its index, until that
    /// returns false.
    pub fn run_each(
        &mut self,
        number: usize,
        batch: &Batch,
        clock: Clock,
        mut goes_on: impl FnMut(&Self, usize) -> Result<bool>,
    ) -> Result<()> {
        let slot = self.begin(number, batch, clock)?;
        self.issuer.gpus.synchronize(0, Queue::Compute)?;
        let list = &self.lists[number];
        for numbers in list.together() {
            self.issuer.issue_alone(list, numbers.clone(), slot).map_err(|e| at_step(clock.step, &e))?;
            for index in numbers {
                if !goes_on(self, index)? {
                    self.ended();
                    return Ok(());
                }
            }
        }
        self.ended();
        Ok(())
    }

    /// Runs a program on a batch, if possible as a graph with timers in it; returns the metrics and the seconds of
    /// every instruction.
    pub fn run_timed(&mut self, number: usize, batch: &Batch, clock: Clock) -> Result<(&[f32], Vec<f64>)> {
        let slot = self.begin(number, batch, clock)?;
        let list = &mut self.lists[number];
        for step in &list.steps[list.clocks.len()..] {
            list.clocks.push((self.issuer.gpus.timer(step.device)?, self.issuer.gpus.timer(step.device)?));
        }
        let (clocks, proven, graph) = (std::mem::take(&mut list.clocks), list.proven, list.timed[slot]);
        if proven && self.graphs == Graphs::Captured {
            let graph = self.replay(graph, number, slot, &Watch::Timed(&clocks))?;
            self.lists[number].timed[slot] = graph;
        } else {
            self.issuer.issue(list, slot, &Watch::Timed(&clocks))?;
        }
        let list = &mut self.lists[number];
        list.clocks = clocks;
        self.issuer.gpus.synchronize(0, Queue::Compute).map_err(|e| at_step(clock.step, &e))?;
        self.ended();
        let list = &self.lists[number];
        let timed = list.steps.iter().zip(&list.clocks);
        let seconds = timed.map(|(step, &(start, end))| self.issuer.gpus.seconds_between(step.device, start, end));
        let seconds = seconds.collect::<Result<_>>()?;
        Ok((self.issuer.gpus.values(slot), seconds))
    }

    /// Returns the algorithms that the libraries use.
    pub fn choices(&self) -> Record {
        self.issuer.gpus.choices()
    }

    /// Returns what the libraries compute so far.
    pub fn library_report(&self) -> LibraryReport {
        self.issuer.gpus.library_report()
    }

    /// Restores the choices of a checkpoint; returns a line for those that do not apply.
    pub fn restore_choices(&self, record: &Record) -> Vec<String> {
        self.issuer.gpus.restore_choices(record)
    }

    /// Reads elements of a device's arena, starting at a byte.
    pub fn fetch(&self, device: usize, byte: usize, to: &mut [f32]) -> Result<()> {
        self.idle();
        self.issuer.gpus.fetch(device, byte, to)
    }

    /// Writes elements of a device's arena, starting at a byte. If they are weights, it also writes their copy in bf16,
    /// because a step does not refresh that copy before it reads it.
    pub fn store(&self, device: usize, byte: usize, from: &[f32]) -> Result<()> {
        self.idle();
        self.issuer.gpus.store(device, byte, from)?;
        let Some([weights, bf16_weights]) = self.weights else { return Ok(()) };
        let written = weights.offset..weights.offset + weights.elements * Element::F32.bytes();
        if !written.contains(&byte) || from.is_empty() {
            return Ok(());
        }
        let operand = |byte, element| {
            let window = LocalSlice { start: vec![0], len: vec![from.len()] };
            Operand::at(self.issuer.gpus.address(device, byte), element, Shape::from([from.len()]), window)
        };
        let copy = bf16_weights.offset + (byte - weights.offset) / Element::F32.bytes() * Element::Bf16.bytes();
        let (from, to) = (operand(byte, Element::F32), operand(copy, Element::Bf16));
        self.issuer.gpus.to_bf16(device, Queue::Compute, &from, &to)?;
        self.issuer.gpus.synchronize(device, Queue::Compute)
    }

    fn idle(&self) {
        assert!(self.under_way.is_empty(), "arenas are read and written between steps");
    }
}

/// Adds the number of the step in which a device failed.
fn at_step(step: u64, error: &Error) -> Error {
    Error::Run(format!("step {step}: {error}"))
}

/// Adds how to find the cause of a failure that was detected only at the end of a step.
fn later(error: &Error) -> Error {
    Error::Run(format!("{error}; run with PERISTYLE_WAIT=1, which waits for every launch, to find the layer"))
}
