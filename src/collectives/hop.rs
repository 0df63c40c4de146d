//! The hops of a collective: sums of strided slices, each computed by one device.

use crate::tensor::{LocalSlice, Strided};

/// The buffer of a device that contains a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HopBuffer {
    /// The tensor in its current layout.
    From,
    /// The tensor in the required layout.
    To,
    /// The collective's scratch buffer.
    Scratch,
}

/// A piece of a buffer of one device of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopSlice {
    /// The device, as its index in the group.
    pub rank: usize,
    /// The buffer.
    pub buffer: HopBuffer,
    /// The elements in the buffer.
    pub part: Strided,
}

/// target = sum of the sources, in order, for every target, computed by device `rank`. A target may be a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The device that computes the sum.
    pub rank: usize,
    /// The terms of the sum.
    pub sources: Vec<HopSlice>,
    /// The pieces that receive the sum.
    pub targets: Vec<HopSlice>,
}

impl Hop {
    /// Returns the number of elements that cross between devices.
    pub fn wire_elements(&self) -> usize {
        let far = self.sources.iter().chain(&self.targets).filter(|piece| piece.rank != self.rank);
        far.map(|piece| piece.part.elements()).sum()
    }
}

/// A collective as a list of hops, ordered so that every source is complete before its use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hops {
    /// The hops.
    pub hops: Vec<Hop>,
    /// Number of scratch elements that each device needs.
    pub scratch: usize,
}

/// Returns the copy by `rank` of the elements that it requires and `source` has.
pub(super) fn copy(rank: usize, source: usize, from: &[LocalSlice], to: &[LocalSlice]) -> Hop {
    let both = from[source].intersect(&to[rank]);
    Hop {
        rank,
        sources: vec![HopSlice { rank: source, buffer: HopBuffer::From, part: Strided::of(&both, &from[source]) }],
        targets: vec![HopSlice { rank, buffer: HopBuffer::To, part: Strided::of(&both, &to[rank]) }],
    }
}

/// Returns part `c` of n contiguous parts of a device's elements.
pub(super) fn chunk(window: &LocalSlice, n: usize, c: usize) -> Strided {
    let (start, len) = crate::tensor::cut(window.elements(), n, c);
    Strided::contiguous(start, len)
}
