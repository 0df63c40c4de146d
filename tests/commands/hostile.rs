//! Sizes that a configuration claims are bounded before anything is allocated or repeated for them, and files that are
//! not files are not read.

use crate::common::runs::Folder;
use std::fmt::Write;

const CONFIG: &str = r#"
[data]
train = { synthetic = { images = 200, classes = 10, shape = [8, 8, 1] } }
batch = 32

[model]
input = [8, 8, 1]
layers = [
  { conv = { filters = 4, kernel = 3, pad = 1 } },
  "relu",
  { lrn = { size = 3, alpha = 1e-4, beta = 0.75, k = 2.0 } },
  { name = "pool", max_pool = { kernel = 2, stride = 2 } },
  { dense = { units = 10 } },
]

[optimizer]
lr = 0.1

[train]
steps = 60
checkpoint = { every = "10 steps", keep = 3 }
"#;

/// 10^12, 10^18, the largest number of 64 bits, and one that has more.
const HUGE: [&str; 4] = ["1000000000000", "1000000000000000000", "18446744073709551615", "99999999999999999999999"];

/// Settings with N in the place of a huge number, and what the error names. An empty text means that numbers of 64 bits
/// are accepted, because nothing grows with them.
const SETTINGS: &[(&str, &str)] = &[
    ("model.layers.conv1.filters=N", "layer \"conv1\": "),
    ("model.layers.conv1.kernel=N", "layer \"conv1\": kernel = "),
    ("model.layers.conv1.pad=N", "layer \"conv1\": pad = "),
    ("model.layers.conv1.stride=N", "layer \"conv1\": stride = "),
    ("model.layers.conv1.groups=N", "groups = "),
    ("model.layers.lrn1.size=N", "layer \"lrn1\": size = "),
    ("model.layers.lrn1.groups=N", "layer \"lrn1\": groups = "),
    ("model.layers.pool.kernel=N", "layer \"pool\": kernel = "),
    ("model.layers.pool.pad=N", "layer \"pool\": pad = "),
    ("model.layers.pool.stride=N", "layer \"pool\": stride = "),
    ("model.layers.dense1.units=N", "layer \"dense1\": "),
    ("model.input=[N, N, N]", "[model]: input"),
    ("model.input=[N, 1, 1]", "[model]: input"),
    ("model.input=[4294967296, 4294967296, N]", "[model]: input"),
    ("data.batch=N", "[data]: batch = "),
    ("data.augment=[{ shift = N }]", "shift"),
    ("data.train.synthetic.images=N", "synthetic"),
    ("data.train.synthetic.classes=N", "synthetic"),
    ("data.train.synthetic.shape=[N, 8, 1]", "synthetic"),
    ("devices.use=\"cpu*N\"", "expected 1 to 256"),
    ("devices.use=\"emu*N\"", "expected 1 to 256"),
    ("devices.use=\"cuda:0-N\"", "expected 1 to 256"),
    ("devices.use=\"cuda:0*N\"", "expected 1 to 256"),
    ("devices.mesh={ data = N }", "[devices]: mesh"),
    ("devices.mesh={ data = N, columns = N }", "[devices]: mesh"),
    ("devices.threads=N", "[devices]: threads = "),
    ("seed=N", ""),
    ("train.steps=N", ""),
    ("train.epochs=N", ""),
    ("train.checkpoint.keep=N", ""),
    ("train.evaluate=\"N steps\"", ""),
    ("train.checkpoint.every=\"N epochs\"", ""),
    ("train.max_time=\"N hours\"", ""),
    ("optimizer.schedule={ step = { every = N, factor = 0.5 } }", ""),
    ("optimizer.schedule={ step = { every = \"N epochs\", factor = 0.5 } }", ""),
];

