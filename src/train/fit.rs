//! How the data fit the network: the shape of the images, the targets, the samples of a batch.

use crate::config::Config;
use crate::data::{Beyond, ClassCounts, Description, EpochPlan, Targets};
use crate::error::{Fault, quantity};
use crate::layers::LossTargets;
use crate::network::{Network, Source};
use std::path::Path;

/// The largest number of classes that a note lists.
const LISTED: usize = 8;

/// A loss, and the layer whose output it compares with the targets.
struct Head {
    kind: &'static str,
    learns: LossTargets,
    /// The layer, as messages name it.
    layer: String,
    /// Its outputs for a sample.
    outputs: usize,
}

impl Head {
    /// Returns the heads of a network.
    fn all(network: &Network) -> impl Iterator<Item = Self> {
        let last = network.nodes.iter().rposition(|node| !node.is_loss());
        network.losses().filter_map(move |loss| {
            let x = loss.input_shapes[0];
            let layer = match loss.inputs[0] {
                Source::Node(node) if Some(node) != last => format!("layer \"{}\"", network.nodes[node].name),
                Source::Node(_) => "the last layer".to_string(),
                Source::Images => "the image".to_string(),
            };
            let (kind, outputs) = (loss.layer.key(), x.features());
            Some(Head { kind, learns: loss.layer.targets(x)?, layer, outputs })
        })
    }

    /// Returns what is wrong with the targets of a set, if anything is.
    fn fault(&self, set: &Description) -> Option<String> {
        let Head { kind, learns, layer, outputs, .. } = self;
        let (learned, found, width) = match set.header.targets() {
            Targets::Classes(classes) => {
                return match learns.classes {
                    Some(most) if classes > most => self.too_few_outputs(set),
                    Some(_) => None,
                    None => {
                        Some(format!("the labels are class numbers, which {kind} does not learn; choose another loss"))
                    }
                };
            }
            Targets::Distributions(classes) => {
                (learns.distributions, format!("the labels are distributions over {classes} classes"), classes)
            }
            Targets::Values(width) => {
                (learns.values, format!("the targets have {} for each image", quantity(width as u64, "value")), width)
            }
        };
        match learned {
            Some(expected) if expected == width => None,
            Some(_) => {
                Some(format!("{found}, but {layer} has {}; give it {width}", quantity(*outputs as u64, "output")))
            }
            None => {
                let values = matches!(set.header.targets(), Targets::Values(_));
                let advice = if values { "write loss = \"mean_squared_error\"" } else { "choose another loss" };
                Some(format!("{found}, but {kind} does not learn them; {advice}"))
            }
        }
    }

    /// Returns what is wrong with the distributions that `mix` makes of class numbers, if anything is.
    fn fault_of_mixed(&self, width: usize) -> Option<String> {
        let Head { kind, learns, layer, outputs, .. } = self;
        let found = format!("mix makes distributions over {width} classes of the class numbers");
        match learns.distributions {
            Some(expected) if expected == width => None,
            Some(_) => {
                Some(format!("{found}, but {layer} has {}; give it {width}", quantity(*outputs as u64, "output")))
            }
            None => Some(format!("{found}, but {kind} does not learn them; remove mix, or choose another loss")),
        }
    }

    /// Returns what is wrong with labels for which the layer has no outputs.
    fn too_few_outputs(&self, set: &Description) -> Option<String> {
        let (classes, layer, outputs) = (set.header.classes, &self.layer, self.outputs);
        let Some((file, counts)) = &set.classes else {
            return Some(format!(
                "the data has {classes} classes, but {layer} has {outputs} outputs; give it {classes}"
            ));
        };
        counts.beyond(outputs).map(|beyond| self.beyond_outputs(file, counts, beyond))
    }

    fn beyond_outputs(&self, file: &Path, counts: &ClassCounts, beyond: Beyond) -> String {
        let Beyond { sample, label, samples } = beyond;
        let (layer, outputs) = (&self.layer, self.outputs);
        let all: usize = counts.samples.iter().sum();
        let classes = counts.present().last().map_or(0, |last| last + 1);
        let advice = match (counts.samples[0], counts.present().count()) {
            (0, present) if present == classes - 1 && present == outputs => {
                "classes count from 0, so subtract 1 from every label".to_string()
            }
            // Without gaps, the labels are classes that the network lacks.
            (_, present) if present == classes => format!("correct the labels, or give {layer} {classes} outputs"),
            _ => "correct these labels".to_string(),
        };
        format!(
            "{}: sample {sample} has label {label}, but {layer} has {outputs} outputs, for labels from 0 to {} (so in \
             {samples} of {all} samples); {advice}",
            file.display(),
            outputs - 1,
        )
    }
}

