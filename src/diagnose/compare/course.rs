//! The course of a run: the numbers of every update and evaluation, and what is read from them.

use super::quantity::{MeasuredSet, Moment, Quantity, find_metric};
use crate::data::EpochPlan;
use crate::layers::MetricKind;
use crate::report::{MetricValue, RunEvent};

/// The numbers of an update, or of an evaluation after it.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    step: u64,
    /// The loss, then the other metrics.
    values: Vec<f64>,
}

/// A list of rows with the names of their values.
#[derive(Debug, Clone, PartialEq, Default)]
struct Table {
    names: Vec<(String, MetricKind)>,
    rows: Vec<Row>,
}

impl Table {
    fn push(&mut self, step: u64, loss: f64, metrics: &[MetricValue]) {
        if self.names.is_empty() {
            let others = metrics.iter().map(|metric| (metric.name.to_string(), metric.kind));
            self.names = [("loss".to_string(), MetricKind::Mean)].into_iter().chain(others).collect();
        }
        let values = [loss].into_iter().chain(metrics.iter().map(|metric| metric.value));
        self.rows.push(Row { step, values: values.collect() });
    }
}

/// The course of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// The number of updates that the run was to make.
    pub steps: u64,
    /// The epochs of its training set.
    pub epoch: EpochPlan,
    /// The update at which the loss, a gradient or a weight was no longer finite, if the run diverged.
    pub diverged: Option<u64>,
    /// Two weights, at the start and after each update, of runs that are drawn as paths.
    pub path: Vec<[f64; 2]>,
    updates: Table,
    rates: Vec<f64>,
    evaluations: [Table; 2],
}

/// The values of a quantity: those of updates or of evaluations.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The updates done, and the values.
    pub points: Vec<(u64, f64)>,
    /// Whether higher values are better: shares of hits.
    pub rises: bool,
    /// The value of what a run that diverged would have had later: infinite for losses, 0 for shares.
    pub worst: f64,
}

impl Curve {
    /// Returns the value after `step` updates: that of the last point until then.
    pub fn until(&self, step: u64) -> Option<f64> {
        let count = self.points.partition_point(|(at, _)| *at <= step);
        count.checked_sub(1).map(|last| self.points[last].1)
    }
}

impl Course {
    /// Creates the course of a run that has not begun.
    pub fn new(steps: u64, epoch: EpochPlan) -> Course {
        Course {
            steps,
            epoch,
            diverged: None,
            path: Vec::new(),
            updates: Table::default(),
            rates: Vec::new(),
            evaluations: Default::default(),
        }
    }

    /// Returns the course of a run that diverged at an update.
    pub fn diverged_at(self, step: u64) -> Course {
        Course { diverged: Some(step), ..self }
    }

