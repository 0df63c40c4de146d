use crate::each_type;
use crate::rig::*;
use peristyle::device::driver::{Const, Mut};
use peristyle::device::kernels::*;
use peristyle::device::{Grid, kernels};

/// Rows and columns of a tile of results: kernels/tile.cuh.
trait Tiled {
    const TILE: [usize; 2];
}
impl Tiled for f32 {
    const TILE: [usize; 2] = [64, 64];
}
impl Tiled for half::bf16 {
    const TILE: [usize; 2] = [128, 64];
}

fn tiles<T: Tiled>(m: usize, n: usize, z: usize) -> Grid {
    Grid::new(m.div_ceil(T::TILE[0]), n.div_ceil(T::TILE[1]), z)
}

/// Sums over rows in parts, and then the parts: the way that launches do it.
fn summed(rig: &Rig, x: Const<f32>, rows: usize, columns: usize) -> Mut<f32> {
    let sums = rig.out(columns);
    // SAFETY: x has rows * columns elements.
    unsafe {
        sum_rows(&rig.on(), Grid::cover(columns, 32), x, sums, rows as i32, columns as i64, rows as i32).unwrap()
    };
    sums
}

#[test]
fn rows_are_summed_in_parts() {
    for (rows, columns, per_part) in [(1, 1, 8), (100, 33, 32), (1000, 70, 137)] {
        let x = values(rows * columns, 1);
        let parts = rows.div_ceil(per_part);
        let want: Vec<f64> = (0..columns).map(|c| (0..rows).map(|r| f64::from(x[r * columns + c])).sum()).collect();
        each_type!(T, sum = sum_rows | sum_rows_bf16 => {
            let got = outputs(|rig| {
                let out = rig.out(parts * columns);
                let (x, grid): (Const<T>, _) = (rig.element(&x), Grid::new(columns.div_ceil(32), parts, 1));
                // SAFETY: x has rows * columns elements, out has parts * columns.
                unsafe { sum(&rig.on(), grid, x, out, rows as i32, columns as i64, per_part as i32).unwrap() };
                vec![rig.get(summed(rig, out.into(), parts, columns), columns)]
            });
            close("sums", &got[0], &want, <f32 as Element>::TOLERANCE);
        });
    }
}

#[test]
fn dense_forward_and_backward() {
    for (n, i, o, bias) in
        [(1, 1, 1, true), (3, 7, 5, false), (65, 33, 67, true), (130, 100, 72, true), (70, 800, 10, true)]
    {
        let (x, w, b, dy) = (values(n * i, 1), values(o * i, 2), values(o, 3), values(n * o, 4));
        let product =
            |m: usize, n: usize, k: usize, a: &dyn Fn(usize, usize) -> f32, b: &dyn Fn(usize, usize) -> f32| {
                let sum = |e: usize| (0..k).map(|p| f64::from(a(e / n, p)) * f64::from(b(p, e % n))).sum();
                (0..m * n).map(sum).collect::<Vec<f64>>()
            };
        let mut y = product(n, o, i, &|r, k| x[r * i + k], &|k, c| w[c * i + k]);
        y.iter_mut().enumerate().filter(|_| bias).for_each(|(e, y)| *y += f64::from(b[e % o]));
        let dx = product(n, i, o, &|r, k| dy[r * o + k], &|k, c| w[k * i + c]);
        let dw = product(o, i, n, &|r, k| dy[k * o + r], &|k, c| x[k * i + c]);
        let (per_part, parts) = (32, n.div_ceil(32));
        let [ni, ii, oi] = [n, i, o].map(|v| v as i32);
        each_type!(T, forward = dense_forward | dense_forward_bf16,
            backward_input = dense_backward_input | dense_backward_input_bf16,
            backward_weight = dense_backward_weight | dense_backward_weight_bf16 => {
            let got = outputs(|rig| {
                let on = rig.on();
                let (x, w, dy): (Const<T>, Const<T>, Const<T>) = (rig.element(&x), rig.element(&w), rig.element(&dy));
                let (y, dx, dw) = (rig.out::<T>(n * o), rig.out::<T>(n * i), rig.out(parts * o * i));
                let b = if bias { rig.give(&b) } else { Const::NONE };
                // SAFETY: x (n, i), w (o, i), b (o), dy and y (n, o), dw (parts, o, i).
                unsafe {
                    forward(&on, tiles::<T>(n, o, 1), x, w, b, y, ni, ii, oi).unwrap();
                    backward_input(&on, tiles::<T>(n, i, 1), dy, w, dx, ni, ii, oi).unwrap();
                    backward_weight(&on, tiles::<T>(o, i, parts), x, dy, dw, ni, ii, oi, per_part).unwrap();
                }
                let dw = summed(rig, dw.into(), parts, o * i);
                vec![rig.numbers(y, n * o), rig.numbers(dx, n * i), rig.get(dw, o * i)]
            });
            close("y", &got[0], &y, T::TOLERANCE);
            close("dx", &got[1], &dx, T::TOLERANCE);
            close("dw", &got[2], &dw, <f32 as Element>::TOLERANCE);
        });
    }
}

/// A convolution: samples, image, channels, outputs, groups, kernel, stride, padding.
#[derive(Debug, Clone, Copy)]
struct Case {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    o: usize,
    groups: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
}

