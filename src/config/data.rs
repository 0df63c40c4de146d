//! `[data]`, read key by key so that every wrong key is reported.

use super::diagnostics::Diagnostics;
use super::errors;
use super::section::Section;
use super::spans::SpannedValue;
use crate::data::{Augment, DataSettings};
use serde::Deserialize;
use toml::de::DeValue;

/// Reads the section; returns `None` if it cannot be used.
pub(super) fn read(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<DataSettings> {
    let mut section = Section::open(diagnostics, "[data]", "data", value);
    let before = section.diagnostics.problems.len();
    let train = section.required("train");
    let test = section.take("test");
    let validation = section.get("validation").unwrap_or_default();
    let batch = section.required("batch");
    let normalize = section.take("normalize");
    let augment = section.value("augment");
    let augment = augment.map_or(Some(Vec::new()), |value| read_augment(section.diagnostics, value));
    let order = section.get("order").unwrap_or_default();
    let workers = section.take("workers");
    let broken = section.diagnostics.problems.len() > before;
    let settings = match (train, batch, augment) {
        (Some(train), Some(batch), Some(augment)) => {
            let settings = DataSettings { train, test, validation, batch, normalize, augment, order, workers };
            for fault in settings.faults() {
                section.fault(&fault);
            }
            Some(settings)
        }
        _ => None,
    };
    section.finish();
    settings.filter(|_| !broken)
}

fn read_augment(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Vec<Augment>> {
    let at = value.span().start;
    let DeValue::Array(items) = value.into_inner() else {
        diagnostics.problem(at, "[data]: augment is not a list, expected a list like [{ shift = 2 }]");
        return None;
    };
    let mut steps = Vec::new();
    let mut complete = true;
    for item in items {
        let context = errors::Subject { name: "[data]", key: "augment", nested: true, bare: false, known: None };
        let step = diagnostics.read(context, item, Augment::deserialize);
        complete &= step.is_some();
        steps.extend(step);
    }
    complete.then_some(steps)
}
