//! Issues a program to the streams of its GPUs.

use super::InputStaging;
use super::issue_list::{Action, CLOCK, DRAWS, IMAGES, IssueList, Ready};
use crate::data::{Arrived, LoadRole, Preparation};
use crate::device::{Operands, Queue};
use crate::error::{Error, Result};
use crate::gpu::{Const, GpuEvent, Gpus, Launch};
use crate::optim::{Chain, DeviceChain};
use crate::tensor::Element;
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
    pub gpus: Gpus,
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

impl Issuer {
    /// Issues every instruction in the order of the list: forks from device 0's compute queue, joins it again, and copies
    /// the metrics out.
    pub fn issue(&self, list: &IssueList, slot: usize, watch: &Watch) -> Result<()> {
        let gpus = &self.gpus;
        gpus.record(0, Queue::Compute, list.fork)?;
        for &(device, queue, _) in &list.joins {
            gpus.wait(device, queue, list.fork)?;
        }
        for (number, step) in list.steps.iter().enumerate() {
            let clocks = if let Watch::Timed(clocks) = watch { Some(clocks[number]) } else { None };
            let issued = match watch {
                Watch::Shown(show) => show(number, Moment::Before),
                _ => Ok(()),
            };
            let issued = issued.and_then(|()| self.issue_step(step, list, slot, clocks));
            let waited = issued.and_then(|()| match watch {
                Watch::Each => gpus.synchronize(step.device, step.queue),
                Watch::Shown(show) => show(number, Moment::After),
                _ => Ok(()),
            });
            waited.map_err(|e| named(&step.name, &e))?;
        }
        for &(device, queue, join) in &list.joins {
            gpus.record(device, queue, join)?;
            gpus.wait(0, Queue::Compute, join)?;
        }
        let (offset, elements) = self.metrics;
        gpus.unload(0, Queue::Compute, slot, gpus.address(0, offset), elements)
    }

    /// Issues an instruction and waits for it.
    pub fn issue_alone(&self, step: &Ready, list: &IssueList, slot: usize) -> Result<()> {
        let issued = self.issue_step(step, list, slot, None);
        issued.and_then(|()| self.gpus.synchronize(step.device, step.queue)).map_err(|e| named(&step.name, &e))
    }

    fn issue_step(
        &self,
        step: &Ready,
        list: &IssueList,
        slot: usize,
        clocks: Option<(GpuEvent, GpuEvent)>,
    ) -> Result<()> {
        let (gpus, device, queue) = (&self.gpus, step.device, step.queue);
        for &event in &step.waits {
            gpus.wait(device, queue, event)?;
        }
        if let Some((start, _)) = clocks {
            gpus.record_timer(device, queue, start)?;
        }
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
            Action::Update { stage, bucket, operands } => {
                self.chain.launch(
                    *stage,
                    bucket.unwrap_or(0),
                    &self.chains[device],
                    &self.launch(step, list, slot, operands),
                )?;
            }
        }
        if let Some((_, end)) = clocks {
            gpus.record_timer(device, queue, end)?;
        }
        step.record.map_or(Ok(()), |event| gpus.record(device, queue, event))
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
