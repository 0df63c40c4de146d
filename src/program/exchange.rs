//! Collectives between processes, as devices with host memory carry them out.

use super::ir::{Peer, PeerPart};
use super::{Program, Work};
use crate::cluster::flight::EXCHANGE;
use crate::cluster::{Flown, Team};
use crate::collectives::{Collective, DevicePart, LocalSum, Message, Piece, device_part};
use crate::cpu::{ExchangeTask, Round, SumTask};
use crate::device::{Memory, MemorySlice};
use crate::placement::Processes;
use crate::tensor::{Element, LocalSlice, Strided};
use std::ops::Range;
use std::sync::Arc;

/// What connects the devices of this process with those of others.
pub(super) struct Outside<'a> {
    pub team: &'a Arc<Team>,
    /// The groups of devices among which the engine sums, by the numbers that it knows them by.
    pub groups: &'a [Vec<usize>],
}

impl Outside<'_> {
    /// Returns the number of the group in which the engine sums for a collective, if it does: all values are of one type that it knows.
    pub fn summed(&self, collective: &DeviceCollective, element: Element, processes: &Processes) -> Option<usize> {
        let devices = collective.summed(processes).filter(|_| element != Element::Bf16)?;
        self.groups.iter().position(|group| *group == devices)
    }
}

/// Messages that are sent and received at the same time, with copies before and after.
#[derive(Debug, Clone, Default)]
pub(super) struct RoundOf {
    pub pack: Vec<LocalSum>,
    pub outgoing: Vec<Message>,
    pub incoming: Vec<Message>,
    pub unpack: Vec<LocalSum>,
}

/// What a device does in a collective: it exchanges terms, adds, and exchanges sums.
#[derive(Debug, Clone)]
pub(super) struct Rounds {
    pub terms: RoundOf,
    pub sums: Vec<LocalSum>,
    pub totals: RoundOf,
    /// The elements of scratch memory.
    pub scratch: usize,
}

/// A collective on one device.
#[derive(Debug)]
pub(super) struct DeviceCollective<'a> {
    pub collective: Collective,
    pub peers: &'a [Peer],
    pub device: usize,
}

impl<'a> DeviceCollective<'a> {
    /// Returns the collectives of the devices of an instruction; none if it is something else.
    pub fn of(work: &'a Work) -> impl Iterator<Item = (Self, &'a PeerPart)> {
        let (all, parts) = match work {
            Work::Collective { collective, peers, parts, .. } => (Some((*collective, &**peers)), &parts[..]),
            _ => (None, &[][..]),
        };
        let of_device = move |(collective, peers)| {
            parts.iter().map(move |part| (DeviceCollective { collective, peers, device: part.device }, part))
        };
        all.into_iter().flat_map(of_device)
    }

    fn part(&self) -> DevicePart {
        let windows =
            |window: fn(&Peer) -> &LocalSlice| self.peers.iter().map(|peer| window(peer).clone()).collect::<Vec<_>>();
        let own = self.peers.iter().position(|peer| peer.device == self.device);
        let own = own.expect("a device takes part in its own collectives");
        device_part(self.collective, &windows(|peer| &peer.from), &windows(|peer| &peer.to), own)
    }

    /// Returns what a flight record has of it.
    pub fn flown(&self, name: &str, part: &PeerPart, element: Element, processes: &Processes) -> Flown {
        let mut group: Vec<usize> = self.peers.iter().map(|peer| processes.of(peer.device)).collect();
        group.dedup();
        // Of other collectives, devices may have parts of different sizes.
        let kind = if self.collective == Collective::AllReduce { "all-reduce" } else { EXCHANGE };
        let bytes = (part.from.1.elements() * element.bytes()) as u64;
        Flown { kind, name: name.into(), processes: group.into(), bytes }
    }

    /// Returns how many elements of scratch memory it needs.
    pub fn scratch(&self) -> usize {
        self.rounds().scratch
    }

    /// Returns what the device does. Elements of messages that are not one run are copied to or from scratch memory.
    pub fn rounds(&self) -> Rounds {
        let part = self.part();
        let mut used = part.received;
        let mut round = |sent: &[Message], received: &[Message]| {
            let mut round = RoundOf::default();
            let mut packed = |elements| {
                used += elements;
                Piece::Received(used - elements)
            };
            for &Message { peer, mut piece, elements } in sent {
                if is_strided(piece) {
                    let packed = packed(elements);
                    round.pack.push(LocalSum { terms: vec![piece], target: packed, elements });
                    piece = packed;
                }
                round.outgoing.push(Message { peer, piece, elements });
            }
            for &Message { peer, mut piece, elements } in received {
                if is_strided(piece) {
                    let packed = packed(elements);
                    round.unpack.push(LocalSum { terms: vec![packed], target: piece, elements });
                    piece = packed;
                }
                round.incoming.push(Message { peer, piece, elements });
            }
            round
        };
        let terms = round(&part.terms_sent, &part.terms_received);
        let totals = round(&part.sums_sent, &part.sums_received);
        Rounds { terms, sums: part.sums, totals, scratch: used }
    }

    /// Returns what the device does, given the memory of a piece of its tensor and scratch memory.
    pub fn task(&self, memory: &dyn Fn(Piece) -> MemorySlice, scratch: &Arc<Memory>, element: Element) -> ExchangeTask {
        let slice = |piece, elements| match piece {
            Piece::Received(start) => MemorySlice::new(scratch, 0, Strided::contiguous(start, elements), element),
            piece => memory(piece),
        };
        let sum = |sum: &LocalSum| {
            let terms = sum.terms.iter().map(|&term| slice(term, sum.elements)).collect();
            SumTask::new(terms, vec![slice(sum.target, sum.elements)], element)
        };
        let message = |m: &Message| (self.peers[m.peer].device, slice(m.piece, m.elements));
        let round = |round: &RoundOf| Round {
            pack: round.pack.iter().map(sum).collect(),
            outgoing: round.outgoing.iter().map(message).collect(),
            incoming: round.incoming.iter().map(message).collect(),
            unpack: round.unpack.iter().map(sum).collect(),
        };
        let Rounds { terms, sums, totals, .. } = self.rounds();
        let (terms, totals) = (round(&terms), round(&totals));
        ExchangeTask { device: self.device, terms, sums: sums.iter().map(sum).collect(), totals }
    }

    /// Returns the devices if a library may sum among them: each is the only one of its process that takes part.
    pub fn summed(&self, processes: &Processes) -> Option<Vec<usize>> {
        let devices: Vec<usize> = self.peers.iter().map(|peer| peer.device).collect();
        let alone = devices.windows(2).all(|pair| processes.of(pair[0]) < processes.of(pair[1]));
        (self.collective == Collective::AllReduce && alone).then_some(devices)
    }
}

/// Returns true if elements are not one run.
fn is_strided(piece: Piece) -> bool {
    matches!(piece, Piece::From(part) | Piece::To(part) if part.rows != 1)
}

/// Returns a program's instructions in groups that run together: the parts of one collective on the devices of this process wait for each
/// other, all other instructions are alone.
pub(super) fn together(program: &Program) -> Vec<Range<usize>> {
    let peers = |index: usize| match &program.instructions[index].work {
        Work::Collective { peers, .. } => Some(peers),
        _ => None,
    };
    let mut all: Vec<Range<usize>> = Vec::new();
    for index in 0..program.instructions.len() {
        match all.last_mut() {
            Some(last) if peers(index).zip(peers(last.start)).is_some_and(|(own, first)| Arc::ptr_eq(own, first)) => {
                last.end = index + 1;
            }
            _ => all.push(index..index + 1),
        }
    }
    all
}
