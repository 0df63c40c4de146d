//! The forms for devices that share memory.

use super::{Buffer, Piece, Steps, Transfer, chunk, copy};
use crate::tensor::{LocalSlice, Strided};

/// Each device sums its chunk from all, in the ring's order, and writes it to all, in place.
pub(super) fn all_reduce(from: &[LocalSlice]) -> Steps {
    let n = from.len();
    let piece = |rank, part| Piece { rank, buffer: Buffer::From, part };
    let transfers = (0..n)
        .map(|rank| {
            let part = chunk(&from[rank], n, rank);
            let sources = (1..=n).map(|k| piece((rank + k) % n, part)).collect();
            Transfer { rank, sources, targets: (0..n).map(|to| piece(to, part)).collect() }
        })
        .collect();
    Steps { transfers, scratch: 0 }
}

/// Each device sums its part from all, in the ring's order.
pub(super) fn reduce_scatter(from: &[LocalSlice], to: &[LocalSlice]) -> Steps {
    let n = from.len();
    let transfers = (0..n)
        .map(|rank| {
            let part = Strided::of(&to[rank], &from[rank]);
            let sources = (1..=n).map(|k| Piece { rank: (rank + k) % n, buffer: Buffer::From, part }).collect();
            let part = Strided::contiguous(0, to[rank].elements());
            Transfer { rank, sources, targets: vec![Piece { rank, buffer: Buffer::To, part }] }
        })
        .collect();
    Steps { transfers, scratch: 0 }
}

/// Each device copies what it wants from each that has it: all-gather and all-to-all.
pub(super) fn exchange(from: &[LocalSlice], to: &[LocalSlice]) -> Steps {
    let n = from.len();
    let transfers = (0..n).flat_map(|rank| (0..n).map(move |k| copy(rank, (rank + k) % n, from, to))).collect();
    Steps { transfers, scratch: 0 }
}
