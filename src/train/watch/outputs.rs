//! Units that are dead and values that are saturated, in the outputs of activation functions.

use crate::layers::Activation;
use crate::tensor::LocalSlice;

/// The layers of which a unit that is 0 for all samples passes no gradient.
pub const RECTIFIERS: [&str; 4] = ["relu", "relu6", "hard_sigmoid", "hard_swish"];

/// Returns the test for saturated outputs of a layer, if its function has flat ends other than the zeros of a relu.
pub fn saturation(key: &str) -> Option<fn(f64) -> bool> {
    Some(match key {
        "tanh" => |y| y.abs() > 0.99,
        "sigmoid" => |y| !(0.01..=0.99).contains(&y),
        "hard_sigmoid" => |y| y == 0.0 || y == 1.0,
        "hard_swish" => |y| y == 0.0,
        "relu6" => |y| y == 6.0,
        _ => return None,
    })
}

/// What is known of the outputs of a layer.
#[derive(Debug, Clone)]
pub(super) struct Outputs {
    key: &'static str,
    shape: Activation,
    /// For each unit (channel, or after flatten feature), whether an output of it is not 0.
    alive: Vec<bool>,
    saturated: u64,
    values: u64,
}

impl Outputs {
    /// Creates what is known of the outputs of a layer before any has been seen; `None` if its units are never dead, and its values never
    /// saturated.
    pub fn of(key: &'static str, shape: Activation) -> Option<Self> {
        let units = if shape.flat { shape.features() } else { shape.c };
        let watched = RECTIFIERS.contains(&key) || saturation(key).is_some();
        watched.then(|| Outputs { key, shape, alive: vec![false; units], saturated: 0, values: 0 })
    }

    /// Forgets all outputs.
    pub fn clear(&mut self) {
        self.alive.fill(false);
        (self.saturated, self.values) = (0, 0);
    }

    /// Adds the first samples of a device's part of the outputs.
    pub fn add(&mut self, window: &LocalSlice, values: &[f64]) {
        let [_, h, w, c] = window.len[..] else { unreachable!("outputs are (N, H, W, C)") };
        let unit = |at: usize| {
            let (row, column, channel) = (at / (w * c) % h, at / c % w, at % c + window.start[3]);
            match self.shape.flat {
                true => ((row + window.start[1]) * self.shape.w + column + window.start[2]) * self.shape.c + channel,
                false => channel,
            }
        };
        for (at, _) in values.iter().enumerate().filter(|(_, y)| **y != 0.0) {
            self.alive[unit(at)] = true;
        }
        if let Some(is_saturated) = saturation(self.key) {
            self.saturated += values.iter().filter(|&&y| is_saturated(y)).count() as u64;
        }
        self.values += values.len() as u64;
    }

    /// Returns what is known as numbers, which can be added to those of other processes.
    pub fn numbers(&self) -> impl Iterator<Item = f64> {
        let alive = self.alive.iter().map(|&alive| f64::from(u8::from(alive)));
        alive.chain([self.saturated as f64, self.values as f64])
    }

    /// Takes what all processes know.
    pub fn take_numbers(&mut self, numbers: &mut impl Iterator<Item = f64>) {
        self.alive.iter_mut().zip(&mut *numbers).for_each(|(alive, count)| *alive = count > 0.0);
        let mut next = || numbers.next().unwrap_or_default() as u64;
        (self.saturated, self.values) = (next(), next());
    }

    /// Returns the share of units that are 0 for all samples, of a layer of which these pass no gradient.
    pub fn dead(&self) -> Option<f64> {
        let dead = self.alive.iter().filter(|&&alive| !alive).count();
        (RECTIFIERS.contains(&self.key) && self.values > 0).then(|| dead as f64 / self.alive.len() as f64)
    }

    /// Returns the share of values that are saturated, of a layer that has flat ends.
    pub fn saturated(&self) -> Option<f64> {
        (saturation(self.key).is_some() && self.values > 0).then(|| self.saturated as f64 / self.values as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start: [usize; 4], len: [usize; 4]) -> LocalSlice {
        LocalSlice { start: start.into(), len: len.into() }
    }

    #[test]
    fn a_unit_is_dead_if_it_is_0_on_all_devices() {
        let shape = Activation::new(1, 2, 3);
        let mut relu = Outputs::of("relu", shape).unwrap();
        assert_eq!((relu.dead(), relu.saturated()), (None, None), "nothing has been seen");
        // Two devices with a sample each.
        relu.add(&window([0; 4], [1, 1, 2, 3]), &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        relu.add(&window([1, 0, 0, 0], [1, 1, 2, 3]), &[0.0, 0.0, 0.0, 0.0, 0.0, 2.0]);
        assert_eq!((relu.dead(), relu.saturated()), (Some(1.0 / 3.0), None));
        // A device with the last two channels.
        relu.add(&window([0, 0, 0, 1], [1, 1, 2, 2]), &[3.0, 0.0, 0.0, 0.0]);
        assert_eq!(relu.dead(), Some(0.0));
        relu.clear();
        assert_eq!(relu.dead(), None);
        // After flatten, every feature is a unit.
        let mut flat = Outputs::of("relu", Activation { flat: true, ..shape }).unwrap();
        flat.add(&window([0, 0, 0, 1], [1, 1, 2, 2]), &[3.0, 0.0, 0.0, 1.0]);
        assert_eq!(flat.dead(), Some(4.0 / 6.0));
    }

    #[test]
    fn only_values_in_flat_parts_are_saturated() {
        let mut tanh = Outputs::of("tanh", Activation::new(1, 1, 2)).unwrap();
        tanh.add(&window([0; 4], [2, 1, 1, 2]), &[0.995, -0.995, 0.0, 0.9]);
        assert_eq!((tanh.saturated(), tanh.dead()), (Some(0.5), None));
        assert!(Outputs::of("conv", Activation::new(1, 1, 2)).is_none());
    }
}
