//! Draws the pictures of an experiment.

use super::curves::Curves;
use super::experiment::{Experiment, Picture};
use super::path;
use super::run::Comparison;
use crate::error::Result;
use std::path::Path;

impl Comparison {
    /// Draws a picture of the experiment in SVG. `dir` is the folder in which it was run.
    ///
    /// # Errors
    /// If a configuration cannot be opened again, or the picture cannot be drawn.
    pub fn svg(&self, experiment: &Experiment, picture: &Picture, dir: &Path) -> Result<String> {
        match picture {
            Picture::Curves { x, y, log, variants, smooth } => {
                Curves { x: *x, y, log: *log, variants, smooth: *smooth }.svg(experiment, self)
            }
            Picture::Path { variants } => path::svg(experiment, self, variants, dir),
        }
    }
}
