//! `compare`: experiments whose values are computed by hand, what is expected of them, and mistakes in their files.

use crate::common::file;
use crate::common::runs::{Folder, assert_code};
use serde_json::Value;

/// A quadratic with the curvatures 1/5 along x and 1 along y, from (-1.5, 2): with the rate `lr`, the coordinates after t updates are
/// -1.5 (1 - lr/5)^t and 2 (1 - lr)^t.
fn folder(name: &str) -> Folder {
    let folder = Folder::new(name);
    let ravine = std::fs::read_to_string(file("configs/ravine.toml")).unwrap();
    let quadratic = ravine
        .replace("\"ravine\", condition = 10.0", "\"quadratic\", condition = 5.0")
        .replace("chain = [{ momentum = 0.9 }]", "chain = []")
        .replace("steps = 500", "steps = 20");
    assert!(quadratic.contains("\"quadratic\"") && quadratic.contains("chain = []"));
    folder.write("quadratic.toml", &quadratic);
    folder
}

/// The loss of update t, counted from 1, before the update.
fn loss(lr: f64, t: i32) -> f64 {
    let [x, y] = [-1.5 * (1.0 - lr / 5.0).powi(t - 1), 2.0 * (1.0 - lr).powi(t - 1)];
    (x * x / 5.0 + y * y) / 2.0
}

fn variant(name: &str, sets: &[&str]) -> String {
    format!("[[variants]]\nname = {name:?}\nconfig = \"quadratic.toml\"\nset = {sets:?}\n")
}

/// Two rates.
fn rates() -> String {
    "seeds = [1, 2]\n".to_string() + &variant("slow", &["optimizer.lr=0.1"]) + &variant("fast", &["optimizer.lr=0.5"])
}

fn json(folder: &Folder, arguments: &[&str]) -> Value {
    let output = folder.run(&[&["compare"], arguments, &["--json"]].concat());
    serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {} {}", output.out, output.err))
}

#[test]
fn values_are_those_of_a_known_function() {
    let folder = folder("compare-values");
    let expect = |at: &str| format!("[[expect]]\nof = \"train.loss\"\nat = {at:?}\nascending = [\"fast\", \"slow\"]\n");
    let moments = ["end", "best", "mean", "update 5", "epoch 7"];
    folder.write("a.toml", &(rates() + &moments.map(expect).concat()));
    let found = json(&folder, &["a.toml"]);
    for (index, lr) in [0.1, 0.5].into_iter().enumerate() {
        let mean = (1..=20).map(|t| loss(lr, t)).sum::<f64>() / 20.0;
        let exact = [loss(lr, 20), loss(lr, 20), mean, loss(lr, 5), loss(lr, 7)];
        for (value, exact) in found["variants"][index]["values"].as_array().unwrap().iter().zip(exact) {
            let median = value["median"].as_f64().unwrap();
            assert!((median / exact - 1.0).abs() < 1e-5, "{value}, expected {exact}");
            assert_eq!(value["values"].as_array().unwrap().len(), 2);
        }
        assert_eq!(found["variants"][index]["values"].as_array().unwrap().len(), 5);
    }
    assert!(!folder.at("compare").exists(), "nothing is written that nobody asked for");
}

