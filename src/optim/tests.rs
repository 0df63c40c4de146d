//! The behaviour of chains, on flat regions laid out as in programs.

use super::UpdateRole::{Gradients, Metrics, NonFiniteGradients, NonFiniteWeights, Norms, Weights};
use super::*;
use crate::device::{Clock, Memory, Operand, Operands, Pool, Random, RandomStream};
use crate::tensor::Real;
use crate::tensor::{LocalSlice, Precision, Shape};
use std::sync::Arc;

/// The number of metrics.
const METRICS: usize = 3;

/// Flat regions of one device: weights, gradients, norms, slots; and the metrics and counts, which are zero at first.
pub(super) struct Device {
    pub(super) chain: Chain,
    segments: Vec<Segment>,
    regions: Operands<UpdateRole>,
    pool: Pool,
    precision: Precision,
    pub(super) lr: f64,
    /// The number of the update.
    pub(super) update: u64,
}

impl Device {
    /// Creates regions of `elements` elements, filled by `fill(role, element)`.
    pub(super) fn new<T: Real>(
        chain: Vec<Box<dyn ChainEntry>>,
        segments: Vec<Segment>,
        elements: usize,
        fill: impl Fn(UpdateRole, usize) -> f64,
    ) -> Self {
        let chain = Chain::new(&chain);
        let slots = chain.slots().map(|(slot, _)| UpdateRole::Slot(slot)).collect::<Vec<_>>();
        let region = |role| {
            let n = match role {
                Norms => chain.num_norms(segments.len(), segments.last().map_or(0, |s| s.unit + s.len / s.run)),
                Metrics => METRICS,
                NonFiniteGradients | NonFiniteWeights => 1,
                _ => elements,
            };
            let memory = Arc::new(Memory::new(n * T::PRECISION.bytes()).unwrap());
            let window = LocalSlice { start: vec![0], len: vec![n] };
            (role, Operand::new(&memory, 0, Shape::from([n]), window, T::PRECISION))
        };
        let first = [Weights, Gradients, Norms, Metrics, NonFiniteGradients, NonFiniteWeights];
        let regions = first.into_iter().chain(slots).map(region).collect();
        let device = Device {
            chain,
            segments,
            regions,
            pool: Pool::new(1).unwrap(),
            precision: T::PRECISION,
            lr: 0.5,
            update: 1,
        };
        let counts = [Norms, Metrics, NonFiniteGradients, NonFiniteWeights];
        for role in device.regions.roles().filter(|role| !counts.contains(role)) {
            let args = device.args(&device.regions);
            args.write::<T>(role).iter_mut().enumerate().for_each(|(i, x)| *x = T::from_f64(fill(role, i)));
        }
        device
    }

    fn args<'a>(&'a self, operands: &'a Operands<UpdateRole>) -> UpdateArgs<'a> {
        let clock = Clock { step: self.update, epoch: 0, lr: self.lr, row: 0 };
        UpdateArgs { clock, divisor: 1, ..UpdateArgs::new(operands, &self.pool, self.precision) }
    }

    pub(super) fn set<T: Real>(&self, role: UpdateRole, i: usize, value: f64) {
        self.args(&self.regions).write::<T>(role)[i] = T::from_f64(value);
    }

    fn run(&self, stage: &UpdatePass) {
        let is_used = |role: UpdateRole| match (stage, role) {
            (UpdatePass::Norm { .. }, Norms) => true,
            (UpdatePass::Norm { weights, .. }, Weights) => *weights,
            (UpdatePass::Check | UpdatePass::Norm { .. }, role) => {
                let checks = matches!(role, Metrics | NonFiniteGradients | NonFiniteWeights);
                role == Gradients || (checks && *stage == self.chain.stages()[0])
            }
            (UpdatePass::Apply { norm, .. }, Norms) => *norm,
            (UpdatePass::Apply { transforms, .. }, UpdateRole::Slot(slot)) => transforms.contains(&slot.transform),
            _ => true,
        };
        let used = self.regions.roles().filter(|&role| is_used(role));
        let operands = used.map(|role| (role, self.regions[role].clone())).collect();
        self.chain.run(stage, &self.segments, |_| false, &self.args(&operands));
    }

