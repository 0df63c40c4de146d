//! What reaches a terminal: output that cannot be written ends a command with exit code 1, and no name, path or value
//! can control the terminal.

mod common;

use common::runs::{CommandOutput, Folder, SMALL, losses, output_of, peristyle};
use peristyle::error::is_hidden;
use peristyle::tensor::Shape;
use peristyle::train::weights::{NamedTensor, TensorData, encode};
use std::fs::{File, create_dir, rename};
use std::io::pipe;
use std::os::unix::fs::symlink;
use std::process::Stdio;

/// Sets the title of a terminal, and holds other controls, characters that reorder text, and a line of its own.
const HIDDEN: &str = "\u{1b}]0;x\u{7}\u{9b}\u{202e}\u{200b}\r\nline";
/// The same in a string of TOML.
const QUOTED: &str = r"\u001b]0;x\u0007\u009b\u202e\u200b\r\nline";

/// Returns standard output on a full disk.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// Returns standard output whose reader has ended.
fn closed() -> Stdio {
    pipe().unwrap().1.into()
}

/// Asserts that output has no hidden character, and that no name, path or value begins a line of it.
fn assert_printable(what: &str, output: &CommandOutput) {
    for text in [&output.out, &output.err] {
        let hidden: Vec<char> = text.chars().filter(|&c| is_hidden(c) && c != '\n').collect();
        assert!(hidden.is_empty(), "{what}: {hidden:?} in {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("line")), "{what}: {text}");
        assert!(!text.contains("panicked"), "{what}: {text}");
    }
}

#[test]
fn output_that_cannot_be_written_is_exit_code_1() {
    let folder = Folder::new("terminal-lost");
    folder.train("run", &["--set", "train.steps=1"]);
    for arguments in [
        &["check", "small.toml"][..],
        &["plan", "small.toml"],
        &["plan", "small.toml", "--format", "json"],
        &["plan", "small.toml", "--format", "mermaid"],
        &["eval", "run"],
        &["gradcheck", "small.toml", "--samples", "1"],
        &["diagnose", "init", "small.toml", "--samples", "2"],
        &["diagnose", "init", "small.toml", "--samples", "2", "--json"],
        &["devices"],
        &["selftest", "--device", "cpu", "--quick"],
        &["selftest", "--device", "cpu", "--quick", "--json"],
        &["bench", "step", "small.toml", "--seconds", "0.01", "--repeats", "1"],
        &["bench", "step", "small.toml", "--seconds", "0.01", "--repeats", "1", "--json"],
        &["--help"],
        &["train", "--help"],
        &["--version"],
    ] {
        for (stdout, last) in [(full(), "peristyle: standard output: cannot write: No space left"), (closed(), "")] {
            let output = output_of(peristyle(&folder.0).args(arguments).stdout(stdout));
            assert_eq!(output.code, Some(1), "{arguments:?}: {}", output.err);
            let errors: Vec<&str> = output.err.lines().filter(|line| line.starts_with("peristyle:")).collect();
            assert_eq!(errors.len(), usize::from(!last.is_empty()), "{arguments:?}: {}", output.err);
            assert!(errors.iter().all(|error| error.starts_with(last)), "{arguments:?}: {}", output.err);
            assert!(!output.err.contains("panicked"), "{arguments:?}: {}", output.err);
        }
    }
}

#[test]
fn help_and_usage_errors_keep_their_exit_codes() {
    let folder = Folder::new("terminal-usage");
    let help = folder.good(&["--help"]);
    assert!(help.out.contains("Usage: peristyle <COMMAND>") && help.err.is_empty(), "{}", help.err);
    let output = folder.run(&["check", "small.toml", "--lr", "0.1"]);
    assert_eq!((output.code, output.out.as_str()), (Some(2), ""));
    let tip = "tip: to change optimizer.lr, use '--set', as in '--set optimizer.lr=0.1'";
    assert!(output.err.contains(tip) && !output.err.contains("-- --lr"), "{}", output.err);
    for (arguments, words) in [
        (&["trian"][..], "a similar subcommand exists: 'train'"),
        (&["train", "small.toml", "--resum"], "a similar argument exists: '--resume'"),
        (&["devices", "--lr"], "unexpected argument '--lr'"),
        (&[], "Usage: peristyle <COMMAND>"),
    ] {
        let output = folder.run(arguments);
        assert_eq!((output.code, output.out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(output.err.contains(words), "{}", output.err);
        // Messages that cannot be written are lost.
        assert_eq!(output_of(peristyle(&folder.0).args(arguments).stderr(full())).code, Some(2));
    }
}

#[test]
fn train_finishes_a_run_whose_output_is_lost() {
    let folder = Folder::new("terminal-train");
    for (dir, stdout, stderr) in [("a", full(), full()), ("b", closed(), closed()), ("c", full(), closed())] {
        let mut command = peristyle(&folder.0);
        command.args(["train", "small.toml", "-vv", "--run-dir", dir]);
        let output = output_of(command.stdout(stdout).stderr(stderr));
        assert_eq!(output.code, Some(1));
        assert_eq!(losses(&folder.metrics(dir)).len(), 20);
        folder.checkpoint(dir, 20);
    }
    // Only standard output counts.
    let mut command = peristyle(&folder.0);
    command.args(["train", "small.toml", "--run-dir", "d", "--set", "train.steps=2"]);
    assert_eq!(output_of(command.stderr(full())).code, Some(0));
}

#[test]
fn nothing_in_a_configuration_or_on_the_command_line_controls_the_terminal() {
    let folder = Folder::new("terminal-escape");
    let check = |what: &str, old: &str, new: &str| {
        assert!(SMALL.contains(old), "{old} is not in the file");
        folder.write("bad.toml", &SMALL.replacen(old, &new.replace('@', QUOTED), 1));
        let output = folder.run(&["check", "bad.toml"]);
        assert!(output.code == Some(2) && output.err.contains("\\u{202e}"), "{what}: {}", output.err);
        assert_printable(what, &output);
        // For this command, some of these mistakes are notes.
        assert_printable(what, &folder.run(&["plan", "bad.toml"]));
    };
    check("the name", "name = \"small\"", "name = \"@\"");
    check("a name that reorders text", "name = \"small\"", "name = \"\\u202e\"");
    check("a key of the file", "seed = 3", "\"@\" = 3");
    check("a value", "seed = 3", "seed = \"@\"");
    check("a section", "[train]", "[\"@\"]");
    check("a key of a section", "steps = 20", "\"@\" = 20");
    check("a name of a list", "\"standardize\"", "\"@\"");
    check("a character that reorders text", "\"standardize\"", "\"\\u202e\"");
    check("a path", "data/train-images", "@");
    check("a data source", "train = { idx", "train = { \"@\"");
    check("a key of a data source", "{ images =", "{ \"@\" =");
    check("an augmentation", "{ shift = 1 }", "\"@\"");
    check("a layer's name", "name = \"conv\"", "name = \"@\"");
    check("a layer's kind", "\"relu\"", "\"@\"");
    check("a layer's kind as a key", "max_pool =", "\"@\" =");
    check("a layer's setting", "filters = 8", "\"@\" = 8");
    check("a layer's inputs", "{ name = \"fc1\",", "{ name = \"fc1\", inputs = [\"@\"],");
    check("a split", "{ name = \"fc1\",", "{ name = \"fc1\", split = \"@\",");
    check("a transform", "{ momentum = 0.9 }", "{ \"@\" = 0.9 }");
    check("a schedule", "step = {", "\"@\" = {");
    check("a rhythm", "\"10 steps\"", "\"@\"");
    check("devices", "[train]", "[devices]\nuse = \"@\"\n[train]");
    check("weights that are not there", "[model]", "[model]\nfrom = \"@\"");
    folder.write("bad.toml", &SMALL.replacen("seed", &HIDDEN.replace('\n', ""), 1));
    let output = folder.run(&["check", "bad.toml"]);
    assert!(output.err.starts_with("peristyle: bad.toml:2:2: the file is not TOML"), "{}", output.err);
    assert_printable("a file that is not TOML", &output);

    let value = format!("seed={HIDDEN}");
    let key = format!("{HIDDEN}=3");
    let layer = format!("model.layers.{HIDDEN}.units=3");
    let option = format!("--{HIDDEN}");
    let synthetic = format!("{{ synthetic = {{ images = 4, classes = 2, shape = [8, 8, 1], \"{QUOTED}\" = 1 }} }}");
    // Without a name of its own, the configuration has that of its file.
    folder.write(HIDDEN, &SMALL.replace("name = \"small\"", ""));
    folder.train("run", &["--set", "train.steps=1"]);
    for arguments in [
        &["check", "small.toml", "--set", &value][..],
        &["check", "small.toml", "--set", &key],
        &["check", "small.toml", "--set", HIDDEN],
        &["check", "small.toml", "--set", &layer],
        &["check", "small.toml", "--devices", HIDDEN],
        &["check", HIDDEN],
        &["check", &format!("absent{HIDDEN}")],
        &["plan", "small.toml", "--hardware", HIDDEN],
        &["eval", HIDDEN],
        &["eval", "run", "--data", HIDDEN],
        &["eval", "run", "--data", &synthetic],
        &["selftest", "--device", HIDDEN],
        &["bench", "allreduce", "--devices", HIDDEN],
        &["train", "small.toml", "--resume", "--run-dir", HIDDEN],
        &["train", "small.toml", "--run-dir", &format!("small.toml/{HIDDEN}")],
    ] {
        let output = folder.run(arguments);
        assert!(output.code == Some(2) && output.err.contains("\\u{202e}"), "{arguments:?}: {}", output.err);
        assert_printable(&format!("{arguments:?}"), &output);
    }
    // clap's messages have several lines, so a line feed of an argument stays in them.
    let on_one_line = HIDDEN.replace('\n', "");
    for arguments in [&[on_one_line.as_str()][..], &["check", &option], &["bench", "step", "--seconds", &on_one_line]] {
        let output = folder.run(arguments);
        assert_eq!(output.code, Some(2), "{arguments:?}: {}", output.err);
        let hidden = output.err.chars().find(|&c| is_hidden(c) && c != '\n');
        assert_eq!(hidden, None, "{arguments:?}: {:?}", output.err);
    }
    let mut devices = peristyle(&folder.0);
    assert_printable("a folder of libraries", &output_of(devices.arg("devices").env("PERISTYLE_LIBRARIES", HIDDEN)));
}

#[test]
fn nothing_in_the_files_of_a_run_controls_the_terminal() {
    let folder = Folder::new("terminal-files");
    // The data, the weights and the directory of the run have such names.
    create_dir(folder.at("names")).unwrap();
    symlink(folder.at("data"), folder.at(&format!("names/{HIDDEN}"))).unwrap();
    let tensor = |name: &str, shape: &[usize]| NamedTensor {
        name: name.to_string(),
        shape: Shape(shape.to_vec()),
        data: TensorData::F32(vec![0.5; shape.iter().product()]),
    };
    let weights = format!("{HIDDEN}.safetensors");
    std::fs::write(folder.at(&weights), encode(&[tensor("fc2.bias", &[10]), tensor(HIDDEN, &[1])])).unwrap();
    let sets = [
        format!("data.train.idx.images=\"names/{QUOTED}/train-images-idx3-ubyte.gz\""),
        format!("model.from={{ file = \"{QUOTED}.safetensors\", strict = false }}"),
    ];
    let train = ["train", "small.toml", "-vv", "--set", "train.steps=1"];
    let named = ["--set", &sets[0], "--set", &sets[1], "--run-dir", HIDDEN];
    let output = folder.good(&[&train[..], &named].concat());
    assert_printable("a run", &output);
    assert_eq!(output.out, "\\u{1b}]0;x\\u{7}\\u{9b}\\u{202e}\\u{200b}\\u{d}\\u{a}line\n");
    assert!(output.err.contains("of the file are not used: \\u{1b}]0;x"), "{}", output.err);
    // The names that a checkpoint records.
    let output = folder.good(&[&train[..], &["--run-dir", HIDDEN, "--resume", "--set", "train.steps=2"]].concat());
    assert_printable("a resumed run", &output);
    let output = folder.good(&["ckpt", "show", &format!("{HIDDEN}/checkpoints/step-00000001")]);
    assert!(output.out.contains("data.train.idx.images = \"names/\\u{1b}"), "{}", output.out);
    assert_printable("a checkpoint", &output);
    assert_printable("eval", &folder.good(&["eval", HIDDEN]));
    // Errors of such a run, and of its checkpoints.
    let output = folder.run(&[&train[..], &["--run-dir", HIDDEN]].concat());
    assert_eq!(output.code, Some(2));
    assert_printable("a second start", &output);
    folder.write(&format!("{HIDDEN}/checkpoints/step-00000001/state.json"), "{");
    folder.write(&format!("{HIDDEN}/checkpoints/step-00000002/state.json"), HIDDEN);
    let output = folder.run(&["eval", HIDDEN]);
    assert!(output.code == Some(2) && output.err.lines().count() == 3, "{}", output.err);
    assert_printable("damaged checkpoints", &output);
    // The lines of the log have no other lines between them.
    let log = CommandOutput { code: None, out: folder.read(&format!("{HIDDEN}/log.txt")), err: String::new() };
    assert!(log.out.contains("of the file are not used: ") && log.out.contains("fc1.bias"), "{}", log.out);
    assert_printable("log.txt", &log);
    // The owner that a directory records: a machine with such a name.
    let dir = folder.at(HIDDEN);
    let lock = File::options().write(true).open(dir.join("owner.lock")).unwrap();
    lock.lock().unwrap();
    folder.write(&format!("{HIDDEN}/owner.lock"), r#"{"host":"\u001b]0;x\u202e\nline","pid":1,"started":1}"#);
    let output = folder.run(&[&train[..], &["--run-dir", HIDDEN, "--resume"]].concat());
    assert!(output.code == Some(2) && output.err.contains("process 1 on \\u{1b}"), "{}", output.err);
    assert_printable("an owner", &output);
    drop(lock);
    // Data with such names.
    rename(folder.at(&weights), folder.at("data.safetensors")).unwrap();
    let data = ["--set", "data.train.tensors=\"data.safetensors\""];
    let output = folder.run(&[&["check", "small.toml"], &data[..]].concat());
    assert!(output.code == Some(2) && output.err.contains("has no tensor"), "{}", output.err);
    assert_printable("tensors of data", &output);
    let weights = ["--set", "model.from=\"data.safetensors\"", "--set", "model.layers.fc2.units=11"];
    let output = folder.run(&[&["check", "small.toml"], &weights[..]].concat());
    assert!(output.code == Some(2) && output.err.contains("have different shapes"), "{}", output.err);
    assert_printable("tensors of weights", &output);
    for (more, words) in [
        (format!("skip = [\"{QUOTED}\"]"), "no layer \"\\u{1b}"),
        (format!("map = {{ \"{QUOTED}\" = \"fc1\" }}"), "leads to fc1, but the network has no such tensor"),
        (format!("map = {{ \"{QUOTED}x\" = \"fc1\" }}"), "data.safetensors has no tensor \"\\u{1b}"),
        (format!("map = {{ \"fc2.bias\" = \"{QUOTED}\" }}"), "leads to \\u{1b}"),
        ("strict = true".to_string(), "data.safetensors lacks 8 of the 9 tensors"),
        ("skip = [\"fc2\"]".to_string(), "has none of the network's tensors"),
    ] {
        let from = format!("model.from={{ file = \"data.safetensors\", {more} }}");
        let output = folder.run(&["check", "small.toml", "--set", &from]);
        assert!(output.code == Some(2) && output.err.contains(words), "{words}: {}", output.err);
        assert_printable("names of tensors", &output);
    }
}

#[test]
fn ordinary_text_is_shown_unchanged() {
    let folder = Folder::new("terminal-ordinary");
    let (folder_name, layer) = ("donn\u{e9}es \u{65e5}\u{672c}", "gr\u{f6}\u{df}e");
    rename(folder.at("data"), folder.at(folder_name)).unwrap();
    folder.write("small.toml", &SMALL.replace("\"data/", &format!("\"{folder_name}/")));
    let dir = "e\u{301}t\u{e9} '1'";
    assert_eq!(folder.train(dir, &["--set", "train.steps=1"]).out, format!("{dir}\n"));
    let output = folder.run(&["train", "small.toml", "--run-dir", dir]);
    assert!(output.err.starts_with(&format!("peristyle: {dir} already holds a run")), "{}", output.err);
    let text = folder
        .read("small.toml")
        .replace("train-images", "images")
        .replace("name = \"conv\"", &format!("name = \"{layer}\""));
    folder.write("small.toml", &text);
    let output = folder.run(&["check", "small.toml"]);
    assert!(
        output.err.contains(&format!("[data]: {folder_name}/images-idx3-ubyte.gz: no such file")),
        "{}",
        output.err
    );
    assert!(output.err.contains(&format!("layer \"{layer}\": name contains other characters")), "{}", output.err);
}
