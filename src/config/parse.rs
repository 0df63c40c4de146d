//! Reads a file into a [`Config`], or into all of its problems.

use super::diagnostics::Diagnostics;
use super::section::Section;
use super::spans::{SourceMap, SpannedValue};
use super::{
    DeviceKind, Devices, LayerEntry, Model, Multiplier, Optimizer, Train, blocks, data, devices, duration, model,
    optimizer, set, train, write,
};
use crate::cluster::{Process, Stated, Timeouts};
use crate::data::{Base, DataSettings};
use crate::error::{Error, Fault, Locations, Problem, Result, is_hidden, quantity};
use crate::layers::Parts;
use crate::storage::open_regular;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The largest file that is accepted, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// A complete configuration without mistakes.
#[derive(Debug)]
pub struct Config {
    /// The name of the run; by default the name of the file without its extension.
    pub name: String,
    /// The seed of all random numbers; 1 by default.
    pub seed: u64,
    /// The devices and how they are used.
    pub devices: Devices,
    /// The data set and how it is batched.
    pub data: DataSettings,
    /// The location of `data` in the file.
    pub data_locations: Locations,
    /// The network.
    pub model: Model,
    /// How gradients become updates.
    pub optimizer: Optimizer,
    /// The location of `optimizer` in the file.
    pub optimizer_locations: Locations,
    /// The length of training, and when to evaluate and save.
    pub train: Train,
    /// The location of `train` in the file.
    pub train_locations: Locations,
    /// The location of `checkpoint` in `train` in the file.
    pub checkpoint_locations: Locations,
    /// The folder that relative paths refer to: the folder of the file.
    pub base: Base,
    /// The path of the file.
    pub path: PathBuf,
    /// What `[cluster]` says of the processes.
    pub cluster: Stated,
    /// Which process of a job this is, if the environment was looked at and it is not alone.
    pub process: Option<Process>,
    /// Settings that have no effect or were replaced; each is logged once.
    pub notes: Vec<String>,
    /// The text of the file with every `--set` applied, which a run saves as its `config.toml`.
    pub resolved: String,
}

/// The result of parsing a file.
#[derive(Debug)]
pub struct Parsed {
    /// The name of the file; `None` if it is not readable TOML.
    pub file: Option<String>,
    /// The configuration, if every section can be used; also present despite problems, so that later checks can run.
    pub config: Option<Config>,
    /// The model; also present despite problems, so that the network can be checked as well.
    pub model: Option<Model>,
    /// All problems, in the order of the file.
    pub problems: Vec<Problem>,
}

/// Reads a file and applies every `--set KEY=VALUE`.
///
/// # Errors
/// An error of the operating system that is not a mistake in the path.
pub fn read(path: &Path, sets: &[String]) -> Result<Parsed> {
    read_in(None, path, sets)
}

/// The variables of an environment, in which a launcher may say which process of a job this is.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a file as [`read`] does, for the process of an environment.
///
/// # Errors
/// As [`read`].
pub fn read_in(environment: Option<Environment>, path: &Path, sets: &[String]) -> Result<Parsed> {
    let name = path.display().to_string();
    Ok(match text_of(path)? {
        Ok(text) => text_in(environment, &name, &text, path.parent().unwrap_or(Path::new("")), sets),
        Err(message) => unreadable(name, message),
    })
}

/// Returns the text of a file, or why it is none.
///
/// # Errors
/// An error of the operating system that is not a mistake in the path.
pub(super) fn text_of(path: &Path) -> Result<Result<String, String>> {
    match contents(path) {
        Ok(bytes) => Ok(decoded(bytes)),
        Err(Error::File { message, .. }) => Ok(Err(message)),
        Err(Error::Io { source, .. }) if Error::is_mistake(&source) => Ok(Err(format!("cannot read: {source}"))),
        Err(error) => Err(error),
    }
}

/// Returns the place of a mistake in the syntax, and its message.
pub(super) fn syntax(source: &SourceMap, error: &toml::de::Error) -> (String, String) {
    let location = source.at(error.span().map_or(0, |span| span.start));
    (location, format!("the file is not TOML: {}", error.message().replace('\n', ", ")))
}

