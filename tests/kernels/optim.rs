//! The optimiser: chains of transforms, norms, and checks that gradients are finite.

use crate::rig::*;
use half::bf16;
use peristyle::gpu::kernels::*;
use peristyle::gpu::{Const, Grid, Mut};
use peristyle::optim::all_examples;

/// A value that no weight has.
const UNTOUCHED: f32 = 512.0;

fn operation(settings: impl Into<TransformSettings>, slots: usize) -> TransformOp {
    TransformOp { settings: settings.into(), slots, start: 0 }
}

#[test]
fn a_whole_optimiser_chain_runs_in_one_launch() {
    // Three parameters, the second empty, with padding between them; the third is larger than one part of a norm.
    let ranges: [[i64; 2]; 3] = [[0, 37], [48, 48], [48, 48 + 9001]];
    let factors = [[1.0f32, 1.0], [1.0, 1.0], [2.0, 0.5]];
    // The third parameter is updated by two blocks.
    let blocks = [
        [0i64, 37, 0, 0, 1, 0, 0, 37],
        [48, 48 + 8192, 2, 1, 3, 48, 1, 9001],
        [48 + 8192, 48 + 9001, 2, 1, 3, 48, 1, 9001],
    ];
    let block_factors = [factors[0], factors[2], factors[2]];
    let n = 48 + 9001;
    let (w, g, v, u) = (values(n, 1), values(n, 2), values(n, 3), values(n, 4));
    let (clip, decay, mu, nu, lr) = (7.0f32, 0.01f32, 0.9f32, 0.5f32, 0.125f32);
    let program = [
        operation(ClipByGlobalNormSettings { max_norm: clip }, 0),
        operation(WeightDecaySettings { decay }, 0),
        operation(MomentumSettings { mu, nesterov: 0 }, 1),
        operation(MomentumSettings { mu: nu, nesterov: 1 }, 1),
    ];
    let square = |r: [i64; 2]| wide(&g[r[0] as usize..r[1] as usize]).iter().map(|g| g * g).sum::<f64>();
    // The norm of the first parameter is counted on another device.
    let norms: Vec<f64> = vec![0.0, square(ranges[1]), square(ranges[2])];
    let norm = norms.iter().sum::<f64>().sqrt();
    assert!(norm > f64::from(clip));
    let (mut w1, mut v1, mut u1) = (wide(&w), wide(&v), wide(&u));
    for (range, factors) in ranges.iter().zip(factors) {
        for i in range[0] as usize..range[1] as usize {
            let mut gradient = f64::from(g[i]) * f64::from(clip) / norm;
            gradient += f64::from(decay) * f64::from(factors[1]) * w1[i];
            v1[i] = f64::from(mu) * v1[i] + gradient;
            u1[i] = f64::from(nu) * u1[i] + v1[i];
            gradient = v1[i] + f64::from(nu) * u1[i];
            w1[i] -= f64::from(lr) * f64::from(factors[0]) * gradient;
        }
    }
    let got = outputs(|rig| {
        let (w, g, v, u) = (rig.put(&w), rig.put(&g), rig.put(&v), rig.put(&u));
        let bf16_weights = rig.put(&vec![bf16::from_f32(UNTOUCHED); n]);
        let (parts, norms, program) = (rig.out(3 * 64), rig.out(3), rig.give(&TransformOp::table(&program)));
        let (segments, ranges) = (rig.give(&ranges.concat()), rig.give(&blocks.concat()));
        let factors = rig.give(&block_factors.concat());
        let (on, lr, step) = (&rig.on(), rig.give(&[lr]), rig.give(&[1u32]));
        let (bad_g, bad_w, loss) = (rig.out(1), rig.out(1), rig.give(&[0.5, 0.0]));
        // SAFETY: regions of n elements, three segments.
        unsafe {
            optim_norm_parts(on, Grid::new(64, 3, 1), g.into(), parts, segments, 3).unwrap();
            optim_norm(on, Grid::new(1, 1, 1), parts.into(), rig.give(&[0.0, 1.0, 1.0]), norms, 3).unwrap();
            let norms = norms.into();
            optim_check(on, Grid::new(1, 1, 1), norms, loss, bad_g, bad_w, 3, 2).unwrap();
            let slots = [v, u, Mut::NONE, Mut::NONE];
            let tables =
                UpdateAddresses { norms, slots, ranges, factors, step, lr, segments: 3, ..UpdateAddresses::NONE };
            let args = UpdateAddresses {
                w,
                halves: bf16_weights,
                g,
                bad_gradients: bad_g.into(),
                bad_weights: bad_w,
                ..tables
            };
            UpdateAddresses { update: 1, ..args }.launch_table(on, Grid::new(3, 1, 1), program, 4).unwrap();
        }
        let bf16_weights = rig.numbers(bf16_weights, n);
        let bad = [rig.get(bad_g, 1), rig.get(bad_w, 1)].concat();
        vec![rig.get(w, n), rig.get(v, n), rig.get(u, n), rig.get(norms, 3), rig.get(g, n), bf16_weights, bad]
    });
    assert_eq!(got[6], [0.0, 0.0]);
    close("w", &got[0], &w1, 2e-6);
    close("velocity", &got[1], &v1, 2e-6);
    close("second velocity", &got[2], &u1, 2e-6);
    close("norms", &got[3], &norms, 2e-6);
    assert_eq!(got[4], g, "the last stage does not write gradients");
    for (i, (&half, &w)) in got[5].iter().zip(&got[0]).enumerate() {
        let padding = (37..48).contains(&i);
        assert_eq!(half, if padding { UNTOUCHED } else { bf16::from_f32(w).to_f32() }, "element {i} in bf16");
    }
}

