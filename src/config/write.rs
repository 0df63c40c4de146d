//! Writes a document: the `config.toml` of a run when `--set` has changed the file.

use super::spans::SpannedValue;
use toml::de::{DeString, DeTable, DeValue};
use toml::{Spanned, Value as Plain};

/// The largest width of a list or an inline table on one line.
const WIDTH: usize = 100;

/// Returns the text of a document with its keys in the order of the file.
pub(super) fn document(root: &DeTable) -> String {
    let mut text = String::new();
    let is_section = |value: &SpannedValue| matches!(value.get_ref(), DeValue::Table(_));
    for (key, value) in in_order(root).into_iter().filter(|(_, v)| !is_section(v)) {
        text += &format!("{} = {}\n", quoted(key.get_ref()), inline(value, 0));
    }
    for (key, value) in in_order(root) {
        if let DeValue::Table(table) = value.get_ref() {
            text += &format!("\n[{}]\n", quoted(key.get_ref()));
            for (key, value) in in_order(table) {
                text += &format!("{} = {}\n", quoted(key.get_ref()), inline(value, 0));
            }
        }
    }
    text
}

fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Spanned<DeString<'i>>, &'t SpannedValue<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Returns a key as it is written: in quotes if it has other characters than letters, digits, `_` and `-`.
pub(super) fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) { key.to_string() } else { string(key) }
}

/// Quotes a string on one line.
fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

pub(super) fn inline(value: &SpannedValue, indent: usize) -> String {
    match value.get_ref() {
        DeValue::String(text) => string(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(date) => Plain::Datetime(*date).to_string(),
        DeValue::Table(table) if table.is_empty() => "{}".to_string(),
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<DeString>, &SpannedValue)| {
                format!("{} = {}", quoted(key.get_ref()), inline(value, indent))
            };
            format!("{{ {} }}", in_order(table).into_iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        DeValue::Array(items) => {
            let parts: Vec<String> = items.iter().map(|item| inline(item, indent + 2)).collect();
            let line = format!("[{}]", parts.join(", "));
            if line.len() <= WIDTH && !line.contains('\n') {
                return line;
            }
            let space = " ".repeat(indent + 2);
            let lines: Vec<String> = parts.iter().map(|part| format!("{space}{part},\n")).collect();
            format!("[\n{}{}]", lines.concat(), " ".repeat(indent))
        }
    }
}
