//! `[train]`: how long to train, when to evaluate and save.

use super::diagnostics::Diagnostics;
use super::duration;
use super::section::Section;
use super::spans::SpannedValue;
use crate::error::{Fault, number};
use crate::optim::Interval;
use crate::settings::FRACTION;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use std::time::Duration;
use toml::de::DeValue;

/// How often something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum Every {
    /// `"never"`.
    Never,
    /// `"1 epoch"`, `"500 steps"`, `500`.
    At(Interval),
    /// `"10 minutes"`: only for checkpoints, which do not affect the curve.
    Time(Duration),
}

/// An [`Every`] in the file.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of steps, or text like \"1 epoch\", \"500 steps\" or \"never\"")]
enum Written {
    Steps(u64),
    Text(String),
}

impl TryFrom<Written> for Every {
    type Error = &'static str;
    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let wrong = "expected a number of steps, or text like \"1 epoch\", \"500 steps\" or \"never\"";
        let text = match written {
            Written::Steps(0) => return Err(wrong),
            Written::Steps(steps) => return Ok(Every::At(Interval::Steps(steps))),
            Written::Text(text) if text == "never" => return Ok(Every::Never),
            Written::Text(text) => text,
        };
        if let Some(time) = duration::parse(&text) {
            return Ok(Every::Time(time));
        }
        let read: Result<Interval, serde::de::value::Error> = Interval::deserialize(text.as_str().into_deserializer());
        read.map(Every::At).map_err(|_| wrong)
    }
}

/// What follows when a checkpoint or a line of the metrics cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Training continues, and the next checkpoint tries again.
    #[default]
    Retry,
    /// The run fails.
    Stop,
}

/// What follows when the loss or a gradient of a step is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnNonFinite {
    /// The run stops.
    #[default]
    Stop,
    /// The update is skipped; the run stops after more than this many in a row.
    Skip(u64),
}

/// The result by which checkpoints are compared: `"validation.loss"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BestBy {
    /// `validation` or `test`.
    pub split: &'static str,
    /// `loss` or the name of a metric. None means the first metric for which higher is better, or the loss.
    pub metric: Option<String>,
}

impl BestBy {
    fn parse(text: &str) -> Option<Self> {
        let (split, metric) = text.split_once('.').filter(|(_, metric)| !metric.is_empty())?;
        let split = ["validation", "test"].into_iter().find(|name| *name == split)?;
        Some(BestBy { split, metric: Some(metric.to_string()) })
    }
}

/// When checkpoints are written, and which are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// How often, every epoch by default.
    pub every: Every,
    /// How many of the latest checkpoints are kept, at least 1; 3 by default.
    pub keep: usize,
    /// How many of the best checkpoints are kept besides, and by which result; 0 by default.
    pub keep_best: usize,
    /// The result by which they are compared: of the validation set by default, if there is one.
    pub best_by: BestBy,
    /// What follows when one cannot be written.
    pub on_error: OnError,
}

/// How often a run is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchSettings {
    /// The interval.
    pub every: Interval,
    /// Whether the log has what is written to the metrics, too.
    pub in_log: bool,
}

/// The length of training, and when to evaluate and save.
#[derive(Debug, Clone, PartialEq)]
pub struct Train {
    /// `steps` or `epochs`, at least 1.
    pub length: Interval,
    /// The decay of the averages of the weights, if they are kept.
    pub ema: Option<f64>,
    /// How many parts each batch is divided into, whose gradients are accumulated; 1 by default.
    pub accumulate: usize,
    /// How often the network is evaluated, every epoch by default.
    pub evaluate: Every,
    /// When checkpoints are written, and which are kept.
    pub checkpoint: CheckpointSettings,
    /// What follows when the loss or a gradient is not finite.
    pub on_nonfinite: OnNonFinite,
    /// How often the run is watched; never by default.
    pub watch: Option<WatchSettings>,
    /// The time after which the run writes a checkpoint and ends, to be started again; none by default.
    pub max_time: Option<Duration>,
}

