//! `devices.split`: how layers without a split of their own are divided along the columns of the mesh.

use super::errors;
use super::section::Section;
use crate::error::{Fault, suggest};
use crate::layers::{self, Split};
use std::collections::BTreeMap;
use toml::de::DeValue;

/// How layers without a split of their own are divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitRule {
    /// The split of layers with weights, unless their kind has another.
    pub all: Split,
    /// The splits of some kinds of layers.
    pub kinds: BTreeMap<String, Split>,
}

impl Default for SplitRule {
    fn default() -> Self {
        SplitRule { all: Split::Columns, kinds: BTreeMap::new() }
    }
}

/// Reads the key: a split, or a table of splits by kinds of layers.
pub(super) fn read(section: &mut Section) -> SplitRule {
    let mut rule = SplitRule::default();
    let Some(value) = section.table.get("split") else { return rule };
    let is_table = match value.get_ref() {
        DeValue::Table(_) => true,
        DeValue::String(_) => false,
        other => {
            let expected = "expected a split like \"batch\", or a table like { conv = \"batch\", dense = \"columns\" }";
            let message = format!("split = {}, {expected}", errors::show(other));
            section.value("split");
            section.fault(&Fault::at("split", message));
            return rule;
        }
    };
    if is_table {
        rule.kinds = section.take("split").unwrap_or_default();
    } else {
        rule.all = section.take("split").unwrap_or(rule.all);
    }
    for kind in rule.kinds.keys().filter(|kind| !layers::KEYS.contains(&kind.as_str())).cloned().collect::<Vec<_>>() {
        let near = suggest(&kind, layers::KEYS.iter().copied());
        section.fault(&Fault::at("split", format!("split: there are no layers of kind \"{kind}\"{near}")));
    }
    rule
}
