use crate::each_type;
use crate::rig::*;
use peristyle::gpu::kernels::*;
use peristyle::gpu::{Const, Grid, Mut};

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
        let step = Const::NONE;
                           batch_norm_merge(on, grid, blocks.into(), second, none, none, none, step, num_parts as i32, channels, 0.0, 0.0)
                               .unwrap();
                           batch_norm_keep(on, across, parts.into(), mean, var, kept, step, 2, channels, momentum, epsilon).unwrap();
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
                let (rows, metrics) = (rig.out(3 * n), rig.out(3));
                let (p, dx) = (rig.out::<T>(n * classes), rig.out::<T>(n * classes));
                let (on, grid) = (&rig.on(), Grid::cover(n, 8));
                let (ni, ci, wi, hard, soft) = (n as i32, classes as i32, width as i32, hard as f32, soft as f32);
                // SAFETY: shapes as the kernels require.
                unsafe {
                    forward(on, grid, x, targets, rows, Mut::NONE, ni, ci, wi, hard, soft).unwrap();
                    forward(on, grid, x, targets, rows, p, ni, ci, wi, hard, soft).unwrap();
                    sum_metrics(on, Grid::new(1, 1, 1), rows.into(), metrics, ni, 3, 1, 1.0 / 40.0).unwrap();
                    backward(on, grid, p.into(), targets, dx, ni, ci, wi, hard, soft, 1.0 / 40.0).unwrap();
                }
                vec![rig.get(metrics, 3), rig.numbers(p, n * classes), rig.numbers(dx, n * classes)]
            });
            close("loss", &got[0][..1], &[loss / 40.0], 2e-5);
            close("counts", &got[0][1..], &[first, five], 0.0);
            close("p", &got[1], &p, T::TOLERANCE);
            // Backward reads the p that forward stored.
            let dx: Vec<f64> = got[1].iter().zip(&ts).map(|(&p, t)| (f64::from(p) - t) / 40.0).collect();
            close("dx", &got[2], &dx, T::TOLERANCE);
        });
    }
}
