//! NVIDIA's libraries on machines without them: stand-ins for cuBLASLt and cuDNN work on the stand-in driver's streams
//! and end the process if a call breaks the contract of the real libraries.

use super::common::runs::{Folder, losses, output_of, peristyle};
use super::fake_driver;
use peristyle::gpu::libraries::CONVOLUTION_WORKSPACE;
use peristyle::train::{DataPolicy, Job};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

pub(super) const LT: &str = "libcublasLt";
pub(super) const DNN: &str = "libcudnn";

/// Compiles the stand-ins once, each into a separate folder.
fn folders() -> &'static [PathBuf; 2] {
    static FOLDERS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let make = |(name, version): (&str, &str)| {
        let Some(cxx) = option_env!("PERISTYLE_BUILT_WITH_CXX") else {
            panic!("these tests need a C++ compiler");
        };
        let folder = super::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fake-{name}"));
        std::fs::create_dir_all(&folder).expect("the target folder is writable");
        let done = Command::new(cxx)
            .args(["-std=c++20", "-O2", "-fPIC", "-shared", "-w", "-o"])
            .arg(folder.join(format!("{name}.so.{version}")))
            .arg(super::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/gpu/{name}.cpp")))
            .arg("-ldl")
            .output()
            .expect("the compiler starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        folder
    };
    FOLDERS.get_or_init(|| [(LT, "13"), (DNN, "9")].map(make))
}

/// Returns an environment in which the stand-in driver and the given libraries are found.
pub(super) fn environment(libraries: &[&str]) -> Vec<(&'static str, OsString)> {
    let driver = fake_driver();
    let [lt, dnn] = folders();
    let there = [(LT, lt), (DNN, dnn)].into_iter().filter(|(name, _)| libraries.contains(name));
    let found = std::env::join_paths(there.map(|(_, folder)| folder.clone()).chain([driver.to_path_buf()]));
    vec![
        ("LD_LIBRARY_PATH", driver.into()),
        ("FAKE_CUDA_NAME", "fake GPU".into()),
        ("FAKE_CUDA_KERNELS", driver.join("kernels.so").into()),
        ("FAKE_CUDA_ENTRIES", driver.join("entries").into()),
        ("PERISTYLE_LIBRARIES", found.expect("the target folder has no colon in its name")),
    ]
}

/// Runs a test of `with_libraries` in a separate process.
fn run(test: &str, libraries: &[&str], settings: &[(&str, &str)]) {
    let done = Command::new(std::env::current_exe().expect("a test runs from a file"))
        .args(["--exact", "--ignored", "--nocapture", &format!("libraries::with_libraries::{test}")])
        .envs(environment(libraries))
        .envs(settings.iter().copied())
        .output()
        .expect("the test starts");
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn layers_give_the_values_of_the_plain_path() {
    run("layers", &[LT, DNN], &[]);
    run("layers", &[LT, DNN], &[("USED", "fast")]);
    run("layers", &[LT, DNN], &[("FAKE_LT_ORDER", "backwards"), ("FAKE_CUDNN_ORDER", "backwards")]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn operands_are_rounded_to_the_requested_type() {
    run("precisions", &[LT, DNN], &[]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn networks_learn_as_with_our_kernels_and_a_graph_changes_no_bit() {
    run("trains", &[LT, DNN], &[("WANTED", "both")]);
    run("trains", &[LT], &[("WANTED", "products")]);
    run("trains", &[DNN], &[("WANTED", "convolutions")]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn our_kernels_compute_if_libraries_are_missing_fail_or_decline() {
    run("is_off", &[], &[]);
    run("is_off", &[LT, DNN], &[("FAKE_LT_FAILS", "create"), ("FAKE_CUDNN_FAILS", "create")]);
    run("is_off", &[LT, DNN], &[("FAKE_LT_FAILS", "refuses"), ("FAKE_CUDNN_FAILS", "refuses")]);
    // GPUs of two models, each with the libraries.
    run("is_off", &[LT, DNN], &[("FAKE_CUDA_NAME", "fake model %d")]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_failure_of_a_library_is_reported_with_the_layer() {
    let product = "\"fc6.forward with relu6\": cuda:0 cannot compute output ";
    run("fails", &[LT, DNN], &[("FAKE_LT_FAILS", "matmul"), ("WANTED", product)]);
    let convolution = "\"conv1.forward with relu1\": cuda:0 cannot compute forward ";
    run("fails", &[LT, DNN], &[("FAKE_CUDNN_FAILS", "convolution"), ("WANTED", convolution)]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_resumed_run_keeps_its_algorithms_and_its_bits() {
    let folder = Folder::new("libraries-resume");
    let other = [("FAKE_LT_ORDER", "backwards"), ("FAKE_CUDNN_ORDER", "backwards")];
    let train = |dir: &str, steps: &str, settings: &[(&str, &str)], resume: bool| {
        let steps = format!("train.steps={steps}");
        let mut command = peristyle(&folder.0);
        command.args(["train", "small.toml", "--run-dir", dir, "--set", "devices.use=\"cuda:0\"", "--set", &steps]);
        command.args(["--set", "train.evaluate=\"never\""]);
        command.args(resume.then_some("--resume")).envs(environment(&[LT, DNN])).envs(settings.iter().copied());
        let output = output_of(&mut command);
        assert_eq!(output.code, Some(0), "{}", output.err);
        output.err
    };
    train("whole", "9", &[], false);
    train("resumed", "7", &[], false);
    train("resumed", "9", &other, true);
    train("other", "9", &other, false);
    let bits = |dir: &str| folder.checkpoint(dir, 9);
    assert!(bits("resumed") == bits("whole"), "the resumed run chose other algorithms");
    assert!(bits("other") != bits("whole"), "the algorithms of the stand-ins give the same bits");
    assert_eq!(losses(&folder.metrics("resumed")), losses(&folder.metrics("whole")));

    train("newer", "7", &[], false);
    let log = train("newer", "9", &[other[0], ("FAKE_LT_VERSION", "130200")], true);
    let note = "the checkpoint's algorithms are for cuBLASLt 130100 on fake GPU, not for cuBLASLt 130200 on fake \
                GPU: they are chosen again";
    assert!(log.contains(note), "{log}");
    assert!(bits("newer") != bits("whole"), "another version reused the algorithms");
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn wheels_are_found_beside_the_first_python() {
    let folder = Folder::new("libraries-wheels");
    let wheel = folder.at("venv/lib/python3.12/site-packages/nvidia/cudnn/lib");
    std::fs::create_dir_all(&wheel).unwrap();
    std::fs::copy(folders()[1].join("libcudnn.so.9"), wheel.join("libcudnn.so.9")).unwrap();
    folder.write("venv/pyvenv.cfg", "");
    std::fs::create_dir(folder.at("venv/bin")).unwrap();
    folder.write("venv/bin/python3", "");
    let devices = |name: &str, value: &str| {
        let mut command = peristyle(&folder.0);
        command.envs(environment(&[])).env_remove("PERISTYLE_LIBRARIES").env_remove("VIRTUAL_ENV");
        output_of(command.arg("devices").env(name, folder.at(value))).out
    };
    let found = "/venv/lib/python3.12/site-packages/nvidia/cudnn/lib/libcudnn.so.9\n";
    for (name, value) in [("PATH", "venv/bin"), ("VIRTUAL_ENV", "venv")] {
        assert!(devices(name, value).contains(found), "{name}: {}", devices(name, value));
    }
    assert!(!devices("PATH", "venv").contains(found));
}

#[test]
fn a_plan_includes_the_workspace_without_a_gpu() {
    let usage = |libraries: &str| {
        let sets = ["devices.use=\"cuda:0\"".to_string(), format!("devices.libraries=\"{libraries}\"")];
        let config = super::common::file("configs/columns_small.toml");
        let (_, plan) = Job::open(&config, &sets, DataPolicy::Optional).unwrap_or_else(|e| panic!("{e}"));
        plan.usage(0)
    };
    let (off, auto) = (usage("off"), usage("auto"));
    assert!(auto.arena >= CONVOLUTION_WORKSPACE && off.arena < CONVOLUTION_WORKSPACE, "{auto:?} {off:?}");
    // Bytes that the workspace shares with activations count as activations.
    assert!(auto.workspace > CONVOLUTION_WORKSPACE / 2 && off.workspace == 0, "{auto:?} {off:?}");
    // No two phases of a device run at the same time, so there is one workspace.
    assert!(auto.arena <= off.arena + CONVOLUTION_WORKSPACE + 1024, "{auto:?} {off:?}");
}

/// The tests that run in the other process.
mod with_libraries {
    use crate::common::Training;
    use half::bf16;
    use peristyle::Result;
    use peristyle::cpu::Implementation;
    use peristyle::device::{Clock, LibraryUse, Random, RandomStream};
    use peristyle::gpu::libraries::*;
    use peristyle::gpu::{ComputeType, Driver, DriverKind, Stream};
    use peristyle::layers::{self, Activation, Layer, Role, Setup, SingleLayer};
    use peristyle::placement::Variant;
    use peristyle::tensor::{MatmulPrecision, Mesh, Real};
    use std::sync::Arc;

    /// As in tests/layers/examples.rs: sums of f32 terms of both signs, relative to the largest result.
    const SINGLE: f64 = 2e-5;

    fn values(n: usize, stream: u64) -> Vec<f32> {
        let random = Random::new(5, RandomStream::Probe, 0, stream);
        (0..n as u64).map(|i| random.normal(i) as f32).collect()
    }

    fn filled<'a, T: peristyle::cpu::Scalar>(
        (layer, inputs): &'a (Box<dyn Layer>, Vec<Activation>),
        setup: &Setup,
    ) -> Option<SingleLayer<'a, T>> {
        let mut single = SingleLayer::<T>::new(&**layer, inputs, setup).ok()?;
        for (stream, role) in single.roles().into_iter().enumerate() {
            if matches!(role, Role::X(_) | Role::Param(_) | Role::Dy) {
                let given = values(single.values(role).len(), stream as u64);
                let to = single.values_mut(role);
                let given = if setup.products == MatmulPrecision::Full { given } else { rounded(&given) };
                to.iter_mut().zip(given).for_each(|(to, v)| *to = T::from_f64(f64::from(v)));
            }
        }
        Some(single)
    }

    fn cases() -> Vec<(Box<dyn Layer>, Vec<Activation>)> {
        let case = |kind: &str, settings: &str, [h, w, c]: [usize; 3]| {
            let settings = toml::de::ValueDeserializer::parse(settings).unwrap();
            (layers::read(kind, settings).unwrap().unwrap(), vec![Activation::new(h, w, c)])
        };
        let examples = layers::all_examples().into_iter().filter(|(layer, _)| ["conv", "dense"].contains(&layer.key()));
        let large = [
            case("conv", "{ filters = 16, kernel = 3, pad = 1 }", [20, 20, 8]),
            case("conv", "{ filters = 12, kernel = [5, 4], pad = [2, 1], stride = [2, 1], groups = 3 }", [13, 17, 6]),
            // In bf16, with strides folded into channels.
            case("conv", "{ filters = 96, kernel = 11, stride = 4, pad = 2 }", [43, 45, 3]),
            case("dense", "{ units = 300 }", [3, 3, 40]),
            case("dense", "{ units = 7, bias = false }", [1, 1, 33]),
        ];
        examples.chain(large).collect()
    }

    fn is_own((_, algorithm): &(&String, &Algorithm)) -> bool {
        **algorithm == Algorithm::Own
    }

    /// Returns true if our kernel is used although it is slower: not for large groups.
    fn is_lost(one: &(&String, &Algorithm)) -> bool {
        is_own(one) && one.0.contains("groups 1 ")
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn layers() -> Result<()> {
        let (choices, driver) = (Arc::new(Choices::default()), Driver::open(DriverKind::Cuda, 0, 1)?);
        let fast = std::env::var_os("USED").is_some();
        driver.use_libraries(if fast { LibraryUse::Fast } else { LibraryUse::Auto }, &choices)?;
        // The factors are exact in bf16, so products are exact in every mode; each rounding of a result to bf16 errs by
        // up to 2^-8 of a value. y of a convolution is rounded twice: the product, and its sum with the bias.
        let modes = [
            (MatmulPrecision::Full, (1, 1), SINGLE),
            (MatmulPrecision::Full, (2, 1), SINGLE),
            (MatmulPrecision::Full, (1, 2), SINGLE),
            (MatmulPrecision::Tf32, (1, 1), SINGLE),
            (MatmulPrecision::Bf16, (1, 1), 1.0 / 256.0),
            (MatmulPrecision::Bf16, (1, 2), 1.0 / 256.0),
        ];
        // A different preference of the heuristics changes the order of the sums in the same way in every mode.
        let counted = if std::env::var_os("FAKE_LT_ORDER").is_some() { 1 } else { modes.len() };
        for (products, (data, columns), tolerance) in modes.into_iter().take(counted) {
            let mesh = Mesh { data, columns };
            for case in cases() {
                let setup = Setup { mesh, products, ..Setup::of_rows(6) };
                let Some(mut launched) = filled::<f32>(&case, &setup) else { continue };
                launched = launched.on(&driver);
                let plain = Setup { implementation: Implementation::Reference, products, ..Setup::of_rows(6) };
                let mut plain = filled::<f64>(&case, &plain).unwrap();
                launched.forward()?;
                launched.backward()?;
                plain.forward()?;
                plain.backward()?;
                for role in [Role::Y, Role::Dx(0), Role::DParam(0), Role::DParam(1)] {
                    if !plain.roles().contains(&role) {
                        continue;
                    }
                    let exact = role == Role::DParam(0) && products == MatmulPrecision::Bf16 && !fast;
                    let tolerance = if exact { SINGLE } else { tolerance };
                    let roundings = if products == MatmulPrecision::Bf16 && role == Role::Y { 2.0 } else { 1.0 };
                    let scale = plain.values(role).iter().fold(1.0, |m: f64, v| m.max(v.abs()));
                    for (i, (a, b)) in launched.values(role).iter().zip(plain.values(role)).enumerate() {
                        let near = (a.to_f64() - b).abs() <= tolerance * roundings * scale;
                        assert!(near, "{:?} in {products:?} on {mesh}: {role:?}[{i}] is {a}, expected {b}", case.0);
                    }
                }
            }
            let is_bf16 = products == MatmulPrecision::Bf16;
            let Record { products, convolutions, .. } = choices.record();
            // The libraries compute every recorded shape; parts of a group go to our kernels and are not recorded.
            assert!(products.algorithms.len() > 10 && !products.algorithms.iter().any(|one| is_own(&one)));
            assert!(convolutions.algorithms.len() > 10 && !convolutions.algorithms.iter().any(|one| is_lost(&one)));
            let rounded = |key: &String| key.starts_with("backward weight") && key.ends_with("bf16");
            assert_eq!(convolutions.algorithms.keys().any(rounded), fast && is_bf16);
        }
        Ok(())
    }

    /// Device memory for one call.
    struct Room<'a>(&'a Driver, Stream);

    impl Room<'_> {
        fn put(&self, values: &[f32], element: ComputeType) -> Result<u64> {
            let bytes: Vec<u8> = match element {
                ComputeType::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
                _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            };
            let at = self.0.allocate(bytes.len())?;
            // SAFETY: just allocated; the wait follows.
            unsafe { self.0.copy_in(at, bytes.as_ptr(), bytes.len(), self.1)? };
            self.0.synchronize(self.1)?;
            Ok(at)
        }
        fn take(&self, at: u64, n: usize, element: ComputeType) -> Result<Vec<f32>> {
            let each = if element == ComputeType::Bf16 { 2 } else { 4 };
            let mut bytes = vec![0u8; n * each];
            // SAFETY: as long as the allocation; the wait follows.
            unsafe { self.0.copy_out(bytes.as_mut_ptr(), at, bytes.len(), self.1)? };
            self.0.synchronize(self.1)?;
            let number = |b: &[u8]| match b {
                [a, b] => bf16::from_le_bytes([*a, *b]).to_f32(),
                b => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            };
            Ok(bytes.chunks_exact(each).map(number).collect())
        }
        fn workspace(&self) -> Result<Workspace> {
            Ok(Workspace { address: self.0.allocate(CONVOLUTION_WORKSPACE)?, bytes: CONVOLUTION_WORKSPACE })
        }
    }

    /// Rounds values to bf16.
    fn rounded(values: &[f32]) -> Vec<f32> {
        values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect()
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn precisions() -> Result<()> {
        let (choices, driver) = (Arc::new(Choices::default()), Driver::open(DriverKind::Cuda, 0, 1)?);
        driver.use_libraries(LibraryUse::Auto, &choices)?;
        let room = Room(&driver, driver.stream()?);
        let work = room.workspace()?;
        let (rows, inputs, outputs) = (24, 40, 16);
        let multiply = |which, samples: &[f32], other: &[f32], n: usize, operands, result| -> Result<Vec<f32>> {
            let product = Product { which, rows, inputs, outputs, operands, result, relu: false };
            let at = Factors {
                samples: room.put(samples, operands)?,
                other: room.put(other, operands)?,
                bias: None,
                result: room.put(&vec![9.0; n], result)?,
            };
            // SAFETY: all operands have the lengths that the product requires.
            assert!(unsafe { driver.multiply(&product, &at, work, room.1) }?);
            room.take(at.result, n, result)
        };
        let (x, w, dy) = (values(rows * inputs, 1), values(outputs * inputs, 2), values(rows * outputs, 3));
        let all = [
            (ProductOf::Output, &x, &w, rows * outputs),
            (ProductOf::Input, &dy, &w, rows * inputs),
            (ProductOf::Weight, &x, &dy, outputs * inputs),
        ];
        for (which, samples, other, n) in all {
            let exact = multiply(which, &rounded(samples), &rounded(other), n, ComputeType::F32, ComputeType::F32)?;
            // The same algorithm adds in the same order, so the results differ only by their rounding.
            assert_eq!(multiply(which, samples, other, n, ComputeType::Bf16, ComputeType::F32)?, exact, "{which:?}");
            assert_eq!(
                multiply(which, samples, other, n, ComputeType::Bf16, ComputeType::Bf16)?,
                rounded(&exact),
                "{which:?}"
            );
            let full = multiply(which, samples, other, n, ComputeType::F32, ComputeType::F32)?;
            let tf32 = multiply(which, samples, other, n, ComputeType::Tf32, ComputeType::F32)?;
            let error = full.iter().zip(&tf32).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Inputs of about 1 keep 11 bits: sums of some tens of terms err by a few 2^-11, and not by zero.
            assert!(error > 1e-4 && error < 3e-2, "{which:?}: {error}");
        }
        let convolve = |direction, [x, w, y]: [&[f32]; 3], element| -> Result<(bool, [Vec<f32>; 3])> {
            let convolution = Convolution {
                direction,
                x: [2, 6, 5, 8],
                y: [2, 3, 5, 4],
                kernel: [3, 3],
                stride: [2, 1],
                pad: [1, 1],
                dilation: [1, 1],
                groups: 2,
                format: element,
            };
            let at = Images { x: room.put(x, element)?, w: room.put(w, element)?, y: room.put(y, element)? };
            // SAFETY: all operands have the lengths that the convolution requires.
            let done = unsafe { driver.convolve(&convolution, &at, work, room.1) }?;
            let take = |at, like: &[f32]| room.take(at, like.len(), element);
            Ok((done, [take(at.x, x)?, take(at.w, w)?, take(at.y, y)?]))
        };
        let [x, w, y] = [values(480, 1), values(4 * 36, 2), values(120, 3)];
        let round = [rounded(&x), rounded(&w), rounded(&y)];
        for (direction, result) in
            [(Direction::Forward, 2), (Direction::BackwardInput, 0), (Direction::BackwardWeight, 1)]
        {
            let (_, exact) = convolve(direction, [&round[0], &round[1], &round[2]], ComputeType::F32)?;
            let (done, half) = convolve(direction, [&x, &w, &y], ComputeType::Bf16)?;
            if direction == Direction::BackwardWeight {
                assert!(!done, "cuDNN would round the gradient of bf16 weights to bf16");
            } else {
                assert_eq!(half[result], rounded(&exact[result]), "{direction:?}");
            }
            let (_, full) = convolve(direction, [&x, &w, &y], ComputeType::F32)?;
            let (_, tf32) = convolve(direction, [&x, &w, &y], ComputeType::Tf32)?;
            let error = full[result].iter().zip(&tf32[result]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error > 1e-4 && error < 3e-2, "{direction:?}: {error}");
        }
        Ok(())
    }

    fn training(libraries: &str) -> Training {
        let sets = [
            "data.batch=7".to_string(),
            "devices.use=\"cuda:0-1\"".to_string(),
            "devices.mesh={ data = 1, columns = 2 }".to_string(),
            format!("devices.libraries=\"{libraries}\""),
        ];
        Training::new("configs/columns_small.toml", &sets)
    }

    /// Returns for each library whether it computes something.
    fn at_work(training: &Training) -> [bool; 2] {
        let Record { products, convolutions, .. } = training.session.choices();
        [products, convolutions].map(|table| table.algorithms.iter().any(|one| !is_own(&one)))
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn trains() {
        let own = training("off").losses(4);
        let mut with = training("auto");
        let got = with.losses(4);
        for (got, own) in got.iter().zip(&own) {
            assert!((got - own).abs() <= 1e-3 * own.abs(), "{got}, expected {own}");
        }
        assert_ne!(got, own, "the stand-ins add in the same order");
        let wanted = match std::env::var("WANTED").as_deref() {
            Ok("both") => [true, true],
            Ok("products") => [true, false],
            _ => [false, true],
        };
        assert_eq!(at_work(&with), wanted);
        // SAFETY: this process has no other thread that reads the environment now.
        unsafe { std::env::set_var("PERISTYLE_NO_GRAPH", "1") };
        assert_eq!(training("auto").losses(4), got);
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn is_off() {
        let mut auto = training("auto");
        assert_eq!(auto.losses(3), training("off").losses(3));
        assert_eq!(at_work(&auto), [false, false]);
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn fails() {
        let mut training = training("auto");
        training.batches.fill(0, 0, &mut training.batch).unwrap();
        let variant = Variant::train(training.batch.rows);
        let clock = Clock { step: 1, epoch: 0, lr: 0.1, row: 0 };
        let error = training.session.run(variant, &mut training.batch, clock).unwrap_err();
        let (text, wanted) = (error.to_string(), std::env::var("WANTED").unwrap_or_default());
        assert!(text.contains(&wanted) && text.contains("reports: "), "{text}");
        assert!(text.contains("set libraries = \"off\" in [devices] to run without it"), "{text}");
    }
}
