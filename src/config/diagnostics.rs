//! Collects problems and notes while a file is read.

use super::errors::{self, Subject};
use super::spans::{SourceMap, SpannedValue};
use crate::error::{Fault, Locations, Problem};
use toml::de::ValueDeserializer;

/// The problems and notes found while reading a file.
#[derive(Debug)]
pub(super) struct Diagnostics {
    pub(super) source: SourceMap,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<String>,
}

impl Diagnostics {
    pub(super) fn new(source: SourceMap) -> Self {
        Diagnostics { source, problems: Vec::new(), notes: Vec::new() }
    }

    /// Reports a problem at an offset.
    pub(super) fn problem(&mut self, offset: usize, message: impl Into<String>) {
        let location = self.source.at(offset);
        self.problems.push(Problem { location, message: message.into() });
    }

    /// Reports a fault of a table.
    pub(super) fn fault(&mut self, subject: &str, locations: &Locations, fault: &Fault) {
        self.problems.push(locations.problem(subject, fault));
    }

    /// Adds a note unless it is already there.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Deserialises a value; reports an error in terms of the configuration file.
    pub(super) fn read<'i, T>(
        &mut self,
        subject: Subject,
        value: SpannedValue<'i>,
        read: impl FnOnce(ValueDeserializer<'i>) -> Result<T, toml::de::Error>,
    ) -> Option<T> {
        let copy = value.clone();
        match read(ValueDeserializer::from(value)) {
            Ok(read) => Some(read),
            Err(error) => {
                let (offset, message) = errors::explain(&error, &copy, &subject);
                self.problem(offset, format!("{}: {message}", subject.name));
                None
            }
        }
    }
}
