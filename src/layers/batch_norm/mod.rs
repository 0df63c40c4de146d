//! Batch normalisation: y = w (x - mean) / sqrt(var + epsilon) + b, per channel, with the mean and the variance of
//! the whole batch in training and running ones in evaluation (Ioffe and Szegedy 2015,
//! <https://arxiv.org/abs/1502.03167>).
//!
//! x, y: (N, H, W, C); weight, bias, running_mean, running_var: (C), or after flatten (H, W, C), each feature being
//! its own channel. Statistics run over the n = N H W (or N) values of a channel on *all* devices that share the
//! batch: each device counts its part as (count, mean, M2 = sum of squared distances from the mean), the parts are
//! gathered and merged in a fixed order (Chan et al. 1983, <https://doi.org/10.1080/00031305.1983.10483115>); sums
//! of squares would cancel. The running variance is the unbiased M2 / (n - 1), as in PyTorch.
//!
//! Backward, with xhat = (x - mean) / sqrt(var + epsilon): db = sum of dy, dw = sum of dy xhat,
//! dx = w / sqrt(var + epsilon) * (dy - db / n - xhat dw / n), the sums again over the whole batch.

mod launch;
mod statistics;

use super::*;
use crate::device::vectorized;
use crate::tensor::Real;

/// The layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchNorm {
    /// Weight of this batch in the running statistics, 0 to 1; 0.1 by default.
    pub momentum: f64,
    /// Added to the variance, above 0; 1e-5 by default.
    pub epsilon: f64,
    /// Whether there are a weight and a bias; true by default.
    pub affine: bool,
}

impl Default for BatchNorm {
    fn default() -> Self {
        BatchNorm { momentum: 0.1, epsilon: 1e-5, affine: true }
    }
}

/// Number of pixels that are channels of their own: 1, or after flatten H * W.
fn pixels(x: Activation) -> usize {
    if x.flat { x.h * x.w } else { 1 }
}

/// A vector over channels.
fn vector(name: &'static str, x: Activation, value: f64) -> Param {
    if pixels(x) == 1 {
        return Param::vector(name, x.c, value);
    }
    Param { shape: Shape::from([x.h, x.w, x.c]), file_order: vec![2, 0, 1], ..Param::vector(name, x.features(), value) }
}

