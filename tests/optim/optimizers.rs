//! Every transform of the optimiser, with the settings of its `examples()`: the same curve on every mesh and on emulated
//! devices, and resumed bit for bit.

use crate::common::runs::{Folder, losses};
use crate::common::{Training, on_mesh};
use peristyle::optim::{ChainEntry, Ema, all_examples};
use peristyle::program::Persistent;
use peristyle::train::exchange;

/// A network whose optimiser is replaced.
const CONFIG: &str = "tests/reference/rmsprop.toml";

/// A rate at which no transform makes the losses jump, so that roundings are not amplified.
const LR: &str = "optimizer.lr=1e-3";

/// Initial values with which no gradient is small, so that adaptive rates do not amplify roundings either.
const INIT: &str = "model.init=kaiming";

/// Returns the `--set` of a chain with this transform and weight decay; averages of the weights are a setting of their own.
fn chain(transform: &dyn ChainEntry) -> String {
    if transform.kind() == Ema::KEY {
        return format!("train.ema={}", transform.values()[0].1);
    }
    let settings: Vec<String> = transform.values().iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let own = format!("{{ {} = {{ {} }} }}", transform.kind(), settings.join(", "));
    format!("optimizer.chain=[{{ weight_decay = 1e-3 }}, {own}]")
}

/// Returns the losses of some updates, and the last weights and slots.
fn train(sets: &[String], updates: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut training = Training::new(CONFIG, sets);
    let losses = training.losses(updates);
    let (parameters, chain) = (0..training.job.network.parameters.len(), &training.session.plan().chain);
    let slots = chain.num_regions();
    let weights = parameters.clone().map(Persistent::Parameter);
    let all = weights.chain((0..slots).flat_map(|slot| parameters.clone().map(move |p| Persistent::Slot(slot, p))));
    (losses, all.map(|which| exchange::read_values(&training.session, which).unwrap()).collect())
}

/// Returns the largest relative difference of two runs: of losses, and of weights and slots to the largest of their
/// parameter.
fn apart(a: &(Vec<f64>, Vec<Vec<f64>>), b: &(Vec<f64>, Vec<Vec<f64>>)) -> f64 {
    let losses = a.0.iter().zip(&b.0).map(|(a, b)| (a - b).abs() / b.abs());
    let parameter = |(a, b): (&Vec<f64>, &Vec<f64>)| {
        let scale = b.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
        a.iter().zip(b).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f64::max)
    };
    losses.chain(a.1.iter().zip(&b.1).map(parameter)).fold(0.0, f64::max)
}

#[test]
fn every_transform_has_one_curve_on_every_mesh() {
    for transform in all_examples() {
        let run = |mesh| {
            let sets =
                [on_mesh(mesh), vec![chain(&*transform), LR.into(), INIT.into(), "devices.precision=\"f64\"".into()]]
                    .concat();
            train(&sets, 10)
        };
        let one = run((1, 1));
        for mesh in [(1, 2), (2, 1), (4, 1), (2, 2)] {
            let difference = apart(&run(mesh), &one);
            assert!(difference <= 1e-9, "{transform:?} on {mesh:?}: {difference:e}");
        }
    }
}

#[test]
fn every_transform_learns_on_emulated_devices_as_on_the_cpu() {
    for transform in all_examples() {
        let one = train(&[on_mesh((1, 1)), vec![chain(&*transform), LR.into(), INIT.into()]].concat(), 10);
        for mesh in [(1, 1), (2, 2)] {
            let mut sets = on_mesh(mesh);
            sets[0] = format!("devices.use=\"emu*{}\"", mesh.0 * mesh.1);
            sets.extend([chain(&*transform), LR.into(), INIT.into()]);
            let difference = apart(&train(&sets, 10), &one);
            // Rounding to f32, which ten updates amplify.
            assert!(difference <= 2e-5, "{transform:?} on {mesh:?}: {difference:e}");
        }
    }
}

#[test]
fn every_transform_resumes_bit_for_bit() {
    let folder = Folder::new("optimizers");
    for (number, transform) in all_examples().iter().enumerate() {
        for device in ["cpu", "emu"] {
            let (device, chain) = (format!("devices.use=\"{device}\""), chain(&**transform));
            let sets = ["--set", &device, "--set", &chain, "--set", "train.checkpoint.every=\"4 steps\""];
            let [whole, parts] = ["whole", "parts"].map(|name| format!("{name}-{number}"));
            folder.train(&whole, &[&sets[..], &["--set", "train.steps=8"]].concat());
            folder.train(&parts, &[&sets[..], &["--set", "train.steps=4"]].concat());
            folder.train(&parts, &[&sets[..], &["--resume", "--set", "train.steps=8"]].concat());
            assert_eq!(losses(&folder.metrics(&parts)), losses(&folder.metrics(&whole)), "{transform:?}");
            assert!(folder.checkpoint(&parts, 8) == folder.checkpoint(&whole, 8), "{transform:?}");
            for run in [whole, parts] {
                std::fs::remove_dir_all(folder.at(&run)).unwrap();
            }
        }
    }
}

#[test]
fn a_transform_that_joins_later_counts_its_updates_from_there() {
    let folder = Folder::new("optimizers-join");
    let chain = "optimizer.chain=[{ adam = {} }]";
    folder.train("run", &["--set", "train.steps=4", "--set", "optimizer.chain=[]"]);
    let resume = |dir: &str, to: u64| {
        let steps = format!("train.steps={to}");
        folder.train(dir, &["--resume", "--set", &steps, "--set", chain, "--allow-change", "optimizer.chain"]);
    };
    let copied = std::process::Command::new("cp").arg("-r").args([folder.at("run"), folder.at("parts")]).status();
    assert!(copied.unwrap().success());
    resume("run", 12);
    resume("parts", 8);
    resume("parts", 12);
    let state: serde_json::Value =
        serde_json::from_str(&folder.read("parts/checkpoints/step-00000012/state.json")).unwrap();
    assert_eq!(state["info"]["starts"]["adam"], 4);
    assert!(folder.checkpoint("parts", 12) == folder.checkpoint("run", 12));
}
