//! Lowers a collective to hops.

use super::hop::{Hops, copy};
use super::{Collective, CollectiveAlgorithm, one_pass, ring};
use crate::tensor::LocalSlice;

/// Lowers a collective among devices that hold the windows `from` of a tensor and require the windows `to`.
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

#[cfg(test)]
mod tests {
    use super::super::hop::{Hop, HopBuffer};
    use super::*;
    use crate::tensor::{Axis, Dim, Layout, Mesh, Placement, Shape, Strided};

    /// Runs the hops one after another.
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
            (Collective::ReduceScatter, P, S(Dim::BATCH)),
            (Collective::ReduceScatter, P, S(Dim::CHANNELS)),
            (Collective::AllGather, S(Dim::BATCH), R),
            (Collective::AllGather, S(Dim::CHANNELS), R),
            (Collective::Slice, R, S(Dim::CHANNELS)),
            (Collective::AllToAll, S(Dim::BATCH), S(Dim::CHANNELS)),
            (Collective::AllToAll, S(Dim::CHANNELS), S(Dim::BATCH)),
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
