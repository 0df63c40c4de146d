//! Updates by a second-order method: it evaluates the loss, the gradient and products with the Hessian of one batch as often
//! as it needs, by programs that do not update weights.

use super::exchange::{from_file, read_values, to_file, write_values};
use super::job::Job;
use super::weights::{NamedTensor, TensorData, TensorFile};
use crate::data::Batch;
use crate::device::Clock;
use crate::error::{Error, Result};
use crate::layers::MetricKind;
use crate::network::Network;
use crate::optim::second_order::{Method, MethodState, Objective, StartPoint};
use crate::placement::Variant;
use crate::program::{Persistent, Session, StepResult};
use crate::report::MetricValue;
use crate::tensor::Dual;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A parameter that is trained.
#[derive(Debug)]
struct Trained {
    parameter: usize,
    /// Its place among all trained weights.
    range: Range<usize>,
    /// Its L2 penalty.
    decay: f64,
}

/// A part of a batch, and how it is run.
#[derive(Debug)]
struct Part {
    variant: Variant,
    batch: Batch,
    clock: Clock,
}

/// A second-order method at work.
#[derive(Debug)]
pub(super) struct MethodRun {
    method: Arc<dyn Method>,
    network: Arc<Network>,
    state: MethodState,
    trained: Vec<Trained>,
    /// The session in dual numbers, if the method uses products.
    duals: Option<Session>,
    /// The parts of the batch, so far.
    parts: Vec<Part>,
    /// The metrics of the last batch, before its update.
    metrics: Vec<f64>,
    /// What the method reported of its last update.
    report: Vec<(&'static str, f64)>,
}

impl MethodRun {
    /// Prepares the method of a job, if it has one.
    ///
    /// # Errors
    /// When there is too little memory.
    pub fn new(job: &Job) -> Result<Option<MethodRun>> {
        let Some(method) = job.config.optimizer.method.clone().filter(|_| job.evaluates.is_none()) else {
            return Ok(None);
        };
        let plan = job.plan_of_products().map_err(|problems| Error::Config(problems.into()))?;
        let duals = plan.map(Session::new).transpose()?;
        let (mut trained, mut end) = (Vec::new(), 0);
        for (parameter, own) in job.network.parameters.iter().enumerate().filter(|(_, own)| own.lr_mult != 0.0) {
            let range = end..end + own.param.shape.elements();
            end = range.end;
            trained.push(Trained { parameter, range, decay: method.weight_decay() * own.decay_mult });
        }
        let network = Arc::clone(&job.network);
        let (state, parts, metrics, report) = Default::default();
        Ok(Some(MethodRun { method, network, state, trained, duals, parts, metrics, report }))
    }

    /// Takes a part of the next batch.
    pub fn submit(&mut self, variant: Variant, batch: &Batch, clock: Clock) {
        self.parts.push(Part { variant, batch: batch.clone(), clock });
    }

    /// Updates the weights if the batch is complete.
    ///
    /// # Errors
    /// When a program fails.
    pub fn finish(&mut self, session: &mut Session) -> Result<StepResult> {
        let Some(Part { variant, clock, .. }) = self.parts.last() else { return Ok(StepResult::default()) };
        if !variant.part.is_last() {
            return Ok(StepResult::default());
        }
        let lr = clock.lr;
        let w = self.weights(session)?;
        let parts = std::mem::take(&mut self.parts);
        let mut loss = BatchLoss { session, duals: self.duals.as_mut(), trained: &self.trained, parts, loss: 0.0 };
        let (value, gradient) = loss.evaluate(&w)?;
        let (result, statistics) = (loss.loss, loss.statistics(&self.network)?);
        self.metrics = loss.session.metrics().to_vec();
        self.report.clear();
        if !(value.is_finite() && gradient.iter().all(|g| g.is_finite())) {
            return Ok(StepResult { loss: result, bad_gradients: 1.0, bad_weights: 0.0 });
        }
        loss.share(&self.network)?;
        let start = StartPoint { w: &w, value, gradient: &gradient, lr };
        let step = self.method.step(&mut self.state, &mut loss, start)?;
        loss.set(&step.w)?;
        for (which, values) in statistics {
            write_values(loss.session, which, &values)?;
        }
        self.report = step.report;
        let bad_weights = if step.w.iter().all(|w| w.is_finite()) { 0.0 } else { 1.0 };
        Ok(StepResult { loss: result, bad_gradients: 0.0, bad_weights })
    }

    fn weights(&self, session: &Session) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for Trained { parameter, .. } in &self.trained {
            all.extend(read_values(session, Persistent::Parameter(*parameter))?);
        }
        Ok(all)
    }

    /// Returns the metrics of the last batch, before its update.
    pub fn metrics(&self) -> &[f64] {
        &self.metrics
    }

    /// Returns what the method reported of its last update.
    pub fn report(&self) -> impl Iterator<Item = MetricValue> {
        self.report.iter().map(|&(name, value)| MetricValue { name: name.into(), value, kind: MetricKind::Mean })
    }

    /// Returns the numbers of the method's state.
    pub fn numbers(&self) -> BTreeMap<String, f64> {
        self.state.numbers.clone()
    }

    /// Returns the number of values in the vectors of the method's state.
    pub fn values(&self) -> usize {
        self.state.vectors.iter().map(Vec::len).sum()
    }

