//! Resolves the layout that each layer works in, from its split, the layout of its input, and the requirements of the
//! layers after it.

use crate::error::{Fault, Problem};
use crate::layers::{Activation, LayerContext, LayerPhases, Mode, Role, Split};
use crate::network::{Network, Source};
use crate::tensor::{Axis, Dim, Mesh, Placement};

/// A node with its layouts.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The placement that it requires of its inputs along the columns axis.
    pub place: Placement,
    /// The placement of its output along the columns axis.
    pub output: Placement,
    /// Its phases.
    pub phases: LayerPhases,
}

impl Resolved {
    /// Returns true if the node's output is its input.
    pub fn is_view(&self) -> bool {
        self.phases.forward.is_empty() && self.phases.backward.is_empty()
    }
}

/// Resolves every node.
///
/// # Errors
/// Every split that does not suit its layer.
pub fn resolve(network: &Network, mesh: Mesh, mode: Mode, rows: usize) -> Result<Vec<Resolved>, Vec<Problem>> {
    let mut resolved: Vec<Resolved> = Vec::with_capacity(network.nodes.len());
    let mut problems = Vec::new();
    for index in 0..network.nodes.len() {
        let incoming = match network.nodes[index].inputs[0] {
            Source::Images => Placement::Replicate,
            Source::Node(n) => resolved[n].output,
        };
        match resolve_node(network, index, incoming, mesh, mode, rows) {
            Ok(node) => resolved.push(node),
            Err(fault) => {
                let node = &network.nodes[index];
                problems.push(node.locations.problem(&format!("layer \"{}\"", node.name), &fault));
                let phases = LayerPhases {
                    params: vec![],
                    statistics: vec![],
                    saved: vec![],
                    forward: vec![],
                    backward: vec![],
                };
                resolved.push(Resolved { place: Placement::Replicate, output: Placement::Replicate, phases });
            }
        }
    }
    if problems.is_empty() { Ok(resolved) } else { Err(problems) }
}

fn resolve_node(
    network: &Network,
    index: usize,
    incoming: Placement,
    mesh: Mesh,
    mode: Mode,
    rows: usize,
) -> Result<Resolved, Fault> {
    let node = &network.nodes[index];
    let keep =
        |incoming| node.layer.preferred_input(node.input_shapes[0], incoming, node.split, mesh).unwrap_or(incoming);
    let place = match keep(incoming) {
        // The layer chooses as if its input already had the placement that a later layer requires.
        Placement::Partial => keep(wanted_later(network, index, mesh)),
        place => place,
    };
    for input in &node.input_shapes {
        if place == Placement::Shard(Dim::CHANNELS) && !input.c.is_multiple_of(mesh.columns) {
            return Err(does_not_divide(*input, mesh));
        }
    }
    let cx = LayerContext {
        inputs: &node.input_shapes,
        output: node.output,
        place,
        split: node.split.unwrap_or(Split::Columns),
        mesh,
        mode,
        batch: rows,
        frozen: network.is_frozen(index),
    };
    let phases = node.layer.phases(&cx).map_err(|fault| match cx.split {
        Split::Columns if !node.output.c.is_multiple_of(mesh.columns) && gives_to_loss(network, index) => Fault {
            key: fault.key,
            message: format!(
                "its {} outputs, which the targets require, do not divide evenly among {} devices (split = \"columns\"); use \
                 split = \"none\" or \"batch\"",
                node.output.c, mesh.columns
            ),
        },
        _ => fault,
    })?;
    let required = phases.forward.iter().flat_map(|phase| &phase.operands);
    let y = required.filter(|o| o.role == Role::Y).map(|o| o.layout.on(Axis::Columns)).next_back();
    let view = phases.forward.is_empty();
    let output = y.unwrap_or(if view { place } else { Placement::Replicate });
    Ok(Resolved { place, output, phases })
}

/// Returns the placement that the next layer with a preference requires: a partial tensor is never fed to a non-linear
/// layer, but reduced directly to this placement.
fn wanted_later(network: &Network, index: usize, mesh: Mesh) -> Placement {
    let shape = network.nodes[index].input_shapes[0];
    let mut at = index;
    loop {
        let next = (at + 1..network.nodes.len()).find(|&n| network.nodes[n].inputs.contains(&Source::Node(at)));
        let Some(next) = next else { return Placement::Replicate };
        let node = &network.nodes[next];
        match node.layer.preferred_input(node.input_shapes[0], Placement::Replicate, node.split, mesh) {
            Some(Placement::Shard(Dim::CHANNELS)) if !shape.c.is_multiple_of(mesh.columns) => {
                return Placement::Replicate;
            }
            Some(Placement::Partial) => return Placement::Replicate,
            Some(place) => return place,
            None => at = next,
        }
    }
}

/// Returns true if no layer with parameters uses a node's output, also through others, so that losses compare its
/// channels with the targets.
fn gives_to_loss(network: &Network, index: usize) -> bool {
    let mut after = vec![false; network.nodes.len()];
    after[index] = true;
    for (later, node) in network.nodes.iter().enumerate().skip(index + 1) {
        after[later] = node.inputs.iter().any(|input| matches!(input, Source::Node(n) if after[*n]));
        if after[later] && !node.params.is_empty() {
            return false;
        }
    }
    true
}

fn does_not_divide(input: Activation, mesh: Mesh) -> Fault {
    Fault::at(
        "split",
        format!(
            "its input has {} channels, which do not divide evenly among {} columns; change their number or use \
             split = \"none\" or \"batch\"",
            input.c, mesh.columns
        ),
    )
}
