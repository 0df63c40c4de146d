//! Softmax and cross-entropy: the loss of a classifier.
//!
//! p[n, c] = exp(x[n, c]) / sum over k of exp(x[n, k]); loss = -1/N sum over n, c of t[n, c] ln p[n, c], with N the
//! *global* batch and t the target distribution: 1 at the class, or 1 - s + s / C at the class and s / C elsewhere
//! with label smoothing s, 0 <= s < 1, 0 by default (Szegedy et al. 2016, <https://arxiv.org/abs/1512.00567>).
//! Smoothing applies to training; the loss of an evaluation has none. Backward: dx = (p - t) / N.
//!
//! A sample whose loss is not finite is never counted as right.
//!
//! x: (N, H, W, C) read as N vectors of H * W * C; targets: (N, 1) class indices or (N, C) distributions;
//! metrics: the loss, and the numbers of samples whose class has the largest logit (`top1`) or one of the five largest (`top5`).

use super::layer::unknown_phase;
use super::loss::{self, SPLITS, input_placement, launch_sums, metrics_layout, width};
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, LossTargets, Metric, MetricKind, Operands};
use super::{Phase, Role, Split, by_precision};
use crate::cpu::vectorized;
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::gpu::{AnyMut, Grid, int};
use crate::settings::{FRACTION, settings};
use crate::tensor::Real;
use crate::tensor::{Mesh, Placement};

/// In training, the softmax of the logits.
const PROBABILITIES: Role = Role::Saved(0);

settings! {
    /// The `softmax_cross_entropy` layer.
    pub struct SoftmaxCrossEntropy {
        /// Label smoothing s of the training loss.
        pub label_smoothing: f64 = 0.0, in FRACTION;
    }
}

impl Layer for SoftmaxCrossEntropy {
    fn key(&self) -> &'static str {
        "softmax_cross_entropy"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        if inputs[0].features() < 2 {
            return Err(Fault::whole("1 output, expected at least 2, one for each class"));
        }
        Ok(inputs[0])
    }
    fn metrics(&self) -> &'static [Metric] {
        const METRICS: &[Metric] = &[
            Metric { name: "loss", kind: MetricKind::Mean },
            Metric { name: "top1", kind: MetricKind::Hits },
            Metric { name: "top5", kind: MetricKind::Hits },
        ];
        METRICS
    }
    fn targets(&self, x: Activation) -> Option<LossTargets> {
        let classes = Some(x.features());
        Some(LossTargets { classes, distributions: classes, values: None })
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        5 * inputs[0].features() as u64
    }
    fn splits(&self) -> &'static [Split] {
        SPLITS
    }
    fn preferred_input(&self, _: Activation, incoming: Placement, split: Option<Split>, _: Mesh) -> Option<Placement> {
        Some(input_placement(incoming, split))
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let mut phases = LayerPhases::simple(
            Phase::new("forward").read(Role::X(0), x).read(Role::Target, x).write(Role::Metrics, metrics_layout(cx)),
            Phase::new("backward").read(PROBABILITIES, x).low_precision().read(Role::Target, x).write(Role::Dx(0), x),
        );
        if cx.training() {
            phases.saved.push(cx.inputs[0].batch(cx.batch));
            phases.forward[0] = phases.forward[0].clone().write(PROBABILITIES, x).low_precision();
        }
        Ok(phases)
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => self.forward::<T>(args),
            "backward" => self.backward::<T>(args),
            _ => unknown_phase(phase),
        })
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        loss::scratch(phase, shapes, target, self.metrics())
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let logits = if phase == "forward" { Role::X(0) } else { PROBABILITIES };
        let (rows, classes) = (launch.operand(logits).len(0), width(launch.operand(logits)));
        let (n, targets) = (int(rows)?, launch.read(Role::Target));
        let smoothing = self.smoothing(phase == "backward" || launch.has(PROBABILITIES));
        let (hard, soft) = ((1.0 - smoothing) as f32, (smoothing / classes as f64) as f32);
        let (grid, classes, width) = (Grid::cover(rows, 8), int(classes)?, int(width(launch.operand(Role::Target)))?);
        match phase {
            "forward" => {
                let (x, each) = (launch.any(logits), launch.scratch());
                let p = if launch.has(PROBABILITIES) { launch.any_mut(PROBABILITIES) } else { AnyMut::NONE };
                // SAFETY: x and p are (rows, classes), targets (rows, width), scratch (rows, 3).
                unsafe {
                    any::softmax_cross_entropy_forward(
                        &launch.issue,
                        grid,
                        x,
                        targets,
                        each,
                        p,
                        n,
                        classes,
                        width,
                        hard,
                        soft,
                    )?;
                }
                launch_sums(launch, self.metrics())
            }
            "backward" if !launch.has(Role::Dx(0)) => Ok(()),
            "backward" => {
                let (p, dx) = (launch.any(PROBABILITIES), launch.any_mut(Role::Dx(0)));
                // SAFETY: p and dx are (rows, classes), targets (rows, width).
                unsafe {
                    any::softmax_cross_entropy_backward(
                        &launch.issue,
                        grid,
                        p,
                        targets,
                        dx,
                        n,
                        classes,
                        width,
                        hard,
                        soft,
                        launch.loss_scale() as f32,
                    )
                }
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![
            (SoftmaxCrossEntropy { label_smoothing: 0.0 }, vec![Activation::new(1, 1, 7)]),
            (SoftmaxCrossEntropy { label_smoothing: 0.1 }, vec![Activation::new(1, 1, 6)]),
        ]
    }
}

