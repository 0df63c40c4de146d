//! Comparison with an independent implementation: networks that PyTorch trained from the same weights on the same
//! batches. `tests/reference/README.md` describes the files and how their numbers were computed.

use crate::common::{file, on_mesh};
use peristyle::data::{self, Batches};
use peristyle::device::Clock;
use peristyle::layers::Mode;
use peristyle::network::Parameter;
use peristyle::placement::Variant;
use peristyle::program::{Persistent, Plan};
use peristyle::train::weights::{self, TensorData as Values, TensorFile};
use peristyle::train::{DataPolicy, Job, exchange};
use serde_json::Value;
use std::sync::Arc;

/// How closely a network must agree with PyTorch: relative differences for losses and norms, and for tensors their
/// largest difference over their largest value. Learning rates must be equal.
#[derive(Debug, Clone, Copy)]
struct Tolerances {
    /// Losses of all steps, and of the evaluation after the last.
    loss: f64,
    /// The norm of all gradients together, at every step, before clipping.
    norm: f64,
    /// Gradients of the first step.
    gradient: f64,
    /// Parameters and running statistics after the last step.
    last: f64,
}

/// Both sides sum in f64, in different orders: 1e-16 per operation, which twenty updates amplify a little. Observed:
/// 1e-15 for losses, 2e-14 for everything else.
const F64: Tolerances = Tolerances { loss: 1e-12, norm: 1e-12, gradient: 1e-12, last: 1e-12 };
/// The seeds were chosen so that rounding to f32 (6e-8 per operation) decides no kink of a relu or a pool: PyTorch's
/// own f32 runs stay within 3e-7 of its f64 losses and 5e-6 of its f64 tensors, and with noise of 1e-6 in every
/// activation, its runs stay within 1e-5. Observed: 1e-6 for losses, 3e-6 for tensors, both with batch norm; 4e-7 and
/// 6e-7 without.
const F32: Tolerances = Tolerances { loss: 5e-6, norm: 5e-6, gradient: 2e-5, last: 2e-5 };

/// Fifty steps of an optimiser: adaptive rates amplify a rounding where a gradient is small. Observed: 1e-14.
const OPTIMIZERS: Tolerances = Tolerances { loss: 1e-9, norm: 1e-9, gradient: 1e-9, last: 1e-9 };

/// Returns ten times the difference between PyTorch's runs of a network in f32 and f64.
fn of_single_precision(name: &str) -> Tolerances {
    let drift = &Reference::open(name).numbers["f32_drift"];
    let ten_times = |key: &str| 10.0 * drift[key].as_f64().unwrap();
    let loss = ten_times("loss");
    Tolerances { loss, norm: loss, gradient: ten_times("grad0"), last: ten_times("final") }
}

/// A reference: PyTorch's numbers and tensors.
struct Reference {
    numbers: Value,
    tensors: TensorFile,
}

impl Reference {
    fn open(name: &str) -> Reference {
        let text = std::fs::read_to_string(file(&format!("tests/reference/{name}.json"))).unwrap();
        let tensors = weights::open_model(&file(&format!("tests/reference/{name}.safetensors"))).unwrap();
        Reference { numbers: serde_json::from_str(&text).unwrap(), tensors }
    }

    fn list(&self, key: &str) -> Vec<f64> {
        self.numbers[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    /// Returns the values of a tensor in the file, in the order of the parameter's memory.
    fn values(&self, name: &str, parameter: &Parameter) -> Option<Vec<f64>> {
        let values = match self.tensors.tensor(self.tensors.find(name)?).unwrap().data {
            Values::F64(values) => values,
            Values::F32(values) => values.into_iter().map(f64::from).collect(),
        };
        Some(exchange::from_file(&parameter.param, &values))
    }
}

/// Returns the largest difference over the largest value.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    largest(&mut a.iter().zip(b).map(|(a, b)| (a - b).abs())) / largest(&mut b.iter().map(|b| b.abs()))
}

/// Returns the largest relative difference of two curves.
fn curves_apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max)
}

/// The results of training the network of a reference from its weights on its batches.
struct Run {
    /// The name of the reference.
    name: String,
    parameters: Vec<Parameter>,
    lrs: Vec<f64>,
    losses: Vec<f64>,
    /// The norm of all gradients together at every step, before clipping.
    norms: Vec<f64>,
    /// The gradients of the first step.
    gradients: Vec<Vec<f64>>,
    /// The loss of the first batch in evaluation, after the last step.
    evaluated: f64,
    /// Every parameter and running statistic after the last step.
    last: Vec<(Parameter, Vec<f64>)>,
}

