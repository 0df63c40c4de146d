//! Runs the programs of a plan, and reads and writes the tensors that outlive a step.

use super::execution::{Execution, Graphs};
use super::{InputStaging, Plan, cpu, gpu};
use crate::data::{Batch, Destination, Preparation, Preparer};
use crate::device::{Clock, LibraryUse, Target};
use crate::error::{Error, Result};
use crate::gpu::libraries::{LibraryReport, Record};
use crate::gpu::{CLOCK_BYTES, DriverKind, GpuOptions, Gpus};
use crate::placement::{Peers, Region, Variant};
use crate::tensor::{Axis, Dual, Layout, LocalSlice, Placement, Precision, Real, Shape, Strided};
use std::ops::Range;

/// The loss of a step, and what was not finite.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepResult {
    /// The loss of the network: the weighted sum of its losses, each the mean over the samples of the global batch.
    pub loss: f64,
    /// The number of devices on which a metric of the batch or a gradient of the last update was not finite; unless it is
    /// 0, nothing was updated.
    pub bad_gradients: f64,
    /// The number of devices on which the last update made a weight that is not finite.
    pub bad_weights: f64,
}

/// A tensor that outlives a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistent {
    /// A parameter.
    Parameter(usize),
    /// The gradient of a parameter.
    Gradient(usize),
    /// A parameter's part of a state slot of the optimiser: (slot, parameter).
    Slot(usize, usize),
    /// A running statistic.
    Statistic(usize),
}

/// The direction of a copy: to the device or from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

/// The programs on their devices.
#[derive(Debug)]
pub(super) enum Devices {
    Cpu(cpu::Programs),
    Gpu(gpu::Programs),
}

/// The devices of a plan, with their memory and queues.
#[derive(Debug)]
pub struct Session {
    pub(super) plan: Plan,
    pub(super) devices: Devices,
    /// The values of [`Region::Metrics`] after the step that finished last.
    pub(super) values: Vec<f64>,
    /// Whether CPU devices ran a step whose result [`Session::finish`] has not returned yet.
    pub(super) finished: bool,
}

fn widen(values: &mut [f64], from: &[f32]) {
    values.iter_mut().zip(from).for_each(|(to, &from)| *to = f64::from(from));
}

impl Session {
    /// Allocates the arenas of a plan on CPU devices and starts their queues. All values are zero.
    ///
    /// # Errors
    /// If this machine does not have enough memory or threads.
    pub fn new(plan: Plan) -> Result<Self> {
        let devices = Devices::Cpu(cpu::Programs::new(&plan)?);
        Ok(Session::of(plan, devices))
    }

    /// Allocates the arenas of a plan on GPUs, which may be emulated; `ordinals` holds the GPU of each device.
    ///
    /// # Errors
    /// If a GPU is missing, has too little memory, or cannot be used.
    pub fn on_gpus(plan: Plan, kind: DriverKind, ordinals: &[usize]) -> Result<Self> {
        assert_eq!(plan.spec.precision, Precision::F32, "GPUs compute in f32");
        let rows = plan.spec.variants.iter().map(|v| v.batch).max().unwrap_or(0);
        let sizes = plan.spec.augment;
        let widths = [plan.network.input.features().max(sizes.stored), plan.spec.target_width, sizes.drawn];
        let [images, targets, draws] = widths.map(|width| rows * width * size_of::<f32>());
        let threads = plan.spec.target.threads();
        let gpus = Gpus::open(&GpuOptions {
            kind,
            ordinals,
            arenas: &plan.arena,
            host: (plan.spec.peers != Peers::All).then_some(plan.host),
            staging: [images, targets, draws, CLOCK_BYTES],
            values: plan.region(Region::Metrics).1,
            slots: InputStaging::SLOTS,
            threads,
        })?;
        if let Target::Gpu { libraries, .. } = plan.spec.target {
            gpus.use_libraries(libraries)?;
        }
        let devices = Devices::Gpu(gpu::Programs::new(&plan, gpus)?);
        Ok(Session::of(plan, devices))
    }

