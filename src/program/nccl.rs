//! Collectives by NCCL: each is one instruction of a GPU's communication queue.
//!
//! Where the layouts of all devices fit, it is one call of the library. Otherwise, and if the bits must be those of one process, a device
//! sends and receives the messages of the one-pass form, and adds by itself.

use super::exchange::{DeviceCollective, RoundOf, Rounds};
use super::ir::{PeerPart, Slice};
use super::nccl_way::Way;
use super::{Plan, Program, Work};
use crate::cluster::Team;
use crate::collectives::{Collective, LocalSum, Message, NcclUse, Piece};
use crate::device::Queue;
use crate::error::{Error, Result, quantity};
use crate::gpu::nccl::{Communicators, NcclCall, NcclMember, Transfer, UniqueId, nccl};
use crate::gpu::{ArenaSlice, Gpus};
use crate::placement::Spec;
use crate::tensor::{Element, Strided};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the devices of one process may take to be connected.
const START: Duration = Duration::from_secs(120);

/// What a device does in a collective. The stages of all devices of a process are issued together, one after another.
#[derive(Debug)]
pub(super) enum Stage {
    /// Sums and copies of the device, one after another.
    Sums(Element, Vec<(Vec<ArenaSlice>, ArenaSlice)>),
    /// Calls of the library, all at the same time.
    Calls(Vec<NcclCall>),
    /// Elements that are rounded from an address to another one.
    ToBf16(u64, u64, usize),
    /// Elements that are widened.
    ToF32(u64, u64, usize),
}

impl DeviceCollective<'_> {
    /// Returns the stages on the device, number `local` in this process.
    fn stages(&self, part: &PeerPart, (group, local): (usize, usize), at: &Addresses) -> Vec<Stage> {
        let buffer = &at.program.buffers[part.to.0];
        let element = buffer.element;
        let call = |transfer, elements, element| NcclCall { group, device: local, transfer, elements, element };
        let (from, to, elements) = (at.first(part.from), at.first(part.to), part.to.1.elements());
        match self.way(buffer, at.spec) {
            Way::InBf16 => {
                let scratch = at.first(part.scratch.expect("a rounded collective has scratch memory"));
                vec![
                    Stage::ToBf16(to, scratch, elements),
                    Stage::Calls(vec![call(Transfer::AllReduce { at: scratch }, elements, Element::Bf16)]),
                    Stage::ToF32(scratch, to, elements),
                ]
            }
            Way::Native => {
                let (transfer, elements) = match self.collective {
                    Collective::AllReduce => (Transfer::AllReduce { at: to }, elements),
                    Collective::ReduceScatter => (Transfer::ReduceScatter { from, to }, elements),
                    _ => (Transfer::AllGather { from, to }, part.from.1.elements()),
                };
                vec![Stage::Calls(vec![call(transfer, elements, element)])]
            }
            Way::Messages => {
                let Rounds { terms, sums, totals, .. } = self.rounds();
                let slice = |piece, elements| at.slice(part, piece, elements);
                let sums_of = |sums: &[LocalSum]| {
                    Stage::Sums(element, sums.iter().flat_map(|sum| in_order(sum, &slice)).collect())
                };
                let calls = |round: &RoundOf| {
                    let start = |m: &Message| {
                        let (address, part) = slice(m.piece, m.elements);
                        address + (part.offset * element.bytes()) as u64
                    };
                    let sent = round.outgoing.iter().map(|m| (Transfer::Send { from: start(m), peer: m.peer }, m));
                    let received = round.incoming.iter().map(|m| (Transfer::Receive { to: start(m), peer: m.peer }, m));
                    let full = sent.chain(received).filter(|(_, m)| m.elements > 0);
                    Stage::Calls(full.map(|(transfer, m)| call(transfer, m.elements, element)).collect())
                };
                vec![
                    sums_of(&terms.pack),
                    calls(&terms),
                    sums_of(&[terms.unpack, sums, totals.pack.clone()].concat()),
                    calls(&totals),
                    sums_of(&totals.unpack),
                ]
            }
        }
    }
}

/// Returns the sums that add the terms in their order. The kernel adds to its target, so this must not be a later term.
fn in_order(sum: &LocalSum, slice: &dyn Fn(Piece, usize) -> ArenaSlice) -> Vec<(Vec<ArenaSlice>, ArenaSlice)> {
    let terms: Vec<ArenaSlice> = sum.terms.iter().map(|&term| slice(term, sum.elements)).collect();
    let target = slice(sum.target, sum.elements);
    match terms.iter().position(|term| *term == target) {
        // The own term is the last one; the first was received, and nobody else needs it.
        Some(own) if own >= 2 => {
            let (before, after) = terms.split_at(own);
            let rest = [&before[..1], after].concat();
            vec![(before.to_vec(), before[0]), (rest, target)]
        }
        _ => vec![(terms, target)],
    }
}

/// Where the buffers of a program are.
struct Addresses<'a> {
    gpus: &'a Gpus,
    program: &'a Program,
    spec: &'a Spec,
}

impl Addresses<'_> {
    fn base(&self, buffer: usize) -> u64 {
        let buffer = &self.program.buffers[buffer];
        self.gpus.address(buffer.device, buffer.offset)
    }

    /// Returns the address of the first element of a slice.
    fn first(&self, (buffer, part): Slice) -> u64 {
        self.base(buffer) + (part.offset * self.program.buffers[buffer].element.bytes()) as u64
    }

    fn slice(&self, part: &PeerPart, piece: Piece, elements: usize) -> ArenaSlice {
        let ((buffer, whole), own) = match piece {
            Piece::From(own) => (part.from, own),
            Piece::To(own) => (part.to, own),
            Piece::Received(start) => {
                let scratch = part.scratch.expect("messages have scratch memory where they need it");
                (scratch, Strided::contiguous(start, elements))
            }
        };
        (self.base(buffer), own.shifted(whole.offset))
    }
}

