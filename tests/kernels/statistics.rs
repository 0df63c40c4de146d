use crate::each_type;
use crate::rig::*;
use half::bf16;
use peristyle::gpu::kernels::*;
use peristyle::gpu::{Const, Grid, Issue, Mut};

#[test]
fn batch_norm_merges_two_devices_far_from_zero() {
    for (rows, width, per_part, offset) in [
        (5, 3, 2, 0.0f32),
        (300, 33, 64, 256.0),
        (97, 70, 97, -512.0),
        (300, 40, 130, 256.0),
        (3, 8, 9, 0.0),
        (900, 8, 890, 64.0),
        (2100, 16, 20, -64.0),
    ] {
        let (momentum, epsilon) = (0.1f32, 1e-5f32);
        // Numbers far from zero: sums of squares would lose the variance.
        let place: Vec<f32> = values(rows * width, 1).iter().map(|v| (v * 8.0).round() * 4.0 + offset).collect();
        let (dy, w, b) = (values(rows * width, 2), values(width, 3), values(width, 4));
        let column = |x: &[f32], c: usize| (0..rows).map(|r| f64::from(x[r * width + c])).collect::<Vec<f64>>();
        let mean: Vec<f64> = (0..width).map(|c| column(&place, c).iter().sum::<f64>() / rows as f64).collect();
        let m2: Vec<f64> = (0..width).map(|c| column(&place, c).iter().map(|x| (x - mean[c]).powi(2)).sum()).collect();
        let deviation: Vec<f64> = m2.iter().map(|m2| 1.0 / (m2 / rows as f64 + f64::from(epsilon)).sqrt()).collect();
        let xhat = |i: usize| (f64::from(place[i]) - mean[i % width]) * deviation[i % width];
        let y: Vec<f64> =
            (0..rows * width).map(|i| xhat(i) * f64::from(w[i % width]) + f64::from(b[i % width])).collect();
        let mut sums = vec![0.0; 2 * width];
        for i in 0..rows * width {
            sums[i % width] += f64::from(dy[i]);
            sums[width + i % width] += f64::from(dy[i]) * xhat(i);
        }
        let dx: Vec<f64> = (0..rows * width)
            .map(|i| {
                let c = i % width;
                let part = (sums[c] + xhat(i) * sums[width + c]) / rows as f64;
                f64::from(w[c]) * deviation[c] * (f64::from(dy[i]) - part)
            })
            .collect();
        let running: Vec<f64> = (0..width).map(|c| f64::from(momentum) * mean[c]).collect();
        let running_var: Vec<f64> =
            (0..width).map(|c| 0.9 + f64::from(momentum) * m2[c] / (rows as f64 - 1.0).max(1.0)).collect();
        each_type!(T, statistics = batch_norm_statistics | batch_norm_statistics_bf16,
            apply = batch_norm_apply | batch_norm_apply_bf16, reduce = batch_norm_reduce | batch_norm_reduce_bf16,
            backward = batch_norm_backward | batch_norm_backward_bf16 => {
            let got = outputs(|rig| {
                let (on, n, channels) = (&rig.on(), rows * width, width as i32);
                let (x, dy): (Const<T>, Const<T>) = (rig.element(&place), rig.element(&dy));
                let (w, b) = (rig.give(&w), rig.give(&b));
                let across = Grid::cover(width, 256);
                // The first device holds one row, the second the others.
                let parts = rig.out::<f32>(3 * 2 * width);
                let both = rows - 1;
                let num_parts = both.div_ceil(per_part);
                let blocks = rig.out::<f32>(3 * num_parts * width);
                let (mean, var, kept) = (rig.put(&vec![0f32; width]), rig.put(&vec![1f32; width]), rig.out::<f32>(2 * width));
                let (y, dx, sums) = (rig.out::<T>(n), rig.out::<T>(n), rig.out::<f32>(2 * width));
                let (dw, db) = (rig.out::<f32>(width), rig.out::<f32>(width));
                // SAFETY: x, y, dy, dx (rows, width); the others as their kernels require.
                unsafe {
                    let grid = Grid::new(width.div_ceil(32), 1, 1);
                    statistics(on, grid, x, parts, 1, channels, 1).unwrap();
                    let grid = Grid::new(width.div_ceil(32), num_parts, 1);
                    statistics(on, grid, x.offset(width), blocks, both as i64, channels, per_part as i32).unwrap();
                    let (grid, second, none) = (Grid::cover(width, 8), parts.offset(3 * width), Mut::NONE);
                    batch_norm_merge(on, grid, blocks.into(), second, none, none, none, num_parts as i32, channels, 0.0, 0.0)
                        .unwrap();
                    batch_norm_keep(on, across, parts.into(), mean, var, kept, 2, channels, momentum, epsilon).unwrap();
                    let (m, d) = (kept.into(), kept.offset(width).into());
                    apply(on, vectors::<T>(n), x, m, d, w, b, y, n as i64, channels, 0).unwrap();
                    let num_parts = rows.div_ceil(per_part);
                    let blocks = rig.out::<f32>(2 * num_parts * width);
                    let grid = Grid::new(width.div_ceil(32), num_parts, 1);
                    let none = Const::NONE;
                    reduce(on, grid, x, kept.into(), dy, none, none, blocks, rows as i64, channels, per_part as i32, 0).unwrap();
                    let (grid, all) = (Grid::cover(2 * width, 32), num_parts as i32);
                    sum_rows(on, grid, blocks.into(), sums, all, 2 * width as i64, all).unwrap();
                    let share = 1.0 / rows as f32;
                    let (kept, sums, grid, n) = (kept.into(), sums.into(), vectors::<T>(n), n as i64);
                    backward(on, grid, x, kept, dy, sums, w, none, dx, dw, db, n, channels, share, 0).unwrap();
                }
                let gradients = [rig.get(db, width), rig.get(dw, width)].concat();
                let n = rows * width;
                vec![rig.numbers(y, n), rig.numbers(dx, n), rig.get(mean, width), rig.get(var, width), rig.get(sums, 2 * width), gradients]
            });
            // The mean is accurate to half a unit in the last place of numbers around `offset`.
            let place = 3e-8 * f64::from(offset.abs());
            let tolerance = T::TOLERANCE + 4.0 * place;
            close("y", &got[0], &y, tolerance);
            close("dx", &got[1], &dx, tolerance);
            close("running mean", &got[2], &running, 2e-6);
            close("running variance", &got[3], &running_var, 5e-6);
            close("sums", &got[4], &sums, 2e-6 + 4.0 * place);
            assert_eq!(got[5], got[4], "the gradients of bias and weight are the sums");
        });
    }
}

