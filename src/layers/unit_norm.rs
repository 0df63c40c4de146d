//! What layer_norm, group_norm and instance_norm share. A unit is one group of channels in all pixels of one sample; its values
//! are normalised: y = w (x - mean) / sqrt(var + epsilon) + b, with the mean and the variance of the unit, and w and b per channel.
//!
//! Backward, with xhat = (x - mean) / sqrt(var + epsilon) and n values in a unit: db = sum of dy, dw = sum of dy xhat over all
//! samples and pixels, dx = (dy w - sum of dy w / n - xhat sum of dy w xhat / n) / sqrt(var + epsilon).

use super::layer::unknown_phase;
use super::row_sums::{self, Launches};
use super::split_k::sum_rows_on;
use super::{Args, Launch, LayerContext, LayerPhases, Operands, Phase, Role, by_precision};
use crate::cpu::{sum_lanes, vectorized};
use crate::device::{Operand, Target};
use crate::error::Result;
use crate::gpu::kernels::{UnitGeometry, any};
use crate::gpu::{Grid, Mut, int};
use crate::tensor::{Dim, Real, Shape};

/// The mean and 1 / deviation of each unit: (samples, 2, groups) as (N, pixels or 1, 2, groups).
const STATS: Role = Role::Saved(0);
/// Values per task.
const BLOCK: usize = 1 << 14;
/// The most values of a unit that a warp processes on a GPU.
const BY_WARP: usize = 2048;

/// How a layer divides values into units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct UnitNorm {
    /// The number of groups of channels, on all devices.
    pub groups: usize,
    /// Whether each pixel is a sample of its own.
    pub by_pixel: bool,
    /// Whether all values of a sample are channels of one pixel.
    pub flat: bool,
    /// What is added to the variance.
    pub epsilon: f64,
    /// Whether there are w and b.
    pub affine: bool,
}

/// The sizes of an operand on a device.
#[derive(Debug, Clone, Copy)]
struct Units {
    samples: usize,
    pixels: usize,
    c: usize,
    groups: usize,
}

impl Units {
    fn image(self) -> usize {
        self.pixels * self.c
    }

    /// Returns the values of a unit.
    fn values(self) -> usize {
        self.image() / self.groups.max(1)
    }
}

impl UnitNorm {
    fn units(&self, x: &Operand) -> Units {
        let [n, h, w, c] = [0, 1, 2, 3].map(|dim| x.len(dim));
        // A device with a shard of the channels has the same share of the groups.
        let groups = (self.groups * c).div_ceil(x.shape.0[3].max(1));
        match (self.flat, self.by_pixel) {
            (true, _) => Units { samples: n, pixels: 1, c: h * w * c, groups },
            (false, true) => Units { samples: n * h * w, pixels: 1, c, groups },
            (false, false) => Units { samples: n, pixels: h * w, c, groups },
        }
    }

    /// Returns the phases; `param` is the layout of w and b.
    pub fn phases(&self, cx: &LayerContext) -> LayerPhases {
        let (x, input) = (cx.x(), cx.inputs[0]);
        let (param, gradient) = cx.param_layouts(Some(Dim::OUTPUTS));
        let affine: &[Role] = if self.affine { &[Role::WEIGHT, Role::BIAS] } else { &[] };
        let mut forward = Phase::new("forward").read(Role::X(0), x).write(Role::Y, x);
        for &role in affine {
            forward = forward.read(role, param);
        }
        let mut phases = LayerPhases { params: vec![param; affine.len()], ..LayerPhases::default() };
        if !cx.training() {
            phases.forward = vec![forward];
            return phases;
        }
        let pixels = if self.by_pixel && !self.flat { input.h * input.w } else { 1 };
        phases.saved = vec![Shape::from([cx.batch, pixels, 2, self.groups])];
        phases.forward = vec![forward.write(STATS, x)];
        let mut backward =
            Phase::new("backward").read(Role::X(0), x).read(STATS, x).read(Role::Dy, x).write(Role::Dx(0), x);
        if self.affine {
            backward = backward.read(Role::WEIGHT, param).write(Role::D_WEIGHT, gradient).write(Role::D_BIAS, gradient);
        }
        phases.backward = vec![backward];
        phases
    }

