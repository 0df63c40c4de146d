//! The suite that every layer passes: gradients against differences, fast against plain, any number of threads,
//! exact second derivatives, every split on every small mesh.

use peristyle::device::driver::{Driver, Order, Settings};
use peristyle::device::{Path, Purpose, Random, Scalar};
use peristyle::layers::{self, Activation, Alone, Layer, Mode, Role, Setting, Split};
use peristyle::tensor::{Dual, Mesh, Place, Products, Real};

/// A layer with inputs and a number of samples.
struct Case {
    layer: Box<dyn Layer>,
    inputs: Vec<Activation>,
    rows: usize,
    name: String,
}

impl Case {
    fn new(layer: Box<dyn Layer>, inputs: Vec<Activation>, rows: usize) -> Self {
        let name = format!("{layer:?} on {} x {rows}", inputs[0]);
        Case { layer, inputs, rows, name }
    }

    fn setting(&self) -> Setting {
        Setting::of_rows(self.rows)
    }

    fn alone<T: Scalar>(&self, setting: &Setting) -> Alone<'_, T> {
        let mut alone = Alone::new(&*self.layer, &self.inputs, setting).unwrap();
        fill(&mut alone);
        alone
    }
}

fn examples() -> Vec<Case> {
    layers::all_examples().into_iter().map(|(layer, inputs)| Case::new(layer, inputs, 3)).collect()
}

/// Cases with many tiles, blocks and tasks.
fn large() -> Vec<Case> {
    let case = |kind: &str, settings: &str, [h, w, c]: [usize; 3], rows| {
        let settings = toml::de::ValueDeserializer::parse(settings).unwrap();
        let layer = layers::read(kind, settings).unwrap().unwrap();
        Case::new(layer, vec![Activation::new(h, w, c)], rows)
    };
    vec![
        case("avg_pool", "{ kernel = 3, stride = 2, ceil = true }", [15, 15, 5], 9),
        case("batch_norm", "{}", [17, 9, 40], 30),
        case("conv", "{ filters = 16, kernel = 3, pad = 1 }", [20, 20, 8], 19),
        case("conv", "{ filters = 24, kernel = 1 }", [20, 20, 12], 19),
        case("conv", "{ filters = 12, kernel = 5, pad = 2, stride = 2, groups = 3, bias = false }", [13, 17, 6], 18),
        case("conv", "{ filters = 600, kernel = [3, 2], pad = 1 }", [5, 4, 200], 4),
        case("conv", "{ filters = 20, kernel = 5 }", [28, 28, 1], 17),
        case("conv", "{ filters = 8, kernel = 5, pad = 2, groups = 2 }", [9, 9, 96], 5),
        case("dense", "{ units = 300 }", [3, 3, 40], 200),
        case("dropout", "{ rate = 0.3 }", [7, 9, 31], 40),
        case("lrn", "{ alpha = 0.5 }", [13, 13, 32], 7),
        case("max_pool", "{ kernel = 3, stride = 2 }", [15, 15, 5], 9),
        case("relu", "{}", [20, 20, 20], 9),
        case("tanh", "{}", [20, 20, 20], 9),
    ]
}

/// Fills inputs, parameters and the output's gradient. No two inputs are nearer than 4 / n and none is nearer to 0
/// than 2 / n, so that no maximum and no relu changes its mind within a difference. Values are floats of 32 bits in
/// every precision.
fn fill<T: Scalar>(alone: &mut Alone<T>) {
    let roles = alone.roles();
    for (stream, role) in roles.into_iter().enumerate() {
        let random = Random::new(5, Purpose::Probe, 0, stream as u64);
        let values = alone.values_mut(role);
        let n = values.len();
        let order = random.permutation(n);
        for (i, v) in values.iter_mut().enumerate() {
            *v = T::from_f64(match role {
                Role::X(_) => f64::from(((f64::from(order[i]) + 0.5) * 4.0 / n as f64 - 2.0) as f32),
                Role::Param(_) | Role::Dy => f64::from(random.normal(i as u64) as f32),
                Role::Target => (i % 5) as f64,
                _ => continue,
            });
        }
    }
}