/// The communicators of a plan, and what its collectives do with them.
#[derive(Debug)]
pub(super) struct NcclSide {
    pub communicators: Arc<Communicators>,
    groups: Vec<Vec<usize>>,
}

impl NcclSide {
    /// Connects the devices of a process with those of the others, if NCCL carries out any collective of the plan.
    ///
    /// # Errors
    /// If the library is missing, two devices are one GPU, or not all processes connect in time.
    pub fn open(plan: &Plan, groups: &[Vec<usize>], gpus: &Gpus, team: Option<&Team>) -> Result<Option<Self>> {
        if plan.spec.nccl == NcclUse::Never || groups.is_empty() {
            return Ok(None);
        }
        let library = nccl();
        let library = match team {
            Some(team) => team.agree(library)?,
            None => library?,
        };
        distinct(plan, gpus, team)?;
        // The first device of a group creates its identity.
        let leads = |group: &&Vec<usize>| plan.own.contains(&group[0]);
        let made = groups.iter().map(|group| leads(&group).then(|| library.unique_id()).transpose());
        let own: Result<Vec<Option<UniqueId>>> = made.collect();
        let own = match team {
            Some(team) => team.agree(own)?,
            None => own?,
        };
        let text: Vec<String> = own.iter().map(|id| id.map_or("-".to_string(), |id| id.to_string())).collect();
        let all = team.map_or_else(|| Ok(vec![text.join(" ")]), |team| team.gather(&text.join(" ")))?;
        let mut joined = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let ids = all.iter().filter_map(|ids| ids.split(' ').nth(number));
            let id: UniqueId = ids.into_iter().find(|id| *id != "-").unwrap_or_default().parse()?;
            let members = group.iter().enumerate().filter(|(_, device)| plan.own.contains(device));
            let members = members.map(|(rank, device)| NcclMember { device: device - plan.own.start, rank });
            joined.push((id, group.len(), members.collect()));
        }
        let communicators =
            Communicators::open(library, gpus, joined, team.map_or(START, |team| team.timeouts().start));
        let communicators = match team {
            Some(team) => team.agree(communicators)?,
            None => communicators?,
        };
        let used = quantity(groups.len() as u64, "group");
        tracing::info!("NCCL {} ({}) connects {used} of GPUs", library.version, library.path.display());
        Ok(Some(NcclSide { communicators: Arc::new(communicators), groups: groups.to_vec() }))
    }

    /// Returns the stages of an instruction.
    pub fn stages(&self, plan: &Plan, program: &Program, work: &Work, gpus: &Gpus) -> Vec<Stage> {
        let (collective, part) = DeviceCollective::of(work).next().expect("a collective has parts");
        let devices: Vec<usize> = collective.peers.iter().map(|peer| peer.device).collect();
        let group = self.groups.iter().position(|group| *group == devices).expect("every group has a communicator");
        let at = Addresses { gpus, program, spec: &plan.spec };
        collective.stages(part, (group, collective.device - plan.own.start), &at)
    }
}

/// Checks that no GPU is used twice.
fn distinct(plan: &Plan, gpus: &Gpus, team: Option<&Team>) -> Result<()> {
    let host = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let own = (0..plan.own.len()).map(|device| Ok(format!("{}/{}", host.trim(), gpus.driver(device).bus_id()?)));
    let own: Result<Vec<String>> = own.collect();
    let (own, all) = match team {
        None => (own?.join(" "), None),
        Some(team) => {
            let own = team.agree(own)?.join(" ");
            let all = team.gather(&own)?;
            (own, Some(all))
        }
    };
    let all = all.unwrap_or_else(|| vec![own]);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (process, gpus) in all.iter().enumerate() {
        for gpu in gpus.split(' ') {
            if let Some(first) = seen.insert(gpu, process) {
                let bus = gpu.rsplit('/').next().unwrap_or(gpu);
                return Err(Error::Usage(format!(
                    "processes {first} and {process} both use the GPU at {bus}, but NCCL uses a GPU once; give each process a GPU of its own \
                     (LOCAL_RANK, srun --gpus-per-task=1, CUDA_VISIBLE_DEVICES), or use collectives = \"mpi\""
                )));
            }
        }
    }
    Ok(())
}

/// Issues the stages of collectives of several devices together.
pub(super) fn issue(gpus: &Gpus, communicators: &Communicators, parts: &[(usize, &[Stage])]) -> Result<()> {
    let stages = parts.iter().map(|(_, stages)| stages.len()).max().unwrap_or(0);
    for number in 0..stages {
        let mut calls = Vec::new();
        for (device, stages) in parts {
            match stages.get(number) {
                Some(Stage::Calls(own)) => calls.extend_from_slice(own),
                Some(Stage::Sums(element, sums)) => {
                    for (terms, target) in sums {
                        gpus.sum(*device, Queue::Communication, *element, (terms, None), *target)?;
                    }
                }
                Some(&Stage::ToBf16(from, to, elements)) => {
                    gpus.round(*device, Queue::Communication, from, to, elements)?
                }
                Some(&Stage::ToF32(from, to, elements)) => {
                    gpus.widen(*device, Queue::Communication, from, to, elements)?
                }
                None => {}
            }
        }
        communicators.issue(gpus, &calls)?;
    }
    Ok(())
}
