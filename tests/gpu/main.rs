//! The code for GPUs on machines without one: a separate process loads tests/gpu/libcuda.cpp as its NVIDIA driver,
//! which runs the emulated device's kernels as late as a GPU may. Each test in this file starts this binary again with
//! that driver, to run those in `on_the_fake_driver`. Without nvcc, they are ignored.

#[path = "../common/mod.rs"]
mod common;
mod libraries;
mod nccl;
mod pods;
mod reports;
mod torchrun;

use common::runs::{CommandOutput, output_of, peristyle};
use peristyle::gpu::kernels::{EMULATOR, ENTRIES, IMAGES};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Compiles the driver once.
fn fake_driver() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let Some(cxx) = option_env!("PERISTYLE_BUILT_WITH_CXX") else {
            panic!("these tests need a C++ compiler");
        };
        assert!(!IMAGES.is_empty(), "these tests need kernels compiled by nvcc");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-cuda");
        std::fs::create_dir_all(&folder).expect("the target folder is writable");
        let done = Command::new(cxx)
            .args(["-std=c++20", "-O1", "-fPIC", "-shared", "-w", "-o"])
            .arg(folder.join("libcuda.so"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu/libcuda.cpp"))
            .arg("-ldl")
            .output()
            .expect("the compiler starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        std::fs::write(folder.join("kernels.so"), EMULATOR).expect("the target folder is writable");
        let line = |e: &peristyle::gpu::Entry| {
            let size = |i: usize| {
                let written = e.is_pointer(i) && !e.parameters[i].starts_with("const");
                format!("{}{}", e.sizes[i], if written { "w" } else { "" })
            };
            let sizes: Vec<String> = (0..e.parameters.len()).map(size).collect();
            format!("{} {} {}\n", e.name, e.threads, sizes.join(" "))
        };
        let table: String = ENTRIES.iter().map(line).collect();
        std::fs::write(folder.join("entries"), table).expect("the target folder is writable");
        folder
    };
    FOLDER.get_or_init(make)
}

/// Makes a process load the driver, with some settings.
fn with_driver<'a>(command: &'a mut Command, settings: &[(&str, &str)]) -> &'a mut Command {
    let folder = fake_driver();
    command
        .env("LD_LIBRARY_PATH", folder)
        .env("FAKE_CUDA_KERNELS", folder.join("kernels.so"))
        .env("FAKE_CUDA_ENTRIES", folder.join("entries"))
        .envs(settings.iter().copied())
}

