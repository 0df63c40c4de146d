//! `[model]`: the layers as the file lists them.

use super::errors;
use super::kinds::{Kinded, Kinds, kinds};
use super::report::{Report, Table, Value};
use super::section::Section;
use crate::error::{Fault, Spot};
use crate::layers::{self, Activation, Init, Layer, Split};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use toml::de::{DeArray, DeTable, DeValue};

/// The keys that an entry of the list of layers may have beside its kind.
pub(super) const ENTRY_KEYS: &[&str] = &["name", "inputs", "split", "lr_mult", "decay_mult", "init"];

/// A layer as the file lists it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name: the file's, or `<kind><index of its kind, from 1>`.
    pub name: String,
    /// The layer; none where the file's settings of it are wrong, which has been reported then.
    pub layer: Option<Arc<dyn Layer>>,
    /// The names of its inputs; none means the previous layer.
    pub inputs: Option<Vec<String>>,
    /// How it is split over the columns.
    pub split: Option<Split>,
    /// Multiplies the learning rate of its parameters, at least 0; 1 by default.
    pub lr_mult: f64,
    /// Multiplies the weight decay of its parameters, at least 0; 1 by default.
    pub decay_mult: f64,
    /// How its parameters start, where the layer does not fix that.
    pub init: Option<Init>,
    /// Where the file says all this.
    pub spot: Spot,
}

/// The weights to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// The safetensors file.
    pub file: PathBuf,
    /// Layers whose weights are not taken from it.
    pub skip: Vec<String>,
}

/// The network as the file describes it.
#[derive(Debug, Clone)]
pub struct Model {
    /// The images: H, W, C.
    pub input: Activation,
    /// How parameters start, Kaiming by default.
    pub init: Init,
    /// The layers, in the order of the file.
    pub layers: Vec<Entry>,
    /// The loss, named `loss`; softmax and cross-entropy by default.
    pub loss: Entry,
    /// The weights to start from.
    pub from: Option<From>,
    /// Where the file says all this.
    pub spot: Spot,
}

const LAYERS: Kinds = kinds!("layer", layers);
/// The most values of one sample.
const MOST_VALUES: usize = 1 << 30;

/// Returns the key of an entry that names its kind: the first one that is not an entry's own key.
pub(super) fn kind_of<'t>(table: &'t Table) -> Option<&'t str> {
    let keys = table.keys().map(|k| &**k.get_ref()).filter(|k| !ENTRY_KEYS.contains(k));
    let keys: Vec<&str> = keys.collect();
    keys.iter().find(|k| layers::KINDS.contains(k)).or(keys.first()).copied()
}

/// Returns the name of every layer: the file's, or `<kind><index of its kind, from 1>`.
pub(super) fn names(entries: &DeArray) -> Vec<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let name = |entry: &'_ Value| match entry.get_ref() {
        DeValue::Table(table) => table.get("name").and_then(|v| v.get_ref().as_str()).map(str::to_string),
        _ => None,
    };
    let mut names = Vec::new();
    for entry in entries {
        let kind = match entry.get_ref() {
            DeValue::String(kind) => kind,
            DeValue::Table(table) => kind_of(table).unwrap_or("layer"),
            _ => "layer",
        };
        let count = counts.entry(kind).or_default();
        *count += 1;
        names.push(name(entry).unwrap_or_else(|| format!("{kind}{count}")));
    }
    names
}

/// Reads the section; none when its input or its list of layers cannot be used.
pub(super) fn read(report: &mut Report, value: Value) -> Option<Model> {
    let mut section = Section::open(report, "[model]", value);
    let spot = section.spot.clone();
    let input = read_input(&mut section);
    let init = section.take("init").unwrap_or(Init::Kaiming);
    check_init(&mut section, init);
    section.require("layers", "layers = [\"relu\", { dense = { units = 10 } }]");
    let layers = section.value("layers");
    let layers = layers.and_then(|value| read_layers(section.report, value));
    let loss = match section.value("loss") {
        Some(value) => read_loss(section.report, value),
        None => {
            let table = toml::Spanned::new(section.span.clone(), DeValue::String("softmax_cross_entropy".into()));
            read_loss(section.report, table)
        }
    };
    let from = section.value("from");
    let from = from.and_then(|value| read_from(section.report, value));
    section.finish();
    Some(Model { input: input?, init, layers: layers?, loss, from, spot })
}

fn read_input(section: &mut Section) -> Option<Activation> {
    let [h, w, c]: [usize; 3] = section.required("input", "input = [28, 28, 1] (height, width, channels)")?;
    let values = h.checked_mul(w).and_then(|v| v.checked_mul(c));
    if values.is_none_or(|v| v == 0 || v > MOST_VALUES) {
        let message =
            format!("input = [{h}, {w}, {c}], expected height, width and channels, 1 to {MOST_VALUES} values");
        section.fault(&Fault::at("input", message));
        return None;
    }
    Some(Activation::new(h, w, c))
}

