//! `diagnose jacobian`: against singular values that are known.

use crate::common::runs::Folder;
use serde_json::Value;

fn config(layers: &str) -> String {
    format!(
        r#"name = "known"
[data]
train = {{ synthetic = {{ images = 12, classes = 2, shape = [1, 1, 2] }} }}
batch = 4
[model]
input = [1, 1, 2]
layers = [{layers}]
loss = "softmax_cross_entropy"
[optimizer]
lr = 0.1
[train]
steps = 1
"#
    )
}

/// Returns the singular values, largest, mean and smallest, by layer; those of the whole network by "".
fn jacobians(folder: &Folder, arguments: &[&str]) -> Vec<(String, [f64; 3])> {
    let output = folder.good(&[&["diagnose", "jacobian"], arguments, &["--json"]].concat());
    let report: Value = serde_json::from_str(&output.out).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let one = |one: &Value| {
        let name = one["name"].as_str().unwrap_or_default().to_string();
        (name, [number(&one["largest"]), number(&one["mean"]), number(&one["smallest"])])
    };
    report["jacobians"].as_array().unwrap().iter().map(one).collect()
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-6 * expected.max(1.0)
}

const FIRST: &str = r#"{ name = "a", dense = { units = 2, bias = false }, init = { listed = [3.0, 0.0, 0.0, 0.5] } }"#;

#[test]
fn layers_in_a_row_have_the_singular_values_of_the_product() {
    let folder = Folder::new("jacobian-row");
    let second = r#"{ name = "b", dense = { units = 2, bias = false }, init = { listed = [0.0, 2.0, 1.0, 0.0] } }"#;
    folder.write("row.toml", &config(&format!("{FIRST}, {second}")));
    let found = jacobians(&folder, &["row.toml", "--samples", "5"]);
    assert_eq!(found.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a", "b", ""]);
    // diag(3, 0.5); a permutation of 1 and 2; and [[0, 1], [3, 0]].
    for ((_, [largest, mean, smallest]), [most, least]) in found.iter().zip([[3.0, 0.5], [2.0, 1.0], [3.0, 1.0]]) {
        assert!(near(*largest, most) && near(*smallest, least), "{found:?}");
        assert!(*mean < most && *mean > least, "{found:?}");
    }
}

#[test]
fn joins_add_and_activations_scale() {
    let folder = Folder::new("jacobian-join");
    let first = FIRST.replace("name = \"a\",", "name = \"a\", inputs = [\"images\"],");
    let turned = r#"{ name = "c", dense = { units = 2, bias = false }, init = { listed = [-1.0, 0.0, 0.0, -1.0] } }"#;
    let layers =
        format!(r#"{first}, {{ name = "sum", add = {{}}, inputs = ["a", "images"] }}, {turned}, "leaky_relu""#);
    folder.write("join.toml", &config(&layers));
    let found = jacobians(&folder, &["join.toml"]);
    // Pixels are not negative, so what they give turned is not positive: the slope is 0.01. The sum has 1 + 3 and 1 + 0.5.
    let [first, .., leaky, whole] = &found[..] else { panic!("{found:?}") };
    assert!(near(first.1[0], 3.0) && near(leaky.1[0], 0.01) && near(leaky.1[2], 0.01), "{found:?}");
    assert!(near(whole.1[0], 0.04) && near(whole.1[2], 0.015), "{found:?}");
}

#[test]
fn orthogonal_weights_keep_all_lengths() {
    let folder = Folder::new("jacobian-orthogonal");
    let layers = "model.layers=[\"flatten\", { name = \"a\", dense = { units = 64 } }, { name = \"b\", dense = { units = 64 } }, { name = \"c\", dense = { units = 10 } }]";
    let sets = ["small.toml", "--set", layers, "--set", "model.init=orthogonal"];
    let found = jacobians(&folder, &sets);
    for (name, [largest, mean, smallest]) in &found {
        assert!(near(*largest, 1.0) && near(*mean, 1.0) && near(*smallest, 1.0), "{name}: {found:?}");
    }
    let text = folder.good(&[&["diagnose", "jacobian"], &sets[..]].concat()).out;
    assert!(text.contains("the whole network") && text.contains("on 8 samples"), "{text}");
}
