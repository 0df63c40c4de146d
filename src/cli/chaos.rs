//! `peristyle chaos CONFIG`.

use super::configured::Configured;
use super::output::{message, print, print_json};
use crate::diagnose::{ChaosOptions, Trial, Verdict, chaos};
use crate::error::{Error, Result, quantity};
use std::path::PathBuf;

/// Arguments of `chaos`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// The folder in which the runs are made; it must not exist, and is removed if all pass.
    #[arg(long, value_name = "DIR", default_value = "chaos")]
    dir: PathBuf,
    /// Updates of a run; the last one saves a checkpoint, others as the configuration says.
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: u64,
    /// Number of operations on files at which a run is killed.
    #[arg(long, value_name = "N", default_value_t = 20)]
    kills: u64,
    /// Number of runs that are killed at a random time.
    #[arg(long, value_name = "N", default_value_t = 10)]
    timed: u64,
    /// Number of operations on files at which a run gets SIGTERM, SIGINT, SIGHUP or SIGUSR1, in turn.
    #[arg(long, value_name = "N", default_value_t = 12)]
    signals: u64,
    /// Number of operations on files that fail: no space, an I/O error and others, in turn.
    #[arg(long, value_name = "N", default_value_t = 12)]
    errors: u64,
    /// The seed of the random times.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Prints every trial as a line of JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Configured { config, sets, devices } = &arguments.configured;
    let mut train = vec![config.display().to_string()];
    train.extend(sets.iter().flat_map(|set| ["--set".to_string(), set.clone()]));
    train.extend(devices.iter().flat_map(|devices| ["--devices".to_string(), devices.clone()]));
    let Arguments { steps, kills, timed, signals, errors, seed, .. } = *arguments;
    let options = ChaosOptions { train, dir: arguments.dir.clone(), steps, kills, timed, signals, errors, seed };
    let trials = chaos(&options, |trial| {
        if !arguments.json && trial.verdict != Verdict::Pass {
            message(&format!("{}: {}: {}", trial.fault, name(trial.verdict), trial.reason));
        }
    })?;
    if arguments.json {
        for trial in &trials {
            let line = serde_json::to_string(trial);
            print_json(&(line.map_err(|e| Error::Run(format!("a trial cannot be written as JSON: {e}")))? + "\n"))?;
        }
    } else {
        print(&table(&trials))?;
    }
    let failed = trials.iter().filter(|trial| trial.verdict != Verdict::Pass).count();
    if failed > 0 {
        let (dir, failed) = (arguments.dir.display(), quantity(failed as u64, "run"));
        return Err(Error::Goal(format!("{failed} of {} did not pass; they are in {dir}", trials.len())));
    }
    Ok(())
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::HardFail => "hard fail",
        Verdict::SilentDivergence => "silent divergence",
        Verdict::LostWork => "lost work",
    }
}

fn table(trials: &[Trial]) -> String {
    let kind = |trial: &Trial| {
        let words: Vec<&str> = trial.fault.split(" at operation ").collect();
        words[0].split(" after ").next().unwrap_or_default().to_string()
            + if words.len() == 1 { " (timed)" } else { "" }
    };
    let mut kinds: Vec<String> = trials.iter().map(kind).collect();
    kinds.sort();
    kinds.dedup();
    let verdicts = [Verdict::Pass, Verdict::HardFail, Verdict::SilentDivergence, Verdict::LostWork];
    let mut text = format!("{:<26}{:>6}", "stopped by", "runs");
    verdicts.iter().for_each(|&verdict| text += &format!("{:>19}", name(verdict)));
    text += "\n";
    for row in kinds {
        let of_kind: Vec<&Trial> = trials.iter().filter(|trial| kind(trial) == row).collect();
        text += &format!("{row:<26}{:>6}", of_kind.len());
        for verdict in verdicts {
            text += &format!("{:>19}", of_kind.iter().filter(|trial| trial.verdict == verdict).count());
        }
        text += "\n";
    }
    text
}
