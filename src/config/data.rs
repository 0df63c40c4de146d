//! `[data]`: read key by key, so that every wrong one is reported.

use super::errors;
use super::report::{Report, Value};
use super::section::Section;
use crate::data::{Augment, Settings};
use serde::Deserialize;
use toml::de::DeValue;

/// Reads the section; none when it cannot be used.
pub(super) fn read(report: &mut Report, value: Value) -> Option<Settings> {
    let mut section = Section::open(report, "[data]", value);
    let before = section.report.problems.len();
    let train = section.required("train", "train = { digits = \"train\" }");
    let test = section.take("test");
    let validation = section.take("validation").unwrap_or_default();
    let batch = section.required("batch", "batch = 64");
    let normalize = section.take("normalize");
    let augment = section.value("augment");
    let augment = augment.map_or(Some(Vec::new()), |value| read_augment(section.report, value));
    let order = section.take("order").unwrap_or_default();
    let broken = section.report.problems.len() > before;
    let settings = match (train, batch, augment) {
        (Some(train), Some(batch), Some(augment)) => {
            let settings = Settings { train, test, validation, batch, normalize, augment, order };
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

fn read_augment(report: &mut Report, value: Value) -> Option<Vec<Augment>> {
    let at = value.span().start;
    let DeValue::Array(items) = value.into_inner() else {
        report.problem(at, "[data]: augment, expected a list, like [{ shift = 2 }]");
        return None;
    };
    let mut steps = Vec::new();
    let mut complete = true;
    for item in items {
        let naming = errors::Naming { subject: "[data]", own: "augment", nested: true, bare: false, known: None };
        let step = report.read(naming, item, Augment::deserialize);
        complete &= step.is_some();
        steps.extend(step);
    }
    complete.then_some(steps)
}
