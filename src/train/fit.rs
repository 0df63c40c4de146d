//! How the data fit the network: the shape of the images, the classes, the samples of a batch.

use crate::config::Config;
use crate::data::{Beyond, ClassCounts, Description, EpochPlan};
use crate::error::{Fault, quantity};
use crate::network::Network;
use std::path::Path;

/// The largest number of classes that a note lists.
const LISTED: usize = 8;

/// Returns the number of outputs of the last layer.
fn outputs(network: &Network) -> usize {
    network.losses().next().map_or(0, |loss| loss.input_shapes[0].features())
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
    if input != header.shape {
        let message = other_shape(header.shape, input, config.data.train.is_channels_first());
        faults.push(Fault::at("train", message));
    }
    let outputs = outputs(network);
    if header.target_width > 1 && outputs != header.target_width {
        let message = format!(
            "the labels are distributions over {} classes, but the last layer has {outputs} outputs; give it {}",
            header.target_width, header.target_width
        );
        faults.push(Fault::at("train", message));
    }
    for (key, set) in [("train", Some(train)), ("test", test)] {
        let set = set.filter(|set| set.header.target_width == 1 && set.header.classes > outputs);
        faults.extend(set.and_then(|set| too_few_outputs(set, outputs)).map(|message| Fault::at(key, message)));
    }
    faults
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

/// Returns what is wrong with labels for which the last layer has no outputs.
fn too_few_outputs(set: &Description, outputs: usize) -> Option<String> {
    let classes = set.header.classes;
    let Some((file, counts)) = &set.classes else {
        return Some(format!(
            "the data has {classes} classes, but the last layer has {outputs} outputs; give it {classes}"
        ));
    };
    counts.beyond(outputs).map(|beyond| beyond_outputs(file, counts, beyond, outputs))
}

fn beyond_outputs(file: &Path, counts: &ClassCounts, beyond: Beyond, outputs: usize) -> String {
    let Beyond { sample, label, samples } = beyond;
    let all: usize = counts.samples.iter().sum();
    let classes = counts.present().last().map_or(0, |last| last + 1);
    let advice = match (counts.samples[0], counts.present().count()) {
        (0, present) if present == classes - 1 && present == outputs => {
            "classes count from 0, so subtract 1 from every label".to_string()
        }
        // Without gaps, the labels are classes that the network lacks.
        (_, present) if present == classes => format!("correct the labels, or give the last layer {classes} outputs"),
        _ => "correct these labels".to_string(),
    };
    format!(
        "{}: sample {sample} has label {label}, but the last layer has {outputs} outputs, for labels from 0 to {} (so in \
         {samples} of {all} samples); {advice}",
        file.display(),
        outputs - 1,
    )
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
    let outputs = outputs(network);
    if outputs > classes {
        let (outputs, classes) = (quantity(outputs as u64, "output"), quantity(classes as u64, "class"));
        notes.push(format!("the last layer has {outputs} for {classes}"));
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
