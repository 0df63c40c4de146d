//! Unrolls the list of layers: repeated layers, and blocks of layers with parameters, become the layers that they stand for.
//!
//! ```text
//! [model.blocks.basic]
//! with = { width = 64, stride = 1 }
//! layers = [
//!   { name = "conv1", conv = { filters = "$width", kernel = 3, stride = "$stride", pad = 1 } },
//!   "relu",
//!   { name = "conv2", conv = { filters = "$width", kernel = 3, pad = 1 } },
//!   { name = "sum", add = {}, inputs = ["conv2", "$input"] },
//! ]
//!
//! [model]
//! layers = [{ repeat = { times = 3, layers = [{ name = "layer1.{i}", basic = { width = 16 } }] } }]
//! ```
//!
//! In strings inside a block or a repeat, `$x` is the value of a parameter, `$x * 4` a product of whole numbers, and `{x}` its text. The
//! names in a block begin with that of the entry: `layer1.0.conv1`. Everything else keeps its place in the file, so that messages
//! name it.

use super::errors;
use super::model::{IMAGES, LayerNames, MOST_LAYERS, kind_of};
use super::spans::{SpannedValue, key};
use crate::error::suggest;
use crate::layers;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// The largest number of repeats and blocks inside each other.
const MOST_DEPTH: usize = 8;
/// What a block calls its input.
const INPUT: &str = "$input";
/// The parameter that counts the times of a repeat.
const COUNT: &str = "i";

/// A mistake: the offset of its place, and what it is.
pub(super) type Mistake = (usize, String);

/// Replaces the repeats and blocks of `model.layers`, and removes `model.blocks`. A document with mistakes loses its layers.
pub(super) fn unroll(root: &mut DeTable) -> Vec<Mistake> {
    let Some(DeValue::Table(model)) = root.get_mut("model").map(Spanned::get_mut) else { return Vec::new() };
    let blocks = model.remove("blocks");
    let Some(list) = model.get_mut("layers") else { return Vec::new() };
    let DeValue::Array(entries) = list.get_ref() else { return Vec::new() };
    let is_plain = |entry: &SpannedValue| entry.get_ref().as_table().is_none_or(|table| !table.contains_key("repeat"));
    if blocks.is_none() && entries.iter().all(is_plain) {
        return Vec::new();
    }
    let mut unrolling = Unrolling::default();
    if let Some(blocks) = &blocks {
        unrolling.read_blocks(blocks);
    }
    unrolling.entries(entries, &Scope::default(), &[], 0);
    for (name, block) in &unrolling.blocks {
        if block.count == 0 {
            let message = format!(
                "[model]: block \"{name}\" is not used; remove it, or write {{ {name} = {{}} }} among the layers"
            );
            unrolling.mistakes.push((block.at, message));
        }
    }
    let Unrolling { mut out, ends, mistakes, .. } = unrolling;
    out.iter_mut().for_each(|entry| lead_to_blocks(entry, &ends));
    *list.get_mut() = DeValue::Array(DeArray::from_iter(out));
    if let Some(DeValue::Array(losses)) = model.get_mut("loss").map(Spanned::get_mut) {
        losses.iter_mut().for_each(|entry| lead_to_blocks(entry, &ends));
    }
    mistakes
}

/// Makes inputs that name a block name its last layer.
fn lead_to_blocks(entry: &mut SpannedValue, ends: &BTreeMap<String, String>) {
    let DeValue::Table(table) = entry.get_mut() else { return };
    let Some(DeValue::Array(list)) = table.get_mut("inputs").map(Spanned::get_mut) else { return };
    for item in list.iter_mut() {
        if let Some(end) = item.get_ref().as_str().and_then(|name| ends.get(name)) {
            *item.get_mut() = DeValue::String(end.clone().into());
        }
    }
}

/// A block of layers.
struct Block<'i> {
    /// Its parameters, with their defaults.
    with: BTreeMap<String, SpannedValue<'i>>,
    layers: DeArray<'i>,
    at: usize,
    /// How often it was used.
    count: usize,
}

/// What the strings of a block or of a repeat may refer to.
#[derive(Clone, Default)]
struct Scope<'i> {
    /// The parameters.
    values: BTreeMap<String, SpannedValue<'i>>,
    /// Whether there is anything to replace.
    is_inner: bool,
    /// The name of the entry, whose layers have names that begin with it.
    prefix: Option<String>,
    /// The names that the block gives its layers.
    own: Vec<String>,
    /// The inputs of the block.
    inputs: Vec<String>,
}

