//! The distributions of initial values.

use super::*;
use crate::device::{Random, RandomStream};
use crate::layers::Param;
use crate::tensor::Shape;

fn param(outputs: usize, inputs: usize) -> Param {
    let shape = Shape::from([outputs, 1, 1, inputs]);
    Param {
        name: "weight",
        file_shape: shape.clone(),
        shape,
        file_order: vec![0, 1, 2, 3],
        fan_in: inputs,
        fan_out: outputs,
        init: None,
    }
}

fn values(kind: &dyn Initializer, param: &Param) -> Vec<f64> {
    let random = Random::new(3, RandomStream::Init, 0, 0);
    let (fan_in, fan_out) = (param.fan_in, param.fan_out);
    let element = |index| kind.value(InitialElement { random: &random, index, fan_in, fan_out });
    kind.whole(&param.shape, &random).unwrap_or_else(|| (0..param.shape.elements() as u64).map(element).collect())
}

/// Returns the standard deviation and the largest magnitude.
fn spread(kind: &dyn Initializer, param: &Param) -> (f64, f64) {
    let values = values(kind, param);
    let mean = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
    (mean.sqrt(), values.iter().fold(0.0, |most: f64, v| most.max(v.abs())))
}

#[test]
fn values_have_the_variance_of_their_formula() {
    let param = param(50, 200);
    let lecture = Xavier { fan: Fan::In, distribution: Distribution::Normal, gain: 1.0 };
    let caffe = Xavier { fan: Fan::In, ..Xavier::default() };
    let out = Kaiming { fan: Fan::Out, distribution: Distribution::Uniform, gain: 0.5 };
    let kinds: [(&dyn Initializer, f64, f64); 8] = [
        (&Xavier::default(), (2.0f64 / 250.0).sqrt(), (6.0f64 / 250.0).sqrt()),
        (&lecture, (1.0f64 / 200.0).sqrt(), 1.0),
        (&caffe, (1.0f64 / 200.0).sqrt(), (3.0f64 / 200.0).sqrt()),
        (&Kaiming::default(), 0.1, 1.0),
        (&out, 0.1, 0.3f64.sqrt() / 1e3f64.sqrt() * 10.0),
        (&NormalValues { std: 0.01 }, 0.01, 0.1),
        (&UniformValues { min: -0.3, max: 0.3 }, 0.3 / 3f64.sqrt(), 0.3),
        // The standard deviation of a normal distribution within two of its own.
        (&TruncatedNormal::default(), 0.02 * 0.8796256610342398, 0.04),
    ];
    for (kind, std, most) in kinds {
        let (got, largest) = spread(kind, &param);
        // Four standard errors of 10,000 draws.
        assert!((got / std - 1.0).abs() < 4.0 / 20_000f64.sqrt(), "{kind:?}: {got}, expected {std}");
        assert!(largest <= most, "{kind:?}: {largest}");
    }
    assert_eq!(spread(&ConstantValues { value: -0.5 }, &param), (0.5, 0.5));
    assert_eq!(spread(&Zeros {}, &param), (0.0, 0.0));
}

#[test]
fn orthogonal_weights_are_orthogonal() {
    // Wide, tall, square over several blocks, and one output.
    for (outputs, inputs) in [(20, 50), (50, 20), (200, 200), (1, 7), (7, 1)] {
        let matrix = values(&Orthogonal { gain: 2.0 }, &param(outputs, inputs));
        let at = |i: usize, j: usize| matrix[i * inputs + j];
        let (count, long) = (outputs.min(inputs), outputs.max(inputs));
        for (a, b) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))) {
            let product: f64 =
                (0..long).map(|k| if outputs > inputs { at(k, a) * at(k, b) } else { at(a, k) * at(b, k) }).sum();
            let expected = if a == b { 4.0 } else { 0.0 };
            assert!((product - expected).abs() < 1e-12, "{outputs} x {inputs}: {a}, {b}: {product}");
        }
    }
}

#[test]
fn settings_have_ranges() {
    assert!(all_examples().iter().all(|kind| KEYS.contains(&kind.key()) && kind.check().is_ok()));
    let fault = UniformValues { min: 1.0, max: 1.0 }.check().unwrap_err();
    assert_eq!((fault.key, &*fault.message), (Some("max"), "max = 1, expected a number above min = 1"));
    assert!(
        NormalValues { std: 0.0 }.check().is_err() && Kaiming { gain: -1.0, ..Kaiming::default() }.check().is_err()
    );
}
