//! Rewords serde's errors in terms of the file: the key, its value, what was expected, and the known names.

use super::names::suggest_setting;
use super::spans::SpannedValue;
use crate::error::suggest;
use serde::de::{Deserializer, Error as _, Visitor};
use std::ops::Range;
use toml::de::DeValue;

/// How messages refer to a value.
pub(super) struct Subject<'a> {
    /// The owner of the value: `[train]`, `layer "fc8"`.
    pub(super) name: &'a str,
    /// The key of the value: `mesh`, `conv`.
    pub(super) key: &'a str,
    /// True if nested keys are printed with the key of their table: `mesh.data`.
    pub(super) nested: bool,
    /// True if a kind was given as a string, so that its table of settings is empty and not in the file.
    pub(super) bare: bool,
    /// The keys that the table may have, if known.
    pub(super) known: Option<&'static [&'static str]>,
}

impl Subject<'_> {
    fn of(&self, path: &[String]) -> String {
        match (path.is_empty(), self.nested) {
            (true, _) => self.key.to_string(),
            (false, true) => format!("{}.{}", self.key, path.join(".")),
            (false, false) => path.join("."),
        }
    }
}

/// The key or value that an error's span covers.
enum SpanTarget<'a> {
    Key(String),
    Value(&'a DeValue<'a>),
}

/// Returns the offset and the message of an error in `value`.
pub(super) fn explain(error: &toml::de::Error, value: &SpannedValue, subject: &Subject) -> (usize, String) {
    let span = error.span().unwrap_or_else(|| value.span());
    let (path, found) = locate(value, &span).unwrap_or_else(|| (Vec::new(), SpanTarget::Value(value.get_ref())));
    let message = error.message();
    let text = match found {
        SpanTarget::Key(key) => about_key(message, &key, &path, subject),
        SpanTarget::Value(value) => about_value(message, value, &path, subject),
    };
    (span.start, text)
}

fn about_key(message: &str, key: &str, path: &[String], subject: &Subject) -> String {
    let within = if path.is_empty() && !subject.nested { String::new() } else { format!("{}: ", subject.of(path)) };
    let known = names(message);
    if message.starts_with("unknown field") {
        return format!("{within}{}", unknown_key(key, &known));
    }
    if message.starts_with("unknown variant") {
        return unknown_name(&subject.of(path), key, &known);
    }
    if let Some((_, known)) = message.split_once(", available keys: ") {
        return format!("{within}{}", unknown_key(key, &known.split(", ").collect::<Vec<_>>()));
    }
    if message.contains(&format!("\"{key}\"")) {
        format!("{within}{message}")
    } else {
        format!("{within}\"{key}\": {message}")
    }
}

fn about_value(message: &str, value: &DeValue, path: &[String], subject: &Subject) -> String {
    let name = subject.of(path);
    if let Some(missing) = names(message).first().filter(|_| message.starts_with("missing field")) {
        let within = if path.is_empty() && !subject.nested { String::new() } else { format!("{name}: ") };
        let known = subject.known.filter(|_| path.is_empty());
        if subject.bare && path.is_empty() {
            return format!("\"{name}\" needs settings: write {{ {name} = {{ {missing} = .. }} }}");
        }
        return format!("{within}missing key \"{missing}\"{}", known.map_or(String::new(), known_keys));
    }
    if message.starts_with("unknown variant") {
        let given = value.as_str().unwrap_or_default();
        return unknown_name(&name, given, &names(message));
    }
    let shown = show(value);
    if message.starts_with("invalid type: unit variant") {
        return format!(
            "{name} = {shown} needs settings: write {name} = {{ {} = .. }}",
            value.as_str().unwrap_or_default()
        );
    }
    for start in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some((_, expected)) = message.strip_prefix(start).and_then(|m| m.rsplit_once(", expected ")) {
            let table = expected.starts_with("struct ") || expected == "a map";
            let known = subject.known.filter(|_| table && path.is_empty()).map_or(String::new(), known_keys);
            if subject.bare && path.is_empty() {
                return format!("\"{name}\" needs settings: write {{ {name} = .. }} with {}", plain(expected));
            }
            return format!("{name} = {shown}, expected {}{known}", plain(expected));
        }
    }
    if message.starts_with("wanted string or table") {
        return format!("{name} = {shown}, expected a string or a table");
    }
    if message.starts_with("wanted exactly 1 element") {
        return format!("{name} = {shown}, expected a table with exactly one key");
    }
    if message.starts_with("expected ") {
        return format!("{name} = {shown}, {message}");
    }
    if message.contains(&name) { message.to_string() } else { format!("{name}: {message}") }
}

