//! Which tensors of a file a network starts from: by name, through the map of `from`, and with the network's shapes.

use super::weights::{TensorFile, TensorSpec};
use crate::config::{NamePattern, PretrainedWeights};
use crate::error::{Fault, nearest, suggest};
use crate::network::Parameter;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The most names that a message lists.
const FEW: usize = 6;
/// The most characters of a name that a message shows.
const SHOWN: usize = 100;
/// The most names of a file that are searched for a similar one.
const SEARCHED: usize = 10_000;
/// The counter that PyTorch's batch norm keeps, which no network here uses.
const UNCOUNTED: &str = "num_batches_tracked";

/// The tensors of a file that a network starts from, and the rest of both.
#[derive(Debug, PartialEq)]
pub(super) struct Matching {
    /// The index among the network's tensors, and the index in the file.
    pub taken: Vec<(usize, usize)>,
    /// The network's tensors that keep their initial values.
    pub kept: Vec<String>,
    /// The tensors of the file that are not used.
    pub unused: Vec<String>,
}

/// A tensor of the file.
struct Candidate<'a> {
    spec: &'a TensorSpec,
    /// Its index among those whose values can be used.
    index: Option<usize>,
    /// Its name in the network.
    name: String,
    /// The entry of the map that gave it this name.
    pair: Option<usize>,
}

impl Candidate<'_> {
    /// Returns its name in the network, and that in the file if it is another one.
    fn label(&self) -> String {
        let name = clipped(&self.name);
        if self.name == self.spec.name {
            name
        } else {
            format!("{name} (\"{}\" in the file)", clipped(&self.spec.name))
        }
    }
}

/// Matches the tensors of a file with those of a network.
///
/// # Errors
/// Everything that is wrong with `skip` or `map`, or else every tensor that is missing or does not fit.
pub(super) fn match_tensors(
    own: &[&Parameter],
    weights: &TensorFile,
    from: &PretrainedWeights,
) -> Result<Matching, Vec<Fault>> {
    let search = Search { own, weights, from };
    let (candidates, mut faults) = search.candidates();
    faults.extend(search.wrong_skips());
    if !faults.is_empty() {
        return Err(faults);
    }
    let skipped = |name: &str| from.skip.iter().any(|skip| skip.matches(name).is_some());
    let wanted = own.iter().filter(|p| !skipped(&p.name)).count();
    if wanted == 0 {
        return Err(vec![fault("skip names every layer, so from has no effect; remove from, or a part of skip")]);
    }
    let mut by_name: HashMap<&str, Vec<&Candidate>> = HashMap::new();
    candidates.iter().for_each(|candidate| by_name.entry(&candidate.name).or_default().push(candidate));
    let mut matching = Matching { taken: Vec::new(), kept: Vec::new(), unused: Vec::new() };
    let (mut missing, mut shapes, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for (i, parameter) in own.iter().enumerate() {
        let (name, expected) = (parameter.name.as_str(), &parameter.param.file_shape);
        if skipped(name) {
            matching.kept.push(name.to_string());
            continue;
        }
        match by_name.get(name).map_or(&[][..], Vec::as_slice) {
            [] => missing.push(name),
            [_, _, ..] if faults.len() >= FEW => {}
            [first, second, ..] => {
                let names = [first, second].map(|one| clipped(&one.spec.name));
                let message = "the network uses one; give the other one another name in map";
                let file = weights.path.display();
                faults
                    .push(fault(format!("\"{}\" and \"{}\" of {file} are both {name}: {message}", names[0], names[1])));
            }
            [one] => match one.index {
                None => types.push((name, format!("{} ({:?})", one.label(), one.spec.dtype))),
                Some(_) if one.spec.shape != *expected => {
                    shapes.push((name, format!("{} {}, expected {expected}", one.label(), one.spec.shape)));
                }
                Some(index) => matching.taken.push((i, index)),
            },
        }
    }
    faults.extend(search.wrong_types(&types));
    faults.extend(search.wrong_shapes(&shapes));
    let used: BTreeSet<usize> = matching.taken.iter().map(|&(_, index)| index).collect();
    let unused = |candidate: &&Candidate| candidate.index.is_none_or(|index| !used.contains(&index));
    let unused: Vec<&Candidate> = candidates.iter().filter(unused).collect();
    if missing.len() == wanted {
        faults.push(search.nothing(&missing));
    } else if from.strict && !missing.is_empty() {
        faults.push(search.lacks(&missing, wanted, &unused));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    matching.kept.extend(missing.into_iter().map(str::to_string));
    let counter = |name: &str| name.rsplit('.').next() == Some(UNCOUNTED);
    let described = |candidate: &&Candidate| match candidate.index {
        Some(_) => candidate.spec.name.clone(),
        None => format!("{} ({:?})", candidate.spec.name, candidate.spec.dtype),
    };
    matching.unused = unused.iter().filter(|candidate| !counter(&candidate.spec.name)).map(described).collect();
    Ok(matching)
}

struct Search<'a> {
    own: &'a [&'a Parameter],
    weights: &'a TensorFile,
    from: &'a PretrainedWeights,
}

