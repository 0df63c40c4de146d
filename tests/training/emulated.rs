//! Whole networks through the GPU path on emulated devices: the same programs, kernels, streams, events and graphs as
//! on CUDA. The suite of single layers is in tests/layers/examples.rs.

use crate::common::runs::{CommandOutput, Folder, losses, output_of, peristyle};
use crate::common::{Training, file, on_mesh};
use peristyle::gpu::{Driver, DriverKind};
use peristyle::placement::Region;
use peristyle::program::Persistent;
use peristyle::train::exchange;

const UPDATES: usize = 5;

/// Panics with an explanation if this build has no emulated device.
fn emulated() {
    if let Err(error) = Driver::count(DriverKind::Emu) {
        panic!("these tests need the emulated device: {error}");
    }
}

/// Returns the settings for a mesh of one kind of device. Emulation is slow, so the batch is small.
fn sets(kind: &str, mesh: (usize, usize), more: &[&str]) -> Vec<String> {
    let mut sets = on_mesh(mesh);
    sets[0] = format!("devices.use=\"{kind}*{}\"", mesh.0 * mesh.1);
    sets.push("data.batch=8".to_string());
    sets.extend(more.iter().map(|s| (*s).to_string()));
    sets
}

/// Returns the losses of five updates, and all weights before and after them.
fn trained(config: &str, sets: &[String]) -> (Vec<f64>, Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut training = Training::new(config, sets);
    let weights = |training: &Training| -> Vec<Vec<f64>> {
        let parameters = 0..training.job.network.parameters.len();
        parameters.map(|p| exchange::read_values(&training.session, Persistent::Parameter(p)).unwrap()).collect()
    };
    let before = weights(&training);
    let losses = training.losses(UPDATES);
    let after = weights(&training);
    (losses, before, after)
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// Asserts that five updates on emulated devices give the losses and the weights of the CPU path in f64.
fn proves(config: &str, meshes: &[(usize, usize)], more: &[&str]) {
    emulated();
    let double = [more, &["devices.precision=\"f64\""]].concat();
    let (exact, before, after) = trained(config, &sets("cpu", (1, 1), &double));
    for &mesh in meshes {
        let (losses, _, weights) = trained(config, &sets("emu", mesh, more));
        for (step, (loss, exact)) in losses.iter().zip(&exact).enumerate() {
            // Rounding to f32 changes a loss by about 1e-7; five updates are too few for training to amplify that.
            let near = (loss - exact).abs() <= 1e-5 * exact.abs();
            assert!(near, "{config} on {mesh:?}, step {}: {loss}, expected {exact}", step + 1);
        }
        for (p, ((weights, after), before)) in weights.iter().zip(&after).zip(&before).enumerate() {
            // A wrong gradient moves weights elsewhere; rounding is small relative to their movement or their size.
            let moved = largest_difference(after, before);
            let size = after.iter().fold(0.0f64, |m, w| m.max(w.abs()));
            let error = largest_difference(weights, after);
            let allowed = 1e-3 * moved + 1e-6 * size;
            assert!(error <= allowed, "{config} on {mesh:?}, parameter {p}: {error:e} off, moved {moved:e}");
        }
    }
}

const MESHES: [(usize, usize); 4] = [(1, 1), (1, 2), (2, 1), (2, 2)];

#[test]
fn a_two_column_alexnet_learns_as_on_the_cpu() {
    proves("configs/columns_small.toml", &MESHES, &[]);
}

#[test]
fn batch_norm_and_residual_joins_learn_as_on_the_cpu() {
    proves("configs/residual_small.toml", &MESHES, &["optimizer.lr=0.005"]);
}

#[test]
fn one_weird_trick_learns_as_on_the_cpu() {
    proves("configs/one_weird_trick_small.toml", &MESHES, &[]);
}

/// Five small updates in bf16 on two meshes. Rounding activations to 8 bits changes the gradient of a first layer by
/// about ten per cent, in PyTorch too (tests/training/reference.rs compares the two); a wrong redistribution changes it by as
/// much as its own size.
#[test]
fn bf16_learns_on_every_mesh() {
    emulated();
    for config in ["configs/columns_small.toml", "configs/residual_small.toml", "configs/one_weird_trick_small.toml"] {
        let with = |precision| ["optimizer.lr=1e-4", precision];
        let (exact, before, after) = trained(config, &sets("cpu", (1, 1), &with("devices.precision=\"f64\"")));
        for mesh in [(1, 2), (2, 2)] {
            let (losses, _, weights) = trained(config, &sets("emu", mesh, &with("devices.precision=\"bf16\"")));
            for (step, (loss, exact)) in losses.iter().zip(&exact).enumerate() {
                let near = (loss - exact).abs() <= 1e-2 * exact.abs();
                assert!(near && loss != exact, "{config} on {mesh:?}, step {}: {loss}, expected {exact}", step + 1);
            }
            for (p, ((weights, after), before)) in weights.iter().zip(&after).zip(&before).enumerate() {
                let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                let (error, moved) = (apart(weights, after), apart(after, before));
                assert!(error <= 0.25 * moved, "{config} on {mesh:?}, parameter {p}: {error:e} off, moved {moved:e}");
            }
        }
    }
}

/// A step multiplies with the weights as the optimiser or the host last wrote them, rounded to bf16: writing every
/// weight back unchanged changes no loss, and writing the initial weights gives the first loss again.
#[test]
fn weights_in_bf16_follow_the_optimiser_and_the_host() {
    emulated();
    let clipped = "optimizer.chain=[{ clip_by_global_norm = 0.5 }, { momentum = 0.9 }]";
    for (mesh, more) in [((1, 1), clipped), ((1, 2), "optimizer.lr=0.05"), ((2, 1), "optimizer.lr=0.05")] {
        let sets = sets("emu", mesh, &["devices.precision=\"bf16\"", more]);
        let losses = Training::new("configs/columns_small.toml", &sets).losses(4);
        let mut training = Training::new("configs/columns_small.toml", &sets);
        let parameters = training.job.network.parameters.len();
        for (step, expected) in losses.iter().enumerate() {
            assert_eq!(training.update(), *expected, "update {} on {mesh:?}", step + 1);
            for p in (0..parameters).map(Persistent::Parameter) {
                let values = exchange::read_values(&training.session, p).unwrap();
                exchange::write_values(&mut training.session, p, &values).unwrap();
            }
        }
        exchange::initialise(&mut training.session, training.job.config.seed).unwrap();
        training.step = 0;
        assert_eq!(training.update(), losses[0], "initial weights on {mesh:?}");
        let regions: Vec<Vec<f32>> =
            (0..mesh.0 * mesh.1).map(|device| training.session.read_region(device, Region::Weights).unwrap()).collect();
        training.step = 1;
        let again = training.update();
        for (device, region) in regions.iter().enumerate() {
            training.session.write_region(device, Region::Weights, region).unwrap();
        }
        training.step = 1;
        assert_eq!(training.update(), again, "whole regions on {mesh:?}");
    }
}

/// Every transform: a chain divided by clipping, with weight decay before it and momentum after it.
#[test]
fn clipped_gradients_learn_as_on_the_cpu() {
    let chain = "optimizer.chain=[{ weight_decay = 5e-2 }, { clip_by_global_norm = 0.5 }, { momentum = 0.9 }]";
    proves("configs/columns_small.toml", &[(1, 1), (2, 2)], &[chain]);
}

/// Trains configs/digits.toml for some steps on the given devices.
fn train(folder: &Folder, dir: &str, devices: &str, steps: usize, more: &[&str]) -> CommandOutput {
    let (config, steps) = (file("configs/digits.toml"), format!("train.steps={steps}"));
    let config = config.to_str().expect("the repository's path is text");
    let sets = ["--set", &steps, "--set", "data.batch=8", "--set", "train.evaluate=never", "--run-dir", dir];
    folder.run(&[&["train", config, "--devices", devices], &sets[..], more].concat())
}

/// Trains, asserts that it succeeds, and returns the losses of all steps.
fn losses_of(folder: &Folder, dir: &str, devices: &str, steps: usize, more: &[&str]) -> Vec<f64> {
    let output = train(folder, dir, devices, steps, more);
    assert_eq!(output.code, Some(0), "{}", output.err);
    losses(&folder.metrics(dir))
}

fn close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    // Six f32 updates from the same weights.
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs()), "{a:?}, expected {b:?}");
}

