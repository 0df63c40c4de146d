//! Signs that training goes wrong, each as a plain sentence.
//!
//! | sign | what is seen |
//! | --- | --- |
//! | vanishing | the gradient of a layer, relative to its weights, is below 1e-4 of that of another layer, at two watched updates in a row, while the loss is above half of what it was at the start |
//! | exploding | the gradient is 100 times as large as the weights at two watched updates in a row, or as the median of the watched updates before |
//! | plateau | over five intervals, the mean loss falls by less than 1 %, and is within 5 % of what it was at the start, or above half of that with gradients below 1 % of the largest |
//! | cliff | a gradient that is clipped by its global norm is 10 times as large as the median of the last 50 |
//! | oscillation | the cosine between successive updates is below -0.7 at two watched updates in a row |
//! | rate too high | an update changes a layer's weights by more than a tenth of their norm at two watched updates in a row, or by all of it at one |

use super::sums::Sums;
use crate::error::number;
use crate::optim::Clipping;
use std::collections::VecDeque;

/// An update that is always watched: the first one of which there is a cosine.
pub(super) const EARLY: u64 = 2;
/// Of two relative gradients, the largest usual ratio.
const VANISHING: f64 = 1e-4;
/// How many times the usual size, or that of the weights, gradients that explode have.
const EXPLODING: f64 = 100.0;
/// How many times the usual size a gradient at a cliff has.
const CLIFF: f64 = 10.0;
/// The norms of which the median is the usual size.
const USUAL: usize = 50;
/// The cosine between successive updates of weights that oscillate.
const OSCILLATING: f64 = -0.7;
/// The largest usual ratios of update and weights at two watched updates in a row, and at one.
const RATIOS: [f64; 2] = [0.1, 1.0];
/// The intervals over which the loss is compared.
const INTERVALS: usize = 5;
/// The part by which it falls at least.
const FALLS: f64 = 0.01;
/// The updates of which the mean loss is that of the start.
const START: u64 = 10;

/// An update that was watched.
#[derive(Debug)]
pub(super) struct Update<'a> {
    /// The learning rate.
    pub lr: f64,
    /// The sums over all weights.
    pub all: Sums,
    /// The layers with weights other than biases, in the order of the network.
    pub layers: Vec<(&'a str, Sums)>,
}