#[test]
fn every_kind_of_expectation_holds_or_does_not() {
    let folder = folder("compare-expectations");
    // At the end, the loss is 0.1409 of the slow variant and 0.004106 of the fast one; it never rises.
    let cases = [
        ("ascending = [\"fast\", \"slow\"]", true, "train.loss at the end: fast 0.004106 < slow 0.1409"),
        ("ascending = [\"slow\", \"fast\"]", false, "train.loss at the end: slow 0.1409 < fast 0.004106"),
        (
            "ascending = [\"fast\", \"slow\"]\nfactor = 30",
            true,
            "train.loss at the end: fast 0.004106 < slow 0.1409, each at least 30 times the one before",
        ),
        (
            "ascending = [\"fast\", \"slow\"]\nfactor = 40.0",
            false,
            "train.loss at the end: fast 0.004106 < slow 0.1409, each at least 40 times the one before",
        ),
        (
            "ascending = [\"fast\", \"slow\"]\nmargin = 0.1",
            true,
            "train.loss at the end: fast 0.004106 < slow 0.1409, each at least 0.1 more than the one before",
        ),
        (
            "ascending = [\"fast\", \"slow\"]\nmargin = 0.2",
            false,
            "train.loss at the end: fast 0.004106 < slow 0.1409, each at least 0.2 more than the one before",
        ),
        ("variant = \"slow\"\nabove = 0.1", true, "train.loss at the end of slow: 0.1409, expected above 0.1"),
        (
            "variant = \"slow\"\nabove = 0.15\nbelow = 1",
            false,
            "train.loss at the end of slow: 0.1409, expected above 0.15 and below 1",
        ),
        ("variant = \"slow\"\nbelow = 0.1", false, "train.loss at the end of slow: 0.1409, expected below 0.1"),
        (
            "same = [\"slow\", \"two\"]\nwithin = 1e-6",
            true,
            "train.loss at every update: slow, two differ by 0, expected at most 1e-6",
        ),
        (
            "at = \"update 1\"\nsame = [\"slow\", \"fast\"]",
            true,
            "train.loss at update 1: slow, fast differ by 0, expected at most 0",
        ),
        (
            "same = [\"slow\", \"fast\"]\nwithin = 0.5",
            false,
            "train.loss at every update: slow, fast differ by 0.9709 (fast with seed 1 at update 20), expected at most 0.5",
        ),
    ];
    assert!((loss(0.1, 20) - 0.1409).abs() < 5e-5 && (loss(0.5, 20) - 0.004106).abs() < 1e-6);
    let text: String = cases.iter().map(|(case, ..)| format!("[[expect]]\nof = \"train.loss\"\n{case}\n")).collect();
    let two = variant("two", &["optimizer.lr=0.1", "devices.use=\"cpu*2\""]);
    folder.write("a.toml", &(rates() + &two + &text));
    let output = folder.run(&["compare", "a.toml"]);
    assert_code(&output, 1, &["peristyle: 6 of 12 expectations do not hold\n"]);
    for (_, holds, text) in cases {
        let line = format!("{:<15}{text}\n", if holds { "holds" } else { "does not hold" });
        assert!(output.out.contains(&line), "no {line:?} in\n{}", output.out);
    }
    let holding: String = cases
        .iter()
        .filter(|case| case.1)
        .map(|(case, ..)| format!("[[expect]]\nof = \"train.loss\"\n{case}\n"))
        .collect();
    folder.write("b.toml", &(rates() + &two + &holding));
    let output = folder.good(&["compare", "b.toml", "--seeds", "7"]);
    assert!(
        output.out.starts_with("b\nseed 7, medians with the lowest and the highest\n\nvariant  train.loss"),
        "{}",
        output.out
    );
}