/// Reads the text of a file called `name` in the folder `base`.
pub fn from_text(name: &str, text: &str, base: &Path, sets: &[String]) -> Parsed {
    text_in(None, name, text, base, sets)
}

/// Reads the text as [`from_text`] does, for the process of an environment.
pub fn from_text_in(environment: Option<Environment>, name: &str, text: &str, base: &Path, sets: &[String]) -> Parsed {
    text_in(environment, name, text, base, sets)
}

fn text_in(environment: Option<Environment>, name: &str, text: &str, base: &Path, sets: &[String]) -> Parsed {
    // Some editors begin a file with a byte order mark. It is no part of the text, and a run's config.toml has none.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut diagnostics = Diagnostics::new(SourceMap::new(name, text));
    if text.len() as u64 > MOST_BYTES {
        return unreadable(name.to_string(), too_large());
    }
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let (location, message) = syntax(&diagnostics.source, &error);
            return unreadable(location, message);
        }
    };
    let span = root.span();
    // Layers have their names once repeats and blocks are unrolled.
    let (of_layers, others): (Vec<_>, Vec<_>) =
        sets.iter().partition(|set| set.trim_start().starts_with("model.layers."));
    let root = set::apply(&mut diagnostics, Spanned::new(span, DeValue::Table(root.into_inner())), &others);
    let mut root = root;
    if let DeValue::Table(table) = root.get_mut() {
        blocks::unroll(table).into_iter().for_each(|(at, message)| diagnostics.problem(at, message));
    }
    let root = set::apply(&mut diagnostics, root, &of_layers);
    let DeValue::Table(root) = root.into_inner() else { unreachable!("every path of a --set has a key") };
    let resolved = if sets.is_empty() {
        text.to_string()
    } else {
        let sets: Vec<String> = sets.iter().map(|set| format!(" --set {set:?}")).collect();
        format!("# {name:?} with{}\n\n{}", sets.concat(), write::document(&root))
    };
    let (config, model) = read_root(&mut diagnostics, root, environment);
    let mut problems = diagnostics.problems;
    // Only text of the file has line feeds here: the sentences about it are one line each.
    for text in problems.iter_mut().flat_map(|problem| [&mut problem.location, &mut problem.message]) {
        *text = text.replace('\n', "\\u{a}");
    }
    sort(&mut problems);
    let config = config.map(|config| Config {
        base: base.into(),
        path: PathBuf::from(name),
        notes: diagnostics.notes,
        resolved,
        ..config
    });
    Parsed { file: Some(name.to_string()), config, model, problems }
}

/// Sorts problems by line and column; those of `--set` come last.
pub fn sort(problems: &mut [Problem]) {
    problems.sort_by_cached_key(|problem| {
        let mut parts = problem.location.rsplitn(3, ':').map(|part| part.parse::<usize>().ok());
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(column), Some(line)) => (line, column),
            _ if problem.location.starts_with("--set") => (usize::MAX, 0),
            _ => (0, 0),
        }
    });
}

fn unreadable(location: String, message: String) -> Parsed {
    Parsed { file: None, config: None, model: None, problems: vec![Problem { location, message }] }
}

fn too_large() -> String {
    format!("the file is larger than {MOST_BYTES} bytes, expected a configuration")
}

/// Reads a file, but no more than one byte beyond the largest accepted size.
fn contents(path: &Path) -> Result<Vec<u8>> {
    let (file, _) = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| Error::io(path, "read", error))?;
    Ok(bytes)
}

fn decoded(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.len() as u64 > MOST_BYTES {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        format!("line {line} is not UTF-8 text")
    })
}

