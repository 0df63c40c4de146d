//! The real torchrun starts processes with stand-in GPUs. `PERISTYLE_TORCHRUN` is its path; scripts/torchrun.sh installs one.

use super::common::launched::{PATIENCE, ranks};
use super::common::runs::{CommandOutput, Folder, losses, output_of};
use super::nccl::with_nccl;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Returns the command of an agent, which starts two processes.
fn agent(folder: &Folder, options: &[&str], arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let torchrun = std::env::var("PERISTYLE_TORCHRUN").expect("PERISTYLE_TORCHRUN is the path of torchrun");
    let mut command = Command::new(torchrun);
    command.args(["--no-python", "--nproc-per-node", "2"]).args(options).arg(env!("CARGO_BIN_EXE_peristyle"));
    command.arg("train").args(arguments).current_dir(&folder.0).stdin(Stdio::null());
    with_nccl(&mut command, settings);
    command
}

fn train(folder: &Folder, arguments: &[&str]) -> CommandOutput {
    output_of(&mut agent(folder, &["--standalone"], arguments, &[]))
}

/// Arguments for some updates whose bits do not depend on the processes.
fn exact<'a>(dir: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["devices.deterministic=true", "data.batch=9", "train.evaluate=never"];
    let sets = fixed.into_iter().chain(more.iter().copied()).flat_map(|set| ["--set", set]);
    ["small.toml", "--run-dir", dir].into_iter().chain(sets).collect()
}

#[test]
#[ignore = "needs torchrun: scripts/torchrun.sh"]
fn torchrun_starts_processes_of_one_node_and_of_two() {
    let folder = Folder::new("torchrun");
    let steps = "train.steps=8";
    let whole = [&["train"], &exact("whole", &[steps, "devices.use=\"cuda:0-3\""])[..]].concat();
    let whole = output_of(with_nccl(super::common::runs::peristyle(&folder.0).args(whole), &[]));
    assert_eq!(whole.code, Some(0), "{}", whole.err);
    let one = train(&folder, &exact("one", &[steps]));
    assert_eq!(one.code, Some(0), "{}", one.err);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (arguments, mut agents) = (exact("two", &[steps]), Vec::new());
    for (node, first) in [("0", "0"), ("1", "8")] {
        let options = ["--nnodes", "2", "--node-rank", node, "--master-addr", "127.0.0.1", "--master-port", &free];
        // Both nodes are this machine.
        let mut command = agent(&folder, &options, &arguments, &[("FAKE_CUDA_FIRST", first)]);
        agents.push(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    }
    for agent in agents {
        let output = agent.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let curve = |dir: &str| losses(&folder.metrics(dir));
    let near = |a: Vec<f64>, b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs());
    // Two GPUs have other terms than four.
    assert!(curve("one").len() == 8 && near(curve("one"), &curve("whole")));
    assert!(folder.checkpoint("two", 8) == folder.checkpoint("whole", 8));
}

#[test]
#[ignore = "needs torchrun: scripts/torchrun.sh"]
fn torchrun_starts_processes_again_that_were_killed() {
    let folder = Folder::new("torchrun-restarts");
    let sets = ["train.steps=150", "train.checkpoint={ every = \"10 steps\" }"];
    let path = folder.at("killed").display().to_string();
    assert_eq!(train(&folder, &exact("whole", &sets)).code, Some(0));
    let arguments = [&exact(&path, &sets)[..], &["--resume", "auto"]].concat();
    let log = std::fs::File::create(folder.at("log.txt")).unwrap();
    let mut command = agent(&folder, &["--standalone", "--max-restarts", "3"], &arguments, &[]);
    let mut torchrun = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let updates = || std::fs::read_to_string(folder.at("killed/metrics.jsonl")).unwrap_or_default().lines().count();
    for (kill, least) in [(1, 30), (0, 80)] {
        let begin = Instant::now();
        while updates() < least {
            assert!(begin.elapsed() < PATIENCE && torchrun.try_wait().unwrap().is_none(), "{}", folder.read("log.txt"));
            std::thread::sleep(Duration::from_millis(5));
        }
        let all = ranks(&folder.at("killed"));
        let (_, pid) = all.iter().find(|(rank, _)| *rank == kill).expect("it trains");
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    }
    assert!(torchrun.wait().unwrap().success(), "{}", folder.read("log.txt"));
    assert_eq!(losses(&folder.metrics("killed")), losses(&folder.metrics("whole")));
    assert!(folder.checkpoint("killed", 150) == folder.checkpoint("whole", 150));
}

#[test]
#[ignore = "needs torchrun: scripts/torchrun.sh"]
fn cpu_devices_under_torchrun_are_refused() {
    let folder = Folder::new("torchrun-cpu");
    let refused = train(&folder, &exact("cpu", &["devices.use=\"cpu\""]));
    assert_ne!(refused.code, Some(0));
    let words = ["this is process 0 of 2 of torchrun", "which has no MPI", "mpirun", "srun --mpi=pmix"];
    words.iter().for_each(|words| assert!(refused.err.contains(words), "{words:?} in {}", refused.err));
    // torchrun has its own exit code, and reports that of the process.
    assert!(refused.err.contains("exitcode  : 2"), "{}", refused.err);
}