    fn of(plan: Plan, devices: Devices) -> Self {
        let values = vec![0.0; plan.region(Region::Metrics).1];
        Session { plan, devices, values, finished: false }
    }

    /// Sets how GPUs receive their work; no effect on CPU devices.
    pub fn graphs(mut self, graphs: Graphs) -> Self {
        if let Devices::Gpu(programs) = &mut self.devices {
            programs.graphs = graphs;
        }
        self
    }

    /// Sets whether instructions run on queues or one after another.
    pub fn execution(mut self, execution: Execution) -> Self {
        match &mut self.devices {
            Devices::Cpu(programs) => programs.execution = execution,
            Devices::Gpu(programs) => programs.execution = execution,
        }
        self
    }

    /// Returns the plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the algorithms that NVIDIA's libraries use: those of the programs that ran, and those of a checkpoint.
    pub fn choices(&self) -> Record {
        match &self.devices {
            Devices::Cpu(_) => Record::default(),
            Devices::Gpu(programs) => programs.choices(),
        }
    }

    /// Returns what NVIDIA's libraries compute so far, if they may compute anything.
    pub fn library_report(&self) -> Option<LibraryReport> {
        match (&self.devices, self.plan.spec.target) {
            (Devices::Gpu(programs), Target::Gpu { libraries, .. }) if libraries != LibraryUse::Off => {
                Some(programs.library_report())
            }
            _ => None,
        }
    }

    /// Restores the choices of a checkpoint, before the first step; returns a line for those that do not apply.
    pub fn restore_choices(&mut self, record: &Record) -> Vec<String> {
        match &self.devices {
            Devices::Cpu(_) => Vec::new(),
            Devices::Gpu(programs) => programs.restore_choices(record),
        }
    }

    /// Returns whether the host or the device augments and normalises the images of its batches.
    pub fn preparer(&self) -> Preparer {
        match &self.devices {
            Devices::Gpu(programs) if programs.prepares() => Preparer::Device,
            _ => Preparer::Host,
        }
    }

