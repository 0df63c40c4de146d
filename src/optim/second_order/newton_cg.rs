//! Newton's method with conjugate gradients, also called truncated Newton and Hessian-free (Martens 2010,
//! <https://www.cs.toronto.edu/~jmartens/docs/Deep_HessianFree.pdf>; Nocedal and Wright 2006, algorithm 7.1).
//!
//! The direction p solves (H + damping I) p = -g about: conjugate gradients start at 0 and end when the residual is at most
//! min(tolerance, sqrt(|g|)) |g|, after `iterations` products with H, or at a direction of negative curvature, before which
//! they stop; if that is the first one, p = -g. Products are exact, by dual numbers. Then the step length is halved from the
//! learning rate until the loss decreases sufficiently.
//!
//! The damping follows how well the quadratic model predicts the decrease (Levenberg and Marquardt): it is multiplied by 2/3
//! if the first step length decreases the loss by more than 3/4 of the prediction, and by 3/2 if by less than 1/4 of it.

use super::line_search::{Line, backtracking};
use super::method::{Method, MethodState, MethodStep, Objective, StartPoint};
use crate::cpu::vectors::{add, dot, norm, sum};
use crate::error::Result;
use crate::settings::{AT_LEAST_ONE, INSIDE, NOT_NEGATIVE, settings};

/// The most step lengths that are tried.
const MOST_TRIALS: usize = 30;
/// The name of the damping in the state.
const DAMPING: &str = "damping";

settings! {
    /// Newton's method with conjugate gradients: `newton_cg = {}`. Use `lr = 1.0` and large batches.
    #[derive(Copy)]
    pub struct NewtonCg {
        /// The most products with the Hessian in an update.
        pub iterations: usize = 50, in AT_LEAST_ONE;
        /// The residual at which conjugate gradients end, as a share of the gradient's norm.
        pub tolerance: f64 = 0.5, in INSIDE;
        /// What is added to every eigenvalue of the Hessian at first.
        pub damping: f64 = 0.1, in NOT_NEGATIVE;
        /// Whether the damping changes with how well the quadratic model predicts the loss.
        pub adapt_damping: bool = true;
        /// The L2 penalty: half of it, times the sum of the squared weights, is added to the loss.
        pub weight_decay: f64 = 0.0, in NOT_NEGATIVE;
    }
}

/// A direction, and what the quadratic model says of it.
struct Solution {
    direction: Vec<f64>,
    /// The curvature p'Hp, without damping.
    curvature: f64,
    products: usize,
}

impl NewtonCg {
    fn solve(&self, function: &mut dyn Objective, w: &[f64], gradient: &[f64], damping: f64) -> Result<Solution> {
        let size = norm(gradient);
        let enough = self.tolerance.min(size.sqrt()) * size;
        let mut p = vec![0.0; w.len()];
        // r = (H + damping I) p + g, and the next direction d.
        let mut r = gradient.to_vec();
        let mut d: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let (mut square, mut products) = (dot(&r, &r), 0);
        while square.sqrt() > enough && products < self.iterations {
            let product = function.product(w, &d)?;
            products += 1;
            let product = sum(&product, damping, &d);
            let curvature = dot(&d, &product);
            if !(curvature > 0.0 && curvature.is_finite()) {
                if products == 1 {
                    let curvature = curvature - damping * square;
                    return Ok(Solution { direction: d, curvature, products });
                }
                break;
            }
            let alpha = square / curvature;
            add(&mut p, alpha, &d);
            add(&mut r, alpha, &product);
            let next = dot(&r, &r);
            d = sum(&r.iter().map(|r| -r).collect::<Vec<f64>>(), next / square, &d);
            square = next;
        }
        let curvature = dot(&p, &r) - dot(&p, gradient) - damping * dot(&p, &p);
        Ok(Solution { direction: p, curvature, products })
    }
}

impl Method for NewtonCg {
    fn key(&self) -> &'static str {
        "newton_cg"
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
    fn uses_products(&self) -> bool {
        true
    }
    fn bytes(&self, weights: usize) -> u64 {
        // p, r, d, a product and copies of them.
        (8 * weights * size_of::<f64>()) as u64
    }

    fn step(&self, state: &mut MethodState, function: &mut dyn Objective, start: StartPoint) -> Result<MethodStep> {
        let StartPoint { w, value, gradient, lr } = start;
        let damping = state.numbers.get(DAMPING).copied().unwrap_or(self.damping);
        let Solution { direction, curvature, products } = self.solve(function, w, gradient, damping)?;
        let mut line = Line::new(function, start, &direction);
        let (t, at_first) = backtracking(&mut line, lr, MOST_TRIALS)?;
        if self.adapt_damping {
            let predicted = lr * dot(gradient, &direction) + 0.5 * lr * lr * curvature;
            let share = (at_first - value) / predicted;
            let factor = match share {
                share if share > 0.75 => 2.0 / 3.0,
                share if share < 0.25 => 1.5,
                _ => 1.0,
            };
            state.numbers.insert(DAMPING.to_string(), damping * factor);
        }
        let report = vec![
            ("step_length", t),
            ("evaluations", 1.0 + line.evaluations as f64),
            ("products", products as f64),
            (DAMPING, damping),
        ];
        Ok(MethodStep { w: line.weights(t), report })
    }

    fn examples() -> Vec<Self> {
        let plain = NewtonCg::default();
        vec![plain, NewtonCg { iterations: 5, tolerance: 0.1, damping: 0.0, adapt_damping: false, weight_decay: 0.01 }]
    }
}
