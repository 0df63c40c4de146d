//! The weights that a run starts from, as named by `[model] from`: read and compared with the network before the first
//! step.

use super::exchange;
use super::weights::{TensorFile, open_model};
use crate::config::PretrainedWeights;
use crate::data::Base;
use crate::error::{Fault, Result, suggest};
use crate::network::{Network, Parameter};
use crate::program::{Persistent, Session};

/// The weights of a file that fit the network.
#[derive(Debug)]
pub struct Start {
    weights: TensorFile,
    /// The tensors that the network uses: which one, and its index in the file.
    taken: Vec<(Persistent, usize)>,
    /// Notes on tensors that keep their initial values, and on tensors that are not used.
    pub notes: Vec<String>,
}

impl Start {
    /// Opens the file.
    ///
    /// # Errors
    /// A file that cannot be read or is not a safetensors file.
    pub fn open(from: &PretrainedWeights, base: &Base) -> Result<TensorFile> {
        open_model(&base.find(&from.file)?)
    }

    /// Compares a file with the network.
    ///
    /// # Errors
    /// Unknown layers in `skip`, and every tensor of the wrong shape.
    pub fn new(weights: TensorFile, from: &PretrainedWeights, network: &Network) -> Result<Start, Vec<Fault>> {
        let fault = |message: String| Fault::at("from", message);
        let (own, file) = (tensors(network), weights.path.clone());
        let layer = |name: &str| name.rsplit_once('.').map_or(String::new(), |(layer, _)| layer.to_string());
        let mut faults = Vec::new();
        for skip in from.skip.iter().filter(|skip| !own.iter().any(|(_, p)| layer(&p.name) == **skip)) {
            let mut known: Vec<String> = own.iter().map(|(_, p)| layer(&p.name)).collect();
            known.dedup();
            let near = suggest(skip, known.iter().map(String::as_str));
            let list = known.join(", ");
            faults.push(fault(format!("skip: no layer \"{skip}\"{near} has parameters; expected one of: {list}")));
        }
        let (mut taken, mut kept, mut other) = (Vec::new(), Vec::new(), Vec::new());
        let mut skip = from.skip.clone();
        for (which, parameter) in &own {
            let found = weights.find(&parameter.name);
            let layer = layer(&parameter.name);
            let (name, expected) = (parameter.name.as_str(), &parameter.param.file_shape);
            match found.filter(|_| !from.skip.contains(&layer)) {
                Some(i) if weights.tensors[i].shape == *expected => taken.push((*which, i)),
                Some(i) => {
                    other.push(format!("{name} {}, expected {expected}", weights.tensors[i].shape));
                    if !skip.contains(&layer) {
                        skip.push(layer);
                    }
                }
                None => kept.push(name),
            }
        }
        if !other.is_empty() {
            faults.push(fault(format!(
                "tensors of {} have different shapes than the network's: {}; change these layers, or train them \
                 from scratch with from = {{ file = {:?}, skip = {skip:?} }}",
                file.display(),
                other.join("; "),
                from.file
            )));
        }
        if taken.is_empty() && faults.is_empty() {
            let names: Vec<&str> = own.iter().map(|(_, p)| p.name.as_str()).collect();
            let message =
                format!("{} has none of the network's tensors; expected {}", file.display(), names.join(", "));
            faults.push(fault(message));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let used = |i: usize| taken.iter().any(|&(_, used)| used == i);
        let unused = weights.tensors.iter().enumerate().filter(|&(i, _)| !used(i)).map(|(_, t)| t.name.as_str());
        let unused: Vec<&str> = unused.chain(weights.others.iter().map(String::as_str)).collect();
        let mut notes = vec![format!("starting from {}: {} of {} tensors", file.display(), taken.len(), own.len())];
        for (what, names) in [("keep their initial values", kept), ("of the file are not used", unused)] {
            if !names.is_empty() {
                notes.push(format!("from {}: {what}: {}", file.display(), names.join(", ")));
            }
        }
        Ok(Start { weights, taken, notes })
    }

    /// Copies the weights into the session.
    ///
    /// # Errors
    /// When the file can no longer be read.
    pub fn apply(&self, session: &mut Session, network: &Network) -> Result<()> {
        let own = tensors(network);
        for &(which, i) in &self.taken {
            let parameter = own.iter().find(|(w, _)| *w == which).map(|(_, p)| *p);
            let parameter = parameter.expect("the tensor was matched with this network");
            exchange::import(session, which, parameter, &self.weights, i)?;
        }
        Ok(())
    }
}

/// Returns parameters and running statistics: the contents of a model file.
pub(super) fn tensors(network: &Network) -> Vec<(Persistent, &Parameter)> {
    let parameters = network.parameters.iter().enumerate().map(|(i, p)| (Persistent::Parameter(i), p));
    parameters.chain(network.statistics.iter().enumerate().map(|(i, p)| (Persistent::Statistic(i), p))).collect()
}
