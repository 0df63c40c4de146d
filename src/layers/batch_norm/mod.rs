//! Batch normalisation: y = w (x - mean) / sqrt(var + epsilon) + b, per channel, with the mean and variance of the
//! whole batch in training, and the running ones in evaluation (Ioffe and Szegedy 2015,
//! <https://arxiv.org/abs/1502.03167>).
//!
//! x, y: (N, H, W, C); weight, bias, running_mean, running_var: (C), or (H, W, C) after flatten, where each feature
//! is a channel. Statistics cover the n = N H W (or N) values of a channel on *all* devices that share the batch.
//! Each device computes (count, mean, M2 = sum of squared distances from the mean) of its part; the parts are gathered
//! and merged in a fixed order (Chan et al. 1983, <https://doi.org/10.1080/00031305.1983.10483115>). Sums of squares
//! would suffer from cancellation. The running variance is the unbiased M2 / (n - 1), as in PyTorch.
//!
//! With `statistics = "running"`, training normalises by the running statistics as well, which do not change: frozen batch norm. With
//! `cumulative`, their momentum is 1 / t in update t, so that they are means over all batches.
//!
//! Backward, with xhat = (x - mean) / sqrt(var + epsilon): db = sum of dy, dw = sum of dy xhat,
//! dx = w / sqrt(var + epsilon) * (dy - db / n - xhat dw / n). These sums are also over the whole batch. With the running
//! statistics, dx = w / sqrt(var + epsilon) * dy.

mod launch;
mod settings;
mod statistics;

use crate::cpu::vectorized;
use crate::device::{Epilogue, Target};
use crate::error::{Fault, Result};
use crate::layers::layer::unknown_phase;
use crate::layers::{
    Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Parts, Phase, ReluMask, Role,
    by_precision,
};
use crate::settings::Settings;
use crate::tensor::Real;
use crate::tensor::{Dim, Layout, Placement, Shape};
use settings::{NormStatistics, PART, SAVED, SUMS, width};

pub use settings::BatchNorm;

/// Returns the number of pixels that have separate channels: 1, or H * W after flatten.
fn pixels(x: Activation) -> usize {
    if x.flat { x.h * x.w } else { 1 }
}

/// Creates a vector over channels.
pub(super) fn channels(name: &'static str, x: Activation, value: f64) -> Param {
    if pixels(x) == 1 {
        return Param::vector(name, x.c, value);
    }
    Param { shape: Shape::from([x.h, x.w, x.c]), file_order: vec![2, 0, 1], ..Param::vector(name, x.features(), value) }
}

/// The channels of a parameter over all values of a sample: (H, W, C).
const PARAM_CHANNELS: Dim = Dim(2);
/// The parts of the statistics of a batch: (parts, kinds, H * W, C).
const PARTS: Dim = Dim(0);

