//! The command line: one file per subcommand, which parses arguments, calls the library and prints the results.
//!
//! To add a subcommand: write `cli/x.rs` with its arguments and a `run`, and add a line to `Command`.

mod bar;
mod bench;
mod chaos;
mod check;
mod ckpt;
mod compare;
mod configured;
mod devices;
mod diagnose;
mod eval;
mod eval_report;
mod gradcheck;
mod launch;
mod launched;
mod output;
mod plan;
mod predict;
mod selftest;
mod train;

use crate::cluster::{Process, Stated};
use crate::config::setting_named;
use crate::device::report_aborts;
use crate::error::{Error, Result};
use crate::gpu;
use crate::train::signals;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0   finished
  1   ran, but failed: a step, a file or a check
  2   a mistake on the command line, in the configuration or in the data; nothing was started
  75  SIGUSR1 or train.max_time: a checkpoint was written; start the run again with --resume
SIGINT, SIGTERM and SIGHUP: train writes a checkpoint and then ends by that signal. A second signal ends it at once.";

/// Trains neural networks from one TOML file.
#[derive(Debug, Parser)]
#[command(name = "peristyle", version, about, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trains the network of a configuration.
    Train(train::Arguments),
    /// Evaluates a run or a checkpoint.
    Eval(eval::Arguments),
    /// Names the most probable classes of pictures.
    Predict(predict::Arguments),
    /// Trains the variants of an experiment with several seeds, draws their curves together and checks what is expected of them.
    Compare(compare::Arguments),
    /// Prints the exact program that train would run.
    Plan(plan::Arguments),
    /// Checks a configuration: prints every mistake, or a summary of the network.
    Check(check::Arguments),
    /// Starts a command as several processes of this machine.
    Launch(launch::Arguments),
    /// Lists this machine's devices and the kernels that they would use.
    Devices,
    /// Checks gradients against finite differences, in double precision.
    Gradcheck(gradcheck::Arguments),
    /// Shows how a network behaves: the spread of its activations and gradients at its initial values.
    Diagnose(diagnose::Arguments),
    /// Checks that this binary computes correctly on a device of this machine.
    Selftest(selftest::Arguments),
    /// Measures the training step, its layers, or all-reduces.
    Bench(bench::Arguments),
    /// Shows, compares or verifies checkpoints.
    Ckpt(ckpt::Arguments),
    /// Stops runs of a configuration by kills, signals, I/O errors and full disks, resumes them, and compares the results.
    Chaos(chaos::Arguments),
}

/// Runs the command line; returns the exit code: 0, 1 = ran but failed, 2 = a user mistake.
pub fn main() -> i32 {
    launch::follow_parent();
    if let Err(error) = report_aborts() {
        output::failure(&error);
        return error.exit_code();
    }
    let result = match Cli::try_parse() {
        Ok(cli) => run(&cli.command),
        Err(help) if !help.use_stderr() => output::print(&help.render().to_string()),
        Err(mistake) => {
            output::messages(&with_advice(mistake).render().to_string());
            return 2;
        }
    };
    let code = result.as_ref().err().map_or(0, Error::exit_code);
    if let Err(error) = &result {
        output::failure(error);
    }
    if gpu::nccl::leaves_threads() {
        // At an orderly end, the library may wait for them.
        signals::leave(code);
    }
    code
}

fn run(command: &Command) -> Result<()> {
    if !goes_on(command, Process::find(&Stated::default(), &|name| std::env::var(name).ok()))? {
        return Ok(());
    }
    match command {
        Command::Train(arguments) => train::run(arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Predict(arguments) => predict::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
        Command::Plan(arguments) => plan::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Launch(arguments) => launch::run(arguments),
        Command::Devices => devices::run(),
        Command::Gradcheck(arguments) => gradcheck::run(arguments),
        Command::Diagnose(arguments) => diagnose::run(arguments),
        Command::Selftest(arguments) => selftest::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Ckpt(arguments) => ckpt::run(arguments),
        Command::Chaos(arguments) => chaos::run(arguments),
    }
}

/// Returns whether a process that a launcher may have started runs a command. What only reads and prints is done by process 0.
///
/// # Errors
/// If the command is one for a single process.
fn goes_on(command: &Command, found: Result<Option<Process>>) -> Result<bool> {
    match command {
        // It knows `[cluster]`, too.
        Command::Train(_) | Command::Devices => Ok(true),
        Command::Bench(arguments) if arguments.is_between_processes() => Ok(true),
        Command::Plan(_) | Command::Check(_) | Command::Ckpt(_) => {
            Ok(found.ok().flatten().is_none_or(|process| process.rank == 0))
        }
        _ => match found? {
            None => Ok(true),
            Some(process) => Err(Error::Usage(format!(
                "this is {process}, but only train and bench allreduce --processes work with several processes; start this command without the launcher"
            ))),
        },
    }
}

/// Replaces the advice on an unknown option by how to change a setting: `--lr` is a common guess.
fn with_advice(mut error: clap::Error) -> clap::Error {
    let to_pass = |tip: &StyledStr| tip.to_string().starts_with("to pass");
    let tips = error.get(ContextKind::Suggested);
    let generic = matches!(tips, Some(ContextValue::StyledStrs(tips)) if tips.iter().any(to_pass));
    let option = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option)) if error.kind() == ErrorKind::UnknownArgument => option.clone(),
        _ => String::new(),
    };
    let setting = option.strip_prefix("--").and_then(setting_named);
    let tip = match setting {
        Some(path) => {
            let value = value_of(&option, std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()))
                .unwrap_or_else(|| "VALUE".to_string());
            format!("to change {path}, use '--set', as in '--set {path}={value}'")
        }
        None if generic => {
            "to change a setting of the configuration, use '--set', as in '--set optimizer.lr=0.1'".to_string()
        }
        None => return error,
    };
    error.remove(ContextKind::SuggestedArg);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}

/// Returns the value that the command line gives an option, as in `--lr 0.1` or `--lr=0.1`.
fn value_of(option: &str, mut arguments: impl Iterator<Item = String>) -> Option<String> {
    let rest = arguments.find_map(|argument| match argument.strip_prefix(option) {
        Some("") => Some(None),
        Some(rest) => rest.strip_prefix('=').map(|value| Some(value.to_string())),
        None => None,
    })?;
    rest.or_else(|| arguments.next().filter(|next| !next.starts_with("--")))
}
