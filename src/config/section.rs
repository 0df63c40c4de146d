//! A table of the file, read key by key so that every wrong key is reported.

use super::diagnostics::Diagnostics;
use super::errors::{self, Subject};
use super::kinds::fields_of;
use super::spans::SpannedValue;
use crate::error::{Fault, Locations};
use serde::de::DeserializeOwned;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// A table that is being read.
pub(super) struct Section<'i, 'r> {
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
    pub(super) fn open(diagnostics: &'r mut Diagnostics, subject: &str, value: SpannedValue<'i>) -> Self {
        let (span, locations) = (value.span(), diagnostics.source.locations(&value));
        let (table, broken) = match value.into_inner() {
            DeValue::Table(table) => (table, false),
            other => {
                diagnostics.problem(span.start, format!("{subject}: {}, expected a table", errors::show(&other)));
                (DeTable::new(), true)
            }
        };
        Section { subject: subject.to_string(), span, locations, diagnostics, table, known: Vec::new(), broken }
    }

    /// Takes a raw value.
    pub(super) fn value(&mut self, key: &'static str) -> Option<SpannedValue<'i>> {
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

    /// Takes a required value.
    pub(super) fn required<T: DeserializeOwned>(&mut self, key: &'static str, example: &str) -> Option<T> {
        self.require(key, example);
        self.take(key)
    }

    /// Reports a required key that is missing.
    pub(super) fn require(&mut self, key: &'static str, example: &str) {
        if !self.broken && !self.table.contains_key(key) {
            self.diagnostics
                .problem(self.span.start, format!("{}: missing key \"{key}\", like {example}", self.subject));
        }
    }

    /// Takes an optional value that must pass a test.
    pub(super) fn within<T: DeserializeOwned + std::fmt::Display + Copy>(
        &mut self,
        key: &'static str,
        default: T,
        fits: impl Fn(T) -> bool,
        expected: &str,
    ) -> T {
        match self.take(key) {
            Some(value) if !fits(value) => {
                self.fault(&Fault::at(key, format!("{key} = {value}, expected {expected}")));
                default
            }
            value => value.unwrap_or(default),
        }
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
