//! TOML files of other kinds than configurations, whose mistakes are reported in the same way.

use super::diagnostics::Diagnostics;
use super::errors::{Subject, show};
use super::kinds::fields_of;
use super::parse::{sort, syntax, text_of};
use super::spans::{SourceMap, SpannedValue};
use crate::error::{Error, Fault, Locations, Problem, Result};
use serde::de::DeserializeOwned;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A TOML file, and the problems found in it so far.
#[derive(Debug)]
pub struct Document {
    text: String,
    diagnostics: Diagnostics,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML.
    pub fn read(path: &Path) -> Result<Document> {
        let name = path.display().to_string();
        let wrong = |location: String, message: String| Error::Config(vec![Problem { location, message }].into());
        let text = text_of(path)?.map_err(|message| wrong(name.clone(), message))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_string();
        let source = SourceMap::new(&name, &text);
        if let Err(error) = DeTable::parse(&text) {
            let (location, message) = syntax(&source, &error);
            return Err(wrong(location, message));
        }
        Ok(Document { text, diagnostics: Diagnostics::new(source) })
    }

    /// Returns the file as a value. Its syntax has been checked.
    fn value<'i>(text: &'i str) -> SpannedValue<'i> {
        let root = DeTable::parse(text).unwrap_or_else(|_| Spanned::new(0..0, DeTable::new()));
        Spanned::new(root.span(), DeValue::Table(root.into_inner()))
    }

    /// Reads the table of the whole file, and reports its mistakes.
    pub fn whole<T: DeserializeOwned>(&mut self) -> (Option<T>, Locations) {
        let value = Self::value(&self.text);
        let locations = self.diagnostics.source.locations(&value);
        (read(&mut self.diagnostics, "the file", value), locations)
    }

    /// Reads the tables of a list of the file, and reports their mistakes under a noun and their number: `variant 2`.
    pub fn tables<T: DeserializeOwned>(&mut self, key: &str, noun: &str) -> Vec<(Option<T>, Locations)> {
        let DeValue::Table(mut root) = Self::value(&self.text).into_inner() else { return Vec::new() };
        let Some(list) = root.remove(key) else { return Vec::new() };
        let at = list.span().start;
        let items = match list.into_inner() {
            DeValue::Array(items) => items,
            other => {
                let message = format!("{key} = {}, expected tables: write [[{key}]]", show(&other));
                self.diagnostics.problem(at, message);
                return Vec::new();
            }
        };
        let numbered = items.into_iter().zip(1..).map(|(item, number)| {
            let locations = self.diagnostics.source.locations(&item);
            (read(&mut self.diagnostics, &format!("{noun} {number}"), item), locations)
        });
        numbered.collect()
    }

    /// Reports a fault of a table.
    pub fn fault(&mut self, subject: &str, locations: &Locations, fault: &Fault) {
        self.diagnostics.fault(subject, locations, fault);
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All problems that were reported, in the order of the file.
    pub fn finish(mut self) -> Result<()> {
        sort(&mut self.diagnostics.problems);
        let problems = self.diagnostics.problems;
        if problems.is_empty() { Ok(()) } else { Err(Error::Config(problems.into())) }
    }
}

fn read<T: DeserializeOwned>(diagnostics: &mut Diagnostics, name: &str, value: SpannedValue) -> Option<T> {
    let subject = Subject { name, key: name, nested: false, bare: false, known: fields_of::<T>() };
    diagnostics.read(subject, value, |d| T::deserialize(d))
}
