//! A configuration with every default written out: `peristyle check FILE --defaults`.

use super::blocks;
use super::key::{KeyDefault, SectionKey};
use super::keys;
use super::model::{ENTRY_KEYS, LOSS_KEYS, LayerEntry};
use super::spans::SpannedValue;
use super::write::{inline, quoted};
use super::{Config, OnNonFinite};
use crate::data::SampleOrder;
use crate::settings::Settings;
use toml::de::DeTable;

/// Returns the text of the file with all keys: those of the file, those that it leaves out with their defaults, and as
/// comments those whose default depends on other things. It reads back as the same configuration.
pub fn with_defaults(config: &Config) -> String {
    let Ok(mut root) = DeTable::parse(&config.resolved) else { return config.resolved.clone() };
    blocks::unroll(root.get_mut());
    let root = root.get_ref();
    let mut text = String::new();
    for section in ["", "devices", "data", "model", "optimizer", "train", "train.checkpoint", "train.watch", "cluster"]
    {
        let table = section
            .split('.')
            .filter(|part| !part.is_empty())
            .try_fold(root, |table, part| table.get(part).and_then(|value| value.get_ref().as_table()));
        if matches!(section, "cluster" | "train.watch") && table.is_none() {
            continue;
        }
        if !section.is_empty() {
            text += &format!("\n[{section}]\n");
        }
        let own = |key: &&SectionKey| key.path.rsplit_once('.').map_or("", |(table, _)| table) == section;
        // Tables of their own follow.
        let apart = |key: &&SectionKey| {
            key.path == "train.checkpoint" || key.path == "train.watch" && config.train.watch.is_some()
        };
        for key in keys::all().filter(own).filter(|key| !apart(key)) {
            text += &line(key, table, config);
        }
    }
    text
}

