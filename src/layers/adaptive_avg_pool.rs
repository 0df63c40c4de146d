//! Mean over windows that divide the image evenly, whatever its size: output row i is the mean of the rows floor(i H / h) to
//! ceil((i + 1) H / h) - 1 of H, likewise for columns (as PyTorch's `adaptive_avg_pool2d`).
//!
//! x: (N, H, W, C); y: (N, h, w, C). Windows overlap if h does not divide H. Backward: each pixel of dx is the sum over the windows
//! that contain it of dy, divided by their sizes.

use super::layer::unknown_phase;
use super::window::Pair;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Phase, Role, by_precision};
use crate::device::Operand;
use crate::error::{Fault, Result};
use crate::gpu::ints;
use crate::gpu::kernels::any;
use crate::settings::settings;
use crate::tensor::Real;
use std::ops::Range;

settings! {
    /// The `adaptive_avg_pool` layer.
    pub struct AdaptiveAvgPool {
        /// Height and width of the output, at least 1.
        pub size: Pair, example "6";
    }
}

/// Returns the indices of `n` that window `i` of `windows` covers; also the windows that cover index i of `windows`, of `n`.
fn window(i: usize, windows: usize, n: usize) -> Range<usize> {
    i * n / windows..((i + 1) * n).div_ceil(windows)
}

/// The sizes of an image and of its windows, and the channels.
struct Sizes {
    h: usize,
    w: usize,
    oh: usize,
    ow: usize,
    c: usize,
}

impl Sizes {
    fn of(x: &Operand, y: &Operand) -> Sizes {
        Sizes { h: x.len(1), w: x.len(2), oh: y.len(1), ow: y.len(2), c: x.len(3) }
    }
}

impl Layer for AdaptiveAvgPool {
    fn key(&self) -> &'static str {
        "adaptive_avg_pool"
    }
    fn check(&self) -> Result<(), Fault> {
        let most = 1 << 16;
        if [self.size.h, self.size.w].iter().any(|n| !(1..=most).contains(n)) {
            return Err(Fault::at("size", format!("size = {}, expected 1 to {most}", self.size)));
        }
        Ok(())
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        if inputs[0].flat {
            return Err(Fault::whole(
                "adaptive_avg_pool needs images (height, width, channels); put it before flatten",
            ));
        }
        Ok(Activation::new(self.size.h, self.size.w, inputs[0].c))
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
        });
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let (image, windows, from, to) = match phase {
            "forward" => (Role::X(0), Role::Y, Role::X(0), Role::Y),
            "backward" => (Role::Dx(0), Role::Dy, Role::Dy, Role::Dx(0)),
            _ => unknown_phase(phase),
        };
        if !launch.has(to) {
            return Ok(());
        }
        let Sizes { h, w, oh, ow, c } = Sizes::of(launch.operand(image), launch.operand(windows));
        let [h, w, oh, ow, c] = ints([h, w, oh, ow, c])?;
        let (grid, n) = (launch.vectors(to), launch.count(to));
        let (from, to) = (launch.any(from), launch.any_mut(to));
        // SAFETY: the image is (N, h, w, c), the windows (N, oh, ow, c), and n is the number of elements that are written.
        unsafe {
            match phase {
                "forward" => any::adaptive_avg_pool_forward(&launch.issue, grid, from, to, n, h, w, oh, ow, c),
                _ => any::adaptive_avg_pool_backward(&launch.issue, grid, from, to, n, h, w, oh, ow, c),
            }
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let pool = |h, w| AdaptiveAvgPool { size: Pair { h, w } };
        vec![
            (pool(2, 2), vec![Activation::new(5, 4, 3)]),
            (pool(3, 1), vec![Activation::new(2, 3, 4)]),
            (pool(2, 3), vec![Activation::new(4, 6, 2)]),
        ]
    }
}

/// Computes y; each task handles one sample.
fn forward<T: Real>(args: &Args) {
    let Sizes { h, w, oh, ow, c } = Sizes::of(args.operand(Role::X(0)), args.operand(Role::Y));
    let x = args.read::<T>(Role::X(0));
    args.chunks(args.write::<T>(Role::Y), oh * ow * c, |n, y, _| {
        let x = &x[n * h * w * c..][..h * w * c];
        for (at, y) in y.chunks_exact_mut(c).enumerate() {
            let (rows, columns) = (window(at / ow, oh, h), window(at % ow, ow, w));
            let share = T::from_f64(1.0 / (rows.len() * columns.len()) as f64);
            y.fill(T::ZERO);
            for pixel in rows.flat_map(|i| columns.clone().map(move |j| i * w + j)) {
                y.iter_mut().zip(&x[pixel * c..][..c]).for_each(|(y, &x)| *y += x);
            }
            y.iter_mut().for_each(|y| *y *= share);
        }
    });
}

/// Computes dx; each task handles one sample.
fn backward<T: Real>(args: &Args) {
    if !args.has(Role::Dx(0)) {
        return;
    }
    let Sizes { h, w, oh, ow, c } = Sizes::of(args.operand(Role::Dx(0)), args.operand(Role::Dy));
    let dy = args.read::<T>(Role::Dy);
    args.chunks(args.write::<T>(Role::Dx(0)), h * w * c, |n, dx, _| {
        let dy = &dy[n * oh * ow * c..][..oh * ow * c];
        for (at, dx) in dx.chunks_exact_mut(c).enumerate() {
            dx.fill(T::ZERO);
            for i in window(at / w, h, oh) {
                for j in window(at % w, w, ow) {
                    let share = T::from_f64(1.0 / (window(i, oh, h).len() * window(j, ow, w).len()) as f64);
                    dx.iter_mut().zip(&dy[(i * ow + j) * c..][..c]).for_each(|(dx, &dy)| *dx += dy * share);
                }
            }
        }
    });
}
