//! Newton's method: w = w - lr H^-1 g, with the whole Hessian H of the batch, computed column by column with dual numbers.
//!
//! H is decomposed into its eigenvectors q and eigenvalues l, and the step is -sum (q'g / f(l)) q, where f(l) = l + damping.
//! Where f(l) is 0 up to rounding, the step does not move. With signed curvature, the method is drawn to saddle points and
//! maxima as well as to minima; with absolute curvature, f(l) = |l| + damping, it leaves them (saddle-free Newton, Dauphin et
//! al. 2014, <https://arxiv.org/abs/1406.2572>).

use super::line_search::{Line, backtracking};
use super::method::{Method, MethodState, MethodStep, Objective, StartPoint};
use crate::cpu::Eigen;
use crate::cpu::vectors::{add, dot};
use crate::error::{Fault, Result};
use crate::settings::{NOT_NEGATIVE, Settings, settings, values};
use serde::Deserialize;

/// The most weights that `newton` trains: their Hessian has 128 MB.
pub const MOST_WEIGHTS: usize = 4000;
/// The most step lengths that are tried.
const MOST_TRIALS: usize = 30;

/// How `newton` uses the eigenvalues of the Hessian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curvature {
    /// As they are.
    Signed,
    /// Their absolute values.
    Absolute,
}

values! {
    Curvature, "\"signed\" or \"absolute\"", curvature => match curvature {
        Curvature::Signed => "\"signed\"".to_string(),
        Curvature::Absolute => "\"absolute\"".to_string(),
    };
}

/// How the step length of `newton` is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepSearch {
    /// It is the learning rate.
    None,
    /// The learning rate is halved until the loss decreases sufficiently.
    Backtracking,
}

values! {
    StepSearch, "\"none\" or \"backtracking\"", search => match search {
        StepSearch::None => "\"none\"".to_string(),
        StepSearch::Backtracking => "\"backtracking\"".to_string(),
    };
}

settings! {
    /// Newton's method with the whole Hessian: `newton = {}`, for at most 4000 trained weights. Use `lr = 1.0` and the whole
    /// data as the batch.
    #[derive(Copy)]
    pub struct Newton {
        /// What is added to every eigenvalue of the Hessian, or to its absolute value.
        pub damping: f64 = 0.0, in NOT_NEGATIVE;
        /// Whether eigenvalues are used as they are, or their absolute values, which leaves saddle points.
        pub curvature: Curvature = Curvature::Signed;
        /// How the step length is chosen: as the learning rate, or by halving it until the loss decreases sufficiently.
        pub line_search: StepSearch = StepSearch::None;
        /// The L2 penalty: half of it, times the sum of the squared weights, is added to the loss.
        pub weight_decay: f64 = 0.0, in NOT_NEGATIVE;
    }
}

impl Method for Newton {
    fn key(&self) -> &'static str {
        "newton"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        if self.line_search == StepSearch::Backtracking && self.curvature == Curvature::Signed {
            let message = "line_search = \"backtracking\" needs a direction of descent, which signed curvature does not \
                           promise; use curvature = \"absolute\"";
            return Err(Fault::at("line_search", message));
        }
        Ok(())
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
    fn uses_products(&self) -> bool {
        true
    }
    fn most_weights(&self) -> usize {
        MOST_WEIGHTS
    }
    fn bytes(&self, weights: usize) -> u64 {
        // The Hessian, and what its decomposition takes.
        (weights as u64).saturating_mul((3 * weights * size_of::<f64>()) as u64)
    }

    fn step(&self, _: &mut MethodState, function: &mut dyn Objective, start: StartPoint) -> Result<MethodStep> {
        let StartPoint { w, gradient, lr, .. } = start;
        let n = w.len();
        let mut hessian = Vec::with_capacity(n * n);
        let mut unit = vec![0.0; n];
        for column in 0..n {
            unit[column] = 1.0;
            hessian.extend(function.product(w, &unit)?);
            unit[column] = 0.0;
        }
        let Eigen { values, vectors } = Eigen::of(hessian, n);
        let least = values.iter().fold(0.0f64, |most, l| most.max(l.abs())) * n as f64 * f64::EPSILON;
        let mut direction = vec![0.0; n];
        for (l, q) in values.iter().zip(vectors.chunks_exact(n.max(1))) {
            let curvature = match self.curvature {
                Curvature::Signed => l + self.damping,
                Curvature::Absolute => l.abs() + self.damping,
            };
            if curvature.abs() > least {
                add(&mut direction, -dot(q, gradient) / curvature, q);
            }
        }
        let mut line = Line::new(function, start, &direction);
        let t = match self.line_search {
            StepSearch::None => lr,
            StepSearch::Backtracking => backtracking(&mut line, lr, MOST_TRIALS)?.0,
        };
        let extreme = |of: fn(f64, f64) -> f64| values.iter().copied().reduce(of).unwrap_or(0.0);
        let report = vec![
            ("step_length", t),
            ("evaluations", 1.0 + line.evaluations as f64),
            ("smallest_eigenvalue", extreme(f64::min)),
            ("largest_eigenvalue", extreme(f64::max)),
        ];
        Ok(MethodStep { w: line.weights(t), report })
    }

    fn examples() -> Vec<Self> {
        let plain = Newton::default();
        let absolute = Curvature::Absolute;
        vec![
            plain,
            Newton { damping: 0.1, curvature: absolute, line_search: StepSearch::Backtracking, weight_decay: 0.01 },
        ]
    }
}
