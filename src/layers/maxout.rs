//! Maxout: each output channel is the largest of `pieces` consecutive input channels (Goodfellow et al. 2013,
//! <https://arxiv.org/abs/1302.4389>): y[c] = max over j of x[c pieces + j].
//!
//! x: (N, H, W, C pieces); y: (N, H, W, C). Backward: dx is dy at the first of the largest, 0 elsewhere. A column has its own
//! channels if the output channels are a multiple of the number of columns; otherwise every column needs all channels.

use super::layer::unknown_phase;
use super::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Phase, Role, Split, by_precision};
use crate::error::{Fault, Result};
use crate::gpu::int;
use crate::gpu::kernels::any;
use crate::settings::{Range, settings};
use crate::tensor::{Dim, Mesh, Placement, Real};

const PIECES: Range<usize> = Range { text: "2 to 65536", contains: |pieces| (2..=1 << 16).contains(pieces) };

settings! {
    /// The `maxout` layer.
    pub struct Maxout {
        /// Number of input channels of an output channel, a divisor of the channels.
        pub pieces: usize = 2, in PIECES;
    }
}

/// Values of the output per task.
const BLOCK: usize = 1 << 12;

impl Layer for Maxout {
    fn key(&self) -> &'static str {
        "maxout"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat && x.h * x.w > 1 {
            return Err(Fault::whole("maxout takes the largest of channels of an image; put it before flatten"));
        }
        if !x.c.is_multiple_of(self.pieces) {
            let message = format!("pieces = {} does not divide the {} channels of its input", self.pieces, x.c);
            return Err(Fault::at("pieces", message));
        }
        Ok(Activation { c: x.c / self.pieces, ..x })
    }
    fn preferred_input(
        &self,
        x: Activation,
        incoming: Placement,
        split: Option<Split>,
        mesh: Mesh,
    ) -> Option<Placement> {
        let divides = (x.c / self.pieces).is_multiple_of(mesh.columns);
        let channels = if divides { Placement::Shard(Dim::CHANNELS) } else { Placement::Replicate };
        match split {
            Some(Split::Batch) => Some(Placement::Shard(Dim::BATCH)),
            Some(Split::None) => Some(Placement::Replicate),
            Some(Split::Columns | Split::Rows) => Some(channels),
            None if !divides && matches!(incoming, Placement::Shard(Dim::CHANNELS) | Placement::Partial) => {
                Some(channels)
            }
            None => None,
        }
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let x = cx.x();
        Ok(LayerPhases::simple(
            Phase::new("forward").read(Role::X(0), x).write(Role::Y, x),
            Phase::new("backward").read(Role::X(0), x).read(Role::Dy, x).write(Role::Dx(0), x),
        ))
    }
    fn run(&self, phase: &str, args: &Args) {
        by_precision!(args, T => match phase {
            "forward" => self.forward::<T>(args),
            "backward" => self.backward::<T>(args),
            _ => unknown_phase(phase),
        });
    }
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()> {
        let (on, pieces, x) = (&launch.issue, int(self.pieces)?, launch.any(Role::X(0)));
        match phase {
            "forward" => {
                let (y, n) = (launch.any_mut(Role::Y), launch.count(Role::Y));
                // SAFETY: y has n elements, and x has `pieces` for each.
                unsafe { any::maxout_forward(on, launch.vectors(Role::Y), x, y, n, pieces) }
            }
            "backward" if !launch.has(Role::Dx(0)) => Ok(()),
            "backward" => {
                let (dy, dx, n) = (launch.any(Role::Dy), launch.any_mut(Role::Dx(0)), launch.count(Role::Dy));
                // SAFETY: dy has n elements, and x and dx have `pieces` for each.
                unsafe { any::maxout_backward(on, launch.vectors(Role::Dy), x, dy, dx, n, pieces) }
            }
            _ => unknown_phase(phase),
        }
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![
            (Maxout { pieces: 2 }, vec![Activation::new(3, 2, 8)]),
            (Maxout { pieces: 3 }, vec![Activation::new(2, 2, 9)]),
        ]
    }
}

impl Maxout {
    fn forward<T: Real>(&self, args: &Args) {
        let (x, pieces) = (args.read::<T>(Role::X(0)), self.pieces);
        args.chunks(args.write::<T>(Role::Y), BLOCK, |task, y, _| {
            for (y, x) in y.iter_mut().zip(x[task * BLOCK * pieces..].chunks_exact(pieces)) {
                *y = x[largest(x)];
            }
        });
    }

    fn backward<T: Real>(&self, args: &Args) {
        if !args.has(Role::Dx(0)) {
            return;
        }
        let (x, dy, pieces) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::Dy), self.pieces);
        args.chunks(args.write::<T>(Role::Dx(0)), BLOCK * pieces, |task, dx, _| {
            let x = &x[task * BLOCK * pieces..][..dx.len()];
            dx.fill(T::ZERO);
            for (i, (dx, x)) in dx.chunks_exact_mut(pieces).zip(x.chunks_exact(pieces)).enumerate() {
                dx[largest(x)] = dy[task * BLOCK + i];
            }
        });
    }
}

/// Returns the index of the first of the largest values; of the first that is NaN, if there is one.
fn largest<T: Real>(x: &[T]) -> usize {
    let is_nan = |x: T| x.to_f64().is_nan();
    (1..x.len()).fold(0, |best, i| if !is_nan(x[best]) && (x[i] > x[best] || is_nan(x[i])) { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn the_first_of_the_largest_gets_the_gradient() {
        let mut layer =
            SingleLayer::<f32>::new(&Maxout { pieces: 3 }, &[Activation::new(1, 1, 6)], &Setup::of_rows(1)).unwrap();
        layer.values_mut(Role::X(0)).copy_from_slice(&[1.0, 5.0, 5.0, -3.0, f32::NAN, 7.0]);
        layer.values_mut(Role::Dy).copy_from_slice(&[2.0, 4.0]);
        layer.forward().unwrap();
        layer.backward().unwrap();
        assert!(layer.values(Role::Y)[0] == 5.0 && layer.values(Role::Y)[1].is_nan());
        assert_eq!(layer.values(Role::Dx(0)), [0.0, 2.0, 0.0, 0.0, 4.0, 0.0]);
    }
}
