//! The published networks of configs/zoo: their parameters, their logits beside torchvision's, and one curve on any mesh.

use crate::common::{Training, file, on_mesh};
use peristyle::data::{self, Batches};
use peristyle::device::Clock;
use peristyle::network::Parameter;
use peristyle::placement::Variant;
use peristyle::program::{Persistent, Plan};
use peristyle::train::{DataPolicy, Job, exchange};
use serde_json::Value;
use std::sync::Arc;

/// Returns the names of the networks.
fn names() -> Vec<String> {
    let files = std::fs::read_dir(file("configs/zoo")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_string()).collect();
    names.sort();
    names
}

#[test]
fn parameters_count_as_published() {
    let names = names();
    for name in &names {
        let config = file(&format!("configs/zoo/{name}.toml"));
        let text = std::fs::read_to_string(&config).unwrap();
        // The comment at the top says how many it has, over two lines perhaps.
        let head: String =
            text.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{} ", &line[2..])).collect();
        let before = head[..head.rfind(" parameters").unwrap_or_else(|| panic!("{name}: {head}"))].replace(',', "");
        let published: usize = before.rsplit([' ', '\n']).next().unwrap().parse().unwrap();
        let (_, network) = peristyle::network::open(&config, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(network.num_parameters(), published, "{name}");
    }
    assert!(names.len() >= 27);
}

/// Returns numbers in [-1, 1) by the formula of tests/reference/make.py.
fn uniform(name: &str, len: usize) -> Vec<f64> {
    let first = u64::from(crc32fast::hash(name.as_bytes())) << 32;
    let number = |i: u64| {
        let mut z = first.wrapping_add(i);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        2.0 * ((z >> 11) as f64 / (1u64 << 53) as f64) - 1.0
    };
    (0..len as u64).map(number).collect()
}

/// Returns the values of a parameter in the order of files, by the formula of tests/reference/networks.py.
fn values(parameter: &Parameter) -> Vec<f64> {
    let shape = &parameter.param.file_shape;
    let u = uniform(&format!("zoo.{}", parameter.name), shape.elements());
    let inputs: usize = shape.0[1..].iter().product();
    let scaled: Box<dyn Fn(f64) -> f64> = match parameter.name.rsplit('.').next().unwrap() {
        _ if inputs > 1 => Box::new(move |u| u * (3.0 / inputs as f64).sqrt()),
        "weight" if parameter.name.ends_with(".scale.weight") => Box::new(|u| 0.5 * u),
        "weight" => Box::new(|u| 1.0 + 0.2 * u),
        "running_var" => Box::new(|u| 1.0 + 0.5 * u.abs()),
        _ => Box::new(|u| 0.1 * u),
    };
    u.into_iter().map(scaled).collect()
}

#[test]
fn logits_are_those_of_torchvision() {
    let numbers: Value =
        serde_json::from_str(&std::fs::read_to_string(file("tests/reference/networks.json")).unwrap()).unwrap();
    let networks = numbers["networks"].as_object().unwrap();
    for (name, about) in networks {
        let data = file(&format!("tests/reference/networks/{name}.safetensors"));
        // The targets are torchvision's logits.
        let sets = [
            format!("data.train={{ tensors = {data:?} }}"),
            "data.batch=1".to_string(),
            "data.normalize=unit".to_string(),
            "model.input=[64, 64, 3]".to_string(),
            "model.loss=mean_squared_error".to_string(),
            "devices.precision=f64".to_string(),
            "devices.use=cpu".to_string(),
        ];
        let config = file(&format!("configs/zoo/{name}.toml"));
        let (job, _) = Job::open(&config, &sets, DataPolicy::Required).unwrap_or_else(|e| panic!("{name}: {e}"));
        let variant = Variant::eval(1);
        let chain = Arc::clone(&job.config.optimizer.chain);
        let plan = Plan::new(Arc::clone(&job.network), chain, job.spec(vec![variant])).unwrap();
        let mut session = job.session(plan).unwrap();
        let parameters = job.network.parameters.iter().enumerate().map(|(i, p)| (Persistent::Parameter(i), p));
        let statistics = job.network.statistics.iter().enumerate().map(|(i, p)| (Persistent::Statistic(i), p));
        let mut count = 0;
        for (which, parameter) in parameters.chain(statistics) {
            let values = exchange::from_file(&parameter.param, &values(parameter));
            exchange::write_values(&mut session, which, &values).unwrap();
            count += values.len() as u64;
        }
        assert_eq!(count, about["values"].as_u64().unwrap(), "{name}");
        let splits = data::open(&job.config.data, job.config.seed, &job.config.base).unwrap();
        let mut batches = Batches::train(&splits);
        let mut batch = batches.empty();
        batches.fill(0, 0, &mut batch).unwrap();
        let error = session.run(variant, &mut batch, Clock::default()).unwrap().loss.sqrt();
        let (deviation, largest) = (about["deviation"].as_f64().unwrap(), about["largest"].as_f64().unwrap());
        println!("{name}: {error:.1e} of {deviation:.2e}, at most {largest:.2e}");
        // The targets are rounded to f32.
        assert!(error < 1e-6 * largest && deviation > 1e-3 * largest, "{name}: {error:e}, deviation {deviation:e}");
    }
    assert!(networks.len() >= 6);
}

/// Asserts that three updates have the same losses on one, two and four devices.
fn has_one_curve(name: &str) {
    let size = match name {
        "lenet" => 28,
        "nin" | "resnet20_cifar" | "wrn_28_10" => 32,
        _ => 64,
    };
    let (classes, channels) = (if size < 64 { 10 } else { 1000 }, if size == 28 { 1 } else { 3 });
    // In f64, unless there are very many weights: a unit of a relu that f32 rounds to the other side of its kink shows in the
    // batch norm of so few pixels.
    let heavy = ["alexnet", "vgg11", "vgg16", "vgg16_bn"];
    let (precision, most) = if heavy.contains(&name) { ("f32", 1e-3) } else { ("f64", 1e-9) };
    // The deepest network multiplies the rounding of batch norms over 16 values by thousands in each update.
    let batch = if name == "resnet152" { 16 } else { 4 };
    let shape = format!("[{size}, {size}, {channels}]");
    let losses = |mesh| {
        let mut sets = on_mesh(mesh);
        sets.extend([
            format!("data.train={{ synthetic = {{ images = 1000, classes = {classes}, shape = {shape} }} }}"),
            format!("model.input={shape}"),
            format!("data.batch={batch}"),
            format!("devices.precision={precision}"),
            "data.normalize=unit".to_string(),
            "optimizer.lr=1e-3".to_string(),
            "optimizer.schedule=[]".to_string(),
        ]);
        Training::new(&format!("configs/zoo/{name}.toml"), &sets).losses(3)
    };
    let one = losses((1, 1));
    assert!(one.iter().all(|loss| loss.is_finite()), "{name}: {one:?}");
    for mesh in [(1, 2), (2, 2)] {
        let many = losses(mesh);
        let apart = one.iter().zip(&many).map(|(a, b)| ((a - b) / a).abs()).fold(0.0, f64::max);
        println!("{name} in {precision} on {mesh:?}: {apart:.1e}");
        assert!(apart < most, "{name} on {mesh:?}: {one:?} {many:?}");
    }
}

/// Networks with more weights than others have: their layers are those of the others.
const LARGE: [&str; 3] = ["resnet152", "vgg16", "vgg16_bn"];

/// The other networks, each with a test of its own.
macro_rules! networks {
    ($($name:ident),* $(,)?) => {
        const NETWORKS: &[&str] = &[$(stringify!($name)),*];

        mod one_curve {
            $(#[test] fn $name() { super::has_one_curve(stringify!($name)); })*
        }
    };
}

networks! {
    alexnet, convnext_tiny, darknet19, darknet53, densenet121, efficientnet_b0, googlenet, lenet, mnasnet1_0, mobilenet_v1, mobilenet_v2,
    mobilenet_v3_large, nin, regnet_x_400mf, regnet_y_400mf, resnet18, resnet20_cifar, resnet50, resnext50, shufflenet_v2, squeezenet1_0,
    squeezenet1_1, vgg11, vit_s16, wrn_28_10,
}

#[test]
fn every_network_is_tested_for_one_curve() {
    let mut tested = [NETWORKS, &LARGE].concat();
    tested.sort_unstable();
    assert_eq!(tested, names());
}

#[test]
#[ignore = "takes minutes and gigabytes; run it after a change of a layer: cargo test --release --test layers large_networks -- --ignored"]
fn large_networks_have_one_curve() {
    LARGE.iter().for_each(|name| has_one_curve(name));
}
