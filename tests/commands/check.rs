//! `check` is the door: what `train` refuses at once, `check` refuses, and what looks unintended is noted once.

use crate::common::runs::{CommandOutput, Folder};
use flate2::{Compression, write::GzEncoder};
use safetensors::tensor::{Dtype, TensorView};
use std::io::Write;

/// A network for 12 images of 4x4, in 3 classes.
const CONFIG: &str = r#"seed = 1
[data]
train = { idx = { images = "im", labels = "lb" } }
test = { idx = { images = "test", labels = "lb" } }
batch = 4
[model]
input = [4, 4, 1]
layers = ["flatten", { name = "fc", dense = { units = 3 } }]
[optimizer]
lr = 0.1
[train]
steps = 3
"#;

const NOT_READ: &str = "contents of the data were not read; add --data";

/// Returns an IDX file: the type of its elements, its dimensions, its bytes.
fn idx(element: u8, dims: &[u32], bytes: &[u8]) -> Vec<u8> {
    let extents: Vec<u8> = dims.iter().flat_map(|dim| dim.to_be_bytes()).collect();
    [&[0, 0, element, dims.len() as u8], &extents[..], bytes].concat()
}

fn images(count: u32, pixel: impl Fn(usize) -> u8) -> Vec<u8> {
    idx(8, &[count, 4, 4], &(0..count as usize * 16).map(pixel).collect::<Vec<_>>())
}

