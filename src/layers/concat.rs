//! Concatenation of the channels of 2 to 64 inputs (Szegedy et al. 2015, <https://arxiv.org/abs/1409.4842>).
//!
//! x0, x1, ...: (N, H, W, Ci); y: (N, H, W, sum of Ci). Backward: dx_i is a slice of dy. Every column needs all channels, unless
//! columns share out the batch. No settings.

use super::rearrange::{self, Move, by_moves, sample};
use super::{Activation, Layer, Operands, Role};
use crate::error::Fault;
use crate::settings::settings;

settings! {
    /// The `concat` layer.
    pub struct Concat {}
}

impl Layer for Concat {
    fn key(&self) -> &'static str {
        "concat"
    }
    fn num_inputs(&self) -> std::ops::RangeInclusive<usize> {
        2..=64
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        let first = inputs[0];
        if let Some(other) = inputs.iter().find(|x| (x.h, x.w, x.flat) != (first.h, first.w, first.flat)) {
            let message = format!(
                "its inputs are {first} and {other}, expected the same height and width; give the branches the same strides"
            );
            return Err(Fault::whole(message));
        }
        Ok(Activation { c: inputs.iter().map(|x| x.c).sum(), ..first })
    }
    fn needs_every_dx(&self) -> bool {
        // What an input lacks in channels says where the next one begins.
        true
    }
    by_moves!(all_channels);
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        let image = |c| Activation::new(2, 3, c);
        vec![(Concat {}, vec![image(4), image(2)]), (Concat {}, vec![image(1), image(8), image(3)])]
    }
}

impl Concat {
    fn moves(&self, phase: &str, operands: &Operands) -> Vec<Move> {
        let (part, y): (fn(usize) -> Role, Role) = match phase {
            "forward" => (Role::X, Role::Y),
            _ => (Role::Dx, Role::Dy),
        };
        let ([h, w, c], mut first) = (sample(&operands[y]), 0);
        let mut all = Vec::new();
        for input in (0..).take_while(|&input| operands.has(part(input))) {
            let own = sample(&operands[part(input)])[2];
            let (from, to) = ([0, 0, 0, own, 1], [0, 0, 0, c, 1]);
            all.push(Move {
                input,
                dims: [1, 1, 1, h * w, own],
                from: (0, from),
                to: (first, to),
                copies: rearrange::ONCE,
            });
            first += own;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Setup, SingleLayer};

    #[test]
    fn channels_follow_one_another() {
        let x = [Activation::new(1, 2, 1), Activation::new(1, 2, 2)];
        let mut concat = SingleLayer::<f32>::new(&Concat {}, &x, &Setup::of_rows(1)).unwrap();
        concat.values_mut(Role::X(0)).copy_from_slice(&[1.0, 2.0]);
        concat.values_mut(Role::X(1)).copy_from_slice(&[3.0, 4.0, 5.0, 6.0]);
        concat.values_mut(Role::Dy).copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        concat.forward().unwrap();
        concat.backward().unwrap();
        assert_eq!(concat.values(Role::Y), [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
        assert_eq!(concat.values(Role::Dx(0)), [1.0, 4.0]);
        assert_eq!(concat.values(Role::Dx(1)), [2.0, 3.0, 5.0, 6.0]);
    }
}