#[derive(Default)]
struct Unrolling<'i> {
    blocks: BTreeMap<String, Block<'i>>,
    out: Vec<SpannedValue<'i>>,
    names: LayerNames,
    /// The name of the last layer in `out`.
    last: Option<String>,
    /// The last layer of each block, by the name of its entry.
    ends: BTreeMap<String, String>,
    mistakes: Vec<Mistake>,
}

impl<'i> Unrolling<'i> {
    fn mistake(&mut self, at: &Range<usize>, message: impl Into<String>) {
        self.mistakes.push((at.start, format!("[model]: {}", message.into())));
    }

    fn read_blocks(&mut self, value: &SpannedValue<'i>) {
        let DeValue::Table(table) = value.get_ref() else {
            let message = format!("blocks = {}, expected a table of blocks", errors::show(value.get_ref()));
            return self.mistake(&value.span(), message);
        };
        for (name, block) in table {
            let (at, name) = (name.span(), name.get_ref().to_string());
            if layers::KEYS.contains(&name.as_str()) || name == "repeat" {
                self.mistake(&at, format!("a block cannot have the name \"{name}\", which is a kind of layer"));
                continue;
            }
            let Some(fields) = block.get_ref().as_table() else {
                self.mistake(
                    &block.span(),
                    format!("block \"{name}\": expected a table with layers, and with its parameters"),
                );
                continue;
            };
            if let Some((wrong, _)) = fields.iter().find(|(key, _)| !["with", "layers"].contains(&&**key.get_ref())) {
                self.mistake(
                    &wrong.span(),
                    format!("block \"{name}\": unknown key \"{}\"; known keys: with, layers", wrong.get_ref()),
                );
            }
            let with = match fields.get("with").map(|with| (with.span(), with.get_ref())) {
                None => BTreeMap::new(),
                Some((_, DeValue::Table(with))) => {
                    with.iter().map(|(key, value)| (key.get_ref().to_string(), value.clone())).collect()
                }
                Some((at, other)) => {
                    let message =
                        format!("block \"{name}\": with = {}, expected a table of parameters", errors::show(other));
                    self.mistake(&at, message);
                    continue;
                }
            };
            let Some(DeValue::Array(layers)) = fields.get("layers").map(Spanned::get_ref) else {
                self.mistake(&block.span(), format!("block \"{name}\": expected layers = [..]"));
                continue;
            };
            self.blocks.insert(name, Block { with, layers: layers.clone(), at: at.start, count: 0 });
        }
    }

    fn push(&mut self, entry: SpannedValue<'i>) {
        self.last = Some(self.names.next(&entry));
        self.out.push(entry);
    }

    /// Unrolls a list. The first layer reads `first`, if it is not empty.
    fn entries(&mut self, entries: &DeArray<'i>, scope: &Scope<'i>, first: &[String], depth: usize) {
        for (index, entry) in entries.iter().enumerate() {
            if self.out.len() >= MOST_LAYERS {
                return self.mistake(&entry.span(), format!("repeats and blocks make more than {MOST_LAYERS} layers"));
            }
            let entry = if scope.is_inner { self.replaced(entry, scope) } else { entry.clone() };
            let first = if index == 0 { first } else { &[] };
            let kind = match entry.get_ref() {
                DeValue::String(kind) => kind.to_string(),
                DeValue::Table(table) if table.contains_key("repeat") => "repeat".to_string(),
                DeValue::Table(table) => kind_of(table).unwrap_or_default().to_string(),
                _ => String::new(),
            };
            if kind == "repeat" {
                self.repeat(&entry, scope, first, depth);
            } else if self.blocks.contains_key(&kind) {
                self.block(&kind, &entry, scope, first, depth);
            } else {
                self.push(layer(entry, scope, first));
            }
        }
    }