impl Layer for BatchNorm {
    fn key(&self) -> &'static str {
        "batch_norm"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        if self.cumulative && self.is_fixed() {
            let message =
                "cumulative has no effect with statistics = \"running\", which do not change; remove one of them";
            return Err(Fault::at("cumulative", message));
        }
        Ok(())
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(inputs[0])
    }
    fn parts(&self) -> Parts {
        match self.statistics {
            NormStatistics::Running => Parts::Alike,
            NormStatistics::Batch if self.cumulative => Parts::Refused(
                "cumulative = true is the mean over updates of one batch each; use momentum, or accumulate = 1",
            ),
            NormStatistics::Batch => Parts::Apart,
        }
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        let all = [channels("weight", inputs[0], 1.0), channels("bias", inputs[0], 0.0)];
        all.into_iter().filter(|_| self.affine).collect()
    }
    fn statistics(&self, inputs: &[Activation]) -> Vec<Param> {
        vec![channels("running_mean", inputs[0], 0.0), channels("running_var", inputs[0], 1.0)]
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        8 * inputs[0].features() as u64
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        use Placement::{Partial, Replicate, Shard};
        let (x, input) = (cx.x(), cx.inputs[0]);
        let sharded = cx.place == Placement::Shard(Dim::CHANNELS);
        let shares_batch = cx.place == Placement::Shard(Dim::BATCH);
        // The placement of a tensor over channels, whose channels are its dim `dim`.
        let channels = |dim| if sharded { Shard(dim) } else { Replicate };
        let param = Layout::new(Replicate, channels(if pixels(input) == 1 { Dim::OUTPUTS } else { PARAM_CHANNELS }));
        // Statistics are (parts, kinds, P, C): one device's part, one device's term, or equal on all devices.
        let part = Layout::new(Shard(PARTS), if shares_batch { Shard(PARTS) } else { channels(Dim::CHANNELS) });
        let term = Layout::new(Partial, if shares_batch { Partial } else { channels(Dim::CHANNELS) });
        let all = Layout::new(Replicate, channels(Dim::CHANNELS));
        let affine = if self.affine { vec![Role::WEIGHT, Role::BIAS] } else { vec![] };
        let with_affine = |phase: Phase| affine.iter().fold(phase, |phase, &role| phase.read(role, param));

        let mut phases =
            LayerPhases { params: vec![param; affine.len()], statistics: vec![param; 2], ..LayerPhases::default() };
        if !cx.training() {
            let evaluate = Phase::new("forward")
                .read(Role::X(0), x)
                .read(Role::Statistic(0), param)
                .read(Role::Statistic(1), param)
                .write(Role::Y, x)
                .accepts(Epilogue::Relu);
            phases.forward = vec![with_affine(evaluate)];
            return Ok(phases);
        }
        let devices = if shares_batch { cx.mesh.devices() } else { cx.mesh.data };
        phases.saved = [[devices, 3], [1, 2], [1, 2]]
            .map(|[parts, kinds]| Shape::from([parts, kinds, pixels(input), input.c]))
            .to_vec();
        // A device that has the whole batch needs no parts of others.
        let alone = devices == 1;
        let mut normalize = match alone {
            true => Phase::new("train").read(Role::X(0), x).write(PART, all),
            false => Phase::new("normalize").read(Role::X(0), x).read(PART, all),
        };
        if self.is_fixed() {
            normalize = Phase::new("fixed").read(Role::X(0), x);
            normalize = normalize.read(Role::Statistic(0), param).read(Role::Statistic(1), param);
        } else if !cx.frozen {
            normalize = normalize.update(Role::Statistic(0), param).update(Role::Statistic(1), param);
        }
        normalize = with_affine(normalize.write(SAVED, all).write(Role::Y, x).accepts(Epilogue::Relu));
        let statistics = Phase::new("statistics").read(Role::X(0), x).write(PART, part);
        phases.forward = if alone || self.is_fixed() { vec![normalize] } else { vec![statistics, normalize] };
        // Where y is positive follows from x.
        let reduce = Phase::new("reduce").read(Role::X(0), x).read(SAVED, all).read(Role::Dy, x).write(SUMS, term);
        let reduce = reduce.masks(ReluMask::After, affine.iter().map(|&role| (role, param)));
        let mut backward = Phase::new("backward")
            .read(Role::X(0), x)
            .read(SAVED, all)
            .read(Role::Dy, x)
            .read(SUMS, all)
            .write(Role::Dx(0), x)
            .masks(ReluMask::After, affine.iter().filter(|&&role| role == Role::BIAS).map(|&role| (role, param)));
        if self.affine {
            backward = backward.read(Role::WEIGHT, param).write(Role::D_WEIGHT, param).write(Role::D_BIAS, param);
        }
        phases.backward = vec![reduce, backward];
        Ok(phases)
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        let width = width(shapes);
        match (phase, target) {
            (_, Target::Gpu { .. }) => launch::scratch(phase, shapes),
            ("train", _) => statistics::scratch(shapes, width).max(width),
            ("statistics" | "reduce", _) => statistics::scratch(shapes, width),
            ("forward" | "normalize" | "fixed", _) => width,
            ("backward", _) => 3 * width,
            _ => unknown_phase(phase),
        }
    }
    fn run(&self, phase: &str, args: &Args) {
        let width = width(args.operands);
        if width == 0 {
            return;
        }
        by_precision!(args, T => match phase {
            "forward" => self.evaluate::<T>(args),
            "statistics" => statistics::count::<T>(args, width),
            "normalize" => self.normalize::<T>(args),
            "fixed" => self.normalize_fixed::<T>(args),
            "train" => {
                statistics::count::<T>(args, width);
                self.normalize::<T>(args);
            }
            "reduce" => statistics::reduce::<T>(args, width),
            "backward" => self.backward::<T>(args),
            _ => unknown_phase(phase),
        })
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        if width(launch.operands) == 0 {
            return Ok(());
        }
        match phase {
            "forward" => self.launch_evaluate(launch),
            "statistics" => launch::count(launch),
            "train" => self.launch_train(launch),
            "normalize" => self.launch_normalize(launch),
            "fixed" => self.launch_fixed(launch),
            "reduce" => launch::reduce(launch),
            "backward" => self.launch_backward(launch),
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let plain = BatchNorm { affine: false, ..BatchNorm::default() };
        let flat = Activation { flat: true, ..Activation::new(2, 1, 4) };
        vec![
            (BatchNorm::default(), vec![Activation::new(3, 2, 4)]),
            (plain, vec![Activation::new(2, 2, 6)]),
            (BatchNorm { momentum: 0.3, ..BatchNorm::default() }, vec![flat]),
            (BatchNorm { cumulative: true, ..BatchNorm::default() }, vec![Activation::new(2, 2, 4)]),
            (
                BatchNorm { statistics: NormStatistics::Running, epsilon: 0.5, ..BatchNorm::default() },
                vec![Activation::new(3, 2, 4)],
            ),
        ]
    }
}

