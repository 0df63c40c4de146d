//! Checks redistributions among logical devices of one device against sums computed on the host.

use super::compare::{Compared, Tally, worst, worst_bits};
use super::device::{Device, Effort};
use super::training;
use crate::collectives::{self, Collective, CollectiveAlgorithm, Hop, HopBuffer, HopSlice};
use crate::data::Batch;
use crate::device::{Clock, Queue, Random, RandomStream};
use crate::diagnose::one_move::{OneMove, variant};
use crate::error::Result;
use crate::gpu::{DriverKind, GpuOptions, Gpus, INPUTS};
use crate::placement::{Region, Spec};
use crate::tensor::{Dim, Element, Layout, LocalSlice, MatmulPrecision, Mesh, Placement, Precision, Shape, Strided};
use half::bf16;

/// The collectives to check; a slice is only a local copy.
pub(super) const ALL: [Collective; 4] =
    [Collective::AllReduce, Collective::ReduceScatter, Collective::AllGather, Collective::AllToAll];

/// The sum of four terms has three roundings of 6e-8.
pub(super) const BOUND: f64 = 2e-7;

/// The shapes (N, H, W, C) of the tensors: fewer elements than devices, odd sizes, and many blocks.
const SHAPES: [[usize; 4]; 4] = [[1, 1, 1, 3], [5, 1, 3, 7], [8, 2, 2, 16], [33, 3, 5, 67]];

/// Returns the redistributions that use a collective, in several sizes.
fn moves(collective: Collective, effort: Effort) -> Vec<OneMove> {
    let moves: &[(Placement, Placement)] = match collective {
        Collective::AllReduce => &[(Placement::Partial, Placement::Replicate)],
        Collective::ReduceScatter => {
            &[(Placement::Partial, Placement::Shard(Dim::BATCH)), (Placement::Partial, Placement::Shard(Dim::CHANNELS))]
        }
        Collective::AllGather => &[
            (Placement::Shard(Dim::BATCH), Placement::Replicate),
            (Placement::Shard(Dim::CHANNELS), Placement::Replicate),
        ],
        _ => &[
            (Placement::Shard(Dim::BATCH), Placement::Shard(Dim::CHANNELS)),
            (Placement::Shard(Dim::CHANNELS), Placement::Shard(Dim::BATCH)),
        ],
    };
    let shapes = if effort == Effort::Quick { &SHAPES[1..2] } else { &SHAPES[..] };
    let all =
        |&shape| moves.iter().map(move |&(have, want)| OneMove { collective, shape: Shape::from(shape), have, want });
    shapes.iter().flat_map(all).collect()
}

/// Runs a collective on two and four devices in several sizes.
pub(super) fn check(collective: Collective, device: &Device, effort: Effort, tally: &mut Tally) {
    let algorithms: &[CollectiveAlgorithm] = if device.driver.is_some() {
        &[CollectiveAlgorithm::Ring]
    } else {
        &[CollectiveAlgorithm::Ring, CollectiveAlgorithm::OnePass]
    };
    for devices in [2, 4] {
        for moved in moves(collective, effort) {
            for &algorithm in algorithms {
                let OneMove { shape, have, want, .. } = &moved;
                let case = format!("{shape:?} from {have:?} to {want:?} on {devices} devices, {algorithm:?}");
                tally.run(&case, || run(device, devices, algorithm, &moved));
            }
        }
    }
}

fn run(device: &Device, devices: usize, algorithm: CollectiveAlgorithm, moved: &OneMove) -> Result<Vec<Compared>> {
    let (job, _) = training::job(&device.times(devices), &[])?;
    let spec =
        Spec { algorithm, precision: Precision::F32, products: MatmulPrecision::Full, ..job.spec(vec![variant()]) };
    let mesh = spec.mesh;
    let mut session = job.session(moved.plan(spec))?;
    // A partial tensor has a different term on every device; otherwise all devices hold parts of the first.
    let terms: Vec<Vec<f32>> = (0..devices)
        .map(|term| {
            let random =
                Random::new(7, RandomStream::Probe, 0, if moved.have == Placement::Partial { term as u64 } else { 0 });
            (0..moved.shape.elements() as u64).map(|i| random.normal(i) as f32).collect()
        })
        .collect();
    let sum = |i: usize| match moved.have {
        Placement::Partial => terms.iter().map(|term| f64::from(term[i])).sum::<f64>(),
        _ => f64::from(terms[0][i]),
    };
    let whole: Vec<f64> = (0..moved.shape.elements()).map(sum).collect();
    let [from, to] = moved.layouts();
    let window = |layout: Layout, device: usize| layout.window(&moved.shape, mesh, mesh.position(device));
    let mut compared = Vec::new();
    // GPUs capture a program on its second run.
    for run in ["first run", "second run"] {
        for (d, term) in terms.iter().enumerate() {
            let mut mine = cut(term, &moved.shape, &window(from, d));
            // On every device, a region has the length of the longest part.
            mine.resize(session.plan().region(Region::Gradients).1, 0.0);
            session.write_region(d, Region::Gradients, &mine)?;
            if moved.result() != Region::Gradients {
                // Overwrite the results of an earlier run, so that they cannot pass for those of this one.
                let room = session.plan().region(moved.result()).1;
                session.write_region(d, moved.result(), &vec![f32::NAN; room])?;
            }
        }
        session.run(variant(), &mut Batch::default(), Clock::default())?;
        for d in 0..devices {
            let expected = cut(&whole, &moved.shape, &window(to, d));
            let mut got = session.read_region::<f32>(d, moved.result())?;
            got.truncate(expected.len());
            let role = format!("device {d}, {run}");
            compared.push(Compared { role, difference: worst(&got, &expected), bound: BOUND });
        }
    }
    Ok(compared)
}