    /// Returns the scratch memory of a phase.
    pub fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        let units = self.units(&shapes[Role::X(0)]);
        let Units { samples, pixels, c, groups } = units;
        let sums = if self.affine { 2 * c + row_sums::scratch(samples * 2 * c, 2 * c) } else { 0 };
        match (phase, target) {
            ("forward", Target::Cpu { threads }) => threads * 3 * c + 2 * groups * samples,
            ("backward", Target::Cpu { threads }) => threads * 3 * c + sums,
            ("backward", _) if self.affine => Launches::new(samples * pixels, c).scratch(),
            _ => 0,
        }
    }

    /// Runs a phase on a CPU device.
    pub fn run(&self, phase: &str, args: &Args) {
        let units = self.units(args.operand(Role::X(0)));
        if units.image() == 0 {
            return;
        }
        by_precision!(args, T => match phase {
            "forward" => self.forward::<T>(args, units),
            "backward" => {
                self.backward::<T>(args, units);
                if self.affine {
                    sum_gradients::<T>(args, units);
                }
            }
            _ => unknown_phase(phase),
        });
    }

    fn forward<T: Real>(&self, args: &Args, units: Units) {
        let Units { samples, c, groups, .. } = units;
        let (x, all) = (args.read::<T>(Role::X(0)), args.scratch::<T>());
        let (stats, scratch) = all.split_at_mut(2 * groups * samples);
        let stats = if args.has(STATS) { args.write::<T>(STATS) } else { stats };
        let [weight, bias] = [Role::WEIGHT, Role::BIAS].map(|role| self.affine.then(|| args.read::<T>(role)));
        let (image, epsilon) = (units.image(), T::from_f64(self.epsilon));
        let each = (BLOCK / image).max(1);
        args.chunks_with_scratch(stats, each * 2 * groups, scratch, |task, stats, scratch| {
            for (i, stats) in stats.chunks_exact_mut(2 * groups).enumerate() {
                measure(&x[(task * each + i) * image..][..image], units, epsilon, stats, scratch);
            }
        });
        let stats = &*stats;
        args.chunks_with_scratch(args.write::<T>(Role::Y), each * image, scratch, |task, y, scratch| {
            for (i, y) in y.chunks_exact_mut(image).enumerate() {
                let sample = task * each + i;
                let (x, stats) = (&x[sample * image..][..image], &stats[sample * 2 * groups..][..2 * groups]);
                let (mean, scale) = scratch[..2 * c].split_at_mut(c);
                spread(stats, units, weight, mean, scale);
                let (mean, scale) = (&*mean, &*scale);
                vectorized(
                    #[inline(always)]
                    || {
                        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                            for (((y, &x), &mean), &scale) in y.iter_mut().zip(x).zip(mean).zip(scale) {
                                *y = (x - mean) * scale;
                            }
                            if let Some(bias) = bias {
                                y.iter_mut().zip(bias).for_each(|(y, &b)| *y += b);
                            }
                        }
                    },
                );
            }
        });
    }

    fn backward<T: Real>(&self, args: &Args, units: Units) {
        if !args.has(Role::Dx(0)) {
            return;
        }
        let Units { c, groups, .. } = units;
        let (x, dy, stats) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::Dy), args.read::<T>(STATS));
        let weight = self.affine.then(|| args.read::<T>(Role::WEIGHT));
        let (image, share) = (units.image(), T::from_f64(1.0 / units.values() as f64));
        let each = (BLOCK / image).max(1);
        let own = args.scratch::<T>().len().min(args.pool.threads() * 3 * c);
        let scratch = &mut args.scratch::<T>()[..own];
        args.chunks_with_scratch(args.write::<T>(Role::Dx(0)), each * image, scratch, |task, dx, scratch| {
            for (i, dx) in dx.chunks_exact_mut(image).enumerate() {
                let sample = task * each + i;
                let (x, dy) = (&x[sample * image..][..image], &dy[sample * image..][..image]);
                let stats = &stats[sample * 2 * groups..][..2 * groups];
                // First the scales, then sums of dy and of dy (x - mean) of each channel in their place.
                let (mean, rest) = scratch[..3 * c].split_at_mut(c);
                let (a, b) = rest.split_at_mut(c);
                spread(stats, units, None, mean, a);
                channel_sums(x, dy, mean, a, b);
                let per = c / groups;
                for g in 0..groups {
                    let range = g * per..(g + 1) * per;
                    let weigh = |sums: &[T]| match weight {
                        Some(w) => sums.iter().zip(&w[range.clone()]).fold(T::ZERO, |sum, (&s, &w)| sum + s * w),
                        None => sums.iter().fold(T::ZERO, |sum, &s| sum + s),
                    };
                    let (sum, weighted) = (weigh(&a[range.clone()]) * share, weigh(&b[range.clone()]) * share);
                    let inverse = stats[groups + g];
                    a[range.clone()].fill(sum * inverse);
                    b[range.clone()].fill(weighted * inverse * inverse * inverse);
                }
                let (mean, a, b) = (&*mean, &*a, &*b);
                for ((dx, x), dy) in dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(dy.chunks_exact(c)) {
                    vectorized(
                        #[inline(always)]
                        || {
                            for i in 0..c {
                                let own = weight.map_or(dy[i], |w| dy[i] * w[i]);
                                dx[i] = stats[groups + i / per] * own - a[i] - (x[i] - mean[i]) * b[i];
                            }
                        },
                    );
                }
            }
        });
    }

    fn geometry(&self, units: Units) -> Result<UnitGeometry> {
        let by_warp = i32::from(units.values() <= BY_WARP);
        let [pixels, c, groups] = crate::gpu::ints([units.pixels, units.c, units.groups])?;
        Ok(UnitGeometry { samples: units.samples as i64, pixels, c, groups, by_warp })
    }

    /// Launches a phase on a GPU.
    pub fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let units = self.units(launch.operand(Role::X(0)));
        if units.image() == 0 {
            return Ok(());
        }
        let geometry = self.geometry(units)?;
        let all = units.samples * units.groups;
        let grid = if geometry.by_warp != 0 { Grid::cover(all, 8) } else { Grid::new(all, 1, 1) };
        let x = launch.any(Role::X(0));
        let w = launch.read_or_null(Role::WEIGHT);
        match phase {
            "forward" => {
                let b = launch.read_or_null(Role::BIAS);
                let (y, epsilon) = (launch.any_mut(Role::Y), self.epsilon as f32);
                let stats = if launch.has(STATS) { launch.write(STATS) } else { Mut::NONE };
                // SAFETY: x and y hold the units of the geometry, w and b their channels, and the statistics two values of each.
                unsafe { any::unit_norm_forward(&launch.issue, grid, x, w, b, y, stats, epsilon, geometry) }
            }
            "backward" => {
                let (stats, dy) = (launch.read(STATS), launch.any(Role::Dy));
                if launch.has(Role::Dx(0)) {
                    let dx = launch.any_mut(Role::Dx(0));
                    // SAFETY: as above, for x, dy and dx.
                    unsafe { any::unit_norm_backward(&launch.issue, grid, x, stats, w, dy, dx, geometry)? };
                }
                if !self.affine {
                    return Ok(());
                }
                let rows = units.samples * units.pixels;
                Launches::new(rows, units.c).run(launch, Role::D_WEIGHT, |grid, to, each| {
                    // SAFETY: x and dy are (rows, c); the parts fit where `to` points.
                    unsafe { any::unit_norm_weights(&launch.issue, grid, x, stats, dy, to, int(each)?, geometry) }
                })?;
                sum_rows_on(launch, Role::Dy, rows, Role::D_BIAS)
            }
            _ => unknown_phase(phase),
        }
    }
}

