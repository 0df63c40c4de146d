//! Repeated layers and blocks of layers with parameters.

use crate::common::runs::Folder;

const HEAD: &str = "name = \"blocks\"\n[data]\ntrain = \"digits\"\nbatch = 8\n[optimizer]\nlr = 0.1\n[train]\nsteps = 1\n[model]\ninput = [28, 28, 1]\n";

/// Returns what `check` prints of a model, and its errors.
fn check(folder: &Folder, model: &str, more: &[&str]) -> (String, String) {
    folder.write("a.toml", &format!("{HEAD}{model}"));
    let output = folder.run(&[&["check", "a.toml"], more].concat());
    (output.out, output.err)
}

/// Returns the names and the inputs of the layers.
fn layers(text: &str) -> Vec<(String, String)> {
    let rows = text.lines().skip(1).take_while(|line| !line.trim().is_empty() && !line.starts_with("total"));
    let words = rows.map(|line| line.split_whitespace().map(str::to_string).collect::<Vec<_>>());
    words.map(|words| (words[0].clone(), words[2].trim_end_matches(',').to_string())).collect()
}

const RESIDUAL: &str = r#"
layers = [
  { name = "stem", conv = { filters = 4, kernel = 3, pad = 1 } },
  { repeat = { times = 2, from = 1, layers = [{ name = "stage.{i}", residual = { width = 4 } }, "relu"] } },
  { name = "wide", residual = { width = 4, factor = 3 } },
  "flatten",
  { name = "fc", dense = { units = 10 } },
]

[model.blocks.residual]
with = { width = 8, factor = 2, act = "tanh" }
layers = [
  { name = "a", conv = { filters = "$width * $factor", kernel = 3, pad = 1 } },
  "$act",
  { name = "b", conv = { filters = "$width", kernel = 1 } },
  { name = "sum", add = {}, inputs = ["b", "$input"] },
]
"#;

#[test]
fn blocks_and_repeats_are_the_layers_that_they_stand_for() {
    let folder = Folder::new("blocks");
    let (out, err) = check(&folder, RESIDUAL, &[]);
    assert!(err.is_empty() || err.starts_with("note"), "{err}");
    let found = layers(&out);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "stem",
        "stage.1.a",
        "tanh1",
        "stage.1.b",
        "stage.1.sum",
        "relu1",
        "stage.2.a",
        "tanh2",
        "stage.2.b",
        "stage.2.sum",
        "relu2",
        "wide.a",
        "tanh3",
        "wide.b",
        "wide.sum",
        "flatten1",
        "fc",
    ];
    assert_eq!(names[..expected.len()], expected);
    assert!(
        out.contains("stage.1.b + stem") && out.contains("stage.2.b + relu1") && out.contains("wide.b + relu2"),
        "{out}"
    );
    // 3 x 3 x 4 x 12 + 12 weights.
    let wide = out.lines().find(|line| line.starts_with("wide.a")).unwrap();
    assert!(wide.contains("28x28x4 -> 28x28x12") && wide.contains(" 444 "), "{wide}");
    // Written out, it is the same.
    let (complete, _) = check(&folder, RESIDUAL, &["--defaults"]);
    assert!(complete.contains("name = \"stage.2.sum\", add = {}, inputs = [\"stage.2.b\", \"relu1\"]"), "{complete}");
    folder.write("b.toml", &complete);
    assert_eq!(folder.good(&["check", "b.toml"]).out, out);
    // Unrolled layers are named in --set.
    let (out, _) = check(&folder, RESIDUAL, &["--set", "model.layers.\"stage.2.a\".filters=5"]);
    assert!(out.lines().any(|line| line.starts_with("stage.2.a") && line.contains("-> 28x28x5")), "{out}");
}

#[test]
fn a_run_with_blocks_resumes_and_sees_what_changed() {
    let folder = Folder::new("blocks-resume");
    folder.write("a.toml", &format!("{HEAD}{RESIDUAL}"));
    folder.good(&["train", "a.toml", "--run-dir", "r"]);
    folder.good(&["train", "a.toml", "--run-dir", "r", "--resume", "--set", "train.steps=2"]);
    folder.write("a.toml", &format!("{HEAD}{}", RESIDUAL.replace("act = \"tanh\"", "act = \"sigmoid\"")));
    let output = folder.run(&["train", "a.toml", "--run-dir", "r", "--resume", "--set", "train.steps=3"]);
    assert_eq!(output.code, Some(2), "{}", output.err);
    assert!(output.err.contains("model.layers.sigmoid1"), "{}", output.err);
}

