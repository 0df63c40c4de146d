//! Nearest-neighbour upsampling: y[i, j] = x[i / scale, j / scale].
//!
//! x: (N, H, W, C); y: (N, scale H, scale W, C). Backward: dx is the sum of dy over the pixels of y that are copies.

use super::rearrange::{Move, by_moves, samples};
use super::{Activation, Layer, Operands};
use crate::error::Fault;
use crate::settings::{Range, settings};

const SCALE: Range<usize> = Range { text: "1 to 16", contains: |scale| (1..=16).contains(scale) };

settings! {
    /// The `upsample` layer.
    pub struct Upsample from scale {
        /// Factor of height and width.
        pub scale: usize = 2, in SCALE;
    }
}

impl Layer for Upsample {
    fn key(&self) -> &'static str {
        "upsample"
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let x = inputs[0];
        if x.flat {
            return Err(Fault::whole("upsample needs images (height, width, channels); put it before flatten"));
        }
        Ok(Activation { h: x.h * self.scale, w: x.w * self.scale, ..x })
    }
    by_moves!();
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        vec![
            (Upsample { scale: 2 }, vec![Activation::new(3, 2, 4)]),
            (Upsample { scale: 3 }, vec![Activation::new(1, 2, 3)]),
        ]
    }
}

impl Upsample {
    fn moves(&self, phase: &str, operands: &Operands) -> Vec<Move> {
        let Some([[h, w, c], [_, width, _]]) = samples(phase, operands) else { return Vec::new() };
        let (scale, row) = (self.scale, width * c);
        let (from, to) = ([0, 0, w * c, c, 1], [0, 0, scale * row, scale * c, 1]);
        let copies = [(scale, row), (scale, c)];
        vec![Move { input: 0, dims: [1, 1, h, w, c], from: (0, from), to: (0, to), copies }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Role, Setup, SingleLayer};

    #[test]
    fn values_and_gradients_move() {
        let (layer, x) = (Upsample { scale: 2 }, [Activation::new(1, 2, 1)]);
        let mut single = SingleLayer::<f32>::new(&layer, &x, &Setup::of_rows(1)).unwrap();
        single.values_mut(Role::X(0)).copy_from_slice(&[1.0, 2.0]);
        single.values_mut(Role::Dy).copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        single.forward().unwrap();
        single.backward().unwrap();
        assert_eq!(single.values(Role::Y), [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
        assert_eq!(single.values(Role::Dx(0)), [14.0, 22.0]);
    }
}