#[test]
fn digits_train_on_emulated_devices_as_on_the_cpu() {
    emulated();
    let folder = Folder::new("emulated-digits");
    let cpu = losses_of(&folder, "cpu", "cpu*2", 6, &[]);
    let graph = losses_of(&folder, "graph", "emu*2", 6, &[]);
    close(&graph, &cpu);
    let config = file("configs/digits.toml");
    let sets = ["train.steps=6", "data.batch=8", "train.evaluate=never"].map(|set| ["--set", set]);
    let mut without = peristyle(&folder.0);
    without.env("PERISTYLE_NO_GRAPH", "1").arg("train").arg(config).args(["--devices", "emu*2", "--run-dir", "none"]);
    let output = output_of(without.args(sets.concat()));
    assert_eq!(output.code, Some(0), "{}", output.err);
    assert_eq!(graph, losses(&folder.metrics("none")), "a graph changes no bit");
}

#[test]
fn a_checkpoint_of_an_emulated_device_resumes_there_and_on_the_cpu() {
    emulated();
    let folder = Folder::new("emulated-resume");
    let whole = losses_of(&folder, "whole", "emu", 6, &[]);
    for (dir, devices) in [("to-emu", "emu"), ("to-cpu", "cpu*2")] {
        losses_of(&folder, dir, "emu", 3, &[]);
        let resumed = losses_of(&folder, dir, devices, 6, &["--resume"]);
        close(&resumed, &whole);
        assert!(devices != "emu" || resumed == whole, "resuming changes no bit: {resumed:?}, expected {whole:?}");
    }
    let half = ["--set", "devices.precision=bf16"];
    let whole = losses_of(&folder, "half", "emu", 4, &half);
    losses_of(&folder, "half-again", "emu", 2, &half);
    let resumed = losses_of(&folder, "half-again", "emu", 4, &[&half[..], &["--resume"]].concat());
    assert_eq!(resumed, whole, "in bf16 too, because parameters and state are kept in f32");
}

#[test]
fn devices_that_cannot_be_used_are_rejected_before_the_first_step() {
    let folder = Folder::new("emulated-refused");
    for (devices, set, words) in [
        ("cuda:99", "devices.threads=1", "[devices]: "),
        ("emu", "devices.precision=f64", "precision = \"f64\" on emu devices, expected cpu devices"),
    ] {
        let output = train(&folder, "run", devices, 1, &["--set", set]);
        assert_eq!(output.code, Some(2), "{}", output.err);
        assert!(output.err.contains(words) && !output.err.contains("panicked"), "{}", output.err);
        assert!(!folder.at("run").exists(), "no run was started");
    }
    let config = file("configs/digits.toml");
    let output = output_of(peristyle(&folder.0).arg("plan").arg(config).args(["--devices", "cuda:0-3"]));
    assert!(output.code == Some(0) && output.out.contains("device cuda:3"), "a plan needs no GPU: {}", output.err);
}
