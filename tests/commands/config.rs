//! The configuration through its public interface: how files are read and how mistakes are reported.

use peristyle::Error;
use peristyle::collectives::CollectiveAlgorithm;
use peristyle::config::{self, Config, Parsed};
use peristyle::data::Base;
use peristyle::network::{self, Network};
use peristyle::tensor::MatmulPrecision;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::path::Path;

const BASE: &str = r#"name = "small"
seed = 7

[devices]
use = "cpu*2"
threads = 1

[data]
train = { digits = "train" }
test = { digits = "test" }
batch = 8
augment = [{ shift = 2 }]

[model]
input = [4, 4, 3]
layers = [
  { name = "fc1", dense = { units = 12 }, split = "none" },
  "relu",
  { dense = { units = 5, bias = 0.5 }, lr_mult = 2.0, init = { normal = { std = 0.01 } } },
]

[optimizer]
chain = [{ weight_decay = 1e-3 }, { momentum = 0.9 }]
lr = 0.1
schedule = { step = { every = 10, factor = 0.5 } }

[train]
epochs = 2
evaluate = "1 epoch"
checkpoint = { every = "500 steps", keep = 2 }
"#;

fn parse(text: &str, sets: &[&str]) -> Parsed {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    config::from_text("a.toml", text, Path::new("."), &sets)
}

fn open(text: &str, sets: &[&str]) -> Result<(Config, Network), Error> {
    network::complete(parse(text, sets))
}

fn problems(text: &str, sets: &[&str]) -> String {
    match open(text, sets) {
        Ok(_) => String::new(),
        Err(Error::Config(problems)) => problems.found.iter().map(|p| p.to_string() + "\n").collect(),
        Err(other) => panic!("{other}"),
    }
}

