//! Issues a program to the streams of its GPUs.

use super::InputStaging;
use super::issue_list::{Action, CLOCK, DRAWS, IMAGES, IssueList, Ready};
use super::nccl::NcclSide;
use super::nccl_progress::NcclProgress;
use crate::data::{Arrived, LoadRole, Preparation};
use crate::device::{Operands, Queue};
use crate::error::{Error, Result};
use crate::gpu::{Const, GpuEvent, Gpus, Launch};
use crate::optim::{Chain, DeviceChain};
use crate::tensor::Element;
use std::ops::Range;
use std::sync::Arc;

/// The preparation of raw images, with the address of its table on each device.
#[derive(Debug)]
pub(super) struct Prepared {
    pub preparation: Preparation,
    pub tables: Vec<u64>,
}

/// The staging buffers of batches in the arena of every device.
#[derive(Debug, Clone, Copy)]
pub(super) struct StagingBuffers {
    pub byte: usize,
    pub staging: InputStaging,
}

impl StagingBuffers {
    pub fn address(self, gpus: &Gpus, device: usize, slot: usize, input: usize) -> u64 {
        gpus.address(device, self.byte + self.staging.at(slot, input) * Element::F32.bytes())
    }
}

/// What accompanies every instruction.
pub(super) enum Watch<'a> {
    /// Nothing.
    None,
    /// The host waits for it, so that a fault can be attributed to it.
    Each,
    /// Timers are recorded before and after it.
    Timed(&'a [(GpuEvent, GpuEvent)]),
    /// This is called before and after it, with its number.
    Shown(&'a dyn Fn(usize, Moment) -> Result<()>),
}

/// When something is done about an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before it is issued.
    Before,
    /// After it has been issued.
    After,
}

/// The GPUs, and what the instructions of every program need on them.
#[derive(Debug)]
pub(super) struct Issuer {
    /// Before the GPUs, whose streams it uses to its end.
    pub nccl: Option<NcclSide>,
    pub gpus: Gpus,
    /// Of one of several processes, how far its collectives have come.
    pub progress: Option<NcclProgress>,
    pub chains: Vec<DeviceChain>,
    pub chain: Arc<Chain>,
    /// The first byte and the number of elements of the metrics.
    pub metrics: (usize, usize),
    pub staging: StagingBuffers,
    /// None if batches arrive prepared.
    pub prepared: Option<Prepared>,
    pub seed: u64,
    pub tf32: bool,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        // A communicator does not end before the graphs with its collectives.
        if self.nccl.is_some() {
            self.gpus.discard_graphs();
        }
    }
}

impl Issuer {
    /// Issues every instruction in the order of the list: forks from device 0's compute queue, joins it again, and copies
    /// the metrics out.
    pub fn issue(&self, list: &IssueList, slot: usize, watch: &Watch) -> Result<()> {
        let gpus = &self.gpus;
        gpus.record(0, Queue::Compute, list.fork)?;
        for &(device, queue, _) in &list.joins {
            gpus.wait(device, queue, list.fork)?;
        }
        for numbers in list.together() {
            let name = &list.steps[numbers.start].name;
            self.issue_watched(list, numbers, slot, watch).map_err(|e| named(name, &e))?;
        }
        for &(device, queue, join) in &list.joins {
            gpus.record(device, queue, join)?;
            gpus.wait(0, Queue::Compute, join)?;
        }
        let (offset, elements) = self.metrics;
        gpus.unload(0, Queue::Compute, slot, gpus.address(0, offset), elements)
    }

    fn issue_watched(&self, list: &IssueList, numbers: Range<usize>, slot: usize, watch: &Watch) -> Result<()> {
        if let Watch::Shown(show) = watch {
            numbers.clone().try_for_each(|number| show(number, Moment::Before))?;
        }
        let clocks = if let Watch::Timed(clocks) = watch { Some(&clocks[numbers.clone()]) } else { None };
        self.issue_together(list, numbers.clone(), slot, clocks)?;
        numbers.into_iter().try_for_each(|number| match watch {
            Watch::Each => self.gpus.synchronize(list.steps[number].device, list.steps[number].queue),
            Watch::Shown(show) => show(number, Moment::After),
            _ => Ok(()),
        })
    }

    /// Issues instructions that belong together and waits for them.
    pub fn issue_alone(&self, list: &IssueList, numbers: Range<usize>, slot: usize) -> Result<()> {
        let name = &list.steps[numbers.start].name;
        self.issue_watched(list, numbers, slot, &Watch::Each).map_err(|e| named(name, &e))
    }

