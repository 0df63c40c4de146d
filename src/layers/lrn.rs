//! Local response normalisation: y[n, i, j, c] = x[n, i, j, c] / s[n, i, j, c]^beta, with
//! s = k + alpha / size * sum of x^2 over the `size` channels around c (Krizhevsky et al. 2012, section 3.3,
//! <https://doi.org/10.1145/3065386>; alpha / size as in Caffe and PyTorch).
//!
//! x, y, s: (N, H, W, C). The window of c is c - size / 2 ..= c + (size - 1) / 2, clipped to c's group of
//! C / groups channels. Backward: dx[c] = dy[c] s[c]^-beta - 2 alpha beta / size * x[c] * sum of
//! dy[d] x[d] s[d]^(-beta - 1) over the channels d whose window contains c. In training, s is saved for this.
//!
//! If `groups` is a multiple of the number of columns, each column normalises its own channels; otherwise every
//! column needs all channels.

use super::layer::unknown_phase;
use super::{
    Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Phase, ReluMask, Role, Split, by_precision,
};
use crate::cpu::vectorized;
use crate::device::Target;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::gpu::{AnyMut, int};
use crate::settings::{AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, Range, settings};
use crate::tensor::Real;
use crate::tensor::{Dim, Mesh, Placement};

/// In training, k + alpha / size * the sum of squares of each window.
const SUMS: Role = Role::Saved(0);

const SIZE: Range<usize> = Range { text: "1 to 65536", contains: |size| (1..=1 << 16).contains(size) };

settings! {
    /// The `lrn` layer.
    pub struct Lrn {
        /// Number of channels in a window.
        pub size: usize = 5, in SIZE;
        /// Weight of the squares, before division by `size`.
        pub alpha: f64 = 1e-4, in NOT_NEGATIVE;
        /// Exponent.
        pub beta: f64 = 0.75, in NOT_NEGATIVE;
        /// Constant added to the sum.
        pub k: f64 = 2.0, in POSITIVE;
        /// Number of groups of channels that are normalised separately, a divisor of the channels.
        pub groups: usize = 1, in AT_LEAST_ONE;
    }
}

