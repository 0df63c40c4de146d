//! Predictions for pictures whose classes are not known.

use super::super::checkpoint;
use super::super::directory;
use super::super::job::Job;
use super::super::run::{EvaluatedWeights, Run};
use super::super::signals::Stop;
use super::averages::Averages;
use super::outputs::OutputKind;
use super::scores::ClassScores;
use crate::data::{Base, DataSource, SampleSet, SourceContext, Subset, TEN, TenCrops, Unlabelled};
use crate::error::{Error, Result};
use crate::storage::Fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a network is asked with.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Changes of the run's configuration.
    pub sets: Vec<String>,
    /// Whether predictions are those of the averages of the weights, where the run keeps these.
    pub weights: EvaluatedWeights,
    /// Whether the mean of ten crops is taken.
    pub ten_crops: bool,
    /// The files; of a stream of files, the first of as many as a batch has.
    pub files: Vec<PathBuf>,
    /// Whether more files follow, each time as many as a batch has at most.
    pub is_stream: bool,
}

/// A network that can be asked about pictures.
#[derive(Debug)]
pub struct Asked {
    run: Run,
    pictures: Unlabelled,
    kind: OutputKind,
    ten_crops: bool,
    /// The number of files of a batch of a stream.
    most: usize,
}

/// What a network makes of a file.
#[derive(Debug)]
pub enum Answer<'a> {
    /// The probabilities of the classes.
    Classes(&'a ClassScores),
    /// The values.
    Values(&'a [f64]),
    /// Why the file could not be read.
    Unread(String),
}

impl Asked {
    /// Opens the newest valid checkpoint of a run, or a checkpoint.
    ///
    /// # Errors
    /// When it cannot be read, or was not trained on pictures.
    pub fn open(run: &Path, question: Question) -> Result<Self> {
        let Question { sets, weights, ten_crops, files, is_stream } = question;
        let mut checked = directory::read_config(run, &sets)?;
        let found = checkpoint::latest(&Fs::default(), run, "")?;
        let (checkpoint, skipped) = (found.checkpoint, found.skipped);
        let refuse = |message: &str| Error::Usage(format!("{}: {message}", run.display()));
        let Some(record) = &checkpoint.info.data else {
            return Err(refuse("has no record of its data, as the checkpoints of this version have; train it again"));
        };
        let mut pictures = None;
        let mut most = 0;
        if let Some(config) = &mut checked.config {
            let has_frames = !config.data.frames().is_empty();
            let known = (record.train.header, record.names());
            let asked = Unlabelled::new(files, &*config.data.train, has_frames, known)?;
            most = config.data.batch;
            if ten_crops {
                most = (most / TEN).max(1);
                config.data.batch = most * TEN;
            }
            let first = if is_stream { asked.with_files(vec![PathBuf::new(); most]) } else { asked };
            (config.data.test, config.data.validation) = (Some(DataSource(Arc::new(first.clone()))), 0.0);
            if ten_crops {
                config.data.take_ten_crops().map_err(|fault| refuse(&format!("--ten-crop: {}", fault.message)))?;
            }
            pictures = Some(first);
        }
        let (job, plan) = Job::to_evaluate(checked, record)?;
        let pictures = pictures.expect("a job has a configuration");
        let kind = OutputKind::of(&job.network);
        let mut run = Run::to_evaluate(job, plan, &checkpoint, weights)?;
        let skipped = skipped.iter().map(|skipped| format!("skipped a checkpoint: {}", skipped.with_causes()));
        run.job.notes.extend(skipped);
        Ok(Asked { run, pictures, kind, ten_crops, most })
    }

    /// Returns the notes on what was opened.
    pub fn notes(&self) -> &[String] {
        &self.run.job().notes
    }

    /// Returns the names of the classes, if they have names.
    pub fn names(&self) -> Option<Vec<String>> {
        self.run.class_names()
    }

    /// Returns what the outputs are.
    pub fn kind(&self) -> OutputKind {
        self.kind
    }

    /// Returns how many files of a stream can be asked about at once.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Visits the answer for each of the files, batch by batch.
    ///
    /// # Errors
    /// When a step or a visit fails.
    pub fn answer(&mut self, visit: &mut dyn FnMut(&Path, Answer) -> Result<()>) -> Result<()> {
        let pictures = self.pictures.clone();
        self.answer_for(&pictures, visit)
    }

    /// Visits the answer for each of some files of a stream, at most [`Asked::most`].
    ///
    /// # Errors
    /// When a step or a visit fails.
    pub fn answer_next(&mut self, files: &[PathBuf], visit: &mut dyn FnMut(&Path, Answer) -> Result<()>) -> Result<()> {
        let set = self.run.splits.test.clone().expect("the files are the test set");
        let pictures = self.pictures.with_files(files.to_vec());
        // The program is that of a whole batch, which the last file fills.
        let views = if self.ten_crops { TEN } else { 1 };
        let rows = self.most * views;
        let base = Base::default();
        let cx = SourceContext { names: set.data.names.as_deref(), ..SourceContext::new(Subset::Test, &base) };
        let source = DataSource(Arc::new(pictures.clone()));
        let source = if self.ten_crops { DataSource(Arc::new(TenCrops(source))) } else { source };
        let data = self.run.job.config.data.load(&source, cx)?;
        let last = files.len() * views - views;
        let samples = (0..rows).map(|row| row.min(last + row % views) as u32).collect();
        self.run.splits.test = Some(Arc::new(SampleSet { data: Arc::new(data), samples, ..(*set).clone() }));
        self.answer_for(&pictures, visit)
    }

    fn answer_for(&mut self, pictures: &Unlabelled, visit: &mut dyn FnMut(&Path, Answer) -> Result<()>) -> Result<()> {
        let (kind, mut scores) = (self.kind, ClassScores::default());
        let mut averages = Averages::new(if self.ten_crops { TEN } else { 1 });
        let mut next = 0;
        let evaluated = self.run.evaluations_with(&Stop::default(), &mut |_, batch| {
            for (_, outputs, _) in batch.samples() {
                let Some(outputs) = averages.add(outputs, kind) else { continue };
                let Some(path) = pictures.files.get(next) else { return Ok(()) };
                let answer = match (pictures.unread.reason(next), kind) {
                    (Some(reason), _) => Answer::Unread(reason),
                    (None, OutputKind::Classes(_)) => {
                        scores.read(outputs);
                        Answer::Classes(&scores)
                    }
                    (None, OutputKind::Values(_)) => Answer::Values(outputs),
                };
                visit(path, answer)?;
                next += 1;
            }
            Ok(())
        });
        // Outputs that are not finite are in the answers.
        evaluated.map(drop)
    }
}
