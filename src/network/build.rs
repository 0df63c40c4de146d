//! Builds the network from the layers of the file: inputs, shapes, parameters, and every mistake in them.

use super::{Network, Node, Parameter, Source};
use crate::config::{IMAGES, LayerEntry, Model};
use crate::error::{Fault, MOST_LISTED, Problem, quantity, suggest};
use crate::layers::init::Kaiming;
use crate::layers::{Activation, Init, Layer, Param};
use crate::tensor::Shape;
use std::collections::HashMap;
use std::sync::Arc;

/// The largest number of elements of one sample and of one parameter.
const MOST_ELEMENTS: usize = 1 << 36;
/// The number of names that a message lists.
const MOST_NAMES: usize = 100;
/// The gain of the initial weights of a last layer.
const SMALL: f64 = 0.1;

/// Builds the network of a model.
///
/// # Errors
/// All problems of the network. A layer whose settings are wrong is skipped; its problems have been reported already.
pub fn build(model: &Model) -> Result<Network, Vec<Problem>> {
    let mut builder = GraphBuilder {
        model,
        network: Network { input: model.input, nodes: vec![], parameters: vec![], statistics: vec![], metrics: vec![] },
        outputs: vec![],
        names: HashMap::new(),
        used: vec![false; model.layers.len()],
        problems: vec![],
        complete: true,
        inputs_known: model.layers.iter().chain(&model.losses).all(|entry| entry.layer.is_some()),
    };
    for (index, entry) in model.layers.iter().enumerate() {
        builder.names.entry(&entry.name).or_insert((index, index)).1 = index;
    }
    for (index, entry) in model.layers.iter().enumerate() {
        builder.name(index);
        builder.add(index, entry);
    }
    for (index, entry) in model.losses.iter().enumerate() {
        builder.name_of_loss(index);
        builder.add(model.layers.len() + index, entry);
    }
    builder.unused();
    if builder.complete && builder.problems.is_empty() && builder.network.parameters.is_empty() {
        let fault = Fault::at("layers", "no layer has parameters, so there is nothing to learn; add a dense layer");
        builder.problems.push(model.locations.problem("[model]", &fault));
    }
    match builder.problems.is_empty() && builder.complete {
        true => {
            builder.network.name_metrics();
            builder.start_small();
            Ok(builder.network)
        }
        false => Err(builder.problems),
    }
}

struct GraphBuilder<'m> {
    model: &'m Model,
    network: Network,
    /// The output of each entry so far; `None` if the entry has a mistake.
    outputs: Vec<Option<Activation>>,
    /// The first and the last entry of each name.
    names: HashMap<&'m str, (usize, usize)>,
    /// Whether a later entry uses the output of this one.
    used: Vec<bool>,
    problems: Vec<Problem>,
    /// False once a layer was skipped.
    complete: bool,
    /// False once the inputs of some layer are unknown.
    inputs_known: bool,
}

