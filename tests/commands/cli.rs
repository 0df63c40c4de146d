//! The command line: exit codes, output on stdout and stderr, and the files left on disk.

use crate::common::runs::{CommandOutput, Folder, SMALL, events, losses, output_of, peristyle};
use serde_json::Value;

/// Asserts that a command failed as a user mistake and printed these words.
fn refused(output: &CommandOutput, words: &[&str]) {
    assert_eq!(output.code, Some(2), "{}", output.err);
    assert_eq!(output.out, "");
    for words in words {
        assert!(output.err.contains(words), "{words:?} is not in: {}", output.err);
    }
}

#[test]
fn a_run_is_never_written_over() {
    let folder = Folder::new("cli-over");
    let output = folder.train("run", &["--set", "train.steps=3"]);
    assert_eq!(output.out, "run\n");
    let before = folder.files("run");
    refused(
        &folder.run(&["train", "small.toml", "--run-dir", "run"]),
        &["run already holds a run; add --resume to continue it, or choose another --run-dir"],
    );
    assert_eq!(folder.files("run"), before);
    // Without --run-dir, each run gets a new name.
    for name in ["runs/small\n", "runs/small-2\n"] {
        assert_eq!(folder.good(&["train", "small.toml", "--set", "train.steps=1"]).out, name);
    }
    let output = folder.good(&["train", "small.toml", "--set", "train.steps=2", "--resume"]);
    assert_eq!(output.out, "runs/small-2\n");
}

#[test]
fn resume_requires_a_run() {
    let folder = Folder::new("cli-resume");
    let words = "runs/small holds no run to resume; choose one with --run-dir, or omit --resume";
    refused(&folder.run(&["train", "small.toml", "--resume"]), &[words]);
    let words = "none holds no run to resume; omit --resume to start one there";
    refused(&folder.run(&["train", "small.toml", "--resume", "--run-dir", "none"]), &[words]);
    assert!(!folder.at("none").exists() && !folder.at("runs").exists());
    // A checkpoint is not a run directory, although a run could be started inside it.
    folder.train("run", &["--set", "train.steps=1"]);
    let before = folder.files("run");
    let checkpoint = "run/checkpoints/step-00000001";
    refused(&folder.run(&["train", "small.toml", "--resume", "--run-dir", checkpoint]), &["holds no run to resume"]);
    assert_eq!(folder.files("run"), before);
}

/// Returns what `eval` prints for the events of a run at a step.
fn lines(metrics: &[Value], step: u64) -> String {
    let line = |event: &Value| {
        let number = |key: &str| event[key].as_f64().unwrap();
        let (loss, top1, top5) = (number("loss"), number("top1"), number("top5"));
        let split = event["split"].as_str().unwrap();
        format!("step {step}  {split}: loss {loss:.6}  top1 {top1:.4}  top5 {top5:.4}  ({} images)\n", event["images"])
    };
    events(metrics, "eval").iter().filter(|event| event["step"] == step).map(line).collect()
}