    /// Adds what an event says.
    pub fn observe(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Step { step, loss, metrics, lr, .. } => {
                self.updates.push(*step, *loss, metrics);
                self.rates.push(*lr);
            }
            RunEvent::Eval { step, split, loss, metrics, .. } => {
                let table = &mut self.evaluations[usize::from(split == MeasuredSet::Test.name())];
                table.push(*step, *loss, metrics);
            }
            _ => {}
        }
    }

    /// Returns the number of updates made.
    pub fn updates(&self) -> u64 {
        self.updates.rows.len() as u64
    }

    /// Returns the values of a quantity that has a curve. Those of a run that diverged go on to its end.
    pub fn curve(&self, of: &Quantity) -> Curve {
        let Quantity::Measured(set, metric) = of else {
            let points = (1..).zip(&self.rates).map(|(step, &rate)| (step, rate)).collect();
            return Curve { points, rises: false, worst: f64::INFINITY };
        };
        let table = match set {
            MeasuredSet::Train => &self.updates,
            MeasuredSet::Validation => &self.evaluations[0],
            MeasuredSet::Test => &self.evaluations[1],
        };
        let index = find_metric(metric, &table.names);
        let rises = match index {
            Some(index) => table.names[index].1 == MetricKind::Hits,
            // A run that has diverged before its first evaluation.
            None => metric == "accuracy",
        };
        let worst = if rises { 0.0 } else { f64::INFINITY };
        let finite = |value: f64| if value.is_finite() { value } else { worst };
        let rows = table.rows.iter().filter(|row| self.diverged.is_none_or(|diverged| row.step < diverged));
        let mut points: Vec<(u64, f64)> =
            index.map_or(Vec::new(), |index| rows.map(|row| (row.step, finite(row.values[index]))).collect());
        if let Some(diverged) = self.diverged {
            let last = if *set == MeasuredSet::Train { self.steps.max(diverged) } else { diverged };
            points.extend((diverged..=last).map(|step| (step, worst)));
        }
        Curve { points, rises, worst }
    }

    /// Returns a value, or one that is not a number if there is none: a gap of a run that diverged.
    pub fn value(&self, of: &Quantity, at: Moment) -> f64 {
        match of {
            Quantity::Gap(_) if self.diverged.is_some() => f64::NAN,
            Quantity::Gap(metric) => {
                let of = |set| self.value(&Quantity::Measured(set, metric.clone()), Moment::End);
                of(MeasuredSet::Test) - of(MeasuredSet::Train)
            }
            Quantity::Rises => self.rises(),
            _ => self.value_of(&self.curve(of), of.is_per_update(), at),
        }
    }

    fn value_of(&self, curve: &Curve, per_update: bool, at: Moment) -> f64 {
        let values = || curve.points.iter().map(|(_, value)| *value);
        let per_epoch = self.epoch.batches();
        match at {
            Moment::End if per_update && curve.points.len() >= per_epoch => {
                mean(values().skip(curve.points.len() - per_epoch))
            }
            Moment::End | Moment::Every => values().next_back().unwrap_or(f64::NAN),
            Moment::Best if curve.rises => values().fold(f64::NAN, f64::max),
            Moment::Best => values().fold(f64::NAN, f64::min),
            Moment::Mean => mean(values()),
            Moment::Update(step) => curve.until(step).unwrap_or(f64::NAN),
            Moment::Epoch(epoch) => {
                let last = epoch.saturating_mul(per_epoch as u64);
                if !per_update {
                    return curve.until(last).unwrap_or(f64::NAN);
                }
                let first = last - per_epoch as u64;
                mean(curve.points.iter().filter(|(step, _)| (first + 1..=last).contains(step)).map(|(_, value)| *value))
            }
        }
    }

    /// Returns the share of the updates at which the training loss is above that of the update before.
    fn rises(&self) -> f64 {
        let points = self.curve(&Quantity::Measured(MeasuredSet::Train, "loss".to_string())).points;
        let rose = points.windows(2).filter(|pair| pair[1].1 > pair[0].1 || pair[1].1 == f64::INFINITY).count();
        rose as f64 / points.len().saturating_sub(1).max(1) as f64
    }

    /// Returns the loss of the last update; infinite if there is none, or the run diverged.
    pub fn last_loss(&self) -> f64 {
        match (self.diverged, self.updates.rows.last()) {
            (None, Some(row)) => row.values[0],
            _ => f64::INFINITY,
        }
    }

    /// Returns the epochs done after so many updates.
    pub fn epochs(&self, step: u64) -> f64 {
        step as f64 / self.epoch.batches() as f64
    }

    /// Returns the training samples used after so many updates.
    pub fn samples(&self, step: u64) -> f64 {
        let (epochs, batches) = self.epoch.at(step);
        epochs as f64 * self.epoch.samples as f64 + (batches * self.epoch.batch) as f64
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { f64::NAN } else { sum / f64::from(count) }
}