/// The roles that the tests take derivatives for, and the roles of those derivatives.
fn sources<T: Scalar>(alone: &Alone<T>) -> Vec<(Role, Role)> {
    let pair = |role| match role {
        Role::X(i) => Some((role, Role::Dx(i))),
        Role::Param(i) => Some((role, Role::DParam(i))),
        _ => None,
    };
    alone.roles().into_iter().filter_map(pair).collect()
}

fn is_loss<T: Scalar>(alone: &Alone<T>) -> bool {
    alone.lowered().forward.iter().flat_map(|phase| &phase.operands).any(|o| o.role == Role::Metrics)
}

/// The scalar whose gradient backward computes: the loss, or the output times its given gradient.
fn objective(alone: &mut Alone<f64>) -> f64 {
    alone.forward();
    if is_loss(alone) {
        return alone.values(Role::Metrics)[0];
    }
    alone.values(Role::Y).iter().zip(alone.values(Role::Dy)).map(|(y, r)| y * r).sum()
}

/// The outputs and gradients of a layer that has run.
fn results<T: Scalar>(alone: &Alone<T>) -> Vec<(Role, Vec<T>)> {
    let loss = is_loss(alone);
    let kept = |role: &Role| match role {
        Role::Y => !loss,
        Role::Metrics => loss,
        Role::Dx(_) | Role::DParam(_) | Role::State(_) => true,
        _ => false,
    };
    alone.roles().into_iter().filter(kept).map(|role| (role, alone.values(role).to_vec())).collect()
}

fn run<T: Scalar>(case: &Case, setting: &Setting) -> Vec<(Role, Vec<T>)> {
    let mut alone = case.alone::<T>(setting);
    alone.forward();
    alone.backward();
    results(&alone)
}

/// Asserts |a - b| <= tolerance times the largest |b|, or times 1 where all are smaller.
fn assert_near<A: Real, B: Real>(a: &[A], b: &[B], tolerance: f64, what: impl Fn() -> String) {
    let scale = b.iter().fold(1.0, |m: f64, v| m.max(v.to_f64().abs()));
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let (a, b) = (a.to_f64(), b.to_f64());
        assert!((a - b).abs() <= tolerance * scale, "{}: element {i} is {a}, expected {b}", what());
    }
}

/// Central differences with step 1e-5 err by about 1e-10 (truncation) and 1e-11 (rounding) times the scale of the
/// function's derivatives; 1e-6 leaves room for steep functions and none for a wrong formula.
const DIFFERENCE: f64 = 1e-6;
const STEP: f64 = 1e-5;

#[test]
fn gradients_agree_with_differences() {
    for case in examples() {
        for path in [Path::Fast, Path::Plain] {
            let mut alone = case.alone::<f64>(&Setting { path, ..case.setting() });
            alone.forward();
            alone.backward();
            for (source, gradient) in sources(&alone) {
                let exact = alone.values(gradient).to_vec();
                // At most about 60 elements of each, spread over all of it.
                for i in (0..exact.len()).step_by(exact.len().div_ceil(60)) {
                    let x = alone.values(source)[i];
                    let mut at = |x| {
                        alone.values_mut(source)[i] = x;
                        objective(&mut alone)
                    };
                    let near = (at(x + STEP) - at(x - STEP)) / (2.0 * STEP);
                    at(x);
                    let what = || format!("{}: {gradient:?}[{i}]", case.name);
                    assert_near(&exact[i..=i], &[near], DIFFERENCE, what);
                }
            }
        }
    }
}