/// Returns true if a line is as expected, where `...` matches anything.
fn matches(line: &str, expected: &str) -> bool {
    let mut rest = line;
    for (i, part) in expected.split("...").enumerate() {
        match rest.find(part) {
            Some(at) if i > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || expected.ends_with("...")
}

#[test]
fn every_mistake_is_reported_at_its_location() {
    let cases = include_str!("../config/mistakes.txt").trim_end().split("\n\n").skip(1);
    let mut wrong = String::new();
    for case in cases {
        let part =
            |sign: char| case.lines().filter_map(|l| l.strip_prefix(sign)).map(str::trim_start).collect::<Vec<_>>();
        let (old, new): (String, String) = (part('-').join("\n"), part('+').join("\n"));
        let expected: Vec<&str> = case.lines().filter(|l| !l.starts_with(['-', '+'])).collect();
        assert!(BASE.contains(&old), "{old} is not in the file");
        let found = problems(&BASE.replacen(&old, &new, 1), &[]);
        let same = found.lines().count() == expected.len() && found.lines().zip(&expected).all(|(f, e)| matches(f, e));
        if !same {
            wrong += &format!("{new}\n{found}\n");
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{wrong}");
}

#[test]
fn mistakes_in_a_set_are_reported_at_that_set() {
    for (set, expected) in [
        ("train.stepz=5", "train.stepz: [train]: unknown key \"stepz\" (did you mean \"steps\"?); ..."),
        ("trian.steps=5", "trian.steps: the file: unknown key \"trian\" (did you mean \"train\"?); ..."),
        ("train.steps=x", "train.steps: [train]: steps = \"x\", expected a whole number, at least 0"),
        ("model.layers.fc1.units=x", "model.layers.fc1.units: layer \"fc1\": units = \"x\", expected a whole ..."),
        ("model.layers.fc1.unts=3", "model.layers.fc1.unts: layer \"fc1\": unknown key \"unts\" (did you mean ..."),
        (
            "model.layers.fc9.units=3",
            "model.layers.fc9.units: there is no layer \"fc9\" (did you mean \"fc1\"?); expected one of: fc1, relu1, \
             dense2",
        ),
        ("model.layers.9=3", "model.layers.9: there is no layer \"9\"...; expected one of: fc1, relu1, dense2"),
        ("model.layers.relu1.split=rows", "model.layers.relu1.split: layer \"relu1\": split = \"rows\" does ..."),
        ("model.layers.dense2.units=0", "model.layers.dense2.units: layer \"dense2\": units = 0, expected ..."),
        ("optimizer.chain.momentum=2", "optimizer.chain.momentum: transform \"momentum\": momentum = 2, ..."),
        (
            "optimizer.chain.momentm=2",
            "optimizer.chain.momentm: optimizer.chain has no entry \"momentm\" (did you mean \"momentum\"?); \
             expected one of: weight_decay, momentum",
        ),
        ("seed.x=2", "seed.x: seed = 7, which has no key \"x\""),
        ("optimizer.chain.7=2", "optimizer.chain.7: optimizer.chain has 2 entries, counted from 0; ..."),
        ("optimizer.schedule.constant.x=3", "optimizer.schedule.constant.x: schedule \"constant\": unknown ..."),
        ("optimizer.lr", "optimizer.lr: expected KEY=VALUE, like train.epochs=3"),
        ("=3", "=3: expected a dotted path, like train.epochs=3"),
        ("a..b=3", "a..b=3: expected a dotted path, like train.epochs=3"),
        ("devices.mesh.data=3", "devices.mesh.data: [devices]: mesh = { data = 3, ..."),
        ("model.layers.\"fc1=3", "model.layers.\"fc1=3: the path has a quote that is not closed"),
        ("model.layers.\"\".x=3", "model.layers.\"\".x=3: expected a dotted path, like train.epochs=3"),
        ("model.layers.\"fc1\"x=3", "model.layers.\"fc1\"x=3: expected a dotted path, like train.epochs=3"),
        ("model.input=[1,2", "model.input: [model]: input = \"[1,2\", expected a list of 3"),
        ("data.batch=0", "data.batch: [data]: batch = 0, expected at least 1"),
    ] {
        let found = problems(BASE, &[set]);
        assert!(matches(found.trim_end(), &format!("--set {expected}")), "{set}: {found}");
    }
    let long = format!("a{}=1", ".a".repeat(100_000));
    assert!(problems(BASE, &[&long]).contains("expected a dotted path"));
}

/// Returns the location of each problem.
fn locations(problems: &str) -> Vec<&str> {
    problems.lines().filter_map(|line| line.split(": ").next()).collect()
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = BASE
        .replace("seed = 7", "sede = 7")
        .replace("batch = 8", "batch = 0")
        .replace("units = 12", "unit = 12")
        .replace("units = 5", "units = 0")
        .replace("lr = 0.1", "lr = -1")
        .replace("keep = 2", "keep = \"x\"");
    let found = problems(&text, &["train.epochs=0"]);
    let expected = ["2:1", "11:9", "17:29", "19:23", "24:6", "30:44"].map(|location| format!("a.toml:{location}"));
    let found = locations(&found);
    assert_eq!(found[..6], expected);
    assert_eq!(found[6..], ["--set train.epochs"]);
}

#[test]
fn mistakes_of_parsing_and_of_the_network_are_reported_together() {
    let text = BASE.replace("\"relu\"", "{ relu = {}, name = \"fc1\" }").replace("lr = 0.1", "lr = -1");
    assert_eq!(locations(&problems(&text, &[])), ["a.toml:18:23", "a.toml:24:6"]);
}

#[test]
fn columns_count_characters() {
    let text = BASE.replace("name = \"fc1\", dense", "name = \"f\u{e9}c\", dens");
    assert_eq!(locations(&problems(&text, &[])), ["a.toml:17:12", "a.toml:17:19"]);
}

#[test]
fn a_byte_order_mark_and_the_line_ends_of_windows_move_no_location() {
    let mistakes = BASE.replace("name", "nam");
    let expected = problems(&mistakes, &[]);
    assert_eq!(locations(&expected)[..2], ["a.toml:1:1", "a.toml:17:5"], "{expected}");
    for text in [mistakes.replace('\n', "\r\n"), format!("\u{feff}{mistakes}")] {
        assert_eq!(problems(&text, &[]), expected);
    }
    let syntax = problems("\u{feff}seed = = 3", &[]);
    assert!(syntax.starts_with("a.toml:1:8: the file is not TOML"), "{syntax}");
    let (config, network) = open(BASE, &[]).unwrap();
    for sets in [&[][..], &["seed=7"]] {
        let (marked, same) = open(&format!("\u{feff}{}", BASE.replace('\n', "\r\n")), sets).unwrap();
        assert_eq!(meaning(&marked, &same), meaning(&config, &network));
        assert!(!marked.resolved.contains('\u{feff}'));
    }
}

#[test]
fn a_name_has_no_hidden_character() {
    for hidden in ["\\u0007", "\\u202e", "\\u200b", "\\ufeff", "\\n  "] {
        let found = problems(&BASE.replace("name = \"small\"", &format!("name = \"a{hidden}b\"")), &[]);
        assert!(found.starts_with("a.toml:1:8: the file: name = \"a"), "{hidden}: {found}");
        assert!(found.contains("expected a name that can be used for a folder"), "{found}");
    }
    let name = "gr\u{f6}\u{df}e \u{65e5}\u{672c}";
    assert_eq!(open(&BASE.replace("\"small\"", &format!("\"{name}\"")), &[]).unwrap().0.name, name);
}

#[test]
fn a_syntax_error_is_reported_alone() {
    let text = BASE.replace("units = 12", "unit = = 12").replace("seed", "sede");
    let found = problems(&text, &["trian.steps=5"]);
    assert!(found.starts_with("a.toml:17:36: the file is not TOML: ") && found.lines().count() == 1, "{found}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_of_the_file() {
    let folder = std::env::temp_dir().join(format!("peristyle-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).unwrap();
        folder.join(name)
    };
    let large = write("large.toml", &vec![b'#'; (1 << 20) + 1]);
    let bytes = write("bytes.toml", b"name = 'x'\nseed = \xff");
    let good = write("good.toml", BASE.replace("name = \"small\"", "").as_bytes());
    for (path, expected) in [
        (&folder.join("absent.toml"), "cannot read: "),
        (&folder, "this is a folder, expected a file; correct the path"),
        (&large, "the file is larger than 1048576 bytes"),
        (&bytes, "line 2 is not UTF-8 text"),
    ] {
        let found = network::open(path, &[]).unwrap_err().to_string();
        assert!(found.starts_with(&format!("{}: {expected}", path.display())), "{found}");
    }
    let (config, _) = network::open(&good, &[]).unwrap();
    assert_eq!((config.name.as_str(), &config.path), ("good", &good));
    assert_eq!(config.base, Base::from(folder.as_path()));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_path_of_a_hundred_thousand_keys_is_rejected() {
    let found = problems(&format!("a{} = 1", ".a".repeat(100_000)), &[]);
    assert!(found.starts_with("a.toml:1:"), "{found}");
}

/// Returns the contents of a configuration without locations.
fn meaning(config: &Config, network: &Network) -> String {
    let layer = |node: &network::Node| format!("{:?} {:?} {:?}", node.layer, node.split, node.output);
    let layers: Vec<String> = network.nodes.iter().map(layer).collect();
    let Config { name, seed, devices, data, optimizer, train, .. } = config;
    format!(
        "{name} {seed} {devices:?} {data:?} {optimizer:?} {train:?} {layers:?} {:?} {:?}",
        network.parameters, config.model.from
    )
}

#[test]
fn a_stored_configuration_reads_back_as_the_same() {
    for sets in [
        &[][..],
        &["seed=3"],
        &["name=a \"b\" c", "train.steps=5", "data.train.synthetic={images=9, classes=3, shape=[4,4,3]}"],
        &["model.layers.relu1.split=batch", "model.layers.fc1.bias=false", "model.layers.dense2.decay_mult=0"],
        &["model.from={ file = 'w.safetensors', skip = ['fc1'] }", "devices.use=[\"emu*2\", \"emu\"]"],
        &["optimizer.schedule=constant", "optimizer.chain.momentum=0.5", "optimizer.chain.0.weight_decay=1e-5"],
    ] {
        let (config, network) = open(BASE, sets).unwrap();
        let (again, same) = open(&config.resolved, &[]).unwrap_or_else(|e| panic!("{e}\n{}", config.resolved));
        assert_eq!(meaning(&config, &network), meaning(&again, &same));
    }
}

#[test]
fn set_changes_only_the_value_it_names() {
    for (set, old, new) in [
        ("seed=8", "seed = 7", "seed = 8"),
        ("train.steps=5", "epochs = 2", "steps = 5"),
        ("train.checkpoint.keep=9", "keep = 2", "keep = 9"),
        ("train.checkpoint.every=never", "500 steps", "never"),
        ("model.layers.fc1.units=7", "units = 12", "units = 7"),
        ("model.layers.fc1.dense.units=7", "units = 12", "units = 7"),
        ("model.layers.0.units=7", "units = 12", "units = 7"),
        ("model.layers.fc1.split=batch", "\"none\"", "\"batch\""),
        ("model.layers.relu1.split=batch", "\"relu\"", "{ relu = {}, split = \"batch\" }"),
        ("model.layers.relu1={ dense = { units = 3 } }", "\"relu\"", "{ name = \"dense2\", dense = { units = 3 } }"),
        ("model.layers.dense2.init=xavier", "{ normal = { std = 0.01 } }", "\"xavier\""),
        ("model.layers.dense2.init.normal.std=3", "0.01", "3"),
        ("optimizer.chain.momentum=0.8", "momentum = 0.9", "momentum = 0.8"),
        ("optimizer.chain=[]", "[{ weight_decay = 1e-3 }, { momentum = 0.9 }]", "[]"),
        ("optimizer.schedule.constant={}", "{ step = { every = 10, factor = 0.5 } }", "\"constant\""),
        ("optimizer.schedule.step.factor=0.3", "factor = 0.5", "factor = 0.3"),
        ("data.augment.shift=1", "shift = 2", "shift = 1"),
        ("data.test.digits=train", "{ digits = \"test\" }", "{ digits = \"train\" }"),
        ("devices.use=cpu*4", "cpu*2", "cpu*4"),
    ] {
        assert!(BASE.contains(old), "{old} is not in the file");
        let read = |text: &str, sets: &[&str]| {
            let (config, network) = open(text, sets).unwrap_or_else(|e| panic!("{set}: {e}"));
            meaning(&config, &network)
        };
        assert_eq!(read(BASE, &[set]), read(&BASE.replacen(old, new, 1), &[]), "{set}");
    }
}

#[test]
fn a_layer_whose_name_has_dots_is_addressed_in_quotes() {
    let text = BASE.replace("\"fc1\"", "\"head.0\"").replace("\"relu\"", "{ relu = {}, inputs = [\"head.0\"] }");
    let (_, network) = open(&text, &[]).unwrap();
    let parameters: Vec<&str> = network.parameters.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(parameters, ["head.0.weight", "head.0.bias", "dense2.weight", "dense2.bias"]);
    let units = |set: &str| {
        let (config, network) = open(&text, &[set]).unwrap_or_else(|e| panic!("{set}: {e}"));
        assert_eq!(meaning(&config, &network), {
            let (again, same) = open(&config.resolved, &[]).unwrap();
            meaning(&again, &same)
        });
        network.nodes[0].output.features()
    };
    for set in [
        "model.layers.\"head.0\".units=7",
        "model.layers.'head.0'.dense.units=7",
        " model . layers . \"head.0\" . dense . units = 7",
        "\"model\".layers.0.units=7",
        "model.layers.\"head.0\"={ name = \"head.0\", dense = { units = 7 } }",
    ] {
        assert_eq!(units(set), 7, "{set}");
    }
    for (set, expected) in [
        (
            "model.layers.head.0.units=7",
            "model.layers.head.0.units: there is no layer \"head\"; write model.layers.\"head.0\" for the layer whose \
             name has dots\n",
        ),
        (
            "model.layers.\"head.0\".unit=7",
            "model.layers.\"head.0\".unit: layer \"head.0\": unknown key \"unit\" (did you mean \"units\"?)...",
        ),
        (
            "model.layers.\"head.1\".units=7",
            "model.layers.\"head.1\".units: there is no layer \"head.1\" (did you mean \"head.0\"?); expected one of: \
             head.0, relu1, dense2\n",
        ),
    ] {
        let found = problems(&text, &[set]);
        assert!(matches(&found, &format!("--set {expected}")), "{set}: {found}");
    }
}

#[test]
fn devices_are_counted_repeated_and_arranged() {
    let devices = |lines: &str| open(&BASE.replace("use = \"cpu*2\"", lines), &[]).unwrap().0.devices;
    for (lines, expected) in [
        ("", "Cpu [0] 1x1"),
        ("use = \"cpu*4\"", "Cpu [0, 1, 2, 3] 4x1"),
        ("use = [\"cpu*2\", \"cpu\"]", "Cpu [0, 1, 2] 3x1"),
        ("use = \"cuda:1-3\"", "Cuda [1, 2, 3] 3x1"),
        ("use = \"cuda:0*2\"", "Cuda [0, 0] 2x1"),
        ("use = [\"cuda:0\", \"cuda:2\"]\nmesh = { columns = 2 }", "Cuda [0, 2] 1x2"),
        ("use = \"emu*4\"\nmesh = { data = 2 }", "Emu [0, 1, 2, 3] 2x2"),
    ] {
        let found = devices(lines);
        assert_eq!(format!("{:?} {:?} {}", found.kind, found.ordinals, found.mesh), expected, "{lines}");
    }
    assert_eq!(devices("use = \"cpu*2\"").collectives.algorithm, CollectiveAlgorithm::OnePass);
    assert_eq!(devices("use = \"emu*2\"").collectives.algorithm, CollectiveAlgorithm::Ring);
    assert_eq!(devices("use = \"emu\"\nprecision = \"bf16\"").products, MatmulPrecision::Bf16);
}

#[test]
fn settings_without_effect_are_noted() {
    let notes = |text: &str, sets: &[&str]| open(text, sets).unwrap().0.notes;
    let wide = "use = \"cpu*4\"\nmesh = { data = 2, columns = 2 }\nprecision = \"bf16\"";
    let wide = BASE.replace("use = \"cpu*2\"", wide);
    let precision = "[devices]: precision = \"bf16\" has no effect on cpu devices, which compute in f32";
    let split = "[model]: split has no effect: the mesh has one column";
    let narrow = "[devices]: dense2 cannot have split = \"columns\" on 2 columns; it has split = \"batch\"";
    assert_eq!(notes(&wide, &[]), [precision, narrow]);
    let mesh =
        "[devices]: mesh = { data = 2, columns = 2 } needs 4 devices but use lists 3; using { data = 3 } instead";
    assert_eq!(notes(&wide, &["devices.use=cpu*3"]), [mesh, precision, split]);
    let libraries = "[devices]: libraries has no effect on cpu devices";
    assert_eq!(notes(BASE, &["devices.libraries=off"]), [libraries, split]);
    let decay = "[model]: decay_mult has no effect: the chain of [optimizer] has no weight_decay";
    assert_eq!(notes(BASE, &["optimizer.chain=[]", "model.layers.fc1.decay_mult=0"]), [split, decay]);
}

#[test]
fn layers_are_named_by_kind_and_index_and_joined_by_name() {
    let entries = "\"relu\",\n  { relu = {}, inputs = [\"fc1\"] },\n  { relu = {}, inputs = [\"relu1\"] },";
    let found = problems(&BASE.replace("\"relu\",", entries), &[]);
    let expected = "a.toml:19:3: layer \"relu2\": nothing uses its output; name it in the inputs of a later layer, or \
                    remove it\n";
    assert_eq!(found, expected);
    let (_, network) = open(BASE, &[]).unwrap();
    let parameters: Vec<&str> = network.parameters.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(parameters, ["fc1.weight", "fc1.bias", "dense2.weight", "dense2.bias"]);
    let lr: Vec<f64> = network.parameters.iter().map(|p| p.lr_mult).collect();
    assert_eq!(lr, [1.0, 1.0, 2.0, 2.0]);
    let table = "\
layer   kind                   inputs  shapes       parameters       cost
fc1     dense                  images  4x4x3 -> 12         588  1.2 kflop
relu1   relu                   fc1     12 -> 12                   12 flop
dense2  dense                  relu1   12 -> 5              65   120 flop
loss    softmax_cross_entropy  dense2  5 -> 5                     25 flop
total                                                      653  1.3 kflop
";
    assert_eq!(network.to_string(), table);
}

#[test]
fn convolutions_and_joins_are_checked_with_their_shapes() {
    let digits = include_str!("../../configs/digits.toml");
    let (_, network) = open(digits, &[]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(network.nodes.iter().rev().nth(1).unwrap().output.to_string(), "10");
    let join = "\"relu\",\n  { add = {}, inputs = [\"conv1\", \"relu1\"] },";
    assert_eq!(problems(&digits.replacen("\"relu\",", join, 1), &[]), "");
    for (set, expected) in [
        ("conv1.kernel=40", "layer \"conv1\": ..."),
        ("conv1.kernel=[5, 5, 5]", "layer \"conv1\": kernel = [5, 5, 5], expected ..."),
        ("conv1.kernel=five", "layer \"conv1\": kernel = \"five\", expected ..."),
        ("conv1.pad=9223372036854775807", "layer \"conv1\": pad = 9223372036854775807, expected at most 65536"),
        ("conv2.groups=3", "layer \"conv2\": ..."),
        (
            "conv2.strid=3",
            "layer \"conv2\": unknown key \"strid\" (did you mean \"stride\"?); known keys: filters, ...",
        ),
        ("max_pool1.kernel=60", "layer \"max_pool1\": ..."),
        ("relu1={ add = {} }", "layer \"add1\": 1 input, expected 2 to 8; write inputs = [..] ..."),
        ("relu2={ add = {}, inputs = ['conv1', 'conv2'] }", "layer \"add1\": ..."),
        (
            "flatten1={ name = 'flat', flatten = {}, init = 'zeros' }",
            "layer \"flat\": init has no effect: flatten has ...",
        ),
        (
            "relu3={ batch_norm = {}, init = 'zeros' }",
            "layer \"batch_norm1\": init has no effect: batch_norm has no parameters that ...",
        ),
    ] {
        let found = problems(digits, &[&format!("model.layers.{set}")]);
        let line = found.lines().next().unwrap_or_default();
        let message = line.split_once(": ").map_or("", |(_, message)| message);
        assert!(matches(message, expected), "{set}: {found}");
    }
}

#[test]
fn initial_values_follow_the_seed_the_entry_and_the_layer() {
    let (config, network) = open(BASE, &[]).unwrap();
    let all = |seed, parameter: usize| {
        let elements = network.parameters[parameter].param.shape.elements();
        network::initial(&network, seed, parameter).elements(0..elements)
    };
    let values = |parameter| all(config.seed, parameter);
    // 576 and 60 normal draws: within four standard errors of the standard deviation.
    for (parameter, expected, draws) in [(0, (2.0f64 / 48.0).sqrt(), 576.0f64), (2, 0.01, 60.0)] {
        let std = (values(parameter).iter().map(|v| v * v).sum::<f64>() / draws).sqrt();
        assert!((std / expected - 1.0).abs() < 4.0 / (2.0 * draws).sqrt(), "{std}");
    }
    assert_eq!((values(1), values(3)), (vec![0.0; 12], vec![0.5; 5]));
    assert_eq!(values(0), all(7, 0));
    assert_ne!(values(0), all(8, 0));
}

/// Pieces that a careless edit may leave behind.
const PIECES: &str = r#"|"|[|]|{|}|=|,|.|#|0|-1|1e400|nan|inf|99999999999999999999|18446744073709551615|4611686018427387904|"relu"
|dense = |{ relu = {} }|[train]|[[model]]|model.layers|inputs = ["images"], |inputs = [], |name = "", |1979-05-27|'''
|true|units|cpu*9|cuda:3-1|*|{ conv = { filters = 4, kernel = 3 } }|"5 epochs""#;

/// Paths that a `--set` may name.
const PATHS: &str = "seed|name|devices|devices.use|devices.mesh|devices.mesh.data|devices.mesh.columns|data|data.train\
    |data.augment.0|data.augment.shift|model|model.input|model.input.1|model.layers|model.layers.0|model.layers.fc1\
    |model.layers.relu1.x|model.layers.fc1.units|model.layers.fc1.dense|model.layers.fc1.inputs.0|model.loss\
    |model.loss.relu|optimizer.chain|optimizer.chain.momentum.mu|optimizer.chain.weight_decay|optimizer.schedule.step\
    |train.steps|train.epochs|x.y.z|model.layers.fc1.name.relu|";

fn one_of(list: &'static str) -> impl Strategy<Value = &'static str> {
    prop::sample::select(list.split('|').collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default()
    })]

    #[test]
    fn no_edit_of_a_file_and_no_set_panics(
        file in prop::sample::select(&[BASE, include_str!("../../configs/digits.toml")][..]),
        edits in prop::collection::vec((0..1200usize, 0..24usize, one_of(PIECES)), 0..4),
        sets in prop::collection::vec((one_of(PATHS), one_of(PIECES)), 0..3),
    ) {
        let mut text: Vec<char> = file.chars().collect();
        for (at, cut, piece) in edits {
            let start = at.min(text.len());
            text.splice(start..(start + cut).min(text.len()), piece.chars());
        }
        let text: String = text.into_iter().collect();
        let sets: Vec<String> = sets.into_iter().map(|(path, value)| format!("{path}={value}")).collect();
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        match open(&text, &sets) {
            Ok((config, network)) => {
                let (again, same) = open(&config.resolved, &[]).unwrap_or_else(|e| panic!("{e}\n{}", config.resolved));
                prop_assert_eq!(meaning(&config, &network), meaning(&again, &same));
            }
            Err(Error::Config(problems)) => prop_assert!(!problems.found.is_empty()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
