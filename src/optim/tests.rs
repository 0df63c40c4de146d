//! What every chain must do, on flat regions as programs lay them out.

use super::*;
use crate::device::{Args, Clock, Memory, Operand, Path, Pool, Purpose, Random};
use crate::tensor::{Precision, Shape, Window};
use std::sync::Arc;

/// Flat regions of one device: weights, gradients, norms, slots.
struct Device {
    chain: Chain,
    segments: Vec<Segment>,
    regions: Vec<Operand>,
    pool: Pool,
    precision: Precision,
    lr: f64,
}

impl Device {
    /// Lays regions of `elements` out, filled by `fill(region, element)`; region 0 weights, 1 gradients, 3.. slots.
    fn new<T: Real>(
        chain: Vec<Box<dyn Transform>>,
        segments: Vec<Segment>,
        elements: usize,
        fill: impl Fn(usize, usize) -> f64,
    ) -> Self {
        let chain = Chain(chain);
        let slots = chain.slots(0..chain.0.len()).len();
        let region = |i: usize| {
            let n = if i == 2 { segments.len() } else { elements };
            let memory = Arc::new(Memory::new(n * T::PRECISION.bytes()).unwrap());
            Operand::new(&memory, 0, Shape::from([n]), Window { start: vec![0], len: vec![n] }, T::PRECISION)
        };
        let regions = (0..3 + slots).map(region).collect();
        let device = Device { chain, segments, regions, pool: Pool::new(1).unwrap(), precision: T::PRECISION, lr: 0.5 };
        for i in (0..3 + slots).filter(|&i| i != 2) {
            device.with(&[Some(i)], |args| {
                args.write::<T>(0).iter_mut().enumerate().for_each(|(j, x)| *x = T::from_f64(fill(i, j)));
            });
        }
        device
    }

    fn with<R>(&self, regions: &[Option<usize>], f: impl FnOnce(&Args) -> R) -> R {
        let operands: Vec<_> = regions.iter().map(|i| i.map(|i| self.regions[i].clone())).collect();
        f(&Args {
            operands: &operands,
            pool: &self.pool,
            precision: self.precision,
            path: Path::Fast,
            clock: Clock { step: 1, epoch: 0, lr: self.lr },
            seed: 0,
            layer: 0,
            rows: 1,
        })
    }

    fn run(&self, stage: &Stage) {
        let operands: Vec<Option<usize>> = match stage {
            Stage::Norm => vec![Some(1), Some(2)],
            Stage::Apply { transforms, norm, .. } => {
                let before = self.chain.slots(0..transforms.start).len();
                let slots = self.chain.slots(transforms.clone()).len();
                [Some(0), Some(1), norm.then_some(2), None]
                    .into_iter()
                    .chain((0..slots).map(|i| Some(3 + before + i)))
                    .collect()
            }
        };
        self.with(&operands, |args| self.chain.run(stage, &self.segments, args));
    }

    fn step(&self) {
        self.chain.stages().iter().for_each(|stage| self.run(stage));
    }

    fn values<T: Real>(&self, region: usize) -> Vec<f64> {
        self.with(&[Some(region)], |args| args.read::<T>(0).iter().map(|x| x.to_f64()).collect())
    }
}

fn segment(offset: usize, len: usize) -> Segment {
    Segment { offset, len, lr_mult: 1.0, decay_mult: 1.0, counted: true }
}

fn boxed<T: Transform + 'static>(transform: T) -> Box<dyn Transform> {
    Box::new(transform)
}

const MOMENTUM: Momentum = Momentum { mu: 0.9, nesterov: false };

#[test]
fn plain_descent_moves_against_the_gradient_by_the_segments_rate() {
    let mut segments = vec![segment(0, 2), segment(3, 1)];
    segments[1].lr_mult = 2.0;
    let device = Device::new::<f32>(vec![], segments, 4, |region, i| if region == 0 { 1.0 } else { i as f64 });
    device.step();
    assert_eq!(device.values::<f32>(0), [1.0, 0.5, 1.0, -2.0]);
}

