//! Whole networks on their own data: gradients are compared with finite differences of losses, and exact
//! Hessian-vector products with finite differences of gradients.

mod common;

use common::file;
use peristyle::data::{self, Batches};
use peristyle::diagnose::{Check, gradient_check, hessian_vector_check};
use peristyle::train::{DataPolicy, Job};
use std::process::Command;

fn worst(checks: &[Check]) -> f64 {
    checks.iter().map(|c| c.error).fold(0.0, f64::max)
}

/// Checks a configuration on a small batch: `samples` elements of each parameter, and the largest errors allowed.
fn checks(config: &str, rows: usize, samples: usize, gradient: f64, product: f64) {
    let sets = [format!("data.batch={rows}"), "devices.use=\"cpu\"".to_string()];
    let (job, _) = Job::open(&file(config), &sets, DataPolicy::Required).unwrap_or_else(|e| panic!("{e}"));
    let splits = data::open(&job.config.data, job.config.seed, &job.config.base).unwrap();
    let mut batches = Batches::train(&splits);
    let mut batch = batches.empty();
    batches.fill(0, 0, &mut batch);
    let probe = (&batch.images[..], &batch.targets[..], 1);
    let gradients = gradient_check(&job.network, job.config.seed, probe, samples).unwrap();
    let products = hessian_vector_check(&job.network, job.config.seed, probe).unwrap();
    println!("{config}: gradients {:.1e}, Hessian-vector products {:.1e}", worst(&gradients), worst(&products));
    for check in &gradients {
        assert!(check.error <= gradient, "{config}: gradient of {}: {:e}", check.name, check.error);
    }
    for check in &products {
        assert!(check.error <= product, "{config}: H v of {}: {:e}", check.name, check.error);
    }
}

// Observed errors are 3e-10 to 3e-9 for gradients and 1e-9 to 2e-8 for products; the bounds leave a factor of 30 for
// other machines. A kink of a relu or a pool within a difference would cause an error of 1e-3 or more; these batches
// have none.

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

#[test]
fn gradcheck_exits_with_1_beyond_its_tolerance() {
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peristyle"));
        command.arg("gradcheck").arg(file("configs/digits.toml")).args(more).output().unwrap()
    };
    let good = run(&[]);
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stderr));
    let elsewhere = run(&["--devices", "cuda:0-3", "--set", "devices.mesh={ data = 2, columns = 2 }"]);
    assert_eq!(elsewhere.status.code(), Some(0), "gradcheck does not need the GPUs of the mesh");
    assert_eq!(good.stdout, elsewhere.stdout);
    let bad = run(&["--tolerance", "1e-15"]);
    let said = String::from_utf8_lossy(&bad.stderr);
    assert_eq!(bad.status.code(), Some(1), "{said}");
    assert!(said.contains("largest relative error"), "{said}");
}