    /// Returns the vectors of the method's state, by parameter.
    pub fn tensors(&self) -> Vec<NamedTensor> {
        let mut all = Vec::new();
        for (index, vector) in self.state.vectors.iter().enumerate() {
            for trained in &self.trained {
                let param = &self.network.parameters[trained.parameter].param;
                all.push(NamedTensor {
                    name: self.name(trained, index),
                    shape: param.file_shape.clone(),
                    data: TensorData::F64(to_file(param, &vector[trained.range.clone()])),
                });
            }
        }
        all
    }

    fn name(&self, trained: &Trained, index: usize) -> String {
        let (parameter, method) = (&self.network.parameters[trained.parameter].name, self.method.key());
        format!("{parameter}.{method}.{}", self.method.vector_name(index))
    }

    /// Restores the state of the method. Returns the tensors of the file that it uses.
    ///
    /// # Errors
    /// When a vector is not complete, or the file cannot be read.
    pub fn restore(&mut self, file: &TensorFile, numbers: &BTreeMap<String, f64>) -> Result<Vec<usize>> {
        self.state = MethodState { numbers: numbers.clone(), vectors: Vec::new() };
        let mut used = Vec::new();
        let Some(first) = self.trained.first() else { return Ok(used) };
        while file.find(&self.name(first, self.state.vectors.len())).is_some() {
            let mut vector = Vec::new();
            for trained in &self.trained {
                let name = self.name(trained, self.state.vectors.len());
                let param = &self.network.parameters[trained.parameter].param;
                let wrong = || Error::file(&file.path, format!("tensor \"{name}\" is missing or of another shape"));
                let index = file.find(&name).ok_or_else(wrong)?;
                match file.tensor(index)? {
                    NamedTensor { shape, data: TensorData::F64(values), .. } if shape == param.file_shape => {
                        vector.extend(from_file(param, &values));
                    }
                    _ => return Err(wrong()),
                }
                used.push(index);
            }
            self.state.vectors.push(vector);
        }
        Ok(used)
    }
}

/// The loss of a batch as a function of the trained weights.
struct BatchLoss<'a> {
    session: &'a mut Session,
    duals: Option<&'a mut Session>,
    trained: &'a [Trained],
    parts: Vec<Part>,
    /// The loss at the last point, without the penalty.
    loss: f64,
}

impl BatchLoss<'_> {
    fn set(&mut self, w: &[f64]) -> Result<()> {
        self.trained.iter().try_for_each(|Trained { parameter, range, .. }| {
            write_values(self.session, Persistent::Parameter(*parameter), &w[range.clone()])
        })
    }

    /// Gives the session in dual numbers what does not change during an update: weights that are not trained, and running
    /// statistics.
    fn share(&mut self, network: &Network) -> Result<()> {
        let Some(duals) = &mut self.duals else { return Ok(()) };
        let frozen = |index: &usize| network.parameters[*index].lr_mult == 0.0;
        let parameters = (0..network.parameters.len()).filter(frozen).map(Persistent::Parameter);
        parameters.chain((0..network.statistics.len()).map(Persistent::Statistic)).try_for_each(|which| {
            let values = read_values(self.session, which)?;
            write_values(duals, which, &values)
        })
    }

    /// Returns the running statistics.
    fn statistics(&self, network: &Network) -> Result<Vec<(Persistent, Vec<f64>)>> {
        let all = (0..network.statistics.len()).map(Persistent::Statistic);
        all.map(|which| Ok((which, read_values(self.session, which)?))).collect()
    }
}

impl Objective for BatchLoss<'_> {
    fn evaluate(&mut self, w: &[f64]) -> Result<(f64, Vec<f64>)> {
        self.set(w)?;
        for Part { variant, batch, clock } in &mut self.parts {
            self.loss = self.session.run(*variant, batch, *clock)?.loss;
        }
        let (mut value, mut gradient) = (self.loss, Vec::with_capacity(w.len()));
        for Trained { parameter, range, decay } in self.trained {
            let own = read_values(self.session, Persistent::Gradient(*parameter))?;
            value += 0.5 * decay * w[range.clone()].iter().map(|w| w * w).sum::<f64>();
            gradient.extend(own.iter().zip(&w[range.clone()]).map(|(g, w)| g + decay * w));
        }
        Ok((value, gradient))
    }

    fn product(&mut self, w: &[f64], v: &[f64]) -> Result<Vec<f64>> {
        let duals = self.duals.as_mut().expect("the method uses products");
        for Trained { parameter, range, .. } in self.trained {
            let pairs = w[range.clone()].iter().zip(&v[range.clone()]);
            let values: Vec<Dual> = pairs.map(|(&re, &eps)| Dual { re, eps }).collect();
            duals.write(Persistent::Parameter(*parameter), &values)?;
        }
        for Part { variant, batch, clock } in &mut self.parts {
            duals.run(*variant, batch, *clock)?;
        }
        let mut product = Vec::with_capacity(v.len());
        for Trained { parameter, range, decay } in self.trained {
            let own: Vec<Dual> = duals.read(Persistent::Gradient(*parameter))?;
            product.extend(own.iter().zip(&v[range.clone()]).map(|(g, v)| g.eps + decay * v));
        }
        Ok(product)
    }
}
