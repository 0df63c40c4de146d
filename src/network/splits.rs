//! Gives each layer without a split of its own the one that `devices.split` says.

use super::graph::{Network, Node};
use crate::config::SplitRule;
use crate::error::quantity;
use crate::layers::{LayerContext, Mode, Split};
use crate::tensor::{Dim, Mesh, Placement};

/// The most layers that a note names.
const NAMED: usize = 3;

/// Applies a rule to the layers of a network on a mesh. Returns a note on the layers that cannot be divided so.
pub(super) fn assign(rule: &SplitRule, mesh: Mesh, network: &mut Network) -> Option<String> {
    if mesh.columns == 1 {
        return None;
    }
    let mut excepted: Vec<(&str, Split)> = Vec::new();
    for node in network.nodes.iter_mut().filter(|node| node.split.is_none()) {
        let kind = rule.kinds.get(node.layer.key()).copied();
        // Other layers keep the layout of their input.
        let has_own = !node.params.is_empty()
            && node.layer.preferred_input(node.input_shapes[0], Placement::Replicate, None, mesh).is_some();
        let split = match kind {
            Some(split) => split,
            None if has_own => rule.all,
            None => continue,
        };
        let splits = node.layer.splits();
        if divides(node, split, mesh) {
            // Columns are the default: layers that say nothing may then choose.
            node.split = Some(split).filter(|&split| split != Split::Columns || kind.is_some());
        } else if splits.contains(&Split::Batch) {
            excepted.push((node.name.as_str(), split));
            node.split = Some(Split::Batch);
        }
    }
    let &(_, split) = excepted.first()?;
    let names: Vec<&str> = excepted.iter().take(NAMED).map(|&(name, _)| name).collect();
    let more = match excepted.len() - names.len() {
        0 => String::new(),
        more => format!(" and {}", quantity(more as u64, "more layer")),
    };
    let columns = quantity(mesh.columns as u64, "column");
    let names = names.join(", ");
    let have = if excepted.len() == 1 { "it has" } else { "they have" };
    Some(format!("[devices]: {names}{more} cannot have split = \"{split}\" on {columns}; {have} split = \"batch\""))
}

/// Returns whether a layer can be divided so.
fn divides(node: &Node, split: Split, mesh: Mesh) -> bool {
    let input = node.input_shapes[0];
    let place = node.layer.preferred_input(input, Placement::Replicate, Some(split), mesh);
    let place = place.unwrap_or(Placement::Replicate);
    let shards = place == Placement::Shard(Dim::CHANNELS);
    if !node.layer.splits().contains(&split)
        || (shards && node.input_shapes.iter().any(|input| !input.c.is_multiple_of(mesh.columns)))
    {
        return false;
    }
    let (inputs, output) = (&node.input_shapes, node.output);
    let cx = LayerContext { inputs, output, place, split, mesh, mode: Mode::Train, batch: 1, frozen: false };
    node.layer.phases(&cx).is_ok()
}
