//! Checks the optimiser's chain over flat regions, with padding between segments, against the same chain on the CPU in
//! f64. In the last step a gradient is infinite, so nothing may change.

use super::compare::{Compared, Difference, Tally, worst_bits, worst_relative};
use super::device::{Device, Effort};
use crate::cpu::Args;
use crate::device::{Clock, Memory, Operand, Pool, Queue, Random, RandomStream};
use crate::error::Result;
use crate::gpu::{CLOCK_BYTES, DriverKind, Launch, clock_words};
use crate::optim::{
    self, Chain, ClipByGlobalNorm, DeviceChain, Momentum, Segment, UpdateArgs, UpdatePass, UpdateRole, WeightDecay,
};
use crate::tensor::{Element, LocalSlice, Real, Shape};
use half::bf16;
use std::sync::Arc;

/// Allows for a few roundings of 6e-8 per element, and a norm over some thousand squares.
pub(super) const BOUND: f64 = 2e-6;

/// Elements of a region: more than a block, and a multiple of the alignment of arenas.
const ELEMENTS: usize = 5504;
/// Bytes of a region.
const BYTES: usize = ELEMENTS * size_of::<f32>();
const STEPS: u64 = 3;

/// Checks every transform alone, an empty chain, and a chain of several that a norm divides into stages.
pub(super) fn check(device: &Device, effort: Effort, tally: &mut Tally) {
    let mut chains: Vec<Chain> = optim::all_examples().into_iter().map(|one| Chain::new(&[one])).collect();
    chains.push(Chain::default());
    chains.push(Chain::new(&[
        Box::new(Momentum { mu: 0.5, nesterov: true, ..Momentum::default() }),
        Box::new(ClipByGlobalNorm { max_norm: 3.0 }),
        Box::new(WeightDecay { decay: 0.1 }),
        Box::new(Momentum::default()),
    ]));
    let skipped = if effort == Effort::Quick { chains.len() - 1 } else { 0 };
    for chain in &chains[skipped..] {
        let names: Vec<String> = chain.transforms.iter().map(|transform| format!("{transform:?}")).collect();
        let got = match (&device.driver, device.kind()) {
            (Some(_), Some(kind)) => on_gpu(chain, device, kind).map(|(got, bf16_weights)| (got, Some(bf16_weights))),
            _ => on_cpu::<f32>(chain, device.threads).map(|got| (got, None)),
        };
        let compared = |(region, (got, expected)): (usize, (Vec<f32>, Vec<f64>))| {
            let (role, difference) = match outputs(chain)[region] {
                UpdateRole::Slot(slot) => {
                    (format!("{} {}", slot.transform, slot.name), worst_by_scale(&got, &expected))
                }
                role => (format!("{role:?}").to_lowercase(), worst_relative(&got, &expected)),
            };
            Compared { role, difference, bound: BOUND }
        };
        let both = on_cpu::<f64>(chain, 1).and_then(|expected| Ok((got?, expected)));
        let bf16_weights =
            both.as_ref().ok().and_then(|((got, bf16_weights), _)| Some(rounded(&got[0], bf16_weights.as_ref()?)));
        let outcome =
            both.map(|((got, _), expected)| got.into_iter().zip(expected).enumerate().map(compared).collect());
        let case = format!("[{}]", names.join(", "));
        tally.add(&case, outcome);
        if tally.lost {
            return;
        }
        if let Some(bf16_weights) = bf16_weights {
            tally.add(&format!("{case} in bf16"), Ok(vec![bf16_weights]));
        }
    }
}

/// The exponents of the scales of gradients, which neighbouring elements take in turn: second moments become as small as
/// 2^-48.
const SCALES: [i32; 4] = [0, -8, -16, -24];

/// Returns the worst element. Its error is relative to the largest expected magnitude of those with its scale.
fn worst_by_scale(got: &[f32], expected: &[f64]) -> Difference {
    let of_scale = |scale: usize| {
        let all = || (scale..expected.len()).step_by(SCALES.len());
        let (got, expected): (Vec<f32>, Vec<f64>) = all().map(|i| (got[i], expected[i])).unzip();
        let worst = worst_relative(&got, &expected);
        Difference { index: scale + worst.index * SCALES.len(), ..worst }
    };
    let all = (0..SCALES.len()).map(of_scale);
    all.reduce(|worst, other| if other.error > worst.error { other } else { worst }).expect("there are scales")
}

/// Compares the segments of the bf16 weights with the weights, rounded to nearest.
fn rounded(weights: &[f32], bf16_weights: &[bf16]) -> Compared {
    let inside = || segments().into_iter().flat_map(|s| s.offset..s.offset + s.len);
    let got: Vec<f32> = inside().map(|i| bf16_weights[i].to_f32()).collect();
    let expected: Vec<f32> = inside().map(|i| bf16::from_f32(weights[i]).to_f32()).collect();
    Compared { role: "weights in bf16".into(), difference: worst_bits(&got, &expected), bound: 0.0 }
}

