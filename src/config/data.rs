//! `[data]`, read key by key so that every wrong key is reported.

use super::diagnostics::Diagnostics;
use super::kinds::{Kinds, Tagged, kinds};
use super::section::Section;
use super::spans::SpannedValue;
use crate::data::{Augment, DataSettings, augment};
use std::sync::Arc;
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
    let whiten = section.take("whiten");
    let augment = section.value("augment");
    let augment = augment.map_or(Some(Vec::new()), |value| read_augment(section.diagnostics, value));
    let order = section.get("order").unwrap_or_default();
    let workers = section.take("workers");
    let broken = section.diagnostics.problems.len() > before;
    let settings = match (train, batch, augment) {
        (Some(train), Some(batch), Some(augment)) => {
            let settings = DataSettings { train, test, validation, batch, normalize, whiten, augment, order, workers };
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

const AUGMENTATIONS: Kinds = kinds!("augmentation", augment);

fn read_augment(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Vec<Augment>> {
    let at = value.span().start;
    let DeValue::Array(items) = value.into_inner() else {
        diagnostics.problem(at, "[data]: augment is not a list, expected a list like [{ shift = 2 }]");
        return None;
    };
    let (mut all, mut complete) = (Vec::new(), true);
    for item in items {
        let read = Tagged::open(diagnostics, "[data] augment", &AUGMENTATIONS, item).and_then(|tagged| {
            let (subject, locations) = (format!("augmentation \"{}\"", tagged.kind), tagged.locations.clone());
            let one = tagged.read(diagnostics, &subject, &AUGMENTATIONS, augment::read)?;
            one.check().map_err(|fault| diagnostics.fault(&subject, &locations, &fault)).ok()?;
            Some(Augment(Arc::from(one)))
        });
        complete &= read.is_some();
        all.extend(read);
    }
    complete.then_some(all)
}
