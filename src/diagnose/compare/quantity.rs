//! What is compared: which numbers of a run, and when.

use crate::error::suggest;
use crate::layers::MetricKind;

/// The metric that `accuracy` stands for.
const TOP1: &str = "top1";

/// The samples on which a number is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeasuredSet {
    /// The batches of training, each before its update.
    Train,
    /// The validation set.
    Validation,
    /// The test set.
    Test,
}

impl MeasuredSet {
    const ALL: [MeasuredSet; 3] = [MeasuredSet::Train, MeasuredSet::Validation, MeasuredSet::Test];

    /// Returns its name, as in the file and in events.
    pub fn name(self) -> &'static str {
        match self {
            MeasuredSet::Train => "train",
            MeasuredSet::Validation => "validation",
            MeasuredSet::Test => "test",
        }
    }
}

/// A number of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quantity {
    /// The loss, `accuracy` or another metric on a set.
    Measured(MeasuredSet, String),
    /// The loss or a metric of the test set less that of the last epoch of training.
    Gap(String),
    /// The share of the updates at which the training loss rose.
    Rises,
    /// The learning rate.
    LearningRate,
}

impl Quantity {
    /// The names of the numbers that have a curve; a set may have other metrics.
    pub const CURVES: [&'static str; 7] = [
        "train.loss",
        "train.accuracy",
        "test.loss",
        "test.accuracy",
        "validation.loss",
        "validation.accuracy",
        "learning_rate",
    ];
    /// The names of the numbers that have none.
    pub const SINGLE: [&'static str; 3] = ["gap.loss", "gap.accuracy", "rises"];

    /// Reads a name, such as `train.loss`.
    pub fn parse(name: &str) -> Option<Quantity> {
        match name {
            "rises" => return Some(Quantity::Rises),
            "learning_rate" => return Some(Quantity::LearningRate),
            _ => {}
        }
        let (set, metric) = name.split_once('.').filter(|(_, metric)| !metric.is_empty())?;
        if set == "gap" {
            return Some(Quantity::Gap(metric.to_string()));
        }
        let set = MeasuredSet::ALL.into_iter().find(|known| known.name() == set)?;
        Some(Quantity::Measured(set, metric.to_string()))
    }

    /// Returns whether there is a value for each update or evaluation.
    pub fn has_curve(&self) -> bool {
        matches!(self, Quantity::Measured(..) | Quantity::LearningRate)
    }

    /// Returns whether every update has a value.
    pub fn is_per_update(&self) -> bool {
        matches!(self, Quantity::Measured(MeasuredSet::Train, _) | Quantity::LearningRate)
    }

    /// Returns the label of its axis.
    pub fn label(&self) -> String {
        match self {
            Quantity::Measured(set, metric) => {
                let set = if *set == MeasuredSet::Train { "training" } else { set.name() };
                format!("{set} {metric}{}", if metric == "accuracy" { " (share of samples)" } else { "" })
            }
            Quantity::Gap(metric) => format!("test {metric} less training {metric}"),
            Quantity::Rises => "share of updates at which the loss rose".to_string(),
            Quantity::LearningRate => "learning rate".to_string(),
        }
    }

    /// Returns the sets that must be evaluated for it.
    pub fn evaluated_set(&self) -> Option<MeasuredSet> {
        match self {
            Quantity::Measured(MeasuredSet::Train, _) | Quantity::Rises | Quantity::LearningRate => None,
            Quantity::Measured(set, _) => Some(*set),
            Quantity::Gap(_) => Some(MeasuredSet::Test),
        }
    }

    /// Returns its metric, if it is of one.
    pub fn metric(&self) -> Option<&str> {
        match self {
            Quantity::Measured(_, metric) | Quantity::Gap(metric) => Some(metric),
            Quantity::Rises | Quantity::LearningRate => None,
        }
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Quantity::Measured(set, metric) => write!(f, "{}.{metric}", set.name()),
            Quantity::Gap(metric) => write!(f, "gap.{metric}"),
            Quantity::Rises => f.write_str("rises"),
            Quantity::LearningRate => f.write_str("learning_rate"),
        }
    }
}

/// Returns which of these metrics a name means: `accuracy` is the first `top1`.
pub fn find_metric(name: &str, metrics: &[(String, MetricKind)]) -> Option<usize> {
    let exact = metrics.iter().position(|(known, _)| known == name);
    let is_top1 = |known: &str| known == TOP1 || known.rsplit('.').next() == Some(TOP1);
    exact.or_else(|| metrics.iter().position(|(known, _)| name == "accuracy" && is_top1(known)))
}

