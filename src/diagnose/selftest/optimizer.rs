//! The optimiser's chain over flat regions, with padding between segments, beside the same chain on the CPU in f64.

use super::compare::{Compared, Tally, worst, worst_bits};
use super::{Device, Effort};
use crate::device::driver::Kind;
use crate::device::{Args, Clock, INPUTS, Launch, Memory, Operand, Path, Pool, Purpose, Queue, Random};
use crate::error::Result;
use crate::optim::{self, Chain, ClipByGlobalNorm, DeviceChain, Momentum, Segment, Stage, WeightDecay};
use crate::tensor::{Element, Real, Shape, Window};
use half::bf16;
use std::sync::Arc;

/// A handful of roundings of 6e-8 an element, and a norm over some thousand squares.
pub(super) const BOUND: f64 = 2e-6;

/// Elements of a region: more than a block, and a multiple of what arenas align to.
const ELEMENTS: usize = 5504;
/// Bytes of a region.
const BYTES: usize = ELEMENTS * size_of::<f32>();
const STEPS: u64 = 2;
/// The region of the weights in bf16, and the first slot's.
const HALVES: usize = 3;
const SLOTS: usize = 4;

/// Checks every transform by itself, none at all, and all of them in one chain that the norm cuts.
pub(super) fn check(device: &Device, effort: Effort, tally: &mut Tally) {
    let mut chains: Vec<Chain> = optim::all_examples().into_iter().map(|transform| Chain(vec![transform])).collect();
    chains.push(Chain::default());
    chains.push(Chain(vec![
        Box::new(Momentum { mu: 0.5, nesterov: true }),
        Box::new(ClipByGlobalNorm(3.0)),
        Box::new(WeightDecay(0.1)),
        Box::new(Momentum { mu: 0.9, nesterov: false }),
    ]));
    let skipped = if effort == Effort::Quick { chains.len() - 1 } else { 0 };
    for chain in &chains[skipped..] {
        let names: Vec<String> = chain.0.iter().map(|transform| format!("{transform:?}")).collect();
        let got = match (&device.driver, device.kind()) {
            (Some(_), Some(kind)) => on_gpu(chain, device, kind).map(|(got, halves)| (got, Some(halves))),
            _ => on_cpu::<f32>(chain, device.threads).map(|got| (got, None)),
        };
        let compared = |(region, (got, expected)): (usize, (Vec<f32>, Vec<f64>))| {
            let role = if region == 0 { "weights".to_string() } else { format!("slot {}", region - 1) };
            Compared { role, difference: worst(&got, &expected), bound: BOUND }
        };
        let both = on_cpu::<f64>(chain, 1).and_then(|expected| Ok((got?, expected)));
        let halves = both.as_ref().ok().and_then(|((got, halves), _)| Some(rounded(&got[0], halves.as_ref()?)));
        let outcome =
            both.map(|((got, _), expected)| got.into_iter().zip(expected).enumerate().map(compared).collect());
        let case = format!("[{}]", names.join(", "));
        tally.add(&case, outcome);
        if let Some(halves) = halves {
            tally.add(&format!("{case} in bf16"), Ok(vec![halves]));
        }
    }
}

/// Compares the segments of weights in bf16 with the weights, of which they are a copy rounded to nearest.
fn rounded(weights: &[f32], halves: &[bf16]) -> Compared {
    let inside = || segments().into_iter().flat_map(|s| s.offset..s.offset + s.len);
    let got: Vec<f32> = inside().map(|i| halves[i].to_f32()).collect();
    let expected: Vec<f32> = inside().map(|i| bf16::from_f32(weights[i]).to_f32()).collect();
    Compared { role: "weights in bf16".into(), difference: worst_bits(&got, &expected), bound: 0.0 }
}

fn segments() -> Vec<Segment> {
    let segment = |(offset, len, lr_mult, decay_mult, counted)| Segment { offset, len, lr_mult, decay_mult, counted };
    [(3, 5, 1.0, 1.0, true), (16, 0, 1.0, 1.0, true), (64, 1201, 2.0, 0.5, true), (1300, 4097, 1.0, 0.0, true)]
        .map(segment)
        .into()
}

/// Returns what a region holds at first: 0 weights, from 1 on the gradients of the steps.
fn start(region: u64) -> Vec<f64> {
    let random = Random::new(13, Purpose::Probe, 0, region);
    // Floats of 32 bits in every precision.
    (0..ELEMENTS as u64).map(|i| f64::from(random.normal(i) as f32)).collect()
}

fn clock(step: u64) -> Clock {
    Clock { step, epoch: 0, lr: 0.25 / step as f64 }
}

