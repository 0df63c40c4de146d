//! `peristyle chaos`: stops runs of a user's own configuration in every way that machines stop them, in child processes
//! and only in a folder that it creates, resumes them, and compares them with a run that was never stopped.
//!
//! The verdicts are those of the ckpt-chaos project: *pass*, *hard fail* (the run cannot be resumed), *silent divergence*
//! (it can, but its weights, state or metrics differ), *lost work* (it went back behind a checkpoint it had reported).

use crate::device::{Random, RandomStream};
use crate::error::{Error, Result};
use crate::storage::{FaultKind, InjectedFault, VARIABLE};
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What is run, and how often it is stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct ChaosOptions {
    /// The arguments of `train` that every run shares: the configuration and its overrides.
    pub train: Vec<String>,
    /// The folder to create.
    pub dir: PathBuf,
    /// Updates of a run.
    pub steps: u64,
    /// Number of operations at which a run is killed.
    pub kills: u64,
    /// Number of runs that are killed at a random time.
    pub timed: u64,
    /// Number of operations at which a run gets a signal that lets it save.
    pub signals: u64,
    /// Number of operations that fail.
    pub errors: u64,
    /// The seed of the random choices.
    pub seed: u64,
}

/// The result of one stopped run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was resumed, and equals the run that was never stopped.
    Pass,
    /// It was resumed from an older checkpoint than the newest one that it had reported.
    LostWork,
    /// It was resumed, but differs.
    SilentDivergence,
    /// It could not be resumed.
    HardFail,
}

/// A run that was stopped.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// How it was stopped.
    pub fault: String,
    /// The result.
    pub verdict: Verdict,
    /// Why it did not pass.
    pub reason: String,
}

/// What stops a run.
#[derive(Debug, Clone, Copy)]
enum Cause {
    Fault(&'static str, InjectedFault),
    /// A kill from outside after a time.
    Kill(Duration),
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::Fault(name, fault) => write!(f, "{name} at operation {}", fault.at),
            Cause::Kill(after) => write!(f, "SIGKILL after {:.1} ms", after.as_secs_f64() * 1e3),
        }
    }
}

const KILL: FaultKind = FaultKind::Signal(9);
const SIGNALS: [(&str, FaultKind); 4] = [
    ("SIGTERM", FaultKind::Signal(15)),
    ("SIGINT", FaultKind::Signal(2)),
    ("SIGHUP", FaultKind::Signal(1)),
    ("SIGUSR1", FaultKind::Signal(10)),
];
const ERRORS: [(&str, FaultKind); 6] = [
    ("ENOSPC", FaultKind::Error(28)),
    ("EIO", FaultKind::Error(5)),
    ("a full disk from then on", FaultKind::Full),
    ("EMFILE", FaultKind::Error(24)),
    ("EDQUOT", FaultKind::Error(122)),
    ("EINTR", FaultKind::Error(4)),
];
/// How often a run may be resumed before it counts as one that cannot be.
const RESUMES: usize = 3;

/// Runs all trials; `report` is called after each.
///
/// # Errors
/// When the folder exists or cannot be created, or the run that is not stopped fails.
pub fn chaos(options: &ChaosOptions, mut report: impl FnMut(&Trial)) -> Result<Vec<Trial>> {
    let dir = &options.dir;
    fs::create_dir(dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::Usage(format!("{} exists already; give the name of a new folder with --dir", dir.display()))
        }
        _ => Error::io(dir, "create", e),
    })?;
    let (log, whole) = (dir.join("operations.txt"), dir.join("whole"));
    let begin = Instant::now();
    let output = run(options, &whole, Some(format!("log:{}", log.display())), None)?;
    let time = begin.elapsed();
    if !output.status.success() {
        let message = last_line(&output.stderr);
        return Err(Error::Run(format!("the run that is not stopped ended with {}: {message}", output.status)));
    }
    let operations = fs::read_to_string(&log).map_err(|e| Error::io(&log, "read", e))?.lines().count() as u64;
    let expected = Outcome::of(&whole, options.steps)?;
    let mut trials = Vec::new();
    for (number, cause) in causes(options, operations, time).into_iter().enumerate() {
        let run_dir = dir.join(format!("trial-{number:04}"));
        let (verdict, reason) = trial(options, &run_dir, cause, &expected)?;
        let trial = Trial { fault: cause.to_string(), verdict, reason };
        report(&trial);
        if verdict == Verdict::Pass {
            fs::remove_dir_all(&run_dir).map_err(|e| Error::io(&run_dir, "remove", e))?;
        }
        trials.push(trial);
    }
    if trials.iter().all(|trial| trial.verdict == Verdict::Pass) {
        fs::remove_dir_all(dir).map_err(|e| Error::io(dir, "remove", e))?;
    }
    Ok(trials)
}

/// Returns what stops the runs: operations that are evenly spaced over the run, and random times.
fn causes(options: &ChaosOptions, operations: u64, time: Duration) -> Vec<Cause> {
    let spread = |count: u64| {
        let count = count.min(operations);
        (0..count).map(move |i| 1 + (2 * i + 1) * operations / (2 * count))
    };
    let random = Random::new(options.seed, RandomStream::Probe, 0, 0);
    let mut causes: Vec<Cause> =
        spread(options.kills).map(|at| Cause::Fault("SIGKILL", InjectedFault { kind: KILL, at })).collect();
    for (kinds, count) in [(&SIGNALS[..], options.signals), (&ERRORS[..], options.errors)] {
        for (i, at) in spread(count).enumerate() {
            let (name, kind) = kinds[i % kinds.len()];
            causes.push(Cause::Fault(name, InjectedFault { kind, at }));
        }
    }
    let part = |i: u64| random.below(i, 1_000_000) as f64 / 1e6;
    causes.extend((0..options.timed).map(|i| Cause::Kill(time.mul_f64(part(i)))));
    causes
}