/// Approximate number of elements per task.
const BLOCK: usize = 1 << 14;

impl BatchNorm {
    /// Returns whether training normalises by the running statistics.
    fn is_fixed(&self) -> bool {
        self.statistics == NormStatistics::Running
    }

    /// Returns the weight of the batch of an update in the running statistics.
    fn momentum_in(&self, update: u64) -> f64 {
        if self.cumulative { 1.0 / update.max(1) as f64 } else { self.momentum }
    }

    /// Keeps the running statistics for the backward pass, and normalises by them.
    fn normalize_fixed<T: Real>(&self, args: &Args) {
        let (mean, var) = (args.read::<T>(Role::Statistic(0)), args.read::<T>(Role::Statistic(1)));
        let (kept, deviation) = args.write::<T>(SAVED).split_at_mut(mean.len());
        kept.copy_from_slice(mean);
        for (deviation, &var) in deviation.iter_mut().zip(var) {
            *deviation = T::ONE / (var + T::from_f64(self.epsilon)).sqrt();
        }
        let scale = &mut args.scratch::<T>()[..mean.len()];
        scale.copy_from_slice(deviation);
        self.apply(args, mean, scale);
    }

    fn normalize<T: Real>(&self, args: &Args) {
        let width = width(args.operands);
        let kept = args.write::<T>(SAVED);
        let (mean, deviation) = kept.split_at_mut(width);
        let count = statistics::merge(args.read::<T>(PART), mean, deviation);
        let real = T::from_f64;
        // One value has no variance.
        if args.has(Role::Statistic(0)) && count > 1.0 {
            let running = args.write::<T>(Role::Statistic(0)).iter_mut().zip(args.write::<T>(Role::Statistic(1)));
            let (momentum, unbiased) = (real(self.momentum_in(args.clock.step)), real(1.0 / (count - 1.0)));
            for ((mean, var), (&new_mean, &m2)) in running.zip(mean.iter().zip(&*deviation)) {
                let new_var = m2 * unbiased;
                if new_mean.to_f64().is_finite() && new_var.to_f64().is_finite() {
                    *mean = *mean + momentum * (new_mean - *mean);
                    *var = *var + momentum * (new_var - *var);
                }
            }
        }
        for v in deviation.iter_mut() {
            *v = T::ONE / (*v * real(1.0 / count.max(1.0)) + real(self.epsilon)).sqrt();
        }
        let scale = &mut args.scratch::<T>()[..width];
        scale.copy_from_slice(deviation);
        self.apply(args, mean, scale);
    }

