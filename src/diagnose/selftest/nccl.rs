//! Checks NCCL with the device as the only member of a communicator: every call leaves or copies what it is given.

use super::compare::{Compared, Tally, worst_bits};
use super::device::Device;
use crate::device::{Queue, Random, RandomStream};
use crate::error::Result;
use crate::gpu::nccl::{Communicators, NcclCall, NcclMember, Transfer, nccl};
use crate::gpu::{DriverKind, GpuOptions, Gpus, INPUTS};
use crate::tensor::{Element, Precision};
use std::time::Duration;

/// The elements that each call moves.
const ELEMENTS: usize = 1000;
/// How long the library may take to start.
const START: Duration = Duration::from_secs(120);

/// Runs every call in a stream, and captured in a graph.
pub(super) fn check(device: &Device, tally: &mut Tally) {
    for captured in [false, true] {
        let case = if captured { "one member, in a graph" } else { "one member" };
        tally.run(case, || run(device, captured));
    }
}

fn run(device: &Device, captured: bool) -> Result<Vec<Compared>> {
    let gpus = Gpus::open(&GpuOptions {
        kind: DriverKind::Cuda,
        ordinals: &[device.ordinal],
        arenas: &[8 * ELEMENTS * Element::F32.bytes()],
        staging: [0; INPUTS],
        values: 1,
        slots: 1,
        reach: true,
        host: 0,
        threads: device.threads,
    })?;
    let library = nccl()?;
    let members = vec![NcclMember { device: 0, rank: 0 }];
    let communicators = Communicators::open(library, &gpus, vec![(library.unique_id()?, 1, members)], START)?;
    let byte = |block: usize| block * ELEMENTS * Element::F32.bytes();
    let at = |block: usize| gpus.address(0, byte(block));
    let random = Random::new(7, RandomStream::Probe, 0, 0);
    let values: Vec<f32> = (0..ELEMENTS as u64).map(|i| random.normal(i) as f32).collect();
    [0, 1, 3, 5].into_iter().try_for_each(|block| gpus.store(0, byte(block), &values))?;
    let element = Element::Real(Precision::F32);
    let call = |transfer| NcclCall { group: 0, device: 0, transfer, elements: ELEMENTS, element };
    let messages = [Transfer::Send { from: at(5), peer: 0 }, Transfer::Receive { to: at(6), peer: 0 }].map(call);
    let issue = || -> Result<()> {
        communicators.issue(&gpus, &[call(Transfer::AllReduce { at: at(0) })])?;
        communicators.issue(&gpus, &[call(Transfer::ReduceScatter { from: at(1), to: at(2) })])?;
        communicators.issue(&gpus, &[call(Transfer::AllGather { from: at(3), to: at(4) })])?;
        communicators.issue(&gpus, &messages)
    };
    if captured {
        let (fork, join) = (gpus.event(0)?, gpus.event(0)?);
        let graph = gpus.capture(|| {
            gpus.record(0, Queue::Compute, fork)?;
            gpus.wait(0, Queue::Communication, fork)?;
            issue()?;
            gpus.record(0, Queue::Communication, join)?;
            gpus.wait(0, Queue::Compute, join)
        })?;
        gpus.launch_graph(graph)?;
        gpus.synchronize(0, Queue::Compute)?;
        // The communicator does not end before it.
        gpus.discard_graphs();
    } else {
        issue()?;
        gpus.synchronize(0, Queue::Communication)?;
    }
    let results = [(0, "all-reduce"), (2, "reduce-scatter"), (4, "all-gather"), (6, "message")];
    let compared = results.into_iter().map(|(block, role)| {
        let mut got = vec![0.0f32; ELEMENTS];
        gpus.fetch(0, byte(block), &mut got)?;
        Ok(Compared { role: role.to_string(), difference: worst_bits(&got, &values), bound: 0.0 })
    });
    compared.collect()
}
