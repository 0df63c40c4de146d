//! Collectives as lists of copies and sums on queues: nothing waits inside a step, events order the list.
//!
//! A collective among n devices that each hold a window of a tensor becomes [`Hop`]s: "this device computes
//! target = source + source + ... on its communication queue". The ring form moves data between neighbours only
//! (reduce-scatter and all-gather, 2 (n - 1) rounds of 1/n of the bytes; Patarasuk and Yuan 2009,
//! <https://doi.org/10.1016/j.jpdc.2008.09.002>). Where devices share memory the one-pass form reads every source
//! and writes every target at once; it adds in the ring's order, so both give the same bits.
//!
//! To add a form: extend [`CollectiveAlgorithm`] and [`lower`]; the tests at the foot take it in.

mod one_pass;
mod ring;

use crate::tensor::{LocalSlice, Strided};

/// What a redistribution along one mesh axis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Collective {
    /// Partial to replicate, in place: every device gets the sum.
    AllReduce,
    /// Partial to shard: every device gets its part of the sum.
    ReduceScatter,
    /// Shard to replicate: every device gets all parts.
    AllGather,
    /// Replicate to shard: every device keeps its part. No communication.
    Slice,
    /// Shard of one dimension to shard of another.
    AllToAll,
}

impl std::fmt::Display for Collective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Collective::AllReduce => "all-reduce",
            Collective::ReduceScatter => "reduce-scatter",
            Collective::AllGather => "all-gather",
            Collective::Slice => "slice",
            Collective::AllToAll => "all-to-all",
        })
    }
}

/// How a collective is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CollectiveAlgorithm {
    /// Devices share memory: each sums its part from all and writes it to all.
    #[default]
    OnePass,
    /// Neighbour to neighbour.
    Ring,
}

impl std::fmt::Display for CollectiveAlgorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CollectiveAlgorithm::OnePass => "one_pass",
            CollectiveAlgorithm::Ring => "ring",
        })
    }
}

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

/// Lowers a collective among devices that hold the windows `from` and want the windows `to` of one tensor.
pub fn lower(collective: Collective, algorithm: CollectiveAlgorithm, from: &[LocalSlice], to: &[LocalSlice]) -> Hops {
    let mut steps = match (collective, algorithm) {
        (Collective::AllReduce, CollectiveAlgorithm::OnePass) => one_pass::all_reduce(from),
        (Collective::AllReduce, CollectiveAlgorithm::Ring) => ring::all_reduce(from),
        (Collective::ReduceScatter, CollectiveAlgorithm::OnePass) => one_pass::reduce_scatter(from, to),
        (Collective::ReduceScatter, CollectiveAlgorithm::Ring) => ring::reduce_scatter(from, to),
        (Collective::AllGather, CollectiveAlgorithm::Ring) => ring::all_gather(from, to),
        (Collective::AllGather, CollectiveAlgorithm::OnePass) | (Collective::AllToAll, _) => {
            one_pass::exchange(from, to)
        }
        (Collective::Slice, _) => {
            Hops { hops: (0..from.len()).map(|rank| copy(rank, rank, from, to)).collect(), scratch: 0 }
        }
    };
    steps.hops.retain(|t| t.targets.iter().any(|piece| piece.part.elements() > 0));
    steps
}

/// The copy by `rank` of what it wants and `source` has.
fn copy(rank: usize, source: usize, from: &[LocalSlice], to: &[LocalSlice]) -> Hop {
    let both = from[source].intersect(&to[rank]);
    Hop {
        rank,
        sources: vec![HopSlice { rank: source, buffer: HopBuffer::From, part: Strided::of(&both, &from[source]) }],
        targets: vec![HopSlice { rank, buffer: HopBuffer::To, part: Strided::of(&both, &to[rank]) }],
    }
}

