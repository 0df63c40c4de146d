//! `peristyle compare FILE..`.

use super::bar::Progress;
use super::output::{notes, print, print_json};
use crate::diagnose::compare::{Comparison, Experiment, Finding, Moment, Quantity, median, shown};
use crate::error::{Error, Result, quantity};
use crate::storage::Fs;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ABOUT: &str = "A file names variants: configurations with overrides. Each is trained with each seed, one run after another. The values \
    are medians over the seeds. docs/EXPERIMENTS.md describes the file.

The exit code is 1 if an expectation does not hold.";

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT)]
pub(super) struct Arguments {
    /// The experiments.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The seeds, in place of those of the files.
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    seeds: Option<Vec<u64>>,
    /// The folder of the pictures, and of runs whose weights others start from; by default compare/NAME. With several files, each has a
    /// folder of its own in it.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Prints one line of JSON for each file: all values and findings.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let open = |file: &PathBuf| Experiment::open(file, arguments.seeds.as_deref());
    // All mistakes come before the first run.
    let experiments: Vec<Experiment> = arguments.files.iter().map(open).collect::<Result<_>>()?;
    for (index, experiment) in experiments.iter().enumerate() {
        if experiments[..index].iter().any(|other| other.name == experiment.name) {
            let name = &experiment.name;
            return Err(Error::Usage(format!("two files are called {name}; run them one after another")));
        }
    }
    let (mut all, mut failed) = (0, 0);
    for experiment in &experiments {
        let dir = match &arguments.out {
            Some(out) if experiments.len() == 1 => out.clone(),
            Some(out) => out.join(&experiment.name),
            None => Path::new("compare").join(&experiment.name),
        };
        let findings = compare(experiment, &dir, arguments.json)?;
        all += findings.len();
        failed += findings.iter().filter(|finding| !finding.holds).count();
    }
    match failed {
        0 => Ok(()),
        _ => {
            let verb = if failed == 1 { "does" } else { "do" };
            Err(Error::Goal(format!("{failed} of {} {verb} not hold", quantity(all as u64, "expectation"))))
        }
    }
}

/// Runs an experiment and prints what it shows.
fn compare(experiment: &Experiment, dir: &Path, as_json: bool) -> Result<Vec<Finding>> {
    notes(&experiment.notes);
    let bar = Arc::new(Progress::new(usize::try_from(experiment.updates()).unwrap_or(usize::MAX), "updates"));
    let shown = Arc::clone(&bar);
    let found = experiment.run(dir, move |progress| {
        let (run, runs, variant, seed) = (progress.run, progress.runs, progress.variant, progress.seed);
        shown.at_work_on(&format!("run {run} of {runs}: {variant}, seed {seed} "));
        shown.at(usize::try_from(progress.done).unwrap_or(usize::MAX));
    })?;
    drop(bar);
    let mut files = Vec::new();
    let fs = Fs::default();
    for (index, picture) in experiment.pictures.iter().enumerate() {
        let svg = found.svg(experiment, picture, dir)?;
        let file = dir.join(format!("{}-{}.svg", picture.kind(), index + 1));
        fs.create_folders(dir)?;
        fs.replace(&file, svg.as_bytes())?;
        files.push(file);
    }
    let findings = found.findings(experiment);
    if as_json {
        print_json(&(json(experiment, &found, &findings, &files).to_string() + "\n"))?;
    } else {
        print(&text(experiment, &found, &findings, &files))?;
    }
    Ok(findings)
}

