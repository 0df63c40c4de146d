//! `[optimizer]` and `[train]`: how gradients become updates, how long to train, when to evaluate and save.

use super::diagnostics::Diagnostics;
use super::kinds::{Kinds, Tagged, kinds};
use super::section::Section;
use super::spans::SpannedValue;
use crate::error::Fault;
use crate::optim::{self, Chain, Interval, Schedule, schedule};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use std::sync::Arc;
use toml::de::DeValue;

/// How gradients become updates.
#[derive(Debug)]
pub struct Optimizer {
    /// The transforms of the gradient, in order; an empty chain is plain gradient descent.
    pub chain: Arc<Chain>,
    /// The base learning rate, above 0.
    pub lr: f64,
    /// The schedule of the learning rate, constant by default.
    pub schedule: Schedule,
}

/// How often something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Every {
    /// `"never"`.
    Never,
    /// `"1 epoch"`, `"500 steps"`.
    At(Interval),
}

impl TryFrom<String> for Every {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text == "never" {
            return Ok(Every::Never);
        }
        let read: Result<Interval, serde::de::value::Error> = Interval::deserialize(text.as_str().into_deserializer());
        read.map(Every::At).map_err(|_| "expected \"1 epoch\", \"500 steps\" or \"never\"".to_string())
    }
}

/// When checkpoints are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// How often, every epoch by default.
    pub every: Every,
    /// How many of the latest checkpoints are kept, at least 1; 3 by default.
    pub keep: usize,
}

/// The length of training, and when to evaluate and save.
#[derive(Debug, Clone, PartialEq)]
pub struct Train {
    /// `steps` or `epochs`, at least 1.
    pub length: Interval,
    /// How often the network is evaluated, every epoch by default.
    pub evaluate: Every,
    /// When checkpoints are written.
    pub checkpoint: Checkpoint,
}

pub(super) const TRANSFORMS: Kinds = kinds!("transform", optim);
pub(super) const SCHEDULES: Kinds = kinds!("schedule", schedule);

/// Reads `[optimizer]`; returns `None` if it cannot be used.
pub(super) fn read_optimizer(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Optimizer> {
    let mut section = Section::open(diagnostics, "[optimizer]", value);
    let chain = section.value("chain");
    let chain = match chain {
        Some(value) => read_chain(section.diagnostics, value),
        None => Some(Chain::default()),
    };
    let lr: Option<f64> = section.required("lr", "lr = 0.01");
    if let Some(lr) = lr.filter(|lr| !(lr.is_finite() && *lr > 0.0)) {
        section.fault(&Fault::at("lr", format!("lr = {lr}, expected a number above 0")));
    }
    let schedule = section.value("schedule");
    let schedule = match schedule {
        Some(value) => read_schedule(section.diagnostics, value),
        None => Some(Schedule::default()),
    };
    section.finish();
    Some(Optimizer { chain: Arc::new(chain?), lr: lr?, schedule: schedule? })
}

fn read_chain(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Chain> {
    let at = value.span().start;
    let DeValue::Array(items) = value.into_inner() else {
        diagnostics
            .problem(at, "[optimizer]: chain is not a list, expected a list of transforms like [{ momentum = 0.9 }]");
        return None;
    };
    let mut transforms = Vec::new();
    let mut complete = true;
    for item in items {
        let read = Tagged::open(diagnostics, "[optimizer] chain", &TRANSFORMS, item).and_then(|tagged| {
            let (subject, locations) = (format!("transform \"{}\"", tagged.kind), tagged.locations.clone());
            let transform = tagged.read(diagnostics, &subject, &TRANSFORMS, optim::read)?;
            transform.check().map_err(|fault| diagnostics.fault(&subject, &locations, &fault)).ok()?;
            Some(transform)
        });
        complete &= read.is_some();
        transforms.extend(read);
    }
    complete.then_some(Chain(transforms))
}

fn read_schedule(diagnostics: &mut Diagnostics, value: SpannedValue) -> Option<Schedule> {
    let tagged = Tagged::open(diagnostics, "[optimizer] schedule", &SCHEDULES, value)?;
    let (subject, locations) = (format!("schedule \"{}\"", tagged.kind), tagged.locations.clone());
    let schedule = tagged.read(diagnostics, &subject, &SCHEDULES, schedule::read)?;
    schedule.check().map_err(|fault| diagnostics.fault(&subject, &locations, &fault)).ok()?;
    Some(schedule)
}

/// Reads `[train]`; returns `None` if it cannot be used. `evaluated` is true if there is data to evaluate on.
pub(super) fn read_train(diagnostics: &mut Diagnostics, value: SpannedValue, evaluated: bool) -> Option<Train> {
    let mut section = Section::open(diagnostics, "[train]", value);
    let (steps, epochs) = (section.table.contains_key("steps"), section.table.contains_key("epochs"));
    if steps && epochs {
        let message = "steps and epochs are both given, expected one; remove one of them";
        section.fault(&Fault::at("steps", message));
    } else if !steps && !epochs {
        section.require("epochs", "epochs = 10 (or steps = 1000)");
    }
    let mut length = None;
    for (key, interval) in [("steps", Interval::Steps as fn(u64) -> Interval), ("epochs", Interval::Epochs)] {
        match section.take::<u64>(key) {
            Some(0) => section.fault(&Fault::at(key, format!("{key} = 0, expected at least 1"))),
            count => length = count.map(interval).or(length),
        }
    }
    let epoch = Every::At(Interval::Epochs(1));
    if !evaluated && section.table.contains_key("evaluate") {
        section.diagnostics.note("[train]: evaluate has no effect: [data] has neither test nor validation");
    }
    let evaluate = section.take("evaluate").unwrap_or(epoch);
    let checkpoint = section.value("checkpoint");
    let checkpoint = match checkpoint {
        Some(value) => {
            let mut table = Section::open(section.diagnostics, "[train] checkpoint", value);
            let every = table.take("every").unwrap_or(epoch);
            let keep = table.within("keep", 3, |n: usize| n >= 1, "at least 1");
            table.finish();
            Checkpoint { every, keep }
        }
        None => Checkpoint { every: epoch, keep: 3 },
    };
    section.finish();
    Some(Train { length: length?, evaluate, checkpoint })
}