const CASES: [Case; 6] = [
    Case { n: 2, h: 5, w: 4, c: 3, o: 5, groups: 1, kernel: [3, 3], stride: [1, 1], pad: [1, 1] },
    Case { n: 3, h: 6, w: 7, c: 8, o: 6, groups: 2, kernel: [3, 2], stride: [2, 1], pad: [1, 0] },
    Case { n: 1, h: 9, w: 8, c: 16, o: 24, groups: 1, kernel: [5, 5], stride: [3, 2], pad: [0, 2] },
    Case { n: 2, h: 3, w: 3, c: 12, o: 8, groups: 4, kernel: [1, 1], stride: [1, 1], pad: [0, 0] },
    Case { n: 4, h: 11, w: 10, c: 32, o: 70, groups: 1, kernel: [3, 3], stride: [1, 1], pad: [1, 1] },
    Case { n: 1, h: 7, w: 7, c: 1, o: 1, groups: 1, kernel: [7, 7], stride: [1, 1], pad: [0, 0] },
];

impl Case {
    fn depth(self) -> usize {
        self.c / self.groups
    }
    fn out(self) -> [usize; 2] {
        let along = |n: usize, i: usize| (n + 2 * self.pad[i] - self.kernel[i]) / self.stride[i] + 1;
        [along(self.h, 0), along(self.w, 1)]
    }
    /// Calls visit(index in x, index in w, index in y) for every product.
    fn products(self, mut visit: impl FnMut(usize, usize, usize)) {
        let ([oh, ow], [kh, kw], depth, per_group) = (self.out(), self.kernel, self.depth(), self.o / self.groups);
        for pixel in 0..self.n * oh * ow {
            for (o, tap) in (0..self.o).flat_map(|o| (0..kh * kw).map(move |tap| (o, tap))) {
                let row = (pixel / ow % oh * self.stride[0] + tap / kw).wrapping_sub(self.pad[0]);
                let column = (pixel % ow * self.stride[1] + tap % kw).wrapping_sub(self.pad[1]);
                if row >= self.h || column >= self.w {
                    continue;
                }
                for d in 0..depth {
                    let x = ((pixel / (oh * ow) * self.h + row) * self.w + column) * self.c + o / per_group * depth + d;
                    visit(x, (o * kh * kw + tap) * depth + d, pixel * self.o + o);
                }
            }
        }
    }
}

/// The arguments that all kernels of conv.cu share.
macro_rules! geometry {
    ($kernel:expr, $on:expr, $grid:expr, $case:expr, $a:expr, $b:expr, [$($more:expr),*], [$($last:expr),*]) => {{
        let k: Case = $case;
        let [oh, ow] = k.out();
        let i = |v: usize| v as i32;
        $kernel(
            $on, $grid, $a, $b, $($more,)* i(k.n), i(k.h), i(k.w), i(k.c), i(oh), i(ow), i(k.o), i(k.kernel[0]),
            i(k.kernel[1]), i(k.depth()), i(k.stride[0]), i(k.stride[1]), i(k.pad[0]), i(k.pad[1]),
            i(k.o / k.groups) $(, $last)*
        )
        .unwrap();
    }};
}

#[test]
fn conv_forward_and_backward() {
    for case in CASES {
        let ([oh, ow], filter) = (case.out(), case.kernel[0] * case.kernel[1] * case.depth());
        let (pixels, outputs_each) = (case.n * oh * ow, case.o / case.groups);
        let (nx, nw, ny) = (case.n * case.h * case.w * case.c, case.o * filter, pixels * case.o);
        let (x, w, b, dy) = (values(nx, 1), values(nw, 2), values(case.o, 3), values(ny, 4));
        let mut y: Vec<f64> = (0..ny).map(|i| f64::from(b[i % case.o])).collect();
        let (mut dx, mut dw) = (vec![0.0; nx], vec![0.0; nw]);
        case.products(|i, j, k| {
            y[k] += f64::from(x[i]) * f64::from(w[j]);
            dx[i] += f64::from(dy[k]) * f64::from(w[j]);
            dw[j] += f64::from(dy[k]) * f64::from(x[i]);
        });
        let (per_part, parts) = (64, pixels.div_ceil(64));
        each_type!(T, forward = conv_forward | conv_forward_bf16,
            backward_input = conv_backward_input | conv_backward_input_bf16,
            backward_weight = conv_backward_weight | conv_backward_weight_bf16 => {
            let got = outputs(|rig| {
                let on = &rig.on();
                let (x, w, dy): (Const<T>, Const<T>, Const<T>) = (rig.element(&x), rig.element(&w), rig.element(&dy));
                let (y, dx, dw) = (rig.out::<T>(ny), rig.out::<T>(nx), rig.out::<f32>(parts * nw));
                // SAFETY: shapes as in `Case`; dw has `parts` parts.
                unsafe {
                    let grid = tiles::<T>(pixels, outputs_each, case.groups);
                    geometry!(forward, on, grid, case, x, w, [rig.give(&b), y], []);
                    let grid = tiles::<T>(case.n * case.h * case.w, case.depth(), case.groups);
                    geometry!(backward_input, on, grid, case, dy, w, [dx], []);
                    for group in 0..case.groups {
                        let first = group * outputs_each;
                        let (x, dy, dw) = (x.offset(group * case.depth()), dy.offset(first), dw.offset(first * filter));
                        let grid = tiles::<T>(outputs_each, filter, parts);
                        geometry!(backward_weight, on, grid, case, x, dy, [dw], [per_part]);
                    }
                }
                let dw = summed(rig, dw.into(), parts, nw);
                vec![rig.numbers(y, ny), rig.numbers(dx, nx), rig.get(dw, nw)]
            });
            close("y", &got[0], &y, T::TOLERANCE);
            close("dx", &got[1], &dx, T::TOLERANCE);
            close("dw", &got[2], &dw, <f32 as Element>::TOLERANCE);
        });
    }
}

#[test]
fn every_kernel_of_the_files_here_has_256_threads() {
    assert!(kernels::ENTRIES.iter().all(|entry| entry.threads == 256));
}
