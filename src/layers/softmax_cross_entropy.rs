//! Softmax and cross-entropy: the loss of a classifier.
//!
//! p[n, c] = exp(x[n, c]) / sum over k of exp(x[n, k]); loss = -1/N sum over n, c of t[n, c] ln p[n, c], with N the
//! *global* batch and t the target distribution: 1 at the class, or with label smoothing s (0 <= s < 1, default 0)
//! 1 - s + s / C at the class and s / C elsewhere (Szegedy et al. 2016, <https://arxiv.org/abs/1512.00567>).
//! Backward: dx = (p - t) / N.
//!
//! x: (N, H, W, C) read as N vectors of H * W * C; targets: (N, 1) class indices or (N, C) distributions;
//! metrics: see [`METRICS`].

use super::*;
use crate::device::kernels::{self, any};
use crate::device::{AnyMut, Grid, int, vectorized};
use crate::tensor::Real;

/// The loss.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftmaxCrossEntropy {
    /// Label smoothing s.
    #[serde(default)]
    pub label_smoothing: f64,
}

/// Elements of the metrics of a batch: loss / N summed over the samples, samples whose class has the largest
/// logit, samples whose class is among the five largest, samples.
pub const METRICS: usize = 4;

impl Layer for SoftmaxCrossEntropy {
    fn kind(&self) -> &'static str {
        "softmax_cross_entropy"
    }
    fn check(&self) -> Result<(), Fault> {
        if (0.0..1.0).contains(&self.label_smoothing) {
            return Ok(());
        }
        Err(Fault::at("label_smoothing", format!("label_smoothing = {}, expected 0 <= s < 1", self.label_smoothing)))
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(inputs[0])
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        5 * inputs[0].features() as u64
    }
    fn splits(&self) -> &'static [Split] {
        &[Split::Batch, Split::None]
    }
    fn wanted(&self, _: Activation, incoming: Place, split: Option<Split>, _: Mesh) -> Option<Place> {
        match (split, incoming) {
            (Some(Split::Batch), _) | (None, Place::Shard(0)) => Some(Place::Shard(0)),
            _ => Some(Place::Replicate),
        }
    }
    fn lower(&self, cx: &Lowering) -> Result<Lowered, Fault> {
        let x = cx.x();
        let columns = if cx.place == Place::Shard(0) { Place::Partial } else { Place::Replicate };
        let mut lowered = Lowered::simple(
            Phase::new("forward")
                .read(Role::X(0), x)
                .read(Role::Target, x)
                .write(Role::Metrics, Layout::new(Place::Partial, columns)),
            Phase::new("backward").read(Role::Local(0), x).narrow().read(Role::Target, x).write(Role::Dx(0), x),
        );
        if cx.training() {
            lowered.locals.push(cx.inputs[0].batch(cx.rows));
            lowered.forward[0] = lowered.forward[0].clone().write(Role::Local(0), x).narrow();
        }
        Ok(lowered)
    }
    fn run(&self, pass: Pass, _: usize, args: &Args) {
        by_precision!(args, T => match pass {
            Pass::Forward => self.forward::<T>(args),
            Pass::Backward => self.backward::<T>(args),
        })
    }
    fn device_scratch(&self, pass: Pass, _: usize, operands: &[Option<Operand>]) -> usize {
        let rows = operands[0].as_ref().map_or(0, |x| x.len(0));
        // Loss and counts of each sample.
        if pass == Pass::Forward { 3 * rows.max(1) } else { 0 }
    }
    fn launch(&self, pass: Pass, _: usize, launch: &Launch) -> Result<()> {
        let width = |i: usize| launch.operand(i).shape.elements() / launch.operand(i).shape.0[0];
        let (rows, classes) = (launch.operand(0).len(0), width(0));
        let (n, targets, scale) = (int(rows)?, launch.read(1), (1.0 / launch.rows as f64) as f32);
        let (hard, soft) = ((1.0 - self.label_smoothing) as f32, (self.label_smoothing / classes as f64) as f32);
        let (grid, classes, width) = (Grid::cover(rows, 8), int(classes)?, int(width(1))?);
        match pass {
            Pass::Forward => {
                let (x, each) = (launch.any(0), launch.scratch());
                // Operands (x, targets, metrics, in training p, scratch).
                let p = if launch.operands.len() > 4 { launch.any_mut(3) } else { AnyMut::NONE };
                // SAFETY: x and p are (rows, classes), targets (rows, width), the scratch (rows, 3), metrics (4).
                unsafe {
                    let on = &launch.issue;
                    any::softmax_cross_entropy_forward(on, grid, x, targets, each, p, n, classes, width, hard, soft)?;
                    let one = Grid::new(1, 1, 1);
                    kernels::softmax_cross_entropy_metrics(on, one, each.into(), launch.write(2), n, scale)
                }
            }
            Pass::Backward if !launch.has(2) => Ok(()),
            Pass::Backward => {
                let (p, dx) = (launch.any(0), launch.any_mut(2));
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
                        scale,
                    )
                }
            }
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![
            (SoftmaxCrossEntropy { label_smoothing: 0.0 }, vec![Activation::new(1, 1, 7)]),
            (SoftmaxCrossEntropy { label_smoothing: 0.1 }, vec![Activation::new(1, 1, 6)]),
        ]
    }
}

