//! Every layer's `examples()` inside a network, under every split that the layer declares, on up to four columns. A
//! new layer is included once it is in the list of layers.

use crate::common::outcome::{Outcome, Where};
use peristyle::collectives::CollectiveAlgorithm;
use peristyle::error::{Locations, Problem};
use peristyle::layers::{self, Activation, Layer, Split};
use peristyle::network::{Network, Node, Parameter, Source};
use peristyle::tensor::Mesh;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sums of a few hundred f64 terms in a different order, through three layers; batch norm amplifies the most.
const TOLERANCE: f64 = 1e-11;

fn read(kind: &str, settings: &str) -> Arc<dyn Layer> {
    let settings = toml::de::ValueDeserializer::parse(settings).unwrap();
    Arc::from(layers::read(kind, settings).unwrap().unwrap())
}

fn is_loss(layer: &dyn Layer, inputs: &[Activation]) -> bool {
    layer.targets(inputs[0]).is_some()
}

fn push(network: &mut Network, layer: Arc<dyn Layer>, inputs: Vec<Source>, split: Option<Split>) -> Source {
    let shape = |source: &Source| match source {
        Source::Images => network.input,
        Source::Node(n) => network.nodes[*n].output,
    };
    let input_shapes: Vec<Activation> = inputs.iter().map(shape).collect();
    let output = layer.output(&input_shapes).unwrap();
    let name = format!("l{}", network.nodes.len());
    let parameter = |param: layers::Param| Parameter {
        name: format!("{name}.{}", param.name),
        init: param.init.clone().unwrap_or_else(|| layers::Init::of(layers::init::Kaiming::default())),
        lr_mult: 1.0,
        group: 0,
        decay_mult: 1.0,
        param,
    };
    let (first, first_state) = (network.parameters.len(), network.statistics.len());
    network.parameters.extend(layer.params(&input_shapes).into_iter().map(parameter));
    network.statistics.extend(layer.statistics(&input_shapes).into_iter().map(parameter));
    let (params, statistics) =
        ((first..network.parameters.len()).collect(), (first_state..network.statistics.len()).collect());
    let locations = Locations::default();
    network.nodes.push(Node {
        name,
        layer,
        inputs,
        input_shapes,
        output,
        split,
        params,
        statistics,
        loss_weight: 1.0,
        locations,
    });
    Source::Node(network.nodes.len() - 1)
}

/// Builds a network: images, a convolution for each input of the layer, the layer, a dense layer, the loss.
fn around(layer: &Arc<dyn Layer>, inputs: &[Activation], before: Split, split: Option<Split>) -> Arc<Network> {
    let Activation { h, w, .. } = inputs[0];
    let input = Activation::new(h, w, 4);
    let mut network = Network { input, nodes: vec![], parameters: vec![], statistics: vec![], metrics: vec![] };
    let sources = inputs.iter().map(|input| {
        let conv = read("conv", &format!("{{ filters = {}, kernel = 1 }}", input.c));
        let conv = push(&mut network, conv, vec![Source::Images], Some(before));
        if input.flat { push(&mut network, read("flatten", "{}"), vec![conv], None) } else { conv }
    });
    let sources: Vec<Source> = sources.collect();
    let loss = is_loss(&**layer, inputs);
    let mut last = push(&mut network, Arc::clone(layer), sources, split);
    if !loss {
        last = push(&mut network, read("dense", "{ units = 5 }"), vec![last], Some(Split::None));
        push(&mut network, read("softmax_cross_entropy", "{}"), vec![last], None);
    }
    network.name_metrics();
    Arc::new(network)
}

#[test]
fn every_example_is_the_same_under_every_split_in_a_network() {
    let meshes = [(1, 2), (1, 4), (2, 2)].map(|(data, columns)| Mesh { data, columns });
    let mut worst = 0.0f64;
    let mut runs = 0;
    let mut by_split = BTreeMap::new();
    for (layer, inputs) in layers::all_examples() {
        let layer: Arc<dyn Layer> = Arc::from(layer);
        let splits = layer.splits().iter().copied().map(Some).chain([None]);
        for split in splits {
            let (mut accepted, mut refusals) = (0, Vec::new());
            for before in [Split::None, Split::Columns, Split::Rows, Split::Batch] {
                let network = around(&layer, &inputs, before, split);
                let whole = Where { mesh: Mesh::ONE, algorithm: CollectiveAlgorithm::OnePass, staged: false, rows: 3 };
                let whole = match Outcome::of(&network, whole) {
                    Ok(whole) => whole,
                    Err(problems) => {
                        refusals.extend(problems);
                        continue;
                    }
                };
                for mesh in meshes {
                    let algorithm =
                        if before == Split::None { CollectiveAlgorithm::Ring } else { CollectiveAlgorithm::OnePass };
                    let at = Where { mesh, algorithm, staged: false, rows: 3 };
                    match Outcome::of(&network, at) {
                        Ok(outcome) => {
                            let (difference, name) = outcome.difference(&whole);
                            worst = worst.max(difference);
                            assert!(
                                difference <= TOLERANCE,
                                "{layer:?} with {split:?} after {before:?} on {mesh}: {name} differs by {difference:e}"
                            );
                            accepted += 1;
                        }
                        Err(problems) => refusals.extend(problems),
                    }
                }
            }
            runs += accepted;
            let fits = |p: &Problem| p.message.contains("divide") || p.message.contains("groups");
            assert!(accepted > 0 || refusals.iter().all(fits), "{layer:?} rejects {split:?}: {refusals:?}");
            let split = split.map_or("no split".to_string(), |split| split.to_string());
            *by_split.entry((layer.key(), split)).or_insert(0) += accepted;
        }
    }
    let refused: Vec<_> = by_split.iter().filter(|(_, accepted)| **accepted == 0).collect();
    assert!(refused.is_empty(), "no example supports the splits {refused:?}");
    println!("{runs} networks, largest difference {worst:.1e}");
}