/// Returns everything in which the network and the data differ.
pub(super) fn faults(
    config: &Config,
    network: &Network,
    train: &Description,
    test: Option<&Description>,
) -> Vec<Fault> {
    let header = &train.header;
    let mut faults = config.data.faults_with(header, test.map(|test| &test.header));
    let input = [network.input.h, network.input.w, network.input.c];
    // Augmentations that do not suit the images have been reported.
    if let Some(shape) = config.data.shape(header.shape).filter(|&shape| shape != input) {
        let message = match shape == header.shape {
            true => other_shape(shape, input, config.data.train.is_channels_first()),
            false => {
                let [h, w, c] = shape;
                format!("augment makes the images {h}x{w}x{c}, but [model] input = {input:?}; write input = {shape:?}")
            }
        };
        faults.push(Fault::at("train", message));
    }
    let learned = config.data.targets(header, test.map(|test| &test.header));
    for head in Head::all(network) {
        let sets = [("train", Some(train)), ("test", test)];
        let found = sets.into_iter().filter_map(|(key, set)| Some((key, head.fault(set?)?)));
        // Sets with targets of another kind than the training set's have been reported.
        let of_kind = |key: &str| key == "train" || test.is_none_or(|test| same_kind(train, test));
        let before = faults.len();
        faults.extend(found.filter(|(key, _)| of_kind(key)).map(|(key, message)| Fault::at(key, message)));
        if let (Targets::Classes(_), Targets::Distributions(width)) = (header.targets(), learned)
            && faults.len() == before
        {
            faults.extend(head.fault_of_mixed(width).map(|message| Fault::at("mix", message)));
        }
    }
    faults
}

/// Returns true if the targets of two sets are of one kind.
fn same_kind(a: &Description, b: &Description) -> bool {
    std::mem::discriminant(&a.header.targets()) == std::mem::discriminant(&b.header.targets())
}

/// Returns what is wrong with images of another shape (H, W, C) than the network's input.
fn other_shape(shape: [usize; 3], input: [usize; 3], channels_first: bool) -> String {
    let [h, w, c] = shape;
    // What the file has as (C, H, W) if its images are (H, W, C).
    let stored = [c, h, w];
    let looks_last = matches!(w, 1 | 3 | 4) && !matches!(c, 1 | 3 | 4);
    if channels_first && (stored == input || looks_last) {
        return format!(
            "\"images\" of shape [N, {c}, {h}, {w}] seems to be (N, H, W, C), expected (N, C, H, W): its images would be \
             {h}x{w} with {c} channels, and [model] input is {input:?}; write the file again with \
             images.permute(0, 3, 1, 2).contiguous()"
        );
    }
    format!("the images are {h}x{w}x{c}, but [model] input = {input:?}; write input = {shape:?}")
}

/// Returns notes on classes and batches with which training is possible, but hardly meant.
pub(super) fn notes(
    network: &Network,
    train: &Description,
    test: Option<&Description>,
    epoch: EpochPlan,
) -> Vec<String> {
    let mut notes = Vec::new();
    let counts = |set: &Description| set.classes.as_ref().map(|(_, counts)| counts.clone());
    let (of_train, of_test) = (counts(train), test.and_then(counts));
    let classes = train.header.classes.max(test.map_or(0, |test| test.header.classes));
    for Head { layer, outputs, .. } in Head::all(network).filter(|head| classes > 0 && head.outputs > classes) {
        let (outputs, classes) = (quantity(outputs as u64, "output"), quantity(classes as u64, "class"));
        notes.push(format!("{layer} has {outputs} for {classes}"));
    }
    if let Some(counts) = of_train {
        let has = |class: usize| counts.samples.get(class).is_some_and(|&samples| samples > 0);
        let tested = |class: &usize| of_test.as_ref().is_some_and(|test| test.present().any(|other| other == *class));
        let (only_test, nowhere): (Vec<usize>, Vec<usize>) =
            (0..classes).filter(|&class| !has(class)).partition(tested);
        if !nowhere.is_empty() {
            notes.push(format!("the training data has no samples of {}", list(&nowhere)));
        }
        if !only_test.is_empty() {
            notes.push(format!("the training data has no samples of {}, but the test data has", list(&only_test)));
        }
        if counts.present().count() == 1 {
            let class = counts.present().next().unwrap_or(0);
            notes.push(format!("all training samples have label {class}: there is nothing to learn"));
        }
    }
    if epoch.batch > epoch.samples {
        let (batch, samples) = (epoch.batch, quantity(epoch.samples as u64, "training sample"));
        notes.push(format!("[data]: batch = {batch} is more than the {samples}, which are one batch"));
    }
    notes
}

/// Returns `class 3`, or `classes 3, 5, 6`.
fn list(classes: &[usize]) -> String {
    let shown: Vec<String> = classes.iter().take(LISTED).map(usize::to_string).collect();
    let more = if classes.len() > LISTED { format!(" and {} others", classes.len() - LISTED) } else { String::new() };
    format!("class{} {}{more}", if classes.len() == 1 { "" } else { "es" }, shown.join(", "))
}