/// Returns the median: of an even number, the mean of the middle two. What is not a number comes last.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, middle) if count % 2 == 1 => sorted[middle],
        // Two values that are infinite have no mean that `midpoint` finds.
        (_, middle) if sorted[middle] == sorted[middle - 1] => sorted[middle],
        (_, middle) => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(name: &str) -> Quantity {
        Quantity::parse(name).unwrap()
    }

    /// A course with these training losses, in epochs of two batches, and an evaluation after each epoch with the loss 10 * epoch
    /// and the accuracy epoch / 10.
    fn course(losses: &[f64]) -> Course {
        let mut course = Course::new(losses.len() as u64, EpochPlan { samples: 15, batch: 8 });
        let top1 = |value| vec![MetricValue { name: "top1".into(), value, kind: MetricKind::Hits }];
        for (&loss, step) in losses.iter().zip(1..) {
            let (lr, images_per_second, seconds) = (0.5, 1.0, 1.0);
            let (epoch, metrics) = ((step - 1) / 2, top1(0.5));
            course.observe(&RunEvent::Step {
                step,
                epoch,
                loss,
                metrics,
                lr,
                images_per_second,
                seconds,
                input_wait: 0.0,
                skipped: false,
            });
            if step % 2 == 0 {
                let (loss, metrics) = (5.0 * step as f64, top1(step as f64 / 20.0));
                course.observe(&RunEvent::Eval { step, split: "test".into(), loss, metrics, images: 4 });
            }
        }
        course
    }

    #[test]
    fn values_are_read_at_their_moments() {
        let course = course(&[8.0, 6.0, 7.0, 3.0, 4.0]);
        for (of, at, expected) in [
            // The last two of five updates.
            ("train.loss", "end", 3.5),
            ("train.loss", "best", 3.0),
            ("train.loss", "mean", 5.6),
            ("train.loss", "update 3", 7.0),
            ("train.loss", "epoch 2", 5.0),
            ("train.loss", "epoch 3", 4.0),
            ("test.loss", "end", 20.0),
            ("test.loss", "best", 10.0),
            ("test.accuracy", "best", 0.2),
            ("test.top1", "mean", 0.15),
            ("test.loss", "update 3", 10.0),
            ("test.loss", "epoch 2", 20.0),
            ("learning_rate", "end", 0.5),
            ("gap.loss", "end", 16.5),
            ("gap.accuracy", "end", -0.3),
            // At the third and the fifth of five updates, of four that have one before them.
            ("rises", "end", 0.5),
        ] {
            let found = course.value(&quantity(of), Moment::parse(at).unwrap());
            assert!((found - expected).abs() < 1e-12, "{of} {at}: {found}, expected {expected}");
        }
        assert!(course.value(&quantity("test.loss"), Moment::Update(1)).is_nan());
        assert!(course.value(&quantity("validation.loss"), Moment::End).is_nan());
        assert_eq!([course.samples(1), course.samples(2), course.samples(5)], [8.0, 15.0, 38.0]);
        assert_eq!(course.epochs(3), 1.5);
    }

    #[test]
    fn a_run_shorter_than_an_epoch_ends_with_its_last_update() {
        let course = Course { epoch: EpochPlan { samples: 100, batch: 8 }, ..course(&[3.0, 2.0]) };
        assert_eq!(course.value(&quantity("train.loss"), Moment::End), 2.0);
    }

    #[test]
    fn a_run_that_diverged_has_the_worst_values_from_then_on() {
        let course = Course { diverged: Some(4), steps: 8, ..course(&[1.0, 2.0, 4.0]) };
        let value = |of, at| course.value(&quantity(of), Moment::parse(at).unwrap());
        assert_eq!(course.curve(&quantity("train.loss")).points.len(), 8);
        assert_eq!([value("train.loss", "end"), value("train.loss", "mean")], [f64::INFINITY; 2]);
        assert_eq!([value("train.loss", "best"), value("train.loss", "update 3")], [1.0, 4.0]);
        assert_eq!([value("test.accuracy", "end"), value("test.accuracy", "best")], [0.0, 0.1]);
        assert_eq!([value("test.loss", "end"), value("test.loss", "epoch 1")], [f64::INFINITY, 10.0]);
        assert_eq!([value("validation.accuracy", "end"), value("rises", "end")], [0.0, 1.0]);
        assert!(value("gap.loss", "end").is_nan());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!([median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0]), median(&[7.0])], [2.0, 2.5, 7.0]);
        assert_eq!(median(&[f64::INFINITY, 1.0, f64::INFINITY, f64::INFINITY]), f64::INFINITY);
        assert_eq!(median(&[f64::INFINITY, 1.0, 2.0]), 2.0);
    }
}