fn segments() -> Vec<Segment> {
    let segment = |(offset, len, layer, unit, run, lr_mult, decay_mult)| Segment {
        offset,
        len,
        layer,
        group: 0,
        unit,
        run,
        lr_mult,
        decay_mult,
        counted: true,
    };
    [
        (3, 5, 0, 0, 5, 1.0, 1.0),
        (16, 0, 1, 1, 1, 1.0, 1.0),
        (64, 1201, 2, 2, 1201, 2.0, 0.5),
        (1300, 4097, 2, 3, 17, 1.0, 0.0),
    ]
    .map(segment)
    .into()
}

/// The number of units of the segments.
const UNITS: usize = 3 + 4097 / 17;

/// The number of metrics of the batch.
const METRICS: usize = 3;

/// Returns the initial values of a region: 0 is the weights, 1 and up are the gradients of each step.
fn start(region: u64) -> Vec<f64> {
    let random = Random::new(13, RandomStream::Probe, 0, region);
    // Exact in f32, in every precision.
    let scale = |i: usize| if region == 0 { 1.0 } else { 2f64.powi(SCALES[i % SCALES.len()]) };
    let mut values: Vec<f64> = (0..ELEMENTS).map(|i| scale(i) * f64::from(random.normal(i as u64) as f32)).collect();
    if region == STEPS {
        values[segments()[2].offset + 700] = f64::INFINITY;
    }
    values
}

fn clock(step: u64) -> Clock {
    Clock { step, epoch: 0, lr: 0.25 / step as f64, row: 0 }
}

/// Returns the roles of all regions of a chain.
fn roles(chain: &Chain) -> Vec<UpdateRole> {
    let first = [UpdateRole::Weights, UpdateRole::Gradients, UpdateRole::Norms, UpdateRole::LowPrecision];
    let checks = [UpdateRole::Metrics, UpdateRole::NonFiniteGradients, UpdateRole::NonFiniteWeights];
    first.into_iter().chain(checks).chain(slots(chain)).collect()
}

/// Returns the roles of what is compared.
fn outputs(chain: &Chain) -> Vec<UpdateRole> {
    let counts = [UpdateRole::NonFiniteGradients, UpdateRole::NonFiniteWeights];
    [UpdateRole::Weights].into_iter().chain(slots(chain)).chain(counts).collect()
}

/// Returns the number of elements of a region.
fn len(chain: &Chain, role: UpdateRole) -> usize {
    match role {
        UpdateRole::Norms => chain.num_norms(segments().len(), UNITS),
        UpdateRole::Metrics => METRICS,
        UpdateRole::NonFiniteGradients | UpdateRole::NonFiniteWeights => 1,
        _ => ELEMENTS,
    }
}

fn slots(chain: &Chain) -> impl Iterator<Item = UpdateRole> {
    chain.slots().map(|(slot, _)| UpdateRole::Slot(slot))
}

/// Returns true if stage `number` uses a role: norms if it needs them, the slots of its transforms, and the bf16 copy if
/// it writes the weights. The first stage checks that the loss and the gradients are finite.
fn is_used(stage: &UpdatePass, number: usize, role: UpdateRole) -> bool {
    let checks = matches!(role, UpdateRole::Metrics | UpdateRole::NonFiniteGradients | UpdateRole::NonFiniteWeights);
    match (stage, role) {
        (UpdatePass::Check | UpdatePass::Norm { .. }, _) if checks => number == 0,
        (UpdatePass::Check, role) => role == UpdateRole::Gradients,
        (UpdatePass::Norm { weights, .. }, UpdateRole::Weights) => *weights,
        (UpdatePass::Norm { .. }, role) => matches!(role, UpdateRole::Gradients | UpdateRole::Norms),
        (UpdatePass::Apply { .. }, UpdateRole::Weights | UpdateRole::Gradients) => true,
        (UpdatePass::Apply { norm, .. }, UpdateRole::Norms) => *norm,
        (UpdatePass::Apply { update, .. }, UpdateRole::LowPrecision | UpdateRole::NonFiniteWeights) => *update,
        (UpdatePass::Apply { .. }, UpdateRole::NonFiniteGradients) => true,
        (UpdatePass::Apply { .. }, UpdateRole::Metrics) => false,
        (UpdatePass::Apply { transforms, .. }, UpdateRole::Slot(slot)) => transforms.contains(&slot.transform),
    }
}

