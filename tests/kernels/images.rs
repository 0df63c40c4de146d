use crate::each_type;
use crate::rig::*;
use peristyle::gpu::kernels::{PoolGeometry, global_avg_pool_forward};
use peristyle::gpu::{Const, Grid, Mut, ThreadOrder};

/// A pool: samples, image, channels, kernel, stride, padding, outputs (the last windows may extend beyond the edge).
#[derive(Debug, Clone, Copy)]
struct Case {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    out: [usize; 2],
}

const CASES: [Case; 4] = [
    Case { n: 2, h: 4, w: 6, c: 3, kernel: [2, 2], stride: [2, 2], pad: [0, 0], out: [2, 3] },
    Case { n: 1, h: 6, w: 5, c: 5, kernel: [3, 3], stride: [2, 2], pad: [1, 1], out: [4, 3] },
    Case { n: 3, h: 5, w: 4, c: 40, kernel: [3, 2], stride: [1, 1], pad: [0, 0], out: [3, 3] },
    Case { n: 1, h: 7, w: 7, c: 2, kernel: [2, 3], stride: [3, 2], pad: [0, 1], out: [3, 4] },
];

impl Case {
    fn inputs(self) -> usize {
        self.n * self.h * self.w * self.c
    }
    fn outputs(self) -> usize {
        self.n * self.out[0] * self.out[1] * self.c
    }
    /// Returns (index in x, index in the window) of the pixels that an output covers, and the area of its window within
    /// the padded image.
    fn window(self, output: usize) -> (Vec<(usize, usize)>, usize) {
        let (c, pixel) = (output % self.c, output / self.c);
        let (sample, at) =
            (pixel / (self.out[0] * self.out[1]), [pixel / self.out[1] % self.out[0], pixel % self.out[1]]);
        let begin = [0, 1].map(|d| at[d] * self.stride[d]);
        let size = [self.h, self.w];
        let extent = |d: usize| (begin[d] + self.kernel[d]).min(size[d] + 2 * self.pad[d]) - begin[d];
        let mut found = Vec::new();
        for tap in 0..self.kernel[0] * self.kernel[1] {
            let row = (begin[0] + tap / self.kernel[1]).wrapping_sub(self.pad[0]);
            let column = (begin[1] + tap % self.kernel[1]).wrapping_sub(self.pad[1]);
            if row < self.h && column < self.w {
                found.push((((sample * self.h + row) * self.w + column) * self.c + c, tap));
            }
        }
        (found, extent(0) * extent(1))
    }
    fn geometry(self) -> PoolGeometry {
        let i = |v: usize| v as i32;
        let ([oh, ow], [kh, kw]) = (self.out.map(i), self.kernel.map(i));
        let ([stride_h, stride_w], [pad_h, pad_w]) = (self.stride.map(i), self.pad.map(i));
        PoolGeometry {
            h: i(self.h),
            w: i(self.w),
            c: i(self.c),
            oh,
            ow,
            kh,
            kw,
            stride_h,
            stride_w,
            pad_h,
            pad_w,
            after_h: pad_h,
            after_w: pad_w,
        }
    }
}

#[test]
fn max_pool_gives_the_gradient_to_the_first_maximum() {
    for case in CASES {
        let (nx, ny) = (case.inputs(), case.outputs());
        // Few distinct values, so that maxima are often tied.
        let x: Vec<f32> = values(nx, 1).iter().map(|v| (v * 3.0).round()).collect();
        let dy = values(ny, 2);
        let (mut y, mut dx) = (vec![0.0; ny], vec![0.0; nx]);
        for (o, y) in y.iter_mut().enumerate() {
            let (window, _) = case.window(o);
            let best = window.iter().fold(window[0].0, |best, &(i, _)| if x[i] > x[best] { i } else { best });
            *y = f64::from(x[best]);
            dx[best] += f64::from(dy[o]);
        }
        each_type!(T, forward = max_pool_forward | max_pool_forward_bf16,
            backward = max_pool_backward | max_pool_backward_bf16 => {
            let got = outputs(|rig| {
                let (x, dy): (Const<T>, Const<T>) = (rig.element(&x), rig.element(&dy));
                let (y, places, dx, single) = (rig.out::<T>(ny), rig.out::<T>(ny), rig.out::<T>(nx), rig.out::<T>(ny));
                // SAFETY: shapes as in `Case`.
                unsafe {
                    let (grid, n, geometry) = (vectors::<T>(ny), ny as i64, case.geometry());
                    forward(&rig.on(), grid, x, y, places, n, geometry).unwrap();
                    forward(&rig.on(), grid, x, single, Mut::NONE, n, geometry).unwrap();
                    backward(&rig.on(), vectors::<T>(nx), places.into(), dy, Const::NONE, dx, nx as i64, geometry).unwrap();
                }
                vec![rig.numbers(y, ny), rig.numbers(single, ny), rig.numbers(dx, nx)]
            });
            close("y", &got[0], &y, 0.0);
            close("y without places", &got[1], &y, 0.0);
            close("dx", &got[2], &dx, T::TOLERANCE);
        });
    }
}