/// Runs `train` in a child process, which resumes the run in `dir` if there is one.
fn run(options: &ChaosOptions, dir: &Path, fault: Option<String>, kill: Option<Duration>) -> Result<Output> {
    let failed = |e: std::io::Error| Error::Run(format!("cannot start a child process: {e}"));
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("train").args(&options.train).args(["--set", &format!("train.steps={}", options.steps)]);
    command.args(["--resume", "auto", "--run-dir"]).arg(dir);
    command.env_remove(VARIABLE).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(fault) = fault {
        command.env(VARIABLE, fault);
    }
    let mut child = command.spawn().map_err(failed)?;
    if let Some(after) = kill {
        std::thread::sleep(after);
        // The child may have ended.
        let _ = child.kill();
    }
    child.wait_with_output().map_err(failed)
}

fn trial(options: &ChaosOptions, dir: &Path, cause: Cause, expected: &Outcome) -> Result<(Verdict, String)> {
    let stopped = match cause {
        Cause::Fault(_, fault) => run(options, dir, Some(fault.to_string()), None)?,
        Cause::Kill(after) => run(options, dir, None, Some(after))?,
    };
    if stopped.status.code() == Some(101) {
        return Ok((Verdict::HardFail, format!("a panic: {}", last_line(&stopped.stderr))));
    }
    let reported = checkpoints(&dir.join("metrics.jsonl")).into_iter().max().unwrap_or(0);
    let mut resumed_from = None;
    let mut last = stopped;
    for _ in 0..RESUMES {
        last = run(options, dir, None, None)?;
        resumed_from = resumed_from.or_else(|| start_of(&dir.join("metrics.jsonl")));
        if last.status.success() {
            break;
        }
    }
    if !last.status.success() {
        return Ok((Verdict::HardFail, format!("{}: {}", last.status, last_line(&last.stderr))));
    }
    let from = resumed_from.unwrap_or(0);
    if from < reported {
        return Ok((Verdict::LostWork, format!("resumed from step {from} after the checkpoint of step {reported}")));
    }
    Ok(match Outcome::of(dir, options.steps)?.difference(expected) {
        Some(difference) => (Verdict::SilentDivergence, difference),
        None => (Verdict::Pass, String::new()),
    })
}

fn last_line(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).lines().last().unwrap_or_default().to_string()
}

fn events(metrics: &Path) -> Vec<Value> {
    let text = fs::read_to_string(metrics).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Returns the steps of the checkpoints that a run has reported.
fn checkpoints(metrics: &Path) -> Vec<u64> {
    events(metrics).iter().filter(|event| event["event"] == "checkpoint").filter_map(|e| e["step"].as_u64()).collect()
}

/// Returns the step from which a run was last started or resumed.
fn start_of(metrics: &Path) -> Option<u64> {
    events(metrics).iter().rfind(|event| event["event"] == "start")?["step"].as_u64()
}

/// What a finished run leaves: its last checkpoint, and the metrics without times.
#[derive(Debug, PartialEq)]
struct Outcome {
    model: Vec<u8>,
    state: Vec<u8>,
    metrics: Vec<String>,
    leftovers: Vec<String>,
}

impl Outcome {
    fn of(dir: &Path, steps: u64) -> Result<Outcome> {
        let last = dir.join(format!("checkpoints/step-{steps:08}"));
        let read = |name: &str| fs::read(last.join(name)).map_err(|e| Error::io(&last.join(name), "read", e));
        let kept = |event: &&Value| ["step", "eval", "checkpoint"].iter().any(|kind| event["event"] == *kind);
        let timeless = |event: &Value| {
            let mut event = event.clone();
            if let Some(fields) = event.as_object_mut() {
                fields.retain(|key, _| !["seconds", "images_per_second", "input_wait"].contains(&key.as_str()));
            }
            event.to_string()
        };
        let metrics = events(&dir.join("metrics.jsonl"));
        // A checkpoint that a signal caused is not one of the whole run.
        let periodic = |event: &&Value| event["event"] != "checkpoint";
        let metrics = metrics.iter().filter(kept).filter(periodic).map(timeless).collect();
        let folder = dir.join("checkpoints");
        let names = fs::read_dir(&folder).map_err(|e| Error::io(&folder, "read", e))?.flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let leftovers =
            names.filter(|name| !name.trim_start_matches("step-").chars().all(|c| c.is_ascii_digit())).collect();
        Ok(Outcome { model: read("model.safetensors")?, state: read("state.safetensors")?, metrics, leftovers })
    }

    /// Returns how it differs from a run that was never stopped.
    fn difference(&self, expected: &Outcome) -> Option<String> {
        if self.model != expected.model {
            return Some("the weights differ".to_string());
        }
        if self.state != expected.state {
            return Some("the state of the optimiser differs".to_string());
        }
        if self.metrics != expected.metrics {
            let differ = self.metrics.iter().zip(&expected.metrics).find(|(a, b)| a != b);
            let lines = differ.map_or(String::new(), |(found, expected)| format!(": {found}, expected {expected}"));
            let (a, b) = (self.metrics.len(), expected.metrics.len());
            return Some(format!("the metrics differ ({a} lines, expected {b}){lines}"));
        }
        (!self.leftovers.is_empty()).then(|| format!("left behind: {}", self.leftovers.join(", ")))
    }
}
