//! All results of a network for one batch on a mesh, for comparison with one device.

use peristyle::collectives::CollectiveAlgorithm;
use peristyle::data::Batch;
use peristyle::device::{Clock, Random, RandomStream};
use peristyle::error::Problem;
use peristyle::network::Network;
use peristyle::optim::Chain;
use peristyle::placement::{Peers, Spec, Variant};
use peristyle::program::{Execution, Persistent, Plan, Session};
use peristyle::tensor::{Mesh, Precision};
use peristyle::train::exchange;
use std::sync::Arc;

/// Where a network runs, and on how many samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Where {
    pub mesh: Mesh,
    pub algorithm: CollectiveAlgorithm,
    /// Whether devices exchange data through host memory.
    pub staged: bool,
    pub rows: usize,
}

/// The named results of a training step without an update, and of an evaluation after it, in f64.
pub struct Outcome {
    pub values: Vec<(String, Vec<f64>)>,
    /// The largest gradient of any parameter.
    scale: f64,
}

impl Outcome {
    /// Runs a network with random parameters, biases included, on a random batch.
    pub fn of(network: &Arc<Network>, at: Where) -> Result<Outcome, Vec<Problem>> {
        Outcome::executed(network, at, Execution::Queues)
    }

    /// Runs a network as in [`Outcome::of`], on queues or one instruction after another.
    pub fn executed(network: &Arc<Network>, at: Where, execution: Execution) -> Result<Outcome, Vec<Problem>> {
        let Where { mesh, algorithm, rows, staged } = at;
        let peers = if staged { Peers::SameGpu((0..mesh.devices()).collect()) } else { Peers::All };
        let train = Variant::gradients(rows);
        let eval = Variant::eval(rows);
        let (precision, variants) = (Precision::F64, vec![train, eval]);
        let spec = Spec { mesh, precision, algorithm, peers, seed: 3, variants, ..Spec::default() };
        let plan = Plan::new(Arc::clone(network), Arc::new(Chain::default()), spec)?;
        let mut session = Session::new(plan).unwrap().execution(execution);
        exchange::initialise(&mut session, 1).unwrap();
        for (p, parameter) in network.parameters.iter().enumerate() {
            let random = Random::new(4, RandomStream::Probe, 0, p as u64);
            let matrix = parameter.param.shape.rank() > 1;
            let scale = if matrix { (parameter.param.fan_in as f64).powf(-0.5) } else { 0.5 };
            let values = (0..parameter.param.shape.elements() as u64).map(|i| scale * random.normal(i));
            exchange::write_values(&mut session, Persistent::Parameter(p), &values.collect::<Vec<_>>()).unwrap();
        }
        let random = Random::new(4, RandomStream::Probe, 1, 0);
        let classes = network.losses().next().map_or(1, |loss| loss.input_shapes[0].features()) as u64;
        let images: Vec<f32> = (0..(rows * network.input.features()) as u64).map(|i| random.normal(i) as f32).collect();
        let targets: Vec<f32> = (0..rows as u64).map(|i| random.below(1000 + i, classes) as f32).collect();
        let mut batch = Batch { images, targets, ..Batch::default() };
        let clock = Clock { step: 1, ..Clock::default() };
        let mut values = Vec::new();
        for (name, variant) in [("training", train), ("evaluation", eval)] {
            let m = session.run(variant, &mut batch, clock).unwrap();
            values.push((format!("{name} loss"), vec![m.loss]));
            values.push((format!("{name} metrics"), session.metrics().to_vec()));
        }
        let mut scale = 0.0f64;
        for (p, parameter) in network.parameters.iter().enumerate() {
            let gradient = exchange::read_values(&session, Persistent::Gradient(p)).unwrap();
            scale = gradient.iter().fold(scale, |m, v| m.max(v.abs()));
            values.push((format!("gradient of {}", parameter.name), gradient));
        }
        for (s, state) in network.statistics.iter().enumerate() {
            values.push((state.name.clone(), exchange::read_values(&session, Persistent::Statistic(s)).unwrap()));
        }
        Ok(Outcome { values, scale })
    }

    /// Panics unless all values have the same bits.
    pub fn assert_same_bits(&self, other: &Outcome, what: &str) {
        for ((name, a), (_, b)) in self.values.iter().zip(&other.values) {
            let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(a), bits(b), "{name} {what}");
        }
    }

    /// Returns the largest difference relative to the largest value of its tensor, and the tensor's name.
    ///
    /// A gradient that is zero except for rounding (of a bias before batch norm) has no significant digits, so tensors
    /// are measured against at least a thousandth of the largest gradient.
    pub fn difference(&self, other: &Outcome) -> (f64, &str) {
        let mut worst = (0.0, "");
        for ((name, a), (_, b)) in self.values.iter().zip(&other.values) {
            assert_eq!(a.len(), b.len(), "{name}");
            let scale = b.iter().fold(1e-3 * other.scale, |m, v| m.max(v.abs()));
            for (a, b) in a.iter().zip(b) {
                let difference = (a - b).abs() / scale;
                // NaN is the largest difference; equal infinities and zeros are equal.
                let difference = if difference.is_nan() && a != b { f64::INFINITY } else { difference };
                if difference > worst.0 {
                    worst = (difference, name.as_str());
                }
            }
        }
        worst
    }
}
