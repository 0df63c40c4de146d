//! Trains all variants of an experiment with all seeds, one after another.

use super::course::{Course, median};
use super::experiment::{Experiment, ExperimentVariant, Picture};
use super::file::of_variant;
use super::names::filled;
use super::quantity::{Moment, Quantity};
use crate::config::Every;
use crate::error::{Error, Result};
use crate::optim::Interval;
use crate::report::{JsonLines, Patience, Reporter, RunEvent, Sink};
use crate::storage::Fs;
use crate::train::directory::{self, RunDir};
use crate::train::{DataPolicy, Job, Records, Run, Stop};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// How far an experiment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentProgress {
    /// The number of the run, from 1.
    pub run: usize,
    /// The number of runs.
    pub runs: usize,
    /// The variant.
    pub variant: String,
    /// The seed.
    pub seed: u64,
    /// The updates of all runs so far.
    pub done: u64,
}

/// The courses of all runs of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Of each variant, those of the seeds in order.
    pub courses: Vec<Vec<Course>>,
}

impl Comparison {
    /// Returns the values of a variant, one for each seed.
    pub fn values(&self, variant: usize, of: &Quantity, at: Moment) -> Vec<f64> {
        self.courses[variant].iter().map(|course| course.value(of, at)).collect()
    }

    /// Returns the median of the values of a variant over the seeds.
    pub fn median(&self, variant: usize, of: &Quantity, at: Moment) -> f64 {
        median(&self.values(variant, of, at))
    }
}

/// The sink that keeps the course of a run.
struct Recorder<F> {
    course: Arc<Mutex<Course>>,
    report: F,
}

impl<F: FnMut(u64) + Send> Sink for Recorder<F> {
    fn emit(&mut self, event: &RunEvent) -> Result<()> {
        let mut course = self.course.lock().unwrap_or_else(PoisonError::into_inner);
        course.observe(event);
        let updates = course.updates();
        drop(course);
        if matches!(event, RunEvent::Start { .. } | RunEvent::Step { .. }) {
            (self.report)(updates);
        }
        Ok(())
    }
}

impl Experiment {
    /// Returns the number of updates of all runs.
    pub fn updates(&self) -> u64 {
        let steps = self.variants.iter().map(|variant| variant.outline.steps);
        steps.fold(0u64, u64::saturating_add).saturating_mul(self.seeds.len() as u64)
    }

    /// Trains all variants with all seeds. Runs whose weights others start from are kept in `runs` in a folder, in the place of those of
    /// an earlier time. Calls `report` after each update.
    ///
    /// # Errors
    /// If a run fails; not if it diverges.
    pub fn run<F>(&self, dir: &Path, report: F) -> Result<Comparison>
    where
        F: Fn(ExperimentProgress) + Clone + Send + 'static,
    {
        let mut courses: Vec<Vec<Option<Course>>> = vec![vec![None; self.seeds.len()]; self.variants.len()];
        let runs = self.variants.len() * self.seeds.len();
        let (mut run, mut done) = (0, 0);
        for &index in &self.order {
            for (s, &seed) in self.seeds.iter().enumerate() {
                let variant = &self.variants[index];
                run += 1;
                let report = {
                    let (report, variant) = (report.clone(), variant.name.clone());
                    move |updates| {
                        report(ExperimentProgress { run, runs, variant: variant.clone(), seed, done: done + updates });
                    }
                };
                let diverged = |&needed: &usize| courses[needed][s].as_ref().is_some_and(|c| c.diverged.is_some());
                let course = if variant.needs.iter().any(diverged) {
                    // There are no weights to start from.
                    let outline = &variant.outline;
                    Course::new(outline.steps, outline.epoch).diverged_at(1)
                } else {
                    self.train(index, seed, dir, report)?
                };
                courses[index][s] = Some(course);
                done += variant.outline.steps;
            }
        }
        let courses = courses.into_iter().map(|courses| courses.into_iter().flatten().collect()).collect();
        Ok(Comparison { courses })
    }