/// Returns what the table shows: the quantities of expectations and pictures, each once.
fn columns(experiment: &Experiment) -> Vec<(Quantity, Moment)> {
    let at_end = |at| if at == Moment::Every { Moment::End } else { at };
    let expected = experiment.expectations.iter().map(|expectation| (expectation.of.clone(), at_end(expectation.at)));
    let drawn = experiment.pictures.iter().filter_map(|picture| Some((picture.quantity()?.clone(), Moment::End)));
    let loss = Quantity::parse("train.loss").map(|of| (of, Moment::End));
    let mut columns = Vec::new();
    for column in expected.chain(drawn) {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    if columns.is_empty() {
        columns.extend(loss);
    }
    columns
}

fn title((of, at): &(Quantity, Moment)) -> String {
    if *at == Moment::End || !of.has_curve() { of.to_string() } else { format!("{of} {at}") }
}

/// Returns the median of values, with the lowest and the highest if they differ.
fn cell(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let [low, middle, high] = [sorted[0], median(values), sorted[sorted.len() - 1]].map(shown);
    if low == high { middle } else { format!("{middle} ({low} to {high})") }
}

fn text(experiment: &Experiment, found: &Comparison, findings: &[Finding], files: &[PathBuf]) -> String {
    let columns = columns(experiment);
    let mut rows = vec![[vec!["variant".to_string()], columns.iter().map(title).collect()].concat()];
    for (index, variant) in experiment.variants.iter().enumerate() {
        let value = |(of, at): &(Quantity, Moment)| match variant.has(of) {
            true => cell(&found.values(index, of, *at)),
            false => "-".to_string(),
        };
        rows.push([vec![variant.name.clone()], columns.iter().map(value).collect()].concat());
    }
    let letters = |text: &String| text.chars().count();
    let width = |column: usize| rows.iter().map(|row| letters(&row[column])).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=columns.len()).map(width).collect();
    let mut out = experiment.claim.as_ref().map_or(experiment.name.clone(), Clone::clone);
    out += &format!("\n{}, medians with the lowest and the highest\n\n", seeds(&experiment.seeds));
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell}{}", " ".repeat(width - letters(cell))));
        out += &(cells.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n");
    }
    for (index, variant) in experiment.variants.iter().enumerate() {
        for (course, seed) in found.courses[index].iter().zip(&experiment.seeds) {
            if let Some(update) = course.diverged {
                out += &format!("{} with seed {seed} diverged at update {update}\n", variant.name);
            }
        }
    }
    if !findings.is_empty() {
        out += "\n";
    }
    for Finding { holds, text } in findings {
        out += &format!("{:<15}{text}\n", if *holds { "holds" } else { "does not hold" });
    }
    if !files.is_empty() {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        out += &format!("\npictures: {}\n", names.join(", "));
    }
    out
}

fn seeds(seeds: &[u64]) -> String {
    let list: Vec<String> = seeds.iter().map(u64::to_string).collect();
    format!("seed{} {}", if seeds.len() == 1 { "" } else { "s" }, list.join(", "))
}

fn json(experiment: &Experiment, found: &Comparison, findings: &[Finding], files: &[PathBuf]) -> Value {
    let finite = |value: f64| value.is_finite().then_some(value);
    let columns = columns(experiment);
    let variant = |(index, variant): (usize, &crate::diagnose::compare::ExperimentVariant)| {
        let of = columns.iter().filter(|(of, _)| variant.has(of)).map(|(of, at)| {
            let values = found.values(index, of, *at);
            let each: Vec<Option<f64>> = values.iter().copied().map(finite).collect();
            json!({ "of": of.to_string(), "at": at.key(), "median": finite(median(&values)), "values": each })
        });
        let diverged: Vec<Option<u64>> = found.courses[index].iter().map(|course| course.diverged).collect();
        json!({ "name": variant.name, "values": of.collect::<Vec<_>>(), "diverged": diverged })
    };
    json!({
        "name": experiment.name,
        "claim": experiment.claim,
        "seeds": experiment.seeds,
        "variants": experiment.variants.iter().enumerate().map(variant).collect::<Vec<_>>(),
        "findings": findings.iter().map(|f| json!({ "holds": f.holds, "text": f.text })).collect::<Vec<_>>(),
        "pictures": files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
    })
}
