//! Runs the programs of a plan.

use super::exchange::Outside;
use super::execution::{Execution, Graphs};
use super::nccl::NcclSide;
use super::{InputStaging, Plan, cpu, gpu};
use crate::cluster::Team;
use crate::data::{Batch, Destination, Preparation, Preparer, Share};
use crate::device::{Clock, LibraryUse, Target};
use crate::error::{Error, Result};
use crate::gpu::libraries::{LibraryReport, Record};
use crate::gpu::{CLOCK_BYTES, DriverKind, GpuOptions, Gpus};
use crate::placement::{Peers, Region, Variant};
use crate::tensor::Precision;
use std::sync::Arc;

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

/// The programs on their devices.
#[derive(Debug)]
pub(super) enum Devices {
    Cpu(Box<cpu::Programs>),
    Gpu(Box<gpu::Programs>),
}

/// The devices of a plan, with their memory and queues.
#[derive(Debug)]
pub struct Session {
    pub(super) plan: Plan,
    /// The other processes, if the devices of the plan are those of one of several.
    pub(super) team: Option<Arc<Team>>,
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
        let devices = Devices::Cpu(Box::new(cpu::Programs::new(&plan, None)?));
        Ok(Session::of(plan, None, devices))
    }

    /// Opens the devices of this process for the plan of all processes, which call this at the same time: those of a driver, of which
    /// `ordinals` has the GPUs of all processes, or CPU devices.
    ///
    /// # Errors
    /// As [`Session::new`] and [`Session::on_gpus`], or if the processes cannot exchange data.
    pub fn of_team(plan: &Plan, team: &Arc<Team>, driver: Option<DriverKind>, ordinals: &[usize]) -> Result<Self> {
        let (groups, by_nccl) = (plan.groups(), plan.nccl_groups());
        let processes = |group: &Vec<usize>| group.iter().map(|&device| plan.spec.processes.of(device)).collect();
        team.engine().prepare(&groups.iter().map(processes).collect::<Vec<_>>())?;
        let plan = plan.of_process(team.rank());
        let outside = Outside { team, groups: &groups };
        match driver {
            None => {
                let devices = Devices::Cpu(Box::new(cpu::Programs::new(&plan, Some(&outside))?));
                Ok(Session::of(plan, Some(Arc::clone(team)), devices))
            }
            Some(kind) => {
                let own = &ordinals[plan.own.clone()];
                Session::gpus_of(plan, kind, own, &by_nccl, Some(outside))
            }
        }
    }

    /// Allocates the arenas of a plan on GPUs, which may be emulated; `ordinals` holds the GPU of each device.
    ///
    /// # Errors
    /// If a GPU is missing, has too little memory, or cannot be used.
    pub fn on_gpus(plan: Plan, kind: DriverKind, ordinals: &[usize]) -> Result<Self> {
        let groups = plan.nccl_groups();
        Session::gpus_of(plan, kind, ordinals, &groups, None)
    }

    fn gpus_of(
        plan: Plan,
        kind: DriverKind,
        ordinals: &[usize],
        groups: &[Vec<usize>],
        outside: Option<Outside>,
    ) -> Result<Self> {
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
            reach: plan.spec.peers == Peers::All,
            host: plan.hosts[0],
            staging: [images, targets, draws, CLOCK_BYTES],
            values: plan.region(Region::Metrics).1,
            slots: InputStaging::SLOTS,
            threads,
        })?;
        if let Target::Gpu { libraries, .. } = plan.spec.target {
            gpus.use_libraries(libraries)?;
        }
        let team = outside.as_ref().map(|outside| &**outside.team);
        let nccl = NcclSide::open(&plan, groups, &gpus, team)?;
        let devices = Devices::Gpu(Box::new(gpu::Programs::new(&plan, gpus, nccl, outside.as_ref())?));
        Ok(Session::of(plan, outside.map(|outside| Arc::clone(outside.team)), devices))
    }

    fn of(plan: Plan, team: Option<Arc<Team>>, devices: Devices) -> Self {
        let values = vec![0.0; plan.region(Region::Metrics).1];
        Session { plan, team, devices, values, finished: false }
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
        let (preparer, host) = (self.preparer(), Destination { share: self.share(), ..Destination::host() });
        match &self.devices {
            Devices::Gpu(programs) if preparer == Preparer::Device => {
                Destination { memory: programs.host_memory(), reads: InputStaging::READS, preparer, ..host }
            }
            _ => host,
        }
    }

    /// Returns the rows of each batch that the devices load: those of their positions along `data`.
    fn share(&self) -> Share {
        let mesh = self.plan.spec.mesh;
        let (first, last) = (self.plan.own.start, self.plan.own.end - 1);
        Share { of: mesh.data, parts: mesh.position(first).data..mesh.position(last).data + 1 }
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

    /// Returns the seconds that the slowest CPU device of this process worked since the last call, without waiting for others; none on GPUs,
    /// where it is not measured.
    pub fn take_worked(&mut self) -> Option<f64> {
        match &mut self.devices {
            Devices::Gpu(_) => None,
            Devices::Cpu(programs) => Some(programs.take_worked().as_secs_f64()),
        }
    }

    /// Returns the seconds that devices waited for communication, with nothing to compute beside it, in the steps that have finished since
    /// the last call: of CPU devices those that waited longest, of GPUs the first.
    pub fn take_exposed(&mut self) -> f64 {
        match &mut self.devices {
            Devices::Gpu(programs) => programs.take_exposed(),
            Devices::Cpu(programs) => programs.take_exposed().as_secs_f64(),
        }
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
}
