//! Processes that a launcher of MPI starts: `PERISTYLE_MPIRUN` is its command, to which `-n`, a number and the program are added.
//! They train as one process does, and if one is lost the others say which one and end.

mod common;

use common::runs::{Folder, events, losses};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A launcher waits for processes whose start the machine delays.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a loss may take until no process is left, beyond the timeout of the watch.
const END: Duration = Duration::from_secs(10);

fn launcher() -> Vec<String> {
    let text = std::env::var("PERISTYLE_MPIRUN").expect("PERISTYLE_MPIRUN is the command of a launcher");
    text.split_whitespace().map(String::from).collect()
}

/// Returns the command that trains in several processes, in a process group of its own.
fn train(folder: &Folder, processes: usize, arguments: &[&str]) -> Command {
    let words = launcher();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg("-n").arg(processes.to_string()).arg(env!("CARGO_BIN_EXE_peristyle")).arg("train");
    command.args(arguments).current_dir(&folder.0).process_group(0).stdin(Stdio::null());
    command
}

/// Trains to the end, and returns what was said.
fn good(folder: &Folder, processes: usize, arguments: &[&str]) -> String {
    let output = train(folder, processes, arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn curve(folder: &Folder, dir: &str) -> Vec<f64> {
    losses(&folder.metrics(dir))
}

#[test]
#[ignore = "needs a launcher of MPI; .ci/run has Open MPI and MPICH"]
fn processes_have_the_curve_of_one() {
    let folder = Folder::new("mpi-curve");
    let columns = common::file("configs/columns_small.toml").display().to_string();
    let cases = [("small.toml", 2, (2, 1)), ("small.toml", 4, (4, 1)), (&*columns, 2, (1, 2)), (&*columns, 4, (2, 2))];
    for (index, (config, processes, (data, columns))) in cases.into_iter().enumerate() {
        let mesh = format!("devices.mesh={{ data = {data}, columns = {columns} }}");
        let sets = |used: &str, dir: &str, more: &[&str]| {
            let used = format!("devices.use=\"{used}\"");
            let common = ["--set", &*used, "--set", &*mesh, "--set", "devices.threads=1", "--run-dir", dir];
            let fixed =
                ["--set", "train.steps=100", "--set", "train.evaluate=\"50 steps\"", "--set", "train.checkpoint={}"];
            let more = more.iter().flat_map(|set| ["--set", *set]);
            [config].into_iter().chain(common).chain(fixed).chain(more).map(String::from).collect::<Vec<_>>()
        };
        let run = |processes: usize, used: &str, dir: &str, more: &[&str]| {
            let words = sets(used, dir, more);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match processes {
                1 => drop(folder.good(&[&["train"], &words[..]].concat())),
                processes => drop(good(&folder, processes, &words)),
            }
        };
        let dir = |what: &str| format!("{index}-{what}");
        run(1, &format!("cpu*{processes}"), &dir("one"), &["devices.precision=\"f64\""]);
        run(processes, "cpu", &dir("exact"), &["devices.precision=\"f64\"", "devices.deterministic=true"]);
        run(processes, "cpu", &dir("sums"), &["devices.precision=\"f64\""]);
        assert_eq!(curve(&folder, &dir("exact")), curve(&folder, &dir("one")), "{config} on {processes}");
        assert!(folder.checkpoint(&dir("exact"), 100) == folder.checkpoint(&dir("one"), 100));
        assert_eq!(events(&folder.metrics(&dir("exact")), "eval"), events(&folder.metrics(&dir("one")), "eval"));
        for (sum, one) in curve(&folder, &dir("sums")).iter().zip(curve(&folder, &dir("one"))) {
            assert!((sum - one).abs() <= 1e-9 * one.abs(), "{config} on {processes}: {sum} and {one}");
        }
    }
}

#[test]
#[ignore = "needs a launcher of MPI; .ci/run has Open MPI and MPICH"]
fn a_run_goes_on_with_another_number_of_processes() {
    let folder = Folder::new("mpi-resume");
    let base = ["small.toml", "--set", "devices.deterministic=true", "--set", "devices.threads=1"];
    let with = |more: &[&'static str]| [&base[..], more].concat();
    folder.good(
        &[&["train"], &with(&["--set", "train.steps=30", "--devices", "cpu*4", "--run-dir", "whole"])[..]].concat(),
    );
    good(&folder, 4, &with(&["--devices", "cpu", "--set", "train.steps=9", "--run-dir", "parts"]));
    let again = ["--resume", "--run-dir", "parts", "--devices", "cpu*4", "--set", "train.steps=17"];
    folder.good(&[&["train"], &with(&again)[..]].concat());
    good(&folder, 2, &with(&["--resume", "--run-dir", "parts", "--devices", "cpu*2", "--set", "train.steps=30"]));
    assert_eq!(curve(&folder, "parts"), curve(&folder, "whole"));
    assert!(folder.checkpoint("parts", 30) == folder.checkpoint("whole", 30));
}

/// A run of several processes.
struct Running {
    launcher: Child,
    dir: PathBuf,
}

/// Returns the processes that train in a run directory, by rank.
fn ranks(dir: &Path) -> Vec<(usize, i32)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let texts = |bytes: Vec<u8>| {
            bytes.split(|b| *b == 0).map(|s| String::from_utf8_lossy(s).into_owned()).collect::<Vec<_>>()
        };
        let command = texts(read("cmdline"));
        let is_own = command.first().is_some_and(|name| name.ends_with("peristyle"))
            && command.iter().any(|word| Path::new(word) == dir);
        let rank = texts(read("environ")).iter().find_map(|variable| {
            let (name, value) = variable.split_once('=')?;
            ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"].contains(&name).then(|| value.parse().ok())?
        });
        let zombie = String::from_utf8_lossy(&read("stat"))
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'));
        all.extend(rank.filter(|_| is_own && !zombie).map(|rank| (rank, pid)));
    }
    all.sort_unstable();
    all
}

impl Running {
    /// Starts a long run, and waits until it trains.
    fn start(folder: &Folder, name: &str, processes: usize, more: &[&str]) -> Running {
        let dir = folder.at(name);
        let path = dir.display().to_string();
        let words = [
            "small.toml",
            "--devices",
            "cpu",
            "--run-dir",
            &*path,
            "--set",
            "train.steps=1000000",
            "--set",
            "train.evaluate=never",
        ];
        let log = std::fs::File::create(folder.at(&format!("{name}.txt"))).unwrap();
        let mut command = train(folder, processes, &[&words[..], more].concat());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut running = Running { launcher: command.spawn().unwrap(), dir };
        let begin = Instant::now();
        let trains =
            || std::fs::read_to_string(running.dir.join("metrics.jsonl")).is_ok_and(|text| text.lines().count() > 20);
        while !trains() {
            let ended = running.launcher.try_wait().unwrap();
            let said = || std::fs::read_to_string(folder.at(&format!("{name}.txt"))).unwrap_or_default();
            assert!(ended.is_none() && begin.elapsed() < PATIENCE, "{ended:?}: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }

    /// Sends a signal to a process.
    fn signal(&self, rank: usize, signal: &str) {
        let all = ranks(&self.dir);
        let (_, pid) =
            all.iter().find(|(own, _)| *own == rank).unwrap_or_else(|| panic!("no process {rank} in {all:?}"));
        assert!(Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap().success());
    }

    /// Waits for the end, and returns what was said.
    fn ends(mut self, folder: &Folder, name: &str, within: Duration) -> (Option<i32>, String) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.launcher.try_wait().unwrap() {
                break status;
            }
            assert!(
                begin.elapsed() < within + PATIENCE,
                "the launcher does not end: {}",
                folder.read(&format!("{name}.txt"))
            );
            std::thread::sleep(Duration::from_millis(50));
        };
        let begin = Instant::now();
        while !ranks(&self.dir).is_empty() {
            assert!(begin.elapsed() < END, "processes are left: {:?}", ranks(&self.dir));
            std::thread::sleep(Duration::from_millis(50));
        }
        (status.code(), folder.read(&format!("{name}.txt")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Of a test that has failed.
        for (_, pid) in ranks(&self.dir) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        let _ = self.launcher.kill();
    }
}

#[test]
#[ignore = "needs a launcher of MPI; .ci/run has Open MPI and MPICH"]
fn a_process_that_is_killed_or_stopped_is_named_by_the_others() {
    let folder = Folder::new("mpi-loss");
    for (signal, reason) in [("KILL", "was lost: its connection"), ("STOP", "heard nothing of it for")] {
        for rank in 0..3 {
            let name = format!("{signal}-{rank}");
            let running = Running::start(&folder, &name, 3, &["--set", "cluster.timeout=\"4 s\""]);
            running.signal(rank, signal);
            let (code, said) = running.ends(&folder, &name, END);
            assert_ne!(code, Some(0), "{said}");
            assert!(said.contains(&format!("process {rank} (host ")) && said.contains(reason), "{name}: {said}");
            // The survivors recorded what they waited in, unless their launcher saw the end of the process first and killed them.
            let records =
                (0..3).filter(|rank| folder.at(&format!("{name}/flight-rank-{rank:03}.json")).exists()).count();
            assert!(records > 0 || signal == "KILL", "{said}");
            if records > 0 {
                let flight = folder.good(&["diagnose", "flight", &name]).out;
                assert!(flight.contains(&format!("process {rank}")), "{flight}");
            }
        }
    }
}

#[test]
#[ignore = "needs a launcher of MPI; .ci/run has Open MPI and MPICH"]
fn a_signal_to_any_process_leads_to_one_checkpoint() {
    let folder = Folder::new("mpi-signal");
    for rank in [0, 2] {
        let name = format!("signal-{rank}");
        let running = Running::start(&folder, &name, 3, &[]);
        running.signal(rank, "USR1");
        let (code, said) = running.ends(&folder, &name, PATIENCE);
        assert_eq!(code, Some(75), "{said}");
        assert!(said.contains("SIGUSR1 after step"), "{said}");
        let saved = events(&folder.metrics(&name), "checkpoint").last().unwrap()["step"].as_u64().unwrap();
        assert_eq!(curve(&folder, &name).len() as u64, saved);
        assert!(!folder.checkpoint(&name, saved)[0].is_empty());
    }
}

#[test]
#[ignore = "needs a launcher of MPI; .ci/run has Open MPI and MPICH"]
fn mistakes_are_said_once_and_end_all_processes() {
    let folder = Folder::new("mpi-mistakes");
    let fails = |arguments: &[&str]| {
        let output = train(&folder, 3, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        said
    };
    let said = fails(&["small.toml", "--devices", "cpu", "--set", "optimizer.lr=-1"]);
    assert_eq!(said.matches("lr = -1").count(), 1, "{said}");
    let said = fails(&["small.toml", "--devices", "cpu", "--set", "data.order=\"hard_examples\""]);
    assert_eq!(said.matches("is for one process").count(), 1, "{said}");
    let said = fails(&["small.toml", "--devices", "cpu", "--resume", "--run-dir", "nothing"]);
    assert_eq!(said.matches("holds no run to resume").count(), 1, "{said}");
    let mut command = train(&folder, 2, &["small.toml", "--devices", "cpu"]);
    let output = command.env("PERISTYLE_MPI", "/nowhere/libmpi.so").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("PERISTYLE_MPI=/nowhere/libmpi.so") && said.contains("set it to the path"), "{said}");
}

#[test]
#[ignore = "needs a launcher of MPI; .ci/run has Open MPI and MPICH"]
fn devices_lists_all_processes_once() {
    let folder = Folder::new("mpi-devices");
    let command = train(&folder, 3, &[]);
    let words: Vec<_> = command.get_args().map(|word| word.to_owned()).filter(|word| word != "train").collect();
    let mut devices = Command::new(command.get_program());
    let output = devices.args(words).arg("devices").current_dir(&folder.0).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.matches("3 processes of ").count() == 1, "{said}");
    let ranks = (0..3).filter(|rank| said.contains(&format!("\n{rank:>4}  "))).count();
    assert!(ranks == 3 && said.matches("\ncpu: ").count() + usize::from(said.starts_with("cpu: ")) == 1, "{said}");
}
