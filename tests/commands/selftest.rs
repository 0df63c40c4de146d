//! `peristyle selftest` on the devices that every machine has. tests/gpu runs it on a stand-in GPU with planted faults.

use crate::common::runs::{CommandOutput, Folder};
use peristyle::gpu::{Driver, DriverKind};
use peristyle::layers::KEYS;
use serde_json::Value;

/// Runs the selftest in an empty folder.
fn selftest(name: &str, arguments: &[&str]) -> CommandOutput {
    let folder = Folder::new(name);
    std::fs::remove_file(folder.at("data")).unwrap();
    std::fs::remove_file(folder.at("small.toml")).unwrap();
    let output = folder.run(&[&["selftest"], arguments].concat());
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0, "the selftest leaves files behind");
    output
}

/// Returns the JSON report of a selftest that passed, after checking what must hold on every device.
fn report(output: &CommandOutput) -> Value {
    assert_eq!(output.code, Some(0), "{}{}", output.out, output.err);
    let lines: Vec<Value> = output.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (report, rows) = lines.split_last().unwrap();
    assert_eq!(report["rows"].as_array().unwrap(), rows, "each row is printed when it is done");
    assert_eq!(report["passed"], true);
    for row in report["rows"].as_array().unwrap() {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!(number("cases") >= 1.0 && number("failed") == 0.0, "{row}");
        assert!(number("error") <= number("bound") && row["failure"].is_null(), "{row}");
    }
    let precisions = if report["device"] == "cpu" { 1 } else { 3 };
    let layers: Vec<&str> = names(report).into_iter().filter(|name| KEYS.contains(name)).collect();
    assert_eq!(layers, KEYS.repeat(precisions), "every layer has a row in each precision");
    report.clone()
}

fn names(report: &Value) -> Vec<&str> {
    report["rows"].as_array().unwrap().iter().map(|row| row["check"].as_str().unwrap()).collect()
}

#[test]
fn the_cpu_passes_the_selftest() {
    let report = report(&selftest("selftest-cpu", &["--device", "cpu", "--json"]));
    let rest = ["dropout words", "optimizer", "all-reduce", "reduce-scatter", "all-gather", "all-to-all"];
    let trained = ["train 1x1", "train 2x1", "train 1x2", "train 2x2"];
    assert_eq!(names(&report)[KEYS.len()..], [&rest[..], &trained[..]].concat());
    assert_eq!((&report["device"], &report["quick"]), (&"cpu".into(), &false.into()));
    assert_eq!(report["images"].as_array().unwrap().len(), 0);
    assert_eq!(report["skipped"].as_array().unwrap().len(), 1, "skipped checks are reported");
}

#[test]
fn the_emulated_device_passes_the_selftest() {
    if let Err(error) = Driver::count(DriverKind::Emu) {
        panic!("this test needs the emulated device: {error}");
    }
    let report = report(&selftest("selftest-emu", &["--device", "emu", "--quick", "--json"]));
    assert!(names(&report).contains(&"copies and sums") && names(&report).contains(&"casts"));
    assert!(names(&report).contains(&"augmentation"));
    let rows = report["rows"].as_array().unwrap();
    let rounded: Vec<&Value> = rows.iter().filter(|row| row["precision"] == "bf16").map(|row| &row["check"]).collect();
    for collective in ["all-reduce", "reduce-scatter", "all-gather", "all-to-all"] {
        assert!(rounded.contains(&&collective.into()), "{collective} in bf16: {rounded:?}");
    }
    assert_eq!(report["images"][0]["code"], "compiled for the CPU");
    assert!(report["skipped"].as_array().unwrap().is_empty() && report["quick"] == true);
}

#[test]
fn the_table_reports_every_check() {
    let output = selftest("selftest-table", &["--device", "cpu", "--quick"]);
    assert_eq!(output.code, Some(0), "{}", output.err);
    for kind in KEYS {
        let line = output.out.lines().find(|line| line.split(' ').next() == Some(kind));
        assert!(line.is_some_and(|line| line.ends_with("  ok")), "{kind}: {}", output.out);
        assert!(output.err.contains(&format!("selftest: {kind} f32\n")), "{}", output.err);
    }
    assert!(
        output.out.contains("\nnot checked: copies and sums, augmentation, casts, tf32 and bf16: "),
        "{}",
        output.out
    );
}

#[test]
fn some_checks_run_alone() {
    let output = selftest("selftest-only", &["--device", "emu", "--quick", "--json", "--only", "relu bf16"]);
    assert_eq!(output.code, Some(0), "{}", output.err);
    let report: Value = serde_json::from_str(output.out.lines().last().unwrap()).unwrap();
    assert_eq!(names(&report), ["leaky_relu", "normalized_relu", "prelu", "relu"]);
    let output = selftest("selftest-only", &["--device", "cpu", "--quick", "--only", "nothing"]);
    assert_eq!(output.code, Some(2));
    assert!(output.err.contains("--only \"nothing\": no check of this device has this in its name"), "{}", output.err);
}

#[test]
fn a_missing_device_is_the_users_mistake() {
    for (device, words) in [
        ("cuda:99", "--device: [devices]: "),
        ("gpu", "--device: [devices]: use = \"gpu\", expected \"auto\", \"cpu\""),
        ("cpu*2", "--device cpu*2: 2 devices, expected one; use \"auto\", \"cpu\", \"emu\" or \"cuda:0\""),
    ] {
        let output = selftest("selftest-missing", &["--device", device]);
        assert_eq!((output.code, output.out.as_str()), (Some(2), ""), "{device}: {}", output.err);
        assert!(output.err.contains(words) && !output.err.contains("panicked"), "{device}: {}", output.err);
    }
}
