//! The end of a training step: gradients are reduced bucket by bucket, then the optimiser's stages update the flat
//! regions.

use super::planner::Planner;
use super::{Home, MemoryUse, Op, Region, TensorId};
use crate::layers::{Access, METRICS};
use crate::optim::{UpdatePass, UpdateRole};
use crate::tensor::{Element, Layout, MatmulPrecision, Placement, Shape};

impl Planner<'_> {
    /// Reduces a bucket of gradients in place while the backward pass continues.
    pub(super) fn reduce(&mut self, number: usize) {
        let bucket = self.placed.flat.buckets[number].clone();
        if bucket.axes.is_empty() {
            return;
        }
        let layout = bucket.axes.iter().fold(Layout::REPLICATE, |layout, &axis| layout.with(axis, Placement::Partial));
        let home = Home::Fixed(Region::Gradients, bucket.offset);
        let name = format!("gradients {number}");
        let id = self.tensor(name, Shape::from([bucket.len]), layout, home, MemoryUse::Gradients);
        self.redistribute(id, Layout::REPLICATE);
    }

    pub(super) fn update(&mut self) {
        let chain = self.chain;
        let len = self.placed.flat.len;
        if self.network.parameters.is_empty() {
            return;
        }
        let flat = |region| (Shape::from([len]), Layout::REPLICATE, Home::Fixed(region, 0));
        let (shape, layout, home) = flat(Region::Weights);
        let weights = self.tensor("weights".into(), shape, layout, home, MemoryUse::Weights);
        let (shape, layout, home) = flat(Region::Gradients);
        let gradients = self.tensor("gradients".into(), shape, layout, home, MemoryUse::Gradients);
        let bf16_weights = (self.spec.products == MatmulPrecision::Bf16).then(|| {
            let (shape, layout, home) = flat(Region::Bf16Weights);
            let bf16_weights = self.tensor("weights in bf16".into(), shape, layout, home, MemoryUse::Weights);
            self.placed.tensors[bf16_weights].element = Element::Bf16;
            bf16_weights
        });
        let named = chain.slots(0..chain.0.len());
        let slots: Vec<TensorId> = (0..named.len())
            .map(|slot| {
                let (shape, layout, home) = flat(Region::Slot(slot));
                self.tensor(named[slot].name.into(), shape, layout, home, MemoryUse::Optimizer)
            })
            .collect();
        let partial = Layout::new(Placement::Partial, Placement::Partial);
        let count = |offset| (Shape::from([1]), partial, Home::Fixed(Region::Metrics, METRICS + offset));
        let (shape, layout, home) = count(0);
        let mut bad_gradients = self.tensor("non-finite gradients".into(), shape, layout, home, MemoryUse::Statistics);
        let (shape, layout, home) = count(1);
        let bad_weights = self.tensor("non-finite weights".into(), shape, layout, home, MemoryUse::Statistics);
        let metrics = self.redistribute(self.metrics, Layout::REPLICATE);
        let mut norms = None;
        for (number, stage) in chain.stages().iter().enumerate() {
            // The first stage checks that the loss and all gradients are finite.
            let checks = [
                (UpdateRole::Metrics, metrics, Access::Read),
                (UpdateRole::NonFiniteGradients, bad_gradients, Access::Write),
                (UpdateRole::NonFiniteWeights, bad_weights, Access::Write),
            ];
            let checks = checks.into_iter().filter(|_| number == 0);
            let operands = match stage {
                UpdatePass::Check => {
                    [(UpdateRole::Gradients, gradients, Access::Read)].into_iter().chain(checks).collect()
                }
                UpdatePass::Norm => {
                    let shape = Shape::from([self.network.parameters.len()]);
                    let norm = self.tensor("norms".into(), shape, partial, Home::Own, MemoryUse::Workspace);
                    norms = Some(norm);
                    let own =
                        [(UpdateRole::Gradients, gradients, Access::Read), (UpdateRole::Norms, norm, Access::Write)];
                    own.into_iter().chain(checks).collect()
                }
                UpdatePass::Apply { transforms, update, norm } => {
                    let access = if *update { Access::Update } else { Access::Read };
                    let norm = norms.filter(|_| *norm).map(|norm| (UpdateRole::Norms, norm, Access::Read));
                    let bf16_weights = bf16_weights.filter(|_| *update);
                    let bf16_weights =
                        bf16_weights.map(|bf16_weights| (UpdateRole::LowPrecision, bf16_weights, Access::Write));
                    let mine = named.iter().zip(&slots).filter(|(slot, _)| transforms.contains(&slot.transform));
                    let own = mine.map(|(&slot, &tensor)| (UpdateRole::Slot(slot), tensor, Access::Update));
                    let first =
                        [(UpdateRole::Weights, weights, access), (UpdateRole::Gradients, gradients, Access::Update)];
                    let finite = [(UpdateRole::NonFiniteGradients, bad_gradients, Access::Read)];
                    let overflow =
                        update.then_some((UpdateRole::NonFiniteWeights, bad_weights, Access::Update)).into_iter();
                    first.into_iter().chain(norm).chain(bf16_weights).chain(own).chain(finite).chain(overflow).collect()
                }
            };
            self.placed.ops.push(Op::Update { stage: number, operands });
            if number == 0 {
                bad_gradients = self.redistribute(bad_gradients, Layout::REPLICATE);
            }
            if *stage == UpdatePass::Norm {
                norms = norms.map(|norm| self.redistribute(norm, Layout::REPLICATE));
            }
        }
        self.redistribute(bad_weights, Layout::REPLICATE);
    }
}
