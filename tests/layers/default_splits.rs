//! How layers without a split of their own are divided along the columns: `devices.split`, and what does not divide.

use crate::common::runs::Folder;
use crate::common::{Training, file};

const THREE: [&str; 2] = ["devices.use=\"cpu*3\"", "devices.mesh={ columns = 3 }"];

/// Returns the losses of some updates in f64.
fn losses(config: &str, sets: &[&str]) -> Vec<f64> {
    let sets: Vec<String> = sets.iter().chain(&["devices.precision=\"f64\""]).map(|set| set.to_string()).collect();
    Training::new(config, &sets).losses(5)
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-10 * b.abs())
}

#[test]
fn every_configuration_can_be_divided_among_three_columns() {
    let folder = Folder::new("three-columns");
    for entry in std::fs::read_dir(file("configs")).unwrap() {
        let config = entry.unwrap().path();
        // Where the file says how layers are divided, it is followed or refused.
        if config.is_dir() || std::fs::read_to_string(&config).unwrap().contains("split = \"columns\"") {
            continue;
        }
        let mut arguments = vec!["check", config.to_str().unwrap()];
        THREE.iter().for_each(|set| arguments.extend(["--set", set]));
        let output = folder.run(&arguments);
        // Data sets that are not on this machine are another matter.
        let placed = !output.err.contains("divide") && !output.err.contains("split = \"columns\" needs");
        assert!(placed && (output.code == Some(0) || output.err.contains("cannot read")), "{config:?}: {}", output.err);
    }
}

#[test]
fn three_columns_have_the_curve_of_one_device() {
    for config in ["configs/columns_small.toml", "configs/residual_small.toml", "configs/digits.toml"] {
        let one = losses(config, &["devices.use=\"cpu\"", "devices.mesh={}", "data.batch=32"]);
        let three = losses(config, &[&THREE[..], &["data.batch=32"]].concat());
        assert!(near(&three, &one), "{config}: {three:?} {one:?}");
    }
}

#[test]
fn a_rule_applies_to_layers_that_say_nothing() {
    let folder = Folder::new("split-rule");
    let two = ["devices.use=\"cpu*2\"", "devices.mesh={ columns = 2 }"];
    let plan = |more: &[&str]| {
        let mut arguments = vec!["plan", "small.toml"];
        two.iter().chain(more).for_each(|set| arguments.extend(["--set", set]));
        folder.good(&arguments)
    };
    // The layout of each layer's output, as `plan` prints it.
    let layout = |text: &str, layer: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{layer} ")) && line.contains('['));
        let line = line.unwrap_or_else(|| panic!("no {layer} in {text}"));
        let output = line.split('[').nth(2).unwrap_or_else(|| panic!("{line}"));
        format!("[{}]", output.split(']').next().unwrap())
    };
    for (rule, layouts) in [
        ("devices.split=columns", ["[S0 S3]", "[S0 S3]", "[S0 S3]"]),
        ("devices.split=batch", ["[S0 S0]", "[S0 S0]", "[S0 S0]"]),
        ("devices.split=none", ["[S0 R]", "[S0 R]", "[S0 R]"]),
        ("devices.split={ conv = \"batch\", dense = \"columns\" }", ["[S0 S0]", "[S0 S3]", "[S0 S3]"]),
        ("devices.split={ conv = \"batch\" }", ["[S0 S0]", "[S0 S3]", "[S0 S3]"]),
    ] {
        let text = plan(&[rule]).out;
        let found = ["conv", "fc1", "fc2"].map(|layer| layout(&text, layer).replace("[R ", "[S0 "));
        assert_eq!(found, layouts, "{rule}");
    }
    // A layer's own split comes first.
    let text = plan(&["devices.split=batch", "model.layers.fc2.split=none"]).out;
    assert_eq!(layout(&text, "fc2").replace("[R ", "[S0 "), "[S0 R]");
    let seven = plan(&["model.layers.fc1.dense.units=33"]);
    assert!(
        seven.err.contains("fc1 cannot have split = \"columns\" on 2 columns; it has split = \"batch\""),
        "{}",
        seven.err
    );
    for (rule, message) in [
        ("devices.split={ cnov = \"batch\" }", "there are no layers of kind \"cnov\" (did you mean \"conv\"?)"),
        ("devices.split=diagonal", "diagonal"),
        ("devices.split=3", "split = 3, expected a split like \"batch\""),
    ] {
        let output = folder.run(&["check", "small.toml", "--set", two[0], "--set", two[1], "--set", rule]);
        assert_eq!(output.code, Some(2), "{rule}: {}", output.err);
        assert!(output.err.contains(message), "{rule}: {}", output.err);
    }
}