    fn issue_together(
        &self,
        list: &IssueList,
        numbers: Range<usize>,
        slot: usize,
        clocks: Option<&[(GpuEvent, GpuEvent)]>,
    ) -> Result<()> {
        let (gpus, steps) = (&self.gpus, &list.steps[numbers]);
        for (index, step) in steps.iter().enumerate() {
            for &event in &step.waits {
                gpus.wait(step.device, step.queue, event)?;
            }
            let timers = step.timers.map(|timers| timers[slot]);
            timers.map_or(Ok(()), |(start, _)| gpus.record_timer(step.device, step.queue, start))?;
            for &event in &step.exposed {
                gpus.wait(step.device, step.queue, event)?;
            }
            timers.map_or(Ok(()), |(_, end)| gpus.record_timer(step.device, step.queue, end))?;
            if let Some(clocks) = clocks {
                gpus.record_timer(step.device, step.queue, clocks[index].0)?;
            }
        }
        if let Some(side) = self.nccl.as_ref().filter(|_| matches!(steps[0].action, Action::Nccl { .. })) {
            let mut parts = Vec::with_capacity(steps.len());
            for step in steps {
                if let Action::Nccl { stages, number, .. } = &step.action {
                    if let Some((progress, number)) = self.progress.as_ref().zip(*number) {
                        progress.mark(gpus, number, slot)?;
                    }
                    parts.push((step.device, &stages[..]));
                }
            }
            super::nccl::issue(gpus, &side.communicators, &parts)?;
        } else {
            steps.iter().try_for_each(|step| self.issue_action(step, list, slot))?;
        }
        for (index, step) in steps.iter().enumerate() {
            if let Some(clocks) = clocks {
                gpus.record_timer(step.device, step.queue, clocks[index].1)?;
            }
            step.record.map_or(Ok(()), |event| gpus.record(step.device, step.queue, event))?;
        }
        Ok(())
    }

    fn issue_action(&self, step: &Ready, list: &IssueList, slot: usize) -> Result<()> {
        let (gpus, device, queue) = (&self.gpus, step.device, step.queue);
        match &step.action {
            Action::Load { input, to, .. } => {
                let at = |input| self.staging.address(gpus, device, slot, input);
                match self.prepared.as_ref().filter(|_| *input == IMAGES) {
                    None => gpus.receive(device, queue, at(*input), &to[LoadRole::Batch])?,
                    Some(Prepared { preparation, tables }) => {
                        let (draws, table) = (Const::at(at(DRAWS)), Const::at(tables[device]));
                        let launch = self.launch(step, list, slot, to);
                        preparation.launch(list.augmented, &Arrived { pixels: at(IMAGES), draws, table }, &launch)?;
                    }
                }
            }
            Action::Phase { layer, stream, loss_weight, phase, operands, epilogue } => {
                let general = self.launch(step, list, slot, operands);
                let launch = Launch { layer: *stream, loss_weight: *loss_weight, epilogue: *epilogue, ..general };
                layer.launch(phase, &launch)?;
            }
            Action::Sum { element, sources, targets, mask } => {
                for &target in targets {
                    gpus.sum(device, queue, *element, (sources, *mask), target)?;
                }
            }
            Action::Call(call) => gpus.call(device, queue, call)?,
            Action::Nccl { .. } => unreachable!("these are issued together"),
            Action::Update { stage, bucket, operands } => {
                self.chain.launch(
                    *stage,
                    bucket.unwrap_or(0),
                    &self.chains[device],
                    &self.launch(step, list, slot, operands),
                )?;
            }
        }
        Ok(())
    }

    fn launch<'a, R>(
        &'a self,
        step: &Ready,
        list: &IssueList,
        slot: usize,
        operands: &'a Operands<R>,
    ) -> Launch<'a, R> {
        Launch {
            issue: self.gpus.issue(step.device, step.queue),
            operands,
            clock: self.staging.address(&self.gpus, step.device, slot, CLOCK),
            seed: self.seed,
            layer: 0,
            divisor: list.divisor,
            loss_weight: 1.0,
            tf32: self.tf32,
            epilogue: None,
        }
    }
}

/// Adds the name of the instruction in which a device failed.
fn named(part: &str, error: &Error) -> Error {
    Error::Run(format!("\"{part}\": {error}"))
}
