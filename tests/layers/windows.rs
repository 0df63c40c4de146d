//! Layers with windows in every geometry: conv against its plain loops, pools against PyTorch's formulas, on the CPU and
//! on the emulated device.

use peristyle::cpu::{Implementation, Scalar};
use peristyle::device::{Random, RandomStream};
use peristyle::diagnose::selftest::{Case, SINGLE, worst};
use peristyle::gpu::{Driver, EmulatorSettings, ThreadOrder};
use peristyle::layers::{self, Activation, Layer, Role, Setup, SingleLayer};
use peristyle::tensor::MatmulPrecision;

/// One dim of a geometry: size of the image and the kernel, stride, padding.
#[derive(Debug, Clone, Copy)]
struct Dim {
    size: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
}

impl Dim {
    fn outputs(self) -> usize {
        (self.size + 2 * self.pad - self.kernel) / self.stride + 1
    }
}

/// Input channels, filters and groups of a convolution.
const CHANNELS: [(usize, usize, usize); 7] =
    [(3, 4, 1), (1, 2, 1), (4, 4, 4), (4, 8, 2), (3, 6, 3), (17, 3, 1), (6, 4, 2)];

/// Every kernel, padding and image up to 9, where the kernel fits.
fn dims(stride: usize) -> impl Iterator<Item = Dim> {
    let all = (1..=9).flat_map(|kernel| (0..=9).flat_map(move |pad| (1..=9).map(move |size| (kernel, pad, size))));
    let dims = all.map(move |(kernel, pad, size)| Dim { size, kernel, stride, pad });
    dims.filter(|dim| dim.kernel <= dim.size + 2 * dim.pad)
}

fn emulated() -> Driver {
    let settings = EmulatorSettings { threads: 2, order: ThreadOrder::Forward };
    Driver::emulated(settings).unwrap_or_else(|e| panic!("these tests need a C++ compiler: {e}"))
}

fn layer(kind: &str, settings: &str) -> Box<dyn Layer> {
    let settings = toml::de::ValueDeserializer::parse(settings).unwrap();
    layers::read(kind, settings).unwrap().unwrap()
}

/// Creates a convolution on enough samples for at least `pixels` output pixels.
fn conv(h: Dim, w: Dim, (channels, filters, groups): (usize, usize, usize), pixels: usize) -> Case {
    let pair = |of: fn(Dim) -> usize| format!("[{}, {}]", of(h), of(w));
    let (kernel, stride, pad) = (pair(|d| d.kernel), pair(|d| d.stride), pair(|d| d.pad));
    let settings =
        format!("{{ filters = {filters}, groups = {groups}, kernel = {kernel}, stride = {stride}, pad = {pad} }}");
    let input = Activation::new(h.size, w.size, channels);
    Case::new(layer("conv", &settings), vec![input], pixels.div_ceil(h.outputs() * w.outputs()))
}

/// Compares y, dx, dw and db with those of the plain loops in f64.
fn check<T: Scalar>(case: &Case, driver: Option<&Driver>, tolerance: f64) {
    let plain = Setup { implementation: Implementation::Reference, ..case.setup() };
    let expected = case.run::<f64>(&plain, None).unwrap();
    let got = case.run::<T>(&case.setup(), driver).unwrap();
    assert_eq!(got.len(), 4);
    for ((role, got), (_, expected)) in got.iter().zip(&expected) {
        let difference = worst(got, expected);
        assert!(difference.error <= tolerance, "{}: {role:?}: {difference:?}", case.name);
    }
}

/// A tile of the fast path has at most 1024 pixels. The last of them is the one that can be written beyond its end.
const TILE: usize = 1024;

#[test]
fn conv_agrees_with_plain_loops_for_every_kernel_padding_and_size() {
    for (i, w) in dims(1).enumerate() {
        let random = Random::new(1, RandomStream::Probe, 0, i as u64);
        let draw = |what: u64, n: u64| random.below(what, n) as usize;
        let w = Dim { stride: 1 + draw(0, 4), ..w };
        // The height has a small geometry of its own, so that the plain loops stay fast.
        let h = Dim { size: 1 + draw(1, 4), kernel: 1 + draw(2, 3), stride: 1 + draw(3, 2), pad: 1 + draw(4, 4) };
        let case = conv(h, w, CHANNELS[i % CHANNELS.len()], TILE);
        if i % 4 == 0 { check::<f64>(&case, None, 1e-12) } else { check::<f32>(&case, None, SINGLE) }
    }
}

