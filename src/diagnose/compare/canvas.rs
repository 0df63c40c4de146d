//! What the pictures of experiments have in common: a title, a legend above the chart, axes, and lines that differ in colour and dashes.

use crate::diagnose::pictures::{Area, BLUE, Drawn, GREEN, VERMILION};
use crate::error::printable;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Sizes in pixels: of the page, of its margins beside the chart, and of letters, which are about 4/5 of what is named here.
pub const WIDTH: u32 = 720;
/// The height of the page.
pub const HEIGHT: u32 = 480;
const LEFT: i32 = 84;
const RIGHT: i32 = 20;
const BOTTOM: i32 = 56;
const TEXT: u32 = 15;
const TITLE: u32 = 19;
/// The heights of a line of the title and of the legend.
const TITLE_LINE: i32 = 21;
const LEGEND_LINE: i32 = 19;
/// The pixels of a letter of the title and of other text, about, and of the line before a name in the legend.
const TITLE_LETTER: f64 = 7.7;
const LETTER: f64 = 7.4;
const SAMPLE: i32 = 34;

/// Colours that colour-blind readers can tell apart, with those of all pictures (Okabe and Ito 2008).
const COLOURS: [RGBColor; 7] =
    [BLUE, VERMILION, GREEN, RGBColor(204, 121, 167), BLACK, RGBColor(230, 159, 0), RGBColor(86, 180, 233)];
/// Lengths of dashes and gaps in pixels.
const DASHES: [&[f64]; 4] = [&[], &[9.0, 4.0], &[2.5, 3.5], &[12.0, 4.0, 2.5, 4.0]];
const FRAME: RGBColor = RGBColor(90, 90, 90);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Returns the colour of a line.
pub fn colour(line: usize) -> RGBColor {
    COLOURS[line % COLOURS.len()]
}

/// A pixel of the page.
type Pixel = (i32, i32);
/// A point of the page.
pub type At = (f64, f64);

/// An axis with its label and ticks.
#[derive(Debug, Clone, PartialEq)]
pub struct ChartAxis {
    /// What it shows.
    pub label: String,
    /// The first value.
    pub low: f64,
    /// The last value.
    pub high: f64,
    /// Whether it is logarithmic.
    pub log: bool,
}

