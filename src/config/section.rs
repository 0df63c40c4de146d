//! A table of the file, read key by key so that every wrong key is reported.

use super::diagnostics::Diagnostics;
use super::errors::{self, Subject};
use super::key::KeyDefault;
use super::keys::{is_known, of_path};
use super::kinds::fields_of;
use super::spans::SpannedValue;
use crate::error::{Fault, Locations};
use serde::de::DeserializeOwned;
use std::ops::Range;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// A table that is being read.
pub(super) struct Section<'i, 'r> {
    /// Its path, as in [`all`](super::keys::all); empty for the file as a whole.
    path: &'static str,
    /// How messages refer to it: `[train]`, `layer "fc8"`.
    pub(super) subject: String,
    pub(super) span: Range<usize>,
    pub(super) locations: Locations,
    pub(super) diagnostics: &'r mut Diagnostics,
    pub(super) table: DeTable<'i>,
    known: Vec<&'static str>,
    broken: bool,
}

impl<'i, 'r> Section<'i, 'r> {
    /// Opens a table; reports a value that is not a table and continues with an empty one.
    pub(super) fn open(
        diagnostics: &'r mut Diagnostics,
        subject: &str,
        path: &'static str,
        value: SpannedValue<'i>,
    ) -> Self {
        let (span, locations) = (value.span(), diagnostics.source.locations(&value));
        let (table, broken) = match value.into_inner() {
            DeValue::Table(table) => (table, false),
            other => {
                diagnostics.problem(span.start, format!("{subject}: {}, expected a table", errors::show(&other)));
                (DeTable::new(), true)
            }
        };
        Section { path, subject: subject.to_string(), span, locations, diagnostics, table, known: Vec::new(), broken }
    }

    /// Takes a raw value.
    pub(super) fn value(&mut self, key: &'static str) -> Option<SpannedValue<'i>> {
        debug_assert!(is_known(self.path, key), "{}.{key} is in the list of keys", self.path);
        self.known.push(key);
        self.table.remove(key)
    }

    /// Takes an optional value.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        let value = self.value(key)?;
        let known = fields_of::<T>();
        let context = Subject { name: &self.subject, key, nested: true, bare: false, known };
        self.diagnostics.read(context, value, |d| T::deserialize(d))
    }

    /// Takes a value, or its default if the table does not have it. `None` if the value is wrong, which has been reported.
    pub(super) fn get<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        if self.table.contains_key(key) {
            return self.take(key);
        }
        self.known.push(key);
        Some(self.default_of(key))
    }

    /// Returns the default of a key.
    fn default_of<T: DeserializeOwned>(&self, key: &str) -> T {
        let spec = of_path(self.path, key);
        let KeyDefault::Value(text) = spec.default else { panic!("{} has no fixed default", spec.path) };
        let value = ValueDeserializer::parse(text).and_then(T::deserialize);
        value.unwrap_or_else(|error| panic!("the default of {}: {error}", spec.path))
    }

    /// Takes a required value.
    pub(super) fn required<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        self.require(key);
        self.take(key)
    }

    /// Reports a required key that is missing.
    pub(super) fn require(&mut self, key: &'static str) {
        if !self.broken && !self.table.contains_key(key) {
            let spec = of_path(self.path, key);
            let parts = if spec.kind.starts_with('[') {
                format!(" ({})", spec.kind.trim_matches(['[', ']']))
            } else {
                String::new()
            };
            self.diagnostics.problem(
                self.span.start,
                format!("{}: missing key \"{key}\", like {key} = {}{parts}", self.subject, spec.example),
            );
        }
    }

    /// Takes a value that must pass the test of its range, or its default if it is absent or wrong.
    pub(super) fn within<T: DeserializeOwned + std::fmt::Display + Copy>(
        &mut self,
        key: &'static str,
        fits: impl Fn(T) -> bool,
    ) -> T {
        match self.get(key) {
            Some(value) if fits(value) => value,
            found => {
                if let Some(value) = found {
                    self.out_of_range(key, value);
                }
                self.default_of(key)
            }
        }
    }

    /// Reports a value that is out of its range.
    pub(super) fn out_of_range(&mut self, key: &'static str, value: impl std::fmt::Display) {
        let expected = of_path(self.path, key).range.expect("a key with a range");
        self.fault(&Fault::at(key, format!("{key} = {value}, expected {expected}")));
    }

    /// Reports a fault of this table.
    pub(super) fn fault(&mut self, fault: &Fault) {
        self.diagnostics.fault(&self.subject, &self.locations, fault);
    }

    /// Reports every key that was not taken.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let message = errors::unknown_key(key.get_ref(), &self.known);
            self.diagnostics.problem(key.span().start, format!("{}: {message}", self.subject));
        }
    }
}
