//! Pictures of curves: for each variant, the median over the seeds in a band from the lowest to the highest value.

use super::canvas::{At, Canvas, ChartAxis, HEIGHT, WIDTH};
use super::course::Course;
use super::experiment::{Experiment, Horizontal};
use super::finding::{Band, band};
use super::quantity::Quantity;
use super::run::Comparison;
use crate::diagnose::pictures::{Area, Drawn, drawn};
use crate::error::Result;

/// The points of a curve, about, unless the file says of how many updates each is the mean.
const POINTS: u64 = 100;
/// By how many times the first value a curve is exceeded by its last one if it leaves the picture.
const LEAVES: f64 = 10.0;
/// The powers of ten that a logarithmic axis has at most.
const MOST_DECADES: i32 = 18;

/// Curves to be drawn.
pub(super) struct Curves<'a> {
    pub(super) x: Horizontal,
    pub(super) y: &'a Quantity,
    pub(super) log: bool,
    pub(super) variants: &'a [usize],
    pub(super) smooth: Option<u64>,
}

/// A line: its name, and its points, whose `step` is already in units of the horizontal axis.
struct Line {
    name: String,
    points: Vec<Band>,
}

impl Line {
    /// Returns whether its values grow without bounds, so that they do not set the scale.
    fn leaves(&self) -> bool {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else { return false };
        !last.median.is_finite() || (last.median.abs() > LEAVES * first.median.abs() && first.median != 0.0)
    }
}

impl Curves<'_> {
    /// Draws them in SVG.
    ///
    /// # Errors
    /// If the picture cannot be drawn.
    pub(super) fn svg(&self, experiment: &Experiment, comparison: &Comparison) -> Result<String> {
        let lines: Vec<Line> = self.variants.iter().map(|&v| self.line(experiment, comparison, v)).collect();
        let title = experiment.claim.as_deref().unwrap_or(&experiment.name);
        drawn((WIDTH, HEIGHT), |page| self.draw(page, title, &lines, experiment.seeds.len()))
    }

    fn line(&self, experiment: &Experiment, comparison: &Comparison, variant: usize) -> Line {
        let courses = &comparison.courses[variant];
        let steps = experiment.variants[variant].outline.steps;
        let smooth = match self.smooth {
            _ if !self.y.is_per_update() => 1,
            Some(smooth) => smooth,
            None => steps.div_ceil(POINTS),
        };
        let curves: Vec<_> = courses.iter().map(|course| course.curve(self.y)).collect();
        let mut points = band(&curves, usize::try_from(smooth).unwrap_or(usize::MAX));
        if let Some(course) = courses.first() {
            points.iter_mut().for_each(|point| point.step = self.horizontal(course, point.step));
        }
        Line { name: experiment.variants[variant].name.clone(), points }
    }

    /// Returns where a number of updates is on the horizontal axis.
    fn horizontal(&self, course: &Course, step: f64) -> f64 {
        let between = |of: &dyn Fn(u64) -> f64| {
            let below = step.floor();
            let [from, to] = [below, below + 1.0].map(|step| of(step as u64));
            from + (step - below) * (to - from)
        };
        match self.x {
            Horizontal::Updates => step,
            Horizontal::Epochs => between(&|step| course.epochs(step)),
            Horizontal::Samples => between(&|step| course.samples(step)),
        }
    }

    fn axes(&self, lines: &[Line]) -> [ChartAxis; 2] {
        let label = match self.x {
            Horizontal::Updates => "updates",
            Horizontal::Epochs => "epochs",
            Horizontal::Samples => "training samples",
        };
        let last = lines.iter().filter_map(|line| line.points.last()).fold(0.0f64, |most, point| most.max(point.step));
        let x = ChartAxis { label: label.to_string(), low: 0.0, high: last.max(1e-9), log: false };
        let label = self.y.label();
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        let mut has_zero = false;
        let mut include = |value: f64| {
            has_zero |= value <= 0.0;
            if value.is_finite() && (value > 0.0 || !self.log) {
                (low, high) = (low.min(value), high.max(value));
            }
        };
        let (leaving, staying): (Vec<&Line>, Vec<&Line>) = lines.iter().partition(|line| line.leaves());
        let values = |line: &&Line| line.points.iter().flat_map(|point| [point.low, point.high]).collect::<Vec<f64>>();
        staying.iter().flat_map(values).for_each(&mut include);
        // The mean of the first updates may already be far beyond the others.
        let most = staying.iter().flat_map(values).fold(f64::NEG_INFINITY, f64::max);
        let limit = if staying.is_empty() { f64::INFINITY } else { LEAVES * most.abs() };
        for (line, first) in leaving.iter().filter_map(|line| Some((line, line.points.first()?))) {
            if first.median <= limit {
                include(first.median);
                include(first.median * if self.log { LEAVES * LEAVES } else { 2.0 });
            }
            line.points
                .iter()
                .filter(|point| point.median <= first.median.min(limit))
                .for_each(|point| include(point.low));
        }
        if low > high {
            (low, high) = if self.log { (0.1, 1.0) } else { (0.0, 1.0) };
        }
        if self.log {
            low = low.max(high * 10f64.powi(-MOST_DECADES));
            let (low, high) = if has_zero { (low / 10.0, high) } else { (low / 1.2, high) };
            return [x, ChartAxis { label, low, high: high * 1.2, log: true }];
        }
        let room = if high > low { 0.04 * (high - low) } else { (0.1 * high.abs()).max(1e-9) };
        let from_zero = low >= 0.0 && low < 0.4 * high;
        let is_share = self.y.metric() == Some("accuracy");
        let (low, high) = (if from_zero { 0.0 } else { low - room }, high + room);
        [x, ChartAxis { label, low, high: if is_share { high.min(1.0) } else { high }, log: false }]
    }

    fn draw(&self, page: &Area, title: &str, lines: &[Line], seeds: usize) -> Drawn {
        let names: Vec<String> = lines.iter().map(|line| line.name.clone()).collect();
        let canvas = Canvas::new(page, title, &names, self.axes(lines), |canvas, line, ends| canvas.line(line, &ends))?;
        if seeds > 1 {
            for (number, line) in lines.iter().enumerate() {
                let edge = |of: fn(&Band) -> f64| line.points.iter().map(move |point| (point.step, of(point)));
                let around = edge(|point| point.high).chain(edge(|point| point.low).rev());
                let around: Vec<At> = around.map(|(x, y)| canvas.place(x, y)).collect();
                if line.points.iter().any(|point| point.low < point.high) {
                    canvas.area(number, &around)?;
                }
            }
        }
        for (number, line) in lines.iter().enumerate() {
            // A line that leaves the chart for good ends at its edge.
            let inside = |point: &Band| canvas.shows(point.median);
            let last = line.points.iter().rposition(inside).map_or(1, |last| last + 2);
            let shown = line.points.iter().take(last);
            let points: Vec<At> = shown.map(|point| canvas.place(point.step, point.median)).collect();
            canvas.line(number, &points)?;
            if self.y.is_per_update() && points.len() > 1 {
                continue;
            }
            points.iter().try_for_each(|&at| canvas.mark(number, at))?;
        }
        Ok(())
    }
}
