use crate::each_type;
use crate::rig::*;
use peristyle::gpu::kernels::*;
use peristyle::gpu::{Const, Grid, Mut, kernels};

/// A kind of product: the type of its operands in memory, and how it rounds them.
trait Kind {
    type Storage: Element;
    /// The largest difference between a sum of products of rounded operands and one of exact operands, as a share of
    /// the sum of the products' magnitudes.
    const OPERANDS: f64;
    fn seen(x: f32) -> f32;
    fn operand(n: usize, seed: u64) -> Vec<f32>;
}

struct F32;
struct Bf16;
struct Tf32;

impl Kind for F32 {
    type Storage = f32;
    const OPERANDS: f64 = 0.0;
    fn seen(x: f32) -> f32 {
        x
    }
    fn operand(n: usize, seed: u64) -> Vec<f32> {
        values(n, seed)
    }
}

impl Kind for Bf16 {
    type Storage = half::bf16;
    const OPERANDS: f64 = 0.0;
    fn seen(x: f32) -> f32 {
        x
    }
    fn operand(n: usize, seed: u64) -> Vec<f32> {
        values(n, seed)
    }
}

impl Kind for Tf32 {
    type Storage = f32;
    /// Each operand is off by at most 2^-11 of its value, so a product by 2^-10 + 2^-22.
    const OPERANDS: f64 = 9.77e-4;
    /// Rounds to 10 bits after the binary point, to the nearest value, ties away from zero.
    fn seen(x: f32) -> f32 {
        f32::from_bits((x.to_bits() + 0x1000) & !0x1fff)
    }
    /// Returns numbers that use all bits, some of them halfway between two values of tf32.
    fn operand(n: usize, seed: u64) -> Vec<f32> {
        let halfway =
            |i: usize, v: f32| if i.is_multiple_of(5) { f32::from_bits(v.to_bits() | 0x1000) } else { v * 1.234_567 };
        values(n, seed).into_iter().enumerate().map(|(i, v)| halfway(i, v)).collect()
    }
}

/// The expected results: of rounded operands, of exact operands, and of their magnitudes.
#[derive(Clone)]
struct Want {
    seen: Vec<f64>,
    exact: Vec<f64>,
    magnitude: Vec<f64>,
}

impl Want {
    fn zeros(n: usize) -> Self {
        Want { seen: vec![0.0; n], exact: vec![0.0; n], magnitude: vec![0.0; n] }
    }
    /// Adds a term that no kind of product rounds.
    fn term(&mut self, i: usize, value: f32) {
        self.seen[i] += f64::from(value);
        self.exact[i] += f64::from(value);
    }
    fn product<K: Kind>(&mut self, i: usize, a: f32, b: f32) {
        self.seen[i] += f64::from(K::seen(a)) * f64::from(K::seen(b));
        self.exact[i] += f64::from(a) * f64::from(b);
        self.magnitude[i] += f64::from(a.abs()) * f64::from(b.abs());
    }
    #[track_caller]
    fn check<K: Kind>(&self, what: &str, got: &[f32], tolerance: f64) {
        close(what, got, &self.seen, tolerance);
        let scale = self.exact.iter().fold(1e-3, |m: f64, w| m.max(w.abs()));
        for (i, (&g, &w)) in got.iter().zip(&self.exact).enumerate() {
            let bound = K::OPERANDS * self.magnitude[i] + tolerance * scale;
            assert!((f64::from(g) - w).abs() <= bound, "{what}[{i}] = {g}, expected {w} to within {bound}");
        }
    }
}

/// Runs a block once for each kind of product, with the kernels of that kind under shorter names.
macro_rules! each_kind {
    ($K:ident, $($name:ident = $f32:ident | $bf16:ident | $tf32:ident),+ => $body:block) => {
        {
            type $K = F32;
            use peristyle::gpu::kernels::{$($f32 as $name),+};
            $body
        }
        {
            type $K = Bf16;
            use peristyle::gpu::kernels::{$($bf16 as $name),+};
            $body
        }
        {
            type $K = Tf32;
            use peristyle::gpu::kernels::{$($tf32 as $name),+};
            $body
        }
    };
}

/// The sides of the two tiles of results in kernels/tile.cuh.
const SIDES: [usize; 2] = [64, 128];