/// Runs a test of `on_the_fake_driver` in a process with the driver and some settings.
fn run(test: &str, settings: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().expect("a test runs from a file"));
    command.args(["--exact", "--ignored", "--nocapture", &format!("on_the_fake_driver::{test}")]);
    let done = with_driver(&mut command, settings).output().expect("the test starts");
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn copies_kernels_events_and_timing_work() {
    run("works", &[]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_graph_over_two_devices_is_captured_once_and_replayed() {
    run("captures", &[]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn two_gpus_train_on_the_curve_of_the_cpu() {
    run("trains", &[]);
    run("trains", &[("PERISTYLE_NO_GRAPH", "1")]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn batches_are_copied_from_the_loaders_own_memory() {
    run("trains_on_pinned_batches", &[]);
    run("trains_on_pinned_batches", &[("PERISTYLE_NO_GRAPH", "1")]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_capture_that_fails_leaves_training_to_launches() {
    run("trains", &[("FAKE_CUDA_CAPTURE", "fails")]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn gpus_that_cannot_reach_each_other_train_through_the_host() {
    let apart = [("FAKE_CUDA_PEERS", "0"), ("FAKE_CUDA_DEVICES", "4")];
    run("trains_apart", &apart);
    run("trains_apart", &[&apart[..], &[("PERISTYLE_NO_GRAPH", "1")]].concat());
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn an_old_driver_is_named() {
    let wanted = "the NVIDIA driver is too old: it supports CUDA 12.4, expected 13.0";
    run("does_not_open", &[("FAKE_CUDA_VERSION", "12040"), ("WANTED", wanted)]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_missing_device_is_named() {
    let wanted = "no GPU was found: the NVIDIA driver is installed, but reports none";
    run("does_not_open", &[("FAKE_CUDA_DEVICES", "0"), ("WANTED", wanted)]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn too_little_memory_is_reported_with_the_free_bytes() {
    let wanted = "cuda:0 cannot allocate 5000 bytes";
    run("does_not_allocate", &[("FAKE_CUDA_BYTES", "4096"), ("WANTED", wanted)]);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_kernel_that_faults_is_an_error_and_not_a_panic() {
    run("faults", &[("FAKE_CUDA_FAULT", "relu_forward")]);
}

/// Runs a command of the program in a process with the driver.
fn program(arguments: &[&str], settings: &[(&str, &str)]) -> CommandOutput {
    output_of(with_driver(peristyle(Path::new(env!("CARGO_MANIFEST_DIR"))).args(arguments), settings))
}

/// Trains digits on a GPU, in batches of 8.
fn train_digits(folder: &str, settings: &[(&str, &str)]) -> CommandOutput {
    let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let _ = std::fs::remove_dir_all(&runs);
    let runs = runs.to_str().expect("the repository's path is text");
    let train = ["train", "configs/digits.toml", "--devices", "cuda:0", "--set", "data.batch=8", "--run-dir", runs];
    program(&train, settings)
}

/// If a kernel faults, the command exits at once with status 1 and prints one message.
#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_fault_in_training_names_the_layer_and_the_step() {
    let output = train_digits("fake-cuda-runs", &[("FAKE_CUDA_FAULT", "max_pool_backward")]);
    let wanted = "step 1: \"max_pool2.backward with relu2\": cuda:0 cannot finish its work: a kernel made an invalid memory access";
    assert!(
        output.code == Some(1) && output.err.contains(wanted) && !output.err.contains("panicked"),
        "{}",
        output.err
    );
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_plan_that_a_gpu_has_no_memory_for_is_reported_by_check() {
    let check = ["check", "configs/digits.toml", "--devices", "cuda:0*2"];
    let output = program(&check, &[("FAKE_CUDA_BYTES", "16000000")]);
    assert_eq!(output.code, Some(2), "{}", output.err);
    // Two devices, each with an arena of which the workspace of the libraries is the largest part.
    let words = ["[devices]: cuda:0 needs 148.8", " MB of memory, but has 16.0 MB; use a smaller batch, more devices"];
    assert!(words.iter().all(|words| output.err.contains(words)), "{}", output.err);
    let output = program(&check, &[("FAKE_CUDA_BYTES", "200000000")]);
    assert_eq!(output.code, Some(0), "{}", output.err);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_kernel_that_never_ends_ends_the_run() {
    let hangs = [("FAKE_CUDA_HANG", "max_pool_backward"), ("PERISTYLE_GPU_TIMEOUT", "1")];
    let output = train_digits("fake-cuda-hangs", &hangs);
    assert_eq!(output.code, Some(1), "{}", output.err);
    let words = "step 1: \"max_pool2.backward with relu2\": cuda:0 has not finished its work in 1 s: a kernel or the GPU hangs; see";
    assert!(output.err.contains(words), "{}", output.err);
    let wrong = program(&["selftest", "--device", "cuda:0"], &[("PERISTYLE_GPU_TIMEOUT", "soon")]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("PERISTYLE_GPU_TIMEOUT = soon, expected a number of seconds, or 0"), "{}", wrong.err);
}

const SELFTEST: [&str; 4] = ["selftest", "--device", "cuda:0", "--quick"];

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_gpu_passes_its_selftest_which_reports_the_code_of_its_kernels() {
    let good = program(&SELFTEST, &[]);
    assert_eq!(good.code, Some(0), "{}{}", good.out, good.err);
    let words = format!("{} kernels: machine code for sm_90\n", ENTRIES.len());
    assert!(
        good.out.contains("cuda:0: fake GPU 0, compute capability 9.0") && good.out.contains(&words),
        "{}",
        good.out
    );
    let compiled = [("FAKE_CUDA_PTX", "80"), ("FAKE_CUDA_BINARY", "120")];
    let devices = program(&["devices"], &compiled);
    let words = format!("{} kernels: PTX for compute_80, compiled by the driver for sm_120\n", ENTRIES.len());
    assert!(devices.code == Some(0) && devices.out.contains(&words), "{}", devices.out);
    let missing = program(&["selftest", "--device", "cuda:7"], &[]);
    assert!(missing.code == Some(2) && missing.err.contains("cuda:7 does not exist: the driver reports 2 GPUs"));
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_wrong_kernel_fails_the_selftest_of_its_layer_and_of_no_other() {
    for (kernel, check, role) in [
        ("lrn_backward", "lrn", "Dx(0)[0]"),
        ("optim_apply", "optimizer", "weights[0]"),
        ("strided_add", "all-reduce", "device "),
        ("cast_to_float", "casts", "y["),
    ] {
        let wrong = program(&[&SELFTEST[..], &["--json"]].concat(), &[("FAKE_CUDA_WRONG", kernel)]);
        assert_eq!(wrong.code, Some(1), "{kernel}: {}", wrong.err);
        let report: serde_json::Value = serde_json::from_str(wrong.out.lines().last().unwrap()).unwrap();
        let rows = report["rows"].as_array().unwrap();
        let failed: Vec<_> = rows.iter().filter(|row| row["failed"] != 0).collect();
        let names: Vec<&str> = failed.iter().map(|row| row["check"].as_str().unwrap()).collect();
        assert!(names.contains(&check), "{kernel}: {names:?}");
        let is_layer = |name: &&&str| peristyle::layers::KEYS.contains(name);
        assert!(names.iter().filter(is_layer).all(|name| *name == check), "{kernel}: {names:?}");
        let found = failed.iter().find(|row| row["check"] == check).unwrap();
        let failure = &found["failure"];
        let at = format!("{}[{}]", failure["role"].as_str().unwrap(), failure["index"]);
        assert!(at.starts_with(role) && failure["got"] != failure["expected"], "{kernel}: {failure}");
        assert!(report["passed"] == false && wrong.err.contains(&format!("checks failed: {}", names[0])));
    }
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_kernel_that_faults_fails_the_selftest_with_a_message() {
    let fault = program(&SELFTEST, &[("FAKE_CUDA_FAULT", "relu_forward")]);
    assert_eq!(fault.code, Some(1), "{}", fault.err);
    assert!(!fault.err.contains("panicked"), "{}", fault.err);
    let words = "cuda:0 cannot finish its work: a kernel made an invalid memory access";
    assert!(fault.out.contains("\nrelu f32: ") && fault.out.contains(words), "{}", fault.out);
    // Checks before the fault pass; none runs after it, because the context does not survive a fault.
    let verdict = |check: &str| fault.out.lines().find(|line| line.starts_with(check)).map(|line| line.ends_with("ok"));
    assert_eq!((verdict("conv "), verdict("relu "), verdict("train 2x2")), (Some(true), Some(false), None));
    let line = fault.out.lines().find(|line| line.starts_with("relu ")).unwrap();
    assert_eq!(line.split_whitespace().nth(2), Some("1"), "one case ran: {line}");
    let words =
        ["\nnot checked: relu6 f32, ", "train 2x2 f32", ": the device was lost in \"relu f32\"; run them in a new "];
    assert!(words.iter().all(|words| fault.out.contains(words)), "{}", fault.out);
    assert!(fault.err.contains("1 of "), "{}", fault.err);
}

/// The tests that run in the other process.
mod on_the_fake_driver {
    use super::common::{Training, file, on_mesh};
    use peristyle::Result;
    use peristyle::data::{Destination, Loader, Place, Preparation};
    use peristyle::device::{Clock, Heap};
    use peristyle::gpu::kernels::{add_forward, relu_forward};
    use peristyle::gpu::{Driver, DriverKind, Grid, Issue, Mut, Rows};
    use peristyle::placement::Variant;
    use peristyle::train::{DataPolicy, Job, exchange};

    fn wanted(error: peristyle::Error) {
        let (text, wanted) = (error.to_string(), std::env::var("WANTED").unwrap_or_default());
        assert!(text.contains(&wanted), "{text}");
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn works() -> Result<()> {
        assert_eq!(Driver::count(DriverKind::Cuda)?, 2);
        let (first, second) = (Driver::open(DriverKind::Cuda, 0, 1)?, Driver::open(DriverKind::Cuda, 1, 1)?);
        assert_eq!((first.name(), second.name(), first.capability()), ("fake GPU 0", "fake GPU 1", (9, 0)));
        assert!(first.reach(&second)? && second.reach(&first)?);
        assert_eq!(first.memory()?, (1 << 30, 1 << 30));
        let (a, b) = (first.stream()?, second.stream()?);
        let (x, y) = (first.allocate(64)?, second.allocate(64)?);
        let pinned = first.allocate_pinned(64)?.cast::<f32>();
        let (start, ready, end) = (first.timer()?, first.event()?, second.event()?);
        let reached = first.timer()?;
        // SAFETY: every range is inside its 64 bytes.
        unsafe {
            (0..16).for_each(|i| pinned.add(i).write(i as f32 - 8.0));
            first.record_timer(start, a)?;
            first.copy_in(x, pinned.cast(), 64, a)?;
            relu_forward(
                &Issue { driver: &first, stream: a },
                Grid::cover(16, 1024),
                Mut::at(x).into(),
                Mut::at(x),
                16,
            )?;
            let large = |bytes| Grid { shared: bytes, ..Grid::cover(16, 1024) };
            let more = |bytes| {
                relu_forward(&Issue { driver: &first, stream: a }, large(bytes), Mut::at(x).into(), Mut::at(x), 16)
            };
            more(200 << 10)?;
            let text = more(300 << 10).unwrap_err().to_string();
            assert!(text.contains("cannot give 307200 bytes of shared memory to relu_forward"), "{text}");
            first.record_timer(reached, a)?;
            first.record(ready, a)?;
            second.wait(b, ready)?;
            second.fill(y, 0, 64, b)?;
            // Rows of four: the last two columns go to the first two.
            second.copy_rows(Rows { address: y, pitch: 16 }, Rows { address: x + 8, pitch: 16 }, 8, 4, b)?;
            // Nothing follows a single row, however far.
            let far = |address| Rows { address, pitch: 1 << 40 };
            second.copy_rows(far(y), far(x + 60), 4, 1, b)?;
            second.record(end, b)?;
            let mut values = [9f32; 16];
            second.copy_out(values.as_mut_ptr().cast(), y, 64, b)?;
            assert_eq!(values, [7., 0., 0., 0., 0., 0., 0., 0., 2., 3., 0., 0., 6., 7., 0., 0.]);
            second.synchronize_event(end)?;
            assert!(first.seconds_between(start, reached)? > 0.0);
            assert!(first.seconds_between(start, ready).is_err(), "an event without a time");
            first.free_pinned(pinned.cast())?;
            first.free(x)?;
            second.free(y)
        }
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn captures() -> Result<()> {
        let (first, second) = (Driver::open(DriverKind::Cuda, 0, 1)?, Driver::open(DriverKind::Cuda, 1, 1)?);
        let (a, b) = (first.stream()?, second.stream()?);
        let (fork, join) = (first.event()?, second.event()?);
        let (x, y) = (first.allocate(16)?, second.allocate(16)?);
        // SAFETY: every range is inside its 16 bytes.
        unsafe {
            first.copy_in(x, [1f32, 2.0, 3.0, 4.0].as_ptr().cast(), 16, a)?;
            second.fill(y, 0, 16, b)?;
            second.synchronize(b)?;
            first.begin_capture(a)?;
            first.record(fork, a)?;
            second.wait(b, fork)?;
            let at = Mut::at(y);
            let grid = Grid::cover(4, 1024);
            add_forward(&Issue { driver: &second, stream: b }, grid, at.into(), Mut::at(x).into(), at, 4, 0)?;
            second.record(join, b)?;
            let (start, end) = (first.timer()?, first.timer()?);
            first.record_timer(start, a)?;
            first.wait(a, join)?;
            first.record_timer(end, a)?;
            let graph = first.end_capture(a)?;
            assert!(first.seconds_between(start, end).is_err(), "the graph has not run");
            for _ in 0..3 {
                first.launch_graph(graph, a)?;
            }
            let mut values = [0f32; 4];
            first.copy_out(values.as_mut_ptr().cast(), y, 16, a)?;
            assert_eq!(values, [3.0, 6.0, 9.0, 12.0]);
            assert!(first.seconds_between(start, end)? > 0.0, "every run of the graph takes the time");

            first.begin_capture(a)?;
            first.record(fork, a)?;
            second.wait(b, fork)?;
            second.fill(y, 0, 16, b)?;
            let text = first.end_capture(a).unwrap_err().to_string();
            assert!(text.contains("a stream was not joined"), "{text}");
        }
        Ok(())
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn trains() {
        for (config, mesh) in [("configs/columns_small.toml", (1, 2)), ("configs/residual_small.toml", (2, 1))] {
            let small = ["data.batch=7".to_string()];
            let cpu = Training::new(config, &[&on_mesh((1, 1))[..], &small].concat()).losses(5);
            let gpus = [
                "devices.use=\"cuda:0-1\"".to_string(),
                format!("devices.mesh={{ data = {}, columns = {} }}", mesh.0, mesh.1),
            ];
            let sets = [&gpus[..], &small].concat();
            let got = Training::new(config, &sets).losses(5);
            let ahead = Training::new(config, &sets).losses_ahead(5);
            assert_eq!(got, ahead, "copying a batch during the previous step changes no bit");
            for (got, cpu) in got.iter().zip(&cpu) {
                assert!((got - cpu).abs() <= 1e-3 * cpu.abs(), "{config}: {got}, expected {cpu}");
            }
        }
    }

    /// The driver copies as late as it may, so a batch that is overwritten too early changes the losses.
    #[test]
    #[ignore = "needs the fake driver"]
    fn trains_on_pinned_batches() -> Result<()> {
        let losses = |pinned: bool| -> Result<Vec<f64>> {
            let sets = ["devices.use=\"cuda:0-1\"", "devices.mesh={ data = 2 }", "data.batch=9"].map(String::from);
            let (job, plan) = Job::open(&file("configs/digits.toml"), &sets, DataPolicy::Required)?;
            let splits = peristyle::data::open(&job.config.data, job.config.seed, &job.config.base)?;
            let mut session = job.session(plan)?;
            session.prepare(Preparation::of(&splits))?;
            exchange::initialise(&mut session, job.config.seed)?;
            let own = session.destination();
            let to = if pinned { own } else { Destination { memory: &Heap, ..own } };
            let mut loader = Loader::train(&splits, to, Place::default(), usize::MAX)?;
            let mut losses = Vec::new();
            for step in 1..=12 {
                let batch = loader.next_batch()?.expect("training data does not end");
                assert_eq!(batch.raw.as_ref().map(|raw| raw.pixels.pinned().is_some()), Some(pinned));
                if session.under_way() == session.depth() {
                    losses.push(session.finish()?.loss);
                }
                let variant = Variant::train(batch.rows);
                session.submit(variant, batch, Clock { step, epoch: 0, lr: 0.01, row: 0 })?;
            }
            while session.under_way() > 0 {
                losses.push(session.finish()?.loss);
            }
            for step in 13..=15 {
                let batch = loader.next_batch()?.expect("training data does not end");
                let variant = Variant::train(batch.rows);
                let (metrics, seconds) =
                    session.run_timed(variant, batch, Clock { step, epoch: 0, lr: 0.01, row: 0 })?;
                losses.push(metrics.loss);
                assert!(seconds.iter().all(|&seconds| seconds > 0.0));
            }
            Ok(losses)
        };
        let (staged, pinned) = (losses(false)?, losses(true)?);
        assert!(staged.len() == 15 && staged == pinned, "{staged:?} {pinned:?}");
        Ok(())
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn trains_apart() -> Result<()> {
        assert_eq!(Driver::apart(DriverKind::Cuda, &[0, 3, 1])?, Some((0, 3)));
        let (first, second) = (Driver::open(DriverKind::Cuda, 0, 1)?, Driver::open(DriverKind::Cuda, 1, 1)?);
        let (x, y, stream) = (first.allocate(16)?, second.allocate(16)?, second.stream()?);
        assert!(!first.reach(&second)?);
        let rows = |address| Rows { address, pitch: 8 };
        // SAFETY: inside 16 bytes, and rejected.
        unsafe {
            let grid = Grid::cover(4, 1024);
            assert!(
                second.copy(y, x, 16, stream).is_err() && second.copy_rows(rows(x), rows(y), 8, 2, stream).is_err()
            );
            assert!(relu_forward(&Issue { driver: &second, stream }, grid, Mut::at(x).into(), Mut::at(y), 4).is_err());
        }
        let (config, small) = ("configs/columns_small.toml", "data.batch=7");
        let with = |devices: &str, data: usize| {
            let mesh = format!("devices.mesh={{ data = {data}, columns = 2 }}");
            let mut training = Training::new(config, &[devices.to_string(), mesh, small.to_string()]);
            (training.losses(3), training.job.notes)
        };
        for (devices, emulated, data) in [
            ("devices.use=\"cuda:0-1\"", "devices.use=\"emu*2\"", 1),
            ("devices.use=\"cuda:0-3\"", "devices.use=\"emu*4\"", 2),
            ("devices.use=\"cuda:0-1*2\"", "devices.use=\"emu*4\"", 2),
        ] {
            let ((got, notes), (direct, _)) = (with(devices, data), with(emulated, data));
            assert_eq!(got, direct, "{devices}");
            let expected =
                "cuda:0 and cuda:1 cannot access each other's memory; transfers between GPUs go through host";
            assert_eq!(notes.iter().filter(|note| note.contains(expected)).count(), 1, "{notes:?}");
        }
        Ok(())
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn does_not_open() {
        let error = Driver::open(DriverKind::Cuda, 0, 1).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        wanted(error);
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn does_not_allocate() -> Result<()> {
        let device = Driver::open(DriverKind::Cuda, 0, 1)?;
        let _some = device.allocate(96)?;
        let error = device.allocate(5000).unwrap_err();
        assert!(error.to_string().contains("4000 are free"), "{error}");
        wanted(error);
        Ok(())
    }

    #[test]
    #[ignore = "needs the fake driver"]
    fn faults() -> Result<()> {
        let device = Driver::open(DriverKind::Cuda, 0, 1)?;
        let (stream, x) = (device.stream()?, device.allocate(16)?);
        let on = Issue { driver: &device, stream };
        // SAFETY: inside 16 bytes.
        unsafe { relu_forward(&on, Grid::cover(4, 1024), Mut::at(x).into(), Mut::at(x), 4)? };
        let text = device.synchronize(stream).unwrap_err().to_string();
        assert!(text.starts_with("cuda:0 cannot finish its work: a kernel made an invalid memory access"), "{text}");
        Ok(())
    }
}