    /// Returns the run directory of a variant with a seed.
    fn run_dir(&self, dir: &Path, index: usize, seed: u64) -> PathBuf {
        let plain = |name: &str| -> String {
            let letter = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
            name.chars().map(letter).collect()
        };
        let name = plain(&self.variants[index].name);
        let same = self.variants.iter().filter(|variant| plain(&variant.name) == name).count();
        let number = if same > 1 { format!("{}-", index + 1) } else { String::new() };
        dir.join("runs").join(format!("{number}{name}-{seed}"))
    }

    /// Returns the overrides of a variant with a seed, in which the run directories of other variants are named.
    pub(super) fn sets_of(&self, index: usize, seed: u64, dir: &Path) -> Vec<String> {
        let path = |name: &str| {
            let index = self.variants.iter().position(|variant| variant.name == name);
            let dir = self.run_dir(dir, index.expect("names of variants have been checked"), seed);
            std::path::absolute(&dir).unwrap_or(dir).display().to_string()
        };
        let own = self.variants[index].sets.iter().map(|set| filled(set, path));
        own.chain([format!("seed={seed}")]).collect()
    }

    fn train(&self, index: usize, seed: u64, dir: &Path, report: impl FnMut(u64) + Send + 'static) -> Result<Course> {
        let variant = &self.variants[index];
        let failed = |error: Error| {
            let ExperimentVariant { name, location, .. } = variant;
            Error::Run(format!("{location}: variant \"{name}\" with seed {seed}: {}", error.with_causes()))
        };
        let sets = self.sets_of(index, seed, dir);
        let (mut job, plan) =
            Job::open(&variant.config, &sets, DataPolicy::Required).map_err(|error| match error.exit_code() {
                1 => failed(error),
                _ => Error::Config(of_variant(&variant.location, &variant.name, error).into()),
            })?;
        // Comparisons do not depend on the clock.
        job.config.train.max_time = None;
        let mut reporter = Reporter::default();
        let mut records = Records::default();
        let is_needed = self.variants.iter().any(|other| other.needs.contains(&index));
        let mut owned = None;
        if is_needed {
            let path = self.run_dir(dir, index, seed);
            if directory::holds_run(&path) {
                records.fs.remove_folder(&path).map_err(failed)?;
            }
            let taken = RunDir::fresh(&path).map_err(failed)?;
            let checkpoint = &mut job.config.train.checkpoint;
            if checkpoint.every == Every::Never {
                // Only the last one.
                checkpoint.every = Every::At(Interval::Steps(u64::MAX));
            }
            records = Records { dir: path.clone(), run: taken.run.clone(), fs: Fs::default() };
            let Records { dir, run, fs } = &records;
            directory::write_config(fs, dir, run, &job.config.resolved, &job.config.base, 0).map_err(failed)?;
            let metrics = JsonLines::append(fs, &path.join("metrics.jsonl"), Patience::None).map_err(failed)?;
            reporter = reporter.with(metrics);
            owned = Some(taken);
        } else {
            let checkpoint = &mut job.config.train.checkpoint;
            (checkpoint.every, checkpoint.keep_best) = (Every::Never, 0);
        }
        let course = Arc::new(Mutex::new(Course::new(job.steps(), job.epoch())));
        let mut reporter = reporter.with(Recorder { course: Arc::clone(&course), report });
        let mut run = Run::start(job, plan, records).map_err(failed)?;
        if self.is_drawn(index, seed) {
            run.keep_path().map_err(failed)?;
        }
        let ended = run.train(&mut reporter, &Stop::default(), Instant::now());
        let (step, path) = (run.step(), run.path().to_vec());
        drop((run, reporter, owned));
        let mut course = course.lock().unwrap_or_else(PoisonError::into_inner).clone();
        course.path = path.iter().filter_map(|weights| Some([*weights.first()?, *weights.get(1)?])).collect();
        match ended {
            Ok(_) => Ok(course),
            Err(Error::NotFinite(_)) => Ok(course.diverged_at(step + 1)),
            Err(error) => Err(failed(error)),
        }
    }

    /// Returns whether the weights of a run are drawn.
    fn is_drawn(&self, index: usize, seed: u64) -> bool {
        let draws = |picture: &Picture| matches!(picture, Picture::Path { variants } if variants.contains(&index));
        self.seeds.first() == Some(&seed) && self.pictures.iter().any(draws)
    }
}