fn read_root(
    diagnostics: &mut Diagnostics,
    root: DeTable,
    environment: Option<Environment>,
) -> (Option<Config>, Option<Model>) {
    let file = PathBuf::from(diagnostics.source.file());
    let stem = file.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
    let root = Spanned::new(0..0, DeValue::Table(root));
    let mut top = Section::open(diagnostics, "the file", "", root);
    let name = top.take("name").unwrap_or(stem);
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) || name.chars().any(is_hidden) {
        let message = format!("name = {name:?}, expected a name that can be used for a folder");
        top.fault(&Fault::at("name", message));
    }
    let seed = top.get("seed").unwrap_or(1);
    let devices = top.value("devices").unwrap_or_else(|| Spanned::new(0..0, DeValue::Table(DeTable::new())));
    let cluster = read_cluster(&mut top);
    let found = environment.map(|variable| Process::find(&cluster, variable)).transpose();
    let process = found.unwrap_or_else(|error| {
        let location = top.diagnostics.source.file().to_string();
        top.diagnostics.problems.push(Problem { location, message: error.to_string() });
        None
    });
    let process = process.flatten();
    let processes = match environment {
        Some(_) => process.as_ref().map_or(1, |process| process.processes),
        None => cluster.processes.unwrap_or(1).max(1),
    };
    let local = process.as_ref().and_then(|process| process.local);
    let devices = devices::read(top.diagnostics, devices, processes, local);
    let [data_locations, optimizer_locations, train_locations] = ["data", "optimizer", "train"]
        .map(|section| top.table.get(section).map(|value| top.diagnostics.source.locations(value)).unwrap_or_default());
    let checkpoint = top.table.get("train").and_then(|train| train.get_ref().as_table()?.get("checkpoint"));
    let checkpoint_locations = checkpoint.map(|value| top.diagnostics.source.locations(value)).unwrap_or_default();
    let data = required(&mut top, "data", data::read);
    let model = required(&mut top, "model", model::read);
    let (evaluated, batch) = (evaluated_sets(data.as_ref()), data.as_ref().map(|data| data.batch));
    let optimizer =
        required(&mut top, "optimizer", |diagnostics, value| optimizer::read(diagnostics, value, &evaluated, batch));
    let train = required(&mut top, "train", |diagnostics, value| train::read_train(diagnostics, value, &evaluated));
    if let (Some(data), Some(train)) = (&data, &train)
        && train.accumulate > data.batch.max(1)
    {
        let (parts, batch) = (train.accumulate, data.batch);
        let fault = Fault::at(
            "accumulate",
            format!("accumulate = {parts} divides a batch of {batch} samples, expected at most {batch}"),
        );
        top.diagnostics.fault("[train]", &train_locations, &fault);
    }
    top.finish();
    if let (Some(model), Some(optimizer)) = (&model, &optimizer) {
        note_without_effect(diagnostics, &devices, model, optimizer);
    }
    if let Some(method) = optimizer.as_ref().and_then(|optimizer| optimizer.method.as_deref()) {
        for (key, message) in refused_with(method.key(), &devices, train.as_ref()) {
            let (subject, locations) = match key {
                "ema" | "watch" => ("[train]", &train_locations),
                _ => ("[optimizer]", &optimizer_locations),
            };
            diagnostics.fault(subject, locations, &Fault::at(key, message));
        }
    }
    let average = train.as_ref().and_then(|train| train.ema);
    let optimizer = optimizer.map(|optimizer| optimizer.with_average(average));
    if let (Some(model), Some(train)) = (&model, &train) {
        check_parts(diagnostics, model, train, &train_locations);
    }
    let copy = model.clone();
    let config = || {
        let (base, path, notes, resolved) = Default::default();
        let (data, model, optimizer, train) = (data?, model?, optimizer?, train?);
        Some(Config {
            name,
            seed,
            devices,
            data,
            data_locations,
            model,
            optimizer,
            optimizer_locations,
            train,
            train_locations,
            checkpoint_locations,
            base,
            path,
            cluster,
            process,
            notes,
            resolved,
        })
    };
    (config(), copy)
}

/// Returns what cannot be used with a second-order method: the key, and why.
fn refused_with(method: &str, devices: &Devices, train: Option<&Train>) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    if devices.kind != DeviceKind::Cpu {
        let name = devices.names().into_iter().next().unwrap_or_default();
        let message = format!(
            "method = \"{method}\" runs on CPU devices, not on {name}; use a chain, or [devices] use = \"cpu\""
        );
        all.push(("method", message));
    }
    if train.is_some_and(|train| train.watch.is_some()) {
        let message =
            format!("watch is for updates by a chain, but [optimizer] has method = \"{method}\"; remove one of them");
        all.push(("watch", message));
    }
    if train.is_some_and(|train| train.ema.is_some()) {
        all.push(("ema", format!("ema needs a chain, but [optimizer] has method = \"{method}\"; remove one of them")));
    }
    all
}