#[test]
fn duals_carry_exact_second_derivatives() {
    for case in examples() {
        let direction = |role_index: usize, i: usize| {
            let random = Random::new(9, Purpose::Probe, 0, role_index as u64);
            random.normal(i as u64)
        };
        let mut dual = case.alone::<Dual>(&case.setting());
        for (s, (source, _)) in sources(&dual).into_iter().enumerate() {
            dual.values_mut(source).iter_mut().enumerate().for_each(|(i, v)| v.eps = direction(s, i));
        }
        dual.forward();
        dual.backward();
        let moved = |by: f64| {
            let mut alone = case.alone::<f64>(&case.setting());
            for (s, (source, _)) in sources(&alone).into_iter().enumerate() {
                alone.values_mut(source).iter_mut().enumerate().for_each(|(i, v)| *v += by * direction(s, i));
            }
            alone.forward();
            alone.backward();
            alone
        };
        // A smaller step than above: all values move at once, and no maximum may change.
        let step = STEP / 10.0;
        let (after, before) = (moved(step), moved(-step));
        for (_, gradient) in sources(&dual) {
            let exact: Vec<f64> = dual.values(gradient).iter().map(|v| v.eps).collect();
            let pairs = after.values(gradient).iter().zip(before.values(gradient));
            let near: Vec<f64> = pairs.map(|(a, b)| (a - b) / (2.0 * step)).collect();
            assert_near(&exact, &near, DIFFERENCE, || format!("{}: derivative of {gradient:?}", case.name));
        }
    }
}

/// Sums of up to some ten thousand f32 terms of both signs: errors grow like the root of the number of terms times
/// 6e-8, relative to the largest result.
const SINGLE: f64 = 2e-5;

