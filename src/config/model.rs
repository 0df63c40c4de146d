//! `[model]`: the layers as listed in the file.

use super::diagnostics::Diagnostics;
use super::errors;
use super::kinds::{Kinds, Tagged, kinds};
use super::pretrained::{self, PretrainedWeights};
use super::section::Section;
use super::spans::SpannedValue;
use crate::error::{Fault, Locations, number};
use crate::layers::{self, Activation, Init, Layer, Split, init};
use crate::optim;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use toml::de::{DeArray, DeTable, DeValue};

/// The name of the samples of the batch among the inputs of layers.
pub const IMAGES: &str = "images";

/// The keys that an entry of the list of layers may have besides its kind.
pub(super) const ENTRY_KEYS: &[&str] = &["name", "inputs", "split", "lr_mult", "decay_mult", "init"];

/// A factor of the parameters of a layer, at least 0: one number for all, or a table by the names of parameters, such as
/// `{ weight = 1.0, bias = 2.0 }`, in which those that are not named have 1, the default.
#[derive(Debug, Clone, PartialEq)]
pub struct Multiplier {
    /// The factor of parameters that are not named.
    pub default: f64,
    /// The factors of named parameters.
    pub named: BTreeMap<String, f64>,
}

impl Default for Multiplier {
    fn default() -> Self {
        Multiplier { default: 1.0, named: BTreeMap::new() }
    }
}

impl Multiplier {
    /// Returns the factor of a parameter.
    pub fn of(&self, parameter: &str) -> f64 {
        self.named.get(parameter).copied().unwrap_or(self.default)
    }
}

/// The keys that an entry of the list of losses may have besides its kind.
pub(super) const LOSS_KEYS: &[&str] = &["name", "inputs", "weight"];

/// A layer or a loss as listed in the file.
#[derive(Debug, Clone)]
pub struct LayerEntry {
    /// Its name: from the file, where it may have dots, or `<kind><index among its kind, from 1>`; by default, that of a
    /// loss is `loss`, or `loss1`, `loss2` and so on if there are several.
    pub name: String,
    /// The layer; `None` if its settings are wrong, which has been reported.
    pub layer: Option<Arc<dyn Layer>>,
    /// The names of its inputs; `None` means the previous layer, and for a loss the last one.
    pub inputs: Option<Vec<String>>,
    /// How it is split over the columns axis.
    pub split: Option<Split>,
    /// Multiplies the learning rate of its parameters; 0 freezes them.
    pub lr_mult: Multiplier,
    /// Multiplies the weight decay of its parameters.
    pub decay_mult: Multiplier,
    /// The initialisation of its parameters, unless the layer fixes it.
    pub init: Option<Init>,
    /// The factor of a loss in the loss of the network, above 0; 1 by default.
    pub loss_weight: f64,
    /// The locations of the entry and its keys in the file.
    pub locations: Locations,
}

/// The network as the file describes it.
#[derive(Debug, Clone)]
pub struct Model {
    /// The shape of an image: H, W, C.
    pub input: Activation,
    /// The initialisation of parameters; by default Kaiming, with a small gain in the last layer.
    pub init: Option<Init>,
    /// The layers, in the order of the file.
    pub layers: Vec<LayerEntry>,
    /// The losses, of which the weighted sum is the loss of the network; softmax cross-entropy by default.
    pub losses: Vec<LayerEntry>,
    /// The weights that training starts from.
    pub from: Option<PretrainedWeights>,
    /// The locations of the section and its keys in the file.
    pub locations: Locations,
}

const LAYERS: Kinds = kinds!("layer", layers);
const INITIAL: Kinds = kinds!("initialisation", init);
/// The largest number of layers.
pub(super) const MOST_LAYERS: usize = 10_000;
/// The largest number of values in one sample.
const MOST_VALUES: usize = 1 << 30;

/// Returns the key of an entry that names its kind: the first key that is not common to all entries.
pub(super) fn kind_of<'t>(table: &'t DeTable) -> Option<&'t str> {
    let keys = table.keys().map(|k| &**k.get_ref()).filter(|k| !ENTRY_KEYS.contains(k));
    let keys: Vec<&str> = keys.collect();
    keys.iter().find(|k| layers::KEYS.contains(k)).or(keys.first()).copied()
}

/// Returns the name that the file gives an entry.
fn name_of(entry: &SpannedValue) -> Option<String> {
    entry.get_ref().as_table()?.get("name")?.get_ref().as_str().map(str::to_string)
}

/// Returns the name of every loss: from the file, or `loss`, and `loss<index, from 1>` if there are several.
pub(super) fn names_of_losses(entries: &DeArray) -> Vec<String> {
    let default = |index| if entries.len() > 1 { format!("loss{}", index + 1) } else { "loss".to_string() };
    entries.iter().enumerate().map(|(index, entry)| name_of(entry).unwrap_or_else(|| default(index))).collect()
}

