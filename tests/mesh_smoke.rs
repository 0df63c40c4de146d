//! smoke
use peristyle::collectives::Form;
use peristyle::device::{Clock, Path};
use peristyle::error::Spot;
use peristyle::layers::{Activation, Init, Layer, Mode, Split};
use peristyle::network::{Network, Node, Parameter, Source};
use peristyle::optim::{Chain, Momentum};
use peristyle::placement::Variant;
use peristyle::program::{Options, Plan, Session, Which};
use peristyle::tensor::{Mesh, Precision};
use std::sync::Arc;

fn net(specs: &[(&str, &str, Option<Split>)]) -> Network {
    let input = Activation::new(1, 1, 12);
    let (mut nodes, mut parameters): (Vec<Node>, Vec<Parameter>) = (vec![], vec![]);
    let mut shape = input;
    for (i, (kind, text, split)) in specs.iter().enumerate() {
        let layer = peristyle::layers::read(kind, toml::Deserializer::parse(text).unwrap()).unwrap().unwrap();
        let layer: Arc<dyn Layer> = Arc::from(layer);
        let ids = layer
            .params(&[shape])
            .into_iter()
            .map(|param| {
                parameters.push(Parameter {
                    name: format!("l{i}.{}", param.name),
                    init: param.init.unwrap_or(Init::Kaiming),
                    param,
                    lr_mult: 1.0,
                    decay_mult: 1.0,
                });
                parameters.len() - 1
            })
            .collect();
        let output = layer.output(&[shape]).unwrap();
        nodes.push(Node {
            name: format!("l{i}"),
            inputs: vec![if i == 0 { Source::Images } else { Source::Node(i - 1) }],
            input_shapes: vec![shape],
            output,
            split: *split,
            params: ids,
            states: vec![],
            spot: Spot::default(),
            layer,
        });
        shape = output;
    }
    Network { input, nodes, parameters, states: vec![] }
}

fn run(network: &Arc<Network>, mesh: Mesh, form: Form, rows: usize) -> (Vec<f64>, Vec<f64>) {
    let variant = Variant { mode: Mode::Train, rows, update: true };
    let chain = Arc::new(Chain(vec![Box::new(Momentum { mu: 0.9, nesterov: false })]));
    let options = Options {
        mesh,
        precision: Precision::F64,
        threads: 1,
        form,
        path: Path::Fast,
        target_width: 1,
        seed: 1,
        variants: vec![variant],
    };
    let plan = Plan::new(Arc::clone(network), chain, options).unwrap_or_else(|p| panic!("{p:?}"));
    let mut session = Session::new(plan);
    for i in 0..network.parameters.len() {
        let n = network.parameters[i].param.shape.elements();
        let v: Vec<f64> = (0..n).map(|k| ((k * 37 + i * 11) % 101) as f64 / 101.0 - 0.5).collect();
        session.write(Which::Parameter(i), &v);
    }
    let mut losses = vec![];
    let mut images: Vec<f32> = (0..rows * 12).map(|k| ((k * 17) % 23) as f32 / 23.0).collect();
    let mut targets: Vec<f32> = (0..rows).map(|k| (k % 4) as f32).collect();
    for step in 1..=20 {
        losses.push(session.run(variant, &mut images, &mut targets, Clock { step, epoch: 0, lr: 0.1 }).unwrap().loss);
    }
    (losses, session.read::<f64>(Which::Parameter(0)))
}

#[test]
fn smoke() {
    use Split::*;
    for splits in [
        [Columns, Rows, Columns, None],
        [Batch, Columns, Rows, Batch],
        [None, Batch, Columns, Rows],
        [Rows, Rows, Batch, None],
    ] {
        let network = Arc::new(net(&[
            ("dense", "units = 16", Some(splits[0])),
            ("relu", "", Option::None),
            ("dense", "units = 8", Some(splits[1])),
            ("relu", "", Option::None),
            ("dense", "units = 12", Some(splits[2])),
            ("dense", "units = 4", Some(splits[3])),
            ("softmax_cross_entropy", "", Option::None),
        ]));
        for rows in [3, 8] {
            let reference = run(&network, Mesh::ONE, Form::OnePass, rows);
            for (data, columns) in [(1, 2), (2, 1), (4, 1), (2, 2), (1, 4)] {
                for form in [Form::OnePass, Form::Ring] {
                    let (losses, w) = run(&network, Mesh { data, columns }, form, rows);
                    for (a, b) in losses.iter().zip(&reference.0).chain(w.iter().zip(&reference.1)) {
                        assert!(
                            (a - b).abs() <= 1e-11 * (1.0 + b.abs()),
                            "{splits:?} {data}x{columns} {form:?} rows {rows}: {losses:?} {:?}",
                            reference.0
                        );
                    }
                }
            }
        }
    }
}