#[test]
fn an_early_stage_of_a_chain_writes_gradients_and_leaves_weights() {
    let n = 10;
    let (w, g) = (values(n, 1), values(n, 2));
    let want: Vec<f64> = (0..n).map(|i| f64::from(g[i]) + 0.25 * f64::from(w[i])).collect();
    let got = outputs(|rig| {
        let (weights, g) = (rig.put(&w), rig.put(&g));
        let program = rig.give(&TransformOp::table(&[operation(WeightDecaySettings { decay: 0.25 }, 0)]));
        let (ranges, factors) = (rig.give(&[0i64, n as i64, 0, 0, 1, 0, 0, n as i64]), rig.give(&[1.0f32, 1.0]));
        let (bad, step, lr) = (rig.give(&[0.0f32]), rig.give(&[1u32]), rig.give(&[0.5f32]));
        // SAFETY: regions of n elements, one segment.
        unsafe {
            let tables = UpdateAddresses { ranges, factors, step, lr, segments: 1, ..UpdateAddresses::NONE };
            let args = UpdateAddresses { w: weights, g, bad_gradients: bad, ..tables };
            args.launch_table(&rig.on(), Grid::new(1, 1, 1), program, 1).unwrap();
        }
        vec![rig.get(g, n), rig.get(weights, n)]
    });
    close("g", &got[0], &want, 1e-7);
    assert_eq!(got[1], w);
}

#[test]
fn a_transform_with_slots_has_a_kernel_with_the_bits_of_the_interpreter() {
    let n = 5003;
    let (w, g) = (values(n, 1), values(n, 2));
    // Squares of gradients, and nothing negative.
    let slots: Vec<Vec<f32>> = (3..7).map(|seed| values(n, seed).iter().map(|v| v.abs()).collect()).collect();
    // The second block belongs to a frozen parameter, whose slots change all the same.
    let ranges =
        [[0i64, 4096, 0, 0, 1, 0, 0, 4096], [4096, 4100, 1, 1, 3, 4096, 1, 2], [4100, n as i64, 2, 1, 3, 4100, 3, 903]]
            .concat();
    let (factors, norms) = ([2.0f32, 0.5, 0.0, 1.0, 1.0, 3.0], [9.0f32, 0.5, 4.0]);
    let mut tried = 0;
    let transforms = all_examples().into_iter().flat_map(|entry| entry.transforms());
    for transform in transforms.filter(|transform| !transform.slots().is_empty()) {
        let own = TransformOp { settings: transform.on_gpu(), slots: transform.slots().len(), start: 2 };
        for (before, after) in [(0.0f32, 0.0f32), (0.01, 0.0), (0.0, 0.02)] {
            let decay = |decay| operation(WeightDecaySettings { decay }, 0);
            let program = [decay(before), own, decay(after)];
            let got = outputs(|rig| {
                let (on, grid) = (&rig.on(), Grid::new(3, 1, 1));
                let none = UpdateAddresses::NONE;
                let tables = UpdateAddresses { ranges: rig.give(&ranges), factors: rig.give(&factors), ..none };
                let norms = UpdateAddresses { norms: rig.give(&norms), weight_norms: rig.give(&norms), ..tables };
                let clock = UpdateAddresses { step: rig.give(&[7u32]), lr: rig.give(&[0.125f32]), ..norms };
                let table = rig.give(&TransformOp::table(&program));
                let all = [false, true].map(|alone| {
                    let own: Vec<Mut<f32>> =
                        (0..4).map(|s| if s < own.slots { rig.put(&slots[s]) } else { Mut::NONE }).collect();
                    let halves = rig.put(&vec![bf16::from_f32(UNTOUCHED); n]);
                    let args = UpdateAddresses { w: rig.put(&w), g: rig.put(&g), halves, ..clock };
                    let bad =
                        UpdateAddresses { bad_gradients: rig.give(&[0.0f32]), bad_weights: rig.put(&[0.0f32]), ..args };
                    let args =
                        UpdateAddresses { slots: [own[0], own[1], own[2], own[3]], update: 1, segments: 3, ..bad };
                    // SAFETY: regions of n elements, three blocks and segments.
                    unsafe {
                        match alone {
                            true => {
                                program[1].settings.launch(on, grid, &args, 2, before, after).expect("it has slots")
                            }
                            false => args.launch_table(on, grid, table, 3),
                        }
                        .unwrap();
                    }
                    let kept = own.iter().take(program[1].slots).flat_map(|&slot| rig.get(slot, n));
                    [rig.get(args.w, n), rig.numbers(halves, n)].concat().into_iter().chain(kept).collect::<Vec<f32>>()
                });
                all.into()
            });
            assert_eq!(got[0], got[1], "{transform:?} between {before} and {after}");
            assert!(got[0][4096..4100] == w[4096..4100] && got[0][4100..n] != w[4100..], "{transform:?}");
            tried += 1;
        }
    }
    assert!(tried >= 6, "momentum has two examples");
}