/// Returns the message for an unknown key.
pub(super) fn unknown_key(key: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return format!("unknown key \"{key}\"; this table has no keys");
    }
    let near = suggest_setting(key, known).unwrap_or_else(|| suggest(key, known.iter().copied()));
    format!("unknown key \"{key}\"{near}{}", known_keys(known))
}

/// Returns the message for a name that is not one of the known names.
pub(super) fn unknown_name(what: &str, name: &str, known: &[&str]) -> String {
    let near = suggest(name, known.iter().copied());
    format!("unknown {what} \"{name}\"{near}; expected one of: {}", known.join(", "))
}

fn known_keys(known: &[&str]) -> String {
    if known.is_empty() { String::new() } else { format!("; known keys: {}", known.join(", ")) }
}

/// Returns the names that serde quotes after the first: `` unknown field `x`, expected one of `a`, `b` ``; for
/// a missing field, its name.
fn names(message: &str) -> Vec<&str> {
    let expected = message.find(", expected ").map_or(message, |at| &message[at..]);
    if message.starts_with("unknown") && expected.len() == message.len() {
        return Vec::new();
    }
    expected.split('`').skip(1).step_by(2).collect()
}

/// Rewords what serde expected.
fn plain(expected: &str) -> String {
    match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number, at least 0".into(),
        "isize" | "i64" | "i32" => "a whole number".into(),
        "f64" | "f32" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        "a map" => "a table".into(),
        _ if expected.starts_with("struct ") => "a table".into(),
        _ => expected.replace("an array of length", "a list of").replace("sequence", "list"),
    }
}

/// Returns a value as written in the file, or a description of it if it is long.
pub(super) fn show(value: &DeValue) -> String {
    match value {
        DeValue::String(s) if s.chars().count() <= 40 => format!("{s:?}"),
        DeValue::String(_) => "a long string".into(),
        DeValue::Integer(v) => v.to_string(),
        DeValue::Float(v) => v.to_string(),
        DeValue::Boolean(v) => v.to_string(),
        DeValue::Datetime(v) => format!("{v} (a date)"),
        DeValue::Array(items) if items.len() <= 4 && items.iter().all(|v| !nests(v.get_ref())) => {
            format!("[{}]", items.iter().map(|v| show(v.get_ref())).collect::<Vec<_>>().join(", "))
        }
        DeValue::Array(items) => format!("a list of {}", items.len()),
        DeValue::Table(table) if table.is_empty() => "{}".into(),
        DeValue::Table(table) if table.len() <= 2 && table.values().all(|v| !nests(v.get_ref())) => {
            let entries: Vec<_> =
                table.iter().map(|(k, v)| format!("{} = {}", k.get_ref(), show(v.get_ref()))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        DeValue::Table(_) => "a table".into(),
    }
}

fn nests(value: &DeValue) -> bool {
    matches!(value, DeValue::Array(_) | DeValue::Table(_))
}

/// Finds the key or value that a span covers; the path leads to the value, or to the table with the key.
fn locate<'a>(value: &'a SpannedValue, span: &Range<usize>) -> Option<(Vec<String>, SpanTarget<'a>)> {
    let mut path = Vec::new();
    find(value, span, &mut path).map(|found| (path, found))
}

fn find<'a>(value: &'a SpannedValue, span: &Range<usize>, path: &mut Vec<String>) -> Option<SpanTarget<'a>> {
    if value.span() == *span {
        return Some(SpanTarget::Value(value.get_ref()));
    }
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                if key.span() == *span {
                    return Some(SpanTarget::Key(key.get_ref().to_string()));
                }
                path.push(key.get_ref().to_string());
                if let Some(found) = find(value, span, path) {
                    return Some(found);
                }
                path.pop();
            }
        }
        DeValue::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                path.push(i.to_string());
                if let Some(found) = find(item, span, path) {
                    return Some(found);
                }
                path.pop();
            }
        }
        _ => {}
    }
    None
}

/// A deserialiser that records the keys that a type expects.
pub(super) struct Probe<'a>(pub(super) &'a mut Option<&'static [&'static str]>);

/// Returns the keys of the table that `read` expects, if it expects a table.
pub(super) fn fields<T>(
    read: impl FnOnce(Probe) -> Result<T, serde::de::value::Error>,
) -> Option<&'static [&'static str]> {
    let mut fields = None;
    // A probe always fails; only the keys that it records matter.
    let _ = read(Probe(&mut fields));
    fields
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("a probe"))
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = Some(fields);
        self.deserialize_any(visitor)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}
