//! The descriptions of the data sets of a job, and what is said of their files.

use super::memory;
use crate::config::Config;
use crate::data::{self, Contents, DataRecord, DataSource, Description, SourceContext, Subset};
use crate::error::{Fault, Problem, Result};
use std::path::PathBuf;

/// The files that a job needs; a needed file that cannot be read is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataPolicy {
    /// The data and the weights to start from.
    Required,
    /// The data only; the weights come from a checkpoint.
    Trained,
    /// None: the plan is made without the files that cannot be read.
    Optional,
    /// The data and the weights to start from, for a run that may be on another machine: the devices may be missing.
    Checked,
    /// As `Checked`, and the contents of the data are read.
    Inspected,
}

/// How the note on a file that both sets read ends.
const READ_BY_BOTH: &str = "which train reads as well";

/// Adds a note on a test set that is the training set, unless one on their files says so.
pub(super) fn note_same_data(notes: &mut Vec<String>) {
    if !notes.iter().any(|note| note.ends_with(READ_BY_BOTH)) {
        notes.push("[data]: the test data is the training data".to_string());
    }
}

impl DataPolicy {
    /// Returns true if the run may be on another machine.
    pub(super) fn may_run_elsewhere(self) -> bool {
        matches!(self, DataPolicy::Optional | DataPolicy::Checked | DataPolicy::Inspected)
    }

    /// Returns true if the weights to start from are needed.
    pub(super) fn includes_weights(self) -> bool {
        matches!(self, DataPolicy::Required | DataPolicy::Checked | DataPolicy::Inspected)
    }
}

/// The descriptions of the data sets.
#[derive(Default)]
pub(super) struct Headers {
    pub train: Option<Description>,
    pub test: Option<Description>,
    /// Whether the training data are needed but cannot be read.
    pub without_train: bool,
    /// The contents of the data, if they were inspected.
    pub contents: Option<Contents>,
    /// The contents that were to be inspected, but could not be.
    pub unread: Option<String>,
    pub notes: Vec<String>,
}

impl Headers {
    /// Reads the headers, and returns what is wrong with them; takes that of the training set from `trained_on` if the
    /// training data are not needed.
    ///
    /// # Errors
    /// An error of the operating system that is not a mistake in a path.
    pub fn read(config: &Config, needs: DataPolicy, trained_on: Option<&DataRecord>) -> Result<(Self, Vec<Problem>)> {
        let (mut found, mut problems) = (Headers::default(), Vec::new());
        let settings = &config.data;
        // Only a validation set needs the training data for an evaluation.
        let known = trained_on.filter(|_| settings.validation == 0.0);
        let test = settings.test.as_ref().map(|source| ("test", source, Subset::Test));
        for (key, source, subset) in [Some(("train", &settings.train, Subset::Train)), test].into_iter().flatten() {
            if let Some(known) = known.filter(|_| subset == Subset::Train) {
                found.train = Some(known.describe_train());
                continue;
            }
            let names = found.train.as_ref().and_then(|train| train.names.clone());
            match settings
                .describe(source, SourceContext { names: names.as_deref(), ..SourceContext::new(subset, &config.base) })
            {
                Ok(mut described) => {
                    found.notes.extend(described.notes.drain(..).map(|note| format!("[data]: {key}: {note}")));
                    match subset {
                        Subset::Train => found.train = Some(described),
                        Subset::Test => found.test = Some(described),
                    }
                }
                Err(error) if subset == Subset::Train && trained_on.is_some() => {
                    found.train = trained_on.map(DataRecord::describe_train);
                    found.without_train = true;
                    let cause = error.with_causes();
                    found.notes.push(format!("the validation set is not evaluated without the training data: {cause}"));
                }
                Err(error) if needs == DataPolicy::Optional => {
                    found.notes.push(format!("planned without the {key} data: {}", error.with_causes()));
                }
                Err(error) if error.exit_code() == 1 => return Err(error),
                Err(error) => {
                    let faults = error.problems().into_iter().map(|problem| Fault::at(key, problem.to_string()));
                    problems.extend(faults.map(|fault| config.data_locations.problem("[data]", &fault)));
                }
            }
        }
        if needs != DataPolicy::Optional && trained_on.is_none() {
            found.note_files(config);
        }
        Ok((found, problems))
    }

    /// Returns that the data sets do not fit into memory, if so.
    pub fn too_large(&self, config: &Config) -> Option<Problem> {
        let header = |set: &'_ Option<Description>| set.as_ref().map(|set| set.header);
        let (train, test) = (header(&self.train), header(&self.test));
        let excess = memory::excess_of_data(config.data.bytes(train.as_ref(), test.as_ref()))?;
        Some(config.data_locations.problem("[data]", &Fault::at("train", excess)))
    }

    /// Reads the contents of the sets whose headers could be read, and returns what is wrong with them.
    ///
    /// # Errors
    /// An error of the operating system that is not a mistake in a path.
    pub fn inspect(&mut self, config: &Config) -> Result<Vec<Problem>> {
        let settings = &config.data;
        let test = settings.test.as_ref().map(|_| (Subset::Test, "test", self.test.is_some()));
        let sets = [Some((Subset::Train, "training", self.train.is_some())), test].into_iter().flatten();
        let (read, unread): (Vec<_>, Vec<_>) = sets.partition(|(_, _, read)| *read);
        let names: Vec<&str> = unread.into_iter().map(|(_, name, _)| name).collect();
        self.unread = (!names.is_empty()).then(|| format!("the contents of the {} data", names.join(" and ")));
        let subsets: Vec<Subset> = read.into_iter().map(|(subset, _, _)| subset).collect();
        let contents = data::inspect(settings, config.seed, &config.base, &subsets)?;
        if contents.is_test_train {
            note_same_data(&mut self.notes);
        }
        let problems = contents.faults.iter().map(|fault| config.data_locations.problem("[data]", fault)).collect();
        self.contents = Some(contents);
        Ok(problems)
    }

    /// Adds notes on images that are read twice.
    fn note_files(&mut self, config: &Config) {
        let settings = &config.data;
        let files = |source: &DataSource| -> Vec<(PathBuf, PathBuf)> {
            let found = source.image_files().into_iter().filter_map(|file| {
                let place = config.base.find(&file).ok()?.canonicalize().ok()?;
                Some((file, place))
            });
            found.collect()
        };
        let train = files(&settings.train);
        let test = settings.test.as_ref().map(&files).unwrap_or_default();
        for (key, files) in [("train", &train), ("test", &test)] {
            for (i, (file, place)) in files.iter().enumerate() {
                if let Some((other, _)) = files[..i].iter().find(|(_, earlier)| earlier == place) {
                    let (file, other) = (file.display(), other.display());
                    self.notes
                        .push(format!("[data]: {key}: {file} and {other} are one file, whose samples count twice"));
                }
            }
        }
        if let Some((file, _)) = test.iter().find(|(_, place)| train.iter().any(|(_, other)| other == place)) {
            self.notes.push(format!("[data]: test reads {}, {READ_BY_BOTH}", file.display()));
        }
    }
}
