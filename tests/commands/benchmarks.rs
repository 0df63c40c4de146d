//! The configurations of the benchmark networks, and the reports of `bench`.

use crate::common::file;
use peristyle::diagnose::bench::{self, Bench, Effort};
use peristyle::train::{DataPolicy, Job};

/// Configuration, number of parameters, and operations of the convolutions and dense layers in one image's forward
/// pass, as `bench/torch_step.py` counts them for PyTorch's modules.
const NETWORKS: [(&str, usize, u64); 7] = [
    ("lenet", 431_080, 4_586_000),
    ("mlp", 1_863_690, 3_723_264),
    ("cifar_quick", 145_578, 24_708_352),
    ("cifar_alex", 1_387_786, 58_470_144),
    ("cifar_vgg_bn", 1_187_274, 305_610_752),
    ("resnet18", 11_173_962, 1_110_845_440),
    ("alexnet", 60_965_224, 1_448_813_632),
];

#[test]
fn benchmark_networks_have_as_many_parameters_and_operations_as_pytorchs() {
    for (name, parameters, flops) in NETWORKS {
        let (job, _) = Job::open(&file(&format!("configs/{name}.toml")), &[], DataPolicy::Required)
            .unwrap_or_else(|error| panic!("{error}"));
        let counted: usize = job.network.parameters.iter().map(|p| p.param.shape.elements()).sum();
        assert_eq!(counted, parameters, "{name}");
        assert_eq!(bench::flops_per_image(&job.network), flops, "{name}");
    }
}

fn digits(sets: &[&str]) -> Bench {
    let sets: Vec<String> = ["devices.threads=1", "data.batch=4"].iter().chain(sets).map(|s| s.to_string()).collect();
    Bench::open(&file("configs/digits.toml"), &sets).unwrap_or_else(|error| panic!("{error}"))
}

const SHORT: Effort = Effort { seconds: 1e-3, repeats: 2 };

#[test]
fn the_report_of_a_step_has_stable_keys() {
    let report = bench::step(&mut digits(&[]), SHORT).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    let names: Vec<&String> = json.as_object().unwrap().keys().collect();
    let mut expected = vec![
        "framework",
        "version",
        "network",
        "batch",
        "device",
        "devices",
        "threads",
        "precision",
        "load_average",
        "repeats",
        "steps",
        "first_step_ms",
        "step_ms",
        "step_ms_min",
        "step_ms_max",
        "images_per_second",
        "images_per_second_min",
        "images_per_second_max",
        "flops_per_image",
        "tflops",
        "step_bytes",
        "gb_per_second",
        "limit_tflops",
        "limit_gb_per_second",
        "product_ratio",
        "copy_ratio",
        "loss",
        "libraries",
    ];
    expected.sort_unstable();
    let mut names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, expected);
    let may_be_null = ["load_average", "libraries"];
    let mut fields = json.as_object().unwrap().iter();
    assert!(fields.all(|(name, value)| !value.is_null() || may_be_null.contains(&name.as_str())), "{json}");
}

#[test]
fn every_instruction_is_in_the_table_of_layers_once() {
    let mut bench = digits(&["devices.use=\"cpu*2\""]);
    let report = bench::layers(&mut bench, SHORT).unwrap();
    let lines: Vec<(&str, &str)> = report.layers.iter().map(|line| (line.layer.as_str(), line.pass)).collect();
    let first = [("batch", ""), ("conv1", "forward"), ("conv1", "backward"), ("relu1", "forward")];
    assert_eq!(&lines[..4], &first);
    let last = [("sums over devices", ""), ("optimizer.check", ""), ("optimizer.update", "")];
    assert_eq!(&lines[lines.len() - 3..], &last);
    assert!((report.layers.iter().map(|line| line.share).sum::<f64>() - 1.0).abs() < 1e-9);
    // conv1 reads images, which need no gradient; conv2 computes the gradients of both its input and its weights.
    let flops = |layer, pass| report.layers.iter().find(|l| (l.layer.as_str(), l.pass) == (layer, pass)).unwrap().flops;
    assert_eq!(flops("conv1", "backward"), flops("conv1", "forward"));
    assert_eq!(flops("conv2", "backward"), 2.0 * flops("conv2", "forward"));
}

#[test]
fn all_reduces_of_every_size_run_in_both_forms() {
    let report = bench::all_reduce(&["devices.use=\"cpu*2\"".to_string()], SHORT).unwrap();
    assert_eq!(report.devices, 2);
    let forms: Vec<(&str, usize)> = report.all_reduces.iter().map(|line| (line.form, line.bytes)).collect();
    assert_eq!(forms.len(), 12);
    assert_eq!((forms[0], forms[11]), (("one_pass", 64 << 10), ("ring", 64 << 20)));
    assert!(report.all_reduces.iter().all(|line| line.ms > 0.0 && line.busbw_gb_per_second > 0.0));
}

#[test]
fn gpus_are_measured_in_bf16_with_relus_inside_the_layers_before_them() {
    let mut bench = digits(&["devices.use=\"emu\"", "devices.precision=\"bf16\""]);
    let step = bench::step(&mut bench, SHORT).unwrap();
    assert!(step.about.precision == "bf16" && step.step_ms > 0.0 && step.loss.is_finite());
    let report = bench::layers(&mut bench, SHORT).unwrap();
    let has = |layer, pass| report.layers.iter().any(|l| (l.layer.as_str(), l.pass) == (layer, pass));
    assert!(has("batch", "") && has("conv1", "forward") && has("relu3", "backward"));
    assert!(!has("relu1", "forward"), "conv1 applies the relu");
    assert!(!has("relu1", "backward"), "max_pool1 takes in its backward pass");
}

#[test]
fn gpus_all_reduce_around_a_ring_even_through_the_host() {
    let sets = ["devices.use=\"emu*2\"", "devices.peer_access=\"off\""].map(String::from);
    let report = bench::all_reduce(&sets, SHORT).unwrap();
    let forms: Vec<&str> = report.all_reduces.iter().map(|line| line.form).collect();
    assert_eq!(forms, ["ring"; 6], "one pass would overwrite its own sources");
}
