//! Single layers against PyTorch's, in f64: `tests/reference/layers.py` writes their outputs and gradients.

use crate::common::file;
use peristyle::layers::{self, Activation, Role, Setup, SingleLayer};
use peristyle::train::exchange;
use peristyle::train::weights::{TensorData, TensorFile, open_model};
use serde_json::Value;

/// Rounding of a few sums in f64, relative to the largest value. Observed: 1e-15.
const TOLERANCE: f64 = 1e-13;

fn values(file: &TensorFile, name: &str) -> (Vec<usize>, Vec<f64>) {
    let tensor = file.tensor(file.find(name).unwrap_or_else(|| panic!("no {name}"))).unwrap();
    let TensorData::F64(values) = tensor.data else { panic!("{name} is not f64") };
    (tensor.shape.0, values)
}

/// Returns images (N, C, H, W) as (N, H, W, C).
fn image(file: &TensorFile, name: &str) -> Vec<f64> {
    let (shape, values) = values(file, name);
    let [n, c, h, w] = shape[..] else { panic!("{name} is {shape:?}") };
    let at = |n: usize, i: usize, c_at: usize| values[(n * c + c_at) * h * w + i];
    (0..n)
        .flat_map(|n| (0..h * w).flat_map(move |i| (0..c).map(move |c| (n, i, c))))
        .map(|(n, i, c)| at(n, i, c))
        .collect()
}

fn assert_near(ours: &[f64], theirs: &[f64], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = theirs.iter().fold(0.0f64, |most, x| most.max(x.abs())).max(1e-3);
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest;
    assert!(worst < TOLERANCE, "{what}: {worst:e}");
}

#[test]
fn outputs_and_gradients_are_those_of_pytorch() {
    let cases: Value =
        serde_json::from_str(&std::fs::read_to_string(file("tests/reference/layers.json")).unwrap()).unwrap();
    let tensors = open_model(&file("tests/reference/layers.safetensors")).unwrap();
    let cases = cases["cases"].as_array().unwrap();
    for case in cases {
        let (name, kind) = (case["name"].as_str().unwrap(), case["kind"].as_str().unwrap());
        let layer = layers::read(kind, case["settings"].clone()).expect("a known kind").unwrap();
        layer.check().unwrap_or_else(|fault| panic!("{name}: {}", fault.message));
        let number = |v: &Value| v.as_u64().unwrap() as usize;
        let inputs: Vec<Activation> = case["inputs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| Activation::new(number(&s[1]), number(&s[2]), number(&s[0])))
            .collect();
        let mut single = SingleLayer::<f64>::new(&*layer, &inputs, &Setup::of_rows(3)).unwrap();
        for i in 0..inputs.len() {
            single.values_mut(Role::X(i)).copy_from_slice(&image(&tensors, &format!("{name}.x{i}")));
        }
        let params = layer.params(&inputs);
        assert_eq!(params.len(), number(&case["params"]), "{name}");
        for (i, param) in params.iter().enumerate() {
            let (shape, values) = values(&tensors, &format!("{name}.param{i}"));
            assert_eq!(shape, param.file_shape.0, "{name}: parameter {i}");
            single.values_mut(Role::Param(i)).copy_from_slice(&exchange::from_file(param, &values));
        }
        single.values_mut(Role::Dy).copy_from_slice(&image(&tensors, &format!("{name}.dy")));
        single.forward().unwrap();
        single.backward().unwrap();
        assert_near(single.values(Role::Y), &image(&tensors, &format!("{name}.y")), &format!("{name}: y"));
        for i in 0..inputs.len() {
            let theirs = image(&tensors, &format!("{name}.dx{i}"));
            assert_near(single.values(Role::Dx(i)), &theirs, &format!("{name}: dx{i}"));
        }
        for (i, param) in params.iter().enumerate() {
            let theirs = exchange::from_file(param, &values(&tensors, &format!("{name}.dparam{i}")).1);
            assert_near(single.values(Role::DParam(i)), &theirs, &format!("{name}: gradient of parameter {i}"));
        }
    }
    assert!(cases.len() >= 23);
}
