//! `peristyle selftest`.

use super::output::{message, passing, print, print_json};
use crate::diagnose::selftest::{Effort, Row, Selftest, SelftestEvent, SelftestReport};
use crate::error::{Error, Result};
use std::io::IsTerminal;

/// Arguments of `selftest`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The device: cpu, emu, cuda:0; auto is the best device of this machine.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// Runs only a few cases of each check, for example under a sanitizer.
    #[arg(long)]
    quick: bool,
    /// Runs only the checks whose name contains TEXT, for example "conv" or "optimizer".
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
    /// Does not check the products and convolutions of NVIDIA's libraries.
    #[arg(long)]
    no_libraries: bool,
    /// Prints each check as a JSON object in a line of its own, then the whole report, instead of the table.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let effort = if arguments.quick { Effort::Quick } else { Effort::Whole };
    let selftest = Selftest::open(&arguments.device, effort, !arguments.no_libraries)?;
    let table = !arguments.json;
    if table {
        print(&header())?;
    }
    let terminal = std::io::stderr().is_terminal();
    let mut printed = Ok(());
    let report = selftest.run(&arguments.only, &mut |event| match event {
        // On a terminal, the finished row overwrites this line.
        SelftestEvent::Begins(check) if terminal => passing(check),
        SelftestEvent::Begins(check) => message(&format!("selftest: {check}")),
        SelftestEvent::Done(row) if printed.is_ok() => {
            printed = if table { print(&line(row)) } else { json(row).and_then(|row| print_json(&row)) };
        }
        SelftestEvent::Done(_) => {}
    });
    printed?;
    if table {
        print(&footer(&report))?;
    } else {
        print_json(&json(&report)?)?;
    }
    if report.rows.is_empty() {
        return Err(Error::Usage(format!(
            "--only \"{}\": no check of this device has this in its name",
            arguments.only
        )));
    }
    let failed: Vec<String> =
        report.rows.iter().filter(|row| !row.passed()).map(|row| format!("{} {}", row.check, row.precision)).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let (count, all) = (failed.len(), report.rows.len());
    Err(Error::Goal(format!("{}: {count} of {all} checks failed: {}", report.device, failed.join(", "))))
}

/// Returns a line of JSON.
fn json(value: &impl serde::Serialize) -> Result<String> {
    let line = serde_json::to_string(value);
    line.map(|line| line + "\n").map_err(|error| Error::Run(format!("the report cannot be written as JSON: {error}")))
}

fn header() -> String {
    format!(
        "{:<22} {:<9} {:>5} {:>13} {:>8} {:>8}  {}\n",
        "check", "precision", "cases", "largest error", "bound", "seconds", "verdict"
    )
}

fn line(row: &Row) -> String {
    let verdict = if row.passed() { "ok" } else { "FAILED" };
    format!(
        "{:<22} {:<9} {:>5} {:>13.2e} {:>8.0e} {:>8.2}  {verdict}\n",
        row.check, row.precision, row.cases, row.error, row.bound, row.seconds
    )
}

fn footer(report: &SelftestReport) -> String {
    let mut text = String::new();
    for row in report.rows.iter().filter(|row| !row.passed()) {
        text += &format!("\n{} {}: {} of {} cases failed\n", row.check, row.precision, row.failed, row.cases);
        if let Some(failure) = &row.failure {
            text += &format!("  {failure}\n");
        }
    }
    let capability = report.capability.as_ref().map_or(String::new(), |c| format!(", compute capability {c}"));
    text += &format!("\n{}: {}{capability}, {:.1} s\n", report.device, report.name, report.seconds);
    for image in &report.images {
        text += &format!("{} kernels: {}\n", image.kernels, image.code);
    }
    for skipped in &report.skipped {
        text += &format!("not checked: {skipped}\n");
    }
    text
}
