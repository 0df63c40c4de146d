//! The settings that affect what is learned, as a flat list for comparison: with their keys as `--set` takes them.

use super::blocks;
use super::model::{ENTRY_KEYS, LOSS_KEYS, kind_of, names, names_of_losses};
use super::spans::SpannedValue;
use super::write::quoted;
use std::collections::BTreeMap;
use toml::de::{DeArray, DeTable, DeValue};

/// The sections that affect what is learned. The other ones affect when, where and how fast.
const SECTIONS: [&str; 4] = ["seed", "data", "model", "optimizer"];

/// Returns the settings in a configuration's text that affect what is learned, by key. The elements of lists are
/// addressed as in `--set`, and the list itself holds their order: `optimizer.chain` is `weight_decay, momentum`. The
/// value of a layer is its kind.
pub fn learned_settings(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let Ok(mut root) = DeTable::parse(text) else { return all };
    blocks::unroll(root.get_mut());
    for section in SECTIONS {
        if let Some(value) = root.get_ref().get(section) {
            flatten(section, value, &mut all);
        }
    }
    all.extend(of_train(root.get_ref(), &OF_TRAIN));
    all
}

/// The keys of these sections that do not: how fast images are read.
const NOT_LEARNED: [&str; 1] = ["data.workers"];

/// The keys of `[train]` that affect what is learned in any case.
const OF_TRAIN: [&str; 2] = ["train.accumulate", "train.ema"];

/// The keys of the length of a run.
pub const LENGTH: [&str; 2] = ["train.steps", "train.epochs"];

/// Returns the length of the run, which affects what is learned if a schedule depends on it.
pub fn learned_length(text: &str) -> BTreeMap<String, String> {
    DeTable::parse(text).map_or(BTreeMap::new(), |root| of_train(root.get_ref(), &LENGTH))
}

/// Returns the settings of `[train]` with these keys.
fn of_train(root: &DeTable, keys: &[&str]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if let Some(value) = root.get("train") {
        flatten("train", value, &mut all);
    }
    all.retain(|key, _| keys.contains(&key.as_str()));
    all
}

fn flatten(key: &str, value: &SpannedValue, all: &mut BTreeMap<String, String>) {
    match value.get_ref() {
        _ if NOT_LEARNED.contains(&key) => {}
        // "zca" and { zca = {} } are the same.
        DeValue::Table(table) if matches!(key, "data.whiten" | "data.order") => {
            table.iter().for_each(|(kind, settings)| {
                all.insert(key.to_string(), format!("{:?}", kind.get_ref()));
                flatten(&join(key, kind.get_ref()), settings, all);
            })
        }
        DeValue::Table(table) => table.iter().for_each(|(k, v)| flatten(&join(key, k.get_ref()), v, all)),
        DeValue::Array(entries) if key == "model.layers" => {
            self::entries(key, entries, &names(entries), ENTRY_KEYS, all);
        }
        DeValue::Array(entries) if key == "model.loss" => {
            self::entries(key, entries, &names_of_losses(entries), LOSS_KEYS, all);
        }
        DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => list(key, items, all),
        _ => drop(all.insert(key.to_string(), plain(value))),
    }
}

fn join(key: &str, name: &str) -> String {
    format!("{key}.{}", quoted(name))
}

/// Flattens a list whose elements have names, and the keys in `common` besides their kind.
fn entries(key: &str, entries: &DeArray, names: &[String], common: &[&str], all: &mut BTreeMap<String, String>) {
    all.insert(key.to_string(), names.join(", "));
    for (entry, name) in entries.iter().zip(names) {
        let key = join(key, name);
        let DeValue::Table(table) = entry.get_ref() else {
            all.insert(key, entry.get_ref().as_str().unwrap_or_default().to_string());
            continue;
        };
        let kind = kind_of(table).unwrap_or_default();
        all.insert(key.clone(), kind.to_string());
        for (k, v) in table.iter() {
            match &**k.get_ref() {
                // The name is in the key, and where a layer is computed does not affect what it learns.
                "name" | "split" => {}
                k if common.contains(&k) => flatten(&join(&key, k), v, all),
                _ => match v.get_ref() {
                    DeValue::Table(settings) => settings.iter().for_each(|(k, v)| {
                        flatten(&join(&key, k.get_ref()), v, all);
                    }),
                    _ => drop(all.insert(join(&key, kind), plain(v))),
                },
            }
        }
    }
}

