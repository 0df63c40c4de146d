//! Whole networks on their own data: gradients are compared with finite differences of losses, and exact
//! Hessian-vector products with finite differences of gradients.

use crate::common::{file, network};
use peristyle::data::{self, Batches};
use peristyle::device::{Random, RandomStream};
use peristyle::diagnose::{Check, Subject};
use peristyle::network::Network;
use peristyle::train::{DataPolicy, Job};
use std::process::Command;
use std::sync::Arc;

fn worst(checks: &[Check]) -> f64 {
    checks.iter().map(|c| c.error).fold(0.0, f64::max)
}

fn check_all(subject: &Subject, gradients: &[Vec<f64>], samples: usize) -> Vec<Check> {
    let all: Vec<usize> = (0..gradients.len()).collect();
    subject.check_gradients(&all, gradients, samples, |_| Ok(())).unwrap()
}

/// Checks a configuration on a small batch: `samples` elements of each parameter, and the largest errors allowed.
fn checks(config: &str, rows: usize, samples: usize, gradient: f64, product: f64) {
    let sets = [format!("data.batch={rows}"), "devices.use=\"cpu\"".to_string()];
    let (job, _) = Job::open(&file(config), &sets, DataPolicy::Required).unwrap_or_else(|e| panic!("{e}"));
    let splits = data::open(&job.config.data, job.config.seed, &job.config.base).unwrap();
    let mut batches = Batches::train(&splits);
    let mut batch = batches.empty();
    batches.fill(0, 0, &mut batch).unwrap();
    let subject = Subject {
        network: &job.network,
        seed: job.config.seed,
        images: &batch.images,
        targets: &batch.targets,
        target_width: 1,
        threads: 1,
    };
    let gradients = check_all(&subject, &subject.gradients().unwrap(), samples);
    let products = subject.check_products(&subject.products().unwrap()).unwrap();
    println!("{config}: gradients {:.1e}, Hessian-vector products {:.1e}", worst(&gradients), worst(&products));
    for check in &gradients {
        assert!(check.is_judged() && check.error <= gradient, "{config}: gradient of {check:?}");
    }
    for check in &products {
        assert!(check.is_judged() && check.error <= product, "{config}: H v of {check:?}");
    }
}

// Observed errors are 3e-10 to 3e-9 for gradients and 1e-9 to 2e-8 for products; the bounds leave a factor of 30 for
// other machines.

#[test]
fn the_digits_network_has_correct_derivatives() {
    checks("configs/digits.toml", 4, 12, 1e-7, 1e-6);
}

#[test]
fn the_two_column_network_has_correct_derivatives() {
    checks("configs/columns_small.toml", 3, 8, 1e-7, 1e-6);
}

#[test]
fn the_residual_network_has_correct_derivatives() {
    checks("configs/residual_small.toml", 4, 8, 1e-7, 1e-6);
}

#[test]
fn the_one_weird_trick_network_has_correct_derivatives() {
    checks("configs/one_weird_trick_small.toml", 3, 8, 1e-7, 1e-6);
}

/// A small network, and images of its size with random values.
fn small(layers: &str) -> (Arc<Network>, Vec<f32>) {
    let text = format!(
        "seed = 1\n[data]\ntrain = {{ synthetic = {{ images = 12, classes = 3, shape = [6, 6, 2] }} }}\nbatch = 4\n\
         [model]\ninput = [6, 6, 2]\nlayers = [{layers}]\n[optimizer]\nlr = 0.1\n[train]\nsteps = 1\n"
    );
    let network = network(&text).unwrap_or_else(|e| panic!("{e}"));
    let random = Random::new(1, RandomStream::Probe, 0, 0);
    (network, (0..4 * 6 * 6 * 2).map(|i| random.normal(i) as f32).collect())
}

fn subject<'a>(network: &'a Arc<Network>, images: &'a [f32]) -> Subject<'a> {
    Subject { network, seed: 1, images, targets: &[0.0, 1.0, 2.0, 1.0], target_width: 1, threads: 1 }
}

const MIXED: &str = r#"{ conv = { filters = 4, kernel = 3, pad = 1 } }, "relu", { conv = { filters = 6, kernel = 3, bias = false } },
    { batch_norm = {} }, "relu", { max_pool = { kernel = 2 } }, { dense = { units = 5 } }, "tanh", { dense = { units = 3 } }"#;

#[test]
fn an_error_of_1e_4_in_the_gradient_of_any_parameter_is_found() {
    let (network, images) = small(MIXED);
    let subject = subject(&network, &images);
    let mut gradients = subject.gradients().unwrap();
    let right = check_all(&subject, &gradients, 10);
    assert_eq!(right.len(), 9);
    for check in &right {
        assert!(check.is_judged() && check.is_resolved && check.error < 1e-6, "{check:?}");
    }
    gradients.iter_mut().flatten().for_each(|gradient| *gradient *= 1.0 + 1e-4);
    for check in check_all(&subject, &gradients, 10) {
        assert!(check.is_judged() && (0.9e-4..1.1e-4).contains(&check.error), "{check:?}");
    }
}

