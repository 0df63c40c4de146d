//! What may change between a checkpoint and the run that resumes from it, and what a checkpoint knows of its data.

use crate::common::runs::{CommandOutput, Folder, assert_code, events, losses};
use serde_json::Value;
use std::path::Path;
use std::time::SystemTime;

/// Resumes a run up to a step, with more arguments.
fn resume(folder: &Folder, dir: &str, to: u64, more: &[&str]) -> CommandOutput {
    let steps = format!("train.steps={to}");
    folder.run(&[&["train", "small.toml", "--run-dir", dir, "--resume", "--set", &steps], more].concat())
}

#[test]
fn a_change_of_what_is_learned_is_refused_unless_it_is_allowed() {
    let folder = Folder::new("changes-settings");
    folder.train("run", &["--set", "train.steps=8"]);
    let before = folder.files("run");
    for (set, shown, key) in [
        ("seed=4", "seed: 3 in the checkpoint, 4 now", "seed"),
        ("optimizer.lr=0.5", "optimizer.lr: 0.02 in the checkpoint, 0.5 now", "optimizer.lr"),
        ("data.batch=64", "data.batch: 100 in the checkpoint, 64 now", "data"),
        (
            "model.layers.relu2=\"tanh\"",
            "model.layers: conv, bn, relu1, max_pool1, flatten1, dropout1, fc1, relu2, fc2 in the checkpoint, conv, bn, relu1, max_pool1, flatten1, dropout1, fc1, tanh1, fc2 now",
            "model",
        ),
        ("optimizer.chain.momentum=0.8", "optimizer.chain.momentum: 0.9 in the checkpoint, 0.8 now", "optimizer.chain"),
    ] {
        let refused = resume(&folder, "run", 9, &["--set", set]);
        assert_code(&refused, 2, &[shown, &format!("--allow-change {}", shown.split(':').next().unwrap())]);
        assert!(folder.files("run").keys().eq(before.keys()), "{set} wrote files");
        let dir = format!("run-{key}");
        let copied =
            std::process::Command::new("cp").args(["-r", "run", &dir]).current_dir(&folder.0).status().unwrap();
        assert!(copied.success());
        let allowed = resume(&folder, &dir, 9, &["--set", set, "--allow-change", key]);
        assert_code(&allowed, 0, &[&format!("note: resumed with a change: {shown}")]);
        // The settings of the first eight steps are kept.
        let until = format!("{dir}/config-until-step-00000008.toml");
        assert!(folder.read(&until).contains("train.steps=8"), "{}", folder.read(&until));
    }
    let typo = resume(&folder, "run", 9, &["--allow-change", "optimiser.lr"]);
    assert_code(
        &typo,
        2,
        &["--allow-change optimiser.lr: optimiser.lr is not a setting that affects what is learned (did \
                             you mean \"optimizer.lr\"?)"],
    );
    // When, where and how fast may change.
    let free = ["--set", "devices.use=\"cpu*2\"", "--set", "train.evaluate=\"3 steps\"", "--set", "optimizer.lr=2e-2"];
    assert_code(&resume(&folder, "run", 9, &free), 0, &[]);
}

#[test]
fn a_clip_that_is_added_keeps_a_checkpoint_usable() {
    let folder = Folder::new("changes-clip");
    folder.train("run", &["--set", "train.steps=7", "--set", "optimizer.chain=[{ momentum = 0.9 }]"]);
    folder.train("whole", &["--set", "train.steps=14", "--set", "optimizer.chain=[{ momentum = 0.9 }]"]);
    // A clip that never clips, so that the velocity must be found for the same losses.
    let chain = ["--set", "optimizer.chain=[{ clip_by_global_norm = 1e9 }, { momentum = 0.9 }]"];
    let output = resume(&folder, "run", 14, &[&chain[..], &["--allow-change", "optimizer.chain"]].concat());
    assert_code(&output, 0, &["optimizer.chain: momentum in the checkpoint, clip_by_global_norm, momentum now"]);
    assert_eq!(losses(&folder.metrics("run")), losses(&folder.metrics("whole")));
    let without = ["--set", "optimizer.chain=[]", "--allow-change", "optimizer.chain"];
    let output = resume(&folder, "run", 15, &without);
    assert_code(&output, 0, &["optimiser state of the checkpoint is not used: bn.bias.momentum.velocity, "]);
    let output = resume(&folder, "run", 16, &[&chain[..], &["--allow-change", "optimizer"]].concat());
    assert_code(&output, 0, &["optimiser state starts at zero: conv.weight.momentum.velocity"]);
}