impl Layer for BatchNorm {
    fn kind(&self) -> &'static str {
        "batch_norm"
    }
    fn check(&self) -> Result<(), Fault> {
        if !(0.0..=1.0).contains(&self.momentum) {
            return Err(Fault::at("momentum", format!("momentum = {}, expected 0 to 1", self.momentum)));
        }
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(Fault::at("epsilon", format!("epsilon = {}, expected more than 0", self.epsilon)));
        }
        Ok(())
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        Ok(inputs[0])
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        let all = [vector("weight", inputs[0], 1.0), vector("bias", inputs[0], 0.0)];
        all.into_iter().filter(|_| self.affine).collect()
    }
    fn states(&self, inputs: &[Activation]) -> Vec<Param> {
        vec![vector("running_mean", inputs[0], 0.0), vector("running_var", inputs[0], 1.0)]
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        8 * inputs[0].features() as u64
    }
    fn lower(&self, cx: &Lowering) -> Result<Lowered, Fault> {
        use Place::{Partial, Replicate, Shard};
        let (x, input) = (cx.x(), cx.inputs[0]);
        let sharded = cx.place == Place::Shard(3);
        let shares_batch = cx.place == Place::Shard(0);
        // Where a tensor over channels is, its channels being dimension `dim`.
        let channels = |dim| if sharded { Shard(dim) } else { Replicate };
        let param = Layout::new(Replicate, channels(if pixels(input) == 1 { 0 } else { 2 }));
        // Statistics are (parts, kinds, P, C): a part of one device, a term of one device, or the same on all.
        let part = Layout::new(Shard(0), if shares_batch { Shard(0) } else { channels(3) });
        let term = Layout::new(Partial, if shares_batch { Partial } else { channels(3) });
        let all = Layout::new(Replicate, channels(3));
        let affine = if self.affine { vec![Role::Param(0), Role::Param(1)] } else { vec![] };
        let with_affine = |phase: Phase| affine.iter().fold(phase, |phase, &role| phase.read(role, param));

        let mut lowered = Lowered { params: vec![param; affine.len()], states: vec![param; 2], ..Lowered::default() };
        if !cx.training() {
            let evaluate = Phase::new("forward")
                .read(Role::X(0), x)
                .read(Role::State(0), param)
                .read(Role::State(1), param)
                .write(Role::Y, x);
            lowered.forward = vec![with_affine(evaluate)];
            return Ok(lowered);
        }
        let devices = if shares_batch { cx.mesh.devices() } else { cx.mesh.data };
        lowered.locals = [[devices, 3], [1, 2], [1, 2]]
            .map(|[parts, kinds]| Shape::from([parts, kinds, pixels(input), input.c]))
            .to_vec();
        let statistics = Phase::new("statistics").read(Role::X(0), x).write(Role::Local(0), part);
        let normalize = Phase::new("normalize")
            .read(Role::X(0), x)
            .read(Role::Local(0), all)
            .update(Role::State(0), param)
            .update(Role::State(1), param)
            .write(Role::Local(1), all)
            .write(Role::Y, x);
        lowered.forward = vec![statistics, with_affine(normalize)];
        let reduce = Phase::new("reduce")
            .read(Role::X(0), x)
            .read(Role::Local(1), all)
            .read(Role::Dy, x)
            .write(Role::Local(2), term);
        let mut backward = Phase::new("backward")
            .read(Role::X(0), x)
            .read(Role::Local(1), all)
            .read(Role::Dy, x)
            .read(Role::Local(2), all)
            .write(Role::Dx(0), x);
        if self.affine {
            backward = backward.read(Role::Param(0), param).write(Role::DParam(0), param).write(Role::DParam(1), param);
        }
        lowered.backward = vec![reduce, backward];
        Ok(lowered)
    }
    fn scratch(&self, pass: Pass, phase: usize, operands: &[Option<Operand>], _: usize) -> usize {
        let width = width(operands);
        match (pass, phase) {
            (Pass::Forward, 0) if !evaluates(operands) => statistics::scratch(operands, width),
            (Pass::Forward, _) => width,
            (Pass::Backward, 0) => statistics::scratch(operands, width),
            (Pass::Backward, _) => 3 * width,
        }
    }
    fn run(&self, pass: Pass, phase: usize, args: &Args) {
        if width(args.operands) == 0 {
            return;
        }
        by_precision!(args, T => match (pass, phase) {
            (Pass::Forward, 0) if evaluates(args.operands) => self.evaluate::<T>(args),
            (Pass::Forward, 0) => statistics::count::<T>(args, width(args.operands)),
            (Pass::Forward, _) => self.normalize::<T>(args),
            (Pass::Backward, 0) => statistics::reduce::<T>(args, width(args.operands)),
            (Pass::Backward, _) => self.backward::<T>(args),
        })
    }
    fn device_scratch(&self, pass: Pass, phase: usize, operands: &[Option<Operand>]) -> usize {
        launch::scratch(pass, phase, operands)
    }
    fn takes_relu(&self) -> bool {
        true
    }
    fn launch(&self, pass: Pass, phase: usize, launch: &Launch) -> Result<()> {
        match (pass, phase) {
            _ if width(launch.operands) == 0 => Ok(()),
            (Pass::Forward, 0) if evaluates(launch.operands) => self.launch_evaluate(launch),
            (Pass::Forward, 0) => launch::count(launch),
            (Pass::Forward, _) => self.launch_normalize(launch),
            (Pass::Backward, 0) => launch::reduce(launch),
            (Pass::Backward, _) => self.launch_backward(launch),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let plain = BatchNorm { affine: false, ..BatchNorm::default() };
        let flat = Activation { flat: true, ..Activation::new(2, 1, 4) };
        vec![
            (BatchNorm::default(), vec![Activation::new(3, 2, 4)]),
            (plain, vec![Activation::new(2, 2, 6)]),
            (BatchNorm { momentum: 0.3, ..BatchNorm::default() }, vec![flat]),
        ]
    }
}

/// Returns true for the operands of evaluation, false for those of the first training phase.
fn evaluates(operands: &[Option<Operand>]) -> bool {
    operands.len() > 3
}

/// Returns the number of channels of this device; operand 1 holds values of each channel in every phase.
fn width(operands: &[Option<Operand>]) -> usize {
    let o = operands[1].as_ref().expect("every phase reads or writes statistics");
    if o.shape.rank() == 4 { o.len(2) * o.len(3) } else { o.elements() }
}

/// Elements per task, about.
const BLOCK: usize = 1 << 14;

impl BatchNorm {
    /// Operands (x, part, running mean, running variance, kept mean and 1 / deviation, y, w, b, scratch).
    fn normalize<T: Real>(&self, args: &Args) {
        let width = width(args.operands);
        let kept = args.write::<T>(4);
        let (mean, deviation) = kept.split_at_mut(width);
        let count = statistics::merge(args.read::<T>(1), mean, deviation);
        let real = T::from_f64;
        let momentum = real(self.momentum);
        let update = |old: &mut T, new: T| *old = *old + momentum * (new - *old);
        args.write::<T>(2).iter_mut().zip(&*mean).for_each(|(old, &new)| update(old, new));
        let unbiased = real(1.0 / (count - 1.0).max(1.0));
        args.write::<T>(3).iter_mut().zip(&*deviation).for_each(|(old, &m2)| update(old, m2 * unbiased));
        for v in deviation.iter_mut() {
            *v = T::ONE / (*v * real(1.0 / count.max(1.0)) + real(self.epsilon)).sqrt();
        }
        let scale = args.write::<T>(args.operands.len() - 1);
        scale.copy_from_slice(deviation);
        self.apply(args, 5, mean, scale, 6);
    }