#[test]
fn conv_kernels_agree_with_plain_loops_for_every_kernel_and_padding() {
    let driver = emulated();
    for (i, w) in dims(1).enumerate().filter(|(i, _)| i % 5 == 0) {
        let random = Random::new(2, RandomStream::Probe, 0, i as u64);
        let draw = |what: u64, n: u64| random.below(what, n) as usize;
        let w = Dim { stride: 1 + draw(0, 4), ..w };
        let h = Dim { size: 1 + draw(1, 4), kernel: 1 + draw(2, 3), stride: 1 + draw(3, 2), pad: 1 + draw(4, 4) };
        check::<f32>(&conv(h, w, CHANNELS[i % CHANNELS.len()], 1), Some(&driver), SINGLE);
    }
}

#[test]
#[ignore = "takes minutes; run it after a change of conv: cargo test --release --test layers windows:: -- --ignored"]
fn conv_agrees_with_plain_loops_in_the_whole_family() {
    let driver = emulated();
    for stride in 1..=4 {
        for dim in dims(stride) {
            for channels in CHANNELS.into_iter().chain([(32, 8, 1), (32, 32, 32)]) {
                check::<f32>(&conv(dim, dim, channels, TILE), None, SINGLE);
                check::<f32>(&conv(dim, dim, channels, 1), Some(&driver), SINGLE);
            }
        }
    }
}

/// A pool of one channel on one sample: outputs for inputs 1, 2, ... and gradients of the inputs for gradients of the
/// outputs 1, 2, ...
struct Pooled {
    size: [usize; 2],
    y: Vec<f64>,
    dx: Vec<f64>,
}

fn pooled(layer: &dyn Layer, x: &[f32], [h, w]: [usize; 2], driver: Option<&Driver>) -> Pooled {
    let input = Activation::new(h, w, 1);
    let mut single = SingleLayer::<f32>::new(layer, &[input], &Setup::of_rows(1)).unwrap();
    if let Some(driver) = driver {
        single = single.on(driver);
    }
    single.values_mut(Role::X(0)).copy_from_slice(x);
    single.values_mut(Role::Dy).iter_mut().zip(1u8..).for_each(|(dy, i)| *dy = f32::from(i));
    single.forward().unwrap();
    single.backward().unwrap();
    let values = |role| single.values(role).iter().map(|&v| f64::from(v)).collect();
    let shape = &single.shape(Role::Y).0;
    Pooled { size: [shape[1], shape[2]], y: values(Role::Y), dx: values(Role::Dx(0)) }
}

/// A pool along both dims: image, kernel, stride, padding, `ceil`, and for means `count_include_pad`.
#[derive(Debug, Clone, Copy)]
struct Pool {
    image: [usize; 2],
    kernel: usize,
    stride: usize,
    pad: usize,
    ceil: bool,
    mean: Option<bool>,
}

impl Pool {
    fn layer(self) -> Box<dyn Layer> {
        let Pool { kernel, stride, pad, ceil, .. } = self;
        let all = format!("kernel = {kernel}, stride = {stride}, pad = {pad}, ceil = {ceil}");
        match self.mean {
            Some(include) => layer("avg_pool", &format!("{{ {all}, count_include_pad = {include} }}")),
            None => layer("max_pool", &format!("{{ {all} }}")),
        }
    }

    /// Returns the number of windows along a dim, in the terms of PyTorch's `pooling_output_shape`.
    fn outputs(self, n: usize) -> Option<usize> {
        let [n, k, s, p] = [n, self.kernel, self.stride, self.pad].map(|v| i64::try_from(v).unwrap());
        let mut count = (n + 2 * p - (k - 1) - 1 + if self.ceil { s - 1 } else { 0 }).div_euclid(s) + 1;
        if self.ceil && (count - 1) * s >= n + p {
            count -= 1;
        }
        usize::try_from(count).ok().filter(|&count| count > 0)
    }

