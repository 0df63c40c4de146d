//! Updates that were worked out by hand.

use super::UpdateRole::{Gradients, Weights};
use super::tests::{Device, boxed, segment};
use super::*;

/// Returns the changes of one weight, divided by -1/2, for gradients that follow one another; it starts at 1 with the
/// learning rate 1/2.
fn changes(chain: Vec<Box<dyn ChainEntry>>, gradients: &[f64]) -> Vec<f64> {
    changes_at(chain, &gradients.iter().map(|&g| (g, 0.5)).collect::<Vec<_>>())
}

/// As [`changes`], with a learning rate for each gradient.
fn changes_at(chain: Vec<Box<dyn ChainEntry>>, updates: &[(f64, f64)]) -> Vec<f64> {
    let fill = |role, _: usize| if role == Weights { 1.0 } else { 0.0 };
    let mut device = Device::new::<f64>(chain, vec![segment(0, 1)], 1, fill);
    let mut changes = Vec::new();
    for (update, &(g, lr)) in (1..).zip(updates) {
        (device.update, device.lr) = (update, lr);
        device.set::<f64>(Gradients, 0, g);
        let before = device.values::<f64>(Weights)[0];
        device.step();
        changes.push((before - device.values::<f64>(Weights)[0]) / 0.5);
    }
    changes
}

fn close(got: &[f64], expected: &[f64]) {
    let near = got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(near, "{got:?}, expected {expected:?}");
}

#[test]
fn the_forms_of_momentum_differ_when_the_rate_changes() {
    let form = |form| vec![boxed(Momentum { mu: 0.5, nesterov: false, form })];
    let updates = [(4.0, 0.5), (4.0, 0.25), (0.0, 0.25)];
    // v = 4, 6, 3, each times its own rate: 2, 1.5, 0.75.
    close(&changes_at(form(MomentumForm::Pytorch), &updates), &[4.0, 3.0, 1.5]);
    // The change before, halved, and rate times gradient: 2, 1 + 1, 1.
    close(&changes_at(form(MomentumForm::HeavyBall), &updates), &[4.0, 4.0, 2.0]);
    // The same, with half of rate times gradient: 1, 0.5 + 0.5, 0.5.
    close(&changes_at(form(MomentumForm::Lecture), &updates), &[2.0, 2.0, 1.0]);
    // Nothing moves at rate 0, and the velocity stays.
    close(&changes_at(form(MomentumForm::HeavyBall), &[(4.0, 0.5), (9.0, 0.0), (0.0, 0.5)]), &[4.0, 0.0, 2.0]);
}

#[test]
fn adagrad_sums_squares() {
    // s = 9, 25: 3/3 and 4/5.
    close(&changes(vec![boxed(Adagrad { epsilon: 1e-30, initial: 0.0 })], &[3.0, 4.0]), &[1.0, 0.8]);
    // s = 16 + 9 from the start, and epsilon outside the root: 3 / (5 + 1).
    close(&changes(vec![boxed(Adagrad { epsilon: 1.0, initial: 16.0 })], &[3.0]), &[0.5]);
}

#[test]
fn adadelta_scales_by_the_updates_before() {
    // v = 8, d = sqrt(1) / sqrt(8 + 1) 4 = 4/3, u = 8/9; then v = 12, d = sqrt(17/9) / sqrt(13) 4.
    let adadelta = boxed(Adadelta { decay: 0.5, epsilon: 1.0 });
    close(&changes(vec![adadelta], &[4.0, 4.0]), &[4.0 / 3.0, 4.0 * (17.0f64 / 9.0 / 13.0).sqrt()]);
}

#[test]
fn lion_follows_the_sign_of_two_means() {
    // m = 0, 2, 0.5 before each update; 0.5 m + 0.5 g = 2, 0.5, -0.25 and 0.
    let lion = boxed(Lion { beta1: 0.5, beta2: 0.5 });
    close(&changes(vec![lion], &[4.0, -1.0, -1.0, 0.25]), &[1.0, 1.0, -1.0, 0.0]);
}

#[test]
fn nadam_looks_ahead() {
    // momentum_decay = 0: mu = 0.25 in every update. Update 1: m = 0.5 g, v/c2 = g^2, a = 0.75 / 0.75,
    // b = 0.25 / (1 - 0.0625): 1 + 0.5 * 4/15.
    let nadam = Nadam { beta1: 0.5, beta2: 0.5, epsilon: 1e-30, momentum_decay: 0.0 };
    // Update 2 with g = 2: m = 1.5, v = 3 and v/c2 = 4, M = 1/16, a = 0.8, b = 0.25 / (1 - 1/64) = 16/63:
    // (0.8 * 2 + 16/63 * 1.5) / 2.
    close(&changes(vec![boxed(nadam)], &[2.0, 2.0]), &[1.0 + 2.0 / 15.0, 0.8 + 4.0 / 21.0]);
}

