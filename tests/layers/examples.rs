//! The suite that every layer passes: gradients against finite differences, fast implementations against plain ones,
//! any number of threads, exact second derivatives, and every split on every small mesh.

use peristyle::cpu::{Implementation, Scalar};
use peristyle::device::{Epilogue, Random, RandomStream};
use peristyle::diagnose::selftest::{Case, Difference, HALF, ReluPass, SINGLE, is_loss, worst};
use peristyle::gpu::{Driver, EmulatorSettings, ThreadOrder};
use peristyle::layers::{Mode, Role, Setup, SingleLayer, Split};
use peristyle::tensor::{Dim, Dual, MatmulPrecision, Mesh, Placement, Real};

fn single<'a, T: Scalar>(case: &'a Case, setup: &Setup) -> SingleLayer<'a, T> {
    case.single(setup).unwrap_or_else(|fault| panic!("{}: {}", case.name, fault.message))
}

/// Returns the roles that derivatives are taken with respect to, and the roles of those derivatives.
fn sources<T: Scalar>(single: &SingleLayer<T>) -> Vec<(Role, Role)> {
    let pair = |role| match role {
        Role::X(i) => Some((role, Role::Dx(i))),
        Role::Param(i) => Some((role, Role::DParam(i))),
        _ => None,
    };
    single.roles().into_iter().filter_map(pair).collect()
}

/// Returns the scalar whose gradient backward computes: the loss, or the output times its given gradient.
fn objective(single: &mut SingleLayer<f64>) -> f64 {
    single.forward().unwrap();
    if is_loss(single) {
        return single.values(Role::Metrics)[0];
    }
    single.values(Role::Y).iter().zip(single.values(Role::Dy)).map(|(y, r)| y * r).sum()
}

/// Runs a case on the CPU and returns its outputs and gradients.
fn run<T: Scalar>(case: &Case, setup: &Setup) -> Vec<(Role, Vec<T>)> {
    case.run(setup, None).unwrap_or_else(|error| panic!("{}: {error}", case.name))
}

/// Asserts |a - b| <= tolerance times the largest |b|, or times 1 where all are smaller.
fn assert_near<A: Real, B: Real>(a: &[A], b: &[B], tolerance: f64, what: impl Fn() -> String) {
    let Difference { index, got, expected, error } = worst(a, b);
    assert!(error <= tolerance, "{}: element {index} is {got}, expected {expected}", what());
}

/// Central differences with step 1e-5 err by about 1e-10 (truncation) and 1e-11 (rounding) times the scale of the
/// function's derivatives; 1e-6 leaves room for steep functions and none for a wrong formula.
const DIFFERENCE: f64 = 1e-6;
const STEP: f64 = 1e-5;