/// Returns the grid of a product. Large tiles are used only for more columns than a small tile has.
fn tiles(side: usize, m: usize, n: usize, z: usize) -> Grid {
    tiles_of(side, &[m], n, z)
}

fn tiles_of(side: usize, rows: &[usize], n: usize, z: usize) -> Grid {
    let side = if n > SIDES[0] { side } else { SIDES[0] };
    Grid::new(rows.iter().map(|m| m.div_ceil(side)).sum(), n.div_ceil(side), z).with_small_tiles(side == SIDES[0])
}

/// Sums all rows in one part, as launches do with the sums of several parts.
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
    // The last shapes are read 16 bytes at a time if their address allows it.
    let shapes = [(1, 1, 8), (100, 33, 32), (1000, 70, 137), (1000, 72, 137), (3, 40, 1), (129, 64, 64)];
    for ((rows, columns, per_part), first) in shapes.into_iter().flat_map(|shape| [(shape, 0), (shape, 1)]) {
        let x = values(rows * columns, 1);
        let parts = rows.div_ceil(per_part);
        let want: Vec<f64> = (0..columns).map(|c| (0..rows).map(|r| f64::from(x[r * columns + c])).sum()).collect();
        each_type!(T, sum = sum_rows | sum_rows_bf16 => {
            let got = outputs(|rig| {
                let out = rig.out(parts * columns);
                let moved: Vec<f32> = std::iter::repeat_n(f32::NAN, first).chain(x.iter().copied()).collect();
                let (x, grid): (Const<T>, _) = (rig.element(&moved), Grid::new(columns.div_ceil(32), parts, 1));
                let x = x.offset(first);
                // SAFETY: x has rows * columns elements, out has parts * columns.
                unsafe { sum(&rig.on(), grid, x, out, rows as i32, columns as i64, per_part as i32).unwrap() };
                vec![rig.get(summed(rig, out.into(), parts, columns), columns)]
            });
            close("sums", &got[0], &want, <f32 as Element>::TOLERANCE);
        });
    }
}

