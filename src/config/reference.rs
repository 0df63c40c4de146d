//! The reference of the file, docs/CONFIG.md: every section and kind with its keys, written from the lists by which files
//! are read.

use super::key::{KeyDefault, SectionKey};
use super::keys;
use crate::data;
use crate::layers::{self, init};
use crate::optim::{self, schedules, second_order};
use crate::settings::Setting;
use std::fmt::Write;

const HEAD: &str = "# The configuration file

A run is described by one TOML file. This page is written from the lists by which the file is read
(`PERISTYLE_BLESS=1 cargo test --lib reference`), and `peristyle check FILE` reports every mistake in a file with its place.
Any key can be changed for one command: `--set train.epochs=3`. Elements of lists are named by their kind, layers by their name:
`--set optimizer.chain.momentum=0.8`, `--set model.layers.fc8.units=100`.

An *interval* is a number of steps, or text such as `\"500 steps\"` and `\"2 epochs\"`. A *time* is text such as `\"10 minutes\"` and
`\"2 hours\"`. A kind without settings may be written as text: `\"relu\"` is `{ relu = {} }`.
";

const SECTIONS: &[(&str, &str)] = &[
    ("", "## The file as a whole"),
    ("devices", "## `[devices]`: where the network is computed"),
    ("data", "## `[data]`: what it learns from"),
    ("model", "## `[model]`: the network"),
    ("model.from", "### `from` in `[model]`, as a table"),
    ("model.loss.*", "### Every loss"),
    ("model.layers.*", "### Every layer"),
    ("optimizer", "## `[optimizer]`: how it learns"),
    ("optimizer.groups.*", "### Every group of `groups`"),
    ("train", "## `[train]`: how long, and what is evaluated and kept"),
    ("train.checkpoint", "### `checkpoint` in `[train]`"),
    ("train.watch", "### `watch` in `[train]`"),
    ("cluster", "## `[cluster]`: several processes"),
];

const INITIAL: &str = "### Initial values

Of a weight with `fan_in` inputs for each output, and `fan_out` outputs for each input.";

const SOURCES: &str = "
A *source* is a kind of data with its settings, such as `{ digits = \"test\" }`. Where one setting is named by the value alone, as in
`{ tensors = \"file.safetensors\" }`, it may also be written as a table: `{ tensors = { file = \"file.safetensors\" } }`. Paths are relative
to the folder of the file.
";

const WHITENING: &str = "### Ways to whiten: `whiten`

With the covariance U diag(v) U^T of all features of the normalised training images, `decorrelate` multiplies by U^T, `pca` by
diag(1 / sqrt(v + epsilon)) U^T, and `zca` by U diag(1 / sqrt(v + epsilon)) U^T. Each eigenvector has the sign that makes its largest component positive.
The eigenvectors take half a second for 28x28 grey pixels, a minute for 32x32 colours and two to three for 4096 features; a checkpoint has 4 bytes
for each pair of features. The components of `decorrelate` and `pca` are no images, so layers that look at neighbouring pixels, such as `conv`, go
with `zca`.";
const MIXTURES: &str = "### Kinds of mixing of `mix`

The partner of a sample is another training sample, drawn again in every epoch and augmented on its own; both are normalised before they are mixed.
Class numbers become distributions, so the loss's layer needs as many outputs as there are classes. In the metrics of training, a sample counts as right if
its class with the largest share (the first of several) is found; evaluations mix nothing. `diagnose lr-range` trains and therefore mixes, the other
diagnoses do not.";

const ORDERS: &str = "### Settings of `order`

For `hard_examples`, the network as it is in evaluations measures the loss l of every training sample after each epoch, which costs a forward pass. In the next
epoch a sample is expected 1 - share + share * l / mean(l) times, at most `cap` times; what that takes from some goes to the others in proportion, so that
the length of an epoch stays the same. The first epoch is a shuffle. Samples whose labels are wrong have large losses as well: `outliers` keeps the largest
losses from having an effect, and with 0 all of them count. A sample that comes several times in an epoch is augmented and mixed in the same way each time.
`diagnose` shuffles. Losses are rounded to 3 digits, so that devices whose sums differ by rounding mostly choose the same samples. Now and then such a
difference crosses the border between two rounded values: from that epoch on, the order of the samples differs, as with another seed. In f64 that is rare, in
f32 it happens about once in 2,000 losses, and in tf32 or bf16 in most epochs. On the same devices the order is always the same, also after a resume.";

