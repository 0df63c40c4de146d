//! What is unusual in a report.

use super::report::LayerReport;
use crate::train::watch::RECTIFIERS;

/// How many times smaller or larger a standard deviation is at one end of the hidden layers than at the other when activations
/// or gradients vanish or explode.
pub const FACTOR: f64 = 100.0;
/// The largest usual share of the saturated values of a layer.
pub const MOST_SATURATED: f64 = 0.5;
/// The largest usual share of dead units of a layer.
pub const MOST_DEAD: f64 = 0.2;

/// Returns a sentence on each thing that is unusual.
pub(super) fn verdict(layers: &[LayerReport], samples: usize) -> Vec<String> {
    let depth = |layer: &&LayerReport| layer.hidden_depth;
    let hidden = || layers.iter().filter(|layer| layer.hidden_depth.is_some());
    let mut found = Vec::new();
    // Of several, the first layer nearest to the images and the last one farthest from them.
    if let (Some(first), Some(deepest)) = (hidden().min_by_key(depth), hidden().max_by_key(depth)) {
        let (outputs, gradients) = (&deepest.activations.values, &first.gradients);
        if outputs.std == 0.0 {
            found.push(format!("activations vanish: those of {} are all the same", deepest.name));
        }
        found.extend(trend("activations", first, deepest, |layer| layer.activations.values.std));
        if [gradients.min, gradients.max] == [0.0; 2] {
            found.push(format!("gradients vanish: those of {} are all 0", first.name));
        }
        found.extend(trend("gradients", deepest, first, |layer| layer.gradients.std));
    }
    let saturated = |layer: &LayerReport| layer.activations.saturated.filter(|share| *share > MOST_SATURATED);
    found.extend(worst(layers, saturated).map(|(names, share)| {
        let most = percent(MOST_SATURATED);
        format!("saturated: more than {most} of the values of {names}{share} are in the flat parts of its function")
    }));
    let dies = |layer: &LayerReport| RECTIFIERS.contains(&layer.kind);
    let dead = |layer: &LayerReport| Some(layer.activations.dead).filter(|share| dies(layer) && *share > MOST_DEAD);
    found.extend(worst(layers, dead).map(|(names, share)| {
        let most = percent(MOST_DEAD);
        format!("dead units: more than {most} of the units of {names}{share} are 0 for all {samples} samples")
    }));
    found
}

/// Returns the sentence on values whose standard deviation, if it is not 0, changes much from one layer to another.
fn trend(what: &str, from: &LayerReport, to: &LayerReport, std: fn(&LayerReport) -> f64) -> Option<String> {
    let (before, after) = (std(from), std(to));
    let change = match () {
        () if after > 0.0 && after < before / FACTOR => "vanish: their standard deviation falls",
        () if before > 0.0 && after > before * FACTOR => "explode: their standard deviation grows",
        () => return None,
    };
    Some(format!("{what} {change} from {before:.2e} in {} to {after:.2e} in {}", from.name, to.name))
}

/// Returns the name of the layer that has a share, or the number of those that do, and the largest share.
fn worst(layers: &[LayerReport], share: impl Fn(&LayerReport) -> Option<f64>) -> Option<(String, String)> {
    let with: Vec<(&LayerReport, f64)> = layers.iter().filter_map(|layer| Some((layer, share(layer)?))).collect();
    let (layer, largest) = with.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a })?;
    let largest = percent(largest);
    Some(match with.len() {
        1 => (layer.name.clone(), format!(" ({largest})")),
        count => (format!("each of {count} layers"), format!(" ({largest} in {})", layer.name)),
    })
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}
