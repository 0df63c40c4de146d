//! `optimizer.groups`, `lr_by_depth` and `scale_lr`: parameters with rates, decay and chains of their own.

use crate::common::runs::{Folder, losses};
use crate::common::{Training, file, on_mesh};
use peristyle::network;
use peristyle::program::Persistent;
use peristyle::train::exchange;

/// Two dense layers, whose biases have a chain of their own.
const CONFIG: &str = "tests/reference/groups.toml";

fn sets(sets: &[&str]) -> Vec<String> {
    sets.iter().map(|set| set.to_string()).collect()
}

/// Returns the losses of some updates and the last weights.
fn train(sets: Vec<String>, updates: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut training = Training::new(CONFIG, &sets);
    let losses = training.losses(updates);
    let weights = (0..training.job.network.parameters.len()).map(Persistent::Parameter);
    (losses, weights.map(|which| exchange::read_values(&training.session, which).unwrap()).collect())
}

/// Returns the problems of a file with these settings.
fn problems(settings: &[&str]) -> String {
    network::open(&file(CONFIG), &sets(settings)).map(|_| ()).unwrap_err().to_string()
}

/// The multipliers of the rate and of the decay, by parameter.
fn multipliers(settings: &[&str]) -> Vec<(String, f64, f64)> {
    let (_, network) = network::open(&file(CONFIG), &sets(settings)).unwrap_or_else(|error| panic!("{error}"));
    network.parameters.into_iter().map(|p| (p.name, p.lr_mult, p.decay_mult)).collect()
}

#[test]
fn groups_have_one_curve_on_meshes_and_on_emulated_devices() {
    // A norm within each group, averages of all weights, and the largest number of slots of a group.
    let more = "optimizer.chain=[{ clip_by_global_norm = 0.5 }, \"adam\"]";
    let own = "optimizer.groups.bias.chain=[{ momentum = 0.5 }, { clip_by_global_norm = 0.01 }]";
    let run = |mesh, more: &[&str]| train([on_mesh(mesh), sets(more)].concat(), 10);
    let settings = [more, own, "train.ema=0.5", "devices.precision=\"f64\""];
    let one = run((1, 1), &settings);
    for mesh in [(1, 2), (2, 1), (2, 2)] {
        let other = run(mesh, &settings);
        let apart = |a: &f64, b: &f64| (a - b).abs() / b.abs().max(1e-3);
        let weights = other.1.concat().iter().zip(&one.1.concat()).map(|(a, b)| apart(a, b)).fold(0.0, f64::max);
        assert!(weights < 1e-9, "{mesh:?}: {weights:e}");
    }
    let single = run((1, 1), &settings[..3]);
    for mesh in [(1, 1), (2, 2)] {
        let mut all = on_mesh(mesh);
        all[0] = format!("devices.use=\"emu*{}\"", mesh.0 * mesh.1);
        let emulated = train([all, sets(&settings[..3])].concat(), 10);
        let furthest = emulated.0.iter().zip(&single.0).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
        assert!(furthest < 2e-5, "{mesh:?}: {furthest:e}");
    }
}

#[test]
fn a_group_with_the_chain_of_all_changes_no_bit() {
    let chain = "[{ weight_decay = 1e-3 }, { momentum = 0.9 }]";
    let whole = format!("optimizer.chain={chain}");
    let plain = train(sets(&[&whole, "optimizer.groups={}"]), 10);
    let own = format!("optimizer.groups={{ \"fc1\" = {{ chain = {chain} }}, \"fc2.bias\" = {{ chain = {chain} }} }}");
    assert_eq!(train(sets(&[&whole, &own]), 10), plain);
}

#[test]
fn the_norm_of_a_group_is_its_own() {
    // The weights are not clipped when the biases are, and the other way round.
    let clip = |group: &str, norm: f64| {
        format!("optimizer.groups.{group}={{ chain = [{{ clip_by_global_norm = {norm:e} }}] }}")
    };
    let run = |groups: &[String]| {
        let all = sets(&["optimizer.chain=[]", "optimizer.groups={}"]);
        train([all, groups.to_vec()].concat(), 1).1
    };
    let (free, clipped) = (run(&[]), run(&[clip("bias", 1e-6)]));
    let names = multipliers(&[]);
    for (parameter, (name, ..)) in names.iter().enumerate() {
        assert_eq!(free[parameter] == clipped[parameter], name.ends_with("weight"), "{name}");
    }
}

#[test]
fn slots_are_shared_by_groups() {
    let slots = |settings: &[&str]| Training::new(CONFIG, &sets(settings)).session.plan().chain.num_regions();
    // Adam has two, momentum one.
    assert_eq!((slots(&[]), slots(&["train.ema=0.9"])), (2, 3));
    assert_eq!(slots(&["optimizer.groups.bias.chain=[\"momentum\", \"momentum\", \"momentum\"]"]), 3);
}