/// Returns t[n, c]; `target` is the sample's row of targets, and `s` the label smoothing.
#[inline(always)]
fn target_of<T: Real>(target: &[T], class: usize, c: usize, classes: usize, s: f64) -> T {
    let hard = if target.len() > 1 { target[c] } else { T::from_f64(f64::from(u8::from(c == class))) };
    hard * T::from_f64(1.0 - s) + T::from_f64(s / classes as f64)
}

impl SoftmaxCrossEntropy {
    /// Returns the label smoothing of a step.
    fn smoothing(&self, training: bool) -> f64 {
        if training { self.label_smoothing } else { 0.0 }
    }

    fn forward<T: Real>(&self, args: &Args) {
        let (rows, classes) = (args.operand(Role::X(0)).len(0), width(args.operand(Role::X(0))));
        let (x, targets, metrics) =
            (args.read::<T>(Role::X(0)), args.read::<T>(Role::Target), args.write::<T>(Role::Metrics));
        let width = width(args.operand(Role::Target));
        let mut kept = args.has(PROBABILITIES).then(|| args.write::<T>(PROBABILITIES));
        let s = self.smoothing(kept.is_some());
        let (mut loss, mut top1, mut top5) = (T::ZERO, 0usize, 0usize);
        for n in 0..rows {
            let x = &x[n * classes..][..classes];
            let target = &targets[n * width..][..width];
            let class = class_of(target);
            let max = x.iter().fold(x[0], |m, &v| m.max(v));
            let sum = x.iter().fold(T::ZERO, |s, &v| s + (v - max).exp());
            let log_sum = sum.ln() + max;
            for (c, &v) in x.iter().enumerate() {
                let t = target_of(target, class, c, classes, s);
                if t != T::ZERO {
                    loss += t * (log_sum - v);
                }
            }
            let finite = (log_sum - x[class]).to_f64().is_finite();
            let above = x.iter().enumerate().filter(|&(c, &v)| v > x[class] || (v == x[class] && c < class)).count();
            top1 += usize::from(finite && above < 1);
            top5 += usize::from(finite && above < 5);
            if let Some(p) = kept.as_mut() {
                let p = &mut p[n * classes..][..classes];
                vectorized(
                    #[inline(always)]
                    || p.iter_mut().zip(x).for_each(|(p, &v)| *p = (v - max).exp() / sum),
                );
            }
        }
        metrics[0] = loss / T::from_f64(args.divisor as f64);
        for (m, count) in metrics[1..].iter_mut().zip([top1, top5]) {
            *m = T::from_f64(count as f64);
        }
    }

    fn backward<T: Real>(&self, args: &Args) {
        if !args.has(Role::Dx(0)) {
            return;
        }
        let (p, targets, dx) =
            (args.read::<T>(PROBABILITIES), args.read::<T>(Role::Target), args.write::<T>(Role::Dx(0)));
        let (rows, classes) = (args.operand(PROBABILITIES).len(0), width(args.operand(PROBABILITIES)));
        let width = width(args.operand(Role::Target));
        let scale = T::from_f64(args.loss_scale());
        for n in 0..rows {
            let target = &targets[n * width..][..width];
            let class = class_of(target);
            for c in 0..classes {
                let i = n * classes + c;
                dx[i] = (p[i] - target_of(target, class, c, classes, self.label_smoothing)) * scale;
            }
        }
    }
}

/// Returns the class of a sample: the given index, or that of the largest entry of its distribution.
fn class_of<T: Real>(target: &[T]) -> usize {
    if target.len() == 1 {
        return target[0].to_f64() as usize;
    }
    (0..target.len()).fold(0, |best, c| if target[c] > target[best] { c } else { best })
}
