//! The clipping of a chain whose norm is reported.

use super::{Chain, UpdatePass};

/// A transform that clips the gradients by their global norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clipping {
    /// The stage that computes the norms.
    pub stage: usize,
    /// The largest norm that is left as it is.
    pub max_norm: f64,
}

impl Chain {
    /// Returns the first clipping by the global norm.
    pub fn clipping(&self) -> Option<Clipping> {
        let stages = self.stages();
        let first = |(number, stage): (usize, &UpdatePass)| match stage {
            UpdatePass::Apply { transforms, norm: true, .. } => {
                let max_norm = self.transforms[transforms.start].max_norm()?;
                let is_before = |stage: &UpdatePass| matches!(stage, UpdatePass::Norm { .. });
                let stage = stages[..number].iter().rposition(is_before)?;
                Some(Clipping { stage, max_norm })
            }
            _ => None,
        };
        stages.iter().enumerate().find_map(first)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChainEntry, ClipByGlobalNorm, Lamb, Momentum, Transform, WeightDecay};
    use super::*;

    #[test]
    fn a_clipping_is_found_behind_the_stage_of_its_norms() {
        let entry = |one: &dyn Fn() -> Box<dyn ChainEntry>| one();
        let clip = || -> Box<dyn ChainEntry> { Box::new(ClipByGlobalNorm { max_norm: 2.5 }) };
        let decay = || -> Box<dyn ChainEntry> { Box::new(WeightDecay::examples().remove(0)) };
        let momentum = || -> Box<dyn ChainEntry> { Box::new(Momentum::examples().remove(0)) };
        let lamb = || -> Box<dyn ChainEntry> { Box::new(Lamb::examples().remove(0)) };
        let of = |entries: &[&dyn Fn() -> Box<dyn ChainEntry>]| {
            let entries: Vec<Box<dyn ChainEntry>> = entries.iter().map(|one| entry(one)).collect();
            Chain::new(&entries).clipping()
        };
        assert_eq!(of(&[&clip, &momentum]), Some(Clipping { stage: 0, max_norm: 2.5 }));
        assert_eq!(of(&[&decay, &clip]), Some(Clipping { stage: 2, max_norm: 2.5 }));
        assert_eq!(of(&[&decay, &momentum]), None);
        assert_eq!(of(&[&lamb]), None);
    }
}