impl ChartAxis {
    /// Returns where a value is, from 0 to 1; values beyond the ends are at the ends.
    pub fn share(&self, value: f64) -> f64 {
        let on_scale = |x: f64| if self.log { x.max(f64::MIN_POSITIVE).ln() } else { x };
        let [low, high] = [self.low, self.high].map(on_scale);
        ((on_scale(value) - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// Returns about `most` values with labels.
    fn ticks(&self, most: usize) -> Vec<f64> {
        if self.log {
            let decades = (self.low.log10().ceil() as i32, self.high.log10().floor() as i32);
            let every = ((decades.1 - decades.0).max(0) as usize / most + 1) as i32;
            let ticks: Vec<f64> =
                (decades.0..=decades.1).filter(|k| k.rem_euclid(every) == 0).map(|k| 10f64.powi(k)).collect();
            if ticks.len() > 1 {
                return ticks;
            }
        }
        let rough = (self.high - self.low) / most as f64;
        let unit = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|k| k * unit).find(|step| *step >= rough).unwrap_or(rough);
        let (first, last) = ((self.low / step - 1e-9).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
        // Multiples of a tenth are divided, so that they are the nearest numbers.
        (first..=last).map(|k| if step < 1.0 { k as f64 / (1.0 / step).round() } else { k as f64 * step }).collect()
    }
}

/// Formats a number beside an axis.
fn tick(x: f64) -> String {
    if x == 0.0 || (1e-3..1e6).contains(&x.abs()) {
        let text = format!("{x:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        format!("{x:e}")
    }
}

/// A page with a title, a legend and an empty chart.
pub struct Canvas<'a, 'b> {
    page: &'a Area<'b>,
    x: ChartAxis,
    y: ChartAxis,
    /// The corners of the chart.
    corners: [Pixel; 2],
}

/// Breaks a text into lines of at most so many letters, unless a word is longer.
pub fn wrapped(text: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= letters) {
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_string()),
        }
    }
    lines
}

fn write(page: &Area, text: &str, at: (i32, i32), size: u32, anchor: Pos) -> Drawn {
    let style = ("sans-serif", size).into_font().color(&BLACK).pos(anchor);
    page.draw(&Text::new(printable(text), at, style))?;
    Ok(())
}

/// Returns the places of the names of a legend, in rows below `top`, and the end of the last row.
fn legend_places(names: &[String], top: i32) -> (Vec<Pixel>, i32) {
    let (mut x, mut y, mut places) = (LEFT, top, Vec::new());
    for name in names {
        let width = SAMPLE + 6 + (name.chars().count() as f64 * LETTER) as i32 + 18;
        if x > LEFT && x + width > WIDTH as i32 {
            (x, y) = (LEFT, y + LEGEND_LINE);
        }
        places.push((x, y + LEGEND_LINE / 2));
        x += width;
    }
    (places, if names.is_empty() { top } else { y + LEGEND_LINE })
}

/// Returns the corners of the chart, and the places of the legend, below a title.
fn layout(title: &[String], names: &[String]) -> ([Pixel; 2], Vec<Pixel>) {
    let below_title = 10 + title.len() as i32 * TITLE_LINE + 2;
    let (places, bottom) = legend_places(names, below_title);
    let lowest = HEIGHT as i32 - BOTTOM;
    ([(LEFT, (bottom + 8).min(lowest - 100)), (WIDTH as i32 - RIGHT, lowest)], places)
}

fn title_lines(title: &str) -> Vec<String> {
    wrapped(title, (f64::from(WIDTH - 60) / TITLE_LETTER) as usize)
}

/// Returns the width of the chart divided by its height.
pub fn aspect(title: &str, names: &[String]) -> f64 {
    let ([(left, top), (right, bottom)], _) = layout(&title_lines(title), names);
    f64::from(right - left) / f64::from(bottom - top)
}

impl<'a, 'b> Canvas<'a, 'b> {
    /// Draws all but the lines. `sample` draws the line of a name in the legend, from one point to another.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn new(
        page: &'a Area<'b>,
        title: &str,
        names: &[String],
        [x, y]: [ChartAxis; 2],
        sample: impl Fn(&Canvas, usize, [At; 2]) -> Drawn,
    ) -> std::result::Result<Self, Box<dyn std::error::Error>> {
        let title = title_lines(title);
        let (corners, places) = layout(&title, names);
        let canvas = Canvas { page, x, y, corners };
        for (line, number) in title.iter().zip(0..) {
            let at = (WIDTH as i32 / 2, 10 + number * TITLE_LINE);
            write(page, line, at, TITLE, Pos::new(HPos::Center, VPos::Top))?;
        }
        for (index, (&(x, y), name)) in places.iter().zip(names).enumerate() {
            let at = |x: i32| (f64::from(x), f64::from(y));
            sample(&canvas, index, [at(x), at(x + SAMPLE)])?;
            write(page, name, (x + SAMPLE + 6, y), TEXT, Pos::new(HPos::Left, VPos::Center))?;
        }
        canvas.draw_axes()?;
        Ok(canvas)
    }

    fn draw_axes(&self) -> Drawn {
        let [(left, top), (right, bottom)] = self.corners;
        for value in self.x.ticks(8) {
            let x = self.place(value, self.y.low).0.round() as i32;
            self.page.draw(&PathElement::new([(x, top), (x, bottom)], GRID))?;
            write(self.page, &tick(value), (x, bottom + 5), TEXT, Pos::new(HPos::Center, VPos::Top))?;
        }
        for value in self.y.ticks(7) {
            let y = self.place(self.x.low, value).1.round() as i32;
            self.page.draw(&PathElement::new([(left, y), (right, y)], GRID))?;
            write(self.page, &tick(value), (left - 6, y), TEXT, Pos::new(HPos::Right, VPos::Center))?;
        }
        self.page.draw(&Rectangle::new(self.corners, FRAME))?;
        let middle = i32::midpoint(left, right);
        let lowest = HEIGHT as i32 - 8;
        write(self.page, &self.x.label, (middle, lowest), TEXT + 1, Pos::new(HPos::Center, VPos::Bottom))?;
        let style = ("sans-serif", TEXT + 1).into_font().transform(FontTransform::Rotate270).color(&BLACK);
        let style = style.pos(Pos::new(HPos::Center, VPos::Top));
        self.page.draw(&Text::new(printable(&self.y.label), (12, i32::midpoint(top, bottom)), style))?;
        Ok(())
    }

    /// Returns whether a value is not above the vertical axis.
    pub fn shows(&self, y: f64) -> bool {
        y <= self.y.high
    }

    /// Returns where values are on the page; those beyond the axes are on the edge.
    pub fn place(&self, x: f64, y: f64) -> At {
        let [(left, top), (right, bottom)] = self.corners.map(|(x, y)| (f64::from(x), f64::from(y)));
        (left + self.x.share(x) * (right - left), bottom - self.y.share(y) * (bottom - top))
    }