#[test]
fn gradients_that_are_not_finite_are_found_in_every_range() {
    let n = 70_000;
    // A short range, a long one that is not aligned, one that is; the rest is padding or frozen.
    let ranges = [[0i64, 5], [9, 41_000], [41_000, 69_000]];
    for (at, bad, expected) in [
        (None, 0.0, 0.0),
        (Some(0), f32::NAN, 1.0),
        (Some(4), f32::INFINITY, 1.0),
        (Some(6), f32::NAN, 0.0),
        (Some(9), f32::NEG_INFINITY, 1.0),
        (Some(40_999), f32::NAN, 1.0),
        (Some(41_234), f32::NAN, 1.0),
        (Some(68_999), f32::INFINITY, 1.0),
        (Some(69_100), f32::NAN, 0.0),
    ] {
        let mut g = values(n, 2);
        if let Some(at) = at {
            g[at] = bad;
        }
        for (loss, other) in [(0.5f32, 2.0), (f32::NAN, 0.0), (f32::INFINITY, 0.0), (0.5, f32::NEG_INFINITY)] {
            let got = outputs(|rig| {
                let (bad_g, bad_w) = (rig.out(1), rig.out(1));
                let (metrics, on) = (rig.give(&[loss, 3.0, other]), rig.on());
                // SAFETY: ranges of n elements.
                unsafe {
                    optim_check(&on, Grid::new(1, 1, 1), Const::NONE, metrics, bad_g, bad_w, 0, 3).unwrap();
                    let (g, count) = (rig.give(&g), ranges.len());
                    optim_check_parts(&on, Grid::new(count, 1, 1), g, rig.give(&ranges.concat()), bad_g).unwrap();
                }
                vec![rig.get(bad_g, 1), rig.get(bad_w, 1)]
            });
            let expected = if loss.is_finite() && other.is_finite() { expected } else { 1.0 };
            assert_eq!(got, [[expected], [0.0]], "{bad} at {at:?}, metrics {loss} and {other}");
        }
    }
}

#[test]
fn an_update_is_skipped_or_its_overflow_noticed() {
    let (n, w, g) = (10, values(10, 1), values(10, 2));
    for (bad_gradients, lr, moves, overflows) in [(0.0, 0.5, true, 0.0), (1.0, 0.5, false, 0.0), (0.0, 3e38, true, 1.0)]
    {
        let g = g.iter().map(|g| g * 1e3).collect::<Vec<f32>>();
        let got = outputs(|rig| {
            let (weights, v, bad_w) = (rig.put(&w), rig.put(&vec![0.0; n]), rig.put(&[0.0f32]));
            let momentum = operation(MomentumSettings { mu: 0.5, nesterov: 0 }, 1);
            let program = rig.give(&TransformOp::table(&[momentum]));
            let (ranges, factors) = (rig.give(&[0i64, n as i64, 0, 0, 1, 0, 0, n as i64]), rig.give(&[1.0f32, 1.0]));
            let (g, lr, bad_gradients) = (rig.put(&g), rig.give(&[lr]), rig.give(&[bad_gradients]));
            let tables = UpdateAddresses { ranges, factors, step: rig.give(&[1u32]), lr, ..UpdateAddresses::NONE };
            let slots = [v, Mut::NONE, Mut::NONE, Mut::NONE];
            let args = UpdateAddresses { w: weights, g, slots, bad_gradients, bad_weights: bad_w, ..tables };
            // SAFETY: regions of n elements, one segment.
            unsafe {
                let args = UpdateAddresses { update: 1, segments: 1, ..args };
                args.launch_table(&rig.on(), Grid::new(1, 1, 1), program, 1).unwrap();
            }
            vec![rig.get(weights, n), rig.get(v, n), rig.get(bad_w, 1)]
        });
        assert_eq!(got[0] != w && got[1] != [0.0; 10], moves, "lr {lr}");
        assert_eq!(got[2], [overflows], "lr {lr}");
    }
}
