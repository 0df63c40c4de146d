//! Files of a run: what a kill leaves, full disks, the best checkpoints, and the clock.

use crate::common::runs::{Folder, events, losses, output_of, peristyle};
use std::process::{Command, Stdio};

fn names(folder: &Folder, dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder.at(dir)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn leftovers_of_a_kill_are_removed_and_the_line_of_a_checkpoint_is_restored() {
    let folder = Folder::new("files-leftovers");
    let keep = ["--set", "train.checkpoint.keep=2"];
    folder.train("run", &[&keep[..], &["--set", "train.steps=21"]].concat());
    assert_eq!(names(&folder, "run/checkpoints"), ["step-00000014", "step-00000021"]);
    let copy = |from: &str, to: &str| {
        assert!(Command::new("cp").args(["-r", from, to]).current_dir(&folder.0).status().unwrap().success());
    };
    copy("run/checkpoints/step-00000014", "run/checkpoints/step-00000007.unfinished");
    // As of a kill before the last save removed old checkpoints.
    folder.train("short", &[&keep[..], &["--set", "train.steps=7"]].concat());
    copy("short/checkpoints/step-00000007", "run/checkpoints/step-00000007");
    let config = folder.read("run/config.toml");
    let state = folder.read("run/checkpoints/step-00000007/state.json");
    let id = |text: &str, mark: &str| text.split(mark).nth(1).unwrap().split(['"', '\n']).next().unwrap().to_string();
    assert_ne!(id(&config, "# run: "), id(&state, "\"run\": \""));
    folder.write("run/config.toml.part", "half a conf");
    let metrics = folder.read("run/metrics.jsonl");
    let lines: Vec<&str> = metrics.lines().collect();
    let last = lines.iter().position(|line| line.contains("\"checkpoint\",\"step\":21")).unwrap();
    folder.write("run/metrics.jsonl", &(lines[..last].join("\n") + "\n"));
    folder.train("run", &[&keep[..], &["--resume", "--set", "train.steps=22"]].concat());
    // The checkpoint of another run is not this run's to remove.
    assert_eq!(names(&folder, "run/checkpoints"), ["step-00000007", "step-00000021", "step-00000022"]);
    let steps: Vec<u64> =
        events(&folder.metrics("run"), "checkpoint").iter().map(|e| e["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [7, 14, 21, 22]);
    assert_eq!(
        names(&folder, "run"),
        ["checkpoints", "config-until-step-00000021.toml", "config.toml", "log.txt", "metrics.jsonl", "owner.lock"]
    );
}

#[test]
fn a_folder_named_after_another_step_misleads_no_resume() {
    let folder = Folder::new("files-foreign");
    folder.train("run", &["--set", "train.steps=21"]);
    let copy = ["-r", "run/checkpoints/step-00000014", "run/checkpoints/step-00000099"];
    assert!(Command::new("cp").args(copy).current_dir(&folder.0).status().unwrap().success());
    let output = folder.train("run", &["--resume", "--set", "train.steps=28"]);
    assert!(
        output.err.contains("the folder is named after step 99, but holds step 14; rename or remove"),
        "{}",
        output.err
    );
    assert_eq!(losses(&folder.metrics("run")).len(), 28);
    let all = ["step-00000007", "step-00000014", "step-00000021", "step-00000028", "step-00000099"];
    assert_eq!(names(&folder, "run/checkpoints"), all);
}

#[test]
fn a_resume_with_auto_starts_a_run_or_continues_it() {
    let folder = Folder::new("files-auto");
    let train = |steps: u64, more: &[&str]| {
        let steps = format!("train.steps={steps}");
        folder.good(&[&["train", "small.toml", "--resume", "auto", "--set", &steps], more].concat())
    };
    for more in [&[][..], &["--run-dir", "named"]] {
        let (first, second) = (train(3, more), train(5, more));
        assert_eq!(first.out, second.out);
        assert!(second.err.contains("resumed after step 3"), "{}", second.err);
        assert_eq!(losses(&folder.metrics(first.out.trim())).len(), 5);
    }
    let output = folder.run(&["train", "small.toml", "--resume", "maybe"]);
    assert_eq!(output.code, Some(2), "{}", output.err);
}

#[test]
fn the_best_checkpoints_are_kept_besides_the_newest() {
    let folder = Folder::new("files-best");
    let best = "train.checkpoint={ every = \"9 steps\", keep = 1, keep_best = 2, best_by = \"test.loss\" }";
    // The rate is so high at first that results go up and down.
    folder.train(
        "run",
        &["--set", best, "--set", "train.evaluate=\"3 steps\"", "--set", "train.steps=30", "--set", "optimizer.lr=0.3"],
    );
    let tests: Vec<_> = events(&folder.metrics("run"), "eval").into_iter().filter(|e| e["split"] == "test").collect();
    let (mut kept, mut lowest) = (Vec::new(), f64::INFINITY);
    for test in &tests {
        let (step, loss) = (test["step"].as_u64().unwrap(), test["loss"].as_f64().unwrap());
        // Improvements and every ninth step are saved.
        if loss < lowest || step.is_multiple_of(9) || step == 30 {
            kept.push((loss, step));
        }
        lowest = lowest.min(loss);
    }
    kept.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut expected: Vec<u64> = kept.iter().take(2).map(|&(_, step)| step).chain([30]).collect();
    expected.sort_unstable();
    expected.dedup();
    assert!(expected[0] != 30 && kept.len() > 3, "{kept:?}");
    let expected: Vec<String> = expected.iter().map(|step| format!("step-{step:08}")).collect();
    assert_eq!(names(&folder, "run/checkpoints"), expected);
    let wrong =
        folder.run(&["check", "small.toml", "--set", "train.checkpoint={ keep_best = 1, best_by = \"dev.loss\" }"]);
    assert!(
        wrong.code == Some(2) && wrong.err.contains("validation or test, a dot, and loss or a metric"),
        "{}",
        wrong.err
    );
    let best = "train.checkpoint={ keep_best = 1, best_by = \"test.top2\" }";
    let wrong = folder.run(&["check", "small.toml", "--set", best]);
    assert!(
        wrong.err.contains("no metric \"top2\" (did you mean \"top1\"?); it has loss, top1, top5"),
        "{}",
        wrong.err
    );
}

#[test]
fn time_ends_a_run_and_saves_checkpoints() {
    let folder = Folder::new("files-time");
    let mut command = peristyle(&folder.0);
    command.args(["train", "small.toml", "--run-dir", "run", "--set", "train.steps=100000000"]);
    command.args(["--set", "train.max_time=1 s", "--set", "train.checkpoint.every=0.2 s"]);
    let output = output_of(&mut command);
    assert_eq!((output.code, output.out.as_str()), (Some(75), "run\n"), "{}", output.err);
    let metrics = folder.metrics("run");
    let steps = losses(&metrics).len() as u64;
    let last = output.err.lines().last().unwrap();
    let expected = format!(
        "out of time after step {steps}; to continue: peristyle train small.toml --set train.steps=100000000 --set \
         'train.max_time=1 s' --set 'train.checkpoint.every=0.2 s' --resume --run-dir run"
    );
    assert_eq!(last, expected);
    assert_eq!(events(&metrics, "end")[0]["reason"], "out of time");
    let saves = events(&metrics, "checkpoint");
    assert!(saves.len() >= 2, "{}", saves.len());
    folder.checkpoint("run", steps);
    // The clock decides when to save, never what is learned.
    folder.train("whole", &["--set", "train.steps=20"]);
    assert_eq!(losses(&metrics)[..20], losses(&folder.metrics("whole"))[..20]);
    let wrong = folder.run(&["check", "small.toml", "--set", "train.evaluate=1 hour"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("must not depend on the speed of a machine"), "{}", wrong.err);
}

/// Runs the program in a folder under a limit on the size of files, as on a full disk.
fn limited(folder: &Folder, kib: u64, arguments: &[&str]) -> crate::common::runs::CommandOutput {
    let mut shell = Command::new("sh");
    let line = format!("ulimit -f {}; exec \"$0\" \"$@\"", kib * 2);
    shell.args(["-c", &line, env!("CARGO_BIN_EXE_peristyle")]).args(arguments).current_dir(&folder.0);
    output_of(shell.stdin(Stdio::null()))
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_tried_again_or_stops_the_run() {
    let folder = Folder::new("files-full");
    // A checkpoint's model has 20 kB, the metrics of 21 steps 3 kB.
    let arguments = ["train", "small.toml", "--set", "train.steps=21", "--run-dir"];
    let output = limited(&folder, 8, &[&arguments[..], &["retry"]].concat());
    assert_eq!((output.code, output.out.as_str()), (Some(1), ""), "{}", output.err);
    let metrics = folder.metrics("retry");
    assert_eq!(losses(&metrics).len(), 21, "training goes on");
    for step in [7, 14, 21] {
        let text =
            format!("note: step {step}: no checkpoint: retry/checkpoints/step-{step:08}.unfinished/model.safetensors");
        assert!(output.err.contains(&text), "{}", output.err);
    }
    let reason = "cannot write: File too large (os error 27) (44.4 kB needed, ";
    assert!(output.err.contains(reason) && output.err.contains(" free); training goes on"), "{}", output.err);
    assert!(names(&folder, "retry/checkpoints").is_empty());
    let output = limited(&folder, 8, &[&arguments[..], &["stop", "--set", "train.checkpoint.on_error=stop"]].concat());
    assert_eq!(output.code, Some(1), "{}", output.err);
    assert_eq!(losses(&folder.metrics("stop")).len(), 7);
    // With room again, the run resumes.
    folder.train("retry", &["--resume", "--set", "train.steps=21"]);
    assert_eq!(losses(&folder.metrics("retry")).len(), 21);
}

#[test]
fn a_run_can_be_moved_alone_or_with_its_project() {
    use std::os::unix::ffi::OsStringExt;
    let folder = Folder::new("files-moved");
    // A line break and a byte that is not UTF-8 in the name of the project's folder.
    let odd = folder.0.join(std::ffi::OsString::from_vec(b"a\nb\xff".to_vec()));
    std::fs::create_dir(&odd).unwrap();
    for name in ["small.toml", "data"] {
        assert!(Command::new("cp").arg("-r").arg(folder.at(name)).arg(odd.join(name)).status().unwrap().success());
    }
    let run = |dir: &std::path::Path, arguments: &[&str]| {
        let output = peristyle(dir).args(arguments).env("HOME", &folder.0).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let good = |dir: &std::path::Path, arguments: &[&str]| {
        let (code, out, err) = run(dir, arguments);
        assert_eq!(code, Some(0), "{err}");
        out
    };
    let project = folder.at("project");
    good(&odd, &["train", "small.toml", "--set", "train.steps=3", "--run-dir", "runs/a"]);
    let result = good(&odd, &["eval", "runs/a"]);
    std::fs::rename(&odd, &project).unwrap();
    assert_eq!(good(&project, &["eval", "runs/a"]), result);
    good(&project, &["train", "small.toml", "--set", "train.steps=4", "--run-dir", "runs/a", "--resume"]);
    let config = std::fs::read_to_string(project.join("runs/a/config.toml")).unwrap();
    let home = folder.0.to_str().unwrap();
    assert!(config.contains("# relative to: ../..\n# relative to: ~/project\n") && !config.contains(home), "{config}");
    let result = good(&project, &["eval", "runs/a"]);
    std::fs::rename(project.join("runs/a"), folder.at("alone")).unwrap();
    assert_eq!(good(&folder.0, &["eval", "alone"]), result);
}

#[test]
fn checkpoints_are_shown_compared_and_verified() {
    let folder = Folder::new("files-ckpt");
    folder.train("a", &["--set", "train.steps=8"]);
    folder.train("b", &["--set", "train.steps=8", "--set", "devices.threads=1"]);
    folder.train("c", &["--set", "train.steps=8", "--set", "optimizer.lr=0.03"]);
    let shown = folder.good(&["ckpt", "show", "a"]).out;
    for part in [
        "step 8, epoch 0, sample 800 of the epoch, 800 samples in all\nf32, mesh 1x1, seed 3, peristyle 0.1.0, format 2\n",
        "training data: 1437 images of 8x8x1, 10 classes, fingerprint ",
        "step 8: test loss ",
        "\noptimizer.chain = clip_by_global_norm, weight_decay, momentum\n",
        "model: 9 tensors, 4562 values\n  bn.bias ",
        "  conv.weight.momentum.velocity            (8, 1, 3, 3)",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let json: serde_json::Value = serde_json::from_str(&folder.good(&["ckpt", "show", "a", "--json"]).out).unwrap();
    assert_eq!((&json["step"], &json["model"][0]["name"]), (&8.into(), &"bn.bias".into()));
    assert!(folder.good(&["ckpt", "diff", "a", "b"]).out.starts_with("identical"));
    let output = folder.run(&["ckpt", "diff", "a", "c"]);
    assert_eq!(output.code, Some(1), "{}", output.err);
    let lines: Vec<&str> = output.out.lines().collect();
    assert!(lines[0] == "setting optimizer.lr: 0.02 and 0.03" && lines[1].contains("differs by up to"), "{lines:?}");
    let steps = folder.run(&["ckpt", "diff", "a", "a/checkpoints/step-00000007"]).out;
    assert!(
        steps.contains("step: 8 and 7") && steps.contains("state fc2.weight.momentum.velocity: differs"),
        "{steps}"
    );
    assert_eq!(folder.good(&["ckpt", "verify", "a", "b"]).out.lines().count(), 4);
    let damaged = folder.at("a/checkpoints/step-00000008/state.safetensors");
    let mut bytes = std::fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let output = folder.run(&["ckpt", "verify", "a"]);
    assert_eq!(output.code, Some(1));
    assert!(
        output.out.contains("step-00000008/state.safetensors: damaged: its checksum")
            && output.out.contains("07: ok, step 7")
    );
    assert!(output.err.contains("1 of 2 checkpoints cannot be used"), "{}", output.err);
}