    fn repeat(&mut self, entry: &SpannedValue<'i>, scope: &Scope<'i>, first: &[String], depth: usize) {
        let expected = "expected repeat = { times = 3, layers = [..] }";
        let table = entry.get_ref().as_table();
        let Some(DeValue::Table(fields)) = table.and_then(|table| table.get("repeat")).map(Spanned::get_ref) else {
            return self.mistake(&entry.span(), expected);
        };
        let extra = table.into_iter().flatten().find(|(key, _)| &**key.get_ref() != "repeat");
        let unknown = fields.iter().find(|(key, _)| !["times", "from", "layers"].contains(&&**key.get_ref()));
        if let Some((key, _)) = extra.or(unknown) {
            let message = format!("unknown key \"{}\" of a repeat; known keys: times, from, layers", key.get_ref());
            return self.mistake(&key.span(), message);
        }
        let [times, from] = ["times", "from"].map(|key| {
            let value =
                fields.get(key).map(|value| if scope.is_inner { self.replaced(value, scope) } else { value.clone() });
            value.map(|value| integer(value.get_ref()))
        });
        let (Some(Some(times)), Some(from)) = (times, from.unwrap_or(Some(0))) else {
            return self.mistake(&entry.span(), expected);
        };
        if !(0..=MOST_LAYERS as i64).contains(&times) {
            return self.mistake(&entry.span(), format!("times = {times}, expected 0 to {MOST_LAYERS}"));
        }
        let Some(DeValue::Array(layers)) = fields.get("layers").map(Spanned::get_ref) else {
            return self.mistake(&entry.span(), expected);
        };
        if depth >= MOST_DEPTH {
            return self.mistake(&entry.span(), format!("more than {MOST_DEPTH} repeats and blocks inside each other"));
        }
        for i in from..from.saturating_add(times) {
            let mut inner = Scope { is_inner: true, ..scope.clone() };
            inner.values.insert(COUNT.to_string(), Spanned::new(entry.span(), plain(i)));
            for name in own_names(layers) {
                let name = evaluated(&name, &inner.values);
                inner.own.extend(name.ok().and_then(|name| name.as_str().map(str::to_string)));
            }
            self.entries(layers, &inner, if i == from { first } else { &[] }, depth + 1);
        }
    }

    fn block(&mut self, kind: &str, entry: &SpannedValue<'i>, scope: &Scope<'i>, first: &[String], depth: usize) {
        if depth >= MOST_DEPTH {
            return self.mistake(&entry.span(), format!("more than {MOST_DEPTH} repeats and blocks inside each other"));
        }
        let before = self.last.clone().unwrap_or_else(|| IMAGES.to_string());
        let Some(block) = self.blocks.get_mut(kind) else { return };
        block.count += 1;
        let (mut values, layers, count) = (block.with.clone(), block.layers.clone(), block.count);
        let (mut name, mut first) = (None, first.to_vec());
        for (key, value) in entry.get_ref().as_table().into_iter().flatten() {
            match (&**key.get_ref(), value.get_ref()) {
                (own, DeValue::Table(given)) if own == kind => {
                    for (name, value) in given {
                        if !values.contains_key(&**name.get_ref()) {
                            let known: Vec<&str> = values.keys().map(String::as_str).collect();
                            let near = suggest(name.get_ref(), known.iter().copied());
                            let message = format!(
                                "block \"{kind}\" has no parameter \"{}\"{near}; it has {}",
                                name.get_ref(),
                                if known.is_empty() { "none".to_string() } else { known.join(", ") }
                            );
                            self.mistake(&name.span(), message);
                            continue;
                        }
                        values.insert(name.get_ref().to_string(), value.clone());
                    }
                }
                ("name", DeValue::String(given)) => name = Some(given.to_string()),
                ("inputs", DeValue::Array(list)) => {
                    let list = list.iter().filter_map(|name| name.get_ref().as_str());
                    first = list.flat_map(|name| located(name, scope)).collect();
                }
                (wrong, _) => {
                    let message = format!(
                        "block \"{kind}\": {wrong} is not for blocks; expected name, inputs or {kind} = {{ .. }}"
                    );
                    self.mistake(&key.span(), message);
                }
            }
        }
        let name = qualified(&name.unwrap_or_else(|| format!("{kind}{count}")), scope);
        let inputs = if first.is_empty() { vec![before] } else { first.clone() };
        let mut own = Vec::new();
        for name in own_names(&layers) {
            let name = evaluated(&name, &values);
            own.extend(name.ok().and_then(|name| name.as_str().map(str::to_string)));
        }
        let inner = Scope { values, is_inner: true, prefix: Some(name.clone()), own, inputs };
        self.entries(&layers, &inner, &first, depth + 1);
        self.ends.extend(self.last.clone().map(|last| (name, last)));
    }

    /// Returns a value in which parameters are replaced. What is inside a repeat is replaced for each time.
    fn replaced(&mut self, value: &SpannedValue<'i>, scope: &Scope<'i>) -> SpannedValue<'i> {
        let at = value.span();
        let new = match value.get_ref() {
            DeValue::String(text) if text.contains(['$', '{']) && &**text != INPUT => {
                match evaluated(text, &scope.values) {
                    Ok(new) => new,
                    Err(message) => {
                        self.mistake(&at, message);
                        value.get_ref().clone()
                    }
                }
            }
            DeValue::Array(items) => DeValue::Array(items.iter().map(|item| self.replaced(item, scope)).collect()),
            DeValue::Table(table) if table.contains_key("repeat") => value.get_ref().clone(),
            DeValue::Table(table) => {
                let fields = table.iter().map(|(key, value)| (key.clone(), self.replaced(value, scope)));
                DeValue::Table(fields.collect())
            }
            other => other.clone(),
        };
        Spanned::new(at, new)
    }
}

