//! A collective among devices that do not share memory: what each of them sends, receives and adds.
//!
//! These are the hops of the one-pass form ([`lower`]) as messages: every device receives its part from all others, adds in the ring's
//! order, and sends the sum to all others. The bits are those of devices that share memory.

use super::{Collective, CollectiveAlgorithm, HopBuffer, HopSlice, lower};
use crate::tensor::{LocalSlice, Strided};

/// Where the elements of a message or a term are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A piece of the device's tensor in its current layout.
    From(Strided),
    /// A piece of its tensor in the required layout.
    To(Strided),
    /// Elements that were received, from this one on.
    Received(usize),
}

/// A message from or to another device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The other device, as its index in the group.
    pub peer: usize,
    /// Where the elements are taken from, or put.
    pub piece: Piece,
    /// The number of elements.
    pub elements: usize,
}

/// Sets the target to the sum of the terms, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSum {
    /// The terms.
    pub terms: Vec<Piece>,
    /// The target.
    pub target: Piece,
    /// The number of elements.
    pub elements: usize,
}

/// What one device does in a collective. Between two devices, messages are sent and received in one order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DevicePart {
    /// The messages that it sends first.
    pub terms_sent: Vec<Message>,
    /// The messages that it receives meanwhile.
    pub terms_received: Vec<Message>,
    /// The sums that it then computes.
    pub sums: Vec<LocalSum>,
    /// The messages that it sends after that.
    pub sums_sent: Vec<Message>,
    /// The messages that it receives meanwhile.
    pub sums_received: Vec<Message>,
    /// The number of elements that are received to be added.
    pub received: usize,
}

fn piece(piece: &HopSlice) -> Piece {
    match piece.buffer {
        HopBuffer::From => Piece::From(piece.part),
        HopBuffer::To => Piece::To(piece.part),
        HopBuffer::Scratch => unreachable!("the one-pass form needs no scratch memory"),
    }
}

/// Returns what the device with an index in a group does in a collective among devices that hold the windows `from` of a tensor and
/// require the windows `to`.
pub fn device_part(collective: Collective, from: &[LocalSlice], to: &[LocalSlice], own: usize) -> DevicePart {
    let mut part = DevicePart::default();
    for hop in lower(collective, CollectiveAlgorithm::OnePass, from, to).hops {
        let elements = hop.targets[0].part.elements();
        if hop.rank != own {
            let sent = hop.sources.iter().filter(|source| source.rank == own);
            part.terms_sent.extend(sent.map(|source| Message { peer: hop.rank, piece: piece(source), elements }));
            let received = hop.targets.iter().filter(|target| target.rank == own);
            part.sums_received.extend(received.map(|target| Message {
                peer: hop.rank,
                piece: piece(target),
                elements,
            }));
            continue;
        }
        let target = hop.targets.iter().find(|target| target.rank == own).map(piece);
        let target = target.expect("a device writes the sum to its own memory, too");
        if let [source] = &hop.sources[..]
            && source.rank != own
        {
            part.terms_received.push(Message { peer: source.rank, piece: target, elements });
        } else {
            let mut terms = Vec::with_capacity(hop.sources.len());
            for source in &hop.sources {
                if source.rank == own {
                    terms.push(piece(source));
                    continue;
                }
                let received = Piece::Received(part.received);
                part.received += elements;
                part.terms_received.push(Message { peer: source.rank, piece: received, elements });
                terms.push(received);
            }
            part.sums.push(LocalSum { terms, target, elements });
        }
        let others = hop.targets.iter().filter(|to| to.rank != own);
        part.sums_sent.extend(others.map(|to| Message { peer: to.rank, piece: target, elements }));
    }
    part
}
