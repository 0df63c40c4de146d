//! Gives each parameter what `[optimizer]` says about it: multipliers, by its layer's depth and its group, and its chain.

use super::graph::Network;
use crate::config::{Optimizer, ParameterGroup};
use crate::error::{Fault, Locations, Problem, number};
use crate::optim::power;
use crate::optim::second_order::Method;
use crate::settings::SINGLE_OR_ZERO;

/// Applies `lr_by_depth` and `groups` to the parameters of a network. `locations` are those of `[optimizer]`.
///
/// # Errors
/// All groups without a parameter, parameters of which two groups are equally specific, and rates that single precision
/// does not have.
pub fn assign(optimizer: &Optimizer, locations: &Locations, network: &mut Network) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    let groups = &optimizer.groups;
    let mut used = vec![false; groups.len()];
    let learning = network.nodes.iter().filter(|node| !node.params.is_empty()).count();
    let mut depth = 0;
    for node in &network.nodes {
        if node.params.is_empty() {
            continue;
        }
        depth += 1;
        let of_depth = power(optimizer.lr_by_depth, (learning - depth) as u64);
        for &index in &node.params {
            let parameter = &mut network.parameters[index];
            parameter.lr_mult *= of_depth;
            let matching = matching(groups, &parameter.name, parameter.param.name);
            if let [(first, one), (second, other), ..] = matching.as_slice()
                && first == second
            {
                let texts = [one, other].map(|&group| groups[group].pattern.text());
                let message = format!(
                    "groups: \"{}\" matches \"{}\" and \"{}\", of which neither is more specific",
                    parameter.name, texts[0], texts[1]
                );
                problems.push(locations.problem("[optimizer]", &Fault::at("groups", message)));
            }
            matching.iter().for_each(|&(_, group)| used[group] = true);
            if let Some(&(_, group)) = matching.first() {
                parameter.lr_mult *= groups[group].lr_mult;
                parameter.decay_mult *= groups[group].decay_mult;
                if groups[group].entries.is_some() {
                    parameter.group = 1 + groups[..group].iter().filter(|before| before.entries.is_some()).count();
                }
            }
            let factors = [
                ("rate", "lr_mult or lr_by_depth", parameter.lr_mult),
                ("weight decay", "decay_mult", parameter.decay_mult),
            ];
            for (what, key, factor) in factors.into_iter().filter(|(.., factor)| !(SINGLE_OR_ZERO.contains)(factor)) {
                let message = format!(
                    "the {what} of {} is multiplied by {}, by layer, depth and group, expected a number within single \
                     precision; change {key}",
                    parameter.name,
                    number(factor)
                );
                problems.push(locations.problem("[optimizer]", &Fault::whole(message)));
            }
        }
    }
    if let Some(message) = optimizer.method.as_deref().and_then(|method| unfit(method, network)) {
        problems.push(locations.problem("[optimizer]", &Fault::at("method", message)));
    }
    for (group, _) in groups.iter().zip(used).filter(|(_, used)| !used) {
        let names: Vec<&str> = network.parameters.iter().map(|parameter| parameter.name.as_str()).take(6).collect();
        let message = format!(
            "\"{}\" matches no parameter; parameters are {}{}",
            group.pattern.text(),
            names.join(", "),
            if network.parameters.len() > names.len() { ", .." } else { "" }
        );
        problems.push(group.locations.problem("[optimizer] groups", &Fault::whole(message)));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Returns why a second-order method cannot train a network.
fn unfit(method: &dyn Method, network: &Network) -> Option<String> {
    let (name, most) = (method.key(), method.most_weights());
    let scaled = network.parameters.iter().find(|parameter| ![0.0, 1.0].contains(&parameter.lr_mult));
    if let Some(parameter) = scaled {
        let (own, rate) = (&parameter.name, number(parameter.lr_mult));
        return Some(format!(
            "{name} trains all weights at one rate, but {own} has lr_mult = {rate}, expected 1, or 0"
        ));
    }
    let trained = network.parameters.iter().filter(|parameter| parameter.lr_mult != 0.0);
    let weights: usize = trained.map(|parameter| parameter.param.shape.elements()).sum();
    (weights > most)
        .then(|| format!("{name} trains at most {most} weights, but the network has {weights}; use newton_cg or lbfgs"))
}

/// Returns the groups that a parameter may belong to, the most specific first. A pattern spells its name, that of its layer,
/// or what it is called in every layer.
fn matching(groups: &[ParameterGroup], name: &str, own: &str) -> Vec<((isize, usize), usize)> {
    let is_own = |group: &ParameterGroup| {
        let whole = group.pattern.matches(own).is_some_and(|found| found.rest.is_empty());
        whole || group.pattern.matches(name).is_some()
    };
    let fits = groups.iter().enumerate().filter(|(_, group)| is_own(group));
    let mut all: Vec<_> = fits.map(|(index, group)| (group.pattern.rank(), index)).collect();
    all.sort_unstable();
    all
}
