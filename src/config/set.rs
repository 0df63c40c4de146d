//! `--set KEY=VALUE`: changes the document before it is parsed into types.
//!
//! VALUE is TOML, otherwise a string. KEY is a dotted path. Elements of lists are named by index (from 0), layers also
//! by name, the elements of other lists also by kind: `optimizer.chain.momentum=0.8`. A name that has dots is quoted, as in
//! TOML: `model.layers."classifier.0".units=5`.

use super::diagnostics::Diagnostics;
use super::errors;
use super::model::{ENTRY_KEYS, LOSS_KEYS, kind_of, names, names_of_losses};
use super::spans::{SpannedValue, key};
use super::write::quoted;
use crate::error::{Problem, suggest};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// Keys that exclude each other, by table.
const EXCLUSIVE: &[(&str, &[&str])] = &[("train", &["steps", "epochs"])];
/// Tables whose only key names a kind: setting another key replaces it.
const ONE_OF: &[&str] =
    &["data.train", "data.test", "data.validation", "model.init", "model.loss", "optimizer.schedule"];
/// The largest number of keys in a path.
const DEPTH: usize = 16;

/// Applies every `--set` in order; reports any that cannot be applied.
pub(super) fn apply<'i>(
    diagnostics: &mut Diagnostics,
    root: SpannedValue<'i>,
    sets: &[&'i String],
) -> SpannedValue<'i> {
    let mut root = root;
    for set in sets {
        let (keys, path, text) = match split(set) {
            Ok(parts) => parts,
            Err(message) => {
                diagnostics.problems.push(Problem { location: format!("--set {set}"), message: message.to_string() });
                continue;
            }
        };
        let start = diagnostics.source.add_set(path, text.len() + 2 * keys.len());
        let new = match DeValue::parse(text) {
            Ok(value) => shift(value, start),
            Err(_) => Spanned::new(start..start + text.len(), DeValue::String(text.into())),
        };
        let spans = (0..keys.len()).map(|i| start + text.len() + 2 * i..start + text.len() + 2 * i + 1).collect();
        let change = Change { keys, spans, new };
        if let Err(message) = change.put(&mut root, 0) {
            diagnostics.problem(start, message);
        }
    }
    root
}

/// Splits `KEY=VALUE` into the keys of the path, the path as written, and the value.
fn split(set: &str) -> Result<(Vec<&str>, &str, &str), &'static str> {
    let dotted = "expected a dotted path, like train.epochs=3";
    let mut keys = Vec::new();
    let mut rest = set.trim_start();
    loop {
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let key = match quote {
            Some(quote) => {
                let (key, after) = rest[1..].split_once(quote).ok_or("the path has a quote that is not closed")?;
                rest = after.trim_start();
                key
            }
            None => {
                let end = rest.find(['.', '=']).ok_or("expected KEY=VALUE, like train.epochs=3")?;
                let key = rest[..end].trim_end();
                rest = &rest[end..];
                key
            }
        };
        keys.push(key);
        if key.is_empty() || keys.len() > DEPTH {
            return Err(dotted);
        }
        if let Some(value) = rest.strip_prefix('=') {
            let path = set[..set.len() - rest.len()].trim();
            return Ok((keys, path, value.trim()));
        }
        rest = rest.strip_prefix('.').ok_or(dotted)?.trim_start();
    }
}

/// Moves the spans of a value past the end of the file.
fn shift(value: SpannedValue, by: usize) -> SpannedValue {
    let span = value.span().start + by..value.span().end + by;
    let value = match value.into_inner() {
        DeValue::Table(table) => {
            let moved = table.into_iter().map(|(k, v)| {
                let at = k.span().start + by..k.span().end + by;
                (Spanned::new(at, k.into_inner()), shift(v, by))
            });
            DeValue::Table(moved.collect())
        }
        DeValue::Array(items) => DeValue::Array(items.into_iter().map(|v| shift(v, by)).collect()),
        other => other,
    };
    Spanned::new(span, value)
}

/// One `--set`.
struct Change<'i> {
    keys: Vec<&'i str>,
    spans: Vec<Range<usize>>,
    new: SpannedValue<'i>,
}

impl<'i> Change<'i> {
    fn path(&self, depth: usize) -> String {
        self.keys[..depth].iter().map(|key| quoted(key)).collect::<Vec<_>>().join(".")
    }

    fn is_last(&self, depth: usize) -> bool {
        depth + 1 == self.keys.len()
    }

