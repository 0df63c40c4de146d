//! Sums over weights, gradients and updates.

/// Sums over the weights of a layer, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Sums {
    /// Whether there are any weights.
    pub any: bool,
    /// Of the squares of the gradients.
    pub gradient: f64,
    /// Of the squares of the weights before the update.
    pub weights: f64,
    /// Of the squares of the update.
    pub update: f64,
    /// Of the squares of the update before it.
    pub before: f64,
    /// Of the products of both.
    pub both: f64,
}

impl Sums {
    pub fn add(&mut self, other: &Sums) {
        self.any |= other.any;
        self.gradient += other.gradient;
        self.weights += other.weights;
        self.update += other.update;
        self.before += other.before;
        self.both += other.both;
    }

    /// Returns the sums as numbers, which can be added.
    pub fn numbers(&self) -> [f64; 6] {
        [f64::from(u8::from(self.any)), self.gradient, self.weights, self.update, self.before, self.both]
    }

    /// Returns the sums of numbers that were added.
    pub fn of_numbers(numbers: &[f64]) -> Self {
        let [any, gradient, weights, update, before, both] = *numbers else { unreachable!("six numbers") };
        Sums { any: any > 0.0, gradient, weights, update, before, both }
    }

    pub fn update_ratio(&self) -> Option<f64> {
        (self.weights > 0.0).then(|| (self.update / self.weights).sqrt())
    }

    pub fn cosine(&self) -> Option<f64> {
        let sizes = (self.update * self.before).sqrt();
        (sizes > 0.0).then(|| (self.both / sizes).clamp(-1.0, 1.0))
    }
}
