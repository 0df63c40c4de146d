//! Hand-worked updates, and functions whose minima are known.

use super::*;
use crate::error::Result;

/// 1/2 w'Aw - b'w.
struct Quadratic {
    a: Vec<Vec<f64>>,
    b: Vec<f64>,
    evaluations: usize,
    products: usize,
}

impl Quadratic {
    fn new(a: &[&[f64]], b: &[f64]) -> Self {
        Quadratic { a: a.iter().map(|row| row.to_vec()).collect(), b: b.to_vec(), evaluations: 0, products: 0 }
    }
    fn times(&self, w: &[f64]) -> Vec<f64> {
        self.a.iter().map(|row| row.iter().zip(w).map(|(a, w)| a * w).sum()).collect()
    }
}

impl Objective for Quadratic {
    fn evaluate(&mut self, w: &[f64]) -> Result<(f64, Vec<f64>)> {
        self.evaluations += 1;
        let aw = self.times(w);
        let value = w.iter().zip(&aw).zip(&self.b).map(|((w, aw), b)| w * (0.5 * aw - b)).sum();
        Ok((value, aw.iter().zip(&self.b).map(|(aw, b)| aw - b).collect()))
    }
    fn product(&mut self, _: &[f64], v: &[f64]) -> Result<Vec<f64>> {
        self.products += 1;
        Ok(self.times(v))
    }
}

/// Rosenbrock's function.
struct Valley;

impl Objective for Valley {
    fn evaluate(&mut self, w: &[f64]) -> Result<(f64, Vec<f64>)> {
        let [x, y] = [w[0], w[1]];
        let off = y - x * x;
        Ok(((1.0 - x).powi(2) + 100.0 * off * off, vec![-2.0 * (1.0 - x) - 400.0 * x * off, 200.0 * off]))
    }
    fn product(&mut self, w: &[f64], v: &[f64]) -> Result<Vec<f64>> {
        let [x, y] = [w[0], w[1]];
        let (xx, xy) = (2.0 - 400.0 * (y - 3.0 * x * x), -400.0 * x);
        Ok(vec![xx * v[0] + xy * v[1], xy * v[0] + 200.0 * v[1]])
    }
}

