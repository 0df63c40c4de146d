//! An experiment: what is trained, what is drawn, and what is expected.

use super::quantity::{MeasuredSet, Moment, Quantity, find_metric};
use crate::data::EpochPlan;
use crate::layers::MetricKind;
use std::path::PathBuf;

/// An experiment whose file has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// The name of the file without its extension.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What it shows, in one sentence.
    pub claim: Option<String>,
    /// The seeds with which each variant is trained.
    pub seeds: Vec<u64>,
    /// What is trained, in the order of the file.
    pub variants: Vec<ExperimentVariant>,
    /// The indices of the variants, each after those whose weights it starts from.
    pub order: Vec<usize>,
    /// What is drawn.
    pub pictures: Vec<Picture>,
    /// What must hold.
    pub expectations: Vec<Expectation>,
    /// Notes on the configurations.
    pub notes: Vec<String>,
}

/// A configuration with overrides.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentVariant {
    /// Its name, as in the legend.
    pub name: String,
    /// Its place in the file.
    pub location: String,
    /// The configuration.
    pub config: PathBuf,
    /// The overrides, as of `--set`; `{NAME}` in them is a run directory.
    pub sets: Vec<String>,
    /// The indices of the variants whose run directories the overrides name.
    pub needs: Vec<usize>,
    /// What its runs will be like.
    pub outline: Outline,
}

/// What is known of the runs of a variant before they are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// The number of updates.
    pub steps: u64,
    /// The epochs of the training set.
    pub epoch: EpochPlan,
    /// The loss and the other metrics of the network.
    pub metrics: Vec<(String, MetricKind)>,
    /// The sets on which it is evaluated.
    pub evaluates: Vec<MeasuredSet>,
    /// The number of weights.
    pub weights: usize,
}

impl ExperimentVariant {
    /// Returns whether its runs have a quantity.
    pub fn has(&self, of: &Quantity) -> bool {
        let measures = |metric| find_metric(metric, &self.outline.metrics).is_some();
        let evaluates = |set| self.outline.evaluates.contains(&set);
        of.metric().is_none_or(measures) && of.evaluated_set().is_none_or(evaluates)
    }
}

/// The horizontal axis of curves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Horizontal {
    /// Updates done.
    Updates,
    /// Epochs done.
    Epochs,
    /// Training samples used.
    Samples,
}

/// A picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Picture {
    /// A line for each variant, the median over the seeds, in a band from the lowest to the highest.
    Curves {
        /// The horizontal axis.
        x: Horizontal,
        /// What is drawn.
        y: Quantity,
        /// Whether the vertical axis is logarithmic.
        log: bool,
        /// The indices of the variants.
        variants: Vec<usize>,
        /// Of how many updates each point is the mean; by default as many as make about 100 points.
        smooth: Option<u64>,
    },
    /// The paths of two weights over the contours of the loss, of the first seed.
    Path {
        /// The indices of the variants; the contours are those of the first.
        variants: Vec<usize>,
    },
}

impl Picture {
    /// Returns what is on its vertical axis, if it shows curves.
    pub fn quantity(&self) -> Option<&Quantity> {
        match self {
            Picture::Curves { y, .. } => Some(y),
            Picture::Path { .. } => None,
        }
    }

    /// Returns its name, without its number.
    pub fn kind(&self) -> &'static str {
        match self {
            Picture::Curves { .. } => "curves",
            Picture::Path { .. } => "path",
        }
    }
}

/// What must hold of the medians over the seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// The quantity.
    pub of: Quantity,
    /// When it is read.
    pub at: Moment,
    /// How the values compare.
    pub holds: Condition,
}

/// How values compare.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Those of these variants rise.
    Ascending {
        /// The indices of the variants.
        variants: Vec<usize>,
        /// Each is at least so many times the one before.
        factor: f64,
        /// Each is at least so much more than the one before.
        margin: f64,
    },
    /// That of one variant is within bounds.
    Bounds {
        /// The index of the variant.
        variant: usize,
        /// It is above this.
        above: Option<f64>,
        /// It is below this.
        below: Option<f64>,
    },
    /// Those of these variants agree, for each seed.
    Same {
        /// The indices of the variants.
        variants: Vec<usize>,
        /// The largest relative difference from the first.
        within: f64,
    },
}

impl Condition {
    /// Returns the indices of its variants.
    pub fn variants(&self) -> &[usize] {
        match self {
            Condition::Ascending { variants, .. } | Condition::Same { variants, .. } => variants,
            Condition::Bounds { variant, .. } => std::slice::from_ref(variant),
        }
    }
}
