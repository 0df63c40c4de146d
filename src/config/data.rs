//! `[data]`, read key by key so that every wrong key is reported.

use super::diagnostics::Diagnostics;
use super::kinds::{Kinds, Tagged, kinds};
use super::section::Section;
use super::spans::SpannedValue;
use crate::data::{self, Augment, DataSettings, Mix, augment, mix};
use std::sync::Arc;
use toml::Spanned;
use toml::de::DeValue;

/// Reads the section; returns `None` if it cannot be used.
pub(super) fn read(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<DataSettings> {
    let mut section = Section::open(diagnostics, "[data]", "data", value);
    for key in ["train", "test"] {
        if let Some(source) = section.table.get_mut(key) {
            nest(source);
        }
    }
    let before = section.diagnostics.problems.len();
    let train = section.required("train");
    let test = section.take("test");
    let validation = section.get("validation").unwrap_or_default();
    let label_noise = section.get("label_noise").unwrap_or_default();
    let batch = section.required("batch");
    let normalize = section.take("normalize");
    let whiten = section.take("whiten");
    let augment = section.value("augment");
    let augment = augment.map_or(Some(Vec::new()), |value| read_augment(section.diagnostics, value));
    let mix = section.value("mix").map_or(Some(Vec::new()), |value| read_mix(section.diagnostics, value));
    let order = section.get("order").unwrap_or_default();
    let workers = section.take("workers");
    let broken = section.diagnostics.problems.len() > before;
    let settings = match (train, batch, augment, mix) {
        (Some(train), Some(batch), Some(augment), Some(mix)) => {
            let settings = DataSettings {
                train,
                test,
                validation,
                label_noise,
                batch,
                normalize,
                whiten,
                augment,
                mix,
                order,
                workers,
            };
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

/// Turns a source with its settings beside its key, `{ folder = "photos", size = 64 }`, into a source with a table,
/// `{ folder = { folder = "photos", size = 64 } }`.
fn nest(source: &mut SpannedValue) {
    let span = source.span();
    let DeValue::Table(table) = source.get_mut() else { return };
    let kinds: Vec<_> = table.keys().filter(|key| data::KEYS.contains(&key.get_ref().as_ref())).cloned().collect();
    let [kind] = &kinds[..] else { return };
    if table.len() < 2 || table.get(kind).is_some_and(|value| matches!(value.get_ref(), DeValue::Table(_))) {
        return;
    }
    let settings = std::mem::take(table);
    table.insert(kind.clone(), Spanned::new(span, DeValue::Table(settings)));
}

const AUGMENTATIONS: Kinds = kinds!("augmentation", augment);

fn read_augment(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Vec<Augment>> {
    read_list(diagnostics, "augment", "[{ shift = 2 }]", &AUGMENTATIONS, value, |diagnostics, subject, tagged| {
        let locations = tagged.locations.clone();
        let one = tagged.read(diagnostics, subject, &AUGMENTATIONS, augment::read)?;
        one.check().map_err(|fault| diagnostics.fault(subject, &locations, &fault)).ok()?;
        Some(Augment(Arc::from(one)))
    })
}

const MIXTURES: Kinds = kinds!("mixture", mix);

fn read_mix(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Vec<Mix>> {
    read_list(diagnostics, "mix", "[{ mixup = 0.2 }]", &MIXTURES, value, |diagnostics, subject, tagged| {
        let locations = tagged.locations.clone();
        let one = tagged.read(diagnostics, subject, &MIXTURES, mix::read)?;
        one.check().map_err(|fault| diagnostics.fault(subject, &locations, &fault)).ok()?;
        Some(Mix(Arc::from(one)))
    })
}

/// Reads a list of kinds, each with `read`; returns `None` if one of them cannot be read.
fn read_list<'i, T>(
    diagnostics: &mut Diagnostics,
    key: &str,
    example: &str,
    kinds: &Kinds,
    value: SpannedValue<'i>,
    read: impl Fn(&mut Diagnostics, &str, Tagged<'i>) -> Option<T>,
) -> Option<Vec<T>> {
    let at = value.span().start;
    let DeValue::Array(items) = value.into_inner() else {
        diagnostics.problem(at, format!("[data]: {key} is not a list, expected a list like {example}"));
        return None;
    };
    let (mut all, mut complete) = (Vec::new(), true);
    for item in items {
        let read = Tagged::open(diagnostics, &format!("[data] {key}"), kinds, item).and_then(|tagged| {
            let subject = format!("{} \"{}\"", kinds.noun, tagged.kind);
            read(diagnostics, &subject, tagged)
        });
        complete &= read.is_some();
        all.extend(read);
    }
    complete.then_some(all)
}
