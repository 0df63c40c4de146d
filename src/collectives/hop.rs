//! The hops of a collective: sums of strided slices, each computed by one device.

use crate::tensor::{LocalSlice, Strided};

/// Which of a device's buffers a piece lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HopBuffer {
    /// The tensor as it is.
    From,
    /// The tensor as it is wanted.
    To,
    /// The collective's own buffer.
    Scratch,
}

/// A piece of a buffer of one device of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopSlice {
    /// The device, as its index in the group.
    pub rank: usize,
    /// Which buffer.
    pub buffer: HopBuffer,
    /// Which elements.
    pub part: Strided,
}

/// target = sum of the sources, in their order, for every target; done by device `rank`. A target may be a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The device that does it.
    pub rank: usize,
    /// What is added.
    pub sources: Vec<HopSlice>,
    /// Where the sum goes.
    pub targets: Vec<HopSlice>,
}

impl Hop {
    /// Returns the elements that cross between devices.
    pub fn wire_elements(&self) -> usize {
        let far = self.sources.iter().chain(&self.targets).filter(|piece| piece.rank != self.rank);
        far.map(|piece| piece.part.elements()).sum()
    }
}

/// A collective as transfers, in an order in which every source is complete before its use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hops {
    /// The transfers.
    pub hops: Vec<Hop>,
    /// Elements of scratch that each device needs.
    pub scratch: usize,
}

/// The copy by `rank` of what it wants and `source` has.
pub(super) fn copy(rank: usize, source: usize, from: &[LocalSlice], to: &[LocalSlice]) -> Hop {
    let both = from[source].intersect(&to[rank]);
    Hop {
        rank,
        sources: vec![HopSlice { rank: source, buffer: HopBuffer::From, part: Strided::of(&both, &from[source]) }],
        targets: vec![HopSlice { rank, buffer: HopBuffer::To, part: Strided::of(&both, &to[rank]) }],
    }
}

/// Part `c` of n contiguous parts of a device's elements.
pub(super) fn chunk(window: &LocalSlice, n: usize, c: usize) -> Strided {
    let (start, len) = crate::tensor::cut(window.elements(), n, c);
    Strided::contiguous(start, len)
}
