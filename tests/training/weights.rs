//! The weights that a run starts from: files, runs and checkpoints; names, types and values.

use crate::common::runs::{Folder, SMALL, losses};
use peristyle::train::weights::{NamedTensor, TensorData, encode, open_model};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Writes a safetensors file whose values are zeros that take no room on the disk: tensors by name, type and shape.
fn zeros(path: &Path, tensors: &[(String, &str, Vec<usize>)]) {
    let (mut header, mut end) = (Map::new(), 0);
    for (name, dtype, shape) in tensors {
        let bytes = match *dtype {
            "F8_E4M3" => 1,
            "F16" => 2,
            "F32" => 4,
            _ => 8,
        };
        let start = end;
        end += bytes * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
    }
    let header = Value::Object(header).to_string();
    fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

/// Returns the tensors of a `state_dict`, from lines of name and shape.
fn published(lines: &str, float: &'static str) -> Vec<(String, &'static str, Vec<usize>)> {
    let tensor = |line: &str| {
        let (name, shape) = line.split_once('\t').unwrap();
        let dtype = if name.ends_with("num_batches_tracked") { "I64" } else { float };
        (name.to_string(), dtype, shape.split(',').filter_map(|dim| dim.parse().ok()).collect())
    };
    lines.lines().map(tensor).collect()
}

/// Returns a configuration whose layers are named with `_` in place of dots.
fn without_dots(config: &str) -> String {
    let mut text = String::new();
    for line in config.lines() {
        let (layer, more) = line.split_once(" = {").unwrap_or((line, ""));
        let inputs = more.split_once("inputs").map_or("", |(_, inputs)| inputs);
        let settings = &more[..more.len() - inputs.len()];
        let named = layer.starts_with("  { name");
        let layer = if named { layer.replace('.', "_") } else { layer.to_string() };
        text +=
            &format!("{layer}{}{settings}{}\n", if more.is_empty() { "" } else { " = {" }, inputs.replace('.', "_"));
    }
    text
}

/// The names and shapes are those of torchvision 0.29; timm's ResNets have the same.
#[test]
fn published_weights_load_whole_by_their_own_names_and_through_a_map() {
    let folder = Folder::new("weights-published");
    let residual = r#""layer*.*.*" = "layer*_*_*", "layer*.*.downsample.*" = "layer*_*_downsample_*""#;
    let sequential = r#""features.*" = "features_*", "classifier.*" = "classifier_*""#;
    let inverted = r#""features.*.*" = "features_*_*", "features.*.conv.*" = "features_*_conv_*",
        "features.*.conv.*.0" = "features_*_conv_*_0", "features.*.conv.*.1" = "features_*_conv_*_1",
        "classifier.1" = "classifier_1""#;
    macro_rules! network {
        ($name:literal) => {
            (
                $name,
                include_str!(concat!("../weights/", $name, ".toml")),
                include_str!(concat!("../weights/", $name, ".tsv")),
            )
        };
    }
    for ((name, config, tensors), float, map, used, parameters) in [
        (network!("alexnet"), "F32", sequential, 16, 61_100_840),
        (network!("vgg16"), "F16", sequential, 32, 138_357_544),
        (network!("resnet18"), "F32", residual, 102, 11_689_512),
        (network!("resnet50"), "F16", residual, 267, 25_557_032),
        (network!("mobilenet_v2"), "F32", inverted, 262, 3_504_872),
    ] {
        zeros(&folder.at("w.safetensors"), &published(tensors, float));
        folder.write("dotted.toml", config);
        folder.write("own.toml", &without_dots(config));
        let whole = "model.from=w.safetensors";
        let mapped = format!("model.from={{ file = \"w.safetensors\", map = {{ {} }} }}", map.replace('\n', " "));
        for (file, from) in [("dotted.toml", whole), ("own.toml", mapped.as_str())] {
            let output = folder.good(&["check", file, "--set", from]);
            let note = format!("note: starting from w.safetensors: {used} of {used} tensors\n");
            assert!(output.err.ends_with(&note), "{name}: {}", output.err);
            let total = output.out.lines().find(|line| line.starts_with("total")).unwrap();
            assert!(total.contains(&format!(" {parameters} ")), "{name}: {total}");
        }
        // Without the map, none or some of the names fit.
        let output = folder.run(&["check", "own.toml", "--set", whole]);
        assert_eq!(output.code, Some(2), "{name}: {}", output.err);
        assert!(output.err.len() < 2_000, "{name}: {}", output.err);
    }
}

/// The layers of `SMALL`, and what a wrapped module of torchvision's kind would name them.
const NAMES: [(&str, &str); 4] = [
    ("conv", "module.features.0"),
    ("bn", "module.features.1"),
    ("fc1", "module.classifier.0"),
    ("fc2", "module.classifier.2"),
];

/// Trains `small.toml` for some steps, with a checkpoint after each, and returns the tensors of the last one.
fn base(folder: &Folder, steps: usize) -> Vec<NamedTensor> {
    let every = ["--set", "train.checkpoint.every=1 steps", "--set", "train.evaluate=never"];
    folder.train("base", &[&["--set", &format!("train.steps={steps}")][..], &every].concat());
    let file = open_model(&folder.at(&format!("base/checkpoints/step-{steps:08}/model.safetensors"))).unwrap();
    (0..file.tensors.len()).map(|i| file.tensor(i).unwrap()).collect()
}

/// Writes a file of tensors.
fn write(folder: &Folder, name: &str, tensors: &[NamedTensor]) {
    fs::write(folder.at(name), encode(tensors)).unwrap();
}

#[test]
fn weights_are_the_same_from_a_file_a_map_a_run_and_a_checkpoint() {
    let folder = Folder::new("weights-same");
    let tensors = base(&folder, 3);
    let mut doubles = tensors.clone();
    for tensor in &mut doubles {
        let TensorData::F32(values) = &tensor.data else { panic!("a run in f32 writes f32") };
        tensor.data = TensorData::F64(values.iter().map(|&value| f64::from(value)).collect());
        let (layer, parameter) = tensor.name.rsplit_once('.').unwrap();
        let (_, name) = NAMES.iter().find(|(own, _)| *own == layer).unwrap();
        tensor.name = format!("{name}.{parameter}");
    }
    write(&folder, "w.safetensors", &tensors);
    write(&folder, "wrapped.safetensors", &doubles);
    let names = NAMES.map(|(own, name)| format!("{name:?} = {own:?}")).join(", ");
    let stars = "\"module.features.0\" = \"conv\", \"module.features.1\" = \"bn\", \
                 \"module.classifier.0\" = \"fc1\", \"module.classifier.*\" = \"fc*\"";
    let starts = [
        "w.safetensors".to_string(),
        "base".to_string(),
        "base/checkpoints".to_string(),
        "base/checkpoints/step-00000003".to_string(),
        format!("{{ file = 'wrapped.safetensors', map = {{ {names} }} }}"),
        format!("{{ file = 'wrapped.safetensors', map = {{ {stars} }} }}"),
        // Without quotes, a dotted name is the same.
        format!(
            "{{ file = 'wrapped.safetensors', map = {{ {} }} }}",
            names.replace("\"module", "module").replace("\" =", " =")
        ),
    ];
    for (i, from) in starts.iter().enumerate() {
        let from = format!("model.from={from}");
        let output = folder.train(&format!("run{i}"), &["--set", &from, "--set", "train.steps=2"]);
        assert!(output.err.contains(": 9 of 9 tensors\n"), "{from}: {}", output.err);
        assert!(!output.err.contains("not used") && !output.err.contains("initial values"), "{from}: {}", output.err);
        assert_eq!(losses(&folder.metrics(&format!("run{i}"))), losses(&folder.metrics("run0")), "{from}");
        assert!(folder.checkpoint(&format!("run{i}"), 2) == folder.checkpoint("run0", 2), "{from}");
    }
    // The same network with the names of the file.
    let dotted = NAMES.iter().fold(SMALL.to_string(), |text, (own, name)| {
        text.replace(&format!("name = \"{own}\""), &format!("name = \"{name}\""))
    });
    folder.write("dotted.toml", &dotted);
    let from = ["--set", "model.from=wrapped.safetensors", "--set", "train.steps=2"];
    folder.good(&[&["train", "dotted.toml", "--run-dir", "dotted"], &from[..]].concat());
    assert_eq!(losses(&folder.metrics("dotted")), losses(&folder.metrics("run0")));
    // A damaged checkpoint is skipped, as by a resume.
    folder.write("base/checkpoints/step-00000003/model.safetensors", "");
    let output = folder.train("older", &["--set", "model.from=base", "--set", "train.steps=1"]);
    assert!(output.err.contains("skipped a checkpoint: base/checkpoints/step-00000003/model"), "{}", output.err);
    assert!(output.err.contains("starting from base/checkpoints/step-00000002/model"), "{}", output.err);
    // A setting of `from` can be added to a path.
    folder.write("from.toml", &SMALL.replace("[model]", "[model]\nfrom = \"w.safetensors\""));
    let output = folder.good(&["check", "from.toml", "--set", "model.from.skip=[\"fc2\"]"]);
    assert!(output.err.contains(": 7 of 9 tensors\n"), "{}", output.err);
}

/// Asserts that `check` and `train` refuse weights with the same message, which has all words.
fn refused(folder: &Folder, from: &str, words: &[&str]) -> String {
    let set = format!("model.from={from}");
    let output = folder.run(&["check", "small.toml", "--set", &set]);
    assert_eq!(output.code, Some(2), "{from}: {}", output.err);
    for words in ["peristyle: --set model.from: [model]: "].iter().chain(words) {
        assert!(output.err.contains(words), "{from}: \"{words}\" is not in: {}", output.err);
    }
    let train = folder.run(&["train", "small.toml", "--run-dir", "no", "--set", &set]);
    // Only `check` says that it has not read all the data.
    let checked = output.err.replace("small.toml: contents of the data were not read; add --data\n", "");
    assert_eq!((train.code, train.err), (Some(2), checked));
    assert!(!folder.at("no").exists());
    output.err
}

/// Asserts that weights are accepted, and returns the notes.
fn accepted(folder: &Folder, from: &str) -> String {
    folder.good(&["check", "small.toml", "--set", &format!("model.from={from}")]).err
}

#[test]
fn a_file_that_lacks_tensors_is_refused_unless_they_are_named() {
    let folder = Folder::new("weights-strict");
    let tensors = base(&folder, 1);
    let part: Vec<NamedTensor> = tensors.iter().filter(|tensor| !tensor.name.starts_with("fc")).cloned().collect();
    write(&folder, "part.safetensors", &part);
    let lacks = "part.safetensors lacks 4 of the 9 tensors that the network takes from it: fc1.weight, fc1.bias, \
                 fc2.weight, fc2.bias; to train them from scratch, write from = { file = \"part.safetensors\", skip = \
                 [\"fc1\", \"fc2\"] } or strict = false\n";
    refused(&folder, "'part.safetensors'", &[lacks]);
    refused(
        &folder,
        "{ file = 'part.safetensors', skip = ['fc2', 'fc1.bias'] }",
        &["lacks 1 of the 6 ", ": fc1.weight;"],
    );
    let kept = "keep their initial values: fc1.weight, fc1.bias, fc2.weight, fc2.bias\n";
    for more in ["skip = ['fc1', 'fc2']", "skip = ['fc*']", "skip = ['fc*.weight', 'fc*.bias']", "strict = false"] {
        let notes = accepted(&folder, &format!("{{ file = 'part.safetensors', {more} }}"));
        assert!(notes.contains(": 5 of 9 tensors\n") && notes.contains(kept), "{more}: {notes}");
    }
    let skips = "no layer \"fc3\" (did you mean \"fc1\"?) has parameters; expected some of: conv, bn, fc1, fc2";
    refused(&folder, "{ file = 'part.safetensors', skip = ['fc3'] }", &[skips]);
    refused(&folder, "{ file = 'part.safetensors', skip = ['*'] }", &["skip names every layer, so from has no effect"]);
    // Names that differ by a letter.
    let mut near = tensors.clone();
    near.iter_mut().filter(|t| t.name == "fc2.bias").for_each(|t| t.name = "fc2.bais".to_string());
    write(&folder, "near.safetensors", &near);
    let words =
        ["lacks 1 of the 9 tensors", ": fc2.bias (it has fc2.bais); it has fc2.bais, unused: if some are these, write"];
    refused(&folder, "'near.safetensors'", &words);
    // Another network.
    let renamed = |rename: &dyn Fn(&str) -> String| {
        let mut renamed = tensors.clone();
        renamed.iter_mut().for_each(|tensor| tensor.name = rename(&tensor.name));
        write(&folder, "other.safetensors", &renamed);
    };
    renamed(&|name| format!("encoder_{name}"));
    let words = [
        "other.safetensors has none of the network's tensors: expected conv.weight, bn.weight, bn.bias, ",
        "but it has encoder_bn.bias, encoder_bn.running_mean, encoder_bn.running_var, ",
        " and 3 more; if the file names them otherwise, write from = { file = \"other.safetensors\", map = { \"name in the \
         file\" = \"conv\" } }",
    ];
    refused(&folder, "'other.safetensors'", &words);
    refused(&folder, "{ file = 'other.safetensors', strict = false }", &words[..2]);
    // Names that are too long to show.
    renamed(&|name| format!("{name}{}", "x".repeat(1_000_000)));
    let error = refused(&folder, "'other.safetensors'", &["but it has bn.biasxxx", "xxx..., bn.running_meanxxx"]);
    assert!(error.len() < 3_000, "{}", error.len());
    // The advice for a prefix can be used as it is.
    for prefix in ["module", "_orig_mod", "model", "net.module"] {
        renamed(&|name| format!("{prefix}.{name}"));
        let names = format!("its names begin with \"{prefix}.\": to remove that, write from = ");
        let error = refused(&folder, "'other.safetensors'", &[&names]);
        let advice = error.split_once("to remove that, write from = ").unwrap().1.lines().next().unwrap();
        assert_eq!(accepted(&folder, advice), "note: starting from other.safetensors: 9 of 9 tensors\n");
    }
}

#[test]
fn a_map_is_complete_and_unambiguous() {
    let folder = Folder::new("weights-map");
    let tensors = base(&folder, 1);
    write(&folder, "w.safetensors", &tensors);
    let more =
        NamedTensor { name: "old.bias".to_string(), ..tensors.iter().find(|t| t.name == "fc2.bias").unwrap().clone() };
    write(&folder, "more.safetensors", &[&tensors[..], &[more]].concat());
    let map = |file: &str, map: &str| format!("{{ file = '{file}.safetensors', map = {{ {map} }} }}");
    for (file, entries, words) in [
        ("w", "fc3 = 'fc2'", "map: w.safetensors has no tensor \"fc3\" (did you mean \"fc1\"?); it has bn.bias, "),
        (
            "w",
            "conv = 'conf'",
            "map: \"conv\" = \"conf\" leads to conf.weight, but the network has no such tensor (did you mean \
             \"conv.weight\"?); it has conv.weight, ",
        ),
        (
            "more",
            "old = 'fc2'",
            "\"fc2.bias\" and \"old.bias\" of more.safetensors are both fc2.bias: the network uses one",
        ),
        ("w", "'b*' = 'b*', '*n' = '*n'", "map: \"*n\" and \"b*\" both match \"bn."),
    ] {
        refused(&folder, &map(file, entries), &[words]);
    }
    // An entry moves a tensor out of the way of another one.
    let notes = accepted(&folder, &map("more", "old = 'fc2', 'fc2.bias' = 'unused'"));
    assert!(notes.contains(": 9 of 9 tensors") && notes.contains("not used: fc2.bias"), "{notes}");
    // Mistakes in the file itself.
    for (from, words) in [
        (
            "{ file = 'w', map = 'x' }",
            "[model] from: map: \"x\", expected a table such as { \"features.0\" = \"conv1\" }",
        ),
        ("{ file = 'w', map = { a = 3 } }", "[model] from: map: \"a\" = 3, expected the name of a layer or tensor"),
        ("{ file = 'w', map = { a = 'b*' } }", "map: \"a\" = \"b*\" has 0 and 1 stars, expected as many on both sides"),
        ("{ file = 'w', map = { 'a..b' = 'c' } }", "map: \"a..b\", expected a name or a pattern, without empty parts"),
        ("{ file = 'w', map = { 'a.b' = 'c', a.b = 'd' } }", "map: \"a.b\" is there twice, with and without quotes"),
        ("{ file = 'w', skip = ['**'] }", "skip: \"**\", expected single stars"),
        ("{ file = 'w', strict = 1 }", "strict = 1, expected true or false"),
        (
            "{ file = 'w', skp = [] }",
            "unknown key \"skp\" (did you mean \"skip\"?); known keys: file, skip, map, strict",
        ),
    ] {
        let output = folder.run(&["check", "small.toml", "--set", &format!("model.from={from}")]);
        assert_eq!(output.code, Some(2), "{from}");
        assert!(output.err.contains(words), "{from}: {}", output.err);
    }
}

#[test]
fn types_that_are_not_weights_are_refused_and_counters_are_not_mentioned() {
    let folder = Folder::new("weights-types");
    let text = SMALL.split_once("layers = [").unwrap().0.to_string()
        + "layers = [{ batch_norm = {} }, \"flatten\", { name = \"fc\", dense = { units = 10 } }]\n"
        + &SMALL[SMALL.find("\n[optimizer]").unwrap()..];
    folder.write("small.toml", &text);
    let norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"].map(|name| {
        let shape = if name == "num_batches_tracked" { vec![] } else { vec![1] };
        let dtype = if name == "num_batches_tracked" { "I64" } else { "F32" };
        (format!("batch_norm1.{name}"), dtype, shape)
    });
    let with = |dtype: &'static str| {
        let dense = [("fc.weight".to_string(), dtype, vec![10, 64]), ("fc.bias".to_string(), "F16", vec![10])];
        zeros(&folder.at("w.safetensors"), &[&norm[..], &dense].concat());
    };
    for dtype in ["I64", "F8_E4M3"] {
        with(dtype);
        let words = format!(
            "tensors of w.safetensors have types that are not used for weights: fc.weight ({dtype}); expected F16, BF16, F32 or \
             F64: save them as floats, or train them from scratch with from = {{ file = \"w.safetensors\", skip = [\"fc\"] }}\n"
        );
        refused(&folder, "'w.safetensors'", &[&words]);
        refused(&folder, "{ file = 'w.safetensors', strict = false }", &["not used for weights: fc.weight"]);
        let notes = accepted(&folder, "{ file = 'w.safetensors', skip = ['fc'] }");
        assert!(notes.contains(&format!("not used: fc.bias, fc.weight ({dtype})\n")), "{notes}");
    }
    with("F64");
    assert_eq!(accepted(&folder, "'w.safetensors'"), "note: starting from w.safetensors: 6 of 6 tensors\n");
}