/// Returns the text of docs/CONFIG.md.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    for (path, title) in SECTIONS {
        let _ = write!(out, "\n{title}\n\n| key | values | default | meaning |\n| --- | --- | --- | --- |\n");
        keys::all()
            .filter(|key| key.path.rsplit_once('.').map_or("", |(table, _)| table) == *path)
            .for_each(|key| row(&mut out, key));
        match *path {
            "data" => {
                out += SOURCES;
                kinds(&mut out, "### Sources", &data::all_settings());
                kinds(&mut out, WHITENING, &data::whiten::all_settings());
                kinds(&mut out, "### Augmentations of `augment`", &data::augment::all_settings());
                kinds(&mut out, MIXTURES, &data::mix::all_settings());
                kinds(&mut out, ORDERS, &data::SampleOrder::all_settings());
            }
            "model.layers.*" => {
                kinds(&mut out, INITIAL, &init::all_settings());
                kinds(&mut out, "### Layers", &layers::all_settings());
            }
            "optimizer" => {
                kinds(&mut out, "### Transforms of `chain`", &optim::all_settings());
                kinds(&mut out, "### Second-order methods of `method`", &second_order::all_settings());
                kinds(&mut out, "### Schedules", &schedules::all_settings());
            }
            _ => {}
        }
    }
    out
}

/// Names the values of a key: by the range alone if that names the type.
fn values(kind: &str, range: Option<&str>) -> String {
    match range {
        Some(range) if range.contains("number") && kind == "number" => range.to_string(),
        Some(range) => format!("{kind}, {range}"),
        None => kind.to_string(),
    }
}

fn row(out: &mut String, key: &SectionKey) {
    let default = match key.default {
        KeyDefault::Required => "required".to_string(),
        KeyDefault::Value(value) => format!("`{value}`"),
        KeyDefault::Chosen(text) => text.to_string(),
    };
    let name = key.path.rsplit('.').next().unwrap_or_default();
    let values = values(key.kind, key.range);
    let _ = writeln!(out, "| `{name}` | {values} | {default} | {} For example `{}`. |", key.doc, key.example);
}

/// Writes a table for each kind that has settings, and a list of the others.
fn kinds(out: &mut String, title: &str, kinds: &[(&str, String, Vec<Setting>)]) {
    let _ = writeln!(out, "\n{title}");
    let plain: Vec<String> =
        kinds.iter().filter(|(.., all)| all.is_empty()).map(|(kind, ..)| format!("`{kind}`")).collect();
    if !plain.is_empty() {
        let _ = writeln!(out, "\nWithout settings: {}.", plain.join(", "));
    }
    for (kind, about, settings) in kinds.iter().filter(|(.., all)| !all.is_empty()) {
        // The name of the kind says as much as "The `momentum` transform.".
        let about = match about.strip_prefix("The transform: ").unwrap_or(about) {
            plain if plain.starts_with("The `") => String::new(),
            about => format!("{about}\n\n"),
        };
        let _ = write!(out, "\n`{kind}`\n\n{about}| key | values | default | meaning |\n| --- | --- | --- | --- |\n");
        for Setting { key, doc, kind, range, unit, default, example } in settings {
            let values = values(kind, *range);
            let unit = unit.map_or(String::new(), |unit| format!(" (in {unit})"));
            let example = example.map_or(String::new(), |example| format!(" For example `{example}`."));
            let default = match default {
                None => "required".to_string(),
                Some(default) if default.contains(' ') => default.clone(),
                Some(default) => format!("`{default}`"),
            };
            let _ = writeln!(out, "| `{key}` | {values}{unit} | {default} | {doc}{example} |");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// `PERISTYLE_BLESS=1` rewrites it.
    #[test]
    fn the_stored_reference_is_the_one_that_files_are_read_by() {
        let (path, text) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIG.md"), reference());
        if std::env::var_os("PERISTYLE_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(std::fs::read_to_string(path).is_ok_and(|stored| stored == text), "run it with PERISTYLE_BLESS=1");
        for word in ["`rmsprop`", "| `centered` |", "`warmup`", "| `filters` |", "| `on_error` |", "### Every layer"] {
            assert!(text.contains(word), "{word}");
        }
    }
}