#[test]
fn batch_norm_in_evaluation_uses_running_statistics() {
    let (rows, width) = (9, 5);
    let (x, mean) = (values(rows * width, 1), values(width, 2));
    let var: Vec<f32> = values(width, 3).iter().map(|v| v.abs() + 0.5).collect();
    let want: Vec<f64> = (0..rows * width)
        .map(|i| (f64::from(x[i]) - f64::from(mean[i % width])) / (f64::from(var[i % width]) + 1e-5).sqrt())
        .collect();
    let got = outputs(|rig| {
        let (n, deviation, y) = (rows * width, rig.out(width), rig.out(rows * width));
        let (x, mean, var) = (rig.give(&x), rig.give(&mean), rig.give(&var));
        // SAFETY: x and y (rows, width), the others (width).
        unsafe {
            batch_norm_deviation(&rig.on(), Grid::cover(width, 256), var, deviation, width as i32, 1e-5).unwrap();
            let grid = vectors::<f32>(n);
            let none = Const::NONE;
            batch_norm_apply(&rig.on(), grid, x, mean, deviation.into(), none, none, y, n as i64, width as i32, 0)
                .unwrap();
        }
        vec![rig.get(y, n)]
    });
    close("y", &got[0], &want, 2e-6);
}

#[test]
fn softmax_cross_entropy_accepts_classes_and_distributions() {
    for (n, classes, width, smoothing) in [
        (1, 2, 1, 0.0),
        (19, 10, 1, 0.0),
        (10, 37, 1, 0.1),
        (9, 7, 7, 0.2),
        (9, 24, 24, 0.2),
        (3, 1000, 1, 0.0),
        // More classes than registers hold.
        (2, 1025, 1025, 0.1),
        (2, 2600, 1, 0.1),
    ] {
        let x: Vec<f32> = values(n * classes, 1).iter().map(|v| v * 8.0).collect();
        let targets: Vec<f32> = if width == 1 {
            (0..n).map(|i| (i * 7 % classes) as f32).collect()
        } else {
            let raw = values(n * classes, 2);
            let total = |r: usize| raw[r * classes..][..classes].iter().map(|v| v.abs()).sum::<f32>();
            (0..n * classes).map(|i| raw[i].abs() / total(i / classes)).collect()
        };
        let (hard, soft) = (1.0 - smoothing, smoothing / classes as f64);
        let (mut loss, mut first, mut five) = (0.0, 0.0, 0.0);
        let (mut p, mut ts) = (vec![0.0; n * classes], vec![0.0; n * classes]);
        for r in 0..n {
            let x = wide(&x[r * classes..][..classes]);
            let target = &targets[r * width..][..width];
            let best = |best: usize, c: usize| if target[c] > target[best] { c } else { best };
            let class = if width == 1 { target[0] as usize } else { (0..width).fold(0, best) };
            let t =
                |c: usize| if width > 1 { f64::from(target[c]) } else { f64::from(u8::from(c == class)) } * hard + soft;
            let sum: f64 = x.iter().map(|v| v.exp()).sum();
            loss += (0..classes).map(|c| t(c) * (sum.ln() - x[c])).sum::<f64>();
            let above = (0..classes).filter(|&c| x[c] > x[class] || (x[c] == x[class] && c < class)).count();
            first += f64::from(u8::from(above < 1));
            five += f64::from(u8::from(above < 5));
            for c in 0..classes {
                p[r * classes + c] = x[c].exp() / sum;
                ts[r * classes + c] = t(c);
            }
        }
        each_type!(T, forward = softmax_cross_entropy_forward | softmax_cross_entropy_forward_bf16,
            backward = softmax_cross_entropy_backward | softmax_cross_entropy_backward_bf16 => {
            let got = outputs(|rig| {
                let (x, targets): (Const<T>, _) = (rig.element(&x), rig.give(&targets));
                let (rows, metrics) = (rig.out(3 * n), rig.out(4));
                let (p, dx) = (rig.out::<T>(n * classes), rig.out::<T>(n * classes));
                let (on, grid) = (&rig.on(), Grid::cover(n, 8));
                let (ni, ci, wi, hard, soft) = (n as i32, classes as i32, width as i32, hard as f32, soft as f32);
                // SAFETY: shapes as the kernels require.
                unsafe {
                    forward(on, grid, x, targets, rows, Mut::NONE, ni, ci, wi, hard, soft).unwrap();
                    forward(on, grid, x, targets, rows, p, ni, ci, wi, hard, soft).unwrap();
                    softmax_cross_entropy_metrics(on, Grid::new(1, 1, 1), rows.into(), metrics, ni, 1.0 / 40.0).unwrap();
                    backward(on, grid, p.into(), targets, dx, ni, ci, wi, hard, soft, 1.0 / 40.0).unwrap();
                }
                vec![rig.get(metrics, 4), rig.numbers(p, n * classes), rig.numbers(dx, n * classes)]
            });
            close("loss", &got[0][..1], &[loss / 40.0], 2e-5);
            close("counts", &got[0][1..], &[first, five, n as f64], 0.0);
            close("p", &got[1], &p, T::TOLERANCE);
            // Backward reads the p that forward stored.
            let dx: Vec<f64> = got[1].iter().zip(&ts).map(|(&p, t)| (f64::from(p) - t) / 40.0).collect();
            close("dx", &got[2], &dx, T::TOLERANCE);
        });
    }
}

