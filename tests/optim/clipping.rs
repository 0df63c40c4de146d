//! The norm used for clipping counts every parameter once, however many devices hold a copy of it.

use crate::common::{MESHES, Training, on_mesh};
use peristyle::program::Persistent;
use peristyle::train::exchange;

const UPDATES: usize = 20;

fn run(config: &str, mesh: (usize, usize), max_norm: f64) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut sets = on_mesh(mesh);
    sets.push("devices.precision=\"f64\"".to_string());
    sets.push(format!("optimizer.chain=[{{ clip_by_global_norm = {max_norm} }}, {{ momentum = 0.9 }}]"));
    let mut training = Training::new(config, &sets);
    let losses = training.losses(UPDATES);
    let parameters = 0..training.job.network.parameters.len();
    (losses, parameters.map(|p| exchange::read_values(&training.session, Persistent::Parameter(p)).unwrap()).collect())
}

#[test]
fn a_clipped_network_is_the_same_on_every_mesh() {
    // Their gradients have norms of about 1 to 5, so every update is clipped. The first network has layers split by
    // columns and one that is not split; the last has layers split by batch, columns and rows.
    for config in ["configs/columns_small.toml", "configs/residual_small.toml", "configs/one_weird_trick_small.toml"] {
        let (losses, parameters) = run(config, (1, 1), 0.1);
        assert_ne!(losses, run(config, (1, 1), 1e9).0, "{config}: clipping has no effect");
        let mut worst = 0.0f64;
        for mesh in MESHES.into_iter().skip(1) {
            let (l, p) = run(config, mesh, 0.1);
            for (a, b) in l.iter().zip(&losses) {
                worst = worst.max((a - b).abs() / b.abs());
            }
            for (a, b) in p.iter().zip(&parameters) {
                let scale = b.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                worst = a.iter().zip(b).fold(worst, |m, (a, b)| m.max((a - b).abs() / scale));
            }
            // Only the order of sums differs; twenty updates amplify the difference.
            assert!(worst <= 1e-9, "{config} on {mesh:?}: {worst:e}");
        }
        println!("{config}: largest difference {worst:.1e}");
    }
}
