//! Measures how the time of a step is divided among its layers.

use super::step::is_product;
use super::{About, Bench, Effort, Limits, Spread};
use crate::error::Result;
use crate::layers::Pass;
use crate::network::{Network, Source};
use crate::program::{Instruction, Work};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// The time of one pass of a layer, or of one of the other parts of a step: loading the batch, casts, collectives and
/// the optimiser.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerTime {
    /// The layer's name.
    pub layer: String,
    /// Its kind; `load`, `cast`, `sum` or `optimizer` (once per stage) for the other parts.
    pub kind: &'static str,
    /// `forward` or `backward`; empty for the other parts.
    pub pass: &'static str,
    /// Milliseconds per step: the mean over the devices, the median over the runs.
    pub ms: f64,
    /// Its share of the sum of these times.
    pub share: f64,
    /// Operations over the whole batch. The backward pass of a convolution or dense layer counts as two forward passes
    /// if it includes the gradient of the input; all others count as one.
    pub flops: f64,
    /// TFLOP/s.
    pub tflops: f64,
    /// `tflops` / `limit_tflops`.
    pub product_ratio: f64,
    /// Bytes of its operands on all devices.
    pub bytes: f64,
    /// GB/s of these bytes.
    pub gb_per_second: f64,
    /// `gb_per_second` / `limit_gb_per_second`.
    pub copy_ratio: f64,
}

/// The time of a step, divided among its layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layers {
    /// What was measured.
    #[serde(flatten)]
    pub about: About,
    /// The peak rates of the devices.
    #[serde(flatten)]
    pub limits: Limits,
    /// Number of runs in which each instruction was timed.
    pub runs: usize,
    /// A whole step, without timing its instructions, in ms.
    pub step_ms: f64,
    /// The passes, in the order of the network.
    pub layers: Vec<LayerTime>,
}

/// The subject of a line of the table, in the table's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    Load,
    Layer(usize),
    Sum,
    /// A stage of the optimiser's chain.
    Optimizer(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Line, bool);

fn key(step: &Instruction) -> Key {
    match step.work {
        Work::Load { .. } => Key(Line::Load, false),
        Work::Phase { node, pass, .. } => Key(Line::Layer(node), pass == Pass::Backward),
        Work::Sum { .. } | Work::Collective { .. } => Key(Line::Sum, false),
        Work::Update { stage, .. } => Key(Line::Optimizer(stage), false),
    }
}

/// Measures the layers of a configuration inside its training step.
///
/// # Errors
/// If a step fails.
pub fn layers(bench: &mut Bench, effort: Effort) -> Result<Layers> {
    let about = bench.about();
    bench.warm_up()?;
    let begin = Instant::now();
    let (step, _) = Effort { seconds: effort.seconds / 2.0, ..effort }.repeat(|| bench.step())?;
    let mut runs = Vec::new();
    while runs.len() < 3 || begin.elapsed().as_secs_f64() < effort.seconds {
        runs.push(bench.step_timed()?);
    }
    let limits = Limits::measure(&bench.job.config.devices)?;
    let plan = bench.session.plan();
    let program = &plan.programs[bench.program()];
    let mut groups: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for (number, step) in program.instructions.iter().enumerate() {
        groups.entry(key(step)).or_default().push(number);
    }
    let devices = plan.arena.len() as f64;
    let mut layers: Vec<LayerTime> = Vec::new();
    for (key, numbers) in groups {
        let time = |run: &Vec<f64>| numbers.iter().map(|&n| run[n]).sum::<f64>() / devices;
        let seconds = Spread::of(runs.iter().map(time).collect()).median.max(1e-9);
        let uses = numbers.iter().flat_map(|&n| &program.instructions[n].uses);
        let bytes = uses.map(|u| program.bytes(u)).sum::<usize>() as f64;
        let flops = flops_per_image(&plan.network, key) * about.batch as f64;
        let (layer, kind, pass) = names(&plan.network, key, &program.instructions[numbers[0]]);
        let (tflops, gb_per_second) = (flops / seconds / 1e12, bytes / seconds / 1e9);
        layers.push(LayerTime {
            layer,
            kind,
            pass,
            ms: seconds * 1e3,
            share: 0.0,
            flops,
            tflops,
            product_ratio: tflops / limits.limit_tflops,
            bytes,
            gb_per_second,
            copy_ratio: gb_per_second / limits.limit_gb_per_second,
        });
    }
    let all: f64 = layers.iter().map(|line| line.ms).sum();
    layers.iter_mut().for_each(|line| line.share = line.ms / all);
    Ok(Layers { about, limits, runs: runs.len(), step_ms: step.median * 1e3, layers })
}

fn names(network: &Network, Key(line, backward): Key, first: &Instruction) -> (String, &'static str, &'static str) {
    match line {
        Line::Load => ("batch".into(), "load", ""),
        Line::Sum => ("sums over devices".into(), "sum", ""),
        Line::Optimizer(_) => (first.name.clone(), "optimizer", ""),
        Line::Layer(node) => {
            let node = &network.nodes[node];
            (node.name.clone(), node.layer.key(), if backward { "backward" } else { "forward" })
        }
    }
}

fn flops_per_image(network: &Network, Key(line, backward): Key) -> f64 {
    let Line::Layer(node) = line else { return 0.0 };
    let node = &network.nodes[node];
    let learns_below = node.inputs.iter().any(|&source| learns(network, source));
    let passes = if backward && is_product(network, node) && learns_below { 2.0 } else { 1.0 };
    passes * node.layer.cost(&node.input_shapes) as f64
}

/// Returns true if the gradient of a source is needed: it depends on parameters.
fn learns(network: &Network, source: Source) -> bool {
    match source {
        Source::Images => false,
        Source::Node(node) => {
            let node = &network.nodes[node];
            !node.params.is_empty() || node.inputs.iter().any(|&source| learns(network, source))
        }
    }
}
