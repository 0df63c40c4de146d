//! The singular values of the Jacobian of each layer, dy / dx, and of the whole network, at the values with which training begins (Saxe et al. 2014,
//! <https://arxiv.org/abs/1312.6120>): errors grow or shrink by these factors on their way back.
//!
//! The samples of a batch are one input: without layers that normalise over the batch, its Jacobian consists of one block for each sample. Products are exact:
//! J v by dual numbers, J' u by the backward pass. The method of Lanczos on J' J, or on J J' if the outputs are fewer, finds the extreme singular
//! values, and from the shares of all their root mean square.

use super::hessian::lanczos;
use super::init::InitialNetwork;
use crate::device::{Random, RandomStream};
use crate::error::{Error, Result};
use crate::layers::Role;
use crate::network::{Node, Source};
use crate::tensor::Dual;
use serde::Serialize;

/// The singular values of a Jacobian.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerJacobian {
    /// The layer; none for the whole network.
    pub name: Option<String>,
    /// The kind of the layer.
    pub kind: Option<&'static str>,
    /// The values of a sample that it reads, those of its first input.
    pub inputs: usize,
    /// The values of a sample that it writes.
    pub outputs: usize,
    /// The largest singular value.
    pub largest: f64,
    /// The root mean square of the singular values.
    pub mean: f64,
    /// The smallest singular value that was found.
    pub smallest: f64,
}

/// Where a Jacobian begins and ends.
#[derive(Debug, Clone, Copy)]
enum Span<'a> {
    /// At the first input and the output of a layer.
    Layer(&'a Node),
    /// At the images and the output of a node.
    Network(usize),
}

/// The outputs of all nodes up to the losses, and a place to run them from.
struct Values<'a> {
    network: &'a InitialNetwork,
    images: Vec<f64>,
    outputs: Vec<Vec<f64>>,
}

impl InitialNetwork {
    /// Computes the singular values for all layers but losses, then of the whole network up to its first loss. Calls `report` after each.
    ///
    /// # Errors
    /// A layer that fails.
    pub fn jacobians(&self, steps: usize, mut report: impl FnMut()) -> Result<Vec<LayerJacobian>> {
        let nodes = &self.job.network.nodes;
        let images: Vec<f64> = self.images().iter().map(|&x| f64::from(x)).collect();
        let mut values = Values { network: self, images, outputs: Vec::new() };
        let mut all = Vec::new();
        for node in nodes {
            if node.is_loss() {
                values.outputs.push(Vec::new());
                continue;
            }
            let y = self.run(node, &values.inputs(node), false)?.values(Role::Y).to_vec();
            values.outputs.push(y);
            all.push(values.jacobian(Span::Layer(node), steps)?);
            report();
        }
        let loss = self.job.network.losses().next();
        if let Some(Source::Node(last)) = loss.map(|loss| loss.inputs[0]) {
            all.push(values.jacobian(Span::Network(last), steps)?);
            report();
        }
        Ok(all)
    }

    /// Returns how often [`InitialNetwork::jacobians`] reports.
    pub fn num_jacobians(&self) -> usize {
        self.job.network.nodes.iter().filter(|node| !node.is_loss()).count() + 1
    }
}