#[test]
fn momentum_and_decay_follow_pytorch() {
    // torch.optim.SGD(lr=0.5, momentum=0.9, weight_decay=0.1, nesterov=...), gradient 2 at w = 1:
    // g' = 2 + 0.1 * 1 = 2.1; v = 2.1; w = 1 - 0.5 * 2.1 = -0.05; then gradient 2 again:
    // g' = 2 - 0.005 = 1.995; v = 0.9 * 2.1 + 1.995 = 3.885; w = -0.05 - 0.5 * 3.885 = -1.9925.
    // With Nesterov: w = 1 - 0.5 * (2.1 + 0.9 * 2.1) = -0.995.
    let chain = |nesterov| vec![boxed(WeightDecay(0.1)), boxed(Momentum { mu: 0.9, nesterov })];
    let fill = |region: usize, _: usize| [1.0, 2.0, 0.0, 0.0][region];
    let device = Device::new::<f64>(chain(false), vec![segment(0, 1)], 1, fill);
    device.step();
    assert!((device.values::<f64>(0)[0] + 0.05).abs() < 1e-15);
    device.with(&[Some(1)], |args| args.write::<f64>(0)[0] = 2.0);
    device.step();
    assert!((device.values::<f64>(0)[0] + 1.9925).abs() < 1e-14);
    assert!((device.values::<f64>(3)[0] - 3.885).abs() < 1e-14);
    let nesterov = Device::new::<f64>(chain(true), vec![segment(0, 1)], 1, fill);
    nesterov.step();
    assert!((nesterov.values::<f64>(0)[0] + 0.995).abs() < 1e-15);
}

#[test]
fn the_first_velocity_is_the_gradient() {
    let fill = |region: usize, i: usize| if region == 1 { i as f64 - 1.5 } else { 0.0 };
    let device = Device::new::<f32>(vec![boxed(MOMENTUM)], vec![segment(0, 4)], 4, fill);
    device.step();
    assert_eq!(device.values::<f32>(3), [-1.5, -0.5, 0.5, 1.5]);
}

#[test]
fn decay_is_multiplied_per_segment() {
    let mut segments = vec![segment(0, 1), segment(1, 1)];
    segments[1].decay_mult = 0.0;
    let device =
        Device::new::<f64>(vec![boxed(WeightDecay(0.5))], segments, 2, |region, _| if region == 0 { 4.0 } else { 0.0 });
    device.step();
    assert_eq!(device.values::<f64>(0), [3.0, 4.0]);
}

#[test]
fn clipping_sees_all_segments_together() {
    // |(3, 0; 4)| = 5, clipped to 1: factor 0.2.
    let fill = |region: usize, i: usize| if region == 1 { [3.0, 0.0, 77.0, 4.0][i] } else { 0.0 };
    let segments = vec![segment(0, 2), segment(3, 1)];
    let device = Device::new::<f64>(vec![boxed(ClipByGlobalNorm(1.0))], segments.clone(), 4, fill);
    device.step();
    assert_eq!(device.values::<f64>(2), [9.0, 16.0]);
    let moved: Vec<f64> = device.values::<f64>(0).iter().map(|w| w / -0.5).collect();
    assert!((moved[0] - 0.6).abs() < 1e-15 && (moved[3] - 0.8).abs() < 1e-15 && moved[2] == 0.0, "{moved:?}");
    assert_eq!(device.values::<f64>(1)[2], 77.0, "padding");
    let loose = Device::new::<f64>(vec![boxed(ClipByGlobalNorm(5.0))], segments, 4, fill);
    loose.step();
    assert_eq!(loose.values::<f64>(1), [3.0, 0.0, 77.0, 4.0]);
}

#[test]
fn a_replicated_copy_counts_once() {
    let mut segments = vec![segment(0, 2), segment(2, 2)];
    segments[1].counted = false;
    let chain = vec![boxed(ClipByGlobalNorm(1.0))];
    let device = Device::new::<f64>(chain, segments, 4, |region, _| if region == 1 { 2.0 } else { 0.0 });
    device.run(&Stage::Norm);
    assert_eq!(device.values::<f64>(2), [8.0, 0.0]);
}

#[test]
fn chains_are_cut_before_transforms_that_need_norms_and_where_slots_are_many() {
    let apply = |transforms, update, norm| Stage::Apply { transforms, update, norm };
    let stages = |chain| Chain(chain).stages();
    assert_eq!(stages(vec![]), [apply(0..0, true, false)]);
    assert_eq!(stages(vec![boxed(WeightDecay(0.1)), boxed(MOMENTUM)]), [apply(0..2, true, false)]);
    let clip = || boxed(ClipByGlobalNorm(1.0));
    assert_eq!(stages(vec![clip(), boxed(MOMENTUM)]), [Stage::Norm, apply(0..2, true, true)]);
    assert_eq!(
        stages(vec![boxed(MOMENTUM), clip(), clip()]),
        [apply(0..1, false, false), Stage::Norm, apply(1..2, false, true), Stage::Norm, apply(2..3, true, true)]
    );
    let five = || (0..5).map(|_| boxed(MOMENTUM));
    assert_eq!(stages(five().collect()), [apply(0..4, false, false), apply(4..5, true, false)]);
    let clipped = [clip()].into_iter().chain(five()).collect();
    assert_eq!(stages(clipped), [Stage::Norm, apply(0..5, false, true), apply(5..6, true, false)]);
}

