//! Runs as processes that start together, are killed, or are started by a launcher.

mod common;

use common::runs::{Folder, events, losses, output_of, peristyle};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that is killed when it is dropped.
struct Live {
    child: Child,
    /// The first line of its stderr, which names the run directory.
    first: String,
}

impl Live {
    fn start(command: &mut Command) -> Live {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut first).unwrap();
        Live { child, first }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Waits until `metrics.jsonl` of a run holds a text.
    fn until(&mut self, folder: &Folder, dir: &str, text: &str) {
        let path = folder.at(dir).join("metrics.jsonl");
        let begin = Instant::now();
        while !std::fs::read_to_string(&path).is_ok_and(|metrics| metrics.contains(text)) {
            assert!(begin.elapsed() < Duration::from_secs(120), "no {text} in {path:?}");
            assert!(self.child.try_wait().unwrap().is_none(), "the run ended before {text}");
            std::thread::yield_now();
        }
    }

    /// Waits for the end; returns how the process ended and the last line of its stderr.
    fn end(mut self) -> (std::process::ExitStatus, String) {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap(), text.lines().last().unwrap_or_default().to_string())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LONG: [&str; 4] = ["train", "small.toml", "--set", "train.steps=1000000"];

#[test]
fn a_live_run_has_one_owner() {
    let folder = Folder::new("owner-live");
    let live = Live::start(peristyle(&folder.0).args(LONG).args(["--run-dir", "run"]));
    assert_eq!(live.first, "run directory: run\n");
    let owner = format!("run is in use by the run of process {} on ", live.child.id());
    for more in [&["--run-dir", "run"][..], &["--run-dir", "run", "--resume"]] {
        let begin = Instant::now();
        let output = folder.run(&[&LONG, more].concat());
        assert_eq!((output.code, output.out.as_str()), (Some(2), ""), "{}", output.err);
        assert!(output.err.contains(&owner), "{}", output.err);
        // It promises to end within a second.
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
    // Without a directory, a start takes the next name, and the live run does not block it.
    let output = folder.good(&["train", "small.toml", "--set", "train.steps=1"]);
    assert_eq!(output.out, "runs/small\n");
}

#[test]
fn runs_that_start_together_get_different_directories() {
    let folder = Folder::new("owner-together");
    let start = |seed: u32| {
        let mut command = peristyle(&folder.0);
        command.args(["train", "small.toml", "--set", "train.steps=3", "--set", &format!("seed={seed}")]);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<Child> = (1..=4).map(start).collect();
    let outputs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    assert!(outputs.iter().all(|output| output.status.success()));
    let mut dirs: Vec<String> = outputs.into_iter().map(|output| String::from_utf8(output.stdout).unwrap()).collect();
    for (seed, dir) in (1..).zip(&dirs) {
        assert!(folder.read(&format!("{}/config.toml", dir.trim())).contains(&format!("seed = {seed}")), "{dir}");
        assert_eq!(losses(&folder.metrics(dir.trim())).len(), 3);
    }
    dirs.sort();
    assert_eq!(dirs, ["runs/small\n", "runs/small-2\n", "runs/small-3\n", "runs/small-4\n"]);
}

#[test]
fn a_run_killed_before_its_first_checkpoint_resumes_at_step_0() {
    let folder = Folder::new("owner-killed");
    folder.train("weights", &["--set", "train.steps=1"]);
    for from in ["seed=3", "model.from=\"weights/checkpoints/step-00000001/model.safetensors\""] {
        let more = ["--set", from, "--set", "train.steps=3"];
        let (run, straight) = (format!("run-{}", from.len()), format!("straight-{}", from.len()));
        folder.train(&straight, &more);
        // The configuration is written and the directory is printed before the data are loaded.
        let mut live = Live::start(peristyle(&folder.0).args(LONG).args(["--set", from, "--run-dir", &run]));
        live.child.kill().unwrap();
        live.child.wait().unwrap();
        let output = folder.train(&run, &[&more[..], &["--resume"]].concat());
        let note = "the run ended before its first checkpoint; it starts again at step 0";
        assert!(output.err.contains(note), "{}", output.err);
        assert_eq!(losses(&folder.metrics(&run)), losses(&folder.metrics(&straight)));
    }
}

#[test]
fn a_lock_left_by_a_kill_is_taken_over() {
    let folder = Folder::new("owner-stale");
    folder.train("run", &["--set", "train.steps=2"]);
    let live = Live::start(peristyle(&folder.0).args(LONG).args(["--run-dir", "run", "--resume"]));
    drop(live);
    let output = folder.train("run", &["--set", "train.steps=4", "--resume"]);
    assert_eq!(output.out, "run\n");
}

#[test]
fn resume_without_a_directory_takes_the_run_that_was_started_last() {
    let folder = Folder::new("owner-newest");
    let train = |more: &[&str]| folder.good(&[&["train", "small.toml"], more].concat()).out;
    assert_eq!(train(&["--set", "train.steps=1"]), "runs/small\n");
    assert_eq!(train(&["--set", "train.steps=1"]), "runs/small-2\n");
    assert_eq!(train(&["--set", "train.steps=2", "--resume"]), "runs/small-2\n");
    assert_eq!(train(&["--set", "train.steps=2", "--resume", "--run-dir", "runs/small"]), "runs/small\n");
    assert_eq!(train(&["--set", "train.steps=3", "--resume"]), "runs/small\n");
    // A number without its predecessors counts, other names do not.
    std::fs::rename(folder.at("runs/small-2"), folder.at("runs/small-7")).unwrap();
    std::fs::create_dir_all(folder.at("runs/small-other/checkpoints")).unwrap();
    assert_eq!(train(&["--set", "train.steps=3", "--resume", "--run-dir", "runs/small-7"]), "runs/small-7\n");
    assert_eq!(train(&["--set", "train.steps=4", "--resume"]), "runs/small-7\n");
}

#[test]
fn a_start_that_fails_leaves_no_directory() {
    let folder = Folder::new("owner-failed");
    let labels = "data.train.idx.labels=\"broken.gz\"";
    folder.write("broken.gz", "not labels");
    let output = folder.run(&["train", "small.toml", "--set", labels]);
    assert_eq!(output.code, Some(2), "{}", output.err);
    assert!(!folder.at("runs/small").exists());
    assert_eq!(folder.good(&["train", "small.toml", "--set", "train.steps=1"]).out, "runs/small\n");
}

#[test]
fn one_of_several_processes_without_mpi_is_rejected_before_anything_is_created() {
    let folder = Folder::new("owner-launcher");
    let start = |more: &[&str]| {
        let mut command = peristyle(&folder.0);
        command.args(["train", "small.toml", "--set", "train.steps=1"]).args(more);
        output_of(command.env("WORLD_SIZE", "2").env("RANK", "1"))
    };
    let output = start(&[]);
    assert_eq!((output.code, output.out.as_str()), (Some(2), ""), "{}", output.err);
    assert!(
        output
            .err
            .contains("this is process 1 of 2 of PyTorchJob, which has no MPI to exchange the tensors of CPU devices"),
        "{}",
        output.err
    );
    assert!(!folder.at("runs").exists());
    assert_eq!(start(&["--set", "cluster.processes=1"]).out, "runs/small\n");
    let output = folder.run(&["check", "small.toml", "--set", "cluster.processes=0"]);
    assert!(
        output.code == Some(2) && output.err.contains("[cluster]: processes = 0, expected at least 1"),
        "{}",
        output.err
    );
}

#[test]
fn under_a_launcher_one_process_prints_and_what_is_for_one_process_is_refused() {
    let folder = Folder::new("owner-ranks");
    let start = |rank: &str, arguments: &[&str]| {
        let variables = [("OMPI_COMM_WORLD_RANK", rank), ("OMPI_COMM_WORLD_SIZE", "2")];
        output_of(peristyle(&folder.0).args(arguments).envs(variables))
    };
    for command in ["check", "plan"] {
        let alone = folder.good(&[command, "small.toml"]);
        let (first, second) = (start("0", &[command, "small.toml"]), start("1", &[command, "small.toml"]));
        assert_eq!((first.code, first.out), (Some(0), alone.out));
        assert_eq!((second.code, second.out.as_str(), second.err.as_str()), (Some(0), "", ""));
    }
    let output = start("0", &["eval", "runs/small"]);
    assert_eq!(output.code, Some(2));
    let refused = "peristyle: this is process 0 of 2 of Open MPI, but only train and bench allreduce --processes work with several processes; start this command \
                   without the launcher\n";
    assert_eq!(output.err, refused);
    let devices = |rank| start(rank, &["devices"]).out;
    assert!(devices("1").contains("\nlauncher: this is process 1 of 2 of Open MPI\n"), "{}", devices("1"));
    let wrong = "\nlauncher: OMPI_COMM_WORLD_RANK = 2 and OMPI_COMM_WORLD_SIZE = 2, expected";
    assert!(devices("2").contains(wrong), "{}", devices("2"));
    assert!(folder.good(&["devices"]).out.contains("\nlauncher: none, this process is alone\n"));
}

#[test]
fn a_signal_saves_a_checkpoint_and_then_ends_the_process_as_it_should() {
    let folder = Folder::new("ends");
    for (name, number) in [("INT", Some(2)), ("TERM", Some(15)), ("HUP", Some(1)), ("USR1", None)] {
        let mut live = Live::start(peristyle(&folder.0).args(LONG).args(["--run-dir", name]));
        live.until(&folder, name, "\"step\":3,");
        live.signal(&format!("-{name}"));
        let (status, last) = live.end();
        assert_eq!(status.signal(), number, "{name}: {status}");
        assert_eq!(status.code(), if number.is_some() { None } else { Some(75) }, "{name}: {status}");
        let steps = losses(&folder.metrics(name)).len() as u64;
        let to_continue = format!(
            "SIG{name} after step {steps}; to continue: peristyle {} --resume --run-dir {name}",
            LONG.join(" ")
        );
        assert_eq!(last, to_continue);
        folder.checkpoint(name, steps);
        assert_eq!(events(&folder.metrics(name), "end")[0]["reason"], "interrupted");
    }
}

#[test]
fn a_signal_before_training_ends_the_process_at_once() {
    let folder = Folder::new("ends-early");
    // Planning for so many devices takes much longer than a signal, and precedes the run directory.
    let config = common::file("configs/resnet18.toml");
    for (name, number) in [("TERM", Some(15)), ("USR1", None)] {
        let mut command = peristyle(&folder.0);
        command.arg("train").arg(&config).args(["--set", "devices.use=\"cpu*128\"", "--set", "data.batch=128"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let live = Live { child: command.spawn().unwrap(), first: String::new() };
        let handles_signals = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", live.child.id())).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
            u64::from_str_radix(mask, 16).unwrap() >> 9 & 1 == 1 // SIGUSR1 is signal 10, the last that is handled.
        };
        let begin = Instant::now();
        while !handles_signals() {
            assert!(begin.elapsed() < Duration::from_secs(60), "it handles no signals");
            std::thread::yield_now();
        }
        live.signal(&format!("-{name}"));
        let (status, _) = live.end();
        assert_eq!((status.signal(), status.code()), (number, number.is_none().then_some(75)), "{name}: {status}");
        assert!(!folder.at("runs").exists());
    }
}

#[test]
fn an_evaluation_is_interrupted_and_made_up_for() {
    let folder = Folder::new("ends-evaluation");
    let more = [
        "--set",
        "data.test={synthetic={images=400000,classes=10,shape=[8,8,1]}}",
        "--set",
        "train.evaluate=\"2 steps\"",
        "--set",
        "train.checkpoint.every=\"2 steps\"",
    ];
    // The last evaluation of a run counts too: without it, the run is not finished.
    let train = ["train", "small.toml", "--set", "train.steps=2"];
    let mut live = Live::start(peristyle(&folder.0).args(train).args(more).args(["--run-dir", "run"]));
    live.until(&folder, "run", "\"step\":2,");
    let begin = Instant::now();
    live.signal("-TERM");
    let (status, _) = live.end();
    let seconds = begin.elapsed().as_secs_f64();
    assert_eq!(status.signal(), Some(15), "{status}");
    assert!(events(&folder.metrics("run"), "eval").is_empty(), "the evaluation took less than {seconds} s");
    folder.train("run", &[&more[..], &["--set", "train.steps=2", "--resume"]].concat());
    folder.train("whole", &[&more[..], &["--set", "train.steps=2"]].concat());
    let evaluations = |dir| events(&folder.metrics(dir), "eval");
    assert_eq!(evaluations("run"), evaluations("whole"));
    assert_eq!(folder.checkpoint("run", 2), folder.checkpoint("whole", 2));
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let folder = Folder::new("ends-nohup");
    let program = format!("trap '' HUP; exec {} {} --run-dir run", env!("CARGO_BIN_EXE_peristyle"), LONG.join(" "));
    let mut live = Live::start(Command::new("sh").args(["-c", &program]).current_dir(&folder.0));
    live.until(&folder, "run", "\"step\":1,");
    live.signal("-HUP");
    live.until(&folder, "run", "\"step\":20,");
    live.signal("-TERM");
    assert_eq!(live.end().0.signal(), Some(15));
}