/// The addresses of a stage of the optimiser's chain.
#[derive(Clone, Copy)]
struct Stage {
    w: Mut<f32>,
    bf16_weights: Mut<bf16>,
    g: Mut<f32>,
    norms: Const<f32>,
    slots: [Mut<f32>; 2],
    program: Const<f32>,
    ranges: Const<i64>,
    factors: Const<f32>,
    lr: Const<f32>,
    bad_g: Const<f32>,
    bad_w: Mut<f32>,
}

impl Stage {
    const NONE: Self = Stage {
        w: Mut::NONE,
        bf16_weights: Mut::NONE,
        g: Mut::NONE,
        norms: Const::NONE,
        slots: [Mut::NONE; 2],
        program: Const::NONE,
        ranges: Const::NONE,
        factors: Const::NONE,
        lr: Const::NONE,
        bad_g: Const::NONE,
        bad_w: Mut::NONE,
    };

    /// # Safety
    /// The ranges of the blocks are inside the regions.
    unsafe fn launch(self, on: &Issue, blocks: usize, ops: i32, segments: i32) {
        let Stage { w, bf16_weights, g, norms, slots, program, ranges, factors, lr, bad_g, bad_w } = self;
        let (grid, [v, u], none) = (Grid::new(blocks, 1, 1), slots, Mut::NONE);
        let halves = bf16_weights;
        // SAFETY: the caller vouches for the regions.
        unsafe {
            optim_apply(
                on, grid, w, halves, g, norms, v, u, none, none, program, ranges, factors, lr, bad_g, bad_w, ops,
                segments,
            )
            .unwrap();
        }
    }
}