/// Runs the copies and sums of collectives in bf16 on two and four devices, one after another, and compares them with
/// the host's: every addition in f32, rounded when stored. Their waits are checked in f32.
pub(super) fn check_bf16(collective: Collective, device: &Device, kind: DriverKind, effort: Effort, tally: &mut Tally) {
    for moved in moves(collective, effort) {
        for devices in [2, 4] {
            let OneMove { shape, have, want, .. } = &moved;
            let case = format!("{shape:?} from {have:?} to {want:?} on {devices} devices");
            tally.run(&case, || run_bf16(device, kind, devices, &moved));
        }
    }
}

fn run_bf16(device: &Device, kind: DriverKind, devices: usize, moved: &OneMove) -> Result<Vec<Compared>> {
    let mesh = Mesh { data: devices, columns: 1 };
    let window = |layout: Layout, d| layout.window(&moved.shape, mesh, mesh.position(d));
    let [from, to] = moved.layouts().map(|layout| (0..devices).map(|d| window(layout, d)).collect::<Vec<LocalSlice>>());
    let steps = collectives::lower(moved.collective, CollectiveAlgorithm::Ring, &from, &to);
    let longest = |windows: &[LocalSlice]| windows.iter().map(LocalSlice::elements).max().unwrap_or(0);
    let [from, to, scratch] = [longest(&from), longest(&to), steps.scratch].map(|n| n.next_multiple_of(64));
    let first = |buffer| match buffer {
        HopBuffer::From => 0,
        HopBuffer::To => from,
        HopBuffer::Scratch => from + to,
    };
    let elements = from + to + scratch;
    let gpus = Gpus::open(&GpuOptions {
        kind,
        ordinals: &vec![device.ordinal; devices],
        arenas: &vec![elements * Element::Bf16.bytes(); devices],
        staging: [0; INPUTS],
        values: 1,
        slots: 1,
        reach: true,
        host: 0,
        threads: device.threads,
    })?;
    let start = |d: usize| {
        let random = Random::new(7, RandomStream::Probe, 0, d as u64);
        (0..elements as u64).map(|i| bf16::from_f64(random.normal(i))).collect::<Vec<bf16>>()
    };
    let mut expected: Vec<Vec<bf16>> = (0..devices).map(start).collect();
    for (d, values) in expected.iter().enumerate() {
        let pairs =
            values.chunks_exact(2).map(|p| f32::from_bits(u32::from(p[0].to_bits()) | u32::from(p[1].to_bits()) << 16));
        gpus.store(d, 0, &pairs.collect::<Vec<f32>>())?;
    }
    for Hop { rank, sources, targets } in &steps.hops {
        let at = |p: &HopSlice| (gpus.address(p.rank, first(p.buffer) * Element::Bf16.bytes()), p.part);
        let sums: Vec<bf16> = (0..sources[0].part.elements())
            .map(|e| {
                let terms = sources.iter().map(|p| expected[p.rank][place(p, first(p.buffer), e)]);
                terms.reduce(|sum, term| bf16::from_f32(sum.to_f32() + term.to_f32())).expect("every sum has a term")
            })
            .collect();
        let terms: Vec<(u64, Strided)> = sources.iter().map(at).collect();
        for target in targets {
            gpus.sum(*rank, Queue::Communication, Element::Bf16, (&terms, None), at(target))?;
            for (e, &sum) in sums.iter().enumerate() {
                expected[target.rank][place(target, first(target.buffer), e)] = sum;
            }
        }
        gpus.synchronize(*rank, Queue::Communication)?;
    }
    let mut compared = Vec::new();
    for (d, expected) in expected.iter().enumerate() {
        let mut pairs = vec![0.0; elements / 2];
        gpus.fetch(d, 0, &mut pairs)?;
        let bf16_weights = pairs.iter().flat_map(|p| [p.to_bits() as u16, (p.to_bits() >> 16) as u16]);
        let got: Vec<f32> = bf16_weights.map(|bits| bf16::from_bits(bits).to_f32()).collect();
        let expected: Vec<f32> = expected.iter().map(|x| x.to_f32()).collect();
        compared.push(Compared { role: format!("device {d}"), difference: worst_bits(&got, &expected), bound: 0.0 });
    }
    Ok(compared)
}

/// Returns the index of element `e` of a piece whose buffer begins at `first`.
fn place(piece: &HopSlice, first: usize, e: usize) -> usize {
    let Strided { offset, len, stride, .. } = piece.part;
    first + offset + e / len * stride + e % len
}

/// Returns the elements of a whole tensor that are inside a device's window.
fn cut<T: Copy>(whole: &[T], shape: &Shape, window: &LocalSlice) -> Vec<T> {
    let part = Strided::of(window, &LocalSlice { start: vec![0; shape.rank()], len: shape.0.clone() });
    (0..part.rows).flat_map(|row| &whole[part.offset + row * part.stride..][..part.len]).copied().collect()
}