#[test]
fn after_a_change_of_the_batch_every_sample_is_used_once_an_epoch() {
    let folder = Folder::new("changes-batch");
    folder.train("run", &["--set", "train.steps=7"]);
    // 593 samples of the first epoch are left: 9 batches of 64, and one of 17.
    let epochs = ["--set", "data.batch=64", "--allow-change", "data.batch", "--set", "train.epochs=2"];
    let output = folder.run(&[&["train", "small.toml", "--run-dir", "run", "--resume"], &epochs[..]].concat());
    assert_code(&output, 0, &["data.batch: 100 in the checkpoint, 64 now"]);
    let steps = events(&folder.metrics("run"), "step");
    let of_epoch = |epoch: u64| steps.iter().filter(|step| step["epoch"] == epoch).count();
    assert_eq!((of_epoch(0), of_epoch(1), steps.len()), (7 + 10, 21, 38));
    let state: Value = serde_json::from_str(&folder.read("run/checkpoints/step-00000038/state.json")).unwrap();
    let info = &state["info"];
    assert_eq!(
        (&info["epoch"], &info["sample_in_epoch"], &info["samples"]),
        (&2.into(), &0.into(), &(2 * 1293).into())
    );
    // The middle of the second epoch resumes bit for bit.
    folder.train("half", &["--set", "train.steps=7"]);
    let to = |steps: &str| {
        let output = folder.run(
            &[
                &["train", "small.toml", "--run-dir", "half", "--resume"],
                &epochs[..4],
                &["--set", &format!("train.steps={steps}")],
            ]
            .concat(),
        );
        assert_code(&output, 0, &[]);
    };
    to("11");
    to("20");
    to("38");
    assert!(folder.checkpoint("half", 38) == folder.checkpoint("run", 38));
}

/// Replaces the data of a folder by files of its own, which may be changed.
fn own_data(folder: &Folder) {
    std::fs::remove_file(folder.at("data")).unwrap();
    std::fs::create_dir(folder.at("data")).unwrap();
    for entry in std::fs::read_dir(crate::common::file("data/digits8")).unwrap() {
        let from = entry.unwrap().path();
        if from.is_file() {
            std::fs::copy(&from, folder.at("data").join(from.file_name().unwrap())).unwrap();
        }
    }
}