#[test]
fn an_error_of_1e_4_in_the_product_of_any_parameter_is_found() {
    let (network, images) = small(MIXED);
    let subject = subject(&network, &images);
    let mut products = subject.products().unwrap();
    for check in subject.check_products(&products).unwrap() {
        assert!(check.is_judged() && check.is_resolved && check.error < 1e-6, "{check:?}");
    }
    products.iter_mut().flatten().for_each(|product| product.eps *= 1.0 + 1e-4);
    for check in subject.check_products(&products).unwrap() {
        assert!(check.is_judged() && (0.9e-4..1.1e-4).contains(&check.error), "{check:?}");
    }
}

#[test]
fn a_wrong_sign_and_a_missing_sample_are_found_in_every_parameter() {
    let layers =
        r#"{ conv = { filters = 4, kernel = 3 } }, "relu", { max_pool = { kernel = 2 } }, { dense = { units = 3 } }"#;
    let (network, images) = small(layers);
    let subject = subject(&network, &images);
    let right = subject.gradients().unwrap();
    for p in 0..right.len() {
        let mut gradients = right.clone();
        gradients[p].iter_mut().for_each(|gradient| *gradient = -*gradient);
        let checks = check_all(&subject, &gradients, 10);
        for (q, check) in checks.iter().enumerate() {
            assert_eq!(check.error > 1.0, p == q, "{check:?} with the wrong sign in {p}");
        }
    }
    // The mean over four samples lacks the last of them.
    let fewer = Subject { images: &images[..3 * 6 * 6 * 2], targets: &subject.targets[..3], ..subject };
    let mut gradients = fewer.gradients().unwrap();
    gradients.iter_mut().flatten().for_each(|gradient| *gradient *= 0.75);
    for check in check_all(&subject, &gradients, 10) {
        assert!(check.is_judged() && check.error > 1e-2, "{check:?}");
    }
}

#[test]
fn a_gradient_that_is_zero_in_truth_is_compared_on_the_scale_of_rounding() {
    let layers =
        r#"{ name = "c", conv = { filters = 4, kernel = 3 } }, { batch_norm = {} }, "tanh", { dense = { units = 3 } }"#;
    let (network, images) = small(layers);
    let subject = subject(&network, &images);
    let mut gradients = subject.gradients().unwrap();
    assert!(gradients[1].iter().all(|g| g.abs() < 1e-12), "{:?}", gradients[1]);
    let check = |gradients: &[Vec<f64>]| check_all(&subject, gradients, 10)[1].clone();
    let right = check(&gradients);
    assert!(right.is_judged() && !right.is_resolved && right.error < 1e-5, "{right:?}");
    gradients[1][2] += 1e-7;
    assert!(check(&gradients).error > 1e-4);
    gradients[1][2] = f64::NAN;
    assert_eq!(check(&gradients).error, f64::INFINITY);
    let products = subject.check_products(&subject.products().unwrap()).unwrap();
    assert!(products.iter().all(|check| check.is_judged() && check.error < 1e-5), "{products:?}");
}

#[test]
fn a_parameter_whose_relu_is_at_its_kink_is_not_judged() {
    let (network, images) = small(r#"{ conv = { filters = 4, kernel = 3 } }, "relu", { dense = { units = 3 } }"#);
    // The convolution of black images gives 0 everywhere, at the kink of its relu.
    let black = vec![0.0; images.len()];
    let subject = subject(&network, &black);
    let checks = check_all(&subject, &subject.gradients().unwrap(), 10);
    let bias = checks.iter().find(|check| check.name == "conv1.bias").unwrap();
    assert!(!bias.is_judged() && bias.kinks == 4, "{bias:?}");
    let last = checks.iter().find(|check| check.name == "dense1.bias").unwrap();
    assert!(last.is_judged() && last.error < 1e-6, "{last:?}");
}

#[test]
fn kinks_do_not_fail_a_network_whose_gradients_are_right() {
    checks("configs/lenet.toml", 4, 10, 1e-5, 1e-5);
}

#[test]
fn gradcheck_exits_with_1_beyond_its_tolerance() {
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peristyle"));
        command.arg("gradcheck").arg(file("configs/digits.toml")).args(["--samples", "3"]).args(more).output().unwrap()
    };
    let good = run(&[]);
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stderr));
    let elsewhere = run(&["--devices", "cuda:0-3", "--set", "devices.mesh={ data = 2, columns = 2 }"]);
    assert_eq!(elsewhere.status.code(), Some(0), "gradcheck does not need the GPUs of the mesh");
    assert_eq!(good.stdout, elsewhere.stdout);
    let bad = run(&["--tolerance", "1e-15"]);
    let said = String::from_utf8_lossy(&bad.stderr);
    assert_eq!(bad.status.code(), Some(1), "{said}");
    assert!(
        said.contains("gradient of 8 parameters, from conv1.weight to dense2.bias: largest relative error"),
        "{said}"
    );
    assert!(said.contains("check the backward pass of layer \"dense2\""), "{said}");
}