/// Returns the names of the sets that are evaluated; all of them if `[data]` cannot be used.
fn evaluated_sets(data: Option<&DataSettings>) -> Vec<&'static str> {
    let validation = data.is_none_or(|data| data.validation > 0.0).then_some("validation");
    let test = data.is_none_or(|data| data.test.is_some()).then_some("test");
    validation.into_iter().chain(test).collect()
}

/// Reads `[cluster]`.
fn read_cluster(top: &mut Section) -> Stated {
    let Some(value) = top.value("cluster") else { return Stated::default() };
    let mut section = Section::open(top.diagnostics, "[cluster]", "cluster", value);
    let mut time = |key: &'static str, default: Duration| {
        let Some(text) = section.take::<String>(key) else { return default };
        duration::parse(&text).unwrap_or_else(|| {
            section.fault(&Fault::at(key, format!("{key} = {text:?}, expected a time like \"30 s\"")));
            default
        })
    };
    let default = Timeouts::default();
    let timeouts = Timeouts {
        start: time("start_timeout", default.start),
        silence: time("timeout", default.silence),
        collective: time("collective_timeout", default.collective),
    };
    let (rank, processes, address) = (section.take("rank"), section.take("processes"), section.take("address"));
    let requeue = section.take("requeue").unwrap_or(false);
    let stated = Stated { rank, processes, address, timeouts, requeue };
    if let Err(fault) = stated.check() {
        section.fault(&fault);
    }
    section.finish();
    stated
}

/// Reads a required section.
fn required<'i, T>(
    top: &mut Section<'i, '_>,
    name: &'static str,
    read: impl FnOnce(&mut Diagnostics, SpannedValue<'i>) -> Option<T>,
) -> Option<T> {
    match top.value(name) {
        Some(value) => read(top.diagnostics, value),
        None => {
            let (location, message) = (top.diagnostics.source.file().to_string(), format!("missing section [{name}]"));
            top.diagnostics.problems.push(Problem { location, message });
            None
        }
    }
}

/// If a batch is divided into parts, refuses layers that need whole batches, and adds a note if layers compute the statistics of each
/// part on its own.
fn check_parts(diagnostics: &mut Diagnostics, model: &Model, train: &Train, locations: &Locations) {
    if train.accumulate == 1 {
        return;
    }
    let parts = |entry: &LayerEntry| entry.layer.as_ref().map(|layer| layer.parts());
    for entry in &model.layers {
        if let Some(Parts::Refused(why)) = parts(entry) {
            let message = format!("accumulate = {}: layer \"{}\": {why}", train.accumulate, entry.name);
            diagnostics.fault("[train]", locations, &Fault::at("accumulate", message));
        }
    }
    let count = model.layers.iter().filter(|entry| parts(entry) == Some(Parts::Apart)).count() as u64;
    if count > 0 {
        diagnostics.note(format!(
            "[train]: accumulate = {}: batch_norm ({}) normalises each part of a batch on its own, so the curve is not that of \
             the whole batch",
            train.accumulate,
            quantity(count, "layer")
        ));
    }
}

/// Adds a note for each setting of devices or optimizer that has no effect.
fn note_without_effect(diagnostics: &mut Diagnostics, devices: &Devices, model: &Model, optimizer: &Optimizer) {
    if devices.mesh.columns == 1 && model.layers.iter().any(|entry| entry.split.is_some()) {
        diagnostics.note("[model]: split has no effect: the mesh has one column");
    }
    let decays = match &optimizer.method {
        Some(method) => method.weight_decay() > 0.0,
        None => optimizer.chain.transforms.iter().any(|transform| transform.uses_decay_mult()),
    };
    if !decays && model.layers.iter().any(|entry| entry.decay_mult != Multiplier::default()) {
        let what = if optimizer.method.is_some() { "method" } else { "chain" };
        diagnostics.note(format!("[model]: decay_mult has no effect: the {what} of [optimizer] has no weight_decay"));
    }
}