/// Three segments, one larger than many blocks, none aligned to blocks, with padding between and at the end.
fn uneven(chain: Vec<Box<dyn Transform>>) -> Device {
    let mut segments = vec![segment(3, 5), segment(16, 0), segment(64, 700_001), segment(700_100, 4097)];
    segments[3].lr_mult = 0.5;
    let random = |region: usize| Random::new(5, Purpose::Probe, 0, region as u64);
    Device::new::<f32>(chain, segments, 704_200, |region, i| random(region).uniform(i as u64) - 0.5)
}

#[test]
fn the_bits_do_not_depend_on_threads_and_padding_stays() {
    let all = || {
        let mut chains: Vec<Vec<Box<dyn Transform>>> = all_examples().into_iter().map(|t| vec![t]).collect();
        chains.push(vec![boxed(MOMENTUM), boxed(ClipByGlobalNorm(3.0)), boxed(WeightDecay(0.1)), boxed(MOMENTUM)]);
        chains
    };
    let before = uneven(vec![]);
    for i in 0..all().len() {
        let run = |threads| {
            let mut device = uneven(all().remove(i));
            device.pool = Pool::new(threads).unwrap();
            device.step();
            device
        };
        let (one, three) = (run(1), run(3));
        for region in 0..one.regions.len() {
            assert_eq!(one.values::<f32>(region), three.values::<f32>(region), "chain {i}, region {region}");
        }
        for region in [0, 1] {
            let (old, new) = (before.values::<f32>(region), one.values::<f32>(region));
            let inside = |i: &usize| one.segments.iter().any(|s| (s.offset..s.offset + s.len).contains(i));
            assert!((0..old.len()).filter(|i| !inside(i)).all(|i| old[i] == new[i]), "chain {i}, region {region}");
            // Some gradients are too small to move their weight.
            let moved = (0..old.len()).filter(inside).filter(|&i| old[i] != new[i]).count();
            assert!(region == 1 || moved > 600_000, "chain {i}: {moved} weights moved");
        }
    }
}

#[test]
fn one_pass_equals_the_transforms_one_after_the_other() {
    let chain = vec![boxed(MOMENTUM), boxed(WeightDecay(0.1)), boxed(Momentum { mu: 0.5, nesterov: true })];
    let mut device = uneven(chain);
    device.pool = Pool::new(2).unwrap();
    let [w, g, v, u] = [0, 1, 3, 4].map(|region| device.values::<f32>(region));
    device.step();
    let after = [0, 1, 3, 4].map(|region| device.values::<f32>(region));
    for s in &device.segments {
        for i in s.offset..s.offset + s.len {
            let [w, g, v, u] = [w[i], g[i], v[i], u[i]].map(|x| x as f32);
            let v = 0.9 * v + g;
            let g = v + 0.1 * w;
            let u = 0.5 * u + g;
            let g = g + 0.5 * u;
            let w = w - (0.5 * s.lr_mult) as f32 * g;
            assert_eq!(after.each_ref().map(|x| x[i]), [w, g, v, u].map(f64::from), "element {i}");
        }
    }
}

#[test]
fn a_large_norm_is_near_the_plain_sum() {
    let device = uneven(vec![boxed(ClipByGlobalNorm(1.0))]);
    device.run(&Stage::Norm);
    let g = device.values::<f32>(1);
    for (norm, s) in device.values::<f32>(2).iter().zip(&device.segments) {
        let plain: f64 = g[s.offset..s.offset + s.len].iter().map(|g| g * g).sum();
        // 700,001 terms in f32: lanes and blocks keep the error near one rounding.
        assert!((norm - plain).abs() <= 1e-6 * plain, "{norm} {plain}");
    }
}

#[test]
fn settings_are_read_and_checked() {
    let momentum = |text: &str| {
        let table: toml::Table = format!("x = {text}").parse().unwrap();
        table["x"].clone().try_into::<Momentum>()
    };
    assert_eq!(momentum("0.9").unwrap(), MOMENTUM);
    assert_eq!(momentum("{ mu = 0.5, nesterov = true }").unwrap(), Momentum { mu: 0.5, nesterov: true });
    assert!(momentum("{ mu = 0.5, nestrov = true }").unwrap_err().to_string().contains("nestrov"));
    assert!(momentum("\"much\"").unwrap_err().to_string().contains("a number, or a table with mu and nesterov"));
    assert!(momentum("1").unwrap().check().is_err());
    let table: toml::Table = "x = 5".parse().unwrap();
    let clip = read("clip_by_global_norm", table["x"].clone()).unwrap().unwrap();
    assert_eq!((clip.kind(), clip.check()), ("clip_by_global_norm", Ok(())));
    assert!(read("adamm", table["x"].clone()).is_none());
    assert!(WeightDecay(0.0).check().unwrap_err().message.contains("leave weight_decay out"));
    assert!(ClipByGlobalNorm(f64::NAN).check().is_err());
    assert!(all_examples().iter().all(|t| KINDS.contains(&t.kind()) && t.check().is_ok()));
}