    /// Returns the range of a window along a dim, cut at the image, and the length by which PyTorch divides.
    fn window(self, at: usize, n: usize) -> (std::ops::Range<usize>, usize) {
        let start = at * self.stride;
        let end = (start + self.kernel).min(n + 2 * self.pad);
        let cut = start.saturating_sub(self.pad)..(end - self.pad).min(n);
        let len = if self.mean == Some(true) { end - start } else { cut.len() };
        (cut, len)
    }

    /// Returns what PyTorch computes, or none if it rejects the geometry. The formulas below were compared with PyTorch
    /// 2.15 on all of these geometries.
    fn expected(self, x: &[f32]) -> Option<Pooled> {
        let [h, w] = self.image;
        let size = [self.outputs(h)?, self.outputs(w)?];
        let mut pooled = Pooled { size, y: vec![], dx: vec![0.0; h * w] };
        for at in 0..size[0] * size[1] {
            let dy = (at + 1) as f64;
            let ((rows, high), (columns, wide)) = (self.window(at / size[1], h), self.window(at % size[1], w));
            let pixels: Vec<usize> = rows.flat_map(|row| columns.clone().map(move |column| row * w + column)).collect();
            if self.mean.is_some() {
                pooled.y.push(pixels.iter().map(|&i| f64::from(x[i])).sum::<f64>() / (high * wide) as f64);
                pixels.iter().for_each(|&i| pooled.dx[i] += dy / (high * wide) as f64);
            } else {
                let best = pixels.iter().fold(pixels[0], |best, &i| if x[i] > x[best] { i } else { best });
                pooled.y.push(f64::from(x[best]));
                pooled.dx[best] += dy;
            }
        }
        Some(pooled)
    }
}

/// Returns every pool of small kernels on small images.
fn pools() -> impl Iterator<Item = Pool> {
    let each = |kernel: usize, stride| {
        let pads = (0..=kernel / 2).flat_map(|pad| [false, true].map(|ceil| (pad, ceil)));
        pads.flat_map(move |(pad, ceil)| {
            let kinds = [None, Some(true), Some(false)];
            let images = (1..=7).map(|n| [n, n * 5 % 7 + 1]);
            images.flat_map(move |image| kinds.map(|mean| Pool { image, kernel, stride, pad, ceil, mean }))
        })
    };
    (1..=8).flat_map(move |kernel| (1..=4).flat_map(move |stride| each(kernel, stride)))
}

#[test]
fn pools_of_every_geometry_do_what_pytorch_does() {
    let driver = emulated();
    let (mut accepted, mut rejected) = (0, 0);
    for pool in pools() {
        let [h, w] = pool.image;
        let x: Vec<f32> =
            Random::new(3, RandomStream::Probe, 0, 0).permutation(h * w).iter().map(|&i| i as f32).collect();
        let Some(expected) = pool.expected(&x) else {
            let refused = pool.layer().output(&[Activation::new(h, w, 1)]);
            assert!(refused.unwrap_err().message.contains("is larger than its input"), "{pool:?}");
            rejected += 1;
            continue;
        };
        for driver in [None, Some(&driver)] {
            let got = pooled(&*pool.layer(), &x, pool.image, driver);
            assert_eq!(got.size, expected.size, "{pool:?}");
            for (got, expected) in [(&got.y, &expected.y), (&got.dx, &expected.dx)] {
                assert!(worst(got, expected).error < 1e-6, "{pool:?}: {got:?}, expected {expected:?}");
            }
        }
        accepted += 1;
    }
    assert!(accepted > 2000 && rejected > 500, "{accepted} accepted, {rejected} rejected");
}