/// A mean.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        (self.sum, self.count) = (self.sum + value, self.count + 1);
    }
    fn value(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

/// A sign that lasts: it is reported once until it has ceased.
#[derive(Debug, Clone, Copy, Default)]
struct Lasting {
    /// The watched updates in a row that have it.
    row: u32,
    reported: bool,
}

impl Lasting {
    /// Takes notice of whether a watched update has the sign. Returns whether it is reported: after `required` in a row.
    fn is_new(&mut self, has: bool, required: u32) -> bool {
        self.row = if has { self.row + 1 } else { 0 };
        self.reported &= has;
        let new = self.row >= required && !self.reported;
        self.reported |= new;
        new
    }
}

/// The signs of a run so far.
#[derive(Debug, Default)]
pub(super) struct Signs {
    clipping: Option<Clipping>,
    /// The last norms by which gradients were clipped.
    norms: VecDeque<f64>,
    /// The loss of the first updates.
    start: Mean,
    /// The loss since the last watched update.
    interval: Mean,
    /// The mean losses of the last intervals.
    intervals: VecDeque<f64>,
    /// The norms of the gradients of the watched updates.
    gradients: Vec<f64>,
    vanishing: Lasting,
    exploding: Lasting,
    plateau: Lasting,
    cliff: Lasting,
    oscillating: Lasting,
    rate: Lasting,
}

impl Signs {
    pub fn new(clipping: Option<Clipping>) -> Self {
        Signs { clipping, ..Signs::default() }
    }

    /// Takes notice of an update, of its loss, and of the norm by which its gradients were clipped.
    pub fn after_step(&mut self, step: u64, loss: f64, norm: Option<f64>) -> Option<String> {
        if self.start.count < START {
            self.start.add(loss);
        }
        self.interval.add(loss);
        let (norm, clipping) = norm.filter(|norm| norm.is_finite()).zip(self.clipping)?;
        let usual = median(self.norms.iter().copied());
        self.norms.push_back(norm);
        if self.norms.len() > USUAL {
            self.norms.pop_front();
        }
        let times = norm / usual?;
        let met = self.norms.len() > USUAL / 5 && times > CLIFF && norm > clipping.max_norm;
        self.cliff.is_new(met, 1).then(|| {
            format!(
                "step {step}: a cliff: the norm of the gradients is {}, {times:.0} times the usual; clip_by_global_norm cut it to {}",
                number(rounded(norm)),
                number(clipping.max_norm)
            )
        })
    }

    /// Takes notice of an update that was watched, and returns what is wrong.
    pub fn after_watch(&mut self, step: u64, update: &Update) -> Vec<String> {
        let interval = self.interval.value();
        let early = step == EARLY;
        if !early {
            self.interval = Mean::default();
            self.intervals.push_back(interval);
            if self.intervals.len() > INTERVALS {
                self.intervals.pop_front();
            }
        }
        let gradient = update.all.gradient.sqrt();
        let mut found = Vec::new();
        found.extend(self.vanishing(update, interval));
        found.extend(self.exploding(update, gradient));
        found.extend(self.plateau(interval, gradient));
        found.extend(self.oscillation(update));
        found.extend(self.too_high_rate(update, early));
        if gradient.is_finite() {
            self.gradients.push(gradient);
        }
        found.into_iter().map(|text| format!("step {step}: {text}")).collect()
    }

    fn vanishing(&mut self, update: &Update, loss: f64) -> Option<String> {
        let relative = |(name, sums): &(_, Sums)| Some((*name, relative_gradient(sums)?));
        let layers = || update.layers.iter().filter_map(relative);
        let (least, most) = (layers().min_by(|a, b| a.1.total_cmp(&b.1)), layers().max_by(|a, b| a.1.total_cmp(&b.1)));
        let ((name, least), (other, most)) = least.zip(most).unwrap_or((("", 0.0), ("", 0.0)));
        let has = least < VANISHING * most && loss > 0.5 * self.start.value();
        self.vanishing.is_new(has, 2).then(|| {
            format!(
                "gradients vanish: that of layer \"{name}\" is {least:.1e} of its weights, that of \"{other}\" {most:.1e}, and the loss is \
                 still {loss:.4}; try init = \"kaiming\" or \"xavier\", batch_norm, or a lower rate if units died"
            )
        })
    }

    fn exploding(&mut self, update: &Update, gradient: f64) -> Option<String> {
        let times = gradient / update.all.weights.sqrt();
        let usual = median(self.gradients.iter().copied()).filter(|_| self.gradients.len() > 1);
        let grown = usual.filter(|&usual| usual > 0.0).map_or(0.0, |usual| gradient / usual);
        let large = update.all.weights > 0.0 && times > EXPLODING;
        let new = self.exploding.is_new(large || grown > EXPLODING, if grown > EXPLODING { 1 } else { 2 });
        let than = match grown > EXPLODING {
            true => format!("{grown:.0} times the usual"),
            false => format!("{times:.0} times that of the weights"),
        };
        new.then(|| {
            format!(
                "gradients explode: their norm is {}, {than}; use smaller initial values, or put {{ clip_by_global_norm = 1.0 }} first \
                 in the chain",
                number(rounded(gradient))
            )
        })
    }

    fn plateau(&mut self, loss: f64, gradient: f64) -> Option<String> {
        let (start, all) = (self.start.value(), &self.intervals);
        let full = all.len() == INTERVALS;
        let falls = all.iter().take(2).sum::<f64>() - all.iter().rev().take(2).sum::<f64>();
        let flat = full && falls < 2.0 * FALLS * loss && falls > -2.0 * FALLS * loss;
        let largest = self.gradients.iter().copied().fold(0.0, f64::max);
        let stays = loss > 0.95 * start || loss > 0.5 * start && gradient < 0.01 * largest;
        self.plateau.is_new(flat && stays, 1).then(|| {
            format!(
                "the loss is on a plateau: it is {loss:.4}, after {start:.4} at the start, and did not fall by 1 % in the last {INTERVALS} \
                 intervals; try another rate, momentum or adam, or other initial values"
            )
        })
    }

    fn oscillation(&mut self, update: &Update) -> Option<String> {
        // The last bits of weights that have converged say nothing.
        let cosine = update.all.cosine().filter(|_| update.all.update_ratio().is_some_and(|ratio| ratio > 1e-6));
        let has = cosine.is_some_and(|cosine| cosine < OSCILLATING);
        self.oscillating.is_new(has, 2).then(|| {
            format!(
                "weights oscillate: the cosine between successive updates is {:.2}; lower lr (now {}), or use momentum",
                cosine.unwrap_or_default(),
                number(update.lr)
            )
        })
    }

    fn too_high_rate(&mut self, update: &Update, early: bool) -> Option<String> {
        let ratios = update.layers.iter().filter_map(|(name, sums)| Some((*name, sums.update_ratio()?)));
        let (name, ratio) = ratios.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("", 0.0));
        let required = if ratio > RATIOS[1] { 1 } else { 2 };
        // Small initial values may change much at first.
        let has = ratio > RATIOS[usize::from(early)];
        self.rate.is_new(has, required).then(|| {
            format!(
                "the learning rate is too high: one update changes the weights of layer \"{name}\" by {:.0} % of their norm; lower lr (now {})",
                100.0 * ratio,
                number(update.lr)
            )
        })
    }
}

/// Returns |g| / |w| of a layer whose weights are not all 0.
fn relative_gradient(sums: &Sums) -> Option<f64> {
    (sums.weights > 0.0 && sums.gradient.is_finite()).then(|| (sums.gradient / sums.weights).sqrt())
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut all: Vec<f64> = values.collect();
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

/// Returns a number with three significant digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}