    pub(super) fn step(&self) {
        self.chain.stages().iter().for_each(|stage| self.run(stage));
    }

    pub(super) fn values<T: Real>(&self, role: UpdateRole) -> Vec<f64> {
        self.args(&self.regions).read::<T>(role).iter().map(|x| x.to_f64()).collect()
    }
}

/// The velocity of the chain's transform `transform`.
fn velocity(transform: usize) -> UpdateRole {
    UpdateRole::Slot(Slot { transform, name: "velocity" })
}

pub(super) fn segment(offset: usize, len: usize) -> Segment {
    Segment {
        offset,
        len,
        layer: offset,
        group: 0,
        unit: 0,
        run: len.max(1),
        lr_mult: 1.0,
        decay_mult: 1.0,
        counted: true,
    }
}

pub(super) fn boxed<T: ChainEntry + 'static>(transform: T) -> Box<dyn ChainEntry> {
    Box::new(transform)
}

const MOMENTUM: Momentum = Momentum { mu: 0.9, nesterov: false, form: MomentumForm::Pytorch };

#[test]
fn plain_descent_moves_against_the_gradient_by_the_segments_rate() {
    let mut segments = vec![segment(0, 2), segment(3, 1)];
    segments[1].lr_mult = 2.0;
    let device = Device::new::<f32>(vec![], segments, 4, |role, i| if role == Weights { 1.0 } else { i as f64 });
    device.step();
    assert_eq!(device.values::<f32>(Weights), [1.0, 0.5, 1.0, -2.0]);
}

#[test]
fn momentum_and_decay_follow_pytorch() {
    // torch.optim.SGD(lr=0.5, momentum=0.9, weight_decay=0.1, nesterov=...), gradient 2 at w = 1:
    // g' = 2 + 0.1 * 1 = 2.1; v = 2.1; w = 1 - 0.5 * 2.1 = -0.05; then gradient 2 again:
    // g' = 2 - 0.005 = 1.995; v = 0.9 * 2.1 + 1.995 = 3.885; w = -0.05 - 0.5 * 3.885 = -1.9925.
    // With Nesterov: w = 1 - 0.5 * (2.1 + 0.9 * 2.1) = -0.995.
    let chain = |nesterov| vec![boxed(WeightDecay { decay: 0.1 }), boxed(Momentum { nesterov, ..MOMENTUM })];
    let fill = |role, _: usize| match role {
        Weights => 1.0,
        Gradients => 2.0,
        _ => 0.0,
    };
    let device = Device::new::<f64>(chain(false), vec![segment(0, 1)], 1, fill);
    device.step();
    assert!((device.values::<f64>(Weights)[0] + 0.05).abs() < 1e-15);
    device.set::<f64>(Gradients, 0, 2.0);
    device.step();
    assert!((device.values::<f64>(Weights)[0] + 1.9925).abs() < 1e-14);
    assert!((device.values::<f64>(velocity(1))[0] - 3.885).abs() < 1e-14);
    let nesterov = Device::new::<f64>(chain(true), vec![segment(0, 1)], 1, fill);
    nesterov.step();
    assert!((nesterov.values::<f64>(Weights)[0] + 0.995).abs() < 1e-15);
}

#[test]
fn the_first_velocity_is_the_gradient() {
    let fill = |role, i: usize| if role == Gradients { i as f64 - 1.5 } else { 0.0 };
    let device = Device::new::<f32>(vec![boxed(MOMENTUM)], vec![segment(0, 4)], 4, fill);
    device.step();
    assert_eq!(device.values::<f32>(velocity(0)), [-1.5, -0.5, 0.5, 1.5]);
}

