//! Promise 2: a run that is stopped at any moment and resumed is bit-identical to a run that never stopped.

use crate::common::runs::{Folder, events, losses, peristyle};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

/// Resumes a run and trains it to step `to`.
fn resume(folder: &Folder, dir: &str, to: u64, more: &[&str]) {
    let steps = format!("train.steps={to}");
    folder.train(dir, &[&["--resume", "--set", &steps], more].concat());
}

/// Compares a resumed run with one that never stopped: weights, optimiser and the events of all steps.
fn assert_same(folder: &Folder, resumed: &str, whole: &str, step: u64) {
    assert!(folder.checkpoint(resumed, step) == folder.checkpoint(whole, step), "{resumed} differs at step {step}");
    let steps = |dir: &str| {
        let metrics = folder.metrics(dir);
        let losses = losses(&metrics);
        assert!(losses.len() as u64 >= step, "{dir}: {} steps", losses.len());
        let mut steps = events(&metrics, "step");
        steps.truncate(step as usize);
        steps
    };
    assert_eq!(steps(resumed), steps(whole), "{resumed}");
}

/// Copies a run as it was at one of its checkpoints, but with all of its metrics, as a killed run leaves them.
fn copy(folder: &Folder, from: &str, to: &str, step: u64) {
    let copied = Command::new("cp").arg("-r").arg(folder.at(from)).arg(folder.at(to)).status().unwrap();
    assert!(copied.success());
    for entry in std::fs::read_dir(folder.at(to).join("checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if name.trim_start_matches("step-").parse::<u64>().unwrap() > step {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
}

#[test]
fn a_run_resumes_from_any_checkpoint_bit_for_bit_with_any_number_of_threads() {
    let folder = Folder::new("resume-steps");
    for precision in ["f32", "f64"] {
        let precise = format!("devices.precision=\"{precision}\"");
        let whole = format!("whole-{precision}");
        folder.train(&whole, &["--set", &precise, "--set", "train.steps=30", "--set", "devices.threads=1"]);
        // In the first epoch, just after its end (an epoch has 13 steps, not a multiple of 7), and in a later one.
        for (at, threads) in [(7, 3), (14, 2), (28, 1)] {
            let dir = format!("{precision}-{at}");
            copy(&folder, &whole, &dir, at);
            let threads = format!("devices.threads={threads}");
            resume(&folder, &dir, 30, &["--set", &precise, "--set", &threads]);
            assert_same(&folder, &dir, &whole, 30);
            let evaluations = |dir: &str| events(&folder.metrics(dir), "eval");
            assert_eq!(evaluations(&dir), evaluations(&whole));
            let starts: Vec<u64> =
                events(&folder.metrics(&dir), "start").iter().map(|start| start["step"].as_u64().unwrap()).collect();
            assert_eq!(starts, [0, at]);
        }
    }
}

#[test]
fn a_finished_run_resumes_as_if_it_had_been_longer() {
    let folder = Folder::new("resume-longer");
    folder.train("whole", &["--set", "train.steps=25"]);
    for steps in [1, 12, 13, 17] {
        let dir = format!("short-{steps}");
        folder.train(&dir, &["--set", &format!("train.steps={steps}")]);
        resume(&folder, &dir, 25, &[]);
        assert_same(&folder, &dir, "whole", 25);
    }
    let before = folder.files("whole");
    let output = folder.train("whole", &["--resume", "--set", "train.steps=25"]);
    assert!(output.err.contains("finished after 25 steps"), "{}", output.err);
    let (before, after) = (before.len(), folder.files("whole").len());
    assert_eq!(before, after, "a finished run has nothing to do");
    assert_eq!(losses(&folder.metrics("whole")).len(), 25);
}

/// Returns how many steps a run has reported.
fn steps_reported(folder: &Folder, dir: &str) -> u64 {
    let text = std::fs::read_to_string(folder.at(dir).join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter(|line| line.starts_with("{\"event\":\"step\"") && line.ends_with('}')).count() as u64
}

/// A run in progress.
struct Running<'f> {
    folder: &'f Folder,
    dir: &'static str,
    child: Child,
}

impl Running<'_> {
    /// Starts a run that is too long to finish.
    fn start<'f>(folder: &'f Folder, dir: &'static str, more: &[&str]) -> Running<'f> {
        let mut command = peristyle(&folder.0);
        command.args(["train", "small.toml", "--run-dir", dir, "--set", "train.steps=1000000"]).args(more);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Running { folder, dir, child }
    }

    /// Returns once `steps` steps have been reported.
    fn until(&mut self, steps: u64) {
        for _ in 0..10_000_000 {
            if steps_reported(self.folder, self.dir) >= steps {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the run ended before it was stopped");
            std::thread::yield_now();
        }
        self.child.kill().unwrap();
        panic!("the run made no progress");
    }

    /// Sends a signal, waits for the end and returns the signal that ended the process and the number of steps reported.
    fn stop(mut self, signal: &str) -> (Option<i32>, u64) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let ended = self.child.wait().unwrap().signal();
        (ended, steps_reported(self.folder, self.dir))
    }
}

#[test]
fn a_run_stopped_by_a_signal_resumes_bit_for_bit() {
    let folder = Folder::new("resume-signals");
    // The step at which a signal arrives varies; the uninterrupted run is as long as the longest of these.
    let mut ends = Vec::new();
    for (dir, signal, after) in [
        ("term", "-TERM", 3),
        ("int", "-INT", 20),
        ("kill-9", "-KILL", 9),
        ("kill-15", "-KILL", 15),
        ("kill-22", "-KILL", 22),
        ("kill-40", "-KILL", 40),
    ] {
        let mut run = Running::start(&folder, dir, &["--set", "devices.threads=2"]);
        run.until(after);
        let (ended, steps) = run.stop(signal);
        if signal == "-KILL" {
            assert_eq!(ended, Some(9), "{dir}");
        } else {
            assert_eq!(ended, Some(if signal == "-INT" { 2 } else { 15 }), "{dir}");
            let metrics = folder.metrics(dir);
            let end = events(&metrics, "end");
            assert_eq!((end.len(), &end[0]["reason"], &end[0]["steps"]), (1, &"interrupted".into(), &steps.into()));
            folder.checkpoint(dir, steps);
        }
        let to = (steps + 5).next_multiple_of(7);
        resume(&folder, dir, to, &["--set", "devices.threads=1"]);
        ends.push((dir, to));
    }
    let longest = ends.iter().map(|&(_, to)| to).max().unwrap();
    folder.train("whole", &["--set", &format!("train.steps={longest}")]);
    for (dir, to) in ends {
        assert_same(&folder, dir, "whole", to);
    }
}

#[test]
fn a_killed_resume_is_resumed() {
    let folder = Folder::new("resume-twice");
    folder.train("run", &["--set", "train.steps=8"]);
    let mut run = Running::start(&folder, "run", &["--resume"]);
    run.until(20);
    let (_, steps) = run.stop("-KILL");
    let to = (steps + 3).next_multiple_of(7);
    resume(&folder, "run", to, &[]);
    folder.train("whole", &["--set", &format!("train.steps={to}")]);
    assert_same(&folder, "run", "whole", to);
}

#[test]
fn a_run_moves_from_four_devices_to_one_and_back_on_its_curve() {
    let folder = Folder::new("resume-devices");
    let on = |devices: &str, mesh: &str, precision: &str| {
        [
            format!("devices.use=\"{devices}\""),
            format!("devices.mesh={mesh}"),
            format!("devices.precision=\"{precision}\""),
        ]
    };
    // In f64, only the order of sums differs; in f32, thirty updates of a batch-norm network amplify rounding.
    for (precision, bound) in [("f64", 1e-9), ("f32", 1e-3)] {
        let (moved, whole) = (format!("moved-{precision}"), format!("whole-{precision}"));
        let train = |dir: &str, steps: u64, devices: &str, mesh: &str, resume: bool| {
            let mut arguments = vec!["--set".to_string(), format!("train.steps={steps}")];
            arguments.extend(on(devices, mesh, precision).into_iter().flat_map(|set| ["--set".to_string(), set]));
            if resume {
                arguments.push("--resume".to_string());
            }
            folder.train(dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        };
        train(&whole, 30, "cpu", "{ data = 1 }", false);
        train(&moved, 10, "cpu*4", "{ data = 2, columns = 2 }", false);
        train(&moved, 20, "cpu", "{ data = 1 }", true);
        train(&moved, 30, "cpu*4", "{ data = 4 }", true);
        let (moved, whole) = (losses(&folder.metrics(&moved)), losses(&folder.metrics(&whole)));
        assert_eq!(moved.len(), 30);
        for (step, (a, b)) in moved.iter().zip(&whole).enumerate() {
            let difference = (a - b).abs() / b.abs();
            assert!(difference <= bound, "{precision}, step {}: {a} and {b}, {difference:e}", step + 1);
        }
    }
}
