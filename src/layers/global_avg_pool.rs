//! Mean over height and width: y[n, 0, 0, c] = sum over i, j of x[n, i, j, c] / (H W) (Lin et al. 2013,
//! <https://arxiv.org/abs/1312.4400>).
//!
//! x: (N, H, W, C); y: (N, 1, 1, C). Backward: dx[n, i, j, c] = dy[n, 0, 0, c] / (H W). No settings.

use super::layer::unknown_phase;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Phase, Role, by_precision};
use crate::cpu::vectorized;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::gpu::{Grid, int};
use crate::settings::settings;
use crate::tensor::Real;

settings! {
    /// The `global_avg_pool` layer.
    pub struct GlobalAvgPool {}
}

impl Layer for GlobalAvgPool {
    fn key(&self) -> &'static str {
        "global_avg_pool"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        if inputs[0].flat {
            let message = format!(
                "global_avg_pool needs images (height, width, channels), but its input is a flat vector of {} \
                 features; put it before flatten",
                inputs[0].features()
            );
            return Err(Fault::whole(message));
        }
        Ok(Activation::new(1, 1, inputs[0].c))
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        Ok(LayerPhases::simple(
            Phase::new("forward").read(Role::X(0), x).write(Role::Y, x),
            Phase::new("backward").read(Role::Dy, x).write(Role::Dx(0), x),
        ))
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => forward::<T>(args),
            "backward" => backward::<T>(args),
            _ => unknown_phase(phase),
        })
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let (image, from, to) = match phase {
            "forward" => (Role::X(0), Role::X(0), Role::Y),
            "backward" => (Role::Dx(0), Role::Dy, Role::Dx(0)),
            _ => unknown_phase(phase),
        };
        if !launch.has(to) {
            return Ok(());
        }
        let image = launch.operand(image);
        let (rows, pixels, c) = (image.len(0), image.len(1) * image.len(2), image.len(3));
        let share = (1.0 / pixels as f64) as f32;
        let (grid, n) = (launch.vectors(to), launch.count(to));
        let (from, to) = (launch.any(from), launch.any_mut(to));
        let (pixels, channels) = (int(pixels)?, int(c)?);
        if phase == "forward" {
            let grid = Grid::new(rows * c.div_ceil(32), 1, 1);
            // SAFETY: x is (rows, pixels, c), y (rows, c).
            unsafe { any::global_avg_pool_forward(&launch.issue, grid, from, to, pixels, channels, share) }
        } else {
            // SAFETY: dy is (rows, c), dx (rows, pixels, c).
            unsafe { any::global_avg_pool_backward(&launch.issue, grid, from, to, n, pixels, channels, share) }
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![(GlobalAvgPool {}, vec![Activation::new(3, 5, 4)])]
    }
}

/// Computes y; each task handles one sample.
fn forward<T: Real>(args: &Args) {
    let o = args.operand(Role::X(0));
    let (size, c) = (o.len(1) * o.len(2), o.len(3));
    let scale = T::from_f64(1.0 / size as f64);
    let x = args.read::<T>(Role::X(0));
    args.chunks(args.write::<T>(Role::Y), c, |n, y, _| {
        y.fill(T::ZERO);
        let x = &x[n * size * c..][..size * c];
        vectorized(
            #[inline(always)]
            || {
                for x in x.chunks_exact(c) {
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
                }
                y.iter_mut().for_each(|y| *y *= scale);
            },
        );
    });
}

/// Computes dx; each task handles one sample.
fn backward<T: Real>(args: &Args) {
    if !args.has(Role::Dx(0)) {
        return;
    }
    let o = args.operand(Role::Dx(0));
    let (size, c) = (o.len(1) * o.len(2), o.len(3));
    let scale = T::from_f64(1.0 / size as f64);
    let dy = args.read::<T>(Role::Dy);
    args.chunks(args.write::<T>(Role::Dx(0)), size * c, |n, dx, _| {
        let dy = &dy[n * c..][..c];
        vectorized(
            #[inline(always)]
            || {
                for dx in dx.chunks_exact_mut(c) {
                    dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx = dy * scale);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn the_mean_of_each_channel() {
        let x = [Activation::new(1, 2, 2)];
        let mut pool = SingleLayer::<f64>::new(&GlobalAvgPool {}, &x, &Setup::of_rows(1)).unwrap();
        pool.values_mut(Role::X(0)).copy_from_slice(&[1.0, 10.0, 3.0, 30.0]);
        pool.values_mut(Role::Dy).copy_from_slice(&[2.0, 4.0]);
        pool.forward().unwrap();
        pool.backward().unwrap();
        assert_eq!(pool.values(Role::Y), [2.0, 20.0]);
        assert_eq!(pool.values(Role::Dx(0)), [1.0, 2.0, 1.0, 2.0]);
    }
}
