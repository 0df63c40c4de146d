//! Pictures of the paths of two weights over the contours of the loss.

use super::canvas::{At, Canvas, ChartAxis, HEIGHT, WIDTH, aspect, colour};
use super::experiment::Experiment;
use super::run::Comparison;
use crate::diagnose::init::InitialNetwork;
use crate::diagnose::landscape::{Landscape, Plane};
use crate::diagnose::pictures::{Area, Drawn, drawn};
use crate::error::Result;
use plotters::prelude::*;
use std::path::Path;

/// The most training samples whose mean loss the contours show.
const SAMPLES: usize = 512;
/// The losses along the horizontal axis of the chart.
const GRID: usize = 72;
/// The contour lines.
const LINES: usize = 16;
/// How many times as far as the start is from the end of the best path others may go before they leave the chart.
const REACH: f64 = 1.25;
/// The most points of a path that have marks.
const MARKS: usize = 100;
const CONTOUR: RGBColor = RGBColor(170, 170, 170);

type Weights = [f64; 2];

/// Draws the paths of variants with the first seed in SVG, over the loss of the first variant on its first training samples.
///
/// # Errors
/// If the network or its data cannot be opened again, or the picture cannot be drawn.
pub(super) fn svg(experiment: &Experiment, comparison: &Comparison, variants: &[usize], dir: &Path) -> Result<String> {
    let first = &experiment.variants[variants[0]];
    let samples = first.outline.epoch.samples.min(SAMPLES);
    let sets = experiment.sets_of(variants[0], experiment.seeds[0], dir);
    let network = InitialNetwork::open(&first.config, &sets, samples)?;
    let paths: Vec<&[Weights]> = variants.iter().map(|&v| comparison.courses[v][0].path.as_slice()).collect();
    let title = experiment.claim.as_deref().unwrap_or(&experiment.name);
    let names: Vec<String> = variants.iter().map(|&v| experiment.variants[v].name.clone()).collect();
    let best = (0..variants.len()).min_by(|&a, &b| {
        let end = |i: usize| comparison.courses[variants[i]][0].last_loss();
        end(a).total_cmp(&end(b))
    });
    let [xs, ys] = extents(&paths, best.unwrap_or(0), aspect(title, &names));
    let count = |[from, to]: [f64; 2]| {
        let number = (GRID as f64 * (to - from) / (xs[1] - xs[0])).round().max(3.0) as usize;
        (0..=number).map(|i| from + (to - from) * i as f64 / number as f64).collect::<Vec<f64>>()
    };
    let plane = Plane::first_weights(network.weights(), &[])?;
    let found = Landscape::of(&network.subject(), network.weights(), &plane, [count(xs), count(ys)], |_| {})?;
    let axis = |label: &str, [low, high]: [f64; 2]| ChartAxis { label: label.to_string(), low, high, log: false };
    let axes = [axis("first weight", xs), axis("second weight", ys)];
    drawn((WIDTH, HEIGHT), |page| draw(page, title, &names, axes, &found, &paths))
}

/// Returns the ends of both axes: around the paths, as far as they do not leave the chart, with one scale for both.
fn extents(paths: &[&[Weights]], best: usize, aspect: f64) -> [[f64; 2]; 2] {
    let center = paths[best].last().copied().unwrap_or_default();
    let distance = |at: &Weights| (at[0] - center[0]).hypot(at[1] - center[1]);
    let starts = paths.iter().filter_map(|path| path.first());
    // The best path is shown as a whole.
    let reach = starts.chain(paths[best].iter()).map(distance).fold(0.0, f64::max);
    let reach = if reach > 0.0 && reach.is_finite() { REACH * reach } else { 1.0 };
    let mut ends = [0, 1].map(|k| [center[k]; 2]);
    for at in paths.iter().flat_map(|path| path.iter()).filter(|at| distance(at) <= reach) {
        for (ends, &x) in ends.iter_mut().zip(at) {
            *ends = [ends[0].min(x), ends[1].max(x)];
        }
    }
    let [width, height] = ends.map(|[from, to]| 1.3 * (to - from));
    let width = width.max(height * aspect).max(1e-6);
    let halves = [width / 2.0, width / aspect / 2.0];
    [0, 1].map(|k| {
        let middle = f64::midpoint(ends[k][0], ends[k][1]);
        [middle - halves[k], middle + halves[k]]
    })
}