    /// Puts the new value into `node`, which the first `depth` keys have led to.
    fn put(&self, node: &mut SpannedValue<'i>, depth: usize) -> Result<(), String> {
        if depth == self.keys.len() {
            *node = self.new.clone();
            return Ok(());
        }
        let (name, path) = (self.keys[depth], self.path(depth));
        if node.get_ref().as_str() == Some(name) && path != "model" {
            unfold(node);
        }
        if let (DeValue::String(_), "model.from") = (node.get_ref(), path.as_str()) {
            // A path alone is short for a table with the key `file`.
            let (span, file) = (node.span(), node.clone());
            *node.get_mut() = DeValue::Table(DeTable::from_iter([(key("file", span), file)]));
        }
        if path == "model.loss" && LOSS_KEYS.contains(&name) {
            unfold(node);
        }
        match node.get_mut() {
            DeValue::Table(table) => self.put_in_table(table, depth),
            DeValue::Array(items) if path == "model.layers" => {
                self.put_in_entry(items, &names(items), ENTRY_KEYS, depth)
            }
            DeValue::Array(items) if path == "model.loss" => {
                self.put_in_entry(items, &names_of_losses(items), LOSS_KEYS, depth)
            }
            DeValue::Array(items) => {
                if let Ok(index) = name.parse::<usize>() {
                    let len = items.len();
                    let item = items.get_mut(index).ok_or_else(|| no_index(&path, index, len))?;
                    return self.put(item, depth + 1);
                }
                let of_kind = |v: &SpannedValue| match v.get_ref() {
                    DeValue::String(kind) => *kind == name,
                    DeValue::Table(table) => table.contains_key(name),
                    _ => false,
                };
                match items.iter().filter(|v| of_kind(v)).count() {
                    1 => {}
                    0 => return Err(format!("{path} has no entry \"{name}\"{}", listed(name, &kinds_in(items)))),
                    n => return Err(format!("{path} has {n} entries \"{name}\"; give the index, from 0")),
                }
                let item = items.iter_mut().find(|v| of_kind(v)).expect("the count is 1");
                self.put(item, depth)
            }
            other => Err(format!("{path} = {}, which has no key \"{name}\"", errors::show(other))),
        }
    }

    fn put_in_table(&self, table: &mut DeTable<'i>, depth: usize) -> Result<(), String> {
        let (name, path) = (self.keys[depth], self.path(depth));
        for (_, keys) in EXCLUSIVE.iter().filter(|(at, keys)| *at == path && keys.contains(&name)) {
            for other in keys.iter().filter(|k| **k != name) {
                table.remove(*other);
            }
        }
        let common = if path == "model.loss" { LOSS_KEYS } else { &[] };
        if ONE_OF.contains(&path.as_str()) && !table.contains_key(name) && !common.contains(&name) {
            let others: Vec<String> = table.keys().map(|key| key.get_ref().to_string()).collect();
            others
                .iter()
                .filter(|key| !common.contains(&key.as_str()))
                .for_each(|key| drop(table.remove(key.as_str())));
        }
        let mut value = match table.remove(name) {
            Some(value) => value,
            None => Spanned::new(self.new.span(), DeValue::Table(DeTable::new())),
        };
        let put = self.put(&mut value, depth + 1);
        table.insert(key(name, self.spans[depth].clone()), value);
        put
    }

    /// Puts the new value into the entry of a list that the key at `depth` names; `common` has the keys of every entry.
    fn put_in_entry(
        &self,
        items: &mut DeArray<'i>,
        names: &[String],
        common: &[&str],
        depth: usize,
    ) -> Result<(), String> {
        let name = self.keys[depth];
        let noun = if self.path(depth) == "model.loss" { "loss" } else { "layer" };
        let found = names.iter().position(|n| n == name).or_else(|| name.parse().ok());
        let Some(entry) = found.and_then(|index| items.get_mut(index)) else {
            // The keys that an unquoted name with dots was split into.
            let dotted = (depth + 2..=self.keys.len()).map(|end| self.keys[depth..end].join("."));
            return Err(match dotted.rev().find(|dotted| names.contains(dotted)) {
                Some(dotted) => format!(
                    "there is no {noun} \"{name}\"; write {}.\"{dotted}\" for the {noun} whose name has dots",
                    self.path(depth)
                ),
                None => format!("there is no {noun} \"{name}\"{}", listed(name, names)),
            });
        };
        if self.is_last(depth) {
            return self.put(entry, depth + 1);
        }
        unfold(entry);
        let key = self.keys[depth + 1];
        let DeValue::Table(table) = entry.get_mut() else {
            return Err(format!(
                "{} = {}, which has no key \"{key}\"",
                self.path(depth + 1),
                errors::show(entry.get_ref())
            ));
        };
        let kind = kind_of(table).map(str::to_string);
        match kind.filter(|_| !common.contains(&key) && !table.contains_key(key)) {
            Some(kind) => {
                let settings = table.get_mut(kind.as_str()).expect("the kind is a key of the entry");
                self.put(settings, depth + 1)
            }
            None => self.put(entry, depth + 1),
        }
    }
}

/// Turns a kind given as a string into a table: `"relu"` becomes `{ relu = {} }`.
fn unfold(node: &mut SpannedValue) {
    if let DeValue::String(kind) = node.get_ref() {
        let (kind, span) = (kind.to_string(), node.span());
        let settings = Spanned::new(span.clone(), DeValue::Table(DeTable::new()));
        *node.get_mut() = DeValue::Table(DeTable::from_iter([(key(&kind, span), settings)]));
    }
}

fn kinds_in(items: &DeArray) -> Vec<String> {
    let kinds = items.iter().filter_map(|v| match v.get_ref() {
        DeValue::String(kind) => Some(kind.to_string()),
        DeValue::Table(table) => table.keys().next().map(|k| k.get_ref().to_string()),
        _ => None,
    });
    kinds.collect()
}

fn listed(name: &str, known: &[String]) -> String {
    if known.is_empty() {
        return "; the list is empty".to_string();
    }
    format!("{}; expected one of: {}", suggest(name, known.iter().map(String::as_str)), known.join(", "))
}

fn no_index(path: &str, index: usize, len: usize) -> String {
    format!("{path} has {len} entries, counted from 0; there is no entry {index}")
}