#[test]
fn huge_numbers_are_answered_with_a_sentence() {
    let folder = Folder::new("hostile-numbers");
    folder.write("a.toml", CONFIG);
    folder.good(&["check", "a.toml"]);
    let mut wrong = String::new();
    for (setting, expected) in SETTINGS {
        for (number, fits) in HUGE.into_iter().zip([true, true, true, false]) {
            let set = setting.replace('N', number);
            let output = folder.run(&["check", "a.toml", "--set", &set]);
            let refused = output.code == Some(2) && output.err.contains(&expected.replace('N', number));
            let accepted = output.code == Some(0) && expected.is_empty() && fits;
            if !(refused || accepted) || output.err.contains("panicked") {
                let _ = writeln!(wrong, "{set}: {:?} {}{}", output.code, output.out, output.err);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn negative_and_fractional_numbers_are_answered_with_a_sentence() {
    let folder = Folder::new("hostile-signs");
    folder.write("a.toml", CONFIG);
    for setting in SETTINGS.iter().map(|(setting, _)| setting).filter(|setting| !setting.contains('"')) {
        for number in ["-1", "-9223372036854775808", "0.5", "nan", "1e300"] {
            let set = setting.replace('N', number);
            let output = folder.run(&["check", "a.toml", "--set", &set]);
            assert!(output.code == Some(2) && output.err.contains("expected"), "{set}: {}", output.err);
        }
    }
}

#[test]
fn the_longest_lists_are_planned_and_longer_ones_are_refused() {
    let folder = Folder::new("hostile-lists");
    let with = |layers: &str| CONFIG.replace("\"relu\",", layers);
    folder.write("most.toml", &with(&"\"relu\",".repeat(9_996)));
    assert!(folder.good(&["check", "most.toml"]).out.contains("relu9996"));
    folder.write("more.toml", &with(&"\"relu\",".repeat(9_997)));
    let output = folder.run(&["check", "more.toml"]);
    assert_eq!(output.code, Some(2));
    assert!(output.err.contains("[model]: layers has 10001 layers, expected at most 10000"), "{}", output.err);
    folder.write("a.toml", &with(&"{ batch_norm = {} }, \"relu\", ".repeat(100)));
    let output = folder.run(&["check", "a.toml", "--devices", "cpu*256", "--set", "devices.collectives=ring"]);
    assert_eq!(output.code, Some(2));
    assert!(output.err.contains("uses of buffers, expected at most 4194304; use fewer devices"), "{}", output.err);
    folder.write("a.toml", CONFIG);
    for (devices, code) in [("cpu*256", 0), ("cpu*257", 2)] {
        let output = folder.run(&["check", "a.toml", "--devices", devices]);
        assert_eq!(output.code, Some(code), "{}", output.err);
    }
}

#[test]
fn of_very_many_mistakes_the_first_fifty_are_printed() {
    let folder = Folder::new("hostile-mistakes");
    let keys: String = (0..60_000).map(|number| format!("k{number} = 1\n")).collect();
    let inline: String = (0..60_000).map(|number| format!("k{number} = 1, ")).collect();
    let unknown: String = (0..9_000).map(|number| format!("{{ relu = {{}}, inputs = [\"x{number}\"] }}, ")).collect();
    for (text, last) in [
        (format!("{CONFIG}{keys}"), "and 59950 more problems\n"),
        (CONFIG.replace("filters", &format!("{inline} filters")), ""),
        (CONFIG.replace("\"relu\",", &unknown), "more problems"),
        (CONFIG.replace("\"relu\",", &"{ relu = {}, name = \"pool\" },".repeat(9_000)), "more problems"),
    ] {
        folder.write("a.toml", &text);
        let output = folder.run(&["check", "a.toml"]);
        let lines = output.err.lines().count();
        // The last line says what was not checked.
        assert!(output.code == Some(2) && lines <= 53 && output.err.len() < 100_000, "{} {lines}", output.err.len());
        assert!(output.err.contains(last), "{}", output.err);
    }
}

#[test]
fn a_pipe_a_device_or_a_folder_is_not_read_as_a_file() {
    let folder = Folder::new("hostile-files");
    let made = std::process::Command::new("mkfifo").arg(folder.at("pipe")).status().unwrap();
    assert!(made.success());
    for (path, what) in [("pipe", "a named pipe"), ("/dev/zero", "a device"), ("data", "a folder")] {
        let sentence = format!("{path}: this is {what}, expected a file; correct the path");
        let data = format!("data.train={{ tensors = \"{path}\" }}");
        for arguments in [&["check", path][..], &["check", "small.toml", "--set", &data]] {
            let output = folder.run(arguments);
            assert!(output.code == Some(2) && output.err.contains(&sentence), "{arguments:?}: {}", output.err);
        }
    }
}

#[test]
fn more_threads_or_devices_than_cores_are_noted() {
    let folder = Folder::new("hostile-cores");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (threads, devices) = (cores + 1, 4 * cores + 1);
    let output = folder.good(&["check", "small.toml", "--set", &format!("devices.threads={threads}")]);
    assert!(output.err.contains(&format!("threads = {threads} on {cores} core")), "{}", output.err);
    if devices <= 256 {
        let output = folder.good(&["check", "small.toml", "--devices", &format!("cpu*{devices}")]);
        assert!(output.err.contains(&format!("{devices} devices on {cores} core")), "{}", output.err);
    }
    assert!(!folder.good(&["check", "small.toml"]).err.contains(" core"));
}