fn run(reference: &Reference, name: &str, sets: &[String]) -> Run {
    let config = file(&format!("tests/reference/{name}.toml"));
    let (job, _) = Job::open(&config, sets, DataPolicy::Required).unwrap_or_else(|e| panic!("{e}"));
    let rows = job.config.data.batch;
    let update = Variant::train(rows);
    let look = Variant { update: false, ..update };
    let eval = Variant { mode: Mode::Eval, ..look };
    let chain = Arc::clone(&job.config.optimizer.chain);
    let plan = Plan::new(Arc::clone(&job.network), chain, job.spec(vec![update, look, eval])).unwrap();
    let (mut session, mut mirror) = (job.session(plan.clone()).unwrap(), job.session(plan).unwrap());
    exchange::initialise(&mut mirror, 0).unwrap();
    let parameters = &job.network.parameters;
    let all = parameters.iter().enumerate().map(|(p, parameter)| (Persistent::Parameter(p), parameter));
    let states = job.network.statistics.iter().enumerate().map(|(s, state)| (Persistent::Statistic(s), state));
    let all: Vec<(Persistent, &Parameter)> = all.chain(states).collect();
    for (which, parameter) in &all {
        let index = reference.tensors.find(&format!("init.{}", parameter.name));
        let index = index.expect("every tensor has an initial value");
        exchange::import(&mut session, *which, parameter, &reference.tensors, index).unwrap();
    }

    let splits = data::open(&job.config.data, job.config.seed, &job.config.base).unwrap();
    let mut batches = Batches::train(&splits);
    let mut batch = batches.empty();
    let (mut losses, mut norms, mut lrs, mut first) = (vec![], vec![], vec![], vec![]);
    for step in 1..=job.steps() {
        let (epoch, index) = batches.plan().at(step - 1);
        batches.fill(epoch, index, &mut batch).unwrap();
        let clock = Clock { step, epoch, lr: job.lr(step, epoch), row: 0 };
        // The gradients before the optimiser clips them are those of a second session with the same weights.
        for p in 0..parameters.len() {
            let values = exchange::read_values(&session, Persistent::Parameter(p)).unwrap();
            exchange::write_values(&mut mirror, Persistent::Parameter(p), &values).unwrap();
        }
        mirror.run(look, &mut batch, clock).unwrap();
        let gradients = (0..parameters.len()).map(|p| exchange::read_values(&mirror, Persistent::Gradient(p)).unwrap());
        let gradients: Vec<Vec<f64>> = gradients.collect();
        norms.push(gradients.iter().flatten().map(|g| g * g).sum::<f64>().sqrt());
        if step == 1 {
            first = gradients;
        }
        lrs.push(clock.lr);
        losses.push(session.run(update, &mut batch, clock).unwrap().loss);
    }
    batches.fill(0, 0, &mut batch).unwrap();
    let metrics = session.run(eval, &mut batch, Clock::default()).unwrap();
    let last =
        all.iter().map(|&(which, parameter)| (parameter.clone(), exchange::read_values(&session, which).unwrap()));
    Run {
        name: name.into(),
        lrs,
        losses,
        norms,
        gradients: first,
        evaluated: metrics.loss,
        last: last.collect(),
        parameters: parameters.clone(),
    }
}

fn agrees(name: &str, precision: &str, mesh: (usize, usize), tolerances: Tolerances) {
    let reference = Reference::open(name);
    let mut sets = on_mesh(mesh);
    sets.push(format!("devices.precision=\"{precision}\""));
    let run = run(&reference, name, &sets);
    let mut gradient = 0.0f64;
    for (values, parameter) in run.gradients.iter().zip(&run.parameters) {
        let wanted = reference.values(&format!("f64.grad0.{}", parameter.name), parameter);
        let difference = apart(values, &wanted.expect("every parameter has a gradient"));
        assert!(difference <= tolerances.gradient, "{name}: gradient of {}: {difference:e}", parameter.name);
        gradient = gradient.max(difference);
    }
    assert_eq!(run.lrs, reference.list("lrs"), "{name}: learning rates");
    let loss = curves_apart(&run.losses, &reference.list("f64_losses"));
    let norm = curves_apart(&run.norms, &reference.list("f64_grad_norms"));
    let evaluated = curves_apart(&[run.evaluated], &[reference.numbers["f64_eval_loss"].as_f64().unwrap()]);
    let mut last = 0.0f64;
    for (parameter, values) in &run.last {
        let of = values.iter().map(|v| v * v).sum::<f64>().sqrt();
        let wanted = reference.numbers["f64_final_norms"][&parameter.name].as_f64().unwrap();
        last = last.max(curves_apart(&[of], &[wanted]));
        if let Some(wanted) = reference.values(&format!("f64.final.{}", parameter.name), parameter) {
            last = last.max(apart(values, &wanted));
        }
    }
    println!(
        "{name:>10} {precision} on {mesh:?}: losses {loss:.1e}, evaluation {evaluated:.1e}, gradient norms {norm:.1e}, \
         first gradients {gradient:.1e}, last parameters and statistics {last:.1e}"
    );
    assert!(loss <= tolerances.loss, "{name} in {precision}: losses differ by {loss:e}");
    assert!(evaluated <= tolerances.loss, "{name} in {precision}: the evaluation differs by {evaluated:e}");
    assert!(norm <= tolerances.norm, "{name} in {precision}: gradient norms differ by {norm:e}");
    assert!(last <= tolerances.last, "{name} in {precision}: the last parameters differ by {last:e}");
}

