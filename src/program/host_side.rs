//! Collectives between processes whose devices are GPUs: these copy their tensors to and from host memory, where this carries them out.

use super::exchange::{DeviceCollective, Outside};
use super::{Instruction, Plan, Program, Slice};
use crate::cluster::{Team, Values};
use crate::collectives::Piece;
use crate::cpu::ExchangeTask;
use crate::device::{Memory, MemorySlice};
use crate::error::Result;
use crate::gpu::{Gpus, HostCall};
use crate::tensor::Precision;
use std::sync::{Arc, Mutex, PoisonError};

/// What collectives in host memory need.
pub(super) struct HostSide<'a> {
    outside: &'a Outside<'a>,
    /// The memory for the messages of each device.
    scratch: Vec<Arc<Memory>>,
    /// Why one of them failed.
    pub failure: Arc<Mutex<Option<String>>>,
}

/// The part of a device.
enum Part {
    Exchange(ExchangeTask),
    /// Values that the engine sums in a group.
    Sum(usize, MemorySlice),
}

impl Part {
    fn run(&self, team: &Team) -> Result<()> {
        match self {
            Part::Exchange(task) => task.run(team),
            Part::Sum(group, values) => values.with_f32(|values| team.sum(*group, Values::F32(values))),
        }
    }
}

impl<'a> HostSide<'a> {
    pub fn new(plan: &Plan, outside: &'a Outside<'a>) -> Result<Self> {
        let allocate = |elements: usize| Memory::new(elements * Precision::F32.bytes()).map(Arc::new);
        let scratch = plan.scratch_of_messages().into_iter().map(allocate).collect::<Result<_>>()?;
        Ok(HostSide { outside, scratch, failure: Arc::default() })
    }

    /// Returns the call that carries out an instruction for all of its devices.
    pub fn call(&self, plan: &Plan, program: &Program, step: &Instruction, gpus: &Gpus) -> Arc<HostCall> {
        let mut parts = Vec::new();
        for (collective, own) in DeviceCollective::of(&step.work) {
            let element = program.buffers[own.to.0].element;
            let flown = collective.flown(&step.name, own, element, &plan.spec.processes);
            let slice = |&(buffer, part): &Slice| {
                let buffer = &program.buffers[buffer];
                gpus.host_slice(buffer.offset, part, element)
            };
            if let Some(group) = self.outside.summed(&collective, element, &plan.spec.processes) {
                parts.push((flown, Part::Sum(group, slice(&own.to))));
                continue;
            }
            let memory = |piece| match piece {
                Piece::From(part) => slice(&(own.from.0, part.shifted(own.from.1.offset))),
                Piece::To(part) => slice(&(own.to.0, part.shifted(own.to.1.offset))),
                Piece::Received(_) => unreachable!("these are in scratch memory"),
            };
            let scratch = &self.scratch[own.device - plan.own.start];
            parts.push((flown, Part::Exchange(collective.task(&memory, scratch, element))));
        }
        let (team, failure) = (Arc::clone(self.outside.team), Arc::clone(&self.failure));
        let name = step.name.clone();
        let run = move || {
            // They wait for each other.
            let result = match &parts[..] {
                [(flown, part)] => team.recorded(flown, || part.run(&team)),
                parts => std::thread::scope(|scope| {
                    let threads: Vec<_> = parts
                        .iter()
                        .map(|(flown, part)| scope.spawn(|| team.recorded(flown, || part.run(&team))))
                        .collect();
                    let ended = threads.into_iter().map(|thread| thread.join().expect("a part does not panic"));
                    ended.fold(Ok(()), Result::and)
                }),
            };
            if let Err(error) = result {
                let message = format!("\"{name}\": {}", error.with_causes());
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
            }
        };
        Arc::new(HostCall(Box::new(run)))
    }
}
