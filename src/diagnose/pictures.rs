//! Pictures of sweeps, spectra and landscapes in SVG, and what all pictures have in common.

use super::hessian::Spectrum;
use super::landscape::{Landscape, Plane};
use super::lr_range::{SweepResult, SweepStep};
use crate::error::{Error, Result, number, printable};
use plotters::coord::Shift;
use plotters::prelude::*;

/// A part of a picture.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What drawing returns.
pub(super) type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Sizes in pixels: of the page, of the bar of colours with its labels, and of letters, which are about 4/5 of what is named here.
pub(super) const WIDTH: u32 = 900;
const HEIGHT: u32 = 560;
const SQUARE: u32 = 780;
const BAR: u32 = 120;
pub(super) const TEXT: u32 = 15;
const TITLE: u32 = 22;

/// Colours that colour-blind readers can tell apart (Okabe and Ito 2008, <https://jfly.uni-koeln.de/color/>).
pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(super) const VERMILION: RGBColor = RGBColor(213, 94, 0);
pub(super) const GREEN: RGBColor = RGBColor(0, 158, 115);
const GREY: RGBColor = RGBColor(170, 170, 170);

/// Five colours of viridis, from dark to light.
const SHADES: [[f64; 3]; 5] =
    [[68.0, 1.0, 84.0], [59.0, 82.0, 139.0], [33.0, 145.0, 140.0], [94.0, 201.0, 98.0], [253.0, 231.0, 37.0]];

/// Returns the colour of a share from 0 to 1.
fn shade(share: f64) -> RGBColor {
    let at = share.clamp(0.0, 1.0) * (SHADES.len() - 1) as f64;
    let index = (at as usize).min(SHADES.len() - 2);
    let mixed = |k: usize| SHADES[index][k] + (at - index as f64) * (SHADES[index + 1][k] - SHADES[index][k]);
    RGBColor(mixed(0) as u8, mixed(1) as u8, mixed(2) as u8)
}

/// Draws a picture of a size, in SVG.
///
/// # Errors
/// If it cannot be drawn.
pub(super) fn drawn(size: (u32, u32), draw: impl FnOnce(&Area) -> Drawn) -> Result<String> {
    let mut text = String::new();
    let page = SVGBackend::with_string(&mut text, size).into_drawing_area();
    let done = page.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&page)).and_then(|()| Ok(page.present()?));
    done.map_err(|error| Error::Run(format!("the picture cannot be drawn: {error}")))?;
    drop(page);
    Ok(text)
}

impl SweepResult {
    /// Draws the losses against the rates, the suggested range, and the rate of the configuration.
    ///
    /// # Errors
    /// If the picture cannot be drawn.
    pub fn svg(&self, name: &str, lr: f64) -> Result<String> {
        drawn((WIDTH, HEIGHT), |page| self.draw(page, name, lr))
    }

    fn draw(&self, page: &Area, name: &str, lr: f64) -> Drawn {
        let title = format!("{}: loss against a rising rate", printable(name));
        let area = page.titled(&title, ("sans-serif", TITLE))?;
        let rates = self.steps.iter().map(|step| step.lr);
        let (from, to) = rates.fold((f64::INFINITY, f64::MIN_POSITIVE), |(a, b), lr| (a.min(lr), b.max(lr)));
        let losses = self.steps.iter().flat_map(|step| [step.loss, step.smooth]);
        let (low, high) = losses.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), loss| (a.min(loss), b.max(loss)));
        if self.steps.is_empty() {
            return Ok(());
        }
        // Single losses may be far above the smooth ones at the end.
        let start = self.steps[0].loss;
        let high = high.min(low + 2.0 * (start - low).abs().max(1e-12));
        let room = 0.05 * (high - low).max(1e-12);
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(76)
            .build_cartesian_2d((from..to).log_scale(), low - room..high + room)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("learning rate")
            .y_desc("loss of the batch before its update")
            .label_style(("sans-serif", TEXT))
            .x_label_formatter(&|rate| format!("{rate:.0e}"))
            .y_label_formatter(&|loss| format!("{loss:.3}"))
            .draw()?;
        if let Some([first, last]) = self.suggested() {
            let corners = [(first.max(from), low - room), (last.min(to), high + room)];
            chart
                .draw_series([Rectangle::new(corners, GREEN.mix(0.2).filled())])?
                .label(format!("suggested, {first:.1e} to {last:.1e}"))
                .legend(|(x, y)| Rectangle::new([(x, y - 6), (x + 20, y + 6)], GREEN.mix(0.2).filled()));
        }
        let inside = |loss: f64| loss.min(high + room);
        let line = |of: fn(&SweepStep) -> f64| -> Vec<(f64, f64)> {
            self.steps.iter().map(|step| (step.lr, inside(of(step)))).collect()
        };
        chart
            .draw_series([PathElement::new(line(|step| step.loss), GREY.stroke_width(1))])?
            .label("loss")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], GREY.stroke_width(1)));
        chart
            .draw_series([PathElement::new(line(|step| step.smooth), BLUE.stroke_width(3))])?
            .label("smooth")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BLUE.stroke_width(3)));
        if (from..=to).contains(&lr) {
            let ends = [(lr, low - room), (lr, high + room)];
            chart
                .draw_series([PathElement::new(ends, VERMILION.stroke_width(2))])?
                .label(format!("optimizer.lr, {}", number(lr)))
                .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], VERMILION.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(GREY)
            .label_font(("sans-serif", TEXT))
            .draw()?;
        Ok(())
    }
}