#[test]
fn rprop_keeps_a_size_for_each_weight() {
    // Sizes 1, 2, 3 (the largest), 1.5; the change of sign counts as 0, and the size stays in the update after it.
    let rprop = boxed(Rprop { decrease: 0.5, increase: 2.0, min_factor: 0.1, max_factor: 3.0 });
    close(&changes(vec![rprop], &[7.0, 0.1, 3.0, -1.0, -5.0, -5.0]), &[1.0, 2.0, 3.0, 0.0, -1.5, -3.0]);
}

#[test]
fn delta_bar_delta_grows_while_the_direction_is_steady() {
    // Means before each update: 0, 1, 1.5, -0.25. Gains 1, 2, 1 and 2; the largest is 2.5.
    let rule = DeltaBarDelta { increase: 1.0, decrease: 0.5, decay: 0.5, min_gain: 0.1, max_gain: 2.5 };
    close(&changes(vec![boxed(rule)], &[2.0, 2.0, -2.0, -4.0, -4.0]), &[2.0, 4.0, -2.0, -8.0, -10.0]);
}

#[test]
fn clips_and_l1_decay() {
    close(&changes(vec![boxed(ClipByValue { limit: 0.5 })], &[0.25, 3.0, -3.0]), &[0.25, 0.5, -0.5]);
    // Weights of 1 and of -0.5 decay towards 0.
    close(&changes(vec![boxed(L1Decay { decay: 3.0 })], &[0.0, 0.0]), &[3.0, -3.0]);
    let fill = |role, i: usize| match role {
        Gradients => [3.0, 4.0, 0.75][i],
        _ => 0.0,
    };
    // A layer of two parameters with the norm 5, and one with 0.75.
    let mut segments = vec![segment(0, 1), segment(1, 1), segment(2, 1)];
    segments[1].layer = segments[0].layer;
    let device = Device::new::<f64>(vec![boxed(ClipByLayerNorm { max_norm: 1.0 })], segments, 3, fill);
    device.step();
    close(&device.values::<f64>(Weights), &[-0.3, -0.4, -0.375]);
}

#[test]
fn short_forms_stand_for_their_transforms() {
    let adam = Adam { beta1: 0.5, beta2: 0.5, epsilon: 1e-3, bias_correction: true };
    let gradients = [2.0, -1.0, 0.5];
    let long: Vec<Box<dyn ChainEntry>> = vec![boxed(adam), boxed(WeightDecay { decay: 0.1 })];
    let short = boxed(Adamw { beta1: 0.5, beta2: 0.5, epsilon: 1e-3, decay: 0.1 });
    assert_eq!(changes(vec![short], &gradients), changes(long, &gradients));
    // w = 1: the update of Adam is 1, so that u = 1 + 0.5; it is scaled to the norm of the weight, 1. Then w = 0.5,
    // u = 1 + 0.25 is scaled to 0.5.
    let lamb = Lamb { epsilon: 1e-30, decay: 0.5, ..Lamb::default() };
    close(&changes(vec![boxed(lamb)], &[3.0, 3.0]), &[1.0, 0.5]);
}

#[test]
fn adaptive_clip_compares_the_norms_of_units() {
    // Two units of two weights, and a vector: |w| = 5, 0 and 1, |g| = 1, 5 and 4.
    let fill = |role, i: usize| match role {
        Weights => [3.0, 4.0, 0.0, 0.0, 77.0, 1.0][i],
        Gradients => [0.6, 0.8, 3.0, 4.0, 77.0, -4.0][i],
        _ => 0.0,
    };
    let mut segments = vec![segment(0, 4), segment(5, 1)];
    (segments[0].run, segments[1].unit) = (2, 2);
    let clip = AdaptiveClip { clipping: 0.5, epsilon: 0.2 };
    let device = Device::new::<f64>(vec![boxed(clip)], segments, 6, fill);
    device.step();
    // The first is below 0.5 * 5, the second is scaled to 0.5 * 0.2, the third to 0.5.
    let moved = [0.6, 0.8, 0.06, 0.08, 0.0, -0.5].map(|g| 0.5 * g);
    let expected: Vec<f64> = [3.0, 4.0, 0.0, 0.0, 77.0, 1.0].iter().zip(moved).map(|(w, change)| w - change).collect();
    close(&device.values::<f64>(Weights), &expected);
}
