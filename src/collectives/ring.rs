//! The forms in which each device reads only from its left neighbour.
//!
//! The sum of chunk c starts at device c + 1 and ends at device c: ((x[c+1] + x[c+2]) + ...) + x[c].

use super::hop::{Hop, HopBuffer, HopSlice, Hops, chunk, copy};
use crate::tensor::{LocalSlice, Strided};

/// Reduce-scatter and all-gather of contiguous chunks, in place.
pub(super) fn all_reduce(from: &[LocalSlice]) -> Hops {
    let (n, whole) = (from.len(), &from[0]);
    let piece = |rank, part| HopSlice { rank, buffer: HopBuffer::From, part };
    let mut hops = Vec::new();
    for round in 0..n - 1 {
        for rank in 0..n {
            let left = (rank + n - 1) % n;
            let part = chunk(whole, n, (rank + 2 * n - 2 - round) % n);
            let sources = vec![piece(left, part), piece(rank, part)];
            hops.push(Hop { rank, sources, targets: vec![piece(rank, part)] });
        }
    }
    for round in 0..n - 1 {
        for rank in 0..n {
            let left = (rank + n - 1) % n;
            let part = chunk(whole, n, (rank + 2 * n - 1 - round) % n);
            hops.push(Hop { rank, sources: vec![piece(left, part)], targets: vec![piece(rank, part)] });
        }
    }
    Hops { hops, scratch: 0 }
}

/// Sums pass through two scratch slots, so the partial tensor is not modified.
pub(super) fn reduce_scatter(from: &[LocalSlice], to: &[LocalSlice]) -> Hops {
    let (n, whole) = (from.len(), &from[0]);
    let slot = to.iter().map(LocalSlice::elements).max().unwrap_or(0);
    let mut hops = Vec::new();
    for round in 0..n - 1 {
        for rank in 0..n {
            let left = (rank + n - 1) % n;
            let c = (rank + 2 * n - 2 - round) % n;
            let part = Strided::of(&to[c], whole);
            let passing = |round: usize| Strided::contiguous(round % 2 * slot, part.elements());
            let incoming = match round {
                0 => HopSlice { rank: left, buffer: HopBuffer::From, part },
                _ => HopSlice { rank: left, buffer: HopBuffer::Scratch, part: passing(round - 1) },
            };
            let own = HopSlice { rank, buffer: HopBuffer::From, part };
            let target = if c == rank {
                HopSlice { rank, buffer: HopBuffer::To, part: Strided::contiguous(0, part.elements()) }
            } else {
                HopSlice { rank, buffer: HopBuffer::Scratch, part: passing(round) }
            };
            hops.push(Hop { rank, sources: vec![incoming, own], targets: vec![target] });
        }
    }
    Hops { hops, scratch: 2 * slot }
}

/// Each device copies its own part first, then the other parts from its left neighbour's copy.
pub(super) fn all_gather(from: &[LocalSlice], to: &[LocalSlice]) -> Hops {
    let n = from.len();
    let whole = &to[0];
    let mut hops: Vec<Hop> = (0..n).map(|rank| copy(rank, rank, from, to)).collect();
    for round in 0..n - 1 {
        for rank in 0..n {
            let left = (rank + n - 1) % n;
            let part = Strided::of(&from[(rank + 2 * n - 1 - round) % n], whole);
            let piece = |rank| HopSlice { rank, buffer: HopBuffer::To, part };
            hops.push(Hop { rank, sources: vec![piece(left)], targets: vec![piece(rank)] });
        }
    }
    Hops { hops, scratch: 0 }
}
