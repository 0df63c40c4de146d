//! The operations of the interpreter in kernels/optim.cu.

/// Floats per operation in the table of a stage: code, first slot, settings.
pub(super) const WORDS: usize = 8;

/// A transform, as interpreted by kernels/optim.cu.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Opcode {
    /// g += a * decay_mult * w.
    WeightDecay(f64),
    /// v = a v + g; g = v.
    Momentum(f64),
    /// v = a v + g; g += a v.
    Nesterov(f64),
    /// g *= a / norm where norm > a.
    ClipByGlobalNorm(f64),
}

impl Opcode {
    pub(super) fn words(self, first_slot: usize) -> [f32; WORDS] {
        let (code, setting) = match self {
            Opcode::WeightDecay(a) => (0.0, a),
            Opcode::Momentum(a) => (1.0, a),
            Opcode::Nesterov(a) => (2.0, a),
            Opcode::ClipByGlobalNorm(a) => (3.0, a),
        };
        let mut words = [0.0; WORDS];
        words[..3].copy_from_slice(&[code, first_slot as f32, setting as f32]);
        words
    }
}