/// Changes the last label of a plain file, which then gets the time of its last change if one is given.
fn change_label(path: &Path, time: Option<SystemTime>) {
    let mut labels = std::fs::read(path).unwrap();
    let last = labels.last_mut().unwrap();
    *last = (*last + 1) % 10;
    std::fs::write(path, labels).unwrap();
    if let Some(time) = time {
        std::fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn changed_data_are_noticed_and_refused() {
    let folder = Folder::new("changes-data");
    own_data(&folder);
    let packed = std::fs::File::open(folder.at("data/train-labels-idx1-ubyte.gz")).unwrap();
    let labels = folder.at("data/labels");
    std::io::copy(&mut flate2::read::GzDecoder::new(packed), &mut std::fs::File::create(&labels).unwrap()).unwrap();
    let plain = ["--set", "data.train.idx.labels=\"data/labels\""];
    folder.train("run", &["--set", "train.steps=7"]);
    let resume = |to: u64, more: &[&str]| resume(&folder, "run", to, &[&plain[..], more].concat());
    // A file that is compressed in another way has the same contents.
    assert_code(&resume(8, &[]), 0, &[]);
    change_label(&labels, None);
    assert_code(&resume(9, &[]), 2, &["data.train: 1437 images with fingerprint ", "add --allow-change data.train"]);
    assert_code(&resume(9, &["--allow-change", "data.train"]), 0, &["note: resumed with a change: data.train: 1437"]);
    // Files with the same sizes and times are trusted, unless they are to be verified.
    change_label(&labels, Some(labels.metadata().unwrap().modified().unwrap()));
    assert_code(&resume(10, &["--verify-data"]), 2, &["data.train: 1437 images with fingerprint "]);
    assert_code(&resume(10, &[]), 0, &[]);
}

#[test]
fn data_may_move_and_an_evaluation_needs_no_training_data() {
    let folder = Folder::new("changes-moved");
    own_data(&folder);
    folder.train("run", &["--set", "train.steps=7", "--set", "data.validation=0"]);
    let whole = folder.good(&["eval", "run"]).out;
    std::fs::rename(folder.at("data"), folder.at("moved")).unwrap();
    let moved = ["images", "labels"].map(|kind| {
        let file = if kind == "images" { "images-idx3" } else { "labels-idx1" };
        [("train", "train"), ("test", "t10k")]
            .map(|(set, prefix)| format!("data.{set}.idx.{kind}=\"moved/{prefix}-{file}-ubyte.gz\""))
    });
    let moved: Vec<&str> = moved.iter().flatten().flat_map(|set| ["--set", set.as_str()]).collect();
    let more = [&moved[..], &["--set", "data.validation=0"]].concat();
    assert_code(&resume(&folder, "run", 8, &more), 0, &[]);
    for name in ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"] {
        std::fs::remove_file(folder.at("moved").join(name)).unwrap();
    }
    let test =
        "{ idx = { images = \"moved/t10k-images-idx3-ubyte.gz\", labels = \"moved/t10k-labels-idx1-ubyte.gz\" } }";
    let at_7 = folder.good(&["eval", "run/checkpoints/step-00000007", "--data", test]);
    assert_eq!(at_7.out, whole);
    // A validation set is a part of the training data.
    let output =
        folder.good(&["eval", "run/checkpoints/step-00000007", "--data", test, "--set", "data.validation=0.1"]);
    assert_eq!(output.out, whole);
    assert!(
        output.err.contains("note: the validation set is not evaluated without the training data: "),
        "{}",
        output.err
    );
}

#[test]
fn a_run_of_format_1_resumes_bit_for_bit_and_is_evaluated() {
    let folder = Folder::new("changes-format");
    let from = crate::common::file("tests/format_1");
    let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(folder.at("run")).status().unwrap();
    assert!(copied.success());
    let out = folder.good(&["eval", "run"]).out;
    assert!(out.starts_with("step 7  validation: loss 2.407850 "), "{out}");
    let output = resume(&folder, "run", 20, &[]);
    assert_code(&output, 0, &[]);
    assert!(!output.err.contains("note: "), "{}", output.err);
    // The losses of a run without a stop, by a version that held out validation samples regardless of their classes.
    let expected = [
        2.469691276550293,
        2.331080675125122,
        2.455658197402954,
        2.332787275314331,
        2.306575298309326,
        2.246147871017456,
        2.255312204360962,
        2.19541335105896,
        2.34274959564209,
        2.1456329822540283,
        2.1781530380249023,
        2.213613986968994,
        2.1161704063415527,
    ];
    assert_eq!(losses(&folder.metrics("run"))[7..], expected);
    let output = resume(&folder, "run", 21, &["--set", "data.batch=99"]);
    assert_code(&output, 2, &["data.batch: 100 in the checkpoint, 99 now"]);
}