    /// Draws the line of a number through points, in its colour and dashes.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn line(&self, number: usize, points: &[At]) -> Drawn {
        for piece in dashed(points, DASHES[number % DASHES.len()]) {
            self.solid(&piece, colour(number).stroke_width(2))?;
        }
        Ok(())
    }

    /// Draws a line.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn solid(&self, points: &[At], style: ShapeStyle) -> Drawn {
        let points: Vec<(i32, i32)> = points.iter().map(whole).collect();
        self.page.draw(&PathElement::new(points, style))?;
        Ok(())
    }

    /// Fills an area with the light colour of a line.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn area(&self, number: usize, points: &[At]) -> Drawn {
        let points: Vec<(i32, i32)> = points.iter().map(whole).collect();
        self.page.draw(&Polygon::new(points, colour(number).mix(0.2)))?;
        Ok(())
    }

    /// Draws the mark of a line at a point.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn mark(&self, number: usize, at: At) -> Drawn {
        let ((x, y), style) = (whole(&at), colour(number).filled());
        match number % 4 {
            0 => self.page.draw(&Circle::new((x, y), 3, style))?,
            1 => self.page.draw(&TriangleMarker::new((x, y), 5, style))?,
            2 => self.page.draw(&Rectangle::new([(x - 3, y - 3), (x + 3, y + 3)], style))?,
            _ => self.page.draw(&Cross::new((x, y), 4, colour(number).stroke_width(2)))?,
        }
        Ok(())
    }

    /// Draws a ring around a point.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn ring(&self, at: At) -> Drawn {
        self.page.draw(&Circle::new(whole(&at), 6, BLACK.stroke_width(2)))?;
        Ok(())
    }
}

fn whole(&(x, y): &At) -> (i32, i32) {
    (x.round() as i32, y.round() as i32)
}

/// Divides a line into dashes.
fn dashed(points: &[At], pattern: &[f64]) -> Vec<Vec<At>> {
    if pattern.is_empty() {
        return vec![points.to_vec()];
    }
    let (mut pieces, mut phase, mut left) = (Vec::new(), 0, pattern[0]);
    let mut piece: Vec<At> = points.first().copied().into_iter().collect();
    for ends in points.windows(2) {
        let (mut from, to) = (ends[0], ends[1]);
        loop {
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            if length <= left {
                left -= length;
                break;
            }
            let share = left / length;
            from = (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1));
            if phase % 2 == 0 {
                piece.push(from);
                pieces.push(std::mem::take(&mut piece));
            } else {
                piece = vec![from];
            }
            phase = (phase + 1) % pattern.len();
            left = pattern[phase];
        }
        if phase % 2 == 0 {
            piece.push(to);
        }
    }
    if phase % 2 == 0 && piece.len() > 1 {
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(low: f64, high: f64, log: bool) -> ChartAxis {
        ChartAxis { label: String::new(), low, high, log }
    }

    #[test]
    fn ticks_are_round_numbers() {
        let labels = |axis: ChartAxis, most| axis.ticks(most).into_iter().map(tick).collect::<Vec<_>>().join(" ");
        assert_eq!(labels(axis(0.0, 1.0, false), 5), "0 0.2 0.4 0.6 0.8 1");
        assert_eq!(labels(axis(-3.0, 200.0, false), 5), "0 50 100 150 200");
        assert_eq!(labels(axis(1e-9, 2.0, true), 5), "1e-8 1e-6 1e-4 0.01 1");
        assert_eq!(labels(axis(0.5, 5.0, true), 5), "1 2 3 4 5");
    }

    #[test]
    fn zero_and_infinity_are_at_the_ends_of_a_logarithmic_axis() {
        let axis = axis(1e-4, 1.0, true);
        assert_eq!([axis.share(0.0), axis.share(f64::INFINITY), axis.share(-1.0)], [0.0, 1.0, 0.0]);
        assert!((axis.share(0.01) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn dashes_go_around_corners() {
        let pieces = dashed(&[(0.0, 0.0), (3.0, 0.0), (3.0, 7.0)], &[5.0, 2.0]);
        assert_eq!(pieces, [vec![(0.0, 0.0), (3.0, 0.0), (3.0, 2.0)], vec![(3.0, 4.0), (3.0, 7.0)]]);
        assert_eq!(dashed(&[(0.0, 0.0), (1.0, 1.0)], &[]).len(), 1);
    }

    #[test]
    fn long_titles_have_lines() {
        assert_eq!(wrapped("one two  three fourteen", 9), ["one two", "three", "fourteen"]);
    }
}