#[test]
fn a_block_reads_the_inputs_of_its_entry_and_is_an_input_by_its_name() {
    let folder = Folder::new("blocks-inputs");
    let model = r#"
layers = [
  { name = "left", conv = { filters = 2, kernel = 1 } },
  { name = "right", unit = { filters = 3 }, inputs = ["images"] },
  { name = "both", join = {}, inputs = ["left", "right"] },
  "flatten",
  { name = "fc", dense = { units = 10 } },
]
blocks.unit = { with = { filters = 1 }, layers = [{ name = "conv", conv = { filters = "$filters", kernel = 1 } }, "relu"] }
blocks.join = { layers = [
  { name = "all", concat = {} },
  { name = "inner", unit = { filters = 5 } },
  { name = "again", concat = {}, inputs = ["inner", "$input"] },
] }
"#;
    let (out, err) = check(&folder, model, &[]);
    assert!(!err.contains("a.toml:"), "{err}");
    assert!(out.contains("right.conv") && out.contains("both.inner.conv"), "{out}");
    let line = |name: &str| out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {out}"));
    assert!(line("right.conv ").contains(" images "));
    assert!(line("both.all ").contains("left + relu1"));
    // The last layer of the inner block, and what the block reads.
    assert!(
        line("both.again ").contains("relu2 + left + relu1") && line("both.again ").contains("-> 28x28x10"),
        "{out}"
    );
}

#[test]
fn mistakes_in_blocks_have_their_place() {
    let folder = Folder::new("blocks-mistakes");
    let with = |entry: &str, block: &str| {
        let model = format!("layers = [{entry}, \"flatten\", {{ dense = {{ units = 10 }} }}]\nblocks.pair = {block}\n");
        check(&folder, &model, &[]).1
    };
    let block = "{ with = { n = 2 }, layers = [{ name = \"c\", conv = { filters = \"$n\", kernel = 1 } }] }";
    for (entry, block, expected) in [
        (
            "{ pair = { m = 3 } }",
            block,
            "a.toml:11:22: [model]: block \"pair\" has no parameter \"m\" (did you mean \"n\"?); it has n",
        ),
        ("{ pair = { n = 0 } }", block, "layer \"pair1.c\": filters = 0, expected at least 1"),
        ("{ pair = {}, split = \"none\" }", block, "block \"pair\": split is not for blocks"),
        ("\"relu\"", block, "block \"pair\" is not used"),
        ("\"pair\"", "{ layers = [{ conv = { filters = \"$k\", kernel = 1 } }] }", "uses $k, but there is none"),
        (
            "\"pair\"",
            "{ with = { n = 2 }, layers = [{ conv = { filters = \"$n * x\", kernel = 1 } }] }",
            "x is not a whole number",
        ),
        ("\"pair\"", "{ layers = [\"pair\"] }", "more than 8 repeats and blocks inside each other"),
        ("\"pair\"", "3", "expected a table with layers"),
        ("\"pair\"", "{ layer = [] }", "unknown key \"layer\"; known keys: with, layers"),
        ("{ repeat = { times = -1, layers = [\"pair\"] } }", block, "times = -1, expected 0 to 10000"),
        ("{ repeat = { times = 20000, layers = [\"pair\"] } }", block, "times = 20000, expected 0 to 10000"),
        ("{ repeat = { layers = [\"pair\"] } }", block, "expected repeat = { times = 3, layers = [..] }"),
        ("{ repeat = { times = 2, count = 3, layers = [\"pair\"] } }", block, "unknown key \"count\" of a repeat"),
        (
            "{ repeat = { times = 9999, layers = [{ repeat = { times = 9999, layers = [\"relu\"] } }] } }, \"pair\"",
            block,
            "repeats and blocks make more than 10000 layers",
        ),
    ] {
        let err = with(entry, block);
        assert!(err.contains(expected), "{entry} {block}: {err}");
    }
    let (_, err) =
        check(&folder, "layers = [\"flatten\", { dense = { units = 10 } }]\nblocks.relu = { layers = [] }\n", &[]);
    assert!(err.contains("a block cannot have the name \"relu\", which is a kind of layer"), "{err}");
}