#[test]
fn groups_resume_bit_for_bit_and_count_their_updates() {
    let folder = Folder::new("groups");
    let config = std::fs::read_to_string(file(CONFIG)).unwrap();
    let groups = config.lines().find(|line| line.starts_with("groups")).unwrap();
    let groups =
        format!("optimizer.{}", groups.replace("groups = ", "groups=").replace("{ momentum = 0.5 }", "\"adam\""));
    for device in ["cpu", "emu*2"] {
        let device = format!("devices.use=\"{device}\"");
        let sets = [
            "--set",
            &device,
            "--set",
            &groups,
            "--set",
            "train.checkpoint.every=\"4 steps\"",
            "--set",
            "train.ema=0.5",
        ];
        folder.train("whole", &[&sets[..], &["--set", "train.steps=8"]].concat());
        folder.train("parts", &[&sets[..], &["--set", "train.steps=4"]].concat());
        folder.train("parts", &[&sets[..], &["--resume", "--set", "train.steps=8"]].concat());
        assert_eq!(losses(&folder.metrics("parts")), losses(&folder.metrics("whole")));
        assert!(folder.checkpoint("parts", 8) == folder.checkpoint("whole", 8));
        ["whole", "parts"].iter().for_each(|run| std::fs::remove_dir_all(folder.at(run)).unwrap());
    }
    // A group that joins later counts from there, although the transform was in the chain of all.
    let all = ["--set", "optimizer.chain=[\"adam\"]"];
    folder.train("run", &[&all[..], &["--set", "train.steps=4"]].concat());
    let more = ["--resume", "--set", "train.steps=8", "--allow-change", "optimizer.groups", "--set", &groups];
    folder.train("run", &[&all[..], &more].concat());
    let state: serde_json::Value =
        serde_json::from_str(&folder.read("run/checkpoints/step-00000008/state.json")).unwrap();
    assert_eq!(state["info"]["starts"], serde_json::json!({ "adam": 0, "bias: adam": 4 }));
    // And the other way round.
    folder.train("other", &["--set", "optimizer.chain=[]", "--set", &groups, "--set", "train.steps=4"]);
    let more = ["--resume", "--set", "train.steps=8", "--allow-change", "optimizer.chain", "--set", &groups];
    folder.train("other", &[&all[..], &more].concat());
    let state: serde_json::Value =
        serde_json::from_str(&folder.read("other/checkpoints/step-00000008/state.json")).unwrap();
    assert_eq!(state["info"]["starts"], serde_json::json!({ "adam": 4, "bias: adam": 0 }));
}

#[test]
fn multipliers_are_those_of_layer_depth_and_group() {
    let named = |all: &[(&str, f64, f64)]| all.iter().map(|(n, l, d)| (n.to_string(), *l, *d)).collect::<Vec<_>>();
    let got = multipliers(&[
        "optimizer.lr_by_depth=4.0",
        "optimizer.groups={ bias = { lr_mult = 2.0, decay_mult = 0.0 }, \"fc*\" = { decay_mult = 0.5 }, \"fc1.bias\" = {} }",
        "model.layers.fc2.lr_mult={ weight = 0.5 }",
    ]);
    let expected = [("fc1.weight", 4.0, 0.5), ("fc1.bias", 4.0, 1.0), ("fc2.weight", 0.5, 0.5), ("fc2.bias", 2.0, 0.0)];
    assert_eq!(got, named(&expected));
}

#[test]
fn mistakes_in_groups_have_their_place() {
    for (set, expected) in [
        (
            "optimizer.groups={ fc9 = {} }",
            "[optimizer] groups: \"fc9\" matches no parameter; parameters are fc1.weight, ",
        ),
        ("optimizer.groups={ \"fc*.bias\" = {}, \"*1.bias\" = {}, \"*2.bias\" = {} }", ""),
        ("optimizer.groups={ \"f*1\" = {}, \"*c1\" = {} }", "groups: \"fc1.weight\" matches \""),
        ("optimizer.groups={ \"a..b\" = {} }", "[optimizer] groups: \"a..b\", expected a name or a pattern"),
        ("optimizer.groups={ bias = { rate = 2 } }", "[optimizer] groups \"bias\": unknown key \"rate\""),
        (
            "optimizer.groups={ bias = { lr_mult = -1 } }",
            "[optimizer] groups \"bias\": lr_mult = -1, expected a number",
        ),
        (
            "optimizer.groups={ bias = { chain = [\"adm\"] } }",
            "groups \"bias\" chain: unknown transform \"adm\" (did you",
        ),
        ("optimizer.groups=[]", "groups is not a table, expected a table of patterns, like groups ="),
        ("optimizer.lr_by_depth=0", "[optimizer]: lr_by_depth = 0, expected a number above 0"),
        ("optimizer.lr_by_depth=1e38", ""),
        ("optimizer.scale_lr=\"cubic\"", "unknown scale_lr \"cubic\"; expected one of: none, linear, sqrt"),
        ("optimizer.lr_batch=0", "[optimizer]: lr_batch = 0, expected at least 1"),
    ] {
        if expected.is_empty() {
            network::open(&file(CONFIG), &sets(&[set])).unwrap_or_else(|error| panic!("{set}: {error}"));
            continue;
        }
        let found = problems(&[set]);
        assert!(found.contains(expected), "{set}: {found}");
    }
    let decay = problems(&["optimizer.groups.bias.decay_mult=1e30", "model.layers.fc1.decay_mult=1e30"]);
    assert!(decay.contains("the weight decay of fc1.bias is multiplied by "), "{decay}");
    let deep = problems(&["optimizer.lr_by_depth=1e38", "optimizer.groups.bias.lr_mult=10"]);
    assert!(deep.contains("the rate of fc1.bias is multiplied by 1e39, by layer, depth and group, expected"), "{deep}");
}

#[test]
fn the_rate_follows_the_batch() {
    for (settings, lr) in [
        (vec!["data.batch=64", "optimizer.scale_lr=\"linear\""], 0.01 / 4.0),
        (vec!["data.batch=64", "optimizer.scale_lr=\"sqrt\""], 0.01 / 2.0),
        (vec!["data.batch=64", "optimizer.scale_lr=\"linear\"", "optimizer.lr_batch=16"], 0.01 * 4.0),
        (vec!["data.batch=64"], 0.01),
    ] {
        let (config, _) = network::open(&file(CONFIG), &sets(&settings)).unwrap();
        assert_eq!(config.optimizer.lr, lr, "{settings:?}");
        let notes = config.notes.join("\n");
        assert_eq!(notes.contains("scaled from a batch of"), lr != 0.01, "{notes}");
    }
}
