//! What an evaluation collects of its predictions.

use super::averages::Averages;
use super::file::PredictionFile;
use super::outputs::{BatchOutputs, OutputKind};
use super::report::Report;
use super::scores::{ClassScores, true_class};
use crate::data::SampleSet;
use crate::error::Result;

/// Collects the predictions of an evaluation: a report for each set of a classifier, and a file.
#[derive(Debug)]
pub struct Predictions {
    kind: OutputKind,
    most_mistakes: usize,
    names: Option<Vec<String>>,
    file: Option<PredictionFile>,
    reports: Vec<(&'static str, Report)>,
    scores: ClassScores,
    /// The number of views of each sample, one after another.
    views: u32,
    averages: Averages,
}

impl Predictions {
    /// Creates what collects predictions of a kind: at most so many mistakes of each set, with names of the classes if they are known, and a file.
    pub fn new(
        kind: OutputKind,
        most_mistakes: usize,
        names: Option<Vec<String>>,
        file: Option<PredictionFile>,
    ) -> Self {
        let (reports, scores) = (Vec::new(), ClassScores::default());
        Predictions { kind, most_mistakes, names, file, reports, scores, views: 1, averages: Averages::new(1) }
    }

    /// Takes the mean over so many views of each sample, which follow each other.
    pub fn over_views(self, views: usize) -> Self {
        Predictions { views: views as u32, averages: Averages::new(views), ..self }
    }

    /// Adds the predictions for a batch of a set.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn add(&mut self, set: &SampleSet, batch: &BatchOutputs) -> Result<()> {
        if let OutputKind::Classes(classes) = self.kind
            && self.reports.last().is_none_or(|(name, _)| *name != set.name)
        {
            self.reports.push((set.name, Report::new(classes, self.most_mistakes)));
        }
        for (position, outputs, target) in batch.samples() {
            let Some(outputs) = self.averages.add(outputs, self.kind) else { continue };
            let index = set.samples[position];
            let (sample, name) = (index / self.views, || set.data.name(index as usize));
            match self.reports.last_mut() {
                Some((_, report)) => {
                    let label = true_class(target);
                    self.scores.read(outputs);
                    report.add(sample, &self.scores, label);
                    if let Some(file) = &mut self.file {
                        file.add_class((set.name, sample, name()), &self.scores, label, self.names.as_deref())?;
                    }
                }
                None => {
                    if let Some(file) = &mut self.file {
                        file.add_values((set.name, sample, name()), outputs, target)?;
                    }
                }
            }
        }
        self.file.as_mut().map_or(Ok(()), PredictionFile::flush)
    }

    /// Completes the file, and returns the report of each set of a classifier by its name.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(self) -> Result<Vec<(&'static str, Report)>> {
        self.file.map_or(Ok(()), PredictionFile::finish)?;
        Ok(self.reports)
    }
}