fn draw(
    page: &Area,
    title: &str,
    names: &[String],
    axes: [ChartAxis; 2],
    found: &Landscape,
    paths: &[&[Weights]],
) -> Drawn {
    let bounds = [0, 1].map(|k: usize| [axes[k].low, axes[k].high]);
    let canvas = Canvas::new(page, title, names, axes, |canvas, line, [from, to]| {
        canvas.solid(&[from, to], colour(line).stroke_width(2))?;
        canvas.mark(line, (f64::midpoint(from.0, to.0), from.1))
    })?;
    let place = |at: &Weights| canvas.place(at[0], at[1]);
    let finite = || found.losses.iter().copied().filter(|loss| loss.is_finite());
    let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), loss| (a.min(loss), b.max(loss)));
    // Closer where losses are low.
    let levels = (1..=LINES).map(|line| low + (high - low) * (line as f64 / (LINES + 1) as f64).powi(3));
    for level in levels.filter(|level| level.is_finite()) {
        for ends in found.contour(level) {
            canvas.solid(&ends.map(|at| place(&at)), CONTOUR.stroke_width(1))?;
        }
    }
    for (number, path) in paths.iter().enumerate() {
        let style = colour(number).stroke_width(2);
        let inside = |at: &&Weights| (0..2).all(|k| bounds[k][0] <= at[k] && at[k] <= bounds[k][1]);
        // A path that does not come back ends where it first leaves.
        let shown = match path.last().filter(|last| !inside(last)) {
            Some(_) => path.iter().position(|at| !inside(&at)).map_or(path.len(), |first| first + 1),
            None => path.len(),
        };
        let path = &path[..shown];
        for ends in path.windows(2) {
            if let Some(ends) = clipped([ends[0], ends[1]], bounds) {
                canvas.solid(&ends.map(|at| place(&at)), style)?;
            }
        }
        let every = path.len().div_ceil(MARKS).max(1);
        let marks: Vec<At> = path.iter().step_by(every).filter(inside).map(place).collect();
        marks.iter().try_for_each(|&at| canvas.mark(number, at))?;
        path.first().iter().try_for_each(|at| canvas.ring(place(at)))?;
    }
    Ok(())
}

/// Returns the part of a segment within bounds, if there is one (Liang and Barsky 1984).
fn clipped([from, to]: [Weights; 2], bounds: [[f64; 2]; 2]) -> Option<[Weights; 2]> {
    let (mut first, mut last) = (0.0f64, 1.0f64);
    for k in 0..2 {
        let along = to[k] - from[k];
        for (edge, sign) in bounds[k].into_iter().zip([1.0, -1.0]) {
            let (away, speed) = (sign * (edge - from[k]), sign * along);
            if speed == 0.0 && away > 0.0 {
                return None;
            }
            match speed {
                speed if speed > 0.0 => first = first.max(away / speed),
                speed if speed < 0.0 => last = last.min(away / speed),
                _ => {}
            }
        }
    }
    let at = |share: f64| [0, 1].map(|k: usize| from[k] + share * (to[k] - from[k]));
    (first <= last).then(|| [at(first), at(last)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_cut_at_the_edges() {
        let bounds = [[0.0, 1.0], [0.0, 2.0]];
        let cut = |from, to| clipped([from, to], bounds);
        assert_eq!(cut([0.25, 0.5], [0.75, 1.5]), Some([[0.25, 0.5], [0.75, 1.5]]));
        assert_eq!(cut([-1.0, 1.0], [3.0, 1.0]), Some([[0.0, 1.0], [1.0, 1.0]]));
        assert_eq!(cut([0.5, 1.0], [0.5, 5.0]), Some([[0.5, 1.0], [0.5, 2.0]]));
        assert_eq!(cut([2.0, 0.0], [2.0, 1.0]), None);
        assert_eq!(cut([-1.0, 1.5], [0.5, 3.0]), None);
    }

    #[test]
    fn a_path_that_leaves_does_not_set_the_scale() {
        let tame: Vec<Weights> = vec![[4.0, 1.0], [2.0, 0.5], [0.0, 0.0]];
        let wild: Vec<Weights> = vec![[4.0, 1.0], [-5.0, 1.0], [1e6, 1e6]];
        let [xs, ys] = extents(&[&wild, &tame], 1, 1.5);
        assert!(xs[0] < -5.0 && xs[1] > 4.0 && xs[1] - xs[0] < 15.0, "{xs:?}");
        assert!(((xs[1] - xs[0]) / (ys[1] - ys[0]) - 1.5).abs() < 1e-9, "{ys:?}");
        assert!(ys[0] < 0.0 && ys[1] > 1.0);
    }
}
