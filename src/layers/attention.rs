//! Multi-head attention of every pixel to every pixel of a sample (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>): for each
//! head, with D = C / heads channels, y_i = sum over j of p_ij v_j, where p_i = softmax over j of (q_i k_j / sqrt D).
//!
//! Inputs, in this order: queries q, keys k, values v; q, k, v, y: (N, H, W, C), whose H W pixels are the positions. Head h has the
//! channels h D to (h + 1) D - 1. Put a 1x1 `conv` for each before it, and one after it; without positions in them, outputs do not depend
//! on the order of pixels. Backward: dv_j = sum of p_ij dy_i; with ds_ij = p_ij (dy_i v_j - sum over k of p_ik dy_i v_k) / sqrt D, dq_i = sum of ds_ij k_j and
//! dk_j = sum of ds_ij q_i. The probabilities are computed again.
//!
//! If `heads` is a multiple of the number of columns, each column has its own heads; otherwise every column needs all channels.

use super::layer::unknown_phase;
use super::rearrange;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Phase, Role, Split, by_precision};
use crate::cpu::{Matrix, Scalar, vectorized};
use crate::device::{Operand, Target};
use crate::error::{Fault, Result};
use crate::gpu::kernels::{AttentionGeometry, any};
use crate::gpu::{Grid, ints};
use crate::settings::{AT_LEAST_ONE, settings};
use crate::tensor::{Dim, Mesh, Placement};

settings! {
    /// The `attention` layer.
    pub struct Attention {
        /// Number of heads, a divisor of the channels.
        pub heads: usize = 8, in AT_LEAST_ONE;
    }
}

const Q: Role = Role::X(0);
const K: Role = Role::X(1);
const V: Role = Role::X(2);
/// The most channels of a head: a warp has eight for each thread.
const MOST_CHANNELS: usize = 256;
/// Positions that a block of threads processes on a GPU.
const WARPS: usize = 8;

/// The sizes of a device's operands.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    samples: usize,
    positions: usize,
    c: usize,
    heads: usize,
    /// Channels of a head.
    d: usize,
}

impl Sizes {
    fn image(self) -> usize {
        self.positions * self.c
    }
    fn scale(self) -> f64 {
        1.0 / (self.d as f64).sqrt()
    }
}

impl Attention {
    fn sizes(&self, x: &Operand) -> Sizes {
        let d = (x.shape.0[3] / self.heads).max(1);
        Sizes { samples: x.len(0), positions: x.len(1) * x.len(2), c: x.len(3), heads: x.len(3) / d, d }
    }
}