/// Runs the steps on the CPU, which has no bf16 weights; returns the weights and the slots.
fn on_cpu<T: Real>(chain: &Chain, threads: usize) -> Result<Vec<Vec<T>>> {
    let (segments, pool) = (segments(), Pool::new(threads)?);
    let region = |role| {
        let n = len(chain, role);
        let memory = Arc::new(Memory::new(n * T::PRECISION.bytes())?);
        let operand =
            Operand::new(&memory, 0, Shape::from([n]), LocalSlice { start: vec![0], len: vec![n] }, T::PRECISION);
        Ok((role, operand))
    };
    let roles = roles(chain).into_iter().filter(|&role| role != UpdateRole::LowPrecision);
    let regions: Vec<(UpdateRole, Operand)> = roles.map(region).collect::<Result<_>>()?;
    let with = |used: &dyn Fn(UpdateRole) -> bool, clock: Clock, f: &mut dyn FnMut(&UpdateArgs)| {
        let operands = regions.iter().filter(|(role, _)| used(*role)).cloned().collect();
        f(&Args { clock, divisor: 1, ..Args::new(&operands, &pool, T::PRECISION) });
    };
    let set = |which: UpdateRole, values: &[f64]| {
        with(&|_| true, clock(1), &mut |args| {
            args.write::<T>(which).iter_mut().zip(values).for_each(|(to, &from)| *to = T::from_f64(from));
        });
    };
    set(UpdateRole::Weights, &start(0));
    slots(chain).for_each(|slot| set(slot, &[0.0; ELEMENTS]));
    set(UpdateRole::Metrics, &[0.0; METRICS]);
    for step in 1..=STEPS {
        set(UpdateRole::Gradients, &start(step));
        for (number, stage) in chain.stages().iter().enumerate() {
            with(&|role| is_used(stage, number, role), clock(step), &mut |args| {
                chain.run(stage, &segments, |_| false, args)
            });
        }
    }
    let mut all = Vec::new();
    with(&|_| true, clock(1), &mut |args| {
        all = outputs(chain).into_iter().map(|role| args.read::<T>(role).to_vec()).collect();
    });
    Ok(all)
}

/// Runs the steps on a GPU; returns the weights, the slots and the bf16 weights. The regions are consecutive in an
/// arena, which is initially zero.
fn on_gpu(chain: &Chain, device: &Device, kind: DriverKind) -> Result<(Vec<Vec<f32>>, Vec<bf16>)> {
    let roles = roles(chain);
    // The clock follows the regions.
    let clock_byte = roles.len() * BYTES;
    let mut gpus = device.gpus(kind, roles.len() * ELEMENTS + CLOCK_BYTES / size_of::<f32>())?;
    let tables = DeviceChain::new(chain, &segments(), std::slice::from_ref(&(0..ELEMENTS)), UNITS, &mut gpus, 0)?;
    let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    let arena = gpus.address(0, 0);
    let first_byte = |role| roles.iter().position(|&r| r == role).expect("every role has a region") * BYTES;
    let operand = |role| {
        let n = len(chain, role);
        let window = LocalSlice { start: vec![0], len: vec![n] };
        let element = if role == UpdateRole::LowPrecision { Element::Bf16 } else { Element::F32 };
        (role, Operand::at(arena + first_byte(role) as u64, element, Shape::from([n]), window))
    };
    gpus.store(0, first_byte(UpdateRole::Weights), &single(start(0)))?;
    for step in 1..=STEPS {
        gpus.store(0, first_byte(UpdateRole::Gradients), &single(start(step)))?;
        gpus.store(0, clock_byte, &clock_words(clock(step)))?;
        for (number, stage) in chain.stages().iter().enumerate() {
            let operands = roles.iter().copied().filter(|&role| is_used(stage, number, role)).map(operand).collect();
            let (issue, clock) = (gpus.issue(0, Queue::Compute), arena + clock_byte as u64);
            let launch = Launch {
                issue,
                operands: &operands,
                clock,
                seed: 0,
                layer: 0,
                divisor: 1,
                loss_weight: 1.0,
                tf32: false,
                epilogue: None,
            };
            chain.launch(number, 0, &tables, &launch)?;
        }
        gpus.synchronize(0, Queue::Compute)?;
    }
    let fetch = |role: UpdateRole| {
        let mut values = vec![0.0; len(chain, role)];
        gpus.fetch(0, first_byte(role), &mut values).map(|()| values)
    };
    let pairs = |pair: f32| [pair.to_bits() as u16, (pair.to_bits() >> 16) as u16].map(bf16::from_bits);
    let bf16_weights = fetch(UpdateRole::LowPrecision)?.into_iter().flat_map(pairs).take(ELEMENTS).collect();
    Ok((outputs(chain).into_iter().map(fetch).collect::<Result<_>>()?, bf16_weights))
}