#[test]
fn decay_is_multiplied_per_segment() {
    let mut segments = vec![segment(0, 1), segment(1, 1)];
    segments[1].decay_mult = 0.0;
    let device = Device::new::<f64>(vec![boxed(WeightDecay { decay: 0.5 })], segments, 2, |role, _| {
        if role == Weights { 4.0 } else { 0.0 }
    });
    device.step();
    assert_eq!(device.values::<f64>(Weights), [3.0, 4.0]);
}

#[test]
fn clipping_sees_all_segments_together() {
    // |(3, 0; 4)| = 5, clipped to 1: factor 0.2.
    let fill = |role, i: usize| if role == Gradients { [3.0, 0.0, 77.0, 4.0][i] } else { 0.0 };
    let segments = vec![segment(0, 2), segment(3, 1)];
    let device = Device::new::<f64>(vec![boxed(ClipByGlobalNorm { max_norm: 1.0 })], segments.clone(), 4, fill);
    device.step();
    assert_eq!(device.values::<f64>(Norms), [9.0, 16.0]);
    let moved: Vec<f64> = device.values::<f64>(Weights).iter().map(|w| w / -0.5).collect();
    assert!((moved[0] - 0.6).abs() < 1e-15 && (moved[3] - 0.8).abs() < 1e-15 && moved[2] == 0.0, "{moved:?}");
    assert_eq!(device.values::<f64>(Gradients)[2], 77.0, "padding");
    let loose = Device::new::<f64>(vec![boxed(ClipByGlobalNorm { max_norm: 5.0 })], segments, 4, fill);
    loose.step();
    assert_eq!(loose.values::<f64>(Gradients), [3.0, 0.0, 77.0, 4.0]);
}