/// Writes the means of a sample's units, and 1 / deviation.
fn measure<T: Real>(x: &[T], units: Units, epsilon: T, stats: &mut [T], scratch: &mut [T]) {
    let Units { c, groups, .. } = units;
    let share = T::from_f64(1.0 / units.values() as f64);
    let (means, inverses) = stats.split_at_mut(groups);
    if groups == 1 {
        let mean = sum_lanes(x, |x| x) * share;
        let squares = sum_lanes(x, |x| (x - mean) * (x - mean));
        (means[0], inverses[0]) = (mean, T::ONE / (squares * share + epsilon).sqrt());
        return;
    }
    let per = c / groups;
    let (sums, mean) = scratch[..2 * c].split_at_mut(c);
    let total = |sums: &[T], g: usize| sums[g * per..(g + 1) * per].iter().fold(T::ZERO, |sum, &s| sum + s) * share;
    sums.fill(T::ZERO);
    for row in x.chunks_exact(c) {
        vectorized(
            #[inline(always)]
            || sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x),
        );
    }
    for (g, to) in means.iter_mut().enumerate() {
        *to = total(sums, g);
        mean[g * per..(g + 1) * per].fill(*to);
    }
    sums.fill(T::ZERO);
    for row in x.chunks_exact(c) {
        vectorized(
            #[inline(always)]
            || {
                for ((sum, &x), &mean) in sums.iter_mut().zip(row).zip(&*mean) {
                    *sum += (x - mean) * (x - mean);
                }
            },
        );
    }
    for (g, to) in inverses.iter_mut().enumerate() {
        *to = T::ONE / (total(sums, g) + epsilon).sqrt();
    }
}