impl SoftmaxCrossEntropy {
    /// Returns t[n, c]; `target` is the sample's row of targets.
    #[inline(always)]
    fn target<T: Real>(&self, target: &[T], class: usize, c: usize, classes: usize) -> T {
        let hard = if target.len() > 1 { target[c] } else { T::from_f64(f64::from(u8::from(c == class))) };
        let s = self.label_smoothing;
        hard * T::from_f64(1.0 - s) + T::from_f64(s / classes as f64)
    }

    fn forward<T: Real>(&self, args: &Args) {
        let (rows, classes) = (args.operand(0).len(0), args.operand(0).shape.elements() / args.operand(0).shape.0[0]);
        let (x, targets, metrics) = (args.read::<T>(0), args.read::<T>(1), args.write::<T>(2));
        let width = args.operand(1).shape.elements() / args.operand(1).shape.0[0];
        let mut kept = args.has(3).then(|| args.write::<T>(3));
        let (mut loss, mut top1, mut top5) = (T::ZERO, 0usize, 0usize);
        for n in 0..rows {
            let x = &x[n * classes..][..classes];
            let target = &targets[n * width..][..width];
            let class = class_of(target);
            let max = x.iter().fold(x[0], |m, &v| m.max(v));
            let sum = x.iter().fold(T::ZERO, |s, &v| s + (v - max).exp());
            let log_sum = sum.ln() + max;
            for (c, &v) in x.iter().enumerate() {
                let t = self.target(target, class, c, classes);
                if t != T::ZERO {
                    loss += t * (log_sum - v);
                }
            }
            let above = x.iter().enumerate().filter(|&(c, &v)| v > x[class] || (v == x[class] && c < class)).count();
            top1 += usize::from(above < 1);
            top5 += usize::from(above < 5);
            if let Some(p) = kept.as_mut() {
                let p = &mut p[n * classes..][..classes];
                vectorized(
                    #[inline(always)]
                    || p.iter_mut().zip(x).for_each(|(p, &v)| *p = (v - max).exp() / sum),
                );
            }
        }
        metrics[0] = loss / T::from_f64(args.rows as f64);
        for (m, count) in metrics[1..].iter_mut().zip([top1, top5, rows]) {
            *m = T::from_f64(count as f64);
        }
    }

    fn backward<T: Real>(&self, args: &Args) {
        if !args.has(2) {
            return;
        }
        let (p, targets, dx) = (args.read::<T>(0), args.read::<T>(1), args.write::<T>(2));
        let (rows, classes) = (args.operand(0).len(0), args.operand(0).shape.elements() / args.operand(0).shape.0[0]);
        let width = args.operand(1).shape.elements() / args.operand(1).shape.0[0];
        let scale = T::from_f64(1.0 / args.rows as f64);
        for n in 0..rows {
            let target = &targets[n * width..][..width];
            let class = class_of(target);
            for c in 0..classes {
                let i = n * classes + c;
                dx[i] = (p[i] - self.target(target, class, c, classes)) * scale;
            }
        }
    }
}

/// The class of a sample: its index, or the largest entry of its distribution.
fn class_of<T: Real>(target: &[T]) -> usize {
    if target.len() == 1 {
        return target[0].to_f64() as usize;
    }
    (0..target.len()).fold(0, |best, c| if target[c] > target[best] { c } else { best })
}