/// Part `c` of n contiguous parts of a device's elements.
fn chunk(window: &LocalSlice, n: usize, c: usize) -> Strided {
    let (start, len) = crate::tensor::cut(window.elements(), n, c);
    Strided::contiguous(start, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Axis, Layout, Mesh, Placement, Shape};

    /// Runs the transfers one after the other.
    fn run(steps: &Hops, from: &mut [Vec<f32>], to: &mut [Vec<f32>], in_place: bool) {
        let mut scratch = vec![vec![f32::NAN; steps.scratch]; from.len()];
        for t in &steps.hops {
            let elements = t.targets[0].part.elements();
            let at = |p: Strided, i: usize| p.offset + i / p.len * p.stride + i % p.len;
            for i in 0..elements {
                let mut sum = 0.0;
                for (k, s) in t.sources.iter().enumerate() {
                    let v = match s.buffer {
                        HopBuffer::From => from[s.rank][at(s.part, i)],
                        HopBuffer::To => to[s.rank][at(s.part, i)],
                        HopBuffer::Scratch => scratch[s.rank][at(s.part, i)],
                    };
                    sum = if k == 0 { v } else { sum + v };
                }
                for s in &t.targets {
                    match s.buffer {
                        HopBuffer::From => from[s.rank][at(s.part, i)] = sum,
                        HopBuffer::To => to[s.rank][at(s.part, i)] = sum,
                        HopBuffer::Scratch => scratch[s.rank][at(s.part, i)] = sum,
                    }
                }
            }
        }
        if in_place {
            to.clone_from_slice(from);
        }
    }

    fn take(whole: &[f32], shape: &Shape, window: &LocalSlice) -> Vec<f32> {
        let all = LocalSlice { start: vec![0; shape.rank()], len: shape.0.clone() };
        let s = Strided::of(window, &all);
        (0..s.rows).flat_map(|r| whole[s.offset + r * s.stride..][..s.len].to_vec()).collect()
    }

    #[test]
    fn every_collective_gives_every_device_its_window_and_both_forms_the_same_bits() {
        use Placement::{Partial as P, Replicate as R, Shard as S};
        let cases = [
            (Collective::AllReduce, P, R),
            (Collective::ReduceScatter, P, S(0)),
            (Collective::ReduceScatter, P, S(3)),
            (Collective::AllGather, S(0), R),
            (Collective::AllGather, S(3), R),
            (Collective::Slice, R, S(3)),
            (Collective::AllToAll, S(0), S(3)),
            (Collective::AllToAll, S(3), S(0)),
        ];
        for n in [2, 3, 4] {
            for rows in [1, 2, 5, 8] {
                let shape = Shape::from([rows, 1, 2, 12]);
                let mesh = Mesh { data: 1, columns: n };
                for (collective, have, want) in cases {
                    let windows = |place| -> Vec<LocalSlice> {
                        let layout = Layout::REPLICATE.with(Axis::Columns, place);
                        (0..n).map(|d| layout.window(&shape, mesh, mesh.position(d))).collect()
                    };
                    let (before, after) = (windows(have), windows(want));
                    let terms: Vec<Vec<f32>> = (0..n)
                        .map(|d| (0..shape.elements()).map(|i| ((i * 7 + d * 13) % 11) as f32 / 7.0).collect())
                        .collect();
                    let mut results = Vec::new();
                    for algorithm in [CollectiveAlgorithm::OnePass, CollectiveAlgorithm::Ring] {
                        let whole = |d: usize| if have == P { &terms[d] } else { &terms[0] };
                        let mut from: Vec<_> = (0..n).map(|d| take(whole(d), &shape, &before[d])).collect();
                        let mut to: Vec<_> = after.iter().map(|w| vec![f32::NAN; w.elements()]).collect();
                        let steps = lower(collective, algorithm, &before, &after);
                        run(&steps, &mut from, &mut to, collective == Collective::AllReduce);
                        results.push(to);
                    }
                    assert_eq!(results[0], results[1], "{collective} {n} {rows}");
                    for d in 0..n {
                        let sum = |i: usize| (0..n).map(|k| f64::from(terms[k][i])).sum::<f64>() as f32;
                        let expected: Vec<f32> =
                            if have == P { (0..shape.elements()).map(sum).collect() } else { terms[0].clone() };
                        let expected = take(&expected, &shape, &after[d]);
                        let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
                        assert_eq!(expected.len(), results[0][d].len());
                        assert!(expected.iter().zip(&results[0][d]).all(near), "{collective} {n} {rows} {d}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_ring_moves_two_times_n_minus_one_over_n_of_the_bytes_per_device() {
        let shape = Shape::from([64]);
        let window = LocalSlice { start: vec![0], len: shape.0 };
        let from = vec![window; 4];
        let steps = lower(Collective::AllReduce, CollectiveAlgorithm::Ring, &from, &from);
        let wire: usize = steps.hops.iter().map(Hop::wire_elements).sum();
        assert_eq!(wire, 4 * 2 * 3 * 64 / 4);
    }
}