/// Values that PyTorch 2.15 computes for the input 1, 2, ... and the gradient 1, 2, ... of the output.
#[test]
fn pools_give_values_computed_by_pytorch() {
    let pool = |image, kernel, stride, pad, mean| Pool { image, kernel, stride, pad, ceil: true, mean };
    let driver = emulated();
    let check = |pool: Pool, size, y: &[f64], dx: &[f64]| {
        let x: Vec<f32> = (1..=pool.image[0] * pool.image[1]).map(|i| i as f32).collect();
        for driver in [None, Some(&driver)] {
            let got = pooled(&*pool.layer(), &x, pool.image, driver);
            assert_eq!(got.size, size, "{pool:?}");
            assert!(worst(&got.y, y).error < 1e-6 && worst(&got.dx, dx).error < 1e-6, "{pool:?}: {:?}", got.y);
        }
    };
    check(pool([2, 2], 3, 2, 0, None), [1, 1], &[4.0], &[0.0, 0.0, 0.0, 1.0]);
    check(pool([2, 3], 4, 3, 0, None), [1, 1], &[6.0], &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    check(pool([1, 4], 3, 4, 1, None), [1, 2], &[2.0, 4.0], &[0.0, 1.0, 0.0, 2.0]);
    check(pool([2, 2], 3, 2, 0, Some(true)), [1, 1], &[2.5], &[0.25; 4]);
    let (y, dx) = ([0.1875, 0.875, 0.416_666_666_7], [0.0625, 0.1875, 0.125, 0.125, 0.375]);
    check(pool([1, 5], 4, 3, 2, Some(true)), [1, 3], &y, &dx);
    check(pool([1, 5], 4, 3, 2, Some(false)), [1, 3], &[1.5, 3.5, 5.0], &[0.5, 1.0, 0.5, 0.5, 3.5]);
    check(pool([2, 3], 5, 4, 1, Some(true)), [1, 1], &[1.05], &[0.05; 6]);
    check(pool([2, 3], 5, 4, 1, Some(false)), [1, 1], &[3.5], &[1.0 / 6.0; 6]);
}

#[test]
fn max_pool_passes_not_a_number_on_and_sends_the_gradient_to_it() {
    let (pool, nan) = (layer("max_pool", "{ kernel = 2, stride = 1 }"), f32::NAN);
    let driver = emulated();
    for driver in [None, Some(&driver)] {
        // The windows that hold the NaN are the first two of three; as in PyTorch, the last of several NaN counts.
        let got = pooled(&*pool, &[1.0, nan, 3.0, 9.0, 2.0, 8.0, 5.0, 7.0], [2, 4], driver);
        assert!(got.y[0].is_nan() && got.y[1].is_nan() && got.y[2] == 9.0, "{:?}", got.y);
        assert_eq!(got.dx, [0.0, 3.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0]);
        let got = pooled(&*pool, &[nan, 1.0, nan, 5.0], [2, 2], driver);
        assert!(got.y[0].is_nan());
        assert_eq!(got.dx, [0.0, 0.0, 1.0, 0.0]);
    }
}

#[test]
fn max_pool_finds_the_gradient_in_windows_of_any_size_in_bf16() {
    let driver = emulated();
    // Positions beyond 255 are not exact as numbers in bf16, and those beyond 32639 take its sign.
    for (kernel, best) in
        [([20, 20], 300), ([17, 16], 271), ([180, 190], 32_639), ([180, 190], 32_640), ([255, 256], 65_279)]
    {
        let [h, w] = kernel;
        let pool = layer("max_pool", &format!("{{ kernel = [{h}, {w}] }}"));
        let setup = Setup { products: MatmulPrecision::Bf16, ..Setup::of_rows(1) };
        let mut single = SingleLayer::<f32>::new(&*pool, &[Activation::new(h, w, 1)], &setup).unwrap().on(&driver);
        single.values_mut(Role::X(0))[best] = 1.0;
        single.values_mut(Role::Dy).fill(5.0);
        single.forward().unwrap();
        single.backward().unwrap();
        assert_eq!(single.values(Role::Y), [1.0]);
        let dx: Vec<(usize, f32)> =
            single.values(Role::Dx(0)).iter().copied().enumerate().filter(|d| d.1 != 0.0).collect();
        assert_eq!(dx, [(best, 5.0)], "{kernel:?}");
    }
}