/// Flattens a list whose elements are named by their kinds; the second of a kind has the number 2.
fn list(key: &str, items: &DeArray, all: &mut BTreeMap<String, String>) {
    let mut order: Vec<String> = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for item in items {
        let (kind, settings) = match item.get_ref() {
            DeValue::Table(table) => match table.iter().next() {
                Some((kind, settings)) => (kind.get_ref().to_string(), Some(settings)),
                None => continue,
            },
            other => (other.as_str().unwrap_or_default().to_string(), None),
        };
        let count = counts.entry(kind.clone()).or_default();
        *count += 1;
        let name = if *count == 1 { kind } else { format!("{kind}{count}") };
        if let Some(settings) = settings {
            flatten(&join(key, &name), settings, all);
        }
        order.push(name);
    }
    all.insert(key.to_string(), order.join(", "));
}

/// Returns a value in one notation: `5`, `5.0` and `0.5e1` are the same.
fn plain(value: &SpannedValue) -> String {
    match value.get_ref() {
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => number.to_string(),
        },
        DeValue::Float(number) => {
            number.as_str().parse::<f64>().map_or(number.to_string(), |number| number.to_string())
        }
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Table(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_settings_in_another_notation_are_equal() {
        let a = "seed = 1\n[optimizer]\nlr = 0.10\nchain = [{ clip_by_global_norm = 5 }, { momentum = { mu = 0.9 } }]\n\
                 [model]\nlayers = [\"relu\", { dense = { units = 10 }, split = \"rows\" }]\n[train]\nsteps = 5";
        let b = "seed = 0x1\n[train]\nsteps = 9\n[model]\nlayers = [{ relu = {} }, { dense.units = 1_0 }]\n\
                 [optimizer]\nchain = [{ clip_by_global_norm = 5.0 }, { momentum.mu = 9e-1 }]\nlr = 1e-1";
        assert_eq!(learned_settings(a), learned_settings(b));
        assert_eq!(learned_settings(a).len(), 9, "{:?}", learned_settings(a));
    }

    #[test]
    fn a_dot_in_the_name_of_a_layer_separates_no_keys() {
        let of = |name: &str| format!("[model]\nlayers = [{{ name = \"{name}\", dense = {{ units = 3 }} }}]");
        let settings = learned_settings(&of("head.0"));
        let expected = ["model.layers", "model.layers.\"head.0\"", "model.layers.\"head.0\".units"];
        assert_eq!(settings.keys().collect::<Vec<_>>(), expected);
        assert_eq!(settings["model.layers.\"head.0\".units"], "3");
    }

    #[test]
    fn a_transform_that_is_inserted_changes_no_other_key() {
        let with = |chain: &str| learned_settings(&format!("[optimizer]\nchain = [{chain}]"));
        let (short, long) = (with("{ momentum = 0.9 }"), with("{ clip_by_global_norm = 1 }, { momentum = 0.9 }"));
        let changed: Vec<&String> = long.keys().filter(|key| short.get(*key) != long.get(*key)).collect();
        assert_eq!(changed, ["optimizer.chain", "optimizer.chain.clip_by_global_norm"]);
        let twice = with("{ momentum = 0.9 }, { momentum = 0.5 }");
        assert_eq!(twice["optimizer.chain"], "momentum, momentum2");
        assert_eq!(twice["optimizer.chain.momentum2"], "0.5");
    }
}