impl Values<'_> {
    fn source(&self, source: Source) -> &[f64] {
        match source {
            Source::Node(before) => &self.outputs[before],
            Source::Images => &self.images,
        }
    }

    fn inputs(&self, node: &Node) -> Vec<Vec<f64>> {
        node.inputs.iter().map(|&source| self.source(source).to_vec()).collect()
    }

    /// Returns the numbers of values of the whole batch at both ends.
    fn sizes(&self, span: Span) -> [usize; 2] {
        let rows = self.network.samples();
        match span {
            Span::Layer(node) => [node.input_shapes[0].features() * rows, node.output.features() * rows],
            Span::Network(last) => [self.images.len(), self.network.job.network.nodes[last].output.features() * rows],
        }
    }

    fn jacobian(&self, span: Span, steps: usize) -> Result<LayerJacobian> {
        let ([inputs, outputs], rows) = (self.sizes(span), self.network.samples());
        let random = Random::new(self.network.job.config.seed, RandomStream::Probe, 8, 0);
        let fewer = inputs.min(outputs);
        let start = (0..fewer as u64).map(|i| random.normal(i)).collect();
        let found = lanczos(start, steps.min(fewer), |v| match inputs <= outputs {
            true => self.transposed(span, &self.product(span, v)?),
            false => self.product(span, &self.transposed(span, v)?),
        })?;
        let roots = found.iter().map(|one| one.value.max(0.0).sqrt());
        let (name, kind) = match span {
            Span::Layer(node) => (Some(node.name.clone()), Some(node.layer.key())),
            Span::Network(_) => (None, None),
        };
        Ok(LayerJacobian {
            name,
            kind,
            inputs: inputs / rows,
            outputs: outputs / rows,
            largest: roots.clone().fold(0.0, f64::max),
            mean: found.iter().map(|one| one.share * one.value.max(0.0)).sum::<f64>().sqrt(),
            smallest: roots.fold(f64::INFINITY, f64::min),
        })
    }

    /// Returns J v.
    fn product(&self, span: Span, v: &[f64]) -> Result<Vec<f64>> {
        let moved = |x: &[f64]| -> Vec<Dual> { x.iter().zip(v).map(|(&re, &eps)| Dual { re, eps }).collect() };
        let still = |x: &[f64]| -> Vec<Dual> { x.iter().map(|&re| Dual { re, eps: 0.0 }).collect() };
        let slopes = |y: &[Dual]| y.iter().map(|y| y.eps).collect();
        match span {
            Span::Layer(node) => {
                let mut inputs: Vec<Vec<Dual>> = node.inputs.iter().map(|&source| still(self.source(source))).collect();
                inputs[0] = moved(self.source(node.inputs[0]));
                Ok(slopes(self.network.run(node, &inputs, false)?.values(Role::Y)))
            }
            Span::Network(last) => {
                let images = moved(&self.images);
                let mut outputs: Vec<Vec<Dual>> = Vec::new();
                for node in &self.network.job.network.nodes[..=last] {
                    let input = |source: &Source| match source {
                        Source::Node(before) => outputs[*before].clone(),
                        Source::Images => images.clone(),
                    };
                    let inputs: Vec<Vec<Dual>> = node.inputs.iter().map(input).collect();
                    let y = match node.is_loss() {
                        true => Vec::new(),
                        false => self.network.run(node, &inputs, false)?.values(Role::Y).to_vec(),
                    };
                    outputs.push(y);
                }
                Ok(slopes(&outputs[last]))
            }
        }
    }

    /// Returns J' u.
    fn transposed(&self, span: Span, u: &[f64]) -> Result<Vec<f64>> {
        let back = |node: &Node, dy: &[f64]| -> Result<Vec<Vec<f64>>> {
            let mut layer = self.network.run(node, &self.inputs(node), true)?;
            layer.values_mut(Role::Dy).copy_from_slice(dy);
            layer.backward()?;
            Ok((0..node.inputs.len()).map(|input| layer.values(Role::Dx(input)).to_vec()).collect())
        };
        match span {
            Span::Layer(node) => Ok(back(node, u)?.swap_remove(0)),
            Span::Network(last) => {
                let mut gradients: Vec<Vec<f64>> = self.outputs.iter().map(|y| vec![0.0; y.len()]).collect();
                gradients[last].copy_from_slice(u);
                let mut of_images = vec![0.0; self.images.len()];
                for (index, node) in self.network.job.network.nodes[..=last].iter().enumerate().rev() {
                    let dy = std::mem::take(&mut gradients[index]);
                    if node.is_loss() || dy.iter().all(|dy| *dy == 0.0) {
                        continue;
                    }
                    for (dx, source) in back(node, &dy)?.iter().zip(&node.inputs) {
                        let to = match source {
                            Source::Node(before) => &mut gradients[*before],
                            Source::Images => &mut of_images,
                        };
                        to.iter_mut().zip(dx).for_each(|(sum, dx)| *sum += dx);
                    }
                }
                match of_images.iter().all(|x| x.is_finite()) {
                    true => Ok(of_images),
                    false => Err(Error::NotFinite("gradients are not finite; use smaller initial values".into())),
                }
            }
        }
    }
}