impl<'a> Search<'a> {
    /// Returns the tensors of the file with their names in the network, and what is wrong with the map.
    fn candidates(&self) -> (Vec<Candidate<'a>>, Vec<Fault>) {
        let map = &self.from.map;
        let floats = self.weights.tensors.iter().enumerate().map(|(i, spec)| (spec, Some(i)));
        let (mut all, mut ambiguous) = (Vec::new(), BTreeMap::new());
        for (spec, index) in floats.chain(self.weights.others.iter().map(|spec| (spec, None))) {
            match map.apply(&spec.name) {
                Ok((name, pair)) => all.push(Candidate { spec, index, name, pair }),
                Err(pairs) => drop(ambiguous.entry(pairs).or_insert(&spec.name)),
            }
        }
        let mut faults: Vec<Fault> = ambiguous
            .into_iter()
            .map(|(pairs, name)| {
                let [a, b] = pairs.map(|pair| map.pairs()[pair].0.text());
                let name = clipped(name);
                fault(format!("map: \"{a}\" and \"{b}\" both match \"{name}\"; write more of its name in one of them"))
            })
            .collect();
        if faults.is_empty() {
            let wrong = |(i, pair)| self.wrong_pair(i, pair, &all);
            faults = map.pairs().iter().enumerate().filter_map(wrong).collect();
        }
        (all, faults)
    }

    /// Returns the fault of an entry of the map that matches nothing or leads nowhere.
    fn wrong_pair(&self, i: usize, pair: &(NamePattern, NamePattern), all: &[Candidate]) -> Option<Fault> {
        let (key, value) = (pair.0.text(), pair.1.text());
        if !all.iter().any(|candidate| pair.0.matches(&candidate.spec.name).is_some()) {
            let names: Vec<&str> = all.iter().map(|candidate| candidate.spec.name.as_str()).collect();
            let layers = names.iter().take(SEARCHED).filter_map(|name| name.rsplit_once('.')).map(|(layer, _)| layer);
            let near = suggest(key, layers.chain(names.iter().copied().take(SEARCHED)));
            let file = self.weights.path.display();
            return Some(fault(format!("map: {file} has no tensor \"{key}\"{near}; it has {}", few(names))));
        }
        let mut named = all.iter().filter(|candidate| candidate.pair == Some(i)).peekable();
        let first = named.peek()?.name.clone();
        let is_own = |name: &str| self.own.iter().any(|parameter| parameter.name == name);
        // An entry may also move a tensor out of the way of another one.
        let in_the_way = |name: &str| is_own(name) && all.iter().any(|other| other.name == name);
        if named.any(|candidate| is_own(&candidate.name) || in_the_way(&candidate.spec.name)) {
            return None;
        }
        let near = suggest(&first, self.own.iter().map(|parameter| parameter.name.as_str()));
        Some(fault(format!(
            "map: \"{key}\" = \"{value}\" leads to {}, but the network has no such tensor{near}; it has {}",
            clipped(&first),
            few(self.own.iter().map(|parameter| parameter.name.as_str()))
        )))
    }

    /// Returns the faults of entries of `skip` that match nothing.
    fn wrong_skips(&self) -> Vec<Fault> {
        let mut layers: Vec<&str> = self.own.iter().map(|parameter| layer(&parameter.name)).collect();
        layers.dedup();
        let wrong = |skip: &&NamePattern| !self.own.iter().any(|parameter| skip.matches(&parameter.name).is_some());
        let message = |skip: &NamePattern| {
            let near = suggest(skip.text(), layers.iter().copied());
            let known = few(layers.iter().copied());
            fault(format!("skip: no layer \"{}\"{near} has parameters; expected some of: {known}", skip.text()))
        };
        self.from.skip.iter().filter(wrong).map(message).collect()
    }

    fn wrong_types(&self, types: &[(&str, String)]) -> Option<Fault> {
        let (names, described): (Vec<&str>, Vec<String>) = types.iter().cloned().unzip();
        (!types.is_empty()).then(|| {
            fault(format!(
                "tensors of {} have types that are not used for weights: {}; expected F16, BF16, F32 or F64: save them as \
                 floats, or train them from scratch with {}",
                self.weights.path.display(),
                listed(", ", described),
                self.skipping(&names)
            ))
        })
    }