/// Writes for each channel the mean of its unit, and 1 / deviation times the weight.
fn spread<T: Real>(stats: &[T], units: Units, weight: Option<&[T]>, mean: &mut [T], scale: &mut [T]) {
    let per = units.c / units.groups;
    let (means, inverses) = stats.split_at(units.groups);
    for g in 0..units.groups {
        mean[g * per..(g + 1) * per].fill(means[g]);
        scale[g * per..(g + 1) * per].fill(inverses[g]);
    }
    if let Some(weight) = weight {
        scale.iter_mut().zip(weight).for_each(|(scale, &w)| *scale *= w);
    }
}

/// Writes the sums over the pixels of dy and of dy (x - mean) of each channel.
fn channel_sums<T: Real>(x: &[T], dy: &[T], mean: &[T], sum: &mut [T], weighted: &mut [T]) {
    let c = mean.len();
    sum.fill(T::ZERO);
    weighted.fill(T::ZERO);
    for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
        vectorized(
            #[inline(always)]
            || {
                for i in 0..c {
                    sum[i] += dy[i];
                    weighted[i] += dy[i] * (x[i] - mean[i]);
                }
            },
        );
    }
}

/// Writes the gradients of w and b.
fn sum_gradients<T: Real>(args: &Args, units: Units) {
    let Units { samples, c, groups, .. } = units;
    let (x, dy, stats) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::Dy), args.read::<T>(STATS));
    let (image, per) = (units.image(), c / groups);
    let (sums, scratch) = args.scratch::<T>()[args.pool.threads() * 3 * c..].split_at_mut(2 * c);
    row_sums::sum(args, samples * 2 * c, sums, scratch, |first, sums| {
        let sample = first / (2 * c);
        let stats = &stats[sample * 2 * groups..][..2 * groups];
        let (weighted, sum) = sums.split_at_mut(c);
        let rows = x[sample * image..][..image].chunks_exact(c).zip(dy[sample * image..][..image].chunks_exact(c));
        for (x, dy) in rows {
            for g in 0..groups {
                let (mean, inverse) = (stats[g], stats[groups + g]);
                let part = g * per..(g + 1) * per;
                let pairs = x[part.clone()].iter().zip(&dy[part.clone()]);
                for ((weighted, sum), (&x, &dy)) in weighted[part.clone()].iter_mut().zip(&mut sum[part]).zip(pairs) {
                    *weighted += dy * (x - mean) * inverse;
                    *sum += dy;
                }
            }
        }
    });
    args.write::<T>(Role::D_WEIGHT).copy_from_slice(&sums[..c]);
    args.write::<T>(Role::D_BIAS).copy_from_slice(&sums[c..]);
}