impl Layer for Lrn {
    fn key(&self) -> &'static str {
        "lrn"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat && x.h * x.w > 1 {
            return Err(Fault::whole("lrn normalises over the channels of an image; put it before flatten"));
        }
        if !x.c.is_multiple_of(self.groups) {
            let message = format!("groups = {} does not divide the {} channels of its input", self.groups, x.c);
            return Err(Fault::at("groups", message));
        }
        Ok(x)
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        ((2 * self.size + 10) * inputs[0].features()) as u64
    }
    fn preferred_input(
        &self,
        _: Activation,
        incoming: Placement,
        split: Option<Split>,
        mesh: Mesh,
    ) -> Option<Placement> {
        let channels = if self.groups.is_multiple_of(mesh.columns) {
            Placement::Shard(Dim::CHANNELS)
        } else {
            Placement::Replicate
        };
        match split {
            Some(Split::Batch) => Some(Placement::Shard(Dim::BATCH)),
            Some(Split::None) => Some(Placement::Replicate),
            Some(Split::Columns | Split::Rows) => Some(channels),
            // A partial input may be reduced to any placement, even shards of channels, unless the layer requires one.
            None if matches!(incoming, Placement::Shard(Dim::CHANNELS) | Placement::Partial)
                && channels != Placement::Shard(Dim::CHANNELS) =>
            {
                Some(channels)
            }
            None => None,
        }
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let mut phases = LayerPhases::simple(
            Phase::new("forward").read(Role::X(0), x).write(Role::Y, x),
            Phase::new("backward")
                .read(Role::X(0), x)
                .read(SUMS, x)
                .low_precision()
                .read(Role::Dy, x)
                .write(Role::Dx(0), x)
                .masks(ReluMask::Before, []),
        );
        if cx.training() {
            phases.saved.push(cx.inputs[0].batch(cx.batch));
            phases.forward[0] = phases.forward[0].clone().write(SUMS, x).low_precision();
        }
        Ok(phases)
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        match (phase, target) {
            ("backward", Target::Cpu { threads }) => threads * 2 * shapes[Role::X(0)].len(3),
            _ => 0,
        }
    }
    fn run(&self, phase: &str, args: &Args) {
        // Square roots are many times faster than a power, and can be vectorised.
        by_precision!(args, T => match self.beta {
            0.75 => self.pass::<T>(
                phase,
                args,
                #[inline(always)]
                |s| T::ONE / (s.sqrt() * s.sqrt().sqrt()),
            ),
            0.5 => self.pass::<T>(
                phase,
                args,
                #[inline(always)]
                |s| T::ONE / s.sqrt(),
            ),
            beta => self.pass::<T>(
                phase,
                args,
                #[inline(always)]
                |s| Real::powf(s, -beta),
            ),
        })
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let x = Role::X(0);
        let (n, group) = (launch.count(x), launch.operand(x).shape.0[3] / self.groups);
        let (grid, group, size) = (launch.vectors(x), int(group)?, int(self.size)?);
        let (scale, beta, k) = (self.alpha / self.size as f64, self.beta as f32, self.k as f32);
        let x = launch.any(x);
        match phase {
            "forward" => {
                let y = launch.any_mut(Role::Y);
                let kept = if launch.has(SUMS) { launch.any_mut(SUMS) } else { AnyMut::NONE };
                // SAFETY: x, y and the sums have n elements, in whole groups of channels.
                unsafe { any::lrn_forward(&launch.issue, grid, x, y, kept, n, group, size, scale as f32, beta, k) }
            }
            "backward" if !launch.has(Role::Dx(0)) => Ok(()),
            "backward" => {
                let (sums, dy, dx) = (launch.any(SUMS), launch.any(Role::Dy), launch.any_mut(Role::Dx(0)));
                let relu = i32::from(launch.relu());
                let slope = (2.0 * scale * self.beta) as f32;
                // SAFETY: x, the sums, dy and dx have n elements, in whole groups of channels.
                unsafe { any::lrn_backward(&launch.issue, grid, x, sums, dy, dx, n, group, size, slope, beta, relu) }
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let strong = Lrn { alpha: 0.9, k: 1.5, ..Lrn::default() };
        vec![
            (Lrn::default(), vec![Activation::new(2, 3, 8)]),
            (Lrn { groups: 2, ..strong.clone() }, vec![Activation::new(3, 2, 8)]),
            (Lrn { size: 4, beta: 0.6, ..strong }, vec![Activation::new(2, 2, 6)]),
        ]
    }
}

/// Pixels per task.
const PIXELS: usize = 128;

impl Lrn {
    /// Runs a phase. `power` computes s^-beta and must be `#[inline(always)]`.
    fn pass<T: Real>(&self, phase: &str, args: &Args, power: impl Fn(T) -> T + Sync) {
        match phase {
            "forward" => self.forward(args, power),
            "backward" => self.backward(args, power),
            _ => unknown_phase(phase),
        }
    }

    fn forward<T: Real>(&self, args: &Args, power: impl Fn(T) -> T + Sync) {
        let c = args.operand(Role::X(0)).len(3);
        let group = args.operand(Role::X(0)).shape.0[3] / self.groups;
        let (k, alpha) = (T::from_f64(self.k), T::from_f64(self.alpha / self.size as f64));
        let x = args.read::<T>(Role::X(0));
        let task = |task: usize, y: &mut [T], kept: &mut [T]| {
            let x = &x[task * PIXELS * c..][..y.len()];
            vectorized(
                #[inline(always)]
                || {
                    for (i, (x, y)) in x.chunks_exact(group).zip(y.chunks_exact_mut(group)).enumerate() {
                        self.sums(x, y);
                        y.iter_mut().for_each(|s| *s = k + alpha * *s);
                        if !kept.is_empty() {
                            kept[i * group..][..group].copy_from_slice(y);
                        }
                        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * power(*y));
                    }
                },
            );
        };
        match args.has(SUMS) {
            true => args.zip_chunks((args.write::<T>(Role::Y), PIXELS * c), (args.write::<T>(SUMS), PIXELS * c), task),
            false => args.chunks(args.write::<T>(Role::Y), PIXELS * c, |i, y, _| task(i, y, &mut [])),
        }
    }

    fn backward<T: Real>(&self, args: &Args, power: impl Fn(T) -> T + Sync) {
        if !args.has(Role::Dx(0)) {
            return;
        }
        let c = args.operand(Role::X(0)).len(3);
        let group = args.operand(Role::X(0)).shape.0[3] / self.groups;
        let slope = T::from_f64(2.0 * self.alpha * self.beta / self.size as f64);
        let (x, s, dy) = (args.read::<T>(Role::X(0)), args.read::<T>(SUMS), args.read::<T>(Role::Dy));
        let scratch = args.scratch::<T>();
        args.chunks_with_scratch(args.write::<T>(Role::Dx(0)), PIXELS * c, scratch, |task, dx, scratch| {
            let part = task * PIXELS * c..task * PIXELS * c + dx.len();
            let (x, s, dy) = (&x[part.clone()], &s[part.clone()], &dy[part]);
            let (terms, sums) = scratch[..2 * group].split_at_mut(group);
            vectorized(
                #[inline(always)]
                || {
                    for (i, dx) in dx.chunks_exact_mut(group).enumerate() {
                        let at = i * group..(i + 1) * group;
                        let (x, s, dy) = (&x[at.clone()], &s[at.clone()], &dy[at]);
                        dx.iter_mut().zip(s).zip(dy).for_each(|((dx, &s), &dy)| *dx = dy * power(s));
                        for (((t, &dx), &x), &s) in terms.iter_mut().zip(&*dx).zip(x).zip(s) {
                            *t = dx * x / s;
                        }
                        self.mirrored_sums(terms, sums);
                        for ((dx, &x), &sum) in dx.iter_mut().zip(x).zip(&*sums) {
                            *dx -= slope * x * sum;
                        }
                    }
                },
            );
        });
    }

    /// Computes sums[c] = sum of x[d]^2 over the window of c.
    #[inline(always)]
    fn sums<T: Real>(&self, x: &[T], sums: &mut [T]) {
        sums.iter_mut().zip(x).for_each(|(s, &x)| *s = x * x);
        for d in 1..=(self.size / 2).min(x.len()) {
            sums[d..].iter_mut().zip(x).for_each(|(s, &x)| *s += x * x);
        }
        for d in 1..=((self.size - 1) / 2).min(x.len()) {
            sums.iter_mut().zip(&x[d..]).for_each(|(s, &x)| *s += x * x);
        }
    }

    /// Computes sums[c] = sum of t[d] over the channels d whose window contains c.
    #[inline(always)]
    fn mirrored_sums<T: Real>(&self, t: &[T], sums: &mut [T]) {
        sums.copy_from_slice(t);
        for d in 1..=((self.size - 1) / 2).min(t.len()) {
            sums[d..].iter_mut().zip(t).for_each(|(s, &t)| *s += t);
        }
        for d in 1..=(self.size / 2).min(t.len()) {
            sums.iter_mut().zip(&t[d..]).for_each(|(s, &t)| *s += t);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn windows_across_columns_are_never_divided() {
        let (x, mesh) = (Activation::new(2, 2, 8), Mesh { data: 1, columns: 2 });
        for incoming in [Placement::Shard(Dim::CHANNELS), Placement::Partial] {
            let required = |groups| Lrn { groups, ..Lrn::default() }.preferred_input(x, incoming, None, mesh);
            assert_eq!((required(1), required(2)), (Some(Placement::Replicate), None));
        }
    }

    #[test]
    fn windows_stop_at_the_edges_of_groups() {
        let layer = Lrn { size: 3, alpha: 3.0, beta: 1.0, k: 1.0, groups: 2 };
        let mut lrn = SingleLayer::<f64>::new(&layer, &[Activation::new(1, 1, 6)], &Setup::of_rows(1)).unwrap();
        lrn.values_mut(Role::X(0)).copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        lrn.forward().unwrap();
        let s = [6.0, 15.0, 14.0, 42.0, 78.0, 62.0];
        assert_eq!(lrn.values(SUMS), s);
        let y: Vec<f64> = (0..6).map(|i| (i + 1) as f64 / s[i]).collect();
        assert!(lrn.values(Role::Y).iter().zip(&y).all(|(a, b)| (a - b).abs() < 1e-15));
    }
}