impl Layer for Attention {
    fn key(&self) -> &'static str {
        "attention"
    }
    fn num_inputs(&self) -> std::ops::RangeInclusive<usize> {
        3..=3
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if let Some(other) = inputs.iter().find(|&&other| other != x) {
            let message =
                format!("its inputs are {x} and {other}, expected queries, keys and values of the same shape");
            return Err(Fault::whole(message));
        }
        if x.flat && x.h * x.w > 1 {
            return Err(Fault::whole("attention needs the pixels of images as positions; put it before flatten"));
        }
        let each = x.c / self.heads;
        if !x.c.is_multiple_of(self.heads) || each > MOST_CHANNELS {
            let message = format!(
                "heads = {} of {} channels, expected a divisor with at most {MOST_CHANNELS} channels for each head",
                self.heads, x.c
            );
            return Err(Fault::at("heads", message));
        }
        Ok(x)
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        let positions = (inputs[0].h * inputs[0].w) as u64;
        4u64.saturating_mul(positions).saturating_mul(inputs[0].features() as u64)
    }
    fn preferred_input(
        &self,
        _: Activation,
        incoming: Placement,
        split: Option<Split>,
        mesh: Mesh,
    ) -> Option<Placement> {
        let divides = self.heads.is_multiple_of(mesh.columns);
        match split {
            Some(Split::Columns | Split::Rows) if divides => Some(Placement::Shard(Dim::CHANNELS)),
            None if divides => None,
            split => rearrange::all_channels(incoming, split),
        }
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        let mut backward = Phase::new("backward").read(Q, x).read(K, x).read(V, x).read(Role::Dy, x);
        for input in 0..3 {
            backward = backward.write(Role::Dx(input), x);
        }
        Ok(LayerPhases::simple(Phase::new("forward").read(Q, x).read(K, x).read(V, x).write(Role::Y, x), backward))
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        let Sizes { samples, positions, heads, .. } = self.sizes(&shapes[Q]);
        match (phase, target) {
            ("forward", Target::Cpu { threads }) => threads * positions * positions,
            ("backward", Target::Cpu { threads }) => 2 * threads * positions * positions,
            // The logarithm of the sum of a row, and the mean of dy_i v_j.
            ("backward", _) => 2 * samples * positions * heads,
            _ => 0,
        }
    }
    fn run(&self, phase: &str, args: &Args) {
        let sizes = self.sizes(args.operand(Q));
        if sizes.image() == 0 {
            return;
        }
        by_precision!(args, T => match phase {
            "forward" => forward::<T>(args, sizes),
            "backward" => backward::<T>(args, sizes),
            _ => unknown_phase(phase),
        });
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let sizes = self.sizes(launch.operand(Q));
        let all = sizes.samples * sizes.heads * sizes.positions;
        if all == 0 {
            return Ok(());
        }
        let [positions, c, heads, d] = ints([sizes.positions, sizes.c, sizes.heads, sizes.d])?;
        let geometry = AttentionGeometry { rows: all as i64, positions, c, heads, d, scale: sizes.scale() as f32 };
        let (grid, [q, k, v]) = (Grid::cover(all, WARPS), [Q, K, V].map(|role| launch.any(role)));
        match phase {
            // SAFETY: q, k, v and y have the shape of the geometry.
            "forward" => unsafe {
                any::attention_forward(&launch.issue, grid, q, k, v, launch.any_mut(Role::Y), geometry)
            },
            "backward" => {
                let (dy, stats) = (launch.any(Role::Dy), launch.scratch());
                let [dq, dk, dv] = [0, 1, 2].map(|input| {
                    let role = Role::Dx(input);
                    if launch.has(role) { launch.any_mut(role) } else { crate::gpu::AnyMut::NONE }
                });
                // SAFETY: as above for all operands; the scratch memory has two values for each row. Gradients may be null.
                unsafe {
                    any::attention_queries(&launch.issue, grid, q, k, v, dy, dq, stats, geometry)?;
                    if !launch.has(Role::Dx(1)) && !launch.has(Role::Dx(2)) {
                        return Ok(());
                    }
                    any::attention_keys(&launch.issue, grid, q, k, v, dy, stats.into(), dk, dv, geometry)
                }
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![
            (Attention { heads: 2 }, vec![Activation::new(3, 2, 4); 3]),
            (Attention { heads: 4 }, vec![Activation::new(1, 5, 8); 3]),
            (Attention { heads: 1 }, vec![Activation::new(2, 2, 3); 3]),
        ]
    }
}

/// Computes the probabilities (positions, positions) of a head of a sample.
fn probabilities<T: Scalar>(q: &[T], k: &[T], sizes: Sizes, head: usize, p: &mut [T]) {
    let Sizes { positions, c, d, .. } = sizes;
    let first = head * d;
    let (a, b) = (Matrix::rows(&q[first..], c), Matrix::transposed(&k[first..], c));
    T::gemm(positions, positions, d, a, b, p, positions, false);
    let scale = T::from_f64(sizes.scale());
    for row in p.chunks_exact_mut(positions) {
        let most = row.iter().fold(row[0], |most, &s| most.max(s));
        let mut sum = T::ZERO;
        for s in row.iter_mut() {
            *s = ((*s - most) * scale).exp();
            sum += *s;
        }
        let share = T::ONE / sum;
        vectorized(
            #[inline(always)]
            || row.iter_mut().for_each(|p| *p *= share),
        );
    }
}

/// Computes y; each task handles one sample.
fn forward<T: Scalar>(args: &Args, sizes: Sizes) {
    let [q, k, v] = [Q, K, V].map(|role| args.read::<T>(role));
    let Sizes { positions, c, heads, d, .. } = sizes;
    let image = sizes.image();
    args.chunks_with_scratch(args.write::<T>(Role::Y), image, args.scratch::<T>(), |n, y, p| {
        let part = n * image..(n + 1) * image;
        let p = &mut p[..positions * positions];
        for head in 0..heads {
            probabilities(&q[part.clone()], &k[part.clone()], sizes, head, p);
            let (a, b) = (Matrix::rows(&*p, positions), Matrix::rows(&v[part.clone()][head * d..], c));
            T::gemm(positions, d, positions, a, b, &mut y[head * d..], c, false);
        }
    });
}

/// Computes dq, dk and dv, one after another; each task handles one sample.
fn backward<T: Scalar>(args: &Args, sizes: Sizes) {
    let [q, k, v, dy] = [Q, K, V, Role::Dy].map(|role| args.read::<T>(role));
    let Sizes { positions, c, heads, d, .. } = sizes;
    let (image, square, scale) = (sizes.image(), positions * positions, T::from_f64(sizes.scale()));
    for input in (0..3).filter(|&input| args.has(Role::Dx(input))) {
        args.chunks_with_scratch(args.write::<T>(Role::Dx(input)), image, args.scratch::<T>(), |n, dx, scratch| {
            let part = n * image..(n + 1) * image;
            let [q, k, v, dy] = [q, k, v, dy].map(|all| &all[part.clone()]);
            let (p, ds) = scratch[..2 * square].split_at_mut(square);
            for first in (0..heads).map(|head| head * d) {
                probabilities(q, k, sizes, first / d, p);
                let to = &mut dx[first..];
                if input == 2 {
                    let (a, b) = (Matrix::transposed(&*p, positions), Matrix::rows(&dy[first..], c));
                    T::gemm(positions, d, positions, a, b, to, c, false);
                    continue;
                }
                let (a, b) = (Matrix::rows(&dy[first..], c), Matrix::transposed(&v[first..], c));
                T::gemm(positions, positions, d, a, b, ds, positions, false);
                for (ds, p) in ds.chunks_exact_mut(positions).zip(p.chunks_exact(positions)) {
                    let mean = ds.iter().zip(p).fold(T::ZERO, |sum, (&ds, &p)| sum + p * ds);
                    vectorized(
                        #[inline(always)]
                        || ds.iter_mut().zip(p).for_each(|(ds, &p)| *ds = p * (*ds - mean) * scale),
                    );
                }
                let (a, b) = match input {
                    0 => (Matrix::rows(&*ds, positions), Matrix::rows(&k[first..], c)),
                    _ => (Matrix::transposed(&*ds, positions), Matrix::rows(&q[first..], c)),
                };
                T::gemm(positions, d, positions, a, b, to, c, false);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn a_query_that_fits_one_key_takes_its_value() {
        let x = vec![Activation::new(1, 2, 1); 3];
        let mut single = SingleLayer::<f64>::new(&Attention { heads: 1 }, &x, &Setup::of_rows(1)).unwrap();
        single.values_mut(Q).copy_from_slice(&[0.0, 100.0]);
        single.values_mut(K).copy_from_slice(&[1.0, -1.0]);
        single.values_mut(V).copy_from_slice(&[3.0, 5.0]);
        single.forward().unwrap();
        assert_eq!(single.values(Role::Y), [4.0, 3.0]);
        let fault = Attention { heads: 3 }.output(&[Activation::new(2, 2, 8); 3]).unwrap_err();
        assert!(fault.message.starts_with("heads = 3 of 8 channels"), "{}", fault.message);
    }
}