#[test]
fn values_that_are_no_weights_are_refused() {
    let folder = Folder::new("weights-values");
    let tensors = base(&folder, 1);
    let with = |name: &str, at: usize, value: f64| {
        let mut tensors = tensors.clone();
        let tensor = tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
        let TensorData::F32(values) = &tensor.data else { panic!("a run in f32 writes f32") };
        let mut values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
        values[at] = value;
        tensor.data = match value.is_finite() && value.abs() > 1e38 {
            true => TensorData::F64(values),
            false => TensorData::F32(values.iter().map(|&value| value as f32).collect()),
        };
        write(&folder, "w.safetensors", &tensors);
    };
    for (name, at, value, shown) in [
        // (32, 128), (8, 1, 3, 3) and (8).
        ("fc1.weight", 130, f64::NAN, "fc1.weight[1, 2] is NaN;"),
        ("conv.weight", 9 * 5 + 3 * 2 + 1, f64::NEG_INFINITY, "conv.weight[5, 0, 2, 1] is -inf;"),
        ("fc2.bias", 9, -1e39, "fc2.bias[9] is -1e39, beyond single precision;"),
        ("bn.running_mean", 0, f64::INFINITY, "bn.running_mean[0] is inf;"),
        ("bn.running_var", 3, -0.5, "bn.running_var[3] is -0.5, a variance below 0;"),
    ] {
        with(name, at, value);
        refused(&folder, "'w.safetensors'", &["w.safetensors has values that are no weights: ", shown]);
        let skip = format!("{{ file = 'w.safetensors', skip = ['{name}'] }}");
        assert!(accepted(&folder, &skip).contains(": 8 of 9 tensors"));
    }
    // The largest number of single precision, and one that double precision holds.
    with("fc2.bias", 9, f64::from(f32::MAX));
    accepted(&folder, "'w.safetensors'");
    with("fc2.bias", 9, -1e39);
    let double = ["--set", "model.from=w.safetensors", "--set", "devices.precision=f64"];
    folder.good(&[&["check", "small.toml"], &double[..]].concat());
}