    fn evaluate<T: Real>(&self, args: &Args) {
        let (mean, var) = (args.read::<T>(Role::Statistic(0)), args.read::<T>(Role::Statistic(1)));
        let scale = args.scratch::<T>();
        for (scale, &var) in scale.iter_mut().zip(var) {
            *scale = T::ONE / (var + T::from_f64(self.epsilon)).sqrt();
        }
        self.apply(args, mean, scale);
    }

    /// Computes y = (x - mean) scale w + b.
    fn apply<T: Real>(&self, args: &Args, mean: &[T], scale: &mut [T]) {
        let width = mean.len();
        let bias = self.affine.then(|| args.read::<T>(Role::BIAS));
        if self.affine {
            scale.iter_mut().zip(args.read::<T>(Role::WEIGHT)).for_each(|(s, &w)| *s *= w);
        }
        let (x, scale) = (args.read::<T>(Role::X(0)), &*scale);
        let size = (BLOCK / width).max(1) * width;
        args.chunks(args.write::<T>(Role::Y), size, |task, y, _| {
            let x = &x[task * size..][..y.len()];
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        for (((y, &x), &mean), &scale) in y.iter_mut().zip(x).zip(mean).zip(scale) {
                            *y = (x - mean) * scale;
                        }
                        if let Some(bias) = bias {
                            y.iter_mut().zip(bias).for_each(|(y, &b)| *y += b);
                        }
                    }
                },
            );
        });
    }

    fn backward<T: Real>(&self, args: &Args) {
        let width = width(args.operands);
        let (mean, deviation) = args.read::<T>(SAVED).split_at(width);
        let (sum, weighted) = args.read::<T>(SUMS).split_at(width);
        for (role, sums) in [(Role::D_WEIGHT, weighted), (Role::D_BIAS, sum)] {
            if self.affine {
                args.write::<T>(role).copy_from_slice(sums);
            }
        }
        if !args.has(Role::Dx(0)) {
            return;
        }
        // dx = a dy + b (x - mean) + c
        let (x, dy) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::Dy));
        let (a, rest) = args.scratch::<T>().split_at_mut(width);
        let (b, c) = rest.split_at_mut(width);
        a.copy_from_slice(deviation);
        if self.affine {
            a.iter_mut().zip(args.read::<T>(Role::WEIGHT)).for_each(|(a, &w)| *a *= w);
        }
        // Statistics that do not depend on x have no gradient.
        let share = if self.is_fixed() { 0.0 } else { 1.0 / statistics::values_per_channel(args) as f64 };
        let share = T::from_f64(share);
        for i in 0..width {
            b[i] = -(a[i] * deviation[i] * weighted[i] * share);
            c[i] = -(a[i] * sum[i] * share);
        }
        let (a, b, c) = (&*a, &*b, &*c);
        let size = (BLOCK / width).max(1) * width;
        args.chunks(args.write::<T>(Role::Dx(0)), size, |task, dx, _| {
            let part = task * size..task * size + dx.len();
            let (x, dy) = (&x[part.clone()], &dy[part]);
            vectorized(
                #[inline(always)]
                || {
                    let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dy.chunks_exact(width));
                    for ((dx, x), dy) in rows {
                        for i in 0..width {
                            dx[i] = a[i] * dy[i] + b[i] * (x[i] - mean[i]) + c[i];
                        }
                    }
                },
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Mode, Setup, SingleLayer};
    use crate::tensor::Mesh;

    fn layer(mesh: Mesh, mode: Mode) -> SingleLayer<'static, f64> {
        static LAYER: BatchNorm = BatchNorm {
            momentum: 0.1,
            epsilon: 1e-5,
            affine: true,
            statistics: NormStatistics::Batch,
            cumulative: false,
        };
        let setup = Setup { mesh, mode, batch: 4, ..Setup::default() };
        let mut layer = SingleLayer::new(&LAYER, &[Activation::new(1, 1, 1)], &setup).unwrap();
        layer.values_mut(Role::X(0)).copy_from_slice(&[1e6 + 1.0, 1e6 + 2.0, 1e6 + 3.0, 1e6 + 6.0]);
        layer.values_mut(Role::Param(0)).fill(2.0);
        layer.values_mut(Role::Param(1)).fill(7.0);
        layer
    }

    #[test]
    fn statistics_cover_the_whole_batch_on_any_number_of_devices() {
        for mesh in [Mesh::ONE, Mesh { data: 3, columns: 1 }, Mesh { data: 6, columns: 1 }] {
            let mut layer = layer(mesh, Mode::Train);
            layer.forward().unwrap();
            let scale = 2.0 / (3.5f64 + 1e-5).sqrt();
            for (y, x) in layer.values(Role::Y).iter().zip([-2.0, -1.0, 0.0, 3.0]) {
                assert!((y - (x * scale + 7.0)).abs() < 1e-12, "{mesh} {y}");
            }
            assert!((layer.values(Role::Statistic(0))[0] - (1e5 + 0.3)).abs() < 1e-9);
            assert!((layer.values(Role::Statistic(1))[0] - (0.9 + 0.1 * 14.0 / 3.0)).abs() < 1e-12);
        }
    }

    #[test]
    fn cumulative_statistics_are_those_of_the_first_batch_after_it() {
        let layer = BatchNorm { cumulative: true, ..BatchNorm::default() };
        let setup = Setup { batch: 4, ..Setup::default() };
        let mut single = SingleLayer::<f64>::new(&layer, &[Activation::new(1, 1, 1)], &setup).unwrap();
        single.values_mut(Role::X(0)).copy_from_slice(&[1.0, 2.0, 3.0, 6.0]);
        single.forward().unwrap();
        assert_eq!(single.values(Role::Statistic(0))[0], 3.0);
        assert!((single.values(Role::Statistic(1))[0] - 14.0 / 3.0).abs() < 1e-14);
        assert_eq!([1, 2, 4].map(|update| layer.momentum_in(update)), [1.0, 0.5, 0.25]);
    }

    #[test]
    fn fixed_statistics_normalise_and_stay() {
        let layer = BatchNorm { statistics: NormStatistics::Running, epsilon: 1.0, ..BatchNorm::default() };
        let setup = Setup { batch: 2, ..Setup::default() };
        let mut single = SingleLayer::<f64>::new(&layer, &[Activation::new(1, 1, 1)], &setup).unwrap();
        single.values_mut(Role::X(0)).copy_from_slice(&[5.0, 9.0]);
        single.values_mut(Role::Statistic(0)).fill(1.0);
        single.values_mut(Role::Statistic(1)).fill(3.0);
        single.values_mut(Role::WEIGHT).fill(3.0);
        single.values_mut(Role::Dy).copy_from_slice(&[1.0, 2.0]);
        single.forward().unwrap();
        single.backward().unwrap();
        assert_eq!(single.values(Role::Y), [6.0, 12.0]);
        assert_eq!(single.values(Role::Dx(0)), [1.5, 3.0]);
        assert_eq!((single.values(Role::D_WEIGHT)[0], single.values(Role::D_BIAS)[0]), (2.0 + 8.0, 3.0));
        assert_eq!((single.values(Role::Statistic(0))[0], single.values(Role::Statistic(1))[0]), (1.0, 3.0));
        let both = BatchNorm { cumulative: true, ..layer.clone() };
        assert!(both.check().unwrap_err().message.starts_with("cumulative has no effect"));
    }

    #[test]
    fn evaluation_uses_the_running_statistics() {
        let mut layer = layer(Mesh::ONE, Mode::Eval);
        layer.values_mut(Role::Statistic(0)).fill(1e6);
        layer.values_mut(Role::Statistic(1)).fill(4.0 - 1e-5);
        layer.forward().unwrap();
        assert_eq!(layer.values(Role::Y), [8.0, 9.0, 10.0, 13.0]);
    }
}