    /// Operands (x, running mean, running variance, y, w, b, scratch).
    fn evaluate<T: Real>(&self, args: &Args) {
        let (mean, var) = (args.read::<T>(1), args.read::<T>(2));
        let scale = args.write::<T>(args.operands.len() - 1);
        for (scale, &var) in scale.iter_mut().zip(var) {
            *scale = T::ONE / (var + T::from_f64(self.epsilon)).sqrt();
        }
        self.apply(args, 3, mean, scale, 4);
    }

    /// y = (x - mean) scale w + b; y is operand `y`, w and b are `affine` and the next.
    fn apply<T: Real>(&self, args: &Args, y: usize, mean: &[T], scale: &mut [T], affine: usize) {
        let width = mean.len();
        let bias = self.affine.then(|| args.read::<T>(affine + 1));
        if self.affine {
            scale.iter_mut().zip(args.read::<T>(affine)).for_each(|(s, &w)| *s *= w);
        }
        let (x, scale) = (args.read::<T>(0), &*scale);
        let size = (BLOCK / width).max(1) * width;
        args.chunks(args.write::<T>(y), size, |task, y, _| {
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

    /// Operands (x, kept, dy, sums, dx, w, dw, db, scratch).
    fn backward<T: Real>(&self, args: &Args) {
        let width = width(args.operands);
        let (mean, deviation) = args.read::<T>(1).split_at(width);
        let (sum, weighted) = args.read::<T>(3).split_at(width);
        for (i, sums) in [(6, weighted), (7, sum)] {
            if self.affine && args.has(i) {
                args.write::<T>(i).copy_from_slice(sums);
            }
        }
        if !args.has(4) {
            return;
        }
        // dx = a dy + b (x - mean) + c
        let (x, dy) = (args.read::<T>(0), args.read::<T>(2));
        let (a, rest) = args.write::<T>(args.operands.len() - 1).split_at_mut(width);
        let (b, c) = rest.split_at_mut(width);
        a.copy_from_slice(deviation);
        if self.affine {
            a.iter_mut().zip(args.read::<T>(5)).for_each(|(a, &w)| *a *= w);
        }
        let share = T::from_f64(1.0 / statistics::values_per_channel(args) as f64);
        for i in 0..width {
            b[i] = -(a[i] * deviation[i] * weighted[i] * share);
            c[i] = -(a[i] * sum[i] * share);
        }
        let (a, b, c) = (&*a, &*b, &*c);
        let size = (BLOCK / width).max(1) * width;
        args.chunks(args.write::<T>(4), size, |task, dx, _| {
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

    fn layer(mesh: Mesh, mode: Mode) -> Alone<'static, f64> {
        static LAYER: BatchNorm = BatchNorm { momentum: 0.1, epsilon: 1e-5, affine: true };
        let setting = Setting { mesh, mode, rows: 4, ..Setting::default() };
        let mut layer = Alone::new(&LAYER, &[Activation::new(1, 1, 1)], &setting).unwrap();
        layer.values_mut(Role::X(0)).copy_from_slice(&[1e6 + 1.0, 1e6 + 2.0, 1e6 + 3.0, 1e6 + 6.0]);
        layer.values_mut(Role::Param(0)).fill(2.0);
        layer.values_mut(Role::Param(1)).fill(7.0);
        layer
    }

    #[test]
    fn the_batch_is_normalised_whole_on_any_number_of_devices() {
        for mesh in [Mesh::ONE, Mesh { data: 3, columns: 1 }, Mesh { data: 6, columns: 1 }] {
            let mut layer = layer(mesh, Mode::Train);
            layer.forward().unwrap();
            let scale = 2.0 / (3.5f64 + 1e-5).sqrt();
            for (y, x) in layer.values(Role::Y).iter().zip([-2.0, -1.0, 0.0, 3.0]) {
                assert!((y - (x * scale + 7.0)).abs() < 1e-12, "{mesh} {y}");
            }
            assert!((layer.values(Role::State(0))[0] - (1e5 + 0.3)).abs() < 1e-9);
            assert!((layer.values(Role::State(1))[0] - (0.9 + 0.1 * 14.0 / 3.0)).abs() < 1e-12);
        }
    }

    #[test]
    fn evaluation_uses_the_running_statistics() {
        let mut layer = layer(Mesh::ONE, Mode::Eval);
        layer.values_mut(Role::State(0)).fill(1e6);
        layer.values_mut(Role::State(1)).fill(4.0 - 1e-5);
        layer.forward().unwrap();
        assert_eq!(layer.values(Role::Y), [8.0, 9.0, 10.0, 13.0]);
    }
}