#[test]
fn a_path_that_holds_no_weights_is_refused_without_reading_it() {
    let folder = Folder::new("weights-files");
    let sparse = |name: &str, start: &[u8], length: u64| {
        fs::write(folder.at(name), start).unwrap();
        fs::File::options().write(true).open(folder.at(name)).unwrap().set_len(length).unwrap();
    };
    sparse("zeros", b"", 9_000_000_000);
    sparse("long", &50_000_000_000u64.to_le_bytes(), 60_000_000_000);
    sparse("short", b"\x02\0\0\0\0\0\0\0{}", 9_000_000_000);
    assert!(Command::new("mkfifo").arg(folder.at("pipe")).status().unwrap().success());
    fs::create_dir(folder.at("empty")).unwrap();
    for (from, words) in [
        ("'/dev/zero'", "/dev/zero: not a safetensors file: it is not a regular file"),
        ("'pipe'", "pipe: not a safetensors file: it is not a regular file"),
        ("'zeros'", "zeros: not a safetensors file: "),
        ("'long'", "long: not a safetensors file: a header of 50000000000 bytes in a file of 60000000000"),
        ("'short'", "short: not a safetensors file: 0 bytes of tensors are declared, 8999999990 follow"),
        (
            "'empty'",
            "empty: holds no complete checkpoint to resume from; expected weights (a safetensors file), a run directory or a \
             checkpoint",
        ),
        ("'absent'", "absent: no such file; tried "),
    ] {
        refused(&folder, from, &[words]);
    }
}

#[test]
fn the_documented_alexnet_starts_from_the_published_weights() {
    let folder = Folder::new("weights-documented");
    zeros(&folder.at("alexnet.safetensors"), &published(include_str!("../weights/alexnet.tsv"), "F32"));
    let documentation =
        include_str!("../../docs/WEIGHTS.md").split("```toml\n").map(|part| part.split("```").next().unwrap());
    let example = documentation.into_iter().find(|block| block.starts_with("[data]")).unwrap();
    folder.write("alexnet.toml", example);
    let notes = folder.good(&["check", "alexnet.toml"]).err;
    let expected = "note: starting from alexnet.safetensors: 14 of 16 tensors\n\
                    note: from alexnet.safetensors: keep their initial values: fc8.weight, fc8.bias\n\
                    note: from alexnet.safetensors: of the file are not used: classifier.6.weight, classifier.6.bias\n";
    assert!(notes.ends_with(expected), "{notes}");
}
