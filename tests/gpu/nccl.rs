//! GPUs of several processes, which the stand-in of NCCL connects: tests/gpu/libnccl.cpp, on the stand-in driver.

use super::common::launched::{END, PATIENCE, ranks};
use super::common::runs::{CommandOutput, Folder, events, losses, output_of, peristyle};
use super::{fake_driver, with_driver};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Compiles a file of this folder beside the driver; returns the result.
fn compile(source: &str, result: &str, options: &[&str]) -> PathBuf {
    let Some(cxx) = option_env!("PERISTYLE_BUILT_WITH_CXX") else {
        panic!("these tests need a C++ compiler");
    };
    let result = fake_driver().join(result);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu").join(source);
    let mut command = Command::new(cxx);
    command
        .args(["-std=c++20", "-O1", "-w"])
        .args(options)
        .arg("-o")
        .arg(&result)
        .arg(source)
        .args(["-ldl", "-pthread"]);
    let done = command.output().expect("the compiler starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    result
}

/// Compiles the library once, beside the driver, and makes a process load both.
pub fn with_nccl<'a>(command: &'a mut Command, settings: &[(&str, &str)]) -> &'a mut Command {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        compile("libnccl.cpp", "libnccl.so.2", &["-fPIC", "-shared"]);
    });
    with_driver(command, &[("FAKE_CUDA_DEVICES", "4")]).envs(settings.iter().copied())
}

/// Runs a command in one process.
fn one(folder: &Folder, arguments: &[&str], settings: &[(&str, &str)]) -> CommandOutput {
    output_of(with_nccl(peristyle(&folder.0).args(arguments), settings))
}

/// Trains in several processes, each with a GPU of its own.
fn several(folder: &Folder, processes: usize, arguments: &[&str], settings: &[(&str, &str)]) -> CommandOutput {
    let number = processes.to_string();
    one(folder, &[&["launch", "-n", &*number, "train"], arguments].concat(), settings)
}

fn good(output: CommandOutput) -> CommandOutput {
    assert_eq!(output.code, Some(0), "{}", output.err);
    output
}

fn curve(folder: &Folder, dir: &str) -> Vec<f64> {
    losses(&folder.metrics(dir))
}

fn near(a: &[f64], b: &[f64], relative: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= relative * b.abs())
}

/// Returns the calls of the library that all processes made.
fn calls(folder: &Folder, name: &str) -> String {
    let all = std::fs::read_dir(&folder.0).unwrap().flatten();
    let own = all.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{name}.")));
    own.map(|entry| std::fs::read_to_string(entry.path()).unwrap()).collect()
}

/// Returns arguments with settings, for 6 small updates.
fn with<'a>(config: &'a str, dir: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["data.batch=9", "train.steps=6", "train.evaluate=never"];
    let sets = fixed.into_iter().chain(sets.iter().copied()).flat_map(|set| ["--set", set]);
    [config, "--run-dir", dir].into_iter().chain(sets).collect()
}