#[test]
fn lars_scales_each_parameter_by_its_own_norms() {
    // |w| = 5 and |g| = 2: r = 0.1 * 5 / (2 + 0.5 * 5) = 1/9, and g' = r (g + 0.5 w) = (1/6, 4/9). The second parameter
    // has no gradient, so that r = 1 and g' = 0.5 w.
    let fill = |role, i: usize| match role {
        Weights => [3.0, 4.0, 0.0, 6.0][i],
        Gradients => [0.0, 2.0, 77.0, 0.0][i],
        _ => 0.0,
    };
    let lars = Lars { trust: 0.1, decay: 0.5, epsilon: 0.0 };
    let device = Device::new::<f64>(vec![boxed(lars)], vec![segment(0, 2), segment(3, 1)], 4, fill);
    device.step();
    assert_eq!(device.values::<f64>(Norms), [4.0, 0.0, 25.0, 36.0]);
    let expected = [3.0 - 0.5 / 6.0, 4.0 - 0.5 * 4.0 / 9.0, 0.0, 6.0 - 0.5 * 3.0];
    let moved = device.values::<f64>(Weights);
    assert!(moved.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{moved:?}");
}

#[test]
fn adam_counts_updates_from_the_one_with_which_it_joined() {
    let fill = |role, _: usize| if role == Gradients { 4.0 } else { 0.0 };
    let moved = |adam: Adam, starts: u64| {
        let mut device = Device::new::<f64>(vec![boxed(adam)], vec![segment(0, 1)], 1, fill);
        device.chain = device.chain.joined(|name| if name == "adam" { starts } else { 99 });
        device.update = starts + 1;
        device.step();
        device.values::<f64>(Weights)[0]
    };
    // The first update is the sign of the gradient: m/c1 = g and v/c2 = g^2. Without correction, m = 0.1 g and
    // v = 0.001 g^2.
    let plain = Adam { epsilon: 1e-30, ..Adam::default() };
    assert!((moved(plain, 0) + 0.5).abs() < 1e-15 && (moved(plain, 1000) + 0.5).abs() < 1e-15);
    let uncorrected = moved(Adam { bias_correction: false, ..plain }, 0);
    assert!((uncorrected + 0.5 * 0.1 / 0.001f64.sqrt()).abs() < 1e-12, "{uncorrected}");
}

#[test]
fn a_replicated_copy_counts_once() {
    let mut segments = vec![segment(0, 2), segment(2, 2)];
    segments[1].counted = false;
    let chain = vec![boxed(ClipByGlobalNorm { max_norm: 1.0 })];
    let device = Device::new::<f64>(chain, segments, 4, |role, _| if role == Gradients { 2.0 } else { 0.0 });
    device.run(&UpdatePass::Norm { group: 0, weights: false, units: false });
    assert_eq!(device.values::<f64>(Norms), [8.0, 0.0]);
}

#[test]
fn chains_are_cut_before_transforms_that_need_norms_and_where_slots_are_many() {
    let apply = |transforms, update, norm| UpdatePass::Apply { group: 0, transforms, update, norm };
    let stages = |chain: Vec<_>| Chain::new(&chain).stages();
    assert_eq!(stages(vec![]), [UpdatePass::Check, apply(0..0, true, false)]);
    assert_eq!(
        stages(vec![boxed(WeightDecay { decay: 0.1 }), boxed(MOMENTUM)]),
        [UpdatePass::Check, apply(0..2, true, false)]
    );
    let clip = || boxed(ClipByGlobalNorm { max_norm: 1.0 });
    assert_eq!(
        stages(vec![clip(), boxed(MOMENTUM)]),
        [UpdatePass::Norm { group: 0, weights: false, units: false }, apply(0..2, true, true)]
    );
    assert_eq!(
        stages(vec![boxed(MOMENTUM), clip(), clip()]),
        [
            UpdatePass::Check,
            apply(0..1, false, false),
            UpdatePass::Norm { group: 0, weights: false, units: false },
            apply(1..2, false, true),
            UpdatePass::Norm { group: 0, weights: false, units: false },
            apply(2..3, true, true)
        ]
    );
    let five = || (0..5).map(|_| boxed(MOMENTUM));
    assert_eq!(stages(five().collect()), [UpdatePass::Check, apply(0..4, false, false), apply(4..5, true, false)]);
    let clipped = [clip()].into_iter().chain(five()).collect();
    assert_eq!(
        stages(clipped),
        [
            UpdatePass::Norm { group: 0, weights: false, units: false },
            apply(0..5, false, true),
            apply(5..6, true, false)
        ]
    );
}

/// Segments of which one is empty, one has many blocks and none is aligned to blocks, with padding between them and at
/// the end.
fn uneven(chain: Vec<Box<dyn ChainEntry>>) -> Device {
    let mut segments = vec![segment(3, 5), segment(16, 0), segment(64, 700_001), segment(700_100, 4097)];
    segments[3].lr_mult = 0.5;
    (segments[2].unit, segments[3].unit, segments[3].run) = (1, 2, 17);
    let random = |stream| Random::new(5, RandomStream::Probe, 0, stream);
    let start = |role, i: usize| match role {
        Weights => random(0).uniform(i as u64) - 0.5,
        Gradients => random(1).uniform(i as u64) - 0.5,
        _ => 0.0,
    };
    let device = Device::new::<f32>(chain, segments, 704_200, start);
    // Two updates fill the slots with values that the transforms produce.
    for step in 2..4 {
        device.step();
        let values: Vec<f64> = (0..704_200).map(|i| random(step).uniform(i) - 0.5).collect();
        device.args(&device.regions).write::<f32>(Gradients).iter_mut().zip(values).for_each(|(g, x)| *g = x as f32);
    }
    device
}

#[test]
fn the_bits_do_not_depend_on_threads_and_padding_stays() {
    let before = uneven(vec![]);
    for i in 0..chains().len() {
        let run = |threads| {
            let mut device = uneven(chains().remove(i));
            device.pool = Pool::new(threads).unwrap();
            device.step();
            device
        };
        let (one, three) = (run(1), run(3));
        for role in one.regions.roles() {
            assert_eq!(one.values::<f32>(role), three.values::<f32>(role), "chain {i}, {role:?}");
        }
        for role in [Weights, Gradients] {
            let (old, new) = (before.values::<f32>(role), one.values::<f32>(role));
            let inside = |i: &usize| one.segments.iter().any(|s| (s.offset..s.offset + s.len).contains(i));
            assert!((0..old.len()).filter(|i| !inside(i)).all(|i| old[i] == new[i]), "chain {i}, {role:?}");
            // Some gradients are too small to change their weight.
            let moved = (0..old.len()).filter(inside).filter(|&i| old[i] != new[i]).count();
            assert!(role == Gradients || moved > 600_000, "chain {i}: {moved} weights moved");
        }
    }
}

#[test]
fn one_pass_equals_the_transforms_one_after_the_other() {
    let chain = vec![
        boxed(MOMENTUM),
        boxed(WeightDecay { decay: 0.1 }),
        boxed(Momentum { mu: 0.5, nesterov: true, ..MOMENTUM }),
    ];
    let mut device = uneven(chain);
    device.pool = Pool::new(2).unwrap();
    let roles = [Weights, Gradients, velocity(0), velocity(2)];
    let [w, g, v, u] = roles.map(|role| device.values::<f32>(role));
    device.step();
    let after = roles.map(|role| device.values::<f32>(role));
    for s in &device.segments {
        for i in s.offset..s.offset + s.len {
            let [w, g, v, u] = [w[i], g[i], v[i], u[i]].map(|x| x as f32);
            let v = 0.9 * v + g;
            let decayed = v + 0.1 * w;
            let u = 0.5 * u + decayed;
            let update = decayed + 0.5 * u;
            let w = w - (0.5 * s.lr_mult) as f32 * update;
            assert_eq!(after.each_ref().map(|x| x[i]), [w, g, v, u].map(f64::from), "element {i}");
        }
    }
}

#[test]
fn a_large_norm_is_near_the_plain_sum() {
    let device = uneven(vec![boxed(ClipByGlobalNorm { max_norm: 1.0 })]);
    device.run(&UpdatePass::Norm { group: 0, weights: false, units: false });
    let g = device.values::<f32>(Gradients);
    for (norm, s) in device.values::<f32>(Norms).iter().zip(&device.segments) {
        let plain: f64 = g[s.offset..s.offset + s.len].iter().map(|g| g * g).sum();
        // 700,001 terms in f32: lanes and blocks keep the error near one rounding.
        assert!((norm - plain).abs() <= 1e-6 * plain, "{norm} {plain}");
    }
}

/// Every transform alone, an empty chain, and one in which transforms with slots come before a norm.
fn chains() -> Vec<Vec<Box<dyn ChainEntry>>> {
    let mut chains: Vec<Vec<Box<dyn ChainEntry>>> = all_examples().into_iter().map(|t| vec![t]).collect();
    chains.push(vec![]);
    chains.push(vec![
        boxed(MOMENTUM),
        boxed(ClipByGlobalNorm { max_norm: 3.0 }),
        boxed(WeightDecay { decay: 0.1 }),
        boxed(MOMENTUM),
    ]);
    chains
}

#[test]
fn nothing_is_updated_if_the_loss_or_a_gradient_is_not_finite() {
    let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    for (i, bad) in (0..chains().len()).flat_map(|i| bad.map(|bad| (i, bad))) {
        // The first and last element of segments, one in the middle of many blocks, and the loss.
        for (role, at) in [(Gradients, 3), (Gradients, 7), (Gradients, 350_123), (Gradients, 704_196), (Metrics, 0)] {
            let device = uneven(chains().remove(i));
            device.set::<f32>(role, at, bad);
            let slots: Vec<UpdateRole> = device.regions.roles().filter(|r| matches!(r, UpdateRole::Slot(_))).collect();
            let kept = || [Weights].iter().chain(&slots).map(|&role| device.values::<f32>(role)).collect::<Vec<_>>();
            let before = kept();
            device.step();
            assert!(kept() == before, "chain {i}: {bad} in {role:?} at {at}");
            assert_eq!(device.values::<f32>(NonFiniteGradients), [1.0], "chain {i}: {bad} in {role:?} at {at}");
            assert_eq!(device.values::<f32>(NonFiniteWeights), [0.0]);
        }
    }
}

#[test]
fn the_padding_between_segments_is_not_checked() {
    for i in 0..chains().len() {
        let device = uneven(chains().remove(i));
        device.set::<f32>(Gradients, 8, f64::NAN);
        device.step();
        assert_eq!(device.values::<f32>(NonFiniteGradients), [0.0], "chain {i}");
    }
}

#[test]
fn an_update_that_overflows_a_weight_is_noticed() {
    for i in 0..chains().len() {
        let mut device = uneven(chains().remove(i));
        device.step();
        let counts = [NonFiniteGradients, NonFiniteWeights].map(|role| device.values::<f32>(role)[0]);
        assert_eq!(counts, [0.0, 0.0], "chain {i}");
        device.set::<f32>(Weights, 700_064, 3.402e38);
        device.set::<f32>(Gradients, 700_064, -1e18);
        device.lr = 3e38;
        device.step();
        let counts = [NonFiniteGradients, NonFiniteWeights].map(|role| device.values::<f32>(role)[0]);
        assert_eq!(counts, [0.0, 1.0], "chain {i}");
    }
}

#[test]
fn settings_are_read_and_checked() {
    let momentum = |text: &str| {
        let table: toml::Table = format!("x = {text}").parse().unwrap();
        table["x"].clone().try_into::<Momentum>()
    };
    assert_eq!(momentum("0.9").unwrap(), MOMENTUM);
    assert_eq!(momentum("{ mu = 0.5, nesterov = true }").unwrap(), Momentum { mu: 0.5, nesterov: true, ..MOMENTUM });
    assert!(momentum("{ mu = 0.5, nestrov = true }").unwrap_err().to_string().contains("nestrov"));
    assert!(momentum("\"much\"").unwrap_err().to_string().contains("a number, or a table with mu, nesterov and form"));
    assert_eq!(momentum("{}").unwrap(), MOMENTUM);
    assert!(Momentum { form: MomentumForm::Lecture, nesterov: true, ..MOMENTUM }.check().is_err());
    assert!(momentum("1").unwrap().check().is_err());
    let table: toml::Table = "x = 5".parse().unwrap();
    let clip = read("clip_by_global_norm", table["x"].clone()).unwrap().unwrap();
    assert_eq!((clip.kind(), clip.check_settings()), ("clip_by_global_norm", Ok(())));
    assert!(read("adamm", table["x"].clone()).is_none());
    for decay in [-1e-9, 1e-50, 1e39, f64::NAN] {
        assert!(WeightDecay { decay }.check().unwrap_err().message.contains("within single precision"), "{decay}");
        assert!(ClipByGlobalNorm { max_norm: decay }.check().is_err(), "{decay}");
    }
    assert!(
        WeightDecay { decay: 0.0 }.check().is_ok()
            && WeightDecay { decay: 0.0 }.is_identity()
            && ClipByGlobalNorm { max_norm: 0.0 }.check().is_err()
    );
    assert!(Momentum { mu: 0.0, ..MOMENTUM }.is_identity() && !MOMENTUM.is_identity());
    let known = |key: &str| KEYS.contains(&key) || key == Ema::KEY;
    assert!(all_examples().iter().all(|t| known(t.kind()) && t.check_settings().is_ok()));
}
