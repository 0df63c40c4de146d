//! `[optimizer]`: how gradients become updates.

use super::diagnostics::Diagnostics;
use super::kinds::{Kinds, Tagged, kinds};
use super::patterns::NamePattern;
use super::section::Section;
use super::spans::SpannedValue;
use crate::error::{Fault, Locations, number};
use crate::optim::second_order::{self, Method};
use crate::optim::{self, Chain, ChainEntry, Ema, Monitor, ScheduleList, schedules};
use crate::settings::SINGLE;
use serde::Deserialize;
use std::sync::Arc;
use toml::de::DeValue;

/// How gradients become updates.
#[derive(Debug)]
pub struct Optimizer {
    /// The entries of the chain, as the file lists them.
    pub entries: Vec<Box<dyn ChainEntry>>,
    /// The groups of parameters with settings of their own.
    pub groups: Vec<ParameterGroup>,
    /// The transforms of the gradient: those of `entries`, and then those of each group that has a chain.
    pub chain: Arc<Chain>,
    /// The second-order method that takes the place of the chain.
    pub method: Option<Arc<dyn Method>>,
    /// The base learning rate, above 0, scaled with the batch if the file says so.
    pub lr: f64,
    /// The learning rate of a layer, as a factor of that of the next one.
    pub lr_by_depth: f64,
    /// The schedules of the learning rate, in order; none, a constant rate, by default.
    pub schedule: ScheduleList,
}

impl Optimizer {
    /// Returns the optimiser with averages of the weights.
    pub(super) fn with_average(self, decay: Option<f64>) -> Self {
        match decay {
            Some(decay) => Optimizer { chain: Arc::new(self.chain.then(Ema { decay })), ..self },
            None => self,
        }
    }
}

/// Parameters with settings of their own.
#[derive(Debug)]
pub struct ParameterGroup {
    /// The pattern of their names.
    pub pattern: NamePattern,
    /// Multiplies the learning rate.
    pub lr_mult: f64,
    /// Multiplies the weight decay.
    pub decay_mult: f64,
    /// The entries of their chain, if it is not that of all parameters.
    pub entries: Option<Vec<Box<dyn ChainEntry>>>,
    /// The locations of the group and its keys in the file.
    pub locations: Locations,
}

/// How the learning rate follows the number of samples in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RateScale {
    /// Not at all.
    None,
    /// In proportion (Goyal et al. 2017, <https://arxiv.org/abs/1706.02677>).
    Linear,
    /// As its root (Krizhevsky 2014, <https://arxiv.org/abs/1404.5997>).
    Sqrt,
}

impl RateScale {
    /// Returns the factor of the rate for a batch, if the rate is meant for another.
    fn factor(self, batch: u64, meant_for: u64) -> f64 {
        let ratio = batch as f64 / meant_for as f64;
        match self {
            RateScale::None => 1.0,
            RateScale::Linear => ratio,
            RateScale::Sqrt => ratio.sqrt(),
        }
    }
}

pub(super) const TRANSFORMS: Kinds = kinds!("transform", optim);
pub(super) const SCHEDULES: Kinds = kinds!("schedule", schedules);
pub(super) const METHODS: Kinds = kinds!("method", second_order);