fn labels(labels: &[u8]) -> Vec<u8> {
    idx(8, &[labels.len() as u32], labels)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tensors(images: &[usize], pixels: &[f32], labels: &[usize], targets: &[f32]) -> Vec<u8> {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (pixels, targets) = (bytes(pixels), bytes(targets));
    let view = |shape: &[usize], data| TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
    let views = [("images", view(images, &pixels)), ("labels", view(labels, &targets))];
    safetensors::serialize(views, None).unwrap()
}

/// Returns a folder with the configuration and its data.
fn folder(name: &str) -> Folder {
    let folder = Folder::new(name);
    folder.write("c.toml", CONFIG);
    put(&folder, "im", &images(12, |i| i as u8));
    put(&folder, "test", &images(12, |i| 255 - i as u8));
    put(&folder, "lb", &labels(&[0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]));
    folder
}

fn put(folder: &Folder, name: &str, bytes: &[u8]) {
    std::fs::write(folder.at(name), bytes).unwrap();
}

/// Runs a command on `c.toml` with these settings.
fn with(folder: &Folder, command: &[&str], sets: &[&str]) -> CommandOutput {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    folder.run(&[command, &["c.toml"], &sets.collect::<Vec<_>>()].concat())
}

/// Asserts that `check`, `check --data` and `train` refuse the settings with these words.
fn refused(folder: &Folder, sets: &[&str], words: &str) {
    for command in [&["check"][..], &["check", "--data"], &["train"]] {
        refused_by(folder, command, sets, words);
    }
}

fn refused_by(folder: &Folder, command: &[&str], sets: &[&str], words: &str) {
    let output = with(folder, command, sets);
    assert_eq!((output.code, output.out.as_str()), (Some(2), ""), "{command:?} {sets:?}: {}", output.err);
    assert!(output.err.contains(words), "{command:?} {sets:?}: {words:?} is not in: {}", output.err);
}

/// Returns the notes of `check`.
fn notes(folder: &Folder, sets: &[&str]) -> Vec<String> {
    let output = with(folder, &["check"], sets);
    assert_eq!(output.code, Some(0), "{}", output.err);
    output.err.lines().map(|line| line.strip_prefix("note: ").unwrap().to_string()).collect()
}

#[test]
fn contents_that_train_refuses_are_refused_by_check_with_data() {
    let folder = folder("check-contents");
    put(&folder, "one", &images(12, |_| 7));
    put(&folder, "tail.gz", &[gzip(&images(12, |i| i as u8)), b"tail".to_vec()].concat());
    let whole = gzip(&images(12, |i| i as u8));
    put(&folder, "cut.gz", &whole[..whole.len() - 5]);
    let pixels: Vec<f32> = (0..2 * 16).map(|i| if i == 20 { f32::NAN } else { i as f32 }).collect();
    let target = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    put(&folder, "nan", &tensors(&[2, 1, 4, 4], &pixels, &[2, 3], &target));
    for (sets, words) in [
        (
            &["data.train.idx.images=one", "data.normalize=standardize"][..],
            "[data]: normalize = \"standardize\" divides by the standard deviation, but channel 0 of the training images \
             is 7 everywhere",
        ),
        (
            &["data.train.idx.images=tail.gz"],
            "tail.gz: damaged gzip file: the compressed data ends, and 0x7461696c follows, expected",
        ),
        (&["data.train.idx.images=cut.gz"], "cut.gz: damaged gzip file: "),
        (
            &["data.train={ tensors = \"nan\" }", "data.test={ tensors = \"nan\" }"],
            "nan: image 1 contains NaN, expected finite numbers (so in 1 of 2 images)",
        ),
    ] {
        let output = with(&folder, &["check"], sets);
        assert_eq!(output.code, Some(0), "{}", output.err);
        assert_eq!(output.out.lines().last(), Some(NOT_READ));
        refused_by(&folder, &["check", "--data"], sets, words);
        refused_by(&folder, &["train"], sets, words);
    }
}

#[test]
fn all_that_is_wrong_is_reported_together() {
    let folder = folder("check-together");
    let pixels = [f32::INFINITY; 16];
    put(&folder, "bad", &tensors(&[1, 1, 4, 4], &pixels, &[1, 3], &[0.0, 1.0, 0.0]));
    put(&folder, "tail.gz", &[gzip(&images(12, |_| 0)), vec![1]].concat());
    folder.write("c.toml", &CONFIG.replace("units = 3", "units = 3, bas = 1").replace("\"test\"", "\"tail.gz\""));
    let all = ["data.train={ tensors = \"bad\" }"];
    let output = with(&folder, &["check", "--data"], &all);
    assert_eq!(output.code, Some(2));
    let lines: Vec<&str> = output.err.lines().collect();
    for (line, words) in lines.iter().zip([
        "tail.gz: damaged gzip file",
        "c.toml:8:",
        "--set data.train: [data]: bad: image 0 contains inf",
        "not checked yet: how the network fits the data and the devices; fix the problems above first",
    ]) {
        assert!(line.contains(words), "{words}: {}", output.err);
    }
    assert_eq!(lines.len(), 4, "{}", output.err);
    // Without the contents, that is the last line.
    let output = with(&folder, &["check"], &all);
    assert_eq!(output.err.lines().last(), Some(format!("c.toml: {NOT_READ}").as_str()));
    // A set whose header is wrong is not read further.
    let output =
        with(&folder, &["check", "--data"], &["data.train.idx.labels=c.toml", "model.layers.fc={ dense.units = 3 }"]);
    assert!(output.err.contains("c.toml: starts with 0x"), "{}", output.err);
    assert!(output.err.contains("tail.gz: damaged gzip file"), "{}", output.err);
    assert!(
        output
            .err
            .trim_end()
            .ends_with("not checked yet: the contents of the training data; fix the problems above first")
    );
}

#[test]
fn check_with_data_summarises_the_sets() {
    let folder = folder("check-summary");
    // Pixels 0 to 191: the mean is 95.5, the variance (192^2 - 1) / 12.
    let deviation = ((192.0f64 * 192.0 - 1.0) / 12.0).sqrt();
    let tail = |name: &str, range: &str, mean: f64| {
        format!(
            "{name}: 12 images of 4x4x1, 3 of 3 classes with 4 to 4 samples each; pixels {range}, by channel: mean \
             {mean:.4}, deviation {deviation:.4}\n"
        )
    };
    let output = with(&folder, &["check", "--data"], &[]);
    let expected = tail("train", "0 to 191", 95.5) + &tail("test", "64 to 255", 159.5);
    assert!(output.out.ends_with(&expected), "{} is not at the end of {}", expected, output.out);
    let output = with(&folder, &["check", "--data"], &["data.validation=0.25"]);
    assert!(
        output.out.contains("\ntrain: 9 images") && output.out.contains("\nvalidation: 3 images"),
        "{}",
        output.out
    );
    // Two channels in (N, C, H, W).
    let pixels: Vec<f32> = (0..16).map(|i| if i % 8 < 4 { 1.0 } else { i as f32 - 10.0 }).collect();
    put(&folder, "soft", &tensors(&[2, 2, 2, 2], &pixels, &[2, 3], &[0.25, 0.25, 0.5, 0.0, 1.0, 0.0]));
    let soft = ["data.train={ tensors = \"soft\" }", "data.test={ tensors = \"soft\" }", "model.input=[2,2,2]"];
    let output = with(&folder, &["check", "--data"], &soft);
    let expected = "train: 2 images of 2x2x2, distributions over 3 classes; pixels -6 to 5, by channel: mean 1.0000, \
                    -0.5000, deviation 0.0000, 4.1533\n";
    assert!(output.out.contains(expected), "{}", output.out);
}

#[test]
fn zeros_behind_a_gzip_file_are_padding() {
    let folder = folder("check-padding");
    put(&folder, "padded.gz", &[gzip(&images(12, |i| i as u8)), vec![0; 5000]].concat());
    let sets = ["data.train.idx.images=padded.gz"];
    assert_eq!(with(&folder, &["check", "--data"], &sets).code, Some(0));
    assert_eq!(with(&folder, &["train"], &sets).code, Some(0));
}

#[test]
fn labels_beyond_the_outputs_are_named_with_their_file_and_index() {
    let folder = folder("check-labels");
    put(&folder, "ignored", &labels(&[0, 1, 2, 0, 1, 255, 0, 1, 2, 255, 1, 2]));
    let words = "[data]: ignored: sample 5 has label 255, but the last layer has 3 outputs, for labels from 0 to 2 (so in \
                 2 of 12 samples); correct these labels\n";
    refused(&folder, &["data.train.idx.labels=ignored"], words);
    refused(&folder, &["data.test.idx.labels=ignored"], words);
    let advice = "sample 2 has label 2, but the last layer has 2 outputs, for labels from 0 to 1 (so in 4 of 12 \
                  samples); correct the labels, or give the last layer 3 outputs\n";
    refused(&folder, &["model.layers.fc.units=2"], advice);
    put(&folder, "from1", &labels(&[1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]));
    let words = "classes count from 0, so subtract 1 from every label";
    refused(&folder, &["data.train.idx.labels=from1"], words);
    refused(&folder, &["data.test.idx.labels=from1"], words);
}

#[test]
fn soft_labels_are_distributions() {
    let folder = folder("check-soft");
    put(&folder, "soft", &tensors(&[2, 1, 4, 4], &[0.5; 32], &[2, 3], &[0.2, 0.3, 0.5, -5.0, 3.0, 3.0]));
    let words = "soft: label 1 contains -5 and sums to 1, expected a distribution over the classes: values of at least 0 that \
                 sum to 1 within 0.001 (so in 1 of 2 rows); correct it";
    refused(&folder, &["data.train={ tensors = \"soft\" }"], words);
    let good = tensors(&[2, 1, 4, 4], &[0.5; 32], &[2, 3], &[0.2, 0.3, 0.5, 0.0, 0.3336, 0.6667]);
    put(&folder, "soft", &good);
    let sets = ["data.train={ tensors = \"soft\" }", "data.test={ tensors = \"soft\" }"];
    assert_eq!(with(&folder, &["train"], &sets).code, Some(0));
    let words = "the labels are distributions over 3 classes, but the last layer has 4 outputs; give it 3";
    refused(&folder, &[&sets[..], &["model.layers.fc.units=4"]].concat(), words);
}

#[test]
fn images_stored_channels_last_are_recognised() {
    let folder = folder("check-last");
    let pixels: Vec<f32> = (0..96).map(|i| i as f32).collect();
    put(&folder, "last", &tensors(&[2, 4, 4, 3], &pixels, &[2, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]));
    let sets = ["data.train={ tensors = \"last\" }", "data.test={ tensors = \"last\" }"];
    let words = "\"images\" of shape [N, 4, 4, 3] seems to be (N, H, W, C), expected (N, C, H, W)";
    refused(&folder, &[&sets[..], &["model.input=[4, 4, 3]"]].concat(), words);
    let output = with(&folder, &["check"], &[&sets[..], &["model.input=[4, 4, 3]"]].concat());
    assert!(!output.err.contains("write input ="), "{}", output.err);
    // The last dim is that of colours, whatever the network expects.
    put(&folder, "last", &tensors(&[1, 8, 4, 3], &pixels, &[1, 3], &[1.0, 0.0, 0.0]));
    refused(&folder, &[&sets[..], &["model.input=[9, 9, 3]"]].concat(), "seems to be (N, H, W, C)");
    // Otherwise the network's input is wrong.
    put(&folder, "last", &tensors(&[2, 3, 4, 4], &pixels, &[2, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]));
    refused(&folder, &[&sets[..], &["model.input=[4, 5, 3]"]].concat(), "write input = [4, 4, 3]");
}

#[test]
fn idx_files_of_other_dimensions_are_named() {
    let folder = folder("check-types");
    put(&folder, "wide", &idx(0x0b, &[12, 4, 4, 1], &[0; 12 * 32]));
    let words = "wide: starts with 0x00000b04, expected 0x0000TT03 with a type TT (IDX images: 3 dimensions); this IDX file holds \
                 16-bit integers in 4 dimensions; write a safetensors file";
    refused(&folder, &["data.train.idx.images=wide"], words);
}

#[test]
fn check_needs_no_gpu_but_train_does() {
    let folder = folder("check-gpu");
    // No machine has a GPU of this number.
    let sets = ["devices.use=cuda:100-103"];
    let output = with(&folder, &["check", "--data"], &sets);
    assert_eq!(output.code, Some(0), "{}", output.err);
    assert!(output.err.contains("note: [devices]: not checked on this machine: "), "{}", output.err);
    refused_by(&folder, &["train"], &sets, "[devices]: ");
}

#[test]
fn data_beyond_the_memory_is_refused_before_it_is_read() {
    let folder = folder("check-memory");
    let large = "{ synthetic = { images = 16000000, classes = 3, shape = [64, 64, 1] } }";
    let sets = [&format!("data.train={large}")[..], "model.input=[64, 64, 1]", "data.test=digits"];
    let output = with(&folder, &["check"], &sets);
    if output.code != Some(0) {
        assert!(
            output.err.contains("[data]: the data needs 65.6 GB of memory, but this machine has"),
            "{}",
            output.err
        );
    }
}

#[test]
fn what_looks_unintended_is_noted_once() {
    let folder = folder("check-notes");
    let none: &[&str] = &[];
    assert_eq!(notes(&folder, none), none);
    put(&folder, "lb_0", &labels(&[0; 12]));
    put(&folder, "lb_01", &labels(&[0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]));
    for (sets, expected) in [
        (&["model.layers.fc.units=192"][..], &["the last layer has 192 outputs for 3 classes"][..]),
        (
            &["data.train.idx.labels=lb_0"],
            &[
                "the training data has no samples of classes 1, 2, but the test data has",
                "all training samples have label 0: there is nothing to learn",
            ],
        ),
        (&["data.train.idx.labels=lb_01", "data.test.idx.labels=lb_01", "model.layers.fc.units=2"], &[]),
        (&["data.batch=13"], &["[data]: batch = 13 is more than the 12 training samples, which are one batch"]),
        (&["data.test.idx.images=./im"], &["[data]: test reads ./im, which train reads as well"]),
    ] {
        let found: Vec<String> = notes(&folder, sets);
        assert_eq!(found, expected, "{sets:?}");
        let output = with(&folder, &["train"], sets);
        assert_eq!(output.code, Some(0), "{}", output.err);
        for note in expected {
            assert_eq!(output.err.matches(note).count(), 1, "{note}: {}", output.err);
        }
    }
    folder.write("c.toml", &CONFIG.replace("test = ", "# "));
    assert_eq!(notes(&folder, none), ["[data] has neither test nor validation: the network is not evaluated"]);
}

#[test]
fn one_file_with_two_names_is_noted() {
    let folder = folder("check-twice");
    let record = |label: u8| [vec![label], vec![label; 3072]].concat();
    put(&folder, "a.bin", &(0..10).flat_map(record).collect::<Vec<_>>());
    std::os::unix::fs::symlink(folder.at("a.bin"), folder.at("b.bin")).unwrap();
    std::fs::copy(folder.at("a.bin"), folder.at("copy.bin")).unwrap();
    let layers = "model.layers=[\"flatten\", { dense = { units = 10 } }]";
    let sets = |train: &str| {
        vec![format!("data.train={{ cifar = {train} }}"), "data.test={ cifar = \"copy.bin\" }".to_string()]
    };
    let run = |train: &str| {
        let sets = sets(train);
        let all = [sets[0].as_str(), sets[1].as_str(), layers, "model.input=[32,32,3]"];
        with(&folder, &["check", "--data"], &all)
    };
    let output = run("[\"a.bin\", \"b.bin\"]");
    assert_eq!(output.code, Some(0), "{}", output.err);
    assert_eq!(output.err, "note: [data]: train: b.bin and a.bin are one file, whose samples count twice\n");
    // A copy is recognised by its contents.
    assert_eq!(run("\"a.bin\"").err, "note: [data]: the test data is the training data\n");
    // Labels are checked without reading the images.
    put(&folder, "a.bin", &[record(3), record(10)].concat());
    assert!(run("\"a.bin\"").err.contains("a.bin: record 1 has label 10, expected 0 to 9 (so in 1 of 2 records)"));
}

#[test]
fn the_last_layer_is_never_advised_another_number_of_classes() {
    let folder = folder("check-classes");
    let two = ["devices.use=cpu*2", "devices.mesh={ columns = 2 }"];
    let words = "layer \"fc\": its 3 outputs, which the targets require, do not divide evenly among 2 devices (split = \"columns\"); \
                 use split = \"none\" or \"batch\"";
    refused(&folder, &[&two[..], &["model.layers.fc.split=columns"]].concat(), words);
    let hidden =
        "model.layers=[\"flatten\", { dense = { units = 5 }, split = \"columns\" }, { dense = { units = 3 } }]";
    refused(
        &folder,
        &[&two[..], &[hidden]].concat(),
        "units = 5 does not divide by 2 devices (split = \"columns\"); use 6 or",
    );
}

#[test]
fn settings_may_be_given_by_the_names_that_are_printed() {
    let folder = folder("check-names");
    for (given, printed) in [("cpu:0", "cpu:0"), ("cpu:0-1", "cpu:0, cpu:1"), ("emu:0", "emu:0")] {
        let output = folder.good(&["check", "c.toml", "--devices", given]);
        assert!(output.out.contains(&format!("({printed})")), "{}", output.out);
    }
    for (given, words) in [
        (
            "cpu:1",
            "use = \"cpu:1\", expected cpu devices in the order of their numbers, from 0, each once; write \"cpu*2\"",
        ),
        ("cpu*1025", "use = \"cpu*1025\" stands for more than 256 devices, expected 1 to 256"),
    ] {
        refused_by(&folder, &["check", "--devices", given], &[], words);
    }
    for (arguments, tip) in [
        (&["--lr", "0.1"][..], "to change optimizer.lr, use '--set', as in '--set optimizer.lr=0.1'"),
        (&["--learning-rate=3"], "to change optimizer.lr, use '--set', as in '--set optimizer.lr=3'"),
        (&["--epochs"], "to change train.epochs, use '--set', as in '--set train.epochs=VALUE'"),
        (&["--seed", "3"], "to change seed, use '--set', as in '--set seed=3'"),
        (&["--colour", "3"], "to change a setting of the configuration, use '--set', as in '--set optimizer.lr=0.1'"),
    ] {
        let output = folder.run(&[&["train", "c.toml"], arguments].concat());
        assert!(output.err.contains(tip) && !output.err.contains("a similar argument"), "{}", output.err);
    }
}
