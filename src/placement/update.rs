//! The end of a training step: gradients are reduced bucket by bucket, then the optimiser's stages update the flat
//! regions.

use super::planner::Planner;
use super::{Home, MemoryUse, Op, Region, TensorId};
use crate::data::BatchPart;
use crate::device::Target;
use crate::layers::Access;
use crate::optim::{UpdatePass, UpdateRole};
use crate::tensor::{Element, Layout, MatmulPrecision, Placement, Shape};

impl Planner<'_> {
    /// Reduces a bucket of gradients in place while the backward pass continues. A GPU also checks it then, beside the
    /// backward pass, rather than all of them before the update.
    pub(super) fn reduce(&mut self, number: usize) {
        let bucket = self.placed.flat.buckets[number].clone();
        if self.follows_a_part() {
            self.accumulate(number);
        }
        if matches!(self.variant.part, BatchPart::First | BatchPart::Middle) {
            return;
        }
        if bucket.axes.is_empty() && !self.checks_buckets() {
            return;
        }
        let layout = bucket.axes.iter().fold(Layout::REPLICATE, |layout, &axis| layout.with(axis, Placement::Partial));
        let home = Home::Fixed(Region::Gradients, bucket.offset);
        let name = format!("gradients {number}");
        let id = self.tensor(name, Shape::from([bucket.len]), layout, home, MemoryUse::Gradients);
        let id = self.redistribute(id, Layout::REPLICATE);
        if self.checks_buckets() {
            let mut operands = self.checks(self.counts.is_none());
            operands.push((UpdateRole::Gradients, id, Access::Read));
            self.placed.ops.push(Op::Update { stage: 0, bucket: Some(number), operands });
        }
    }

    /// Adds the gradients of a bucket to those of the earlier parts of the batch, or in the last part the other way round.
    fn accumulate(&mut self, number: usize) {
        let bucket = self.placed.flat.buckets[number].clone();
        let mut flat = |name: &str, region| {
            let home = Home::Fixed(region, bucket.offset);
            let shape = Shape::from([bucket.len]);
            self.tensor(format!("{name} {number}"), shape, Layout::REPLICATE, home, MemoryUse::Gradients)
        };
        let own = flat("gradients", Region::Gradients);
        let earlier = flat("gradients of earlier parts", Region::PartGradients);
        let to = if self.variant.part == BatchPart::Last { own } else { earlier };
        self.placed.ops.push(Op::Add { terms: vec![earlier, own], to, mask: None });
    }

    /// Returns true if the gradients are checked bucket by bucket.
    fn checks_buckets(&self) -> bool {
        let is_gpu = matches!(self.spec.target, Target::Gpu { .. });
        is_gpu && self.variant.update && self.chain.stages()[0] == UpdatePass::Check
    }

    /// Returns the tensors that count gradients and weights that are not finite.
    fn counts(&mut self) -> [TensorId; 2] {
        if let Some(counts) = self.counts {
            return counts;
        }
        let partial = Layout::new(Placement::Partial, Placement::Partial);
        let metrics = self.network.metrics.len();
        let counts = [("non-finite gradients", 0), ("non-finite weights", 1)].map(|(name, offset)| {
            let home = Home::Fixed(Region::Metrics, metrics + offset);
            self.tensor(name.into(), Shape::from([1]), partial, home, MemoryUse::Statistics)
        });
        *self.counts.insert(counts)
    }

    /// Returns the operands with which a stage checks that loss and gradients are finite. The first sets the counts.
    fn checks(&mut self, first: bool) -> Vec<(UpdateRole, TensorId, Access)> {
        let [gradients, weights] = self.counts();
        if !first {
            return vec![(UpdateRole::NonFiniteGradients, gradients, Access::Update)];
        }
        let (shape, home) = (Shape::from([self.network.metrics.len()]), Home::Fixed(Region::Metrics, 0));
        let metrics = self.tensor("metrics".into(), shape, Layout::REPLICATE, home, MemoryUse::Statistics);
        vec![
            (UpdateRole::Metrics, metrics, Access::Read),
            (UpdateRole::NonFiniteGradients, gradients, Access::Write),
            (UpdateRole::NonFiniteWeights, weights, Access::Write),
        ]
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
        let mut slots: Vec<TensorId> = Vec::new();
        for region in 0..chain.num_regions() {
            let (shape, layout, home) = flat(Region::Slot(region));
            let name = chain.slots().find(|(_, of)| *of == region).map_or("", |(slot, _)| slot.name);
            slots.push(self.tensor(name.into(), shape, layout, home, MemoryUse::Optimizer));
        }
        let partial = Layout::new(Placement::Partial, Placement::Partial);
        let [mut bad_gradients, bad_weights] = self.counts();
        let mut norms = None;
        let kept = chain.clipping().filter(|_| self.spec.keeps_norms).map(|clipping| clipping.stage);
        for (number, stage) in chain.stages().iter().enumerate() {
            // The first stage checks that the loss and all gradients are finite, unless the buckets were checked.
            let checks = if number == 0 && !self.checks_buckets() { self.checks(true) } else { Vec::new() };
            let operands = match stage {
                UpdatePass::Check => {
                    [(UpdateRole::Gradients, gradients, Access::Read)].into_iter().chain(checks).collect()
                }
                UpdatePass::Norm { weights: of_weights, .. } => {
                    let shape = Shape::from([stage.num_norms(self.network.parameters.len(), self.network.num_units())]);
                    let (home, purpose) = match kept == Some(number) {
                        true => {
                            let offset = self.network.metrics.len() + Region::COUNTS;
                            (Home::Fixed(Region::Metrics, offset), MemoryUse::Statistics)
                        }
                        false => (Home::Own, MemoryUse::Workspace),
                    };
                    let norm = self.tensor("norms".into(), shape, partial, home, purpose);
                    norms = Some(norm);
                    let own =
                        [(UpdateRole::Gradients, gradients, Access::Read), (UpdateRole::Norms, norm, Access::Write)];
                    let read = of_weights.then_some((UpdateRole::Weights, weights, Access::Read));
                    own.into_iter().chain(read).chain(checks).collect()
                }
                UpdatePass::Apply { transforms, update, norm, .. } => {
                    let access = if *update { Access::Update } else { Access::Read };
                    let norm = norms.filter(|_| *norm).map(|norm| (UpdateRole::Norms, norm, Access::Read));
                    let bf16_weights = bf16_weights.filter(|_| *update);
                    let bf16_weights =
                        bf16_weights.map(|bf16_weights| (UpdateRole::LowPrecision, bf16_weights, Access::Write));
                    let mine = chain.slots().filter(|(slot, _)| transforms.contains(&slot.transform));
                    let own = mine.map(|(slot, region)| (UpdateRole::Slot(slot), slots[region], Access::Update));
                    let first =
                        [(UpdateRole::Weights, weights, access), (UpdateRole::Gradients, gradients, Access::Update)];
                    let finite = [(UpdateRole::NonFiniteGradients, bad_gradients, Access::Read)];
                    let overflow =
                        update.then_some((UpdateRole::NonFiniteWeights, bad_weights, Access::Update)).into_iter();
                    first.into_iter().chain(norm).chain(bf16_weights).chain(own).chain(finite).chain(overflow).collect()
                }
            };
            if *stage != UpdatePass::Check || !self.checks_buckets() {
                self.placed.ops.push(Op::Update { stage: number, bucket: None, operands });
            }
            if number == 0 {
                bad_gradients = self.redistribute(bad_gradients, Layout::REPLICATE);
            }
            if matches!(stage, UpdatePass::Norm { .. }) {
                norms = norms.map(|norm| self.redistribute(norm, Layout::REPLICATE));
            }
        }
        self.redistribute(bad_weights, Layout::REPLICATE);
    }
}