    /// Returns what a loader of batches for this session needs to know. A batch is read at most until the step after
    /// the next one has been submitted.
    ///
    /// # Panics
    /// If steps are under way.
    pub fn destination(&self) -> Destination<'_> {
        assert_eq!(self.under_way(), 0, "the buffers of an earlier loader may still be read");
        let preparer = self.preparer();
        match &self.devices {
            Devices::Gpu(programs) if preparer == Preparer::Device => {
                Destination { preparer, memory: programs.host_memory(), reads: InputStaging::READS, workers: 1 }
            }
            _ => Destination::host(),
        }
    }

    /// Makes GPUs augment and normalise the images of all batches from now on; CPU devices receive them prepared.
    ///
    /// # Errors
    /// If a device has too little memory.
    pub fn prepare(&mut self, preparation: Preparation) -> Result<()> {
        match &mut self.devices {
            Devices::Cpu(_) => Ok(()),
            Devices::Gpu(programs) => programs.prepare(preparation),
        }
    }

    /// Returns how many steps may be in flight at once: on a GPU the batch of one step is copied while another runs.
    pub fn depth(&self) -> usize {
        match self.devices {
            Devices::Cpu(_) => 1,
            Devices::Gpu(_) => InputStaging::SLOTS,
        }
    }

    /// Returns the number of steps that were submitted and have not finished.
    pub fn under_way(&self) -> usize {
        match &self.devices {
            Devices::Cpu(_) => usize::from(self.finished),
            Devices::Gpu(programs) => programs.under_way(),
        }
    }

    /// Starts one step on a batch, as in [`Session::run`]; [`Session::finish`] returns its result. On CPU devices the
    /// step runs during this call.
    ///
    /// # Errors
    /// If a step fails on a device, or the plan has no such variant.
    ///
    /// # Panics
    /// If [`Session::depth`] steps are in flight, or the batch does not match [`Session::preparer`].
    pub fn submit(&mut self, variant: Variant, batch: &mut Batch, clock: Clock) -> Result<()> {
        let number = self.number(variant, batch)?;
        match &mut self.devices {
            Devices::Gpu(programs) => programs.submit(number, batch, clock),
            Devices::Cpu(programs) => {
                assert!(!self.finished, "CPU devices run one step at a time");
                programs.run(number, batch, clock)?;
                self.finished = true;
                Ok(())
            }
        }
    }

    /// Waits for the oldest step in flight and returns its result; [`Session::metrics`] then has its metrics.
    ///
    /// # Errors
    /// If a step failed on a device.
    ///
    /// # Panics
    /// If no step is in flight.
    pub fn finish(&mut self) -> Result<StepResult> {
        match &mut self.devices {
            Devices::Gpu(programs) => widen(&mut self.values, programs.finish()?),
            Devices::Cpu(programs) => {
                assert!(std::mem::take(&mut self.finished), "a step was submitted");
                programs.metrics(&mut self.values);
            }
        }
        Ok(self.result())
    }

    /// Returns the values of [`Network::metrics`](crate::network::Network::metrics) in the step that finished last: means
    /// over the samples of the batch, and numbers of samples.
    pub fn metrics(&self) -> &[f64] {
        &self.values[..self.plan.network.metrics.len()]
    }

    fn result(&self) -> StepResult {
        let metrics = self.metrics();
        let [bad_gradients, bad_weights, ..] = self.values[metrics.len()..] else { unreachable!("two counts follow") };
        StepResult { loss: self.plan.network.loss(metrics), bad_gradients, bad_weights }
    }

    /// Runs one step on a batch, which is unchanged afterwards.
    ///
    /// # Errors
    /// If a step fails on a device, or the plan has no such variant.
    pub fn run(&mut self, variant: Variant, batch: &mut Batch, clock: Clock) -> Result<StepResult> {
        assert_eq!(self.under_way(), 0, "submitted steps must finish first");
        self.submit(variant, batch, clock)?;
        self.finish()
    }

    /// Runs one step as [`Session::run`] does (on GPUs without a graph), and also returns the seconds of each
    /// instruction in the program's order. Waiting for events is not counted.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_timed(&mut self, variant: Variant, batch: &mut Batch, clock: Clock) -> Result<(StepResult, Vec<f64>)> {
        let number = self.number(variant, batch)?;
        assert_eq!(self.under_way(), 0, "submitted steps must finish first");
        let seconds = match &mut self.devices {
            Devices::Gpu(programs) => {
                let (values, seconds) = programs.run_timed(number, batch, clock)?;
                widen(&mut self.values, values);
                seconds
            }
            Devices::Cpu(programs) => {
                let timed = programs.run_timed(number, batch, clock)?;
                programs.metrics(&mut self.values);
                let steps = self.plan.programs[number].instructions.iter();
                steps.map(|step| timed.seconds(step.queue_index(), step.index)).collect()
            }
        };
        Ok((self.result(), seconds))
    }

    /// Returns the index of the program for a batch.
    pub(super) fn number(&self, variant: Variant, batch: &Batch) -> Result<usize> {
        let prepared_by = if batch.raw.is_some() { Preparer::Device } else { Preparer::Host };
        assert_eq!(prepared_by, self.preparer(), "the batch must match the session's preparer");
        let number = self.plan.programs.iter().position(|p| p.variant == variant);
        number.ok_or_else(|| Error::Run(format!("no program was planned for {variant:?}")))
    }

    /// Returns the layout, shape and first byte of a tensor in every device's arena.
    fn find(&self, which: Persistent) -> (Layout, Shape, usize) {
        let plan = &self.plan;
        let bytes = plan.spec.precision.bytes();
        let param = |i: usize, region| {
            let part = plan.flat.parts[i];
            let shape = plan.network.parameters[i].param.shape.clone();
            (part.layout, shape, plan.region(region).0 + part.offset * bytes)
        };
        match which {
            Persistent::Parameter(i) => param(i, Region::Weights),
            Persistent::Gradient(i) => param(i, Region::Gradients),
            Persistent::Slot(slot, i) => param(i, Region::Slot(slot)),
            Persistent::Statistic(i) => {
                let (layout, offset) = plan.statistics[i];
                let shape = plan.network.statistics[i].param.shape.clone();
                (layout, shape, plan.region(Region::Statistics).0 + offset * bytes)
            }
        }
    }

    /// Returns a device's elements of a region.
    ///
    /// # Errors
    /// If a GPU reports an error.
    ///
    /// # Panics
    /// If `T` is not the plan's precision.
    pub fn read_region<T: Real>(&self, device: usize, region: Region) -> Result<Vec<T>> {
        let (at, elements) = self.plan.region(region);
        let mut all = vec![T::ZERO; elements];
        self.with::<T>(device, at, elements, Direction::Out, |from| all.copy_from_slice(from))?;
        Ok(all)
    }

    /// Writes a device's elements of a region.
    ///
    /// # Errors
    /// If a GPU reports an error.
    ///
    /// # Panics
    /// If `T` is not the plan's precision, or the number of elements is not the region's.
    pub fn write_region<T: Real>(&mut self, device: usize, region: Region, all: &[T]) -> Result<()> {
        let (at, elements) = self.plan.region(region);
        self.with::<T>(device, at, elements, Direction::In, |to| to.copy_from_slice(all))
    }

    /// Exchanges the weights with the averages of the weights.
    ///
    /// # Errors
    /// If a GPU reports an error.
    ///
    /// # Panics
    /// If the chain keeps no averages.
    pub fn exchange_average(&mut self) -> Result<()> {
        let slot = self.plan.chain.average().expect("the chain keeps averages");
        match self.plan.spec.precision {
            Precision::F32 => self.exchange::<f32>(Region::Weights, Region::Slot(slot)),
            Precision::F64 => self.exchange::<f64>(Region::Weights, Region::Slot(slot)),
            Precision::Dual => self.exchange::<Dual>(Region::Weights, Region::Slot(slot)),
        }
    }

    fn exchange<T: Real>(&mut self, a: Region, b: Region) -> Result<()> {
        for device in 0..self.plan.spec.mesh.devices() {
            let (first, second) = (self.read_region::<T>(device, a)?, self.read_region::<T>(device, b)?);
            self.write_region(device, a, &second)?;
            self.write_region(device, b, &first)?;
        }
        Ok(())
    }

    /// Calls `f` with elements of a device's arena; for GPUs, copies them from the device before or to it after.
    fn with<T: Real>(
        &self,
        device: usize,
        at: usize,
        elements: usize,
        way: Direction,
        f: impl FnOnce(&mut [T]),
    ) -> Result<()> {
        match &self.devices {
            Devices::Cpu(programs) => programs.with(device, at, elements, f),
            Devices::Gpu(programs) => {
                let mut host = vec![0.0f32; elements];
                if way == Direction::Out {
                    programs.fetch(device, at, &mut host)?;
                }
                let mut values: Vec<T> = host.iter().map(|&v| T::from_f64(f64::from(v))).collect();
                f(&mut values);
                if way == Direction::In {
                    host.iter_mut().zip(values).for_each(|(to, from)| *to = from.to_f64() as f32);
                    programs.store(device, at, &host)?;
                }
            }
        }
        Ok(())
    }

    /// Returns all elements of a tensor, assembled from the devices that hold them.
    ///
    /// # Errors
    /// If a GPU reports an error.
    ///
    /// # Panics
    /// If `T` is not the plan's precision.
    pub fn read<T: Real>(&self, which: Persistent) -> Result<Vec<T>> {
        let rows = self.find(which).1.0[0];
        self.read_rows(which, 0..rows)
    }

    /// Returns some rows (indices of dimension 0) of a tensor, assembled from the devices that hold them.
    ///
    /// # Errors
    /// As [`Session::read`].
    ///
    /// # Panics
    /// As [`Session::read`].
    pub fn read_rows<T: Real>(&self, which: Persistent, rows: Range<usize>) -> Result<Vec<T>> {
        let (layout, shape, _) = self.find(which);
        let mesh = self.plan.spec.mesh;
        let mut all = vec![T::ZERO; rows.len() * shape.elements() / shape.0[0].max(1)];
        for device in 0..mesh.devices() {
            let at = mesh.position(device);
            let copy = |axis: Axis| layout.on(axis) == Placement::Replicate && at.on(axis) > 0;
            if Axis::INNER_FIRST.into_iter().any(copy) {
                continue;
            }
            let Some((at, elements, part)) = self.part(which, device, &rows) else { continue };
            self.with::<T>(device, at, elements, Direction::Out, |from| {
                for (row, from) in from.chunks_exact(part.len.max(1)).enumerate() {
                    all[part.offset + row * part.stride..][..part.len].copy_from_slice(from);
                }
            })?;
        }
        Ok(all)
    }

    /// Writes its part of a tensor to every device.
    ///
    /// # Errors
    /// If a GPU reports an error.
    ///
    /// # Panics
    /// If `T` is not the plan's precision, or the number of elements is not the tensor's.
    pub fn write<T: Real>(&mut self, which: Persistent, all: &[T]) -> Result<()> {
        let rows = self.find(which).1.0[0];
        self.write_rows(which, 0..rows, all)
    }

    /// Writes its part of some rows (indices of dimension 0) of a tensor to every device.
    ///
    /// # Errors
    /// As [`Session::write`].
    ///
    /// # Panics
    /// As [`Session::write`].
    pub fn write_rows<T: Real>(&mut self, which: Persistent, rows: Range<usize>, all: &[T]) -> Result<()> {
        let shape = self.find(which).1;
        assert_eq!(all.len(), rows.len() * shape.elements() / shape.0[0].max(1));
        for device in 0..self.plan.spec.mesh.devices() {
            let Some((at, elements, part)) = self.part(which, device, &rows) else { continue };
            self.with::<T>(device, at, elements, Direction::In, |to| {
                for (row, to) in to.chunks_exact_mut(part.len.max(1)).enumerate() {
                    to.copy_from_slice(&all[part.offset + row * part.stride..][..part.len]);
                }
            })?;
        }
        Ok(())
    }

    /// Returns where a device holds its part of some rows of a tensor: the first byte, the number of elements, and their
    /// places among the rows' elements. `None` if it holds none of them.
    fn part(&self, which: Persistent, device: usize, rows: &Range<usize>) -> Option<(usize, usize, Strided)> {
        let (layout, shape, offset) = self.find(which);
        let mesh = self.plan.spec.mesh;
        let mut window = layout.window(&shape, mesh, mesh.position(device));
        let mut whole = LocalSlice { start: vec![0; shape.rank()], len: shape.0 };
        (whole.start[0], whole.len[0]) = (rows.start, rows.len());
        let (first, end) = (window.start[0], window.start[0] + window.len[0]);
        let (start, end) = (first.max(rows.start), end.min(rows.end));
        if start >= end {
            return None;
        }
        let before: usize = (start - first) * window.len[1..].iter().product::<usize>();
        (window.start[0], window.len[0]) = (start, end - start);
        let at = offset + before * self.plan.spec.precision.bytes();
        Some((at, window.elements(), Strided::of(&window, &whole)))
    }
}