const DECAY: f32 = 0.0;
const MOMENTUM: f32 = 1.0;
const NESTEROV: f32 = 2.0;
const CLIP: f32 = 3.0;

/// A value that no weight has.
const UNTOUCHED: f32 = 512.0;

#[test]
fn a_whole_optimiser_chain_runs_in_one_launch() {
    // Three parameters, the second empty, with padding between them; the third is larger than one part of a norm.
    let ranges: [[i64; 2]; 3] = [[0, 37], [48, 48], [48, 48 + 9001]];
    let factors = [[1.0f32, 1.0], [1.0, 1.0], [2.0, 0.5]];
    // The third parameter is updated by two blocks.
    let blocks = [[0i64, 37], [48, 48 + 8192], [48 + 8192, 48 + 9001]];
    let block_factors = [factors[0], factors[2], factors[2]];
    let n = 48 + 9001;
    let (w, g, v, u) = (values(n, 1), values(n, 2), values(n, 3), values(n, 4));
    let (clip, decay, mu, nu, lr) = (7.0f32, 0.01f32, 0.9f32, 0.5f32, 0.125f32);
    let program: Vec<f32> = [[CLIP, 0.0, clip], [DECAY, 0.0, decay], [MOMENTUM, 0.0, mu], [NESTEROV, 1.0, nu]]
        .iter()
        .flat_map(|op| op.iter().copied().chain([0.0; 5]))
        .collect();
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
        let (parts, norms, program) = (rig.out(3 * 64), rig.out(3), rig.give(&program));
        let (segments, ranges) = (rig.give(&ranges.concat()), rig.give(&blocks.concat()));
        let factors = rig.give(&block_factors.concat());
        let (on, lr) = (&rig.on(), rig.give(&[lr]));
        let (bad_g, bad_w, loss) = (rig.out(1), rig.out(1), rig.give(&[0.5, 0.0, 0.0, 0.0]));
        // SAFETY: regions of n elements, three segments.
        unsafe {
            optim_norm_parts(on, Grid::new(64, 3, 1), g.into(), parts, segments, 3).unwrap();
            optim_norm(on, Grid::new(1, 1, 1), parts.into(), rig.give(&[0.0, 1.0, 1.0]), norms, 3).unwrap();
            let norms = norms.into();
            optim_check(on, Grid::new(1, 1, 1), norms, loss, bad_g, bad_w, 3).unwrap();
            let stage = Stage {
                w,
                bf16_weights,
                g,
                norms,
                slots: [v, u],
                program,
                ranges,
                factors,
                lr,
                bad_g: bad_g.into(),
                bad_w,
            };
            stage.launch(on, 3, 4, 3);
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
        let program = rig.give(&[DECAY, 0.0, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let (ranges, factors) = (rig.give(&[0i64, n as i64]), rig.give(&[1.0f32, 1.0]));
        let bad = rig.give(&[0.0f32]);
        // SAFETY: regions of n elements, one segment.
        unsafe {
            let stage = Stage { w: weights, g, program, ranges, factors, bad_g: bad, ..Stage::NONE };
            stage.launch(&rig.on(), 1, 1, 1);
        }
        vec![rig.get(g, n), rig.get(weights, n)]
    });
    close("g", &got[0], &want, 1e-7);
    assert_eq!(got[1], w);
}

#[test]
fn decay_and_momentum_have_a_kernel_with_the_bits_of_the_interpreter() {
    let n = 5003;
    let (w, g, v) = (values(n, 1), values(n, 2), values(n, 3));
    let program: Vec<f32> =
        [[DECAY, 0.0, 0.01], [MOMENTUM, 0.0, 0.9]].iter().flat_map(|op| op.iter().copied().chain([0.0; 5])).collect();
    // The second block belongs to a frozen parameter, whose velocity changes all the same.
    let (ranges, factors) = ([0i64, 4096, 4096, 4100, 4100, n as i64], [2.0f32, 0.5, 0.0, 1.0, 1.0, 3.0]);
    let got = outputs(|rig| {
        let (on, lr, ok) = (&rig.on(), rig.give(&[0.125f32]), rig.give(&[0.0f32]));
        let (ranges, factors, program) = (rig.give(&ranges), rig.give(&factors), rig.give(&program));
        let of = |rig: &Rig| (rig.put(&w), rig.put(&g), rig.put(&v), rig.put(&[0.0f32]));
        let ((w1, g1, v1, bad1), (w2, g2, v2, bad2)) = (of(rig), of(rig));
        let halves = [rig.put(&vec![bf16::from_f32(UNTOUCHED); n]), rig.put(&vec![bf16::from_f32(UNTOUCHED); n])];
        // SAFETY: regions of n elements, three blocks.
        unsafe {
            let slots = [v1, Mut::NONE];
            let tables = Stage { program, ranges, factors, lr, bad_g: ok, ..Stage::NONE };
            let stage = Stage { w: w1, bf16_weights: halves[0], g: g1, slots, bad_w: bad1, ..tables };
            stage.launch(on, 3, 2, 1);
            let grid = Grid::new(3, 1, 1);
            optim_sgd(on, grid, w2, halves[1], g2.into(), v2, ranges, factors, lr, ok, bad2, 0.01, 0.9).unwrap();
        }
        let [first, second] = halves.map(|halves| rig.numbers(halves, n));
        vec![[rig.get(w1, n), rig.get(v1, n), first].concat(), [rig.get(w2, n), rig.get(v2, n), second].concat()]
    });
    assert_eq!(got[0], got[1]);
    assert!(got[0][4096..4100] == w[4096..4100] && got[0][4100] != w[4100]);
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
        for loss in [0.5f32, f32::NAN, f32::INFINITY] {
            let got = outputs(|rig| {
                let (bad_g, bad_w) = (rig.out(1), rig.out(1));
                let (metrics, on) = (rig.give(&[loss, 0.0, 0.0, 0.0]), rig.on());
                // SAFETY: ranges of n elements.
                unsafe {
                    optim_check(&on, Grid::new(1, 1, 1), Const::NONE, metrics, bad_g, bad_w, 0).unwrap();
                    let (g, count) = (rig.give(&g), ranges.len());
                    optim_check_parts(&on, Grid::new(count, 1, 1), g, rig.give(&ranges.concat()), bad_g).unwrap();
                }
                vec![rig.get(bad_g, 1), rig.get(bad_w, 1)]
            });
            let expected = if loss.is_finite() { expected } else { 1.0 };
            assert_eq!(got, [[expected], [0.0]], "{bad} at {at:?}, loss {loss}");
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
            let program = rig.give(&[MOMENTUM, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]);
            let (ranges, factors) = (rig.give(&[0i64, n as i64]), rig.give(&[1.0f32, 1.0]));
            // SAFETY: regions of n elements, one segment.
            unsafe {
                let (g, lr, bad_g) = (rig.put(&g), rig.give(&[lr]), rig.give(&[bad_gradients]));
                let slots = [v, Mut::NONE];
                let stage = Stage { w: weights, g, slots, program, ranges, factors, lr, bad_g, bad_w, ..Stage::NONE };
                stage.launch(&rig.on(), 1, 1, 1);
            }
            vec![rig.get(weights, n), rig.get(v, n), rig.get(bad_w, 1)]
        });
        assert_eq!(got[0] != w && got[1] != [0.0; 10], moves, "lr {lr}");
        assert_eq!(got[2], [overflows], "lr {lr}");
    }
}