#[test]
fn avg_pool_may_count_padding_in_the_mean() {
    for (case, padded) in CASES.into_iter().flat_map(|case| [(case, 0), (case, 1)]) {
        let (nx, ny) = (case.inputs(), case.outputs());
        let (x, dy) = (values(nx, 1), values(ny, 2));
        let (mut y, mut dx) = (vec![0.0; ny], vec![0.0; nx]);
        for (o, y) in y.iter_mut().enumerate() {
            let (window, extent) = case.window(o);
            let share = 1.0 / if padded == 1 { extent } else { window.len() } as f64;
            for (i, _) in window {
                *y += f64::from(x[i]) * share;
                dx[i] += f64::from(dy[o]) * share;
            }
        }
        each_type!(T, forward = avg_pool_forward | avg_pool_forward_bf16,
            backward = avg_pool_backward | avg_pool_backward_bf16 => {
            let got = outputs(|rig| {
                let (x, dy): (Const<T>, Const<T>) = (rig.element(&x), rig.element(&dy));
                let (y, dx) = (rig.out::<T>(ny), rig.out::<T>(nx));
                // SAFETY: shapes as in `Case`.
                unsafe {
                    let geometry = case.geometry();
                    forward(&rig.on(), vectors::<T>(ny), x, y, ny as i64, geometry, padded).unwrap();
                    backward(&rig.on(), vectors::<T>(nx), dy, dx, nx as i64, geometry, padded).unwrap();
                }
                vec![rig.numbers(y, ny), rig.numbers(dx, nx)]
            });
            close("y", &got[0], &y, T::TOLERANCE);
            close("dx", &got[1], &dx, T::TOLERANCE);
        });
    }
}

#[test]
fn global_avg_pool_is_the_mean_of_each_channel() {
    for (n, pixels, c) in [(1, 1, 1), (3, 49, 33), (2, 7, 64), (3, 100, 40), (2, 49, 100)] {
        let (x, dy) = (values(n * pixels * c, 1), values(n * c, 2));
        let share = 1.0 / pixels as f32;
        let mean = |e: usize| {
            let sum: f64 = (0..pixels).map(|p| f64::from(x[(e / c * pixels + p) * c + e % c])).sum();
            sum / pixels as f64
        };
        let y: Vec<f64> = (0..n * c).map(mean).collect();
        let dx: Vec<f64> =
            (0..n * pixels * c).map(|i| f64::from(dy[i / c / pixels * c + i % c]) / pixels as f64).collect();
        each_type!(T, forward = global_avg_pool_forward | global_avg_pool_forward_bf16,
            backward = global_avg_pool_backward | global_avg_pool_backward_bf16 => {
            let got = outputs(|rig| {
                let (x, dy): (Const<T>, Const<T>) = (rig.element(&x), rig.element(&dy));
                let (y, dx) = (rig.out::<T>(n * c), rig.out::<T>(n * pixels * c));
                let (count, grid) = (n * pixels * c, Grid::new(n * c.div_ceil(32), 1, 1));
                // SAFETY: x and dx (n, pixels, c), y and dy (n, c).
                unsafe {
                    forward(&rig.on(), grid, x, y, pixels as i32, c as i32, share).unwrap();
                    let grid = vectors::<T>(count);
                    backward(&rig.on(), grid, dy, dx, count as i64, pixels as i32, c as i32, share).unwrap();
                }
                vec![rig.numbers(y, n * c), rig.numbers(dx, count)]
            });
            close("y", &got[0], &y, T::TOLERANCE);
            close("dx", &got[1], &dx, T::TOLERANCE);
        });
    }
}