#[test]
fn gradients_agree_with_differences() {
    for case in Case::examples() {
        for implementation in [Implementation::Fast, Implementation::Reference] {
            let mut single = single::<f64>(&case, &Setup { implementation, ..case.setup() });
            single.forward().unwrap();
            single.backward().unwrap();
            for (source, gradient) in sources(&single) {
                let exact = single.values(gradient).to_vec();
                // At most 60 elements of each tensor, evenly spaced.
                for i in (0..exact.len()).step_by(exact.len().div_ceil(60)) {
                    let x = single.values(source)[i];
                    let mut at = |x| {
                        single.values_mut(source)[i] = x;
                        objective(&mut single)
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
    for case in Case::examples() {
        let direction = |role_index: usize, i: usize| {
            let random = Random::new(9, RandomStream::Probe, 0, role_index as u64);
            random.normal(i as u64)
        };
        let mut dual = single::<Dual>(&case, &case.setup());
        for (s, (source, _)) in sources(&dual).into_iter().enumerate() {
            dual.values_mut(source).iter_mut().enumerate().for_each(|(i, v)| v.eps = direction(s, i));
        }
        dual.forward().unwrap();
        dual.backward().unwrap();
        let moved = |by: f64| {
            let mut single = single::<f64>(&case, &case.setup());
            for (s, (source, _)) in sources(&single).into_iter().enumerate() {
                single.values_mut(source).iter_mut().enumerate().for_each(|(i, v)| *v += by * direction(s, i));
            }
            single.forward().unwrap();
            single.backward().unwrap();
            single
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

#[test]
fn the_fast_path_in_f32_agrees_with_the_plain_path_in_f64() {
    for case in Case::examples().into_iter().chain(Case::large()) {
        let fast = run::<f32>(&case, &case.setup());
        let plain = run::<f64>(&case, &Setup { implementation: Implementation::Reference, ..case.setup() });
        for ((role, fast), (_, plain)) in fast.iter().zip(&plain) {
            assert_near(fast, plain, SINGLE, || format!("{}: {role:?}", case.name));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for case in Case::examples().into_iter().chain(Case::large()) {
        let one = run::<f32>(&case, &case.setup());
        for threads in [2, 3] {
            let more = run::<f32>(&case, &Setup { threads, ..case.setup() });
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
    let places = [Placement::Replicate, Placement::Shard(Dim::BATCH), Placement::Shard(Dim::CHANNELS)];
    for case in Case::examples() {
        let one = run::<f64>(&case, &case.setup());
        let splits = case.layer.splits().iter().map(|&split| (Some(split), Placement::Replicate));
        for (split, incoming) in splits.chain(places.map(|place| (None, place))) {
            let mut accepted = 0;
            for mesh in meshes {
                for implementation in [Implementation::Fast, Implementation::Reference] {
                    let setup = Setup { mesh, split, incoming, implementation, ..case.setup() };
                    if SingleLayer::<f64>::new(&*case.layer, &case.inputs, &setup).is_err() {
                        continue;
                    }
                    accepted += 1;
                    let many = run::<f64>(&case, &setup);
                    for ((role, many), (_, one)) in many.iter().zip(&one) {
                        // Sums of a few hundred f64 terms in a different order.
                        let what = || format!("{}: {role:?} on {mesh}, {split:?}, from {incoming:?}", case.name);
                        assert_near(many, one, 1e-12, what);
                    }
                }
            }
            let refused = split == Some(Split::Rows) && case.name.contains("groups");
            assert!(accepted > 0 || refused, "{}: {split:?} is rejected on every mesh", case.name);
        }
    }
}

#[test]
fn layers_run_without_the_gradient_of_their_input() {
    for case in Case::examples() {
        let setup = case.setup();
        let all = run::<f64>(&case, &setup);
        let some = run::<f64>(&case, &Setup { requires_dx: false, ..setup });
        for ((role, all), (_, some)) in all.iter().zip(&some) {
            assert!(matches!(role, Role::Dx(_)) || all == some, "{}: {role:?}", case.name);
        }
    }
}

#[test]
fn evaluation_saves_nothing_and_runs_on_any_mesh() {
    for case in Case::examples() {
        let outputs = [Mesh::ONE, Mesh { data: 2, columns: 1 }, Mesh { data: 1, columns: 2 }].map(|mesh| {
            let mut single = single::<f64>(&case, &Setup { mesh, mode: Mode::Eval, ..case.setup() });
            // Evaluation keeps nothing for a backward pass; a weight may follow from others.
            let normalized = single.phases().forward.iter().any(|phase| phase.name == "normalize");
            assert!(single.phases().saved.len() == if normalized { 2 } else { 0 }, "{}", case.name);
            single.forward().unwrap();
            single.values(if is_loss(&single) { Role::Metrics } else { Role::Y }).to_vec()
        });
        for other in &outputs[1..] {
            assert_near(other, &outputs[0], 1e-12, || case.name.clone());
        }
    }
}

/// Returns an emulated device whose blocks are shared by `threads` threads.
fn emulated(order: ThreadOrder, threads: usize) -> Driver {
    Driver::emulated(EmulatorSettings { threads, order })
        .unwrap_or_else(|e| panic!("these tests need a C++ compiler: {e}"))
}

/// Runs a case through [`Layer::launch`] on an emulated device.
fn launched(case: &Case, setup: &Setup, driver: &Driver) -> Vec<(Role, Vec<f32>)> {
    case.run(setup, Some(driver)).unwrap_or_else(|error| panic!("{}: {error}", case.name))
}

#[test]
fn kernels_agree_with_the_plain_path_in_f64_in_every_order_of_threads() {
    let orders = [(ThreadOrder::Forward, 2), (ThreadOrder::Reverse, 1), (ThreadOrder::Random(3), 2)];
    for case in Case::examples().into_iter().chain(Case::large()) {
        let plain = run::<f64>(&case, &Setup { implementation: Implementation::Reference, ..case.setup() });
        let mut first: Option<Vec<(Role, Vec<f32>)>> = None;
        for (order, threads) in orders {
            let results = launched(&case, &case.setup(), &emulated(order, threads));
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
    let driver = emulated(ThreadOrder::Forward, 1);
    let meshes = [(2, 1), (1, 2), (2, 2), (1, 3), (5, 1)].map(|(data, columns)| Mesh { data, columns });
    let places = [Placement::Replicate, Placement::Shard(Dim::BATCH), Placement::Shard(Dim::CHANNELS)];
    for case in Case::examples() {
        let one = run::<f64>(&case, &case.setup());
        let splits = case.layer.splits().iter().map(|&split| (Some(split), Placement::Replicate));
        for (split, incoming) in splits.chain(places.map(|place| (None, place))) {
            for mesh in meshes {
                let setup = Setup { mesh, split, incoming, ..case.setup() };
                if SingleLayer::<f32>::new(&*case.layer, &case.inputs, &setup).is_err() {
                    continue;
                }
                for ((role, many), (_, one)) in launched(&case, &setup, &driver).iter().zip(&one) {
                    let what = || format!("{}: {role:?} launched on {mesh}, {split:?}, from {incoming:?}", case.name);
                    assert_near(many, one, SINGLE, what);
                }
            }
        }
    }
}

#[test]
fn kernels_run_without_the_gradient_of_their_input_and_in_evaluation() {
    let driver = emulated(ThreadOrder::Forward, 1);
    for case in Case::examples() {
        let all = launched(&case, &case.setup(), &driver);
        let some = launched(&case, &Setup { requires_dx: false, ..case.setup() }, &driver);
        for ((role, all), (_, some)) in all.iter().zip(&some) {
            assert!(matches!(role, Role::Dx(_)) || all == some, "{}: {role:?}", case.name);
        }
        let setup = Setup { mode: Mode::Eval, ..case.setup() };
        let plain = run::<f64>(&case, &setup);
        for ((role, launched), (_, plain)) in launched(&case, &setup, &driver).iter().zip(&plain) {
            assert_near(launched, plain, SINGLE, || format!("{}: {role:?} in evaluation", case.name));
        }
    }
}

#[test]
fn layers_apply_the_relu_after_them_in_every_format() {
    let driver = emulated(ThreadOrder::Forward, 1);
    let mut found = std::collections::BTreeSet::new();
    let accepts = |case: &Case, mode| {
        let single = single::<f32>(case, &Setup { mode, ..case.setup() });
        single.phases().forward.iter().any(|phase| phase.epilogues.contains(&Epilogue::Relu))
    };
    for case in Case::examples().into_iter().filter(|case| accepts(case, Mode::Train)) {
        assert!(accepts(&case, Mode::Eval), "{}", case.name);
        let train = [MatmulPrecision::Full, MatmulPrecision::Bf16, MatmulPrecision::Tf32]
            .map(|products| (Mode::Train, products));
        for (mode, products) in train.into_iter().chain([(Mode::Eval, MatmulPrecision::Full)]) {
            let output = |epilogue| {
                let setup = Setup { epilogue, products, mode, ..case.setup() };
                let mut single = single::<f32>(&case, &setup).on(&driver);
                single.forward().unwrap();
                single.values(Role::Y).to_vec()
            };
            let (before, after) = (output(None), output(Some(Epilogue::Relu)));
            let wanted: Vec<f32> = before.iter().map(|&y| if y > 0.0 { y } else { 0.0 }).collect();
            assert_eq!(after, wanted, "{}: {products:?}, {mode:?}", case.name);
            assert_ne!(before, after, "{}: relu has no effect", case.name);
            found.insert(case.layer.key());
        }
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["add", "batch_norm", "conv", "dense", "locally_connected"]);
}

/// A phase that takes in the backward pass of a relu has the bits of one beside that pass.
#[test]
fn layers_take_in_the_backward_pass_of_a_relu_in_every_format() {
    let driver = emulated(ThreadOrder::Forward, 1);
    let mut found = std::collections::BTreeSet::new();
    for case in Case::examples().into_iter().chain(Case::large()) {
        for products in [MatmulPrecision::Full, MatmulPrecision::Bf16, MatmulPrecision::Tf32] {
            let setup = Setup { products, ..case.setup() };
            let run = |pass| case.run_with_relu(&setup, &driver, pass).unwrap();
            let Some(inside) = run(ReluPass::Inside) else { continue };
            assert_eq!(Some(&inside), run(ReluPass::Beside).as_ref(), "{} in {products:?}", case.name);
            let plain = case.run::<f32>(&setup, Some(&driver)).unwrap();
            let dx = |all: &[(Role, Vec<f32>)]| all.iter().find(|(role, _)| *role == Role::Dx(0)).unwrap().1.clone();
            // Values that are not above 0 are never drawn.
            if case.layer.key() != "stochastic_pool" {
                assert_ne!(dx(&inside), dx(&plain), "{}: the relu has no effect", case.name);
            }
            found.insert(case.layer.key());
        }
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["batch_norm", "lrn", "max_pool", "stochastic_pool"]);
}

#[test]
fn kernels_in_bf16_agree_with_the_plain_path_in_f64_under_every_split() {
    let driver = emulated(ThreadOrder::Forward, 1);
    let meshes = [(1, 1), (2, 1), (1, 2), (2, 2)].map(|(data, columns)| Mesh { data, columns });
    let small = Case::examples().len();
    for (number, case) in Case::examples().into_iter().chain(Case::large()).enumerate() {
        let plain = run::<f64>(
            &case,
            &Setup { implementation: Implementation::Reference, products: MatmulPrecision::Bf16, ..case.setup() },
        );
        let splits = case.layer.splits().iter().map(|&split| Some(split)).chain([None]);
        for (split, mesh) in splits.flat_map(|split| meshes.map(|mesh| (split, mesh))) {
            let setup = Setup { mesh, split, products: MatmulPrecision::Bf16, ..case.setup() };
            let fits = SingleLayer::<f32>::new(&*case.layer, &case.inputs, &setup).is_ok();
            if !fits || (number >= small && (mesh != Mesh::ONE || split.is_some())) {
                continue;
            }
            let launched = launched(&case, &setup, &driver);
            for ((role, launched), (_, plain)) in launched.iter().zip(&plain) {
                let low_precision = matches!(role, Role::Y | Role::Dx(_));
                let what = || format!("{}: {role:?} in bf16 on {mesh}, {split:?}", case.name);
                assert_near(launched, plain, if low_precision { HALF } else { SINGLE }, what);
                let rounded = launched.iter().all(|&v| v == half::bf16::from_f32(v).to_f32());
                assert!(rounded || !low_precision || mesh != Mesh::ONE, "{} is not rounded to bf16", what());
            }
        }
    }
}