/// Returns why a network with these metrics does not have one.
pub fn lacks_metric(name: &str, metrics: &[(String, MetricKind)]) -> String {
    let known: Vec<&str> = metrics.iter().map(|(known, _)| known.as_str()).collect();
    format!("has no \"{name}\"{}; it has {}", suggest(name, known.iter().copied()), known.join(", "))
}

/// When a number is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The last evaluation; of training, the mean of the last epoch, or the last update of a shorter run.
    End,
    /// The lowest loss, or the highest share.
    Best,
    /// The mean over the run.
    Mean,
    /// An update, counted from 1; of evaluations, the last one until then.
    Update(u64),
    /// An epoch, counted from 1: of training, its mean; of evaluations, the last one until its end.
    Epoch(u64),
    /// Every update, or every evaluation.
    Every,
}

impl Moment {
    /// What `at` may be.
    pub const EXPECTED: &'static str =
        "expected \"end\", \"best\", \"mean\", \"update N\", \"epoch N\" or \"every update\"";

    /// Returns what it is called in the file.
    pub fn key(self) -> String {
        match self {
            Moment::End => "end".to_string(),
            Moment::Best => "best".to_string(),
            Moment::Mean => "mean".to_string(),
            Moment::Update(step) => format!("update {step}"),
            Moment::Epoch(epoch) => format!("epoch {epoch}"),
            Moment::Every => "every update".to_string(),
        }
    }

    /// Reads a moment, such as `update 100`.
    pub fn parse(text: &str) -> Option<Moment> {
        let count = |text: &str| text.trim().parse().ok().filter(|&count: &u64| count > 0);
        match text {
            "end" => Some(Moment::End),
            "best" => Some(Moment::Best),
            "mean" => Some(Moment::Mean),
            "every update" => Some(Moment::Every),
            _ => match text.split_once(' ')? {
                ("update", rest) => count(rest).map(Moment::Update),
                ("epoch", rest) => count(rest).map(Moment::Epoch),
                _ => None,
            },
        }
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Moment::End => f.write_str("at the end"),
            Moment::Best => f.write_str("at its best"),
            Moment::Mean => f.write_str("on average"),
            Moment::Update(step) => write!(f, "at update {step}"),
            Moment::Epoch(epoch) => write!(f, "in epoch {epoch}"),
            Moment::Every => f.write_str("at every update"),
        }
    }
}

/// Formats a value of a table or a message with four digits. Values that are not finite belong to runs that diverged.
pub fn shown(value: f64) -> String {
    match value {
        value if value.is_nan() => "none".to_string(),
        value if value.is_infinite() => "diverged".to_string(),
        value if value == 0.0 || (1e-3..1e6).contains(&value.abs()) => {
            let digits = if value == 0.0 { 0 } else { 3 - value.abs().log10().floor() as i32 };
            let text = format!("{value:.*}", digits.clamp(0, 6) as usize);
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
        }
        value => format!("{value:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in Quantity::CURVES.iter().chain(&Quantity::SINGLE).chain(&["train.aux.top5"]) {
            assert_eq!(Quantity::parse(name).map(|of| of.to_string()).as_deref(), Some(*name));
        }
        for name in ["", "loss", "train", "train.", "tests.loss", "rises.loss", "learning_rate.x"] {
            assert_eq!(Quantity::parse(name), None, "{name}");
        }
        assert_eq!(Moment::parse("update 20"), Some(Moment::Update(20)));
        assert_eq!(Moment::parse("epoch 3"), Some(Moment::Epoch(3)));
        for text in ["", "update", "update 0", "epoch -1", "step 3", "update 1 2", "End"] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }

    #[test]
    fn accuracy_is_the_first_top1() {
        let metrics = |names: &[&str]| -> Vec<(String, MetricKind)> {
            names.iter().map(|name| (name.to_string(), MetricKind::Hits)).collect()
        };
        assert_eq!(find_metric("accuracy", &metrics(&["loss", "top1", "top5"])), Some(1));
        assert_eq!(find_metric("accuracy", &metrics(&["loss", "main.loss", "main.top1", "aux.top1"])), Some(2));
        assert_eq!(find_metric("accuracy", &metrics(&["loss", "xtop1"])), None);
        assert_eq!(
            lacks_metric("los", &metrics(&["loss", "x"])),
            "has no \"los\" (did you mean \"loss\"?); it has loss, x"
        );
    }

    #[test]
    fn values_have_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.123456, "0.1235"),
            (0.95, "0.95"),
            (12.0, "12"),
            (100.0, "100"),
            (123456.0, "123456"),
            (1.0, "1"),
            (0.001234567, "0.001235"),
            (1.234567e-5, "1.235e-5"),
            (-2.5, "-2.5"),
            (f64::INFINITY, "diverged"),
        ] {
            assert_eq!(shown(value), text);
        }
    }
}