#[test]
fn the_fast_path_in_f32_agrees_with_the_plain_path_in_f64() {
    for case in examples().into_iter().chain(large()) {
        let fast = run::<f32>(&case, &case.setting());
        let plain = run::<f64>(&case, &Setting { path: Path::Plain, ..case.setting() });
        for ((role, fast), (_, plain)) in fast.iter().zip(&plain) {
            assert_near(fast, plain, SINGLE, || format!("{}: {role:?}", case.name));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for case in examples().into_iter().chain(large()) {
        let one = run::<f32>(&case, &case.setting());
        for threads in [2, 3] {
            let more = run::<f32>(&case, &Setting { threads, ..case.setting() });
            for ((role, a), (_, b)) in one.iter().zip(&more) {
                let same = a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{}: {role:?} differs with {threads} threads", case.name);
            }
        }
    }
}

#[test]
fn every_split_on_every_small_mesh_gives_the_same_values() {
    let meshes = [(2, 1), (1, 2), (2, 2), (4, 1), (1, 3), (5, 1)].map(|(data, columns)| Mesh { data, columns });
    let places = [Place::Replicate, Place::Shard(0), Place::Shard(3)];
    for case in examples() {
        let one = run::<f64>(&case, &case.setting());
        let splits = case.layer.splits().iter().map(|&split| (Some(split), Place::Replicate));
        for (split, incoming) in splits.chain(places.map(|place| (None, place))) {
            let mut accepted = 0;
            for mesh in meshes {
                for path in [Path::Fast, Path::Plain] {
                    let setting = Setting { mesh, split, incoming, path, ..case.setting() };
                    if Alone::<f64>::new(&*case.layer, &case.inputs, &setting).is_err() {
                        continue;
                    }
                    accepted += 1;
                    let many = run::<f64>(&case, &setting);
                    for ((role, many), (_, one)) in many.iter().zip(&one) {
                        // Sums of some hundred doubles in another order.
                        let what = || format!("{}: {role:?} on {mesh}, {split:?}, from {incoming:?}", case.name);
                        assert_near(many, one, 1e-12, what);
                    }
                }
            }
            let refused = split == Some(Split::Rows) && case.name.contains("groups");
            assert!(accepted > 0 || refused, "{}: {split:?} is refused everywhere", case.name);
        }
    }
}

#[test]
fn layers_run_without_the_gradient_of_their_input() {
    for case in examples() {
        let setting = case.setting();
        let all = run::<f64>(&case, &setting);
        let some = run::<f64>(&case, &Setting { wants_dx: false, ..setting });
        for ((role, all), (_, some)) in all.iter().zip(&some) {
            assert!(matches!(role, Role::Dx(_)) || all == some, "{}: {role:?}", case.name);
        }
    }
}

#[test]
fn evaluation_keeps_nothing_and_runs_on_any_mesh() {
    for case in examples() {
        let outputs = [Mesh::ONE, Mesh { data: 2, columns: 1 }, Mesh { data: 1, columns: 2 }].map(|mesh| {
            let mut alone = case.alone::<f64>(&Setting { mesh, mode: Mode::Eval, ..case.setting() });
            assert!(alone.lowered().locals.is_empty(), "{}", case.name);
            alone.forward();
            alone.values(if is_loss(&alone) { Role::Metrics } else { Role::Y }).to_vec()
        });
        for other in &outputs[1..] {
            assert_near(other, &outputs[0], 1e-12, || case.name.clone());
        }
    }
}

/// An emulated device whose blocks are shared by `threads` threads.
fn emulated(order: Order, threads: usize) -> Driver {
    Driver::emulated(Settings { threads, order }).unwrap_or_else(|e| panic!("these tests need a C++ compiler: {e}"))
}

/// Runs a case through [`Layer::launch`] on an emulated device.
fn launched(case: &Case, setting: &Setting, driver: &Driver) -> Vec<(Role, Vec<f32>)> {
    let mut alone = case.alone::<f32>(setting).on(driver);
    alone.forward();
    if setting.mode == Mode::Train {
        alone.backward();
    }
    results(&alone)
}

#[test]
fn kernels_agree_with_the_plain_path_in_f64_in_every_order_of_threads() {
    let orders = [(Order::Forward, 2), (Order::Reverse, 1), (Order::Random(3), 2)];
    for case in examples().into_iter().chain(large()) {
        let plain = run::<f64>(&case, &Setting { path: Path::Plain, ..case.setting() });
        let mut first: Option<Vec<(Role, Vec<f32>)>> = None;
        for (order, threads) in orders {
            let results = launched(&case, &case.setting(), &emulated(order, threads));
            for ((role, launched), (_, plain)) in results.iter().zip(&plain) {
                assert_near(launched, plain, SINGLE, || format!("{}: {role:?} launched, {order:?}", case.name));
            }
            let bits = |r: &[(Role, Vec<f32>)]| -> Vec<u32> {
                r.iter().flat_map(|(_, values)| values.iter().map(|v| v.to_bits())).collect()
            };
            let first = first.get_or_insert_with(|| results.clone());
            assert_eq!(bits(first), bits(&results), "{}: {order:?}", case.name);
        }
    }
}

#[test]
fn kernels_give_the_same_values_under_every_split() {
    let driver = emulated(Order::Forward, 1);
    let meshes = [(2, 1), (1, 2), (2, 2), (1, 3), (5, 1)].map(|(data, columns)| Mesh { data, columns });
    let places = [Place::Replicate, Place::Shard(0), Place::Shard(3)];
    for case in examples() {
        let one = run::<f64>(&case, &case.setting());
        let splits = case.layer.splits().iter().map(|&split| (Some(split), Place::Replicate));
        for (split, incoming) in splits.chain(places.map(|place| (None, place))) {
            for mesh in meshes {
                let setting = Setting { mesh, split, incoming, ..case.setting() };
                if Alone::<f32>::new(&*case.layer, &case.inputs, &setting).is_err() {
                    continue;
                }
                for ((role, many), (_, one)) in launched(&case, &setting, &driver).iter().zip(&one) {
                    let what = || format!("{}: {role:?} launched on {mesh}, {split:?}, from {incoming:?}", case.name);
                    assert_near(many, one, SINGLE, what);
                }
            }
        }
    }
}

#[test]
fn kernels_run_without_the_gradient_of_their_input_and_in_evaluation() {
    let driver = emulated(Order::Forward, 1);
    for case in examples() {
        let all = launched(&case, &case.setting(), &driver);
        let some = launched(&case, &Setting { wants_dx: false, ..case.setting() }, &driver);
        for ((role, all), (_, some)) in all.iter().zip(&some) {
            assert!(matches!(role, Role::Dx(_)) || all == some, "{}: {role:?}", case.name);
        }
        let setting = Setting { mode: Mode::Eval, ..case.setting() };
        let mut plain = case.alone::<f64>(&setting);
        plain.forward();
        for ((role, launched), (_, plain)) in launched(&case, &setting, &driver).iter().zip(&results(&plain)) {
            if matches!(role, Role::Y | Role::Metrics) {
                assert_near(launched, plain, SINGLE, || format!("{}: {role:?} in evaluation", case.name));
            }
        }
    }
}

#[test]
fn layers_apply_the_relu_after_them_in_every_format() {
    let driver = emulated(Order::Forward, 1);
    let mut found = std::collections::BTreeSet::new();
    for case in examples().into_iter().filter(|case| case.layer.takes_relu()) {
        let train = [Products::Full, Products::Bf16, Products::Tf32].map(|products| (Mode::Train, products));
        for (mode, products) in train.into_iter().chain([(Mode::Eval, Products::Full)]) {
            let output = |relu| {
                let setting = Setting { relu, products, mode, ..case.setting() };
                let mut alone = case.alone::<f32>(&setting).on(&driver);
                alone.forward();
                alone.values(Role::Y).to_vec()
            };
            let (before, after) = (output(false), output(true));
            let wanted: Vec<f32> = before.iter().map(|&y| if y > 0.0 { y } else { 0.0 }).collect();
            assert_eq!(after, wanted, "{}: {products:?}, {mode:?}", case.name);
            assert_ne!(before, after, "{}: relu does something", case.name);
            found.insert(case.layer.kind());
        }
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["add", "batch_norm", "conv", "dense"]);
}

/// Rounding to bf16 errs by at most 2^-9 of a value; lrn keeps a sum rounded so too, whose error comes on top.
const HALF: f64 = 1.0 / 256.0;

/// A case whose numbers bf16 holds, run through `f`.
fn run_rounded<T: Scalar>(mut alone: Alone<T>) -> Vec<(Role, Vec<T>)> {
    for role in alone.roles() {
        if matches!(role, Role::X(_) | Role::Param(_) | Role::Dy) {
            let round = |v: &mut T| *v = T::from_f64(f64::from(half::bf16::from_f64(v.to_f64()).to_f32()));
            alone.values_mut(role).iter_mut().for_each(round);
        }
    }
    alone.forward();
    alone.backward();
    results(&alone)
}

#[test]
fn kernels_in_bf16_agree_with_the_plain_path_in_f64_under_every_split() {
    let driver = emulated(Order::Forward, 1);
    let meshes = [(1, 1), (2, 1), (1, 2), (2, 2)].map(|(data, columns)| Mesh { data, columns });
    let small = examples().len();
    for (number, case) in examples().into_iter().chain(large()).enumerate() {
        let plain = run_rounded(case.alone::<f64>(&Setting { path: Path::Plain, ..case.setting() }));
        let splits = case.layer.splits().iter().map(|&split| Some(split)).chain([None]);
        for (split, mesh) in splits.flat_map(|split| meshes.map(|mesh| (split, mesh))) {
            let setting = Setting { mesh, split, products: Products::Bf16, ..case.setting() };
            let fits = Alone::<f32>::new(&*case.layer, &case.inputs, &setting).is_ok();
            if !fits || (number >= small && (mesh != Mesh::ONE || split.is_some())) {
                continue;
            }
            let launched = run_rounded(case.alone::<f32>(&setting).on(&driver));
            for ((role, launched), (_, plain)) in launched.iter().zip(&plain) {
                let narrow = matches!(role, Role::Y | Role::Dx(_));
                let what = || format!("{}: {role:?} in bf16 on {mesh}, {split:?}", case.name);
                assert_near(launched, plain, if narrow { HALF } else { SINGLE }, what);
                let rounded = launched.iter().all(|&v| v == half::bf16::from_f32(v).to_f32());
                assert!(rounded || !narrow || mesh != Mesh::ONE, "{} is kept in bf16", what());
            }
        }
    }
}