#[test]
fn dense_agrees_with_sums_of_products() {
    let cases = [
        (1usize, 1usize, 1usize, true),
        (3, 7, 5, false),
        (65, 33, 67, true),
        (130, 104, 72, true),
        (70, 800, 10, true),
    ];
    for ((n, i, o, bias), side) in cases.into_iter().flat_map(|case| SIDES.map(|side| (case, side))) {
        let (per_part, parts) = (32, n.div_ceil(32));
        let [ni, ii, oi] = [n, i, o].map(|v| v as i32);
        each_kind!(K, forward = dense_forward | dense_forward_bf16 | dense_forward_tf32,
            backward_input = dense_backward_input | dense_backward_input_bf16 | dense_backward_input_tf32,
            backward_weight = dense_backward_weight | dense_backward_weight_bf16 | dense_backward_weight_tf32 => {
            type T = <K as Kind>::Storage;
            let (x, w, b, dy) = (K::operand(n * i, 1), K::operand(o * i, 2), values(o, 3), K::operand(n * o, 4));
            let (mut y, mut dx, mut dw) = (Want::zeros(n * o), Want::zeros(n * i), Want::zeros(o * i));
            for (e, &dy) in dy.iter().enumerate() {
                let (row, unit) = (e / o, e % o);
                y.term(e, if bias { b[unit] } else { 0.0 });
                for (p, q) in (0..i).map(|k| (row * i + k, unit * i + k)) {
                    y.product::<K>(e, x[p], w[q]);
                    dx.product::<K>(p, dy, w[q]);
                    dw.product::<K>(q, dy, x[p]);
                }
            }
            let got = outputs(|rig| {
                let on = rig.on();
                let (x, w, dy): (Const<T>, Const<T>, Const<T>) = (rig.element(&x), rig.element(&w), rig.element(&dy));
                let (y, dx, dw) = (rig.out::<T>(n * o), rig.out::<T>(n * i), rig.out(parts * o * i));
                let b = if bias { rig.element(&b) } else { Const::NONE };
                // SAFETY: x (n, i), w (o, i), b (o), dy and y (n, o), dw (parts, o, i).
                unsafe {
                    forward(&on, tiles(side, n, o, 1), x, w, b, y, ni, ii, oi, 0).unwrap();
                    backward_input(&on, tiles(side, n, i, 1), dy, w, dx, ni, ii, oi).unwrap();
                    backward_weight(&on, tiles(side, o, i, parts), x, dy, dw, ni, ii, oi, per_part).unwrap();
                }
                let dw = summed(rig, dw.into(), parts, o * i);
                vec![rig.numbers(y, n * o), rig.numbers(dx, n * i), rig.get(dw, o * i)]
            });
            y.check::<K>("y", &got[0], T::TOLERANCE);
            dx.check::<K>("dx", &got[1], T::TOLERANCE);
            dw.check::<K>("dw", &got[2], <f32 as Element>::TOLERANCE);
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

const CASES: [Case; 9] = [
    Case { n: 2, h: 5, w: 4, c: 3, o: 5, groups: 1, kernel: [3, 3], stride: [1, 1], pad: [1, 1] },
    Case { n: 3, h: 6, w: 7, c: 8, o: 6, groups: 2, kernel: [3, 2], stride: [2, 1], pad: [1, 0] },
    Case { n: 1, h: 9, w: 8, c: 16, o: 24, groups: 1, kernel: [5, 5], stride: [3, 2], pad: [0, 2] },
    Case { n: 2, h: 3, w: 3, c: 12, o: 8, groups: 4, kernel: [1, 1], stride: [1, 1], pad: [0, 0] },
    Case { n: 4, h: 11, w: 10, c: 32, o: 70, groups: 1, kernel: [3, 3], stride: [1, 1], pad: [1, 1] },
    Case { n: 1, h: 7, w: 7, c: 1, o: 1, groups: 1, kernel: [7, 7], stride: [1, 1], pad: [0, 0] },
    Case { n: 2, h: 5, w: 2, c: 4, o: 8, groups: 1, kernel: [1, 2], stride: [2, 3], pad: [0, 1] },
    Case { n: 1, h: 6, w: 5, c: 72, o: 8, groups: 1, kernel: [3, 3], stride: [2, 2], pad: [1, 1] },
    Case { n: 2, h: 6, w: 5, c: 6, o: 12, groups: 6, kernel: [3, 2], stride: [2, 1], pad: [1, 1] },
];

impl Case {
    fn depth(self) -> usize {
        self.c / self.groups
    }
    fn out(self) -> [usize; 2] {
        let along = |n: usize, i: usize| (n + 2 * self.pad[i] - self.kernel[i]) / self.stride[i] + 1;
        [along(self.h, 0), along(self.w, 1)]
    }
    fn geometry(self) -> ConvGeometry {
        let i = |v: usize| v as i32;
        let ([oh, ow], [kh, kw]) = (self.out().map(i), self.kernel.map(i));
        let ([stride_h, stride_w], [pad_h, pad_w]) = (self.stride.map(i), self.pad.map(i));
        let [n, h, w, c, o, depth] = [self.n, self.h, self.w, self.c, self.o, self.depth()].map(i);
        ConvGeometry { n, h, w, c, oh, ow, o, kh, kw, depth, stride_h, stride_w, pad_h, pad_w }
    }
    /// Returns the number of input pixels for each pair of remainders of row and column modulo the strides.
    fn classes(self) -> Vec<usize> {
        let along = |n: usize, first: usize, stride: usize| (first..n).step_by(stride).count();
        let one = |h, w| self.n * along(self.h, h, self.stride[0]) * along(self.w, w, self.stride[1]);
        (0..self.stride[0]).flat_map(|h| (0..self.stride[1]).map(move |w| one(h, w))).collect()
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

#[test]
fn conv_agrees_with_sums_of_products() {
    for (case, side) in CASES.into_iter().flat_map(|case| SIDES.map(|side| (case, side))) {
        let ([oh, ow], filter) = (case.out(), case.kernel[0] * case.kernel[1] * case.depth());
        let (pixels, outputs_each) = (case.n * oh * ow, case.o / case.groups);
        let (nx, nw, ny) = (case.n * case.h * case.w * case.c, case.o * filter, pixels * case.o);
        let (per_part, parts) = (64, pixels.div_ceil(64));
        let (geometry, each) = (case.geometry(), outputs_each as i32);
        each_kind!(K, forward = conv_forward | conv_forward_bf16 | conv_forward_tf32,
            backward_input = conv_backward_input | conv_backward_input_bf16 | conv_backward_input_tf32,
            backward_weight = conv_backward_weight | conv_backward_weight_bf16 | conv_backward_weight_tf32 => {
            type T = <K as Kind>::Storage;
            let (x, w, b, dy) = (K::operand(nx, 1), K::operand(nw, 2), values(case.o, 3), K::operand(ny, 4));
            let (mut y, mut dx, mut dw) = (Want::zeros(ny), Want::zeros(nx), Want::zeros(nw));
            (0..ny).for_each(|i| y.term(i, b[i % case.o]));
            case.products(|i, j, k| {
                y.product::<K>(k, x[i], w[j]);
                dx.product::<K>(i, dy[k], w[j]);
                dw.product::<K>(j, dy[k], x[i]);
            });
            let got = outputs(|rig| {
                let on = &rig.on();
                let (x, w, dy): (Const<T>, Const<T>, Const<T>) = (rig.element(&x), rig.element(&w), rig.element(&dy));
                let (y, dx, dw) = (rig.out::<T>(ny), rig.out::<T>(nx), rig.out::<f32>(parts * nw));
                // SAFETY: shapes as in `Case`; dw has `parts` parts.
                unsafe {
                    let grid = tiles(side, pixels, outputs_each, case.groups);
                    forward(on, grid, x, w, rig.element(&b), y, geometry, each, 0).unwrap();
                    let grid = tiles_of(side, &case.classes(), case.depth(), case.groups);
                    backward_input(on, grid, dy, w, dx, geometry, each).unwrap();
                    let (grid, groups) = (tiles(side, outputs_each, filter, case.groups * parts), case.groups as i32);
                    backward_weight(on, grid, x, dy, dw, geometry, each, groups, per_part).unwrap();
                }
                let dw = summed(rig, dw.into(), parts, nw);
                vec![rig.numbers(y, ny), rig.numbers(dx, nx), rig.get(dw, nw)]
            });
            y.check::<K>("y", &got[0], T::TOLERANCE);
            dx.check::<K>("dx", &got[1], T::TOLERANCE);
            dw.check::<K>("dw", &got[2], <f32 as Element>::TOLERANCE);
        });
    }
}

#[test]
fn conv_depthwise_agrees_with_sums_of_products() {
    for case in CASES.into_iter().filter(|case| case.depth() == 1) {
        let ([oh, ow], filter) = (case.out(), case.kernel[0] * case.kernel[1]);
        let pixels = case.n * oh * ow;
        let (nx, nw, ny) = (case.n * case.h * case.w * case.c, case.o * filter, pixels * case.o);
        let (x, w, b, dy) = (values(nx, 1), values(nw, 2), values(case.o, 3), values(ny, 4));
        let (mut y, mut dx, mut dw) = (Want::zeros(ny), Want::zeros(nx), Want::zeros(nw));
        (0..ny).for_each(|i| y.term(i, b[i % case.o]));
        case.products(|i, j, k| {
            y.product::<F32>(k, x[i], w[j]);
            dx.product::<F32>(i, dy[k], w[j]);
            dw.product::<F32>(j, dy[k], x[i]);
        });
        let (per_part, parts) = (16, pixels.div_ceil(16));
        let (geometry, each, groups) = (case.geometry(), (case.o / case.groups) as i32, case.groups as i32);
        each_type!(T, forward = conv_depthwise_forward | conv_depthwise_forward_bf16,
            backward_input = conv_depthwise_backward_input | conv_depthwise_backward_input_bf16,
            backward_weight = conv_depthwise_backward_weight | conv_depthwise_backward_weight_bf16 => {
            let got = outputs(|rig| {
                let on = &rig.on();
                let (x, w, dy): (Const<T>, Const<T>, Const<T>) = (rig.element(&x), rig.element(&w), rig.element(&dy));
                let (y, dx, dw) = (rig.out::<T>(ny), rig.out::<T>(nx), rig.out::<f32>(parts * nw));
                // SAFETY: shapes as in `Case`; dw has `parts` parts.
                unsafe {
                    let grid = Grid::cover(ny, 256);
                    forward(on, grid, x, w, rig.element(&b), y, geometry, each, groups, 0).unwrap();
                    backward_input(on, Grid::cover(nx, 256), dy, w, dx, geometry, each, groups).unwrap();
                    let grid = Grid::new(case.o.div_ceil(32), filter, parts);
                    backward_weight(on, grid, x, dy, dw, geometry, each, groups, per_part).unwrap();
                }
                let dw = summed(rig, dw.into(), parts, nw);
                vec![rig.numbers(y, ny), rig.numbers(dx, nx), rig.get(dw, nw)]
            });
            y.check::<F32>("y", &got[0], T::TOLERANCE);
            dx.check::<F32>("dx", &got[1], T::TOLERANCE);
            dw.check::<F32>("dw", &got[2], <f32 as Element>::TOLERANCE);
        });
    }
}

/// Plain sums over folded images and filters are the convolution, and unfolding is the transpose of folding.
#[test]
fn folded_images_and_filters_have_the_same_convolution() {
    for case in CASES.into_iter().filter(|case| case.groups == 1) {
        let ([oh, ow], filter, c) = (case.out(), case.kernel[0] * case.kernel[1] * case.c, case.c);
        let (nx, nw, ny) = (case.n * case.h * case.w * c, case.o * filter, case.n * oh * ow * case.o);
        let [fh, fw] = [0, 1].map(|i| case.stride[i].min(case.kernel[i]));
        let ([kh, kw], channels) =
            ([case.kernel[0].div_ceil(fh), case.kernel[1].div_ceil(fw)], (fh * fw * c).next_multiple_of(8));
        let (rows, columns, parts) = (oh + kh - 1, ow + kw - 1, 3);
        let (images, filters) = (case.n * rows * columns * channels, case.o * kh * kw * channels);
        let (x, w, sums) = (values(nx, 1), values(nw, 2), values(parts * filters, 3));
        let got = outputs(|rig| {
            let (on, geometry) = (&rig.on(), case.geometry());
            let (folded_x, folded_w) = (rig.out::<half::bf16>(images), rig.out::<half::bf16>(filters));
            let (dw, rounded) = (rig.out::<f32>(nw), rig.out::<f32>(nw));
            // SAFETY: shapes as in `Case` and in conv_fold.cu.
            unsafe {
                kernels::conv_fold_images(on, Grid::cover(images / 8, 256), rig.element(&x), folded_x, geometry)
                    .unwrap();
                kernels::conv_fold_filters(on, Grid::cover(filters, 256), rig.element(&w), folded_w, geometry).unwrap();
                let (grid, count) = (Grid::cover(nw, 256), parts as i32);
                kernels::conv_unfold_filters(on, grid, rig.give(&sums), dw, geometry, count).unwrap();
                kernels::conv_unfold_filters_bf16(on, grid, rig.element(&sums), rounded, geometry, count).unwrap();
            }
            vec![rig.numbers(folded_x, images), rig.numbers(folded_w, filters), rig.get(dw, nw), rig.get(rounded, nw)]
        });
        let mut want = vec![0.0; ny];
        case.products(|i, j, k| want[k] += f64::from(x[i]) * f64::from(w[j]));
        let plain = |k: usize| -> f64 {
            let (o, pixel) = (k % case.o, k / case.o);
            let (n, i, j) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
            let product = |e: usize| {
                let (a, b, q) = (e / (kw * channels), e / channels % kw, e % channels);
                let pixel = (n * rows + i + a) * columns + j + b;
                f64::from(got[0][pixel * channels + q]) * f64::from(got[1][o * kh * kw * channels + e])
            };
            (0..kh * kw * channels).map(product).sum()
        };
        let worst = (0..ny).map(|k| (plain(k) - want[k]).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-12, "{case:?}: {worst}");
        let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
        let transposed: f64 = sums.chunks(filters).map(|part| dot(part, &got[1])).sum();
        for dw in &got[2..] {
            assert!((dot(dw, &w) - transposed).abs() < 1e-6 * nw as f64, "{case:?}: {} {transposed}", dot(dw, &w));
        }
    }
}

/// The grids of element-wise kernels rely on this in every format.
#[test]
fn every_kernel_but_those_for_tensor_cores_has_256_threads() {
    for entry in kernels::ENTRIES {
        let narrow = ["_bf16", "_tf32"].iter().any(|kind| entry.name.trim_end_matches("_small").ends_with(kind));
        let products = ["dense", "conv", "locally_connected"].contains(&entry.file) && !entry.name.contains("bias");
        let cores = narrow && products;
        assert_eq!(entry.threads, if cores { 128 } else { 256 }, "{}", entry.name);
    }
}