/// Names the entries of the list of layers, one after another.
#[derive(Debug, Default)]
pub(super) struct LayerNames {
    counts: HashMap<String, usize>,
}

impl LayerNames {
    /// Returns the name of the next entry: from the file, or `<kind><index among its kind, from 1>`.
    pub(super) fn next(&mut self, entry: &SpannedValue) -> String {
        let kind = match entry.get_ref() {
            DeValue::String(kind) => kind,
            DeValue::Table(table) => kind_of(table).unwrap_or("layer"),
            _ => "layer",
        };
        if !self.counts.contains_key(kind) {
            self.counts.insert(kind.to_string(), 0);
        }
        let count = self.counts.get_mut(kind).map_or(1, |count| {
            *count += 1;
            *count
        });
        name_of(entry).unwrap_or_else(|| format!("{kind}{count}"))
    }
}

/// Returns the name of every layer.
pub(super) fn names(entries: &DeArray) -> Vec<String> {
    let mut names = LayerNames::default();
    entries.iter().map(|entry| names.next(entry)).collect()
}

/// Reads the section; returns `None` if its input or its list of layers cannot be used.
pub(super) fn read(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Model> {
    let mut section = Section::open(diagnostics, "[model]", "model", value);
    let locations = section.locations.clone();
    let input = read_input(&mut section);
    let init = read_init(&mut section);
    section.require("layers");
    let layers = section.value("layers");
    let layers = layers.and_then(|value| read_layers(section.diagnostics, value));
    let loss = section.value("loss");
    let softmax = || toml::Spanned::new(section.span.clone(), DeValue::String("softmax_cross_entropy".into()));
    let losses = read_losses(section.diagnostics, loss.unwrap_or_else(softmax));
    let from = section.value("from");
    let from = from.and_then(|value| pretrained::read(section.diagnostics, value));
    section.finish();
    Some(Model { input: input?, init, layers: layers?, losses: losses?, from, locations })
}

fn read_input(section: &mut Section) -> Option<Activation> {
    let [h, w, c]: [usize; 3] = section.required("input")?;
    let values = h.checked_mul(w).and_then(|v| v.checked_mul(c));
    if values.is_none_or(|v| v == 0 || v > MOST_VALUES) {
        let message =
            format!("input = [{h}, {w}, {c}], expected height, width and channels, 1 to {MOST_VALUES} values");
        section.fault(&Fault::at("input", message));
        return None;
    }
    Some(Activation::new(h, w, c))
}

/// Reads the initialisation of a section, if it has one.
fn read_init(section: &mut Section) -> Option<Init> {
    let value = section.value("init")?;
    let subject = format!("{} init", section.subject);
    let diagnostics = &mut *section.diagnostics;
    let tagged = Tagged::open(diagnostics, &subject, &INITIAL, value)?;
    let (subject, locations) = (format!("{subject} \"{}\"", tagged.kind), tagged.locations.clone());
    let init = tagged.read(diagnostics, &subject, &INITIAL, init::read)?;
    init.check().map_err(|fault| diagnostics.fault(&subject, &locations, &fault)).ok()?;
    Some(Init(Arc::from(init)))
}

fn read_layers(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Vec<LayerEntry>> {
    let at = value.span().start;
    match value.into_inner() {
        DeValue::Array(entries) if entries.is_empty() => {
            diagnostics.problem(at, "[model]: layers is empty, expected at least one layer");
            None
        }
        DeValue::Array(entries) if entries.len() > MOST_LAYERS => {
            let message = format!("[model]: layers has {} layers, expected at most {MOST_LAYERS}", entries.len());
            diagnostics.problem(at, message);
            None
        }
        DeValue::Array(entries) => {
            let names = names(&entries);
            let read = |(value, name)| read_entry(diagnostics, value, name, &OF_LAYERS);
            Some(entries.into_iter().zip(names).map(read).collect())
        }
        other => {
            diagnostics.problem(at, format!("[model]: layers = {}, expected a list of layers", errors::show(&other)));
            None
        }
    }
}

/// Creates an entry without settings.
fn blank(name: String, locations: Locations) -> LayerEntry {
    LayerEntry {
        name,
        layer: None,
        inputs: None,
        split: None,
        lr_mult: Multiplier::default(),
        decay_mult: Multiplier::default(),
        init: None,
        loss_weight: 1.0,
        locations,
    }
}

/// How the entries of a list are read.
struct EntryKind {
    /// The path of an entry, as in the list of keys.
    path: &'static str,
    /// The keys that an entry may have besides its kind.
    keys: &'static [&'static str],
    /// Reads them.
    read: fn(&mut Section, &mut LayerEntry),
}

const OF_LAYERS: EntryKind = EntryKind { path: "model.layers.*", keys: ENTRY_KEYS, read: read_entry_keys };
const OF_LOSSES: EntryKind = EntryKind { path: "model.loss.*", keys: LOSS_KEYS, read: read_loss_keys };

fn read_entry(diagnostics: &mut Diagnostics, value: SpannedValue, name: String, of: &EntryKind) -> LayerEntry {
    let subject = format!("layer \"{name}\"");
    let span = value.span();
    let mut entry = blank(name, diagnostics.source.locations(&value));
    match value.get_ref() {
        DeValue::String(kind) => {
            let tagged = Tagged::bare(diagnostics, &subject, &LAYERS, kind, span);
            entry.layer = tagged.and_then(|tagged| read_layer(diagnostics, &subject, tagged));
        }
        DeValue::Table(_) => {
            let before = diagnostics.problems.len();
            let mut section = Section::open(diagnostics, &subject, of.path, value);
            (of.read)(&mut section, &mut entry);
            let table = std::mem::replace(&mut section.table, DeTable::new());
            let tagged = Tagged::keyed(section.diagnostics, &subject, &LAYERS, table, span, of.keys);
            if let Some(tagged) = tagged {
                // The keys of the settings come first: a setting may have the name of a common key.
                let own = std::mem::take(&mut entry.locations.keys);
                entry.locations.keys = tagged.locations.keys.iter().cloned().chain(own).collect();
                entry.layer = read_layer(section.diagnostics, &subject, tagged);
            }
            if section.diagnostics.problems.len() > before {
                entry.layer = None;
            }
        }
        other => {
            let message = format!(
                "{}, expected a kind such as \"relu\" or a table such as {{ dense = {{ units = 10 }} }}",
                errors::show(other)
            );
            diagnostics.problem(span.start, format!("{subject}: {message}"));
        }
    }
    entry
}

fn read_loss_keys(section: &mut Section, entry: &mut LayerEntry) {
    read_name(section);
    entry.inputs = section.take("inputs");
    entry.loss_weight = section.within("weight", optim::is_single);
}

fn read_name(section: &mut Section) {
    if let Some(name) = section.take::<String>("name") {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let parts = name.split('.').collect::<Vec<_>>();
        if !parts.iter().all(|part| part.chars().all(fits)) {
            section.fault(&Fault::at("name", "name contains other characters, expected letters, digits, _, - and ."));
        } else if parts.contains(&"") {
            let message = format!("name = \"{name}\", expected letters, digits, _ and -, also on both sides of a dot");
            section.fault(&Fault::at("name", message));
        }
    }
}

fn read_entry_keys(section: &mut Section, entry: &mut LayerEntry) {
    read_name(section);
    entry.inputs = section.take("inputs");
    entry.split = section.take("split");
    entry.lr_mult = read_multiplier(section, "lr_mult");
    entry.decay_mult = read_multiplier(section, "decay_mult");
    entry.init = read_init(section);
}

fn read_multiplier(section: &mut Section, key: &'static str) -> Multiplier {
    let mut multiplier = Multiplier::default();
    let expected = "expected a number, at least 0 and within single precision";
    let check = |section: &mut Section, name: &str, x: f64| {
        let fits = x >= 0.0 && (x as f32).is_finite() && (x == 0.0 || x as f32 > 0.0);
        if !fits {
            section.fault(&Fault::at(key, format!("{name} = {}, {expected}", number(x))));
        }
        if fits { x } else { 1.0 }
    };
    if section.table.get(key).is_some_and(|value| value.get_ref().is_table()) {
        for (name, x) in section.take::<BTreeMap<String, f64>>(key).unwrap_or_default() {
            let x = check(section, &format!("{key}.{name}"), x);
            multiplier.named.insert(name, x);
        }
    } else if let Some(x) = section.take::<f64>(key) {
        multiplier.default = check(section, key, x);
    }
    multiplier
}

/// Reads and checks the settings of a layer.
fn read_layer(diagnostics: &mut Diagnostics, subject: &str, tagged: Tagged) -> Option<Arc<dyn Layer>> {
    let locations = tagged.locations.clone();
    let layer = tagged.read(diagnostics, subject, &LAYERS, layers::read)?;
    layer.check().map_err(|fault| diagnostics.fault(subject, &locations, &fault)).ok()?;
    Some(Arc::from(layer))
}

/// Reads one loss, or a list of losses.
fn read_losses(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Vec<LayerEntry>> {
    let at = value.span().start;
    let span = value.span();
    let entries = match value.into_inner() {
        DeValue::Array(entries) => entries,
        one => DeArray::from_iter([toml::Spanned::new(span, one)]),
    };
    if !(1..=MOST_LAYERS).contains(&entries.len()) {
        let message = format!("[model]: loss has {} losses, expected 1 to {MOST_LAYERS}", entries.len());
        diagnostics.problem(at, message);
        return None;
    }
    let names = names_of_losses(&entries);
    Some(entries.into_iter().zip(names).map(|(value, name)| read_entry(diagnostics, value, name, &OF_LOSSES)).collect())
}
