//! Schedules in whole runs: their rates on every device, what they keep through a resume, and what they depend on.

use crate::common::runs::{Folder, assert_code, events};

/// Returns the learning rate of every update.
fn rates(folder: &Folder, run: &str) -> Vec<f64> {
    events(&folder.metrics(run), "step").iter().map(|step| step["lr"].as_f64().unwrap()).collect()
}

const PLATEAU: &str =
    "optimizer.schedule=[{ warmup = { steps = 5 } }, { plateau = { factor = 0.5, patience = 0, threshold = 0.9 } }]";
const WATCHED: &str =
    "optimizer.schedule={ plateau = { factor = 0.5, patience = 0, threshold = 0.9, monitor = \"validation.loss\" } }";
const COSINE: &str = "optimizer.schedule=[{ warmup = { epochs = 1 } }, { cosine = { final_factor = 0.1 } }]";

#[test]
fn a_resumed_run_has_the_rates_of_one_that_never_stopped() {
    let folder = Folder::new("schedules-resume");
    for (number, schedule) in [PLATEAU, WATCHED, COSINE].into_iter().enumerate() {
        let mut all = Vec::new();
        for device in ["cpu", "emu"] {
            let device = format!("devices.use=\"{device}\"");
            // An epoch has 13 updates. No checkpoint or evaluation is at the end of one, where a GPU would wait anyway.
            let sets =
                ["--set", &device, "--set", schedule, "--set", "train.steps=42", "--set", "train.evaluate=\"7 steps\""];
            let sets =
                [&sets[..], &["--set", "train.checkpoint.keep=10", "--set", "train.checkpoint.every=\"7 steps\""]]
                    .concat();
            let whole = format!("whole-{number}");
            folder.train(&whole, &sets);
            for at in [7, 28, 35] {
                let copy =
                    std::process::Command::new("cp").arg("-r").args([folder.at(&whole), folder.at("copy")]).status();
                assert!(copy.unwrap().success());
                for later in (7..=42).step_by(7).filter(|&later| later > at) {
                    std::fs::remove_dir_all(folder.at(&format!("copy/checkpoints/step-{later:08}"))).unwrap();
                }
                folder.train("copy", &[&sets[..], &["--resume"]].concat());
                assert_eq!(rates(&folder, "copy"), rates(&folder, &whole), "{schedule} from {at}");
                assert!(folder.checkpoint("copy", 42) == folder.checkpoint(&whole, 42), "{schedule} from {at}");
                std::fs::remove_dir_all(folder.at("copy")).unwrap();
            }
            all.push(rates(&folder, &whole));
            std::fs::remove_dir_all(folder.at(&whole)).unwrap();
        }
        assert_eq!(all[0], all[1], "{schedule}: a device that runs ahead has the rates of the CPU");
        let rates = &all[0];
        match number {
            // No epoch improves by 90 %: the first sets the mark, every later one halves the rate.
            0 => assert_eq!([4, 25, 26, 38, 39].map(|i| rates[i] / 0.02), [1.0, 1.0, 0.5, 0.5, 0.25]),
            // So do evaluations, after 7 updates each.
            1 => assert_eq!([6, 13, 14, 20, 21].map(|i| rates[i] / 0.02), [1.0, 1.0, 0.5, 0.5, 0.25]),
            _ => {
                let cosine = |t: f64| 0.1 + 0.9 * (1.0 + (std::f64::consts::PI * t / 29.0).cos()) / 2.0;
                for (i, factor) in [(0, 1.0 / 13.0), (12, 1.0), (13, 1.0), (20, cosine(7.0)), (41, cosine(28.0))] {
                    assert!((rates[i] / 0.02 - factor).abs() < 1e-12, "update {i}: {}", rates[i]);
                }
            }
        }
    }
}

#[test]
fn a_decision_is_noted() {
    let folder = Folder::new("schedules-note");
    let output = folder.train("run", &["--set", PLATEAU, "--set", "train.steps=27"]);
    assert!(output.err.contains("step 26: the loss is on a plateau: the learning rate is now 0.01"), "{}", output.err);
}

#[test]
fn the_length_matters_only_to_schedules_that_depend_on_it() {
    let folder = Folder::new("schedules-length");
    folder.train("run", &["--set", COSINE, "--set", "train.steps=14"]);
    let resume = ["train", "small.toml", "--run-dir", "run", "--resume", "--set", "train.steps=20", "--set", COSINE];
    assert_code(&folder.run(&resume), 2, &["train.steps: 14 in the checkpoint, 20 now", "--allow-change train.steps"]);
    assert_code(&folder.run(&[&resume[..], &["--allow-change", "train.steps"]].concat()), 0, &[]);
}

#[test]
fn a_set_that_is_not_evaluated_cannot_be_observed() {
    let folder = Folder::new("schedules-sets");
    let output = folder.run(&["check", "small.toml", "--set", WATCHED, "--set", "data.validation=0"]);
    let expected = "schedule \"plateau\": monitor needs the loss of the validation set, but [data] has none";
    assert_code(&output, 2, &[expected]);
}
