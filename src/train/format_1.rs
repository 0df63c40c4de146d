//! Checkpoints of format 1, which version 0.1.0 wrote: they count batches instead of samples, number the elements of lists
//! and the transforms of the chain, and know neither their run nor their data.

use crate::optim::numbered;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Rewrites the position in a manifest. What is not a position in format 1 is none in the present format.
pub(super) fn upgrade(info: &mut Value) {
    if !info.is_object() {
        return;
    }
    let batch: u64 = info["learned"]["data.batch"].as_str().and_then(|batch| batch.parse().ok()).unwrap_or(0);
    info["sample_in_epoch"] = json!(info["batch_in_epoch"].as_u64().unwrap_or(0).checked_mul(batch));
    info["run"] = json!("");
    info["data"] = Value::Null;
}

/// Returns the settings in a configuration's text that affect what is learned, with the keys of format 1.
pub(super) fn settings(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let root: toml::Table = toml::from_str(text).unwrap_or_default();
    for section in ["seed", "data", "model", "optimizer"] {
        if let Some(value) = root.get(section) {
            flatten(section, value, &mut all);
        }
    }
    all
}

fn flatten(key: &str, value: &toml::Value, all: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => table.iter().for_each(|(k, v)| flatten(&format!("{key}.{k}"), v, all)),
        toml::Value::Array(items) if items.iter().any(|item| item.is_table() || item.is_str()) => {
            items.iter().enumerate().for_each(|(i, v)| flatten(&format!("{key}.{}", i + 1), v, all));
        }
        other => {
            all.insert(key.to_string(), other.to_string());
        }
    }
}

/// Returns the names in the present format of the tensors of an optimiser's state. Format 1 has the index of the
/// transform in the chain: `fc1.weight.momentum2.velocity`.
pub(super) fn state_names(names: &[String]) -> Vec<String> {
    let split = |name: &str| {
        let (rest, slot) = name.rsplit_once('.')?;
        let (parameter, transform) = rest.rsplit_once('.')?;
        let kind = transform.trim_end_matches(|c: char| c.is_ascii_digit());
        let index: usize = transform[kind.len()..].parse().ok()?;
        Some((parameter.to_string(), kind.to_string(), index, slot.to_string()))
    };
    let parts: Vec<_> = names.iter().map(|name| split(name)).collect();
    let known: BTreeSet<(String, usize)> =
        parts.iter().flatten().map(|(_, kind, index, _)| (kind.clone(), *index)).collect();
    let renamed = names.iter().zip(parts).map(|(name, part)| {
        let Some((parameter, kind, index, slot)) = part else { return name.clone() };
        let before = known.iter().filter(|(k, i)| *k == kind && *i < index).count();
        format!("{parameter}.{}.{slot}", numbered(&kind, before))
    });
    renamed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_renamed_by_its_order_in_the_chain() {
        let names =
            ["a.weight.momentum2.velocity", "b.weight.momentum5.velocity", "a.weight.momentum5.velocity", "odd"];
        let renamed = state_names(&names.map(String::from));
        let expected =
            ["a.weight.momentum.velocity", "b.weight.momentum2.velocity", "a.weight.momentum2.velocity", "odd"];
        assert_eq!(renamed, expected);
    }

    #[test]
    fn a_position_in_batches_becomes_one_in_samples() {
        let mut info = json!({ "batch_in_epoch": 7, "learned": { "data.batch": "100" } });
        upgrade(&mut info);
        assert_eq!((&info["sample_in_epoch"], &info["run"]), (&json!(700), &json!("")));
    }
}