/// The points of a density, and its deviation in units of the range of the eigenvalues (Ghorbani et al. 2019).
const DENSITY_POINTS: usize = 600;
const DEVIATION: f64 = 0.01;
/// The lowest density that is drawn, in units of the highest.
const LEAST_DENSITY: f64 = 1e-6;

impl Spectrum {
    /// Draws the density of the spectrum, its extreme eigenvalues, and above which of them plain gradient descent at a rate diverges.
    ///
    /// # Errors
    /// If the picture cannot be drawn.
    pub fn svg(&self, name: &str, lr: f64) -> Result<String> {
        drawn((WIDTH, HEIGHT), |page| self.draw(page, name, lr))
    }

    fn draw(&self, page: &Area, name: &str, lr: f64) -> Drawn {
        let title = format!("{}: density of the Hessian's spectrum", printable(name));
        let area = page.titled(&title, ("sans-serif", TITLE))?;
        let [least, most] = self.extremes().map(|one| one.value);
        let range = (most - least).max(1e-12 * most.abs()).max(f64::MIN_POSITIVE);
        let (from, to) = (least - 5.0 * DEVIATION * range, most + 5.0 * DEVIATION * range);
        let at = |i: usize| from + (to - from) * i as f64 / DENSITY_POINTS as f64;
        let all: Vec<(f64, f64)> =
            (0..=DENSITY_POINTS).map(|i| (at(i), self.density(at(i), DEVIATION * range))).collect();
        let high = all.iter().fold(0.0f64, |high, point| high.max(point.1));
        let low = LEAST_DENSITY * high;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(76)
            .build_cartesian_2d(from..to, (low..3.0 * high).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("eigenvalue")
            .y_desc("share of eigenvalues per unit")
            .label_style(("sans-serif", TEXT))
            .x_label_formatter(&|value| tick(*value))
            .y_label_formatter(&|density| format!("{density:.0e}"))
            .draw()?;
        let line = all.into_iter().map(|(x, y)| (x, y.max(low)));
        chart
            .draw_series([PathElement::new(line.collect::<Vec<_>>(), BLUE.stroke_width(3))])?
            .label(format!("density, each eigenvalue spread by {} % of the range", 100.0 * DEVIATION))
            .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BLUE.stroke_width(3)));
        let upright = |x: f64| [(x, low), (x, 3.0 * high)];
        chart
            .draw_series([least, most].map(|x| PathElement::new(upright(x), GREY.stroke_width(2))))?
            .label(format!("smallest and largest, {} and {}", tick(least), tick(most)))
            .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], GREY.stroke_width(2)));
        let limit = 2.0 / lr;
        if (from..=to).contains(&limit) {
            chart
                .draw_series([PathElement::new(upright(limit), VERMILION.stroke_width(2))])?
                .label(format!("2 / lr = {}, the limit of plain descent", tick(limit)))
                .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], VERMILION.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(GREY)
            .label_font(("sans-serif", TEXT))
            .draw()?;
        Ok(())
    }
}

/// The contour lines of a landscape.
const LINES: usize = 14;

impl Landscape {
    /// Draws the losses as colours and contour lines, on a logarithmic scale, and the path of a run.
    ///
    /// # Errors
    /// If the picture cannot be drawn.
    pub fn svg(&self, name: &str, plane: &Plane, labels: [&str; 2]) -> Result<String> {
        drawn((SQUARE + BAR, SQUARE), |page| self.draw(page, name, plane, labels))
    }

