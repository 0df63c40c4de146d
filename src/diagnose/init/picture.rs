//! A picture of a report in SVG: the standard deviations of all layers, then the histograms of each, outputs above gradients.

use super::report::{InitReport, LayerReport};
use super::values::ValueSummary;
use crate::diagnose::pictures::{Area, BLUE, Drawn, TEXT, VERMILION, WIDTH, drawn};
use crate::error::{Result, number, printable, quantity};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use std::ops::Range;

/// Sizes in pixels: of the chart on top of the page and its key, of the histograms of a layer, and of titles.
const OVERVIEW: u32 = 320;
const KEY: u32 = 24;
const LAYER: u32 = 300;
const TITLE: u32 = 18;
/// The number of layers in a row.
const COLUMNS: usize = 4;
/// The number of letters of a name that fit above its histograms.
const MOST_LETTERS: usize = 26;

/// An axis with given ticks.
struct Marked {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Ranged for Marked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let share = (value - self.low) / (self.high - self.low);
        start + (share * f64::from(end - start)).round() as i32
    }
    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }
    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

/// Draws a report.
///
/// # Errors
/// If the picture cannot be drawn.
pub fn svg(report: &InitReport) -> Result<String> {
    let rows = report.layers.len().div_ceil(COLUMNS);
    drawn((WIDTH, OVERVIEW + rows as u32 * LAYER), |page| draw(report, page, rows))
}

fn draw(report: &InitReport, page: &Area, rows: usize) -> Drawn {
    let (top, rest) = page.split_vertically(OVERVIEW);
    overview(report, &top)?;
    let panels = rest.split_evenly((rows, COLUMNS));
    for ((index, layer), panel) in report.layers.iter().enumerate().zip(panels) {
        let name: String = printable(&layer.name).chars().take(MOST_LETTERS).collect();
        let panel = panel.titled(&format!("{}. {name}", index + 1), ("sans-serif", TITLE))?;
        let (above, below) = panel.split_vertically((LAYER - TITLE) / 2);
        histogram(&above, &layer.activations.values, "output", BLUE)?;
        histogram(&below, &layer.gradients, "gradient", VERMILION)?;
    }
    Ok(())
}

/// Draws the standard deviations of outputs and gradients against the number of the layer.
fn overview(report: &InitReport, area: &Area) -> Drawn {
    let InitReport { network, seed, samples, layers, .. } = report;
    let stds = |of: fn(&LayerReport) -> f64| -> Vec<(f64, f64)> {
        // There is no place for 0 on a logarithmic axis.
        let points = layers.iter().enumerate().map(|(index, layer)| ((index + 1) as f64, of(layer)));
        points.filter(|(_, std)| *std > 0.0).collect()
    };
    let outputs = stds(|layer| layer.activations.values.std);
    let gradients = stds(|layer| layer.gradients.std);
    let all = || outputs.iter().chain(&gradients).map(|(_, std)| *std);
    let (low, high) = match all().next() {
        Some(first) => (all().fold(first, f64::min) / 2.0, all().fold(first, f64::max) * 2.0),
        None => (0.1, 10.0),
    };
    let samples = quantity(*samples as u64, "sample");
    let title = format!("{}: initial values, {samples}, seed {seed}", printable(network));
    let (key, area) = area.titled(&title, ("sans-serif", TITLE + 4))?.split_vertically(KEY);
    let (middle, first, second) = (KEY as i32 / 2, 300, 420);
    key.draw(&Circle::new((first, middle), 4, BLUE.filled()))?;
    key.draw(&TriangleMarker::new((second, middle), 6, VERMILION.filled()))?;
    for (x, text) in [(first, "outputs"), (second, "gradients of the loss")] {
        key.draw(&Text::new(text, (x + 10, middle - 6), ("sans-serif", TEXT)))?;
    }
    let mut chart = ChartBuilder::on(&area)
        .margin(8)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(0.5..layers.len() as f64 + 0.5, (low..high).log_scale())?;
    let whole = |x: &f64| if x.fract() == 0.0 { x.to_string() } else { String::new() };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(layers.len().min(20))
        .y_labels(8)
        .x_desc("layer, numbered as below")
        .y_desc("standard deviation")
        .label_style(("sans-serif", TEXT))
        .x_label_formatter(&whole)
        .y_label_formatter(&|std| format!("{std:.0e}"))
        .draw()?;
    let line = |points: &[(f64, f64)], colour: RGBColor| PathElement::new(points.to_vec(), colour.stroke_width(2));
    chart.draw_series([line(&outputs, BLUE), line(&gradients, VERMILION)])?;
    chart.draw_series(outputs.iter().map(|&point| Circle::new(point, 4, BLUE.filled())))?;
    chart.draw_series(gradients.iter().map(|&point| TriangleMarker::new(point, 6, VERMILION.filled())))?;
    Ok(())
}

/// Draws the histogram of some values.
fn histogram(area: &Area, values: &ValueSummary, what: &str, colour: RGBColor) -> Drawn {
    let (edges, counts) = (&values.histogram.edges, &values.histogram.counts);
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let highest = counts.iter().copied().max().unwrap_or(0) as f64 / total;
    // Values that are all the same are a bar in the middle.
    let beside = if counts.len() == 1 { values.max.abs().max(f64::MIN_POSITIVE) } else { 0.0 };
    let (low, high) = (values.min - beside, values.max + beside);
    let mut ticks = vec![values.min, values.max];
    ticks.dedup();
    // Zero has a label where there is room for one.
    if (0.25..0.75).contains(&(-low / (high - low))) && !ticks.contains(&0.0) {
        ticks.insert(1, 0.0);
    }
    let mut chart = ChartBuilder::on(area)
        .margin_right(28)
        .margin_left(4)
        .x_label_area_size(42)
        .y_label_area_size(54)
        .build_cartesian_2d(Marked { low, high, ticks }, 0.0..1.05 * highest)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .y_labels(3)
        .x_desc(what)
        .y_desc("share")
        .label_style(("sans-serif", TEXT))
        .x_label_formatter(&|x| tick(*x))
        .y_label_formatter(&|share| format!("{} %", tick(100.0 * share)))
        .draw()?;
    let bars = edges.windows(2).zip(counts).map(|(edges, &count)| {
        let corners = [(edges[0] - beside / 20.0, 0.0), (edges[1] + beside / 20.0, count as f64 / total)];
        Rectangle::new(corners, colour.filled())
    });
    chart.draw_series(bars)?;
    Ok(())
}

/// Formats a number beside an axis, with two digits.
fn tick(x: f64) -> String {
    let rounded = format!("{x:.1e}");
    match rounded.parse() {
        Ok(x) if x == 0.0 || (1e-2..1e4).contains(&f64::abs(x)) => number(x),
        _ => rounded,
    }
}
