//! The time of a training step.

use super::peak::Limits;
use super::spread::Effort;
use super::workload::{About, Bench};
use crate::error::Result;
use crate::gpu::libraries::LibraryReport;
use crate::network::{Network, Node};
use serde::Serialize;

/// The time of a training step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepTime {
    /// What was measured.
    #[serde(flatten)]
    pub about: About,
    /// Number of repeats.
    pub repeats: usize,
    /// Number of steps in all repeats.
    pub steps: usize,
    /// The first step, in ms, including all that is compiled, captured or touched only once.
    pub first_step_ms: f64,
    /// The median step, in ms.
    pub step_ms: f64,
    /// The fastest repeat.
    pub step_ms_min: f64,
    /// The slowest repeat.
    pub step_ms_max: f64,
    /// Images per second.
    pub images_per_second: f64,
    /// Images per second of the slowest repeat.
    pub images_per_second_min: f64,
    /// Images per second of the fastest repeat.
    pub images_per_second_max: f64,
    /// Operations of one image's forward pass: twice the multiplications of convolutions and dense layers.
    pub flops_per_image: u64,
    /// TFLOP/s of the step, counted as three forward passes.
    pub tflops: f64,
    /// Bytes that the instructions of the program read and write.
    pub step_bytes: f64,
    /// GB/s of these bytes.
    pub gb_per_second: f64,
    /// The peak rates of the devices.
    #[serde(flatten)]
    pub limits: Limits,
    /// `tflops` / `limit_tflops`.
    pub product_ratio: f64,
    /// `gb_per_second` / `limit_gb_per_second`.
    pub copy_ratio: f64,
    /// The loss of the last step.
    pub loss: f64,
    /// What NVIDIA's libraries compute; null where they are not used.
    pub libraries: Option<LibraryReport>,
}

/// Measures the training step of a configuration.
///
/// # Errors
/// If a step fails.
pub fn step(bench: &mut Bench, effort: Effort) -> Result<StepTime> {
    let about = bench.about();
    let first_step = bench.warm_up()?;
    let (seconds, steps) = effort.repeat(|| bench.step())?;
    let limits = Limits::measure(&bench.job.config.devices)?;
    let plan = bench.session.plan();
    let program = &plan.programs[bench.program()];
    let uses = program.instructions.iter().flat_map(|step| &step.uses);
    let step_bytes = uses.map(|u| program.bytes(u)).sum::<usize>() as f64;
    let flops_per_image = flops_per_image(&bench.job.network);
    let images = about.batch as f64;
    let tflops = 3.0 * flops_per_image as f64 * images / seconds.median / 1e12;
    let gb_per_second = step_bytes / seconds.median / 1e9;
    Ok(StepTime {
        about,
        repeats: effort.repeats,
        steps,
        first_step_ms: first_step * 1e3,
        step_ms: seconds.median * 1e3,
        step_ms_min: seconds.least * 1e3,
        step_ms_max: seconds.most * 1e3,
        images_per_second: images / seconds.median,
        images_per_second_min: images / seconds.most,
        images_per_second_max: images / seconds.least,
        flops_per_image,
        tflops,
        step_bytes,
        gb_per_second,
        limits,
        product_ratio: tflops / limits.limit_tflops,
        copy_ratio: gb_per_second / limits.limit_gb_per_second,
        loss: bench.loss,
        libraries: bench.session.library_report(),
    })
}

/// Returns twice the multiplications of one image's forward pass in convolutions and dense layers.
pub fn flops_per_image(network: &Network) -> u64 {
    let products = network.nodes.iter().filter(|node| is_product(network, node));
    products.map(|node| node.layer.cost(&node.input_shapes)).sum()
}

/// Returns true for layers that multiply by a matrix of weights.
pub(super) fn is_product(network: &Network, node: &Node) -> bool {
    node.params.iter().any(|&p| network.parameters[p].param.shape.rank() > 1)
}