/// Reports a setting of an initialisation that is out of range; it is named after its own key.
fn check_init(section: &mut Section, init: Init) {
    let message = match init {
        Init::Normal { std } if !(std.is_finite() && std > 0.0) => {
            format!("init.normal.std = {std}, expected a number above 0; for zeros write init = \"zeros\"")
        }
        Init::Constant(value) if !value.is_finite() => format!("init.constant = {value}, expected a finite number"),
        _ => return,
    };
    section.fault(&Fault::at("init", message));
}

fn read_layers(report: &mut Report, value: Value) -> Option<Vec<Entry>> {
    let at = value.span().start;
    match value.into_inner() {
        DeValue::Array(entries) if entries.is_empty() => {
            report.problem(at, "[model]: layers is empty, expected at least one layer");
            None
        }
        DeValue::Array(entries) => {
            let names = names(&entries);
            Some(entries.into_iter().zip(names).map(|(value, name)| read_entry(report, value, name)).collect())
        }
        other => {
            report.problem(at, format!("[model]: layers = {}, expected a list of layers", errors::show(&other)));
            None
        }
    }
}

/// An entry without settings, of which nothing is known yet.
fn blank(name: String, spot: Spot) -> Entry {
    Entry { name, layer: None, inputs: None, split: None, lr_mult: 1.0, decay_mult: 1.0, init: None, spot }
}

fn read_entry(report: &mut Report, value: Value, name: String) -> Entry {
    let subject = format!("layer \"{name}\"");
    let span = value.span();
    let mut entry = blank(name, report.places.spot(&value));
    match value.get_ref() {
        DeValue::String(kind) => {
            let kinded = Kinded::bare(report, &subject, &LAYERS, kind, span);
            entry.layer = kinded.and_then(|kinded| read_layer(report, &subject, kinded));
        }
        DeValue::Table(_) => {
            let before = report.problems.len();
            let mut section = Section::open(report, &subject, value);
            read_entry_keys(&mut section, &mut entry);
            let table = std::mem::replace(&mut section.table, DeTable::new());
            let kinded = Kinded::keyed(section.report, &subject, &LAYERS, table, span, ENTRY_KEYS);
            if let Some(kinded) = kinded {
                // The keys of the settings come first: a setting may have the name of an entry's key.
                let own = std::mem::take(&mut entry.spot.keys);
                entry.spot.keys = kinded.spot.keys.iter().cloned().chain(own).collect();
                entry.layer = read_layer(section.report, &subject, kinded);
            }
            if section.report.problems.len() > before {
                entry.layer = None;
            }
        }
        other => {
            let message = format!(
                "{}, expected a kind like \"relu\" or a table like {{ dense = {{ units = 10 }} }}",
                errors::show(other)
            );
            report.problem(span.start, format!("{subject}: {message}"));
        }
    }
    entry
}

fn read_entry_keys(section: &mut Section, entry: &mut Entry) {
    if let Some(name) = section.take::<String>("name") {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(fits) {
            section.fault(&Fault::at("name", "name with other characters, expected letters, digits, _ and -"));
        }
    }
    entry.inputs = section.take("inputs");
    entry.split = section.take("split");
    let fits = |x: f64| x.is_finite() && x >= 0.0;
    entry.lr_mult = section.within("lr_mult", 1.0, fits, "a number, at least 0");
    entry.decay_mult = section.within("decay_mult", 1.0, fits, "a number, at least 0");
    entry.init = section.take("init");
    if let Some(init) = entry.init {
        check_init(section, init);
    }
}

/// Reads and checks the settings of a layer.
fn read_layer(report: &mut Report, subject: &str, kinded: Kinded) -> Option<Arc<dyn Layer>> {
    let spot = kinded.spot.clone();
    let layer = kinded.read(report, subject, &LAYERS, layers::read)?;
    layer.check().map_err(|fault| report.fault(subject, &spot, &fault)).ok()?;
    Some(Arc::from(layer))
}

fn read_loss(report: &mut Report, value: Value) -> Entry {
    let mut entry = blank("loss".to_string(), report.places.spot(&value));
    let subject = "layer \"loss\"";
    if let Some(kinded) = Kinded::open(report, subject, &LAYERS, value) {
        entry.spot = kinded.spot.clone();
        entry.layer = read_layer(report, subject, kinded);
    }
    entry
}

fn read_from(report: &mut Report, value: Value) -> Option<From> {
    if let DeValue::String(file) = value.get_ref() {
        return Some(From { file: PathBuf::from(file.to_string()), skip: Vec::new() });
    }
    let mut section = Section::open(report, "[model] from", value);
    let file: Option<PathBuf> = section.required("file", "file = \"weights.safetensors\"");
    let skip = section.take("skip").unwrap_or_default();
    section.finish();
    Some(From { file: file?, skip })
}