/// Asserts that mixed precision strays at most twice as far from f64 as PyTorch's does: in the gradients of the first
/// step, for every parameter, and in the losses, whose rounding each update amplifies.
fn strays_no_further_than_pytorch(name: &str, mesh: (usize, usize)) {
    let reference = Reference::open(name);
    let text = std::fs::read_to_string(file("tests/reference/bf16.json")).unwrap();
    let half: Value = serde_json::from_str(&text).unwrap();
    let theirs: Vec<f64> = half[name]["losses"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let mut sets = on_mesh(mesh);
    sets[0] = format!("devices.use=\"emu*{}\"", mesh.0 * mesh.1);
    sets.push("devices.precision=\"bf16\"".into());
    let run = run(&reference, name, &sets);
    let exact = reference.list("f64_losses");
    let (ours, theirs) = (curves_apart(&run.losses, &exact), curves_apart(&theirs, &exact));
    println!("{:>10} bf16 on {mesh:?}: losses {ours:.1e}, PyTorch's {theirs:.1e}", run.name);
    for (values, parameter) in run.gradients.iter().zip(&run.parameters) {
        let wanted = reference.values(&format!("f64.grad0.{}", parameter.name), parameter).unwrap();
        let length = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
        let error = length(&mut values.iter().zip(&wanted).map(|(a, b)| a - b)) / length(&mut wanted.iter().copied());
        let bound = half[name]["gradients"][&parameter.name].as_f64().unwrap();
        println!(
            "{:>10} bf16 on {mesh:?}: gradient of {} {error:.1e}, PyTorch's {bound:.1e}",
            run.name, parameter.name
        );
        assert!(error > 1e-5 && error <= 2.0 * bound, "{name}: gradient of {}: {error:e}, {bound:e}", parameter.name);
    }
    assert!(ours <= 2.0 * theirs, "{name}: losses stray by {ours:e}, PyTorch's by {theirs:e}");
}

#[test]
fn a_perceptron_agrees_with_pytorch() {
    agrees("mlp", "f64", (1, 1), F64);
    agrees("mlp", "f32", (1, 1), F32);
}

#[test]
fn lenet_agrees_with_pytorch() {
    agrees("lenet", "f64", (1, 1), F64);
    agrees("lenet", "f32", (1, 1), F32);
}

#[test]
fn local_response_normalisation_agrees_with_pytorch() {
    agrees("lrn", "f64", (1, 1), F64);
    agrees("lrn", "f32", (1, 1), F32);
}

#[test]
fn batch_norm_agrees_with_pytorch() {
    agrees("batch_norm", "f64", (1, 1), F64);
    agrees("batch_norm", "f32", (1, 1), F32);
}

#[test]
fn four_devices_agree_with_pytorch() {
    for name in ["lrn", "batch_norm"] {
        agrees(name, "f64", (2, 2), F64);
        agrees(name, "f32", (2, 2), F32);
    }
}

#[test]
fn values_are_predicted_as_pytorch_does() {
    for mesh in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        agrees("values", "f64", mesh, F64);
    }
    agrees("values", "f32", (1, 1), F32);
}

#[test]
fn several_losses_agree_with_pytorch() {
    for mesh in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        agrees("heads", "f64", mesh, F64);
    }
    agrees("heads", "f32", (1, 1), F32);
}

#[test]
fn optimisers_agree_with_pytorch() {
    let first = [
        "rmsprop",
        "rmsprop_centered",
        "adam",
        "adamw",
        "nesterov",
        "adagrad",
        "adadelta",
        "nadam",
        "rprop",
        "groups",
        "adaptive_clip",
    ];
    for name in first {
        for mesh in [(1, 1), (2, 1), (1, 2), (2, 2)] {
            agrees(name, "f64", mesh, OPTIMIZERS);
        }
        agrees(name, "f32", (1, 1), of_single_precision(name));
    }
}

#[test]
fn mixed_precision_strays_no_further_than_pytorchs() {
    for name in ["mlp", "lenet", "lrn", "batch_norm"] {
        strays_no_further_than_pytorch(name, (1, 1));
    }
    strays_no_further_than_pytorch("batch_norm", (2, 2));
}