/// Returns a whole number as a value. Values of numbers borrow their text, so the texts of all numbers are kept.
fn plain<'i>(number: i64) -> DeValue<'i> {
    static TEXTS: Mutex<BTreeMap<i64, &'static str>> = Mutex::new(BTreeMap::new());
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let text: &'static str = texts.entry(number).or_insert_with(|| number.to_string().leak());
    DeValue::parse(text).map_or(DeValue::Boolean(false), Spanned::into_inner)
}

fn integer(value: &DeValue) -> Option<i64> {
    match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

/// Evaluates a string with parameters.
fn evaluated<'i>(text: &str, values: &BTreeMap<String, SpannedValue<'i>>) -> Result<DeValue<'i>, String> {
    let value = |name: &str| {
        values.get(name).map(Spanned::get_ref).ok_or_else(|| {
            let known: Vec<String> = values.keys().map(|name| format!("${name}")).collect();
            format!(
                "\"{text}\" uses ${name}, but there is {}",
                if known.is_empty() { "none".into() } else { known.join(", ") }
            )
        })
    };
    if !text.contains('$') {
        let (mut out, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("\"{text}\" has a {{ without }}"))?;
            let part = match value(name)? {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.to_string(),
                other => {
                    return Err(format!(
                        "\"{text}\": {name} = {}, expected text or a whole number",
                        errors::show(other)
                    ));
                }
            };
            (out, rest) = (out + before + &part, after);
        }
        return Ok(DeValue::String((out + rest).into()));
    }
    if let Some(name) = text.strip_prefix('$').filter(|name| !name.contains([' ', '*', '$'])) {
        return value(name).cloned();
    }
    let mut product = 1i64;
    for factor in text.split('*').map(str::trim) {
        let number = match factor.strip_prefix('$') {
            Some(name) => integer(value(name)?),
            None => factor.parse().ok(),
        };
        let wrong = || format!("\"{text}\": {factor} is not a whole number, expected a product such as \"4 * $width\"");
        product = number.ok_or_else(wrong)?.checked_mul(product).ok_or_else(|| format!("\"{text}\" is too large"))?;
    }
    Ok(plain(product))
}

/// Returns the name of a layer of a block in the whole list.
fn qualified(name: &str, scope: &Scope) -> String {
    scope.prefix.as_ref().map_or(name.to_string(), |prefix| format!("{prefix}.{name}"))
}

/// Returns the names that a list gives its layers.
fn own_names(layers: &DeArray) -> Vec<String> {
    let name = |layer: &SpannedValue| Some(layer.get_ref().as_table()?.get("name")?.get_ref().as_str()?.to_string());
    layers.iter().filter_map(name).collect()
}

/// Returns the names in the whole list of what a layer of a block reads.
fn located(name: &str, scope: &Scope) -> Vec<String> {
    if name == INPUT {
        return scope.inputs.clone();
    }
    vec![if scope.own.iter().any(|own| own == name) { qualified(name, scope) } else { name.to_string() }]
}

/// Returns a layer of a block or a repeat with its name and inputs in the whole list. `first` has the inputs of the block if it
/// is its first layer.
fn layer<'i>(entry: SpannedValue<'i>, scope: &Scope<'i>, first: &[String]) -> SpannedValue<'i> {
    if !scope.is_inner {
        return entry;
    }
    let at = entry.span();
    let text = |text: String| Spanned::new(at.clone(), DeValue::String(text.into()));
    let mut table = match entry.get_ref() {
        DeValue::Table(table) => table.clone(),
        DeValue::String(kind) if !first.is_empty() => {
            let settings = Spanned::new(at.clone(), DeValue::Table(DeTable::new()));
            DeTable::from_iter([(key(kind, at.clone()), settings)])
        }
        _ => return entry,
    };
    if let Some(DeValue::String(name)) = table.get_mut("name").map(Spanned::get_mut) {
        *name = qualified(name, scope).into();
    }
    match table.get_mut("inputs").map(Spanned::get_mut) {
        Some(DeValue::Array(list)) => {
            let inputs = |item: &SpannedValue<'i>| match item.get_ref() {
                DeValue::String(name) => {
                    let named = |name: String| Spanned::new(item.span(), DeValue::String(name.into()));
                    located(name, scope).into_iter().map(named).collect()
                }
                _ => vec![item.clone()],
            };
            *list = list.iter().flat_map(inputs).collect();
        }
        None if !first.is_empty() => {
            let list = first.iter().cloned().map(text).collect();
            table.insert(key("inputs", at.clone()), Spanned::new(at.clone(), DeValue::Array(list)));
        }
        _ => {}
    }
    Spanned::new(at, DeValue::Table(table))
}