/// Returns the first lines of the sets that `eval` printed, without the reports that follow them.
fn first_lines(out: &str) -> String {
    out.lines().filter(|line| line.starts_with("step ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn eval_prints_the_last_results_of_the_run_from_any_folder() {
    let folder = Folder::new("cli-eval");
    // The training data is next to the file; the test data is found from the folder in which the run was started.
    std::fs::create_dir_all(folder.at("configs")).unwrap();
    std::fs::create_dir_all(folder.at("elsewhere")).unwrap();
    std::os::unix::fs::symlink(folder.at("data"), folder.at("configs/near")).unwrap();
    folder.write("configs/small.toml", &SMALL.replacen("\"data/", "\"near/", 2));
    folder.good(&["train", "configs/small.toml", "--run-dir", "run", "--set", "train.steps=14"]);
    let metrics = folder.metrics("run");
    let last = lines(&metrics, 14);
    assert_eq!(last.lines().count(), 2, "{last}");
    assert!(last.contains("validation: loss") && last.contains("(144 images)") && last.contains("(360 images)"));
    for run in ["run", "run/checkpoints", "run/checkpoints/step-00000014"] {
        assert_eq!(first_lines(&folder.good(&["eval", run]).out), last);
        let whole = folder.at(run);
        let elsewhere = output_of(peristyle(&folder.at("elsewhere")).arg("eval").arg(whole));
        assert_eq!((elsewhere.code, first_lines(&elsewhere.out)), (Some(0), last.clone()), "{}", elsewhere.err);
    }
    assert!(folder.good(&["eval", "run/checkpoints/step-00000007"]).out.starts_with("step 7  validation: loss"));
    let four = first_lines(&folder.good(&["eval", "run", "--devices", "cpu*4"]).out);
    assert_eq!(four.replace(|c: char| c.is_ascii_digit(), ""), last.replace(|c: char| c.is_ascii_digit(), ""));
    let data =
        "{ idx = { images = \"data/train-images-idx3-ubyte.gz\", labels = \"data/train-labels-idx1-ubyte.gz\" } }";
    assert!(folder.good(&["eval", "run", "--data", data]).out.contains("(1437 images)"));
    refused(&folder.run(&["eval", "run", "--data", "digits"]), &["--data: [data]: ", "28, 28, 1", "8, 8, 1"]);
    refused(&folder.run(&["eval", "configs"]), &["configs: no config.toml here; expected a run directory or a"]);
    refused(&folder.run(&["eval", "nowhere"]), &["nowhere: cannot read: No such file"]);
    refused(&folder.run(&["eval", "run/checkpoints/step-00000009"]), &["step-00000009: cannot read"]);
    // Skipped checkpoints are reported.
    std::fs::write(folder.at("run/checkpoints/step-00000014/model.safetensors"), "").unwrap();
    let output = folder.good(&["eval", "run"]);
    assert!(
        output.out.starts_with("step 7  ") && output.err.contains("note: skipped a checkpoint: run/"),
        "{}",
        output.err
    );
}

#[test]
fn files_of_other_editors_train_resume_and_evaluate() {
    let folder = Folder::new("cli-editors");
    folder.train("run", &["--set", "train.steps=3"]);
    let metrics = folder.metrics("run");
    let windows = SMALL.replace('\n', "\r\n");
    for (dir, text) in [("marked", format!("\u{feff}{SMALL}")), ("windows", format!("\u{feff}{windows}"))] {
        folder.write("small.toml", &text);
        folder.train(dir, &["--set", "train.steps=1"]);
        // Without a --set, the run keeps the text of the file.
        folder.write("small.toml", &text.replace("steps = 20", "steps = 3"));
        let output = folder.train(dir, &["--resume"]);
        assert!(!output.err.contains("resumed with a different setting"), "{}", output.err);
        assert_eq!(losses(&folder.metrics(dir)), losses(&metrics));
        assert_eq!(first_lines(&folder.good(&["eval", dir]).out), lines(&metrics, 3));
    }
}

#[test]
fn eval_without_test_data_is_rejected() {
    let folder = Folder::new("cli-nothing");
    let test = SMALL.lines().filter(|line| !line.starts_with("test =") && !line.starts_with("validation"));
    folder.write("small.toml", &test.map(|line| format!("{line}\n")).collect::<String>());
    let output = folder.train("run", &["--set", "train.steps=1"]);
    assert!(output.err.contains("note: [train]: evaluate has no effect"), "{}", output.err);
    refused(&folder.run(&["eval", "run"]), &["run: the run has no test data", "give test data with --data"]);
}

/// Returns the locations of all problems.
fn locations(output: &CommandOutput) -> Vec<String> {
    output.err.trim_start_matches("peristyle: ").lines().map(|l| l.split(": ").next().unwrap().to_string()).collect()
}

#[test]
fn check_reports_mistakes_of_every_kind_in_one_go() {
    let folder = Folder::new("cli-check");
    let output = folder.good(&["check", "small.toml"]);
    assert!(output.out.contains("1 device (cpu:0), 1293 samples in 13 batches of 100, 20 steps"), "{}", output.out);
    let broken = SMALL
        .replace("data/t10k-images", "data/absent")
        .replace("lr = 0.02", "lr = -1")
        .replace("keep = 1000", "kep = 1");
    // Mistakes in the file, the data and the placement.
    let text = broken.replace("units = 32 }", "units = 33 }, split = \"columns\"");
    folder.write("bad.toml", &text);
    let columns = ["--devices", "cpu*2", "--set", "devices.mesh={ columns = 2 }"];
    let output = folder.run(&[&["check", "bad.toml"], &columns[..]].concat());
    assert_eq!(output.code, Some(2));
    // The last line says that the contents of the data were not read.
    let expected = ["bad.toml:6:8", "bad.toml:21:37", "bad.toml:28:6", "bad.toml:34:35", "bad.toml"];
    assert_eq!(locations(&output), expected, "{}", output.err);
    for words in ["no such file", "lr = -1, expected", "units = 33 does not divide", "unknown key \"kep\""] {
        assert!(output.err.contains(words), "{words} is not in: {}", output.err);
    }
    // Mistakes in the file, the data and the network.
    folder.write("bad.toml", &broken.replace("{ name = \"fc2\",", "{ name = \"fc2\", inputs = [\"fc3\"],"));
    let output = folder.run(&["check", "bad.toml"]);
    assert_eq!(
        locations(&output),
        ["bad.toml:6:8", "bad.toml:23:28", "bad.toml:28:6", "bad.toml:34:35", "bad.toml", "bad.toml"],
        "{}",
        output.err
    );
    let later =
        "bad.toml: not checked yet: how the network fits the data and the devices; fix the problems above first";
    assert!(output.err.contains(later), "{}", output.err);
    // Data whose settings are wrong is not opened.
    folder.write("bad.toml", &broken.replace("batch = 100", "batch = 0"));
    assert_eq!(
        locations(&folder.run(&["check", "bad.toml"])),
        ["bad.toml:8:9", "bad.toml:28:6", "bad.toml:34:35", "bad.toml", "bad.toml"]
    );
    refused(&folder.run(&["train", "bad.toml"]), &["batch = 0"]);
    refused(&folder.run(&["train", "absent.toml"]), &["absent.toml: cannot read"]);
    assert!(!folder.at("runs").exists());
}

#[test]
fn plans_need_no_data_and_have_the_promised_fields() {
    let folder = Folder::new("cli-plan");
    std::fs::remove_file(folder.at("data")).unwrap();
    let columns = ["--devices", "cpu*2", "--set", "devices.mesh={ columns = 2 }"];
    for (format, words) in [("text", "device cpu:1 at"), ("json", "\"wire_bytes_per_step\""), ("mermaid", "graph")] {
        let output = folder.good(&[&["plan", "small.toml", "--format", format], &columns[..]].concat());
        assert!(output.out.contains(words) || output.out.starts_with("flowchart"), "{}", output.out);
        for key in ["train", "test"] {
            let note = format!("note: planned without the {key} data: data/");
            assert!(output.err.contains(&note), "{}", output.err);
        }
    }
    let output = folder.good(&[&["plan", "small.toml", "--format", "json"], &columns[..]].concat());
    let plan: Value = serde_json::from_str(&output.out).unwrap();
    for key in ["total_seconds", "step_seconds", "wire_bytes_per_step"] {
        assert!(plan[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let devices = plan["devices"].as_array().unwrap();
    let names: Vec<&str> = devices.iter().map(|device| device["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["cpu:0", "cpu:1"]);
    let parts = ["weights", "gradients", "optimizer", "activations", "workspace", "communication"];
    for device in devices {
        let bytes = |part: &str| device[format!("{part}_bytes")].as_u64().unwrap();
        assert!(parts.iter().map(|part| bytes(part)).sum::<u64>() <= bytes("arena") && bytes("weights") > 0);
    }
    refused(&folder.run(&["train", "small.toml"]), &["small.toml:5:9: [data]: data/train-images", "no such file"]);
    let output = folder.run(&["plan", "small.toml", "--hardware", "cpuu"]);
    refused(&output, &["--hardware cpuu: unknown machine (did you mean \"cpu\"?); expected one of: "]);
}

#[test]
fn devices_of_the_command_line_that_do_not_fit_the_mesh_are_noted() {
    let folder = Folder::new("cli-devices");
    folder.write("small.toml", &format!("{SMALL}\n[devices]\nuse = \"cpu*4\"\nmesh = {{ data = 2, columns = 2 }}\n"));
    let output = folder.train("run", &["--devices", "cpu*3", "--set", "train.steps=2"]);
    let note = "mesh = { data = 2, columns = 2 } needs 4 devices but use lists 3; using { data = 3 } instead";
    assert!(output.err.contains(note), "{}", output.err);
    assert_eq!(events(&folder.metrics("run"), "start")[0]["mesh"], "3x1");
    refused(&folder.run(&["train", "small.toml", "--devices", "cuda:99"]), &["small.toml: [devices]: "]);
}

#[test]
fn a_loss_that_is_not_a_number_ends_the_run() {
    let folder = Folder::new("cli-nan");
    let arguments = ["train", "small.toml", "--run-dir", "run", "--set", "optimizer.lr=1e6"];
    let output = folder.run(&[&arguments[..], &["--set", "optimizer.chain=[]"]].concat());
    assert_eq!((output.code, output.out.as_str()), (Some(1), ""), "{}", output.err);
    let metrics = folder.metrics("run");
    let steps = events(&metrics, "step").len();
    let sentence = format!("step {}: the output of layer ", steps + 1);
    assert!(output.err.contains(&sentence) && output.err.contains("lower lr (now 1000000"), "{}", output.err);
    assert_eq!(output.err.matches(&sentence).count(), 1, "printed once: {}", output.err);
    let end = events(&metrics, "end");
    assert_eq!((&end[0]["reason"], &end[0]["steps"]), (&"failed".into(), &steps.into()));
    assert!(end[0]["error"].as_str().unwrap().starts_with(&sentence));
    assert!(folder.read("run/log.txt").contains(&sentence));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = Folder::new("cli-disk");
    folder.write("file", "");
    refused(&folder.run(&["train", "small.toml", "--run-dir", "file/run"]), &["file/run: cannot create: "]);
    // Once training has started, a failure is a failed run, not a mistake on the command line.
    folder.train("run", &["--set", "train.steps=1"]);
    folder.write("run/checkpoints/step-00000007.unfinished", "in the way");
    let output = folder.run(&["train", "small.toml", "--run-dir", "run", "--resume"]);
    assert_eq!(output.code, Some(1), "{}", output.err);
    assert!(output.err.contains("step-00000007.unfinished: cannot") && output.err.contains("(run directory run)"));
}

#[test]
fn a_run_starts_from_the_weights_of_another() {
    let folder = Folder::new("cli-from");
    let fine = SMALL.replace("name = \"fc2\", dense = { units = 10 }", "name = \"out\", dense = { units = 10 }");
    let from = |text: &str, from: &str| text.replace("[model]\n", &format!("[model]\nfrom = {from}\n"));
    folder.train("base", &["--set", "train.steps=14"]);
    std::fs::create_dir_all(folder.at("configs")).unwrap();
    let model = "base/checkpoints/step-00000014/model.safetensors";
    std::fs::copy(folder.at(model), folder.at("configs/near.safetensors")).unwrap();
    // The path is relative to the file, or otherwise to the current folder.
    for (file, text) in [("near.safetensors", &fine), (model, &fine)] {
        folder.write("configs/fine.toml", &from(text, &format!("{{ file = \"{file}\", skip = [\"out\"] }}")));
        let dir = format!("fine-{}", file.len());
        let output = folder.good(&["train", "configs/fine.toml", "--run-dir", &dir, "--set", "train.steps=1"]);
        for words in [
            ": 7 of 9 tensors",
            "keep their initial values: out.weight, out.bias",
            "of the file are not used: fc2.bias, fc2.weight",
        ] {
            assert!(output.err.contains(words), "{words} is not in: {}", output.err);
        }
    }
    // Loaded weights start at a lower loss than initial ones.
    let first = |dir: &str, text: String| {
        folder.write("fine.toml", &text);
        folder.good(&["train", "fine.toml", "--run-dir", dir, "--set", "train.steps=1"]);
        events(&folder.metrics(dir), "step")[0]["loss"].as_f64().unwrap()
    };
    let anew = events(&folder.metrics("base"), "step")[0]["loss"].as_f64().unwrap();
    let all = first("all", from(SMALL, &format!("\"{model}\"")));
    let skipped = first("skipped", from(SMALL, &format!("{{ file = \"{model}\", skip = [\"fc2\"] }}")));
    assert!(all < skipped && all < anew && skipped != anew, "{all} {skipped} {anew}");
    // Every problem with the weights is reported at its location in the file.
    let wide = SMALL.replace("units = 32", "units = 48");
    for (text, words) in [
        (
            from(&wide, &format!("\"{model}\"")),
            vec![
                "fine.toml:13:8: [model]: tensors of ",
                "fc1.weight (32, 128), expected (48, 128)",
                "skip = [\"fc1\", \"fc2\"]",
            ],
        ),
        (from(SMALL, &format!("{{ file = \"{model}\", skip = [\"fc3\"] }}")), vec!["no layer \"fc3\" (did you mean"]),
        (from(SMALL, "\"absent.safetensors\""), vec!["fine.toml:13:8: [model]: absent.safetensors: no such file"]),
        (from(SMALL, "\"small.toml\""), vec!["small.toml: not a safetensors file"]),
    ] {
        folder.write("fine.toml", &text);
        refused(&folder.run(&["check", "fine.toml"]), &words);
        refused(&folder.run(&["train", "fine.toml", "--run-dir", "no"]), &words);
        assert!(!folder.at("no").exists());
    }
    // A resumed run uses its own weights, not those of `from`.
    std::fs::remove_file(folder.at("configs/near.safetensors")).unwrap();
    folder.write("configs/fine.toml", &from(&fine, "{ file = \"near.safetensors\", skip = [\"out\"] }"));
    folder.good(&["eval", "fine-16"]);
    folder.good(&["train", "configs/fine.toml", "--run-dir", "fine-16", "--set", "train.steps=2", "--resume"]);
}

/// Missing memory and threads are reported by name, and a grid that is too large is reported with its layer.
#[test]
fn missing_memory_and_threads_are_reported() {
    let folder = Folder::new("cli-lacks");
    let write = |units: usize| {
        let text = format!(
            "[data]\ntrain = {{ synthetic = {{ images = 2048, classes = 2, shape = [1, 1, 1] }} }}\nbatch = 1024\n[model]\n\
             input = [1, 1, 1]\nlayers = [{{ dense = {{ units = {units} }} }}, {{ dense = {{ units = 2 }} }}]\n\
             [optimizer]\nlr = 0.1\n[train]\nsteps = 1\n"
        );
        folder.write("lacks.toml", &text);
    };
    let train = |limit: &str, more: &[&str]| {
        let program = env!("CARGO_BIN_EXE_peristyle");
        let mut command = std::process::Command::new("sh");
        command.current_dir(&folder.0).args(["-c", &format!("ulimit -v {limit}; exec \"$0\" \"$@\""), program]);
        let output = output_of(command.args(["train", "lacks.toml", "--run-dir", "run"]).args(more));
        assert!(output.code == Some(1) && !output.err.contains("panicked"), "{}", output.err);
        output.err
    };
    write(2_000_000);
    let err = train("3000000", &["--devices", "cpu"]);
    assert!(err.contains("cpu: cannot allocate ") && err.contains("use a smaller batch"), "{err}");
    write(8);
    let err = train("1000000", &["--devices", "cpu*256"]);
    assert!(err.contains("cannot start the thread \"cpu:") && err.contains("use fewer devices"), "{err}");
    write(4_300_000);
    let err = train("unlimited", &["--devices", "emu", "--set", "data.batch=2"]);
    let words = "step 1: \"dense1.forward\": a kernel needs 1 x 67188 x 1 blocks, more than";
    assert!(err.contains(words), "{err}");
}

#[test]
fn a_process_without_memory_ends_with_a_sentence() {
    let folder = Folder::new("cli-memory");
    // Large enough that memory is allocated in many places, for many limits.
    let layers = vec!["\"relu\""; 400].join(", ");
    folder.write("many.toml", &SMALL.replace("\"relu\",\n  { max_pool", &format!("{layers}, {{ max_pool")));
    let run = |limit: u64, arguments: &[&str]| {
        let mut command = std::process::Command::new("sh");
        let line = format!("ulimit -v {limit}; exec \"$0\" \"$@\"");
        command.current_dir(&folder.0).args(["-c", &line, env!("CARGO_BIN_EXE_peristyle")]).args(arguments);
        output_of(&mut command)
    };
    // In KiB, from where the program can start at all.
    let least = (12_000..60_000).step_by(400).find(|&limit| run(limit, &["--version"]).code == Some(0)).unwrap();
    let (mut aborted, mut finished) = (0, 0);
    for limit in (least + 400..least + 60_000).step_by(400) {
        let output = run(limit, &["check", "many.toml"]);
        if output.code == Some(0) {
            finished += 1;
        } else {
            let last = output.err.lines().last().unwrap_or_default();
            assert!(
                matches!(output.code, Some(1 | 2)) && last.starts_with("peristyle: "),
                "{limit}: {:?} {}",
                output.code,
                output.err
            );
            aborted += usize::from(last.contains("if memory ran out, use a smaller batch"));
        }
        if finished == 3 {
            break;
        }
    }
    assert!(aborted > 0 && finished > 0, "{aborted} aborted, {finished} finished");
}

#[test]
fn an_error_of_the_operating_system_is_not_a_mistake_of_the_user() {
    let folder = Folder::new("cli-descriptors");
    let check = |descriptors: u64| {
        let mut command = std::process::Command::new("sh");
        let line = format!("ulimit -n {descriptors}; exec \"$0\" check small.toml");
        output_of(command.current_dir(&folder.0).args(["-c", &line, env!("CARGO_BIN_EXE_peristyle")]))
    };
    // Standard input, output and error; the images; none for the labels.
    let output = check(4);
    assert_eq!(output.code, Some(1), "{}", output.err);
    assert!(output.err.contains("labels-idx1-ubyte.gz: cannot open: Too many open files"), "{}", output.err);
    assert_eq!(check(20).code, Some(0));
}
