//! `[model] from`: the weights that training starts from.

use super::diagnostics::Diagnostics;
use super::errors;
use super::patterns::{NameMap, NamePattern};
use super::section::Section;
use super::spans::SpannedValue;
use crate::error::Fault;
use std::path::PathBuf;
use toml::de::{DeTable, DeValue};

/// The weights that training starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PretrainedWeights {
    /// The safetensors file, the run directory or the checkpoint.
    pub file: PathBuf,
    /// Layers and tensors that keep their initial values.
    pub skip: Vec<NamePattern>,
    /// The names in the network of what the file names otherwise.
    pub map: NameMap,
    /// Whether the file must have every other tensor of the network; true by default.
    pub strict: bool,
}

/// Reads a path, or a table.
pub(super) fn read(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<PretrainedWeights> {
    if let DeValue::String(file) = value.get_ref() {
        let (skip, map) = Default::default();
        return Some(PretrainedWeights { file: PathBuf::from(file.to_string()), skip, map, strict: true });
    }
    let mut section = Section::open(diagnostics, "[model] from", "model.from", value);
    let file: Option<PathBuf> = section.required("file");
    let skip: Vec<String> = section.get("skip").unwrap_or_default();
    let skip: Result<Vec<NamePattern>, String> = skip.iter().map(|skip| NamePattern::new(skip)).collect();
    let map = section.value("map").map_or(Ok(NameMap::default()), read_map);
    let strict = section.get("strict").unwrap_or(true);
    for (key, error) in [("skip", skip.as_ref().err()), ("map", map.as_ref().err())] {
        if let Some(error) = error {
            section.fault(&Fault::at(key, format!("{key}: {error}")));
        }
    }
    section.finish();
    Some(PretrainedWeights { file: file?, skip: skip.ok()?, map: map.ok()?, strict })
}

fn read_map(value: SpannedValue) -> Result<NameMap, String> {
    let DeValue::Table(table) = value.get_ref() else {
        let shown = errors::show(value.get_ref());
        return Err(format!("{shown}, expected a table such as {{ \"features.0\" = \"conv1\" }}"));
    };
    let mut pairs = Vec::new();
    flatten("", table, &mut pairs)?;
    NameMap::new(&pairs)
}

/// Adds the entries of a table. In TOML, `features.0` without quotes is a table in a table, and means the same here.
fn flatten(prefix: &str, table: &DeTable, pairs: &mut Vec<(String, String)>) -> Result<(), String> {
    for (key, value) in table {
        let key = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&format!("{key}."), inner, pairs)?,
            DeValue::String(_) if pairs.iter().any(|(other, _)| *other == key) => {
                return Err(format!("\"{key}\" is there twice, with and without quotes; remove one"));
            }
            DeValue::String(name) => pairs.push((key, name.to_string())),
            other => {
                return Err(format!("\"{key}\" = {}, expected the name of a layer or tensor", errors::show(other)));
            }
        }
    }
    Ok(())
}
