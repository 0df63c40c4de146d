//! Where everything was said, and what was wrong with it.

use super::errors;
use crate::error::{Fault, Problem, Spot};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

/// A value with its place.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;
/// The entries of a table with their places.
pub(super) type Table<'i> = DeTable<'i>;

/// Turns offsets into places: offsets inside the file are lines and columns, offsets after it belong to `--set`.
#[derive(Debug, Clone)]
pub(super) struct Places {
    name: String,
    text: String,
    lines: Vec<usize>,
    sets: Vec<(usize, String)>,
    end: usize,
}

impl Places {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        let end = text.len() + 1;
        Places { name: name.to_string(), text: text.to_string(), lines, sets: Vec::new(), end }
    }

    /// Makes room for the value of a `--set` and returns its first offset.
    pub(super) fn add_set(&mut self, key: &str, len: usize) -> usize {
        let start = self.end;
        self.sets.push((start, key.to_string()));
        self.end += len + 1;
        start
    }

    /// Returns true when an offset belongs to a `--set`.
    pub(super) fn is_set(&self, offset: usize) -> bool {
        self.sets.first().is_some_and(|(start, _)| offset >= *start)
    }

    /// Returns `file:line:column` or `--set KEY`.
    pub(super) fn at(&self, offset: usize) -> String {
        if let Some((_, key)) = self.sets.iter().rfind(|(start, _)| offset >= *start) {
            return format!("--set {key}");
        }
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.lines.partition_point(|&start| start <= offset);
        let column = self.text[self.lines[line - 1]..offset].chars().count() + 1;
        format!("{}:{line}:{column}", self.name)
    }

    /// Returns the name of the file.
    pub(super) fn file(&self) -> &str {
        &self.name
    }

    /// Returns the place of a table and of the value of each of its keys.
    pub(super) fn spot(&self, value: &Value) -> Spot {
        let mut spot = Spot { whole: self.at(value.span().start), keys: Vec::new() };
        if let DeValue::Table(table) = value.get_ref() {
            spot.keys = table.iter().map(|(k, v)| (k.get_ref().to_string(), self.at(v.span().start))).collect();
        }
        spot
    }
}

/// What was found while reading.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) places: Places,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<String>,
}

impl Report {
    pub(super) fn new(places: Places) -> Self {
        Report { places, problems: Vec::new(), notes: Vec::new() }
    }

    /// Reports a problem at an offset.
    pub(super) fn problem(&mut self, offset: usize, message: impl Into<String>) {
        let place = self.places.at(offset);
        self.problems.push(Problem { place, message: message.into() });
    }

    /// Reports a fault of a table.
    pub(super) fn fault(&mut self, subject: &str, spot: &Spot, fault: &Fault) {
        self.problems.push(spot.problem(subject, fault));
    }

    /// Says something once.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Deserialises a value alone; reports what is wrong with it in the words of this file.
    pub(super) fn read<'i, T>(
        &mut self,
        naming: errors::Naming,
        value: Value<'i>,
        read: impl FnOnce(ValueDeserializer<'i>) -> Result<T, toml::de::Error>,
    ) -> Option<T> {
        let copy = value.clone();
        match read(ValueDeserializer::from(value)) {
            Ok(read) => Some(read),
            Err(error) => {
                let (offset, message) = errors::explain(&error, &copy, &naming);
                self.problem(offset, format!("{}: {message}", naming.subject));
                None
            }
        }
    }
}

/// Returns a key at a place.
pub(super) fn key(name: &str, span: Range<usize>) -> Spanned<DeString<'static>> {
    Spanned::new(span, DeString::Owned(name.to_string()))
}
