//! What `eval` prints of a set: text, or JSON.

use crate::report::MetricValue;
use crate::train::predictions::{CALIBRATION_BINS, ClassResult, Report, class_name};
use serde_json::{Map, Value, json};

/// The most classes that have a line each.
const MOST_CLASSES: usize = 20;
/// The number of classes that have a line if there are more.
const WORST_CLASSES: usize = 10;
/// The most confusions that have a line.
const MOST_CONFUSIONS: usize = 10;

/// Returns the name of a sample of a set.
pub(super) type SampleName<'a> = &'a dyn Fn(&str, u32) -> String;

/// The results of a set.
#[derive(Debug)]
pub(super) struct SetOutcome {
    /// Updates done.
    pub step: u64,
    /// `validation` or `test`.
    pub set: String,
    /// The mean loss.
    pub loss: f64,
    /// The metrics besides it.
    pub metrics: Vec<MetricValue>,
    /// The number of images.
    pub images: u64,
    /// What can be said of its predictions, if they are classes.
    pub report: Option<Report>,
}

/// Returns the lines of a set.
pub(super) fn as_text(outcome: &SetOutcome, names: Option<&[String]>, sample_name: SampleName) -> String {
    let SetOutcome { step, set, loss, metrics, images, report } = outcome;
    let metrics: String = metrics.iter().map(|metric| format!("  {} {:.4}", metric.name, metric.value)).collect();
    let line = format!("step {step}  {set}: loss {loss:.6}{metrics}  ({images} images)\n");
    line + &report
        .as_ref()
        .map_or(String::new(), |report| report_text(report, names, &|sample| sample_name(set, sample)))
}

fn report_text(report: &Report, names: Option<&[String]>, sample_name: &dyn Fn(u32) -> String) -> String {
    let mut text = class_table(report, names);
    let confusions = report.confusions();
    if !confusions.is_empty() {
        text += "  confusions, the most frequent first (true -> predicted):\n";
        for confusion in confusions.iter().take(MOST_CONFUSIONS) {
            let [label, predicted] = [confusion.label, confusion.predicted].map(|class| class_name(names, class));
            let (count, of) = (confusion.count, confusion.of);
            text +=
                &format!("    {label} -> {predicted}: {count} of {of} ({:.1} %)\n", 100.0 * count as f64 / of as f64);
        }
        let more = confusions.len().saturating_sub(MOST_CONFUSIONS);
        if more > 0 {
            text += &format!("    and {more} more\n");
        }
    }
    text += &format!("  expected calibration error {:.4} ({CALIBRATION_BINS} bins)\n", report.calibration_error());
    if report.without_prediction() > 0 {
        text += &format!("  without a prediction, because outputs are not finite: {}\n", report.without_prediction());
    }
    let mistakes = report.mistakes();
    if !mistakes.is_empty() {
        text += "  wrong predictions, the surest first:\n";
    }
    for mistake in mistakes {
        let [label, predicted] = [mistake.label, mistake.predicted].map(|class| class_name(names, class));
        let name = sample_name(mistake.sample);
        text += &format!("    {name}: {label}, predicted {predicted} with probability {:.4}\n", mistake.probability);
    }
    text
}

/// Returns a line for each class, or for the worst of many, and one for their means.
fn class_table(report: &Report, names: Option<&[String]>) -> String {
    let mut classes: Vec<ClassResult> = report.classes().collect();
    let mut text = String::new();
    if classes.len() > MOST_CLASSES {
        let count = classes.len();
        classes.retain(|class| class.samples > 0);
        classes.sort_by(|a, b| a.recall.total_cmp(&b.recall));
        classes.truncate(WORST_CLASSES);
        text += &format!("  of {count} classes, the {} with the lowest recall:\n", classes.len());
    }
    let mut rows = vec![["class", "samples", "precision", "recall"].map(String::from)];
    let ratio = |value: f64| if value.is_nan() { "-".to_string() } else { format!("{value:.4}") };
    rows.extend(classes.iter().map(|class| {
        let ClassResult { class, samples, precision, recall, .. } = *class;
        [class_name(names, class), samples.to_string(), ratio(precision), ratio(recall)]
    }));
    let means = report.means();
    rows.push(["mean".to_string(), report.samples().to_string(), ratio(means.precision), ratio(means.recall)]);
    let width = rows.iter().map(|row| row[0].chars().count()).max().unwrap_or(0);
    for [class, samples, precision, recall] in rows {
        text += &format!("  {class:<width$}  {samples:>8}  {precision:>9}  {recall:>6}\n");
    }
    text
}

/// Returns the results of all sets as one object; what is not a number is null.
pub(super) fn as_json(outcomes: &[SetOutcome], names: Option<&[String]>, sample_name: SampleName) -> Value {
    let sets: Vec<Value> = outcomes.iter().map(|outcome| set_json(outcome, names, sample_name)).collect();
    json!({ "step": outcomes.first().map(|outcome| outcome.step), "sets": sets })
}

fn set_json(outcome: &SetOutcome, names: Option<&[String]>, sample_name: SampleName) -> Value {
    let SetOutcome { set, loss, metrics, images, report, .. } = outcome;
    let metrics: Map<String, Value> =
        metrics.iter().map(|metric| (metric.name.to_string(), json!(metric.value))).collect();
    let mut value = json!({ "set": set, "images": images, "loss": loss, "metrics": metrics });
    if let (Some(report), Value::Object(value)) = (report, &mut value) {
        value.extend(report_json(report, names, &|sample| sample_name(set, sample)));
    }
    value
}

fn report_json(report: &Report, names: Option<&[String]>, sample_name: &dyn Fn(u32) -> String) -> Map<String, Value> {
    let class = |class: ClassResult| {
        let ClassResult { class: number, samples, predicted, precision, recall, f1 } = class;
        json!({
            "class": number, "name": class_name(names, number), "samples": samples, "predicted": predicted,
            "precision": precision, "recall": recall, "f1": f1,
        })
    };
    let confusions = report.confusions().into_iter();
    let confusions = confusions.map(|c| json!({ "label": c.label, "predicted": c.predicted, "count": c.count }));
    let mistake = |mistake: crate::train::predictions::Mistake| {
        json!({
            "sample": mistake.sample, "name": sample_name(mistake.sample), "label": mistake.label,
            "predicted": mistake.predicted, "probability": mistake.probability,
        })
    };
    let (means, mistakes) = (report.means(), report.mistakes());
    let values = [
        ("top1", json!(report.top1())),
        ("top5", json!(report.top5())),
        ("calibration_error", json!(report.calibration_error())),
        ("without_prediction", json!(report.without_prediction())),
        ("mean", json!({ "precision": means.precision, "recall": means.recall, "f1": means.f1 })),
        ("classes", report.classes().map(class).collect()),
        ("confusions", confusions.collect()),
        ("mistakes", mistakes.into_iter().map(mistake).collect()),
    ];
    values.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}