/// Returns the line of a key.
fn line(key: &SectionKey, table: Option<&DeTable>, config: &Config) -> String {
    let name = key.path.rsplit('.').next().unwrap_or_default();
    let given = table.and_then(|table| table.get(name));
    let whole = match key.path {
        "model.layers" => given.map(|value| {
            let items = value.get_ref().as_array().into_iter().flatten();
            list(items.zip(&config.model.layers).filter_map(|(item, layer)| entry(Some(item), layer, ENTRY_KEYS, true)))
        }),
        "data.train" => given.map(|_| tagged(config.data.train.key(), &*config.data.train)),
        "data.test" => config.data.test.as_ref().map(|test| tagged(test.key(), &**test)),
        "data.whiten" => config.data.whiten.as_ref().map(|whiten| tagged(whiten.key(), &**whiten)),
        "data.augment" => given.map(|_| list(config.data.augment.iter().map(|one| tagged(one.key(), &**one)))),
        "data.order" => match &config.data.order {
            SampleOrder::HardExamples(hard) => given.map(|_| tagged(config.data.order.key(), hard)),
            _ => None,
        },
        "data.mix" => given.map(|_| list(config.data.mix.iter().map(|one| tagged(one.key(), &**one)))),
        "model.loss" => losses(given, &config.model.losses),
        "optimizer.chain" => given.map(|_| list(config.optimizer.entries.iter().map(|one| tagged(one.kind(), &**one)))),
        "optimizer.method" => config.optimizer.method.as_ref().map(|method| tagged(method.key(), &**method)),
        "optimizer.schedule" => given.map(|_| list(config.optimizer.schedule.0.iter().map(|s| tagged(s.key(), &**s)))),
        _ => None,
    };
    match (whole.or_else(|| given.map(|value| inline(value, 0))), key.default) {
        (Some(value), _) => format!("{name} = {value}\n"),
        // It is refused without the key that it belongs to.
        (None, KeyDefault::Value(value)) if name == "max_skips" && config.train.on_nonfinite == OnNonFinite::Stop => {
            format!("# {name}: {value}, with on_nonfinite = \"skip\"\n")
        }
        (None, KeyDefault::Value(value)) => format!("{name} = {value}\n"),
        (None, KeyDefault::Chosen(text)) => format!("# {name}: {text}\n"),
        (None, KeyDefault::Required) => String::new(),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = items.map(|item| format!("  {item},\n")).collect();
    if lines.is_empty() { "[]".to_string() } else { format!("[\n{}]", lines.concat()) }
}

/// Returns a kind with all of its settings.
fn tagged(kind: &str, settings: &(impl Settings + ?Sized)) -> String {
    let all: Vec<String> = settings.values().iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let all = if all.is_empty() { "{}".to_string() } else { format!("{{ {} }}", all.join(", ")) };
    format!("{{ {kind} = {all} }}")
}

/// Returns the losses: one, or a list if the file has a list.
fn losses(given: Option<&SpannedValue>, losses: &[LayerEntry]) -> Option<String> {
    match given.and_then(|value| value.get_ref().as_array()) {
        Some(items) => {
            Some(list(items.iter().zip(losses).filter_map(|(item, loss)| entry(Some(item), loss, LOSS_KEYS, true))))
        }
        None => {
            let loss = losses.first()?;
            entry(given, loss, LOSS_KEYS, loss.name != "loss")
        }
    }
}

/// Returns a layer or a loss: its name if `named`, the keys in `common` that the file gives, and all of its settings.
fn entry(given: Option<&SpannedValue>, entry: &LayerEntry, common: &[&str], named: bool) -> Option<String> {
    let layer = entry.layer.as_ref()?;
    let table = given.and_then(|value| value.get_ref().as_table());
    let keys = table.into_iter().flatten().filter(|(key, _)| common.contains(&&**key.get_ref()));
    let keys = keys.filter(|(key, _)| &**key.get_ref() != "name");
    let keys: String = keys.map(|(key, value)| format!(", {} = {}", quoted(key.get_ref()), inline(value, 2))).collect();
    let own = tagged(layer.key(), &**layer);
    let own = own.strip_prefix("{ ").and_then(|own| own.strip_suffix(" }")).unwrap_or(&own);
    let name = if named { format!("name = {:?}, ", entry.name) } else { String::new() };
    Some(format!("{{ {name}{own}{keys} }}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Optimizer, ParameterGroup, from_text};
    use std::path::Path;

    #[test]
    fn a_completed_file_reads_back_as_the_same_configuration() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let sets = [
            "train.ema=0.9",
            "train.watch={}",
            "train.on_nonfinite=skip",
            "data.order=hard_examples",
            "optimizer.schedule=[{ warmup = { steps = 5 } }, \"plateau\"]",
            "model.loss=[{ softmax_cross_entropy = {}, weight = 0.5 }, \"softmax_cross_entropy\"]",
        ];
        let mut count = 0;
        let files =
            |folder: &Path| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
        let all = files(&configs).into_iter().filter(|path| path.is_file()).chain(files(&configs.join("zoo")));
        for file in all {
            let text = std::fs::read_to_string(file).unwrap();
            for sets in [&[][..], &sets.map(String::from)] {
                let read = |text: &str, sets: &[String]| {
                    let parsed = from_text("a.toml", text, Path::new("."), sets);
                    assert!(parsed.problems.is_empty(), "{:?}\n{text}", parsed.problems);
                    parsed.config.unwrap()
                };
                let first = read(&text, sets);
                let completed = with_defaults(&first);
                let second = read(&completed, &[]);
                assert_eq!(with_defaults(&second), completed);
                let what = |config: &Config| {
                    let Config { name, seed, devices, data, optimizer, train, model, .. } = config;
                    let common = |l: &LayerEntry| {
                        format!("{:?}", (&l.inputs, &l.split, &l.lr_mult, &l.decay_mult, &l.init, &l.loss_weight))
                    };
                    let layers: Vec<_> =
                        model.layers.iter().chain(&model.losses).map(|l| (&l.name, &l.layer, common(l))).collect();
                    let Optimizer { entries, groups, chain, method, lr, lr_by_depth, schedule } = optimizer;
                    let group =
                        |g: &ParameterGroup| format!("{:?}", (g.pattern.text(), g.lr_mult, g.decay_mult, &g.entries));
                    let groups: Vec<String> = groups.iter().map(group).collect();
                    format!(
                        "{seed} {devices:?} {data:?} {entries:?} {groups:?} {chain:?} {method:?} {lr} {lr_by_depth} {schedule:?} \
                         {train:?} {layers:?} {:?}",
                        (name, &model.init, &model.input, &model.from)
                    )
                };
                assert_eq!(what(&second), what(&first));
                count += 1;
            }
        }
        assert!(count >= 80, "{count} configurations");
    }
}