    fn draw(&self, page: &Area, name: &str, plane: &Plane, labels: [&str; 2]) -> Drawn {
        let area = page.titled(&format!("{}: the loss on a plane", printable(name)), ("sans-serif", TITLE))?;
        let (map, bar) = area.split_horizontally(SQUARE);
        let finite = || self.losses.iter().copied().filter(|loss| loss.is_finite());
        let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), loss| (a.min(loss), b.max(loss)));
        if low > high {
            return Ok(());
        }
        // Losses may be 0 or below; what is near the lowest one has the darkest colours.
        let base = (high - low).max(1e-12) * 1e-3;
        let share = |loss: f64| ((loss - low + base) / base).ln() / ((high - low + base) / base).ln();
        let loss_at = |share: f64| low - base + base * ((high - low + base) / base).powf(share);
        let [xs, ys] = &self.axes;
        let halves = [xs, ys].map(|axis| (axis[1] - axis[0]) / 2.0);
        let range = |axis: &[f64], half: f64| axis[0] - half..axis[axis.len() - 1] + half;
        let mut chart = ChartBuilder::on(&map)
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(76)
            .build_cartesian_2d(range(xs, halves[0]), range(ys, halves[1]))?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc(labels[0])
            .y_desc(labels[1])
            .label_style(("sans-serif", TEXT))
            .x_label_formatter(&|x| coordinate(*x))
            .y_label_formatter(&|y| coordinate(*y))
            .draw()?;
        let cells = ys.iter().enumerate().flat_map(|(j, &y)| xs.iter().enumerate().map(move |(i, &x)| (i, j, x, y)));
        chart.draw_series(cells.map(|(i, j, x, y)| {
            let loss = self.losses[j * xs.len() + i];
            let colour = if loss.is_finite() { shade(share(loss)) } else { GREY };
            Rectangle::new([(x - halves[0], y - halves[1]), (x + halves[0], y + halves[1])], colour.filled())
        }))?;
        for line in 1..LINES {
            let level = loss_at(line as f64 / LINES as f64);
            let segments = self.contour(level).into_iter();
            let ends = segments.map(|ends| ends.map(|[x, y]| (x, y)).to_vec());
            chart.draw_series(ends.map(|ends| PathElement::new(ends, WHITE.mix(0.7).stroke_width(1))))?;
        }
        let path: Vec<(f64, f64)> = plane.path.iter().map(|&[x, y]| (x, y)).collect();
        if let Some(&last) = path.last() {
            chart.draw_series([PathElement::new(path.clone(), WHITE.stroke_width(5))])?;
            chart.draw_series([PathElement::new(path.clone(), VERMILION.stroke_width(3))])?;
            let size = if path.len() > 50 { 2 } else { 4 };
            chart.draw_series(path.iter().map(|&at| Circle::new(at, size, VERMILION.filled())))?;
            chart.draw_series([Circle::new(last, 8, WHITE.filled()), Circle::new(last, 6, VERMILION.filled())])?;
        } else {
            let [x, y] = plane.origin;
            chart.draw_series([Circle::new((x, y), 6, VERMILION.filled())])?;
        }
        // The bar of colours, with the losses of some of them.
        let (top, bottom) = (40, SQUARE as i32 - TITLE as i32 - 70);
        let steps = 60;
        let at = |share: f64| bottom + ((top - bottom) as f64 * share).round() as i32;
        for step in 0..steps {
            let [from, to] = [step, step + 1].map(|step| at(f64::from(step) / f64::from(steps)));
            bar.draw(&Rectangle::new(
                [(8, from), (28, to)],
                shade((f64::from(step) + 0.5) / f64::from(steps)).filled(),
            ))?;
        }
        for mark in 0..=6 {
            let share = f64::from(mark) / 6.0;
            bar.draw(&Text::new(tick(loss_at(share)), (34, at(share) - 6), ("sans-serif", TEXT)))?;
        }
        bar.draw(&Text::new("loss", (8, top - 26), ("sans-serif", TEXT)))?;
        Ok(())
    }
}

/// Formats a loss or an eigenvalue beside a scale.
fn tick(loss: f64) -> String {
    if loss == 0.0 || (1e-2..1e4).contains(&loss.abs()) { format!("{loss:.3}") } else { format!("{loss:.2e}") }
}

/// Formats a coordinate of a plane, without what rounding left of a multiple.
fn coordinate(at: f64) -> String {
    number(f64::from((1e6 * at).round() as f32) / 1e6 + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_have_no_sign_of_zero_and_no_rounding() {
        let texts = [-1e-17, -0.0, 0.1 + 0.2, -0.8, 2.5].map(coordinate);
        assert_eq!(texts, ["0", "0", "0.3", "-0.8", "2.5"]);
    }

    #[test]
    fn shades_go_from_dark_to_light() {
        let light = |share| {
            let RGBColor(r, g, b) = shade(share);
            0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b)
        };
        let all: Vec<f64> = (0..=20).map(|i| light(f64::from(i) / 20.0)).collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
        assert_eq!(shade(2.0), shade(1.0));
    }
}
