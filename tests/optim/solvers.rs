//! The examples of docs/SOLVERS.md are configurations that are accepted, and train.

use crate::common::{Training, file};
use peristyle::network;
use std::collections::BTreeMap;

/// Returns the examples: the text of each block.
fn examples() -> Vec<String> {
    let text = std::fs::read_to_string(file("docs/SOLVERS.md")).unwrap();
    text.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0.to_string()).collect()
}

/// Returns the `--set`s that put an example in place of the sections of a network.
fn sets(example: &str) -> Vec<String> {
    let sections: BTreeMap<String, toml::Table> = toml::from_str(example).unwrap();
    let flat = |(section, table): (&String, &toml::Table)| {
        let section = section.clone();
        table.clone().into_iter().map(move |(key, value)| format!("{section}.{key}={value}"))
    };
    sections.iter().flat_map(flat).collect()
}

#[test]
fn every_example_is_a_configuration_that_trains() {
    let examples = examples();
    assert!(examples.len() >= 6, "{} examples", examples.len());
    for example in examples {
        let mut sets = sets(&example);
        let (config, _) =
            network::open(&file("tests/reference/mlp.toml"), &sets).unwrap_or_else(|e| panic!("{e}\n{example}"));
        assert!(!config.optimizer.chain.transforms.is_empty() && !config.optimizer.schedule.0.is_empty());
        // The batches of the test are small, and whole.
        sets.extend(["data.batch=16", "train.accumulate=1"].map(String::from));
        let losses = Training::new("tests/reference/mlp.toml", &sets).losses(3);
        assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}\n{example}");
    }
}

/// The rows of the tables: what stands in backticks on the right, as far as it is a transform or a key of a section.
#[test]
fn every_row_of_the_tables_is_accepted() {
    let text = std::fs::read_to_string(file("docs/SOLVERS.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ").map(|(_, right)| right));
    let mut tried = 0;
    for code in rows.flat_map(|right| right.split('`').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>()) {
        let set = match code.split_once(" = ") {
            _ if code.starts_with("{ warmup") => format!("optimizer.schedule={code}"),
            _ if code.starts_with("{ ") => format!("optimizer.chain=[{code}]"),
            Some(("schedule", value)) => format!("optimizer.schedule={value}"),
            Some(("init", value)) => format!("model.layers.fc1.init={value}"),
            Some(("bias" | "lr_mult" | "decay_mult", _)) => {
                format!("model.layers.fc1.{}", code.replacen(" = ", "=", 1))
            }
            Some((key, value)) if key.contains('.') && key != "devices.use" && key != "model.input" => {
                format!("{key}={value}")
            }
            Some(("seed", value)) => format!("seed={value}"),
            _ => continue,
        };
        let sets =
            if set.starts_with("data.batch") { vec![set.clone()] } else { vec!["data.batch=512".into(), set.clone()] };
        network::open(&file("tests/reference/mlp.toml"), &sets).unwrap_or_else(|error| panic!("{code}: {error}"));
        tried += 1;
    }
    assert!(tried >= 40, "{tried} rows");
}