/// The mesh of two rows and two columns, and of one column.
const MESH: [&str; 2] = ["devices.mesh={ data = 2, columns = 2 }", "devices.mesh={ data = 4, columns = 1 }"];
const INSIDE: &str = "devices.use=\"cuda:0-3\"";

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn four_processes_have_the_curve_of_one() {
    let folder = Folder::new("nccl-curve");
    let path = |name: &str| super::common::file(name).display().to_string();
    let configs = ["configs/digits.toml", "configs/columns_small.toml", "configs/one_weird_trick_small.toml"].map(path);
    let small = "small.toml".to_string();
    let cases = [(&configs[0], MESH[0]), (&configs[1], MESH[0]), (&configs[2], MESH[0]), (&small, MESH[1])];
    for (index, (config, mesh)) in cases.into_iter().enumerate() {
        let logs = ["exact", "sums"].map(|name| format!("{index}-{name}-calls"));
        let dirs = ["whole", "exact", "sums", "launches", "inside"];
        dirs.iter().for_each(|dir| drop(std::fs::remove_dir_all(folder.at(dir))));
        good(one(&folder, &[&["train"], &with(config, "whole", &[mesh, INSIDE])[..]].concat(), &[]));
        let [exact, sums] = logs.each_ref().map(|name| folder.at(name).display().to_string());
        let in_order = with(config, "exact", &[mesh, "devices.deterministic=true"]);
        good(several(&folder, 4, &in_order, &[("FAKE_NCCL_LOG", &exact)]));
        good(several(&folder, 4, &with(config, "sums", &[mesh]), &[("FAKE_NCCL_LOG", &sums)]));
        let [whole, exact, sums] = ["whole", "exact", "sums"].map(|dir| curve(&folder, dir));
        let saved = |dir: &str| folder.checkpoint(dir, 6);
        assert!(exact == whole && saved("exact") == saved("whole"), "{config}: {exact:?} and {whole:?}");
        assert!(near(&sums, &whole, 1e-3), "{config}: {sums:?} and {whole:?}");
        // digits is large for emulated kernels.
        if index > 0 {
            good(several(&folder, 4, &with(config, "launches", &[mesh]), &[("PERISTYLE_NO_GRAPH", "1")]));
            let inside = with(config, "inside", &[mesh, INSIDE, "devices.collectives=\"nccl\""]);
            good(one(&folder, &[&["train"], &inside[..]].concat(), &[]));
            assert_eq!((&curve(&folder, "launches"), &curve(&folder, "inside")), (&sums, &sums), "{config}");
            assert!(saved("inside") == saved("sums"), "{config}");
        }
        // The library adds, in the graph too; for the bits of one process it only moves terms.
        let [exact, sums] = logs.map(|name| calls(&folder, &name));
        let has =
            |calls: &str, kind: &str| calls.lines().any(|line| line.starts_with(kind) && line.ends_with("captured"));
        assert!(has(&sums, "AllReduce") && !has(&exact, "AllReduce") && has(&exact, "Send"), "{config}: {sums}{exact}");
    }
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn gradients_may_be_summed_in_bf16() {
    let folder = Folder::new("nccl-bf16");
    let reduced = "devices.reduce_precision=\"bf16\"";
    good(several(&folder, 2, &with("small.toml", "f32", &[]), &[]));
    let log = folder.at("calls").display().to_string();
    good(several(&folder, 2, &with("small.toml", "bf16", &[reduced]), &[("FAKE_NCCL_LOG", &log)]));
    let (full, rounded) = (curve(&folder, "f32"), curve(&folder, "bf16"));
    assert!(full != rounded && near(&rounded, &full, 2e-2), "{rounded:?} and {full:?}");
    let calls = calls(&folder, "calls");
    let of = |kind: &str| calls.lines().filter(|line| line.contains("AllReduce") && line.contains(kind)).count();
    // Metrics and counts stay in f32.
    assert!(of("bfloat16") > 0 && of("float32") > 0, "{calls}");
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_run_goes_on_with_another_number_of_processes() {
    let folder = Folder::new("nccl-resume");
    let exact = "devices.deterministic=true";
    let steps = |number: usize| format!("train.steps={number}");
    let (six, three, all) = (steps(3), steps(6), steps(9));
    let mesh = MESH[0];
    good(one(&folder, &[&["train"], &with("small.toml", "whole", &[mesh, INSIDE, &*all])[..]].concat(), &[]));
    good(several(&folder, 4, &with("small.toml", "parts", &[mesh, exact, &*six]), &[]));
    let inside = with("small.toml", "parts", &[mesh, INSIDE, &*three]);
    good(one(&folder, &[&["train"], &inside[..], &["--resume"]].concat(), &[]));
    good(several(&folder, 4, &[&with("small.toml", "parts", &[mesh, exact, &*all])[..], &["--resume"]].concat(), &[]));
    assert_eq!(curve(&folder, "parts"), curve(&folder, "whole"));
    assert!(folder.checkpoint("parts", 9) == folder.checkpoint("whole", 9));
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn what_cannot_work_is_refused() {
    let folder = Folder::new("nccl-mistakes");
    let small = |dir: &'static str, sets: &[&'static str]| with("small.toml", dir, sets);
    let refused = |what: CommandOutput, code: i32, words: &[&str]| {
        assert_eq!(what.code, Some(code), "{}", what.err);
        words.iter().for_each(|words| assert!(what.err.contains(words), "{words:?} in {}", what.err));
    };
    let no_engine = several(&folder, 2, &small("a", &["devices.use=\"cpu\""]), &[]);
    refused(no_engine, 2, &["of peristyle launch", "which has no MPI", "mpirun", "srun --mpi=pmix"]);
    let nowhere = [("PERISTYLE_LIBRARIES", "/nowhere")];
    let missing = several(&folder, 2, &small("b", &[]), &nowhere);
    refused(missing, 2, &["NCCL, which moves data between GPUs", "libnccl.so.2 was not found in PERISTYLE_LIBRARIES"]);
    let old = several(&folder, 2, &small("c", &[]), &[("FAKE_NCCL_VERSION", "21304")]);
    refused(old, 2, &["is version 2.13.4, expected at least 2.14"]);
    let shared = several(&folder, 2, &small("d", &["devices.use=\"cuda:0\""]), &[("FAKE_CUDA_SHARED", "1")]);
    refused(shared, 2, &["processes 0 and 1 both use the GPU at 0000:00:00.0", "CUDA_VISIBLE_DEVICES"]);
    let limit = ["cluster.start_timeout=\"4 s\""];
    let hangs = several(&folder, 2, &small("e", &limit), &[("FAKE_NCCL_INIT", "1:hang")]);
    refused(hangs, 1, &["NCCL 2.27.7 did not connect all GPUs within 4 s", "NCCL_SOCKET_IFNAME"]);
    let token = several(&folder, 2, &small("f", &[]), &[("PERISTYLE_TOKEN", "short")]);
    // `launch` makes a token of its own.
    good(token);
}

/// How long processes may take to start, and the time after which a collective is a failure.
const START: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(3);

/// A fault: its name, the settings that make it, and what is said of it.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

/// A run of several processes that goes on until something ends it.
struct Job {
    launcher: Child,
    log: std::path::PathBuf,
    dir: std::path::PathBuf,
}

impl Job {
    fn start(folder: &Folder, name: &str, processes: usize, sets: &[&str], settings: &[(&str, &str)]) -> Job {
        let (dir, log) = (folder.at(name), folder.at(&format!("{name}.txt")));
        let (number, path) = (processes.to_string(), dir.display().to_string());
        let long = ["train.steps=1000000", "cluster.timeout=\"3 s\"", "cluster.collective_timeout=\"3 s\""];
        let arguments = with("small.toml", &path, &[&long[..], sets].concat());
        let file = std::fs::File::create(&log).unwrap();
        let mut command = peristyle(&folder.0);
        command.args(["launch", "-n", &number, "train"]).args(arguments);
        command.stdout(file.try_clone().unwrap()).stderr(file).stdin(Stdio::null());
        Job { launcher: with_nccl(&mut command, settings).spawn().unwrap(), log, dir }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has made some updates.
    fn trains(&mut self) {
        let begin = Instant::now();
        let updates = || std::fs::read_to_string(self.dir.join("metrics.jsonl")).unwrap_or_default().lines().count();
        while updates() < 10 {
            assert!(begin.elapsed() < PATIENCE, "{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end of all processes; returns the exit code, what was said, and how long it took.
    fn ends(&mut self) -> (Option<i32>, String, Duration) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.launcher.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < PATIENCE, "{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(ranks(&self.dir).is_empty(), "{:?}", ranks(&self.dir));
        (status.code(), self.said(), begin.elapsed())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Its processes end with it.
        let _ = self.launcher.kill();
    }
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn every_failure_ends_the_job_and_names_the_process() {
    let folder = Folder::new("nccl-failures");
    // A kernel of one process that never ends, an error of the library, and a collective that nobody can tell to be at fault.
    let kernel = [("FAKE_CUDA_HANG", "relu_backward"), ("FAKE_CUDA_HANG_RANK", "2")];
    let cases: [Case; 3] = [
        ("kernel", &kernel, &["process 2 (host ", "collective"]),
        (
            "error",
            &[("FAKE_NCCL_ASYNC", "1:30")],
            &["process 1", "a collective between GPUs failed: ", "stand-in failure"],
        ),
        ("hang", &[("FAKE_NCCL_HANG", "1:30")], &["which all processes had begun: a device, or the network"]),
    ];
    for (name, settings, words) in cases {
        let (code, said, took) = Job::start(&folder, name, 3, &[], settings).ends();
        assert!(code.is_some_and(|code| code != 0), "{name}: {said}");
        words.iter().for_each(|words| assert!(said.contains(words), "{name}: {words:?} in {said}"));
        assert!(took < START + LIMIT + END, "{took:?}");
        let flight = folder.good(&["diagnose", "flight", name]).out;
        assert!(flight.contains("process "), "{flight}");
    }
    // One that is late is waited for.
    let late = with("small.toml", "late", &[]);
    good(several(&folder, 2, &late, &[("FAKE_NCCL_LATE", "1:7:1500")]));
    assert_eq!(events(&folder.metrics("late"), "end").len(), 1);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_process_that_is_killed_or_stopped_is_named() {
    let folder = Folder::new("nccl-loss");
    for (signal, rank) in [("KILL", 0), ("KILL", 2), ("STOP", 1)] {
        let name = format!("{signal}-{rank}");
        let mut job = Job::start(&folder, &name, 3, &[], &[]);
        job.trains();
        let (_, pid) = *ranks(&job.dir).iter().find(|(own, _)| *own == rank).expect("it trains");
        assert!(Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap().success());
        if signal == "STOP" {
            // When the others have noticed and ended, the launcher waits for this one, whose end is the cause.
            let begin = Instant::now();
            while ranks(&job.dir) != [(rank, pid)] {
                assert!(begin.elapsed() < LIMIT + END, "{}", job.said());
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
        }
        let (ended, said, took) = job.ends();
        assert!(took < END, "{took:?}: {said}");
        assert!(said.contains(&format!("process {rank} (host ")), "{name}: {said}");
        assert_eq!(ended, Some(137), "{name}: {said}");
        assert!(said.contains(&format!("process {rank} ended the job: signal: 9")), "{said}");
    }
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn processes_end_with_their_launcher_and_its_signals_reach_them() {
    let folder = Folder::new("nccl-launch");
    let mut job = Job::start(&folder, "killed", 2, &[], &[]);
    job.trains();
    job.launcher.kill().unwrap();
    let begin = Instant::now();
    while !ranks(&job.dir).is_empty() {
        assert!(begin.elapsed() < END, "{:?}", ranks(&job.dir));
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut job = Job::start(&folder, "asked", 2, &[], &[]);
    job.trains();
    assert!(Command::new("kill").args(["-USR1", &job.launcher.id().to_string()]).status().unwrap().success());
    let (code, said, _) = job.ends();
    assert_eq!(code, Some(75), "{said}");
    let saved = events(&folder.metrics("asked"), "checkpoint").last().unwrap()["step"].as_u64().unwrap();
    assert_eq!(curve(&folder, "asked").len() as u64, saved);
}

/// A network whose largest layer is divided among columns.
const DIVIDED: &str = r#"
[data]
train = { synthetic = { images = 16, classes = 2, shape = [32, 32, 4] } }
batch = 2
[model]
input = [32, 32, 4]
layers = ["flatten", { dense = { units = 4096 } }, "relu", { dense = { units = 2 } }]
[optimizer]
chain = [{ momentum = 0.9 }]
lr = 0.001
[train]
steps = 1
evaluate = "never"
"#;

/// Trains in two columns, and returns the largest memory of process 0 in bytes.
fn peak(folder: &Folder, dir: &str, more: &[&str]) -> f64 {
    let path = folder.at(dir);
    let mut command = peristyle(&folder.0);
    command.args(["launch", "-n", "2", "train", "divided.toml", "--set", "devices.mesh={ columns = 2 }"]);
    command.arg("--run-dir").arg(&path).args(more).stdout(Stdio::null()).stderr(Stdio::null());
    let mut launcher = with_nccl(&mut command, &[]).spawn().unwrap();
    let mut peak = 0.0f64;
    let status = loop {
        for (_, pid) in ranks(&path).into_iter().filter(|(rank, _)| *rank == 0) {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let most = most.and_then(|most| most.trim().trim_end_matches(" kB").parse::<f64>().ok());
            peak = peak.max(1024.0 * most.unwrap_or(0.0));
        }
        if let Some(status) = launcher.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    assert!(status.success());
    peak
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_checkpoint_of_divided_weights_passes_through_process_0_piece_by_piece() {
    let folder = Folder::new("nccl-memory");
    folder.write("divided.toml", DIVIDED);
    // Each process has half of 16.8 million weights, and as many values of momentum.
    let piece = 4096.0 * 4096.0 / 2.0 * 4.0;
    let without = peak(&folder, "without", &["--set", "train.checkpoint={ every = \"never\" }"]);
    let with = peak(&folder, "with", &[]);
    let resumed = peak(&folder, "with", &["--resume", "--set", "train.steps=2"]);
    for (what, peak) in [("saving", with), ("resuming", resumed)] {
        assert!(peak - without < 2.0 * piece, "{what}: {peak:.0} bytes, {without:.0} without");
    }
    assert!(
        std::fs::metadata(folder.at("with/checkpoints/step-00000002/model.safetensors")).unwrap().len() > 67_000_000
    );
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn the_selftest_checks_the_library_with_one_gpu() {
    let folder = Folder::new("nccl-selftest");
    let checked = good(one(&folder, &["selftest", "--device", "cuda:0", "--only", "NCCL"], &[]));
    let row = checked.out.lines().find(|line| line.starts_with("NCCL ")).unwrap_or_default();
    assert!(row.ends_with("ok") && row.split_whitespace().nth(2) == Some("2"), "{}", checked.out);
    // The stand-in says so when something is left that uses a communicator.
    assert!(!checked.err.contains("fake nccl"), "{}", checked.err);
    let missing =
        one(&folder, &["selftest", "--device", "cuda:0", "--only", "NCCL"], &[("PERISTYLE_LIBRARIES", "/nowhere")]);
    assert!(missing.out.contains("not checked: NCCL, which moves data between GPUs"), "{}", missing.out);
}

/// The stand-in adds correctly, refuses what the library forbids, and has the faults that it is asked for.
#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn the_stand_in_keeps_to_the_rules_of_the_library() {
    let check = compile("nccl_check.cpp", "nccl_check", &[]);
    let output = with_nccl(&mut Command::new(check), &[]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.lines().count() > 20, "{out}{err}");
    assert!(out.lines().all(|line| line.starts_with("ok ")), "{out}{err}");
}

/// The start of the real library needs no GPU: process 0 listens, and the identity says where.
#[test]
#[ignore = "needs NCCL, as in the wheel nvidia-nccl-cu13: PERISTYLE_LIBRARIES is its folder"]
fn the_real_library_listens_for_other_processes() {
    let library = peristyle::gpu::nccl::nccl().unwrap_or_else(|error| panic!("{error}"));
    let parts: Vec<u32> = library.version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(parts.len() == 3 && (parts[0], parts[1]) >= (2, 14), "{}", library.version);
    let ids = [library.unique_id().unwrap(), library.unique_id().unwrap()].map(|id| id.to_string());
    assert_ne!(ids[0], ids[1]);
    for id in ids {
        let bytes: Vec<u8> = (0..24).map(|i| u8::from_str_radix(&id[2 * i..2 * i + 2], 16).unwrap()).collect();
        // A random number, then the address of a socket: its family, and for IPv4 port and host.
        assert_eq!(u16::from_ne_bytes([bytes[8], bytes[9]]), 2, "{id}");
        let (port, host) = (u16::from_be_bytes([bytes[10], bytes[11]]), [bytes[12], bytes[13], bytes[14], bytes[15]]);
        std::net::TcpStream::connect((std::net::Ipv4Addr::from(host), port)).unwrap();
    }
}