#[test]
fn global_avg_pool_accepts_more_samples_than_a_grid_has_rows() {
    let n = 65_600;
    let (rig, x) = (Rig::new(ThreadOrder::Forward, 2), values(n, 1));
    let y = rig.out::<f32>(n);
    // SAFETY: x and y have n elements.
    unsafe { global_avg_pool_forward(&rig.on(), Grid::new(n, 1, 1), rig.give(&x), y, 1, 1, 1.0).unwrap() };
    assert_eq!(rig.get(y, n), x);
}

#[test]
fn lrn_windows_stop_at_the_edges_of_groups() {
    for (pixels, c, group, size, alpha, beta, k) in [
        (6, 8, 8, 5, 1e-4, 0.75, 2.0),
        (5, 12, 6, 5, 0.9, 0.75, 1.5),
        (3, 7, 7, 4, 0.8, 0.6, 1.0),
        (90, 4, 2, 3, 0.5, 0.5, 1.0),
        // Windows across the edges of blocks, as wide as the margins of a block, and wider.
        (70, 96, 48, 5, 0.9, 0.75, 1.0),
        (3, 1111, 1111, 65, 0.9, 0.75, 1.0),
        (3, 1111, 1111, 90, 0.9, 0.6, 1.0),
    ] {
        let n = pixels * c;
        let (x, dy) = (values(n, 1), values(n, 2));
        let scale = alpha / size as f64;
        let near = |i: usize, before: usize, after: usize| {
            let (start, at) = (i - i % group, i % group);
            start + at.saturating_sub(before)..start + (at + after + 1).min(group)
        };
        let (before, after) = (size / 2, (size - 1) / 2);
        let square = |i: usize| f64::from(x[i]) * f64::from(x[i]);
        let s: Vec<f64> = (0..n).map(|i| k + scale * near(i, before, after).map(square).sum::<f64>()).collect();
        let y: Vec<f64> = (0..n).map(|i| f64::from(x[i]) * s[i].powf(-beta)).collect();
        each_type!(T, forward = lrn_forward | lrn_forward_bf16, backward = lrn_backward | lrn_backward_bf16 => {
            let got = outputs(|rig| {
                let (x, dy): (Const<T>, Const<T>) = (rig.element(&x), rig.element(&dy));
                let (y, kept, dx) = (rig.out::<T>(n), rig.out::<T>(n), rig.out::<T>(n));
                let (grid, group, size) = (vectors::<T>(n), group as i32, size as i32);
                let (scale, beta32, k) = (scale as f32, beta as f32, k as f32);
                // SAFETY: all have n elements.
                unsafe {
                    forward(&rig.on(), grid, x, y, kept, n as i64, group, size, scale, beta32, k).unwrap();
                    let slope = 2.0 * scale * beta32;
                    backward(&rig.on(), grid, x, kept.into(), dy, dx, n as i64, group, size, slope, beta32, 0).unwrap();
                }
                vec![rig.numbers(y, n), rig.numbers(kept, n), rig.numbers(dx, n)]
            });
            close("y", &got[0], &y, T::TOLERANCE);
            close("s", &got[1], &s, T::TOLERANCE);
            // Backward reads the s that forward stored.
            let s = wide(&got[1]);
            let term = |d: usize| f64::from(dy[d]) * f64::from(x[d]) * s[d].powf(-beta - 1.0);
            let sum = |i: usize| near(i, after, before).map(term).sum::<f64>();
            let dx: Vec<f64> = (0..n)
                .map(|i| f64::from(dy[i]) * s[i].powf(-beta) - 2.0 * scale * beta * f64::from(x[i]) * sum(i))
                .collect();
            close("dx", &got[2], &dx, T::TOLERANCE);
        });
    }
}
