//! L-BFGS: the inverse of the Hessian is approximated from the last steps s and the changes y of the gradient along them
//! (Liu and Nocedal 1989, <https://doi.org/10.1007/BF01589116>). The direction is p = -B g, where B is built by the two-loop
//! recursion from (s'y / y'y) I, with the newest s and y, and the pairs from the oldest to the newest.
//!
//! Both gradients of a pair are those of one batch, at the weights before and after the update; pairs with s'y <= 1e-10 are
//! not kept. The first step has the length min(1, 1 / |g|_1) lr, later ones lr, unless a line search changes it.

use super::line_search::{Line, strong_wolfe};
use super::method::{Method, MethodState, MethodStep, Objective, StartPoint};
use crate::cpu::vectors::{add, dot, sum};
use crate::error::Result;
use crate::settings::{AT_LEAST_ONE, NOT_NEGATIVE, settings, values};
use serde::Deserialize;

/// How the step length of `lbfgs` is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WolfeSearch {
    /// A line search for the strong Wolfe conditions.
    StrongWolfe,
    /// It is the learning rate.
    None,
}

values! {
    WolfeSearch, "\"strong_wolfe\" or \"none\"", search => match search {
        WolfeSearch::StrongWolfe => "\"strong_wolfe\"".to_string(),
        WolfeSearch::None => "\"none\"".to_string(),
    };
}

settings! {
    /// L-BFGS: `lbfgs = {}`. Use `lr = 1.0` and large batches.
    #[derive(Copy)]
    pub struct Lbfgs {
        /// The number of updates whose steps are kept; each takes two values for each weight.
        pub history: usize = 10, in AT_LEAST_ONE;
        /// How the step length is chosen: by a search for the strong Wolfe conditions that begins at the learning rate, or as
        /// the learning rate itself.
        pub line_search: WolfeSearch = WolfeSearch::StrongWolfe;
        /// The most points that a line search evaluates.
        pub evaluations: usize = 25, in AT_LEAST_ONE;
        /// The L2 penalty: half of it, times the sum of the squared weights, is added to the loss.
        pub weight_decay: f64 = 0.0, in NOT_NEGATIVE;
    }
}

/// The least product of a step and the change of the gradient along it.
const LEAST_CURVATURE: f64 = 1e-10;

impl Lbfgs {
    /// Returns the direction of a step, given pairs of a step and a change of the gradient, from the oldest to the newest.
    fn direction(gradient: &[f64], pairs: &[Vec<f64>]) -> Vec<f64> {
        let mut p: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let pairs: Vec<(&[f64], &[f64], f64)> =
            pairs.chunks_exact(2).map(|pair| (&*pair[0], &*pair[1], 1.0 / dot(&pair[0], &pair[1]))).collect();
        let mut factors = Vec::new();
        for &(s, y, inverse) in pairs.iter().rev() {
            let factor = dot(s, &p) * inverse;
            add(&mut p, -factor, y);
            factors.push(factor);
        }
        if let Some((_, y, inverse)) = pairs.last() {
            let scale = 1.0 / (inverse * dot(y, y));
            p.iter_mut().for_each(|p| *p *= scale);
        }
        for (&(s, y, inverse), factor) in pairs.iter().zip(factors.iter().rev()) {
            let back = dot(y, &p) * inverse;
            add(&mut p, factor - back, s);
        }
        p
    }
}

impl Method for Lbfgs {
    fn key(&self) -> &'static str {
        "lbfgs"
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
    fn bytes(&self, weights: usize) -> u64 {
        // The direction, and the points and gradients of a line search.
        (self.history as u64).saturating_mul(2).saturating_add(8).saturating_mul((weights * size_of::<f64>()) as u64)
    }
    fn vector_name(&self, index: usize) -> String {
        format!("{}{}", ["step", "change"][index % 2], index / 2)
    }

    fn step(&self, state: &mut MethodState, function: &mut dyn Objective, start: StartPoint) -> Result<MethodStep> {
        let StartPoint { w, gradient, lr, .. } = start;
        let mut direction = Self::direction(gradient, &state.vectors);
        if dot(&direction, gradient) >= 0.0 {
            state.vectors.clear();
            direction = Self::direction(gradient, &[]);
        }
        let sum_of_sizes = gradient.iter().map(|g| g.abs()).sum::<f64>();
        let first = if state.vectors.is_empty() { (1.0 / sum_of_sizes).min(1.0) * lr } else { lr };
        let mut line = Line::new(function, start, &direction);
        let found = match (sum_of_sizes > 0.0, self.line_search) {
            (false, _) => None,
            (true, WolfeSearch::StrongWolfe) => {
                strong_wolfe(&mut line, first, self.evaluations)?.map(|trial| (trial.t, trial.gradient))
            }
            (true, WolfeSearch::None) => {
                let w = line.weights(first);
                line.evaluations = 1;
                Some((first, line.function.evaluate(&w)?.1))
            }
        };
        let evaluations = 1.0 + line.evaluations as f64;
        let Some((t, after)) = found else {
            // What the pairs say does not hold here.
            state.vectors.clear();
            return Ok(MethodStep { w: w.to_vec(), report: vec![("step_length", 0.0), ("evaluations", evaluations)] });
        };
        let moved = line.weights(t);
        let (s, y): (Vec<f64>, Vec<f64>) = (direction.iter().map(|p| t * p).collect(), sum(&after, -1.0, gradient));
        if dot(&s, &y) > LEAST_CURVATURE {
            if state.vectors.len() >= 2 * self.history {
                state.vectors.drain(..state.vectors.len() - 2 * (self.history - 1));
            }
            state.vectors.extend([s, y]);
        }
        Ok(MethodStep { w: moved, report: vec![("step_length", t), ("evaluations", evaluations)] })
    }

    fn examples() -> Vec<Self> {
        let plain = Lbfgs::default();
        vec![plain, Lbfgs { history: 3, line_search: WolfeSearch::None, weight_decay: 0.01, ..plain }]
    }
}