    fn wrong_shapes(&self, shapes: &[(&str, String)]) -> Option<Fault> {
        let (names, described): (Vec<&str>, Vec<String>) = shapes.iter().cloned().unzip();
        (!shapes.is_empty()).then(|| {
            fault(format!(
                "tensors of {} have different shapes than the network's: {}; change these layers, or train them from \
                 scratch with {}",
                self.weights.path.display(),
                listed("; ", described),
                self.skipping(&names)
            ))
        })
    }

    /// Returns the fault of a file without any tensor of the network.
    fn nothing(&self, missing: &[&str]) -> Fault {
        let advice = self.prefix(missing).unwrap_or_else(|| {
            let layer = layer(missing[0]);
            let example = format!("map = {{ \"name in the file\" = \"{layer}\" }}");
            format!("if the file names them otherwise, write {}", self.with(&example))
        });
        fault(format!(
            "{} has none of the network's tensors: expected {}, but it has {}; {advice}",
            self.weights.path.display(),
            few(missing.iter().copied()),
            few(self.names())
        ))
    }

    /// Returns the fault of a file without some tensors of the network.
    fn lacks(&self, missing: &[&str], wanted: usize, unused: &[&Candidate]) -> Fault {
        let names: Vec<&str> = unused.iter().take(SEARCHED).map(|candidate| candidate.name.as_str()).collect();
        let similar = |name: &str| {
            let near = nearest(name, names.iter().copied())?;
            unused.iter().find(|candidate| candidate.name == near)
        };
        let described = |(i, name): (usize, &&str)| match Some(i).filter(|&i| i < FEW).and_then(|_| similar(name)) {
            Some(candidate) => format!("{name} (it has {})", candidate.label()),
            None => name.to_string(),
        };
        let described: Vec<String> = missing.iter().enumerate().map(described).collect();
        let other = match self.prefix(missing) {
            Some(advice) => format!("; {advice}"),
            None if unused.is_empty() => String::new(),
            None => format!(
                "; it has {}, unused: if some are these, write {}",
                few(unused.iter().map(|candidate| candidate.spec.name.as_str())),
                self.with(&format!("map = {{ \"name in the file\" = \"{}\" }}", layer(missing[0])))
            ),
        };
        fault(format!(
            "{} lacks {} of the {wanted} tensors that the network takes from it: {}{other}; to train them from scratch, \
             write {} or strict = false",
            self.weights.path.display(),
            missing.len(),
            listed(", ", described),
            self.skipping(missing)
        ))
    }

    /// Returns advice for a file whose names have something before those of the network, as `module.`.
    fn prefix(&self, missing: &[&str]) -> Option<String> {
        let some = &missing[..missing.len().min(20)];
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in self.names().take(SEARCHED) {
            let before = |own: &&str| name.strip_suffix(*own)?.strip_suffix('.');
            some.iter().filter_map(before).for_each(|prefix| *counts.entry(prefix).or_default() += 1);
        }
        let (prefix, count) = counts.into_iter().max_by_key(|&(_, count)| count)?;
        let prefix = clipped(prefix);
        (2 * count > some.len()).then(|| {
            let map = self.with(&format!("map = {{ \"{prefix}.*\" = \"*\" }}"));
            format!("its names begin with \"{prefix}.\": to remove that, write {map}")
        })
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.weights.tensors.iter().chain(&self.weights.others).map(|spec| spec.name.as_str())
    }

    /// Returns the setting that skips the layers of some tensors.
    fn skipping(&self, names: &[&str]) -> String {
        let mut layers: Vec<&str> = names.iter().map(|name| layer(name)).collect();
        layers.dedup();
        let old = self.from.skip.iter().map(NamePattern::text);
        let all: Vec<String> = old.chain(layers).map(|name| format!("{name:?}")).collect();
        let more = if all.len() > FEW { ", .." } else { "" };
        self.with(&format!("skip = [{}{more}]", all[..all.len().min(FEW)].join(", ")))
    }

    /// Returns a setting of `from`, with the whole of `from` if it is only a path now.
    fn with(&self, setting: &str) -> String {
        let from = self.from;
        if from.skip.is_empty() && from.map.pairs().is_empty() && from.strict {
            return format!("from = {{ file = {:?}, {setting} }}", from.file);
        }
        setting.to_string()
    }
}

fn fault(message: impl Into<String>) -> Fault {
    Fault::at("from", message)
}

/// Returns the layer of a tensor.
fn layer(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(layer, _)| layer)
}

fn clipped(name: &str) -> String {
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_string(),
    }
}

/// Lists the first few names, and counts the others.
pub(super) fn few<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    listed(", ", names.into_iter().map(clipped))
}

fn listed(between: &str, items: impl IntoIterator<Item = String>) -> String {
    let mut items = items.into_iter();
    let first = items.by_ref().take(FEW).collect::<Vec<_>>().join(between);
    match items.count() {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