impl GraphBuilder<'_> {
    fn fault(&mut self, entry: &LayerEntry, fault: &Fault) {
        self.problems.push(entry.locations.problem(&format!("layer \"{}\"", entry.name), fault));
    }

    /// Gives the last layers with parameters small initial values, unless the file has others, so that the first outputs are near
    /// 0: the first loss of a classifier is then about ln(classes).
    fn start_small(&mut self) {
        if self.model.init.is_some() {
            return;
        }
        for loss in self.model.layers.len()..self.network.nodes.len() {
            let mut node = loss;
            // What is between the loss and its last layer with parameters has one input each.
            while let [Source::Node(before)] = self.network.nodes[node].inputs[..] {
                node = before;
                if !self.network.nodes[node].params.is_empty() {
                    break;
                }
            }
            let params = self.network.nodes[node].params.clone();
            if node >= self.model.layers.len() || self.model.layers[node].init.is_some() {
                continue;
            }
            for index in params {
                let parameter = &mut self.network.parameters[index];
                if parameter.param.init.is_none() {
                    parameter.init = Init::of(Kaiming { gain: SMALL, ..Kaiming::default() });
                }
            }
        }
    }

    /// Reports a name that is already in use.
    fn name(&mut self, index: usize) {
        let entry = &self.model.layers[index];
        let name = &entry.name;
        let earlier = self.names.get(&**name).filter(|(first, _)| *first < index);
        let taken = match earlier {
            Some(&(first, _)) => format!("the layer at {}", self.model.layers[first].locations.whole),
            None if self.model.losses.iter().any(|loss| loss.name == *name) => "the loss".to_string(),
            None if name == IMAGES => "the images of the batch".to_string(),
            None => return,
        };
        let message = format!("name \"{name}\" is already the name of {taken}; choose another name");
        self.fault(entry, &Fault::at("name", message));
    }

    /// Reports a loss with the name of an earlier one.
    fn name_of_loss(&mut self, index: usize) {
        let (entry, losses) = (&self.model.losses[index], &self.model.losses);
        if let Some(first) = losses[..index].iter().find(|other| other.name == entry.name) {
            let taken = format!("the loss at {}", first.locations.whole);
            let message = format!("name \"{}\" is already the name of {taken}; choose another name", entry.name);
            self.fault(entry, &Fault::at("name", message));
        }
    }

    /// Adds the node of an entry, or reports why that is impossible.
    fn add(&mut self, index: usize, entry: &LayerEntry) {
        let output = self.node(index, entry);
        self.complete &= output.is_some();
        self.outputs.push(output);
    }

    fn node(&mut self, index: usize, entry: &LayerEntry) -> Option<Activation> {
        let inputs = self.inputs(index, entry);
        let layer = entry.layer.as_ref()?;
        let inputs = inputs?;
        if !self.takes(entry, layer, inputs.len()) {
            return None;
        }
        let shape = |input: &Source| match input {
            Source::Images => Some(self.model.input),
            Source::Node(node) => self.outputs[*node],
        };
        let shapes: Vec<Activation> = inputs.iter().map(shape).collect::<Option<_>>()?;
        let checked = self.role(index, layer, shapes[0]).map_err(|fault| (entry, fault));
        // An output that a loss cannot use is a mistake of the layer.
        let at = match inputs[0] {
            Source::Node(node) if index >= self.model.layers.len() => &self.model.layers[node],
            _ => entry,
        };
        let checked = checked.and_then(|()| {
            let output = layer.output(&shapes).map_err(|fault| (at, fault))?;
            fits([output.h, output.w, output.c], "the output").map_err(|fault| (at, fault))?;
            Ok(output)
        });
        let output = match checked {
            Ok(output) => output,
            Err((entry, fault)) => {
                self.fault(entry, &fault);
                return None;
            }
        };
        let (params, statistics) = (layer.params(&shapes), layer.statistics(&shapes));
        for param in params.iter().chain(&statistics) {
            if let Err(fault) = fits(param.shape.0.iter().copied(), param.name) {
                self.fault(entry, &fault);
                return None;
            }
        }
        self.settings(entry, layer, &params);
        let node = Node {
            name: entry.name.clone(),
            layer: Arc::clone(layer),
            inputs,
            input_shapes: shapes,
            output,
            split: entry.split,
            loss_weight: entry.loss_weight,
            params: self.keep(entry, params, |network| &mut network.parameters),
            statistics: self.keep(entry, statistics, |network| &mut network.statistics),
            locations: entry.locations.clone(),
        };
        self.network.nodes.push(node);
        Some(output)
    }

    /// Finds the inputs of an entry and marks them as used.
    fn inputs(&mut self, index: usize, entry: &LayerEntry) -> Option<Vec<Source>> {
        let layers = self.model.layers.len();
        let Some(names) = &entry.inputs else {
            // The losses follow the last layer.
            let Some(previous) = index.min(layers).checked_sub(1) else { return Some(vec![Source::Images]) };
            self.used[previous] = true;
            return Some(vec![Source::Node(previous)]);
        };
        let mut sources = Vec::new();
        let mut complete = true;
        for name in names {
            let of_name = self.names.get(&**name).copied();
            if name == IMAGES {
                sources.push(Source::Images);
            } else if let Some((first, _)) = of_name.filter(|(first, _)| *first < index) {
                self.used[first] = true;
                sources.push(Source::Node(first));
            } else {
                complete = false;
                let message = match of_name {
                    Some(_) => format!("input \"{name}\" does not come before this layer; move it up"),
                    None => self.unknown_input(index, name),
                };
                self.fault(entry, &Fault::at("inputs", message));
            }
        }
        self.inputs_known &= complete;
        complete.then_some(sources)
    }

    /// Returns the message for an input that no layer has as its name.
    fn unknown_input(&self, index: usize, name: &str) -> String {
        // Of very many problems, only the first are printed.
        if self.problems.len() > MOST_LISTED {
            return format!("unknown input \"{name}\"");
        }
        let before = index.min(self.model.layers.len());
        let earlier = self.model.layers[..before].iter().map(|other| other.name.as_str());
        let near = suggest(name, earlier.clone().chain([IMAGES]));
        let (hidden, which) = match before.saturating_sub(MOST_NAMES) {
            0 => (0, String::new()),
            hidden => (hidden, format!("the last {MOST_NAMES} ")),
        };
        let known: Vec<&str> = earlier.skip(hidden).chain([IMAGES]).collect();
        format!("unknown input \"{name}\"{near}; {which}layers before this one: {}", known.join(", "))
    }

    /// Checks the number of inputs of a layer.
    fn takes(&mut self, entry: &LayerEntry, layer: &Arc<dyn Layer>, count: usize) -> bool {
        let takes = layer.num_inputs();
        if takes.contains(&count) {
            return true;
        }
        let (least, most) = (*takes.start(), *takes.end());
        let expected = match (least, most) {
            _ if least == most => format!("{least}"),
            (_, usize::MAX) => format!("at least {least}"),
            _ => format!("{least} to {most}"),
        };
        let message = format!(
            "{}, expected {expected}; write inputs = [..] with the names of earlier layers",
            quantity(count as u64, "input")
        );
        self.fault(entry, &Fault::at("inputs", message));
        false
    }

    /// Checks that losses are listed as losses, and other layers as layers.
    fn role(&self, index: usize, layer: &Arc<dyn Layer>, x: Activation) -> Result<(), Fault> {
        let kind = layer.key();
        match (layer.targets(x).is_some(), index >= self.model.layers.len()) {
            (true, false) => {
                Err(Fault::whole(format!("{kind} is a loss, expected a layer; write loss = \"{kind}\" after the list")))
            }
            (false, true) => Err(Fault::whole(format!("{kind} is not a loss; use loss = \"softmax_cross_entropy\""))),
            _ => Ok(()),
        }
    }

    /// Checks the settings that all layers have in common.
    fn settings(&mut self, entry: &LayerEntry, layer: &Arc<dyn Layer>, params: &[Param]) {
        let (kind, splits) = (layer.key(), layer.splits());
        if let Some(split) = entry.split.filter(|split| !splits.contains(split)) {
            let known: Vec<String> = splits.iter().map(|split| format!("\"{split}\"")).collect();
            let message = match known.is_empty() {
                true => format!("split has no effect: {kind} keeps the layout of its input; remove it"),
                false => format!("split = \"{split}\" does not fit {kind}, expected one of: {}", known.join(", ")),
            };
            self.fault(entry, &Fault::at("split", message));
        }
        let without = |key, what| Fault::at(key, format!("{key} has no effect: {kind} has no {what}; remove it"));
        let given = |key: &str| entry.locations.keys.iter().any(|(k, _)| k == key);
        if params.is_empty() {
            for key in ["lr_mult", "decay_mult"].into_iter().filter(|key| given(key)) {
                self.fault(entry, &without(key, "parameters"));
            }
        }
        let known: Vec<&str> = params.iter().map(|param| param.name).collect();
        for (key, multiplier) in [("lr_mult", &entry.lr_mult), ("decay_mult", &entry.decay_mult)] {
            for name in multiplier.named.keys().filter(|name| !params.is_empty() && !known.contains(&name.as_str())) {
                let near = suggest(name, known.iter().copied());
                let known = known.join(", ");
                let message = format!("{key}: {kind} has no parameter \"{name}\"{near}, expected one of: {known}");
                self.fault(entry, &Fault::at(key, message));
            }
        }
        if entry.init.is_some() && params.iter().all(|param| param.init.is_some()) {
            let what = if params.is_empty() { "parameters" } else { "parameters that init applies to" };
            self.fault(entry, &without("init", what));
        }
    }

    /// Adds parameters or running statistics to the network and returns their indices.
    fn keep(
        &mut self,
        entry: &LayerEntry,
        params: Vec<Param>,
        list: fn(&mut Network) -> &mut Vec<Parameter>,
    ) -> Vec<usize> {
        let default = entry.init.as_ref().or(self.model.init.as_ref()).cloned();
        let default = default.unwrap_or_else(|| Init::of(Kaiming::default()));
        let list = list(&mut self.network);
        let first = list.len();
        list.extend(params.into_iter().map(|param| Parameter {
            name: format!("{}.{}", entry.name, param.name),
            init: param.init.clone().unwrap_or_else(|| default.clone()),
            lr_mult: entry.lr_mult.of(param.name),
            group: 0,
            decay_mult: entry.decay_mult.of(param.name),
            param,
        }));
        (first..list.len()).collect()
    }

    /// Reports outputs that no layer uses, if the inputs of all layers are known.
    fn unused(&mut self) {
        let entries = &self.model.layers;
        for (index, entry) in entries.iter().enumerate() {
            if self.inputs_known && !self.used[index] {
                let message = "nothing uses its output; name it in the inputs of a later layer, or remove it";
                self.fault(entry, &Fault::whole(message));
            }
        }
    }
}

/// Checks that a tensor is neither empty nor larger than any memory.
fn fits(dims: impl IntoIterator<Item = usize>, what: &str) -> Result<(), Fault> {
    let dims: Vec<usize> = dims.into_iter().collect();
    let elements = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    if elements.is_some_and(|n| n > 0 && n <= MOST_ELEMENTS) {
        return Ok(());
    }
    let what = format!("{what} of shape {}", Shape(dims));
    Err(Fault::whole(match elements {
        Some(0) => format!("{what} is empty, expected at least 1 in each dimension"),
        _ => format!("{what} has more than {MOST_ELEMENTS} elements; make the layer smaller"),
    }))
}
