//! Processes that a launcher of MPI starts: `PERISTYLE_MPIRUN` is its command, to which `-n`, a number and the program are added.
//! They train as one process does, and if one is lost the others say which one and end.

mod common;

use common::launched::{END, PATIENCE, Running, good, train};
use common::runs::{Folder, SMALL, events, losses};
use std::process::Command;

fn curve(folder: &Folder, dir: &str) -> Vec<f64> {
    losses(&folder.metrics(dir))
}

#[test]
#[ignore = "needs a launcher of MPI; .ci/run has Open MPI and MPICH"]
fn processes_have_the_curve_of_one() {
    let folder = Folder::new("mpi-curve");
    let columns = common::file("configs/columns_small.toml").display().to_string();
    let hybrid = common::file("configs/one_weird_trick_small.toml").display().to_string();
    let cases = [
        ("small.toml", 2, (2, 1)),
        ("small.toml", 4, (4, 1)),
        (&*columns, 2, (1, 2)),
        (&*columns, 4, (2, 2)),
        (&*hybrid, 4, (2, 2)),
    ];
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
fn emulated_gpus_have_the_bits_of_one_process() {
    let folder = Folder::new("mpi-emulated");
    for (processes, mesh) in [(2, "{ data = 2, columns = 1 }"), (4, "{ data = 2, columns = 2 }")] {
        let mesh = format!("devices.mesh={mesh}");
        let base = ["small.toml", "--set", &*mesh, "--set", "devices.deterministic=true", "--set", "train.steps=10"];
        let (whole, parts) = (format!("whole-{processes}"), format!("parts-{processes}"));
        let used = format!("emu*{processes}");
        folder.good(&[&["train"], &base[..], &["--devices", &*used, "--run-dir", &*whole]].concat());
        good(&folder, processes, &[&base[..], &["--devices", "emu", "--run-dir", &*parts]].concat());
        assert_eq!(curve(&folder, &parts), curve(&folder, &whole));
        assert!(folder.checkpoint(&parts, 10) == folder.checkpoint(&whole, 10));
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
    let chain = "chain = [{ clip_by_global_norm = 5.0 }, { weight_decay = 5e-4 }, { momentum = 0.9 }]";
    folder.write("method.toml", &SMALL.replace(chain, "method = \"lbfgs\""));
    let said = fails(&["method.toml", "--devices", "cpu"]);
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