#[test]
fn the_median_of_the_seeds_is_compared() {
    let folder = folder("compare-median");
    let small = |seed: u64| {
        let steps = [
            "--set",
            "train.steps=3",
            "--set",
            "train.evaluate=\"never\"",
            "--set",
            "train.checkpoint={ every = \"never\" }",
        ];
        let (dir, seed) = (format!("run-{seed}"), format!("seed={seed}"));
        folder.train(&dir, &[&steps[..], &["--set", &seed]].concat());
        folder.metrics(&dir).iter().filter_map(|event| event["loss"].as_f64()).next_back().unwrap()
    };
    let losses = [11, 12, 13].map(small);
    let text = "seeds = [11, 12, 13]\n[[variants]]\nname = \"small\"\nconfig = \"small.toml\"\nset = [\"train.steps=3\", \"train.evaluate=\\\"never\\\"\"]\n";
    folder.write("a.toml", text);
    let found = json(&folder, &["a.toml"]);
    let value = &found["variants"][0]["values"][0];
    let values: Vec<f64> = value["values"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(values, losses);
    let mut sorted = losses;
    sorted.sort_by(f64::total_cmp);
    assert!(sorted[0] < sorted[1] && sorted[1] < sorted[2], "{sorted:?}");
    assert_eq!(value["median"].as_f64(), Some(sorted[1]));
}

#[test]
fn a_variant_that_diverges_is_no_error() {
    let folder = folder("compare-diverges");
    // Each update multiplies y by -9: the loss exceeds single precision before update 100.
    let wild = variant("wild", &["optimizer.lr=10.0", "train.steps=100"]);
    let expect = "[[expect]]\nof = \"train.loss\"\nvariant = \"wild\"\nabove = 1.0\n\
        [[expect]]\nof = \"train.loss\"\nascending = [\"fast\", \"wild\"]\nfactor = 100.0\n\
        [[expect]]\nof = \"rises\"\nvariant = \"wild\"\nabove = 0.99\n\
        [[expect]]\nof = \"rises\"\nvariant = \"fast\"\nbelow = 0.01\n";
    folder.write(
        "a.toml",
        &(rates()
            + &wild
            + expect
            + "[[pictures]]\nkind = \"curves\"\ny_scale = \"log\"\n[[pictures]]\nkind = \"path\"\n"),
    );
    let output = folder.good(&["compare", "a.toml", "--out", "out"]);
    for line in ["wild with seed 1 diverged at update ", "train.loss at the end of wild: diverged, expected above 1\n"]
    {
        assert!(output.out.contains(line), "{}", output.out);
    }
    assert!(output.out.ends_with("\npictures: out/curves-1.svg, out/path-2.svg\n"), "{}", output.out);
    for (picture, axes) in [("curves-1", ["updates", "training loss"]), ("path-2", ["first weight", "second weight"])] {
        let svg = folder.read(&format!("out/{picture}.svg"));
        for text in axes.iter().chain(&["slow", "fast", "wild"]) {
            assert!(svg.contains(&format!("\n{text}\n")), "{picture}: no {text}");
        }
        assert!(svg.matches("<polyline").count() > 20, "{picture}");
        let inside = |number: &str| number.parse::<f64>().is_ok_and(|x| (0.0..=720.0).contains(&x));
        for points in svg.split("points=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(points.split([' ', ',']).filter(|number| !number.is_empty()).all(inside), "{picture}: {points}");
        }
    }
    assert_eq!(json(&folder, &["a.toml"])["variants"][2]["values"][0]["median"], Value::Null);
}

#[test]
fn a_variant_starts_from_the_weights_of_another() {
    let folder = folder("compare-starts");
    let set = "model.from=\"{first part}\"";
    let text = "[[variants]]\nname = \"second part\"\nconfig = \"quadratic.toml\"\nset = [\"optimizer.lr=0.1\", 'model.from=\"{first part}\"']\n"
        .to_string()
        + &variant("first part", &["optimizer.lr=0.1", "train.steps=7"])
        + "[[expect]]\nof = \"train.loss\"\nat = \"update 1\"\nvariant = \"second part\"\nbelow = 10\n";
    assert!(text.contains(set));
    folder.write("a.toml", &text);
    // A second time, the runs of the first time are replaced.
    for _ in 0..2 {
        let found = json(&folder, &["a.toml", "--seeds", "4,5", "--out", "out"]);
        let value = found["variants"][0]["values"][0]["median"].as_f64().unwrap();
        assert!((value / loss(0.1, 8) - 1.0).abs() < 1e-5, "{value}, expected {}", loss(0.1, 8));
        assert!(folder.at("out/runs/first-part-4/checkpoints/step-00000007").is_dir());
        assert!(!folder.at("out/runs/second-part-4").exists());
    }
}

#[test]
fn mistakes_have_their_place() {
    let folder = folder("compare-mistakes");
    let head = rates();
    let refused = |more: &str, message: &str| {
        folder.write("a.toml", more);
        let output = folder.run(&["compare", "a.toml"]);
        assert_eq!((output.code, output.err.trim_end()), (Some(2), format!("peristyle: {message}").as_str()), "{more}");
        assert!(!folder.at("compare").exists());
    };
    let with = |more: &str, message: &str| refused(&format!("{head}{more}"), message);
    refused("seeds = [1", "a.toml:1:11: the file is not TOML: unclosed array, expected `]`");
    refused("", "a.toml:1:1: the file: no variants, expected at least one: write [[variants]] with name and config");
    refused(
        &("clam = \"x\"\n".to_string() + &head),
        "a.toml:1:1: the file: unknown key \"clam\" (did you mean \"claim\"?); known keys: claim, seeds, variants, pictures, expect",
    );
    refused(&head.replace("[1, 2]", "[1, 1]"), "a.toml:1:9: the file: seed 1 is there twice, expected different seeds");
    refused(&head.replace("[1, 2]", "[]"), "a.toml:1:9: the file: seeds = [], expected at least one");
    with(
        "[[variants]]\nname = \"x\"\n",
        "a.toml:10:1: variant 3: missing key \"config\"; known keys: name, config, set",
    );
    with(
        &variant("slow", &[]),
        "a.toml:11:8: variant 3: name = \"slow\" is that of variant 1 too, expected another one",
    );
    with(&variant("x", &["seed"]), "a.toml:10:1: variant \"x\": --set seed: expected KEY=VALUE, like train.epochs=3");
    with(
        &variant("x", &["model.from={slo}"]),
        "a.toml:13:7: variant 3: set: there is no variant \"slo\" (did you mean \"slow\"?), expected one of: slow, fast, x",
    );
    with(
        "[[pictures]]\nkind = \"curve\"\n",
        "a.toml:11:8: picture 1: kind = \"curve\" (did you mean \"curves\"?), expected one of: curves, path",
    );
    with(
        "[[pictures]]\nkind = \"curves\"\ny = \"test.loss\"\n",
        "a.toml:12:5: picture 1: y = \"test.loss\": the network of variant \"slow\" is not evaluated on a test set; set data.test and train.evaluate",
    );
    with(
        "[[pictures]]\nkind = \"curves\"\ny = \"train.accuracy\"\n",
        "a.toml:12:5: picture 1: y = \"train.accuracy\": the network of variant \"slow\" has no \"accuracy\"; it has loss, x, y",
    );
    with(
        "[[pictures]]\nkind = \"curves\"\ny = \"rises\"\n",
        "a.toml:12:5: picture 1: y = \"rises\", expected one of: train.loss, train.accuracy, test.loss, test.accuracy, validation.loss, validation.accuracy, learning_rate",
    );
    with(
        "[[expect]]\nof = \"train.los\"\nvariant = \"slow\"\nabove = 1\n",
        "a.toml:11:6: expectation 1: of = \"train.los\": the network of variant \"slow\" has no \"los\" (did you mean \"loss\"?); it has loss, x, y",
    );
    with(
        "[[expect]]\nof = \"loss\"\nvariant = \"slow\"\nabove = 1\n",
        "a.toml:11:6: expectation 1: of = \"loss\", expected one of: train.loss, train.accuracy, test.loss, test.accuracy, validation.loss, validation.accuracy, learning_rate, gap.loss, gap.accuracy, rises",
    );
    with(
        "[[expect]]\nof = \"train.loss\"\nat = \"step 3\"\nvariant = \"slow\"\nabove = 1\n",
        "a.toml:12:6: expectation 1: at = \"step 3\", expected \"end\", \"best\", \"mean\", \"update N\", \"epoch N\" or \"every update\"",
    );
    with(
        "[[expect]]\nof = \"train.loss\"\nat = \"update 21\"\nvariant = \"slow\"\nabove = 1\n",
        "a.toml:12:6: expectation 1: at update 21: variant \"slow\" makes 20 updates, expected at most that",
    );
    with(
        "[[expect]]\nof = \"train.loss\"\nabove = 1\n",
        "a.toml:10:1: expectation 1: expected one of ascending = [..], variant = \"..\" with above or below, and same = [..]",
    );
    with(
        "[[expect]]\nof = \"train.loss\"\nascending = [\"slow\", \"fast\"]\nfactor = 0.5\n",
        "a.toml:13:10: expectation 1: factor = 0.5, expected a number, at least 1",
    );
    with(
        "[[expect]]\nof = \"train.loss\"\nascending = [\"slow\", \"fast\"]\nbelow = 0.5\n",
        "a.toml:13:9: expectation 1: below belongs to variant; remove it",
    );
    let circle = variant("x", &["model.from={y}"]) + &variant("y", &["model.from={x}"]);
    with(
        &circle,
        "a.toml:2:1: the file: variants start from each other's weights: \"x\", \"y\"; one must start on its own",
    );
}