/// Reads `[optimizer]`; returns `None` if it cannot be used. `evaluated` has the names of the sets to evaluate on.
pub(super) fn read(
    diagnostics: &mut Diagnostics,
    value: SpannedValue,
    evaluated: &[&'static str],
    batch: Option<usize>,
) -> Option<Optimizer> {
    let mut section = Section::open(diagnostics, "[optimizer]", "optimizer", value);
    let method = section.value("method").map(|value| read_method(section.diagnostics, value));
    let entries = read_entries(&mut section, "[optimizer]").unwrap_or(Some(Vec::new()));
    let groups = section.value("groups");
    let groups = groups.map_or(Some(Vec::new()), |value| read_groups(section.diagnostics, value));
    let lr_by_depth: f64 = section.within("lr_by_depth", |factor| (SINGLE.contains)(&factor));
    let excluded = [
        ("chain", entries.as_ref().is_some_and(|entries| !entries.is_empty())),
        ("groups", groups.as_ref().is_some_and(|groups| !groups.is_empty())),
        ("lr_by_depth", lr_by_depth != 1.0),
    ];
    if let (Some(_), Some((key, _))) = (&method, excluded.into_iter().find(|(_, is_set)| *is_set)) {
        let message = format!("a method takes the place of the chain, and all weights have one rate; remove {key}");
        section.fault(&Fault::at("method", message));
    }
    let file_lr: Option<f64> = section.required("lr");
    if let Some(lr) = file_lr.filter(|&lr| !optim::is_single(lr)) {
        section.out_of_range("lr", number(lr));
    }
    let scale_lr = section.get("scale_lr").unwrap_or(RateScale::None);
    let lr_batch = section.within("lr_batch", |samples| samples >= 1);
    let lr = file_lr.map(|lr| lr * scale_lr.factor(batch.map_or(lr_batch, |batch| batch as u64), lr_batch));
    if let (Some(file), Some(lr)) = (file_lr, lr.filter(|&lr| !optim::is_single(lr)))
        && optim::is_single(file)
    {
        let message =
            format!("scale_lr makes the rate {}, expected a number above 0 within single precision", number(lr));
        section.fault(&Fault::at("scale_lr", message));
    }
    if let (Some(file), Some(lr), Some(batch)) = (file_lr, lr, batch)
        && file != lr
    {
        let what =
            format!("lr = {} = {} scaled from a batch of {lr_batch} to one of {batch}", number(lr), number(file));
        section.diagnostics.note(format!("[optimizer]: {what}"));
    }
    let schedule = section.value("schedule");
    let schedule = match schedule {
        Some(value) => read_schedules(section.diagnostics, value, evaluated),
        None => Some(ScheduleList::default()),
    };
    section.finish();
    let (entries, groups) = (entries?, groups?);
    let own = groups.iter().filter_map(|group| Some((group.pattern.text().to_string(), group.entries.as_deref()?)));
    let chain = Arc::new(Chain::grouped([(String::new(), &*entries)].into_iter().chain(own)));
    let method = match method {
        Some(read) => Some(read?),
        None => None,
    };
    Some(Optimizer { entries, groups, chain, method, lr: lr?, lr_by_depth, schedule: schedule? })
}

/// Reads the second-order method.
fn read_method(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Arc<dyn Method>> {
    let tagged = Tagged::open(diagnostics, "[optimizer] method", &METHODS, value)?;
    let (subject, locations) = (format!("method \"{}\"", tagged.kind), tagged.locations.clone());
    let method = tagged.read(diagnostics, &subject, &METHODS, second_order::read)?;
    method.check().map_err(|fault| diagnostics.fault(&subject, &locations, &fault)).ok()?;
    Some(Arc::from(method))
}

/// Reads the groups of parameters, by their patterns.
fn read_groups(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Vec<ParameterGroup>> {
    let at = value.span().start;
    let DeValue::Table(table) = value.into_inner() else {
        let expected = "expected a table of patterns, like groups = { bias = { lr_mult = 2.0, decay_mult = 0.0 } }";
        diagnostics.problem(at, format!("[optimizer]: groups is not a table, {expected}"));
        return None;
    };
    let (mut groups, mut complete) = (Vec::new(), true);
    for (key, value) in table {
        let at = key.span().start;
        let pattern = NamePattern::new(key.get_ref());
        let mut section = Section::open(
            diagnostics,
            &format!("[optimizer] groups \"{}\"", key.get_ref()),
            "optimizer.groups.*",
            value,
        );
        let locations = section.locations.clone();
        let fits = |x: f64| x >= 0.0 && (x == 0.0 || (SINGLE.contains)(&x));
        let (lr_mult, decay_mult) = (section.within("lr_mult", fits), section.within("decay_mult", fits));
        let subject = section.subject.clone();
        let entries = read_entries(&mut section, &subject);
        section.finish();
        let entries = match entries {
            Some(None) => {
                complete = false;
                continue;
            }
            Some(entries) => entries,
            None => None,
        };
        match pattern {
            Ok(pattern) => groups.push(ParameterGroup { pattern, lr_mult, decay_mult, entries, locations }),
            Err(message) => {
                diagnostics.problem(at, format!("[optimizer] groups: {message}"));
                complete = false;
            }
        }
    }
    complete.then_some(groups)
}

/// Reads the chain of a table, if it has one; `Some(None)` if it cannot be used.
fn read_entries(section: &mut Section, subject: &str) -> Option<Option<Vec<Box<dyn ChainEntry>>>> {
    let value = section.value("chain")?;
    Some(read_chain(section.diagnostics, subject, value))
}

fn read_chain(diagnostics: &mut Diagnostics, subject: &str, value: SpannedValue) -> Option<Vec<Box<dyn ChainEntry>>> {
    let at = value.span().start;
    let DeValue::Array(items) = value.into_inner() else {
        let expected = "expected a list of transforms like [{ momentum = 0.9 }]";
        diagnostics.problem(at, format!("{subject}: chain is not a list, {expected}"));
        return None;
    };
    let mut entries = Vec::new();
    let mut complete = true;
    for item in items {
        let read = Tagged::open(diagnostics, &format!("{subject} chain"), &TRANSFORMS, item).and_then(|tagged| {
            let (kind, locations, is_table) = (tagged.kind, tagged.locations.clone(), tagged.is_table());
            let subject = format!("transform \"{kind}\"");
            let entry = tagged.read(diagnostics, &subject, &TRANSFORMS, optim::read)?;
            let named = |fault: Fault| if is_table { fault } else { fault.renamed(kind) };
            entry.check_settings().map_err(|fault| diagnostics.fault(&subject, &locations, &named(fault))).ok()?;
            Some(entry)
        });
        complete &= read.is_some();
        entries.extend(read);
    }
    complete.then_some(entries)
}

/// Reads one schedule, or a list of schedules; `evaluated` has the names of the sets to evaluate on.
fn read_schedules(
    diagnostics: &mut Diagnostics,
    value: SpannedValue,
    evaluated: &[&'static str],
) -> Option<ScheduleList> {
    let span = value.span();
    let items: Vec<SpannedValue> = match value.into_inner() {
        DeValue::Array(items) => items.into_iter().collect(),
        one => vec![toml::Spanned::new(span, one)],
    };
    let (mut schedules, mut complete) = (Vec::new(), true);
    for item in items {
        let read = Tagged::open(diagnostics, "[optimizer] schedule", &SCHEDULES, item).and_then(|tagged| {
            let (subject, locations) = (format!("schedule \"{}\"", tagged.kind), tagged.locations.clone());
            let schedule = tagged.read(diagnostics, &subject, &SCHEDULES, schedules::read)?;
            let observed = match schedule.monitor() {
                Some(Monitor::Evaluated(set)) if !evaluated.contains(&set) => {
                    let message = format!("monitor needs the loss of the {set} set, but [data] has none");
                    Err(Fault::at("monitor", message))
                }
                _ => Ok(()),
            };
            let checked = schedule.check().and(observed);
            checked.map_err(|fault| diagnostics.fault(&subject, &locations, &fault)).ok()?;
            Some(Arc::from(schedule))
        });
        complete &= read.is_some();
        schedules.extend(read);
    }
    complete.then_some(ScheduleList(schedules))
}