/// Reads `[train]`; returns `None` if it cannot be used. `evaluated` has the names of the sets to evaluate on.
pub(super) fn read_train(
    diagnostics: &mut Diagnostics,
    value: SpannedValue,
    evaluated: &[&'static str],
) -> Option<Train> {
    let mut section = Section::open(diagnostics, "[train]", "train", value);
    let (steps, epochs) = (section.table.contains_key("steps"), section.table.contains_key("epochs"));
    if steps && epochs {
        let message = "steps and epochs are both given, expected one; remove one of them";
        section.fault(&Fault::at("steps", message));
    } else if !steps && !epochs {
        section.require("epochs");
    }
    let mut length = None;
    for (key, interval) in [("steps", Interval::Steps as fn(u64) -> Interval), ("epochs", Interval::Epochs)] {
        match section.take::<u64>(key) {
            Some(0) => section.out_of_range(key, 0),
            count => length = count.map(interval).or(length),
        }
    }
    let epoch = Every::At(Interval::Epochs(1));
    if evaluated.is_empty() {
        section.diagnostics.note(match section.table.contains_key("evaluate") {
            true => "[train]: evaluate has no effect: [data] has neither test nor validation",
            false => "[data] has neither test nor validation: the network is not evaluated",
        });
    }
    let evaluate = section.get("evaluate").unwrap_or(epoch);
    if matches!(evaluate, Every::Time(_)) {
        let message = "evaluate is a time, expected epochs or steps: a curve must not depend on the speed of a machine";
        section.fault(&Fault::at("evaluate", message));
    }
    let max_time = section.take::<String>("max_time").and_then(|text| {
        let time = duration::parse(&text);
        if time.is_none() {
            section.fault(&Fault::at("max_time", format!("max_time = {text:?}, expected a time like \"2 hours\"")));
        }
        time
    });
    let accumulate = section.within("accumulate", |n| n >= 1);
    let ema: Option<f64> = section.take("ema");
    if let Some(ema) = ema.filter(|ema| !(FRACTION.contains)(ema)) {
        section.out_of_range("ema", number(ema));
    }
    let on_nonfinite = read_on_nonfinite(&mut section);
    let nothing = || toml::Spanned::new(section.span.clone(), DeValue::Table(toml::de::DeTable::new()));
    let checkpoint = section.table.remove("checkpoint").unwrap_or_else(nothing);
    section.value("checkpoint");
    let checkpoint = read_checkpoint(section.diagnostics, checkpoint, evaluated);
    let watch = section.value("watch").map(|watch| read_watch(section.diagnostics, watch));
    section.finish();
    Some(Train { length: length?, ema, accumulate, evaluate, checkpoint, on_nonfinite, watch, max_time })
}

fn read_watch(diagnostics: &mut Diagnostics, value: SpannedValue) -> WatchSettings {
    let mut table = Section::open(diagnostics, "[train] watch", "train.watch", value);
    let default = Interval::Steps(100);
    let every = match table.get::<Every>("every") {
        Some(Every::At(every)) => every,
        Some(Every::Never | Every::Time(_)) => {
            let message = "every is not a number of epochs or steps, expected text like \"100 steps\"; without watch, nothing is watched";
            table.fault(&Fault::at("every", message));
            default
        }
        None => default,
    };
    let in_log = table.get("log").unwrap_or_default();
    table.finish();
    WatchSettings { every, in_log }
}

/// Reads `on_nonfinite` and `max_skips`.
fn read_on_nonfinite(section: &mut Section) -> OnNonFinite {
    let given = section.table.contains_key("max_skips");
    let max_skips: Option<u64> = section.get("max_skips");
    let skips = match section.take::<String>("on_nonfinite").as_deref() {
        None | Some("stop") => false,
        Some("skip") => true,
        Some(other) => {
            let message = format!("on_nonfinite = {other:?}, expected \"stop\" or \"skip\"");
            section.fault(&Fault::at("on_nonfinite", message));
            return OnNonFinite::Stop;
        }
    };
    match (skips, max_skips) {
        (true, Some(0)) => section.out_of_range("max_skips", 0),
        (false, Some(_)) if given => {
            let message = "max_skips has no effect without on_nonfinite = \"skip\"; remove it, or add that";
            section.fault(&Fault::at("max_skips", message));
        }
        _ => {}
    }
    if skips { OnNonFinite::Skip(max_skips.unwrap_or(1)) } else { OnNonFinite::Stop }
}

fn read_checkpoint(
    diagnostics: &mut Diagnostics,
    value: SpannedValue,
    evaluated: &[&'static str],
) -> CheckpointSettings {
    let mut table = Section::open(diagnostics, "[train] checkpoint", "train.checkpoint", value);
    let every = table.get("every").unwrap_or(Every::At(Interval::Epochs(1)));
    let keep = table.within("keep", |n: usize| n >= 1);
    let keep_best = table.get("keep_best").unwrap_or(0);
    let given: Option<String> = table.take("best_by");
    let split = evaluated.first().copied().unwrap_or("test");
    let default = BestBy { split, metric: None };
    let best_by = given.as_deref().map_or_else(|| Some(default.clone()), BestBy::parse);
    let best_by = best_by.unwrap_or_else(|| {
        let expected = "expected a set and a result: validation or test, a dot, and loss or a metric, such as top1";
        table.fault(&Fault::at("best_by", format!("best_by = {:?}, {expected}", given.as_deref().unwrap_or_default())));
        default
    });
    if keep_best > 0 && !evaluated.contains(&best_by.split) {
        let key = if given.is_some() { "best_by" } else { "keep_best" };
        let message = format!("{key} needs the results of the {} set, but [data] has none", best_by.split);
        table.fault(&Fault::at(key, message));
    }
    if given.is_some() && keep_best == 0 {
        table.fault(&Fault::at("best_by", "best_by has no effect without keep_best; write keep_best = 1"));
    }
    let on_error = table.get("on_error").unwrap_or_default();
    table.finish();
    CheckpointSettings { every, keep, keep_best, best_by, on_error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_steps_is_an_interval() {
        let read = |text: &str| toml::from_str::<std::collections::BTreeMap<String, Every>>(&format!("every = {text}"));
        for (text, every) in [
            ("2", Every::At(Interval::Steps(2))),
            ("\"2 steps\"", Every::At(Interval::Steps(2))),
            ("\"1 epoch\"", Every::At(Interval::Epochs(1))),
            ("\"never\"", Every::Never),
        ] {
            assert_eq!(read(text).unwrap()["every"], every);
        }
        for wrong in ["0", "-1", "1.5", "true", "\"often\""] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("expected a number of steps, or text like"), "{error}");
        }
    }
}