/// Makes updates; returns the weights after each, and the last report.
fn run(
    method: &dyn Method,
    function: &mut dyn Objective,
    w: &[f64],
    lr: f64,
    steps: usize,
) -> (Vec<Vec<f64>>, Vec<(&'static str, f64)>) {
    let (mut state, mut all, mut report) = (MethodState::default(), vec![w.to_vec()], Vec::new());
    for _ in 0..steps {
        let w = all.last().unwrap().clone();
        let (value, gradient) = function.evaluate(&w).unwrap();
        let step = method.step(&mut state, function, StartPoint { w: &w, value, gradient: &gradient, lr }).unwrap();
        all.push(step.w);
        report = step.report;
    }
    (all, report)
}

fn near(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

#[test]
fn newton_reaches_the_minimum_of_a_quadratic_in_one_step() {
    // A w = b has the solution (1, -2).
    let mut function = Quadratic::new(&[&[3.0, 1.0], &[1.0, 2.0]], &[1.0, -3.0]);
    let (all, report) = run(&Newton::default(), &mut function, &[10.0, 7.0], 1.0, 1);
    assert!(near(&all[1], &[1.0, -2.0], 1e-13), "{all:?}");
    assert_eq!((function.products, function.evaluations), (2, 1));
    // The eigenvalues are (5 -+ sqrt 5) / 2.
    let root = 5.0f64.sqrt();
    assert!(near(&[report[2].1, report[3].1], &[(5.0 - root) / 2.0, (5.0 + root) / 2.0], 1e-13), "{report:?}");
    // Half the rate: half the way.
    let (all, _) = run(&Newton::default(), &mut function, &[10.0, 7.0], 0.5, 1);
    assert!(near(&all[1], &[5.5, 2.5], 1e-13), "{all:?}");
}

#[test]
fn newton_goes_to_a_saddle_point_and_leaves_it_with_absolute_curvature() {
    // x^2 - y^2: the gradient at (1, 1/2) is (2, -1).
    let mut saddle = Quadratic::new(&[&[2.0, 0.0], &[0.0, -2.0]], &[0.0, 0.0]);
    let (all, _) = run(&Newton::default(), &mut saddle, &[1.0, 0.5], 1.0, 1);
    assert!(near(&all[1], &[0.0, 0.0], 1e-15), "{all:?}");
    let absolute = Newton { curvature: Curvature::Absolute, ..Newton::default() };
    let (all, _) = run(&absolute, &mut saddle, &[1.0, 0.5], 1.0, 1);
    assert!(near(&all[1], &[0.0, 1.0], 1e-15), "{all:?}");
    // With damping 2, curvatures are 4 and 0 as they are, and 4 as absolute values; along a curvature of 0 nothing moves.
    let (all, _) = run(&Newton { damping: 2.0, ..Newton::default() }, &mut saddle, &[1.0, 0.5], 1.0, 1);
    assert!(near(&all[1], &[0.5, 0.5], 1e-15), "{all:?}");
    let (all, _) = run(&Newton { damping: 2.0, ..absolute }, &mut saddle, &[1.0, 0.5], 1.0, 1);
    assert!(near(&all[1], &[0.5, 0.75], 1e-15), "{all:?}");
}

#[test]
fn conjugate_gradients_solve_a_quadratic_in_as_many_products_as_it_has_eigenvalues() {
    let exact = NewtonCg { tolerance: 1e-12, damping: 0.0, ..NewtonCg::default() };
    // Four variables, but two eigenvalues.
    let rows: [&[f64]; 4] =
        [&[1.0, 0.0, 0.0, 0.0], &[0.0, 9.0, 0.0, 0.0], &[0.0, 0.0, 9.0, 0.0], &[0.0, 0.0, 0.0, 1.0]];
    let mut function = Quadratic::new(&rows, &[1.0, 18.0, 27.0, -4.0]);
    let (all, report) = run(&exact, &mut function, &[0.0; 4], 1.0, 1);
    assert!(near(&all[1], &[1.0, 2.0, 3.0, -4.0], 1e-13), "{all:?}");
    assert_eq!(function.products, 2);
    assert_eq!(report[..3], [("step_length", 1.0), ("evaluations", 2.0), ("products", 2.0)]);
    // With damping 1, it solves (A + I) p = b.
    let (all, _) = run(&NewtonCg { damping: 1.0, ..exact }, &mut function, &[0.0; 4], 1.0, 1);
    assert!(near(&all[1], &[0.5, 1.8, 2.7, -2.0], 1e-13), "{all:?}");
}

#[test]
fn conjugate_gradients_stop_before_negative_curvature() {
    let mut saddle = Quadratic::new(&[&[2.0, 0.0], &[0.0, -2.0]], &[0.0, 0.0]);
    let plain = NewtonCg { damping: 0.0, tolerance: 1e-3, ..NewtonCg::default() };
    // g = (1, -1): its curvature is 0 in the first direction, so that it is the step: a gradient step.
    let (all, _) = run(&plain, &mut saddle, &[0.5, 0.5], 0.25, 1);
    assert!(near(&all[1], &[0.25, 0.75], 1e-15), "{all:?}");
    // g = (2, -1): g'Hg = 6, so p = 5/6 (-2, 1). The next direction has negative curvature.
    let (all, _) = run(&plain, &mut saddle, &[1.0, 0.5], 1.0, 1);
    assert!(near(&all[1], &[1.0 - 10.0 / 6.0, 0.5 + 5.0 / 6.0], 1e-14), "{all:?}");
}

#[test]
fn damping_follows_the_prediction() {
    let damping = |function: &mut dyn Objective, w: &[f64], steps| {
        let method = NewtonCg { damping: 0.9, tolerance: 1e-9, ..NewtonCg::default() };
        run(&method, function, w, 1.0, steps).1.last().unwrap().1
    };
    // A quadratic decreases as predicted: 0.9, 0.6, 0.4.
    let mut function = Quadratic::new(&[&[3.0, 1.0], &[1.0, 2.0]], &[1.0, -3.0]);
    assert!((damping(&mut function, &[10.0, 7.0], 3) - 0.4).abs() < 1e-12);
}

#[test]
fn the_first_updates_of_lbfgs_are_those_worked_by_hand() {
    // 1/2 (x^2 + 4 y^2) from (1, 1): g = (1, 4), and the first step is 1/5 of it: (0.8, 0.2), where g = (0.8, 0.8).
    let mut bowl = Quadratic::new(&[&[1.0, 0.0], &[0.0, 4.0]], &[0.0, 0.0]);
    let fixed = Lbfgs { line_search: WolfeSearch::None, ..Lbfgs::default() };
    let (all, _) = run(&fixed, &mut bowl, &[1.0, 1.0], 1.0, 2);
    assert!(near(&all[1], &[0.8, 0.2], 1e-15), "{all:?}");
    // s = (-0.2, -0.8), y = (-0.2, -3.2), s'y = 2.6, y'y = 10.28. With q = -g = (-0.8, -0.8): a = s'q / s'y = 0.8/2.6,
    // q - a y = (-0.8 + 0.16/2.6, -0.8 + 2.56/2.6); times 2.6/10.28; then b = y'r / s'y, and + (a - b) s.
    let (a, scale) = (0.8 / 2.6, 2.6 / 10.28);
    let r = [(-0.8 + 0.2 * a) * scale, (-0.8 + 3.2 * a) * scale];
    let b = (-0.2 * r[0] - 3.2 * r[1]) / 2.6;
    let p = [r[0] - 0.2 * (a - b), r[1] - 0.8 * (a - b)];
    assert!(near(&all[2], &[0.8 + p[0], 0.2 + p[1]], 1e-15), "{all:?} {p:?}");
}

#[test]
fn a_line_search_makes_lbfgs_find_the_end_of_a_valley() {
    let start = [-1.2, 1.0];
    let (all, _) = run(&Lbfgs::default(), &mut Valley, &start, 1.0, 40);
    assert!(near(&all[40], &[1.0, 1.0], 1e-6), "{:?}", all[40]);
    let values: Vec<f64> = all.iter().map(|w| Valley.evaluate(w).unwrap().0).collect();
    assert!(values.windows(2).all(|pair| pair[1] <= pair[0]), "{values:?}");
    let (all, _) =
        run(&NewtonCg { damping: 0.0, tolerance: 0.01, ..NewtonCg::default() }, &mut Valley, &start, 1.0, 40);
    assert!(near(&all[40], &[1.0, 1.0], 1e-6), "{:?}", all[40]);
    let absolute =
        Newton { curvature: Curvature::Absolute, line_search: StepSearch::Backtracking, ..Newton::default() };
    let (all, _) = run(&absolute, &mut Valley, &start, 1.0, 30);
    assert!(near(&all[30], &[1.0, 1.0], 1e-9), "{:?}", all[30]);
    // A history of one pair needs more updates, but also finds it.
    let (all, _) = run(&Lbfgs { history: 1, ..Lbfgs::default() }, &mut Valley, &start, 1.0, 80);
    assert!(near(&all[80], &[1.0, 1.0], 1e-4), "{:?}", all[80]);
}

/// A function that is not finite beyond 1, with its minimum before it.
struct Edge;

impl Objective for Edge {
    fn evaluate(&mut self, w: &[f64]) -> Result<(f64, Vec<f64>)> {
        // -x - ln(1 - x) has its minimum at 0.
        Ok((-w[0] - (1.0 - w[0]).ln(), vec![-1.0 + 1.0 / (1.0 - w[0])]))
    }
    fn product(&mut self, w: &[f64], v: &[f64]) -> Result<Vec<f64>> {
        Ok(vec![v[0] / (1.0 - w[0]).powi(2)])
    }
}

#[test]
fn steps_to_values_that_are_not_finite_are_shortened() {
    let methods: [&dyn Method; 2] = [&Lbfgs::default(), &NewtonCg::default()];
    for method in methods {
        let (all, _) = run(method, &mut Edge, &[-40.0], 50.0, 20);
        assert!(near(&all[20], &[0.0], 1e-4), "{all:?}");
    }
}

#[test]
fn at_a_minimum_nothing_moves() {
    for method in all_examples() {
        let mut function = Quadratic::new(&[&[3.0, 1.0], &[1.0, 2.0]], &[0.0, 0.0]);
        let (all, _) = run(&*method, &mut function, &[0.0, 0.0], 1.0, 2);
        assert_eq!(all[2], [0.0, 0.0], "{method:?}");
    }
}
