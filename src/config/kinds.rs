//! Values that are named by their key: `"relu"`, `{ conv = { filters = 8 } }`, `{ momentum = 0.9 }`.

use super::diagnostics::Diagnostics;
use super::errors::{self, Probe, Subject};
use super::spans::SpannedValue;
use crate::error::{Locations, suggest};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// A kind with its unread settings.
#[derive(Debug)]
pub(super) struct Tagged<'i> {
    /// The kind, one of the known ones.
    pub(super) kind: &'static str,
    settings: SpannedValue<'i>,
    /// True if the kind was given as a string.
    bare: bool,
    /// The locations of the settings.
    pub(super) locations: Locations,
}

/// A list of kinds.
pub(super) struct Kinds {
    /// The noun for one of them: `layer`, `transform`.
    pub(super) noun: &'static str,
    /// The names of all kinds.
    pub(super) known: &'static [&'static str],
    /// Returns the keys that the settings of a kind may have.
    pub(super) fields: fn(&str) -> Option<&'static [&'static str]>,
}

/// Creates a [`Kinds`] from the `KEYS` and `read` of a module.
macro_rules! kinds {
    ($noun:literal, $($room:ident)::+) => {
        $crate::config::kinds::Kinds {
            noun: $noun,
            known: $($room)::+::KEYS,
            fields: |kind| {
                $crate::config::errors::fields(|probe: $crate::config::errors::Probe| {
                    $($room)::+::read(kind, probe).expect("the kind is one of those known")
                })
            },
        }
    };
}
pub(super) use kinds;

impl<'i> Tagged<'i> {
    /// Finds the kind that a value names; reports any mistake.
    pub(super) fn open(
        diagnostics: &mut Diagnostics,
        subject: &str,
        kinds: &Kinds,
        value: SpannedValue<'i>,
    ) -> Option<Self> {
        let span = value.span();
        match value.into_inner() {
            DeValue::String(kind) => Self::bare(diagnostics, subject, kinds, &kind, span),
            DeValue::Table(table) => Self::keyed(diagnostics, subject, kinds, table, span, &[]),
            other => {
                let (shown, noun) = (errors::show(&other), kinds.noun);
                let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
                let message =
                    format!("{subject}: {shown}, expected {article} {noun}: a name, or a table {{ name = settings }}");
                diagnostics.problem(span.start, message);
                None
            }
        }
    }

    /// Opens a kind given as a string.
    pub(super) fn bare(
        diagnostics: &mut Diagnostics,
        subject: &str,
        kinds: &Kinds,
        kind: &str,
        span: Range<usize>,
    ) -> Option<Self> {
        let Some(kind) = kinds.known.iter().find(|k| **k == kind) else {
            diagnostics.problem(span.start, format!("{subject}: {}", unknown(kinds, kind)));
            return None;
        };
        let settings = Spanned::new(span, DeValue::Table(DeTable::new()));
        let locations = diagnostics.source.locations(&settings);
        Some(Tagged { kind, settings, bare: true, locations })
    }

    /// Opens a kind given as the only key of a table; the caller has removed the keys in `common` from the table.
    pub(super) fn keyed(
        diagnostics: &mut Diagnostics,
        subject: &str,
        kinds: &Kinds,
        table: DeTable<'i>,
        span: Range<usize>,
        common: &[&str],
    ) -> Option<Self> {
        let is_kind = |key: &str| kinds.known.iter().find(|k| **k == key);
        let given: Vec<&'static str> = table.keys().filter_map(|k| is_kind(k.get_ref())).copied().collect();
        let mut found = None;
        let mut wrong = given.len() > 1;
        if wrong {
            let list = given.iter().map(|k| format!("\"{k}\"")).collect::<Vec<_>>().join(" and ");
            let noun = kinds.noun;
            diagnostics
                .problem(span.start, format!("{subject}: {list} in one entry, expected one {noun}; make two entries"));
        } else if table.is_empty() {
            let (noun, known) = (kinds.noun, kinds.known.join(", "));
            diagnostics.problem(span.start, format!("{subject}: no {noun} is named, expected one of {known}"));
        }
        for (key, value) in table {
            let at = key.span().start;
            if let Some(kind) = is_kind(key.get_ref()) {
                found = Some((*kind, value));
                continue;
            }
            wrong = true;
            let inside = given.iter().find(|k| (kinds.fields)(k).is_some_and(|f| f.contains(&&**key.get_ref())));
            let message = match inside {
                Some(kind) => {
                    let (key, value) = (key.get_ref(), errors::show(value.get_ref()));
                    format!("\"{key}\" is a setting of {kind}: write {kind} = {{ {key} = {value} }}")
                }
                None if given.is_empty() && common.is_empty() => unknown(kinds, key.get_ref()),
                None if given.is_empty() => {
                    let near = suggest(key.get_ref(), kinds.known.iter().chain(common).copied());
                    let (noun, known, common) = (kinds.noun, kinds.known.join(", "), common.join(", "));
                    let key = key.get_ref();
                    format!(
                        "unknown {noun} \"{key}\"{near}; known {noun}s: {known}; keys common to all {noun}s: {common}"
                    )
                }
                None => errors::unknown_key(key.get_ref(), &[&given, common].concat()),
            };
            diagnostics.problem(at, format!("{subject}: {message}"));
        }
        let (kind, settings) = found.filter(|_| !wrong)?;
        let locations = diagnostics.source.locations(&settings);
        Some(Tagged { kind, settings, bare: false, locations })
    }

    /// Returns true if the settings are a table, and not one value in place of it.
    pub(super) fn is_table(&self) -> bool {
        self.settings.get_ref().is_table()
    }

    /// Reads the settings; reports any mistake.
    pub(super) fn read<T>(
        self,
        diagnostics: &mut Diagnostics,
        subject: &str,
        kinds: &Kinds,
        read: impl FnOnce(&str, ValueDeserializer<'i>) -> Option<Result<T, toml::de::Error>>,
    ) -> Option<T> {
        let known = (kinds.fields)(self.kind);
        let context = Subject { name: subject, key: self.kind, nested: false, bare: self.bare, known };
        let kind = self.kind;
        diagnostics.read(context, self.settings, |d| read(kind, d).expect("the kind is one of those known"))
    }
}

fn unknown(kinds: &Kinds, given: &str) -> String {
    let near = suggest(given, kinds.known.iter().copied());
    format!("unknown {} \"{given}\"{near}; known {0}s: {1}", kinds.noun, kinds.known.join(", "))
}

/// Returns the keys of the table that a type expects.
pub(super) fn fields_of<T: serde::de::DeserializeOwned>() -> Option<&'static [&'static str]> {
    errors::fields(|probe: Probe| T::deserialize(probe))
}