/// The regions of a stage's operands: 0 weights, 1 gradients, 2 norms, 3 weights in bf16, from 4 on the slots.
fn operands(chain: &Chain, stage: &Stage) -> Vec<Option<usize>> {
    match stage {
        Stage::Norm => vec![Some(1), Some(2)],
        Stage::Apply { transforms, update, norm } => {
            let before = SLOTS + chain.slots(0..transforms.start).len();
            let slots = before..before + chain.slots(transforms.clone()).len();
            [Some(0), Some(1), norm.then_some(2), update.then_some(HALVES)].into_iter().chain(slots.map(Some)).collect()
        }
    }
}

/// Runs the steps and returns the weights and the slots. A CPU has no weights in bf16.
fn on_cpu<T: Real>(chain: &Chain, threads: usize) -> Result<Vec<Vec<T>>> {
    let (segments, pool) = (segments(), Pool::new(threads)?);
    let slots = chain.slots(0..chain.0.len()).len();
    let region = |i: usize| {
        let n = if i == 2 { segments.len() } else { ELEMENTS };
        let memory = Arc::new(Memory::new(n * T::PRECISION.bytes())?);
        Ok(Operand::new(&memory, 0, Shape::from([n]), Window { start: vec![0], len: vec![n] }, T::PRECISION))
    };
    let regions: Vec<Operand> = (0..SLOTS + slots).map(region).collect::<Result<_>>()?;
    let with = |which: &[Option<usize>], clock: Clock, f: &mut dyn FnMut(&Args)| {
        let operand = |i: Option<usize>| i.filter(|&i| i != HALVES).map(|i| regions[i].clone());
        let operands: Vec<Option<Operand>> = which.iter().map(|&i| operand(i)).collect();
        let (precision, path) = (T::PRECISION, Path::Fast);
        f(&Args { operands: &operands, pool: &pool, precision, path, clock, seed: 0, layer: 0, rows: 1 });
    };
    let set = |which: usize, values: &[f64]| {
        with(&[Some(which)], clock(1), &mut |args| {
            args.write::<T>(0).iter_mut().zip(values).for_each(|(to, &from)| *to = T::from_f64(from));
        });
    };
    set(0, &start(0));
    for slot in 0..slots {
        set(SLOTS + slot, &[0.0; ELEMENTS]);
    }
    for step in 1..=STEPS {
        set(1, &start(step));
        for stage in chain.stages() {
            with(&operands(chain, &stage), clock(step), &mut |args| chain.run(&stage, &segments, args));
        }
    }
    let mut all = Vec::new();
    for which in [0].into_iter().chain(SLOTS..SLOTS + slots) {
        with(&[Some(which)], clock(1), &mut |args| all.push(args.read::<T>(0).to_vec()));
    }
    Ok(all)
}

/// The same on a GPU, and the weights in bf16: the regions lie one after the other in an arena, which begins as zero.
fn on_gpu(chain: &Chain, device: &Device, kind: Kind) -> Result<(Vec<Vec<f32>>, Vec<bf16>)> {
    let slots = chain.slots(0..chain.0.len()).len();
    let mut gpus = device.gpus(kind, (SLOTS + slots) * ELEMENTS)?;
    let tables = DeviceChain::new(chain, &segments(), &mut gpus, 0)?;
    let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    let arena = gpus.address(0, 0);
    let operand = |region: usize| {
        let n = if region == 2 { segments().len() } else { ELEMENTS };
        let window = Window { start: vec![0], len: vec![n] };
        let element = if region == HALVES { Element::Bf16 } else { Element::F32 };
        Operand::at(arena + (region * BYTES) as u64, element, Shape::from([n]), window)
    };
    gpus.store(0, 0, &single(start(0)))?;
    for step in 1..=STEPS {
        gpus.store(0, BYTES, &single(start(step)))?;
        gpus.stage(0, [&[]; INPUTS], clock(step));
        gpus.load_clock(0, Queue::Compute, 0)?;
        for (number, stage) in chain.stages().iter().enumerate() {
            let operands: Vec<Option<Operand>> = operands(chain, stage).into_iter().map(|i| i.map(operand)).collect();
            let (issue, clock) = (gpus.issue(0, Queue::Compute), gpus.clock(0));
            let launch =
                Launch { issue, operands: &operands, clock, seed: 0, layer: 0, rows: 1, tf32: false, relu: false };
            chain.launch(number, &tables, &launch)?;
        }
        gpus.synchronize(0, Queue::Compute)?;
    }
    let fetch = |region: usize| {
        let mut values = vec![0.0; ELEMENTS];
        gpus.fetch(0, region * BYTES, &mut values).map(|()| values)
    };
    let pairs = |pair: f32| [pair.to_bits() as u16, (pair.to_bits() >> 16) as u16].map(bf16::from_bits);
    let halves = fetch(HALVES)?.into_iter().flat_map(pairs).take(ELEMENTS).collect();
    Ok(([0].into_iter().chain(SLOTS..SLOTS + slots).map(fetch).collect::<Result<_>>()?, halves))
}
