//! Builds the operations of a step: the forward and backward passes, the reductions of gradients and the update. One
//! table inserts the redistributions between them (`move_along`).

use super::flat::Flat;
use super::resolve::{Resolved, resolve};
use super::{Home, Input, MemoryUse, Op, Placed, Region, Spec, Tensor, TensorId, Variant};
use crate::collectives::Collective;
use crate::data::BatchPart;
use crate::device::Epilogue;
use crate::error::Problem;
use crate::layers::{Access, Mode, Pass, Phase, PhaseOperand, Role};
use crate::network::{Network, Source};
use crate::optim::Chain;
use crate::tensor::{Axis, Dim, Element, Layout, MatmulPrecision, Placement, Shape};
use std::collections::HashMap;

/// Places one step of a network.
///
/// # Errors
/// Every split that does not suit its layer.
pub fn place(network: &Network, chain: &Chain, spec: &Spec, variant: Variant) -> Result<Placed, Vec<Problem>> {
    let mesh = spec.mesh;
    let resolved = resolve(network, mesh, variant.mode, variant.batch)?;
    let training = resolve(network, mesh, Mode::Train, variant.batch)?;
    let flat = Flat::new(network, &training, mesh);
    let mut planner = Planner {
        network,
        chain,
        spec,
        variant,
        resolved,
        placed: Placed { variant, flat, ..Placed::default() },
        outputs: vec![],
        moved: HashMap::new(),
        nodes: vec![NodeTensors::default(); network.nodes.len()],
        consumers: consumers(network),
        images: 0,
        targets: 0,
        weights: vec![],
        bf16_weights: vec![],
        gradients: vec![],
        statistics: vec![],
        metrics: vec![],
        counts: None,
    };
    planner.inputs();
    planner.forward();
    if variant.mode == Mode::Train && spec.backward {
        planner.backward();
        if variant.update {
            planner.update();
        }
    }
    Ok(planner.placed)
}

/// The tensors of one node.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeTensors {
    saved: HashMap<usize, TensorId>,
    /// Gradients of its output, from its consumers.
    pub(super) dy: Vec<TensorId>,
    /// Whether it, or any node before it, has parameters.
    needs_gradient: bool,
    /// Whether the node before it computes its forward pass, as an epilogue.
    pub(super) fused: bool,
    /// Whether the node after it computes its backward pass: the gradient that it gets is 0 where its output is.
    pub(super) masked: bool,
    /// The node after it, a relu, whose backward pass its own phases compute.
    pub(super) masks: Option<usize>,
}

pub(super) struct Planner<'a> {
    pub(super) network: &'a Network,
    pub(super) chain: &'a Chain,
    pub(super) spec: &'a Spec,
    pub(super) variant: Variant,
    pub(super) resolved: Vec<Resolved>,
    pub(super) placed: Placed,
    /// Each node's output.
    pub(super) outputs: Vec<TensorId>,
    /// Redistributed copies: one per required layout, shared by all its readers.
    moved: HashMap<(TensorId, Layout), TensorId>,
    pub(super) nodes: Vec<NodeTensors>,
    /// The nodes that read each node's output, once for each time that it is an input.
    pub(super) consumers: Vec<Vec<usize>>,
    images: TensorId,
    targets: TensorId,
    weights: Vec<TensorId>,
    /// The parameters in the element type of activations.
    bf16_weights: Vec<TensorId>,
    gradients: Vec<TensorId>,
    statistics: Vec<TensorId>,
    /// The metrics of each node that has some, and their offset among all.
    metrics: Vec<(TensorId, usize)>,
    /// The counts of gradients and weights that are not finite, once they are used.
    pub(super) counts: Option<[TensorId; 2]>,
}

/// Returns the nodes that read each node's output, once for each time that it is an input.
fn consumers(network: &Network) -> Vec<Vec<usize>> {
    let mut consumers = vec![Vec::new(); network.nodes.len()];
    for (index, node) in network.nodes.iter().enumerate() {
        for &input in &node.inputs {
            if let Source::Node(read) = input {
                consumers[read].push(index);
            }
        }
    }
    consumers
}

impl Planner<'_> {
    /// Adds a tensor in the precision of the program.
    pub(super) fn tensor(
        &mut self,
        name: String,
        shape: Shape,
        layout: Layout,
        home: Home,
        purpose: MemoryUse,
    ) -> TensorId {
        let element = Element::Real(self.spec.precision);
        let layout = layout.on_mesh(self.spec.mesh);
        self.placed.tensors.push(Tensor { name, shape, layout, home, purpose, element });
        self.placed.tensors.len() - 1
    }

    /// Adds a tensor with its own buffer, in the precision of the program or (if `low_precision`) of activations.
    fn own(&mut self, name: String, shape: Shape, layout: Layout, low_precision: bool) -> TensorId {
        let id = self.tensor(name, shape, layout, Home::Own, MemoryUse::Activations);
        if low_precision {
            self.placed.tensors[id].element = self.low_precision();
        }
        id
    }

    /// Returns the element type of activations.
    fn low_precision(&self) -> Element {
        self.spec.products.activations(self.spec.precision)
    }

    /// Adds the tensors that the step starts from: the batch, parameters, gradients and statistics.
    fn inputs(&mut self) {
        let (network, variant) = (self.network, self.variant);
        let Spec { mesh, target_width, .. } = *self.spec;
        let batch = Layout::new(Placement::Shard(Dim::BATCH), Placement::Replicate);
        let images = network.input.batch(variant.batch);
        self.images = self.own("images".into(), images, batch, true);
        let shape = Shape::from([variant.batch, target_width]);
        self.targets = self.tensor("targets".into(), shape, batch, Home::Own, MemoryUse::Activations);
        self.placed.ops.push(Op::Load { input: Input::Images, to: self.images });
        self.placed.ops.push(Op::Load { input: Input::Targets, to: self.targets });
        for (i, parameter) in network.parameters.iter().enumerate() {
            let part = self.placed.flat.parts[i];
            let shape = parameter.param.shape.clone();
            let home = Home::Fixed(Region::Weights, part.offset);
            let weight = self.tensor(parameter.name.clone(), shape.clone(), part.layout, home, MemoryUse::Weights);
            self.weights.push(weight);
            let region = match variant.part {
                BatchPart::First => Region::PartGradients,
                _ => Region::Gradients,
            };
            let home = Home::Fixed(region, part.offset);
            let name = format!("d {}", parameter.name);
            let gradient = self.tensor(name, shape, part.gradient, home, MemoryUse::Gradients);
            self.gradients.push(gradient);
        }
        self.narrow_parameters();
        let mut offset = 0;
        for (node, layouts) in network.nodes.iter().enumerate() {
            for (i, &statistic) in layouts.statistics.iter().enumerate() {
                let layout = self.resolved[node].phases.statistics[i].on_mesh(mesh);
                let shape = network.statistics[statistic].param.shape.clone();
                let len = layout.window(&shape, mesh, mesh.position(0)).elements();
                let name = network.statistics[statistic].name.clone();
                let home = Home::Fixed(Region::Statistics, offset);
                self.placed.statistics.push((layout, offset));
                let id = self.tensor(name, shape, layout, home, MemoryUse::Statistics);
                self.statistics.push(id);
                offset += len.next_multiple_of(16);
            }
        }
    }

    /// Adds the bf16 copies of the parameters if products are in bf16; otherwise the parameters themselves take their
    /// place.
    fn narrow_parameters(&mut self) {
        let network = self.network;
        if self.spec.products != MatmulPrecision::Bf16 || network.parameters.is_empty() {
            self.bf16_weights.clone_from(&self.weights);
            return;
        }
        for (i, parameter) in network.parameters.iter().enumerate() {
            let part = self.placed.flat.parts[i];
            let home = Home::Fixed(Region::Bf16Weights, part.offset);
            let name = format!("{} in bf16", parameter.name);
            let id = self.tensor(name, parameter.param.shape.clone(), part.layout, home, MemoryUse::Weights);
            self.placed.tensors[id].element = Element::Bf16;
            self.bf16_weights.push(id);
        }
    }

    fn source(&self, source: Source) -> TensorId {
        match source {
            Source::Images => self.images,
            Source::Node(node) => self.outputs[node],
        }
    }

    fn forward(&mut self) {
        let network = self.network;
        for (index, node) in network.nodes.iter().enumerate() {
            let before = node.inputs.iter().any(|&input| self.needs_gradient(input));
            self.nodes[index].needs_gradient = before || !node.params.is_empty();
            if self.resolved[index].is_view() {
                // A view is the same tensor, so each copy of it is made once and shared by all readers.
                let place = self.resolved[index].place;
                let view =
                    self.redistribute(self.source(node.inputs[0]), Layout::new(Placement::Shard(Dim::BATCH), place));
                self.outputs.push(view);
                continue;
            }
            self.outputs.push(usize::MAX);
            if self.nodes[index].fused {
                let Source::Node(before) = node.inputs[0] else { unreachable!("the images have no epilogue") };
                self.outputs[index] = self.outputs[before];
                continue;
            }
            let phases = std::mem::take(&mut self.resolved[index].phases.forward);
            for phase in &phases {
                self.phase(index, Pass::Forward, phase);
            }
            self.resolved[index].phases.forward = phases;
        }
        for (metrics, offset) in std::mem::take(&mut self.metrics) {
            let metrics = self.redistribute(metrics, Layout::REPLICATE);
            if self.follows_a_part() {
                let (home, shape) = (Home::Fixed(Region::Metrics, offset), self.placed.tensors[metrics].shape.clone());
                let sums = self.tensor("metrics".into(), shape, Layout::REPLICATE, home, MemoryUse::Statistics);
                self.placed.ops.push(Op::Add { terms: vec![sums, metrics], to: sums, mask: None });
            }
        }
    }

    /// Returns true if an earlier part of the batch has left metrics and gradients, to which those of this part are added.
    pub(super) fn follows_a_part(&self) -> bool {
        matches!(self.variant.part, BatchPart::Middle | BatchPart::Last)
    }

    /// Adds a phase, with its operands redistributed to the layouts that it declares.
    fn phase(&mut self, index: usize, pass: Pass, phase: &Phase) {
        let mesh = self.spec.mesh;
        let mask = if pass == Pass::Backward { self.take_relu(index, phase) } else { None };
        let mut operands = Vec::with_capacity(phase.operands.len());
        for operand in phase.all_operands(mask.is_some()) {
            let layout = operand.layout.on_mesh(mesh);
            let tensor = self.operand(index, operand, layout);
            operands.extend(tensor.map(|tensor| (operand.name, tensor, operand.access)));
        }
        let mut epilogue = self.epilogue(index, phase);
        if let Some((_, node)) = epilogue {
            self.nodes[node].fused = true;
        }
        epilogue = epilogue.or(mask.map(|relu| (Epilogue::Relu, relu)));
        self.placed.ops.push(Op::Phase { node: index, pass, phase: phase.name, operands, epilogue });
    }

    fn operand(&mut self, index: usize, operand: &PhaseOperand, layout: Layout) -> Option<TensorId> {
        let PhaseOperand { role, access, low_precision, .. } = *operand;
        let network = self.network;
        let node = &network.nodes[index];
        let rows = self.variant.batch;
        let id = match role {
            Role::X(i) => {
                let x = self.source(node.inputs[i]);
                self.redistribute(x, layout)
            }
            Role::Y if access == Access::Read => self.redistribute(self.outputs[index], layout),
            Role::Y => {
                let shape = node.output.batch(rows);
                let name = format!("{}.y", node.name);
                self.outputs[index] = self.own(name, shape, layout, low_precision);
                self.outputs[index]
            }
            Role::Dy => {
                let terms = std::mem::take(&mut self.nodes[index].dy);
                let dy = self.combine(&format!("{}.dy", node.name), terms, layout);
                // Later phases of this node read the sum.
                self.nodes[index].dy = vec![dy];
                dy
            }
            Role::Dx(i) => {
                let source = node.inputs[i];
                let is_needed = self.needs_gradient(source);
                if !is_needed && !node.layer.needs_every_dx() {
                    return None;
                }
                let shape = node.input_shapes[i].batch(rows);
                let name = format!("{}.dx{i}", node.name);
                let id = self.own(name, shape, layout, low_precision);
                if is_needed {
                    self.contribute(source, id);
                }
                id
            }
            Role::Param(i) if low_precision => self.bf16_weights[node.params[i]],
            Role::Param(i) => self.weights[node.params[i]],
            Role::DParam(i) => self.gradients[node.params[i]],
            Role::Statistic(i) => self.statistics[node.statistics[i]],
            Role::Saved(i) => match self.nodes[index].saved.get(&i) {
                Some(&local) => self.redistribute(local, layout),
                None => {
                    let shape = self.resolved[index].phases.saved[i].clone();
                    let name = format!("{}.saved{i}", node.name);
                    let local = self.own(name, shape, layout, low_precision);
                    self.nodes[index].saved.insert(i, local);
                    local
                }
            },
            Role::Target => self.redistribute(self.targets, layout),
            Role::Metrics => {
                let offset = network.metrics_of(index).start;
                let home = if self.follows_a_part() { Home::Own } else { Home::Fixed(Region::Metrics, offset) };
                let shape = Shape::from([network.metrics_of(index).len()]);
                let id = self.tensor("metrics".into(), shape, layout, home, MemoryUse::Statistics);
                self.metrics.push((id, offset));
                id
            }
        };
        if matches!(role, Role::Param(_) | Role::DParam(_) | Role::Statistic(_)) {
            assert_eq!(self.placed.tensors[id].layout, layout, "{} {role:?}: one layout per parameter", node.name);
        }
        Some(id)
    }

    pub(super) fn needs_gradient(&self, source: Source) -> bool {
        match source {
            Source::Images => false,
            Source::Node(node) => self.nodes[node].needs_gradient,
        }
    }

    /// Records a gradient of a node's output. A view passes it on to its input.
    fn contribute(&mut self, mut source: Source, gradient: TensorId) {
        while let Source::Node(node) = source {
            if !self.resolved[node].is_view() {
                self.nodes[node].dy.push(gradient);
                return;
            }
            source = self.network.nodes[node].inputs[0];
        }
    }

    fn backward(&mut self) {
        let network = self.network;
        let mut waiting: Vec<usize> = self.placed.flat.buckets.iter().map(|b| b.params.len()).collect();
        let mut bucket_of = vec![0; network.parameters.len()];
        for (bucket, own) in self.placed.flat.buckets.iter().enumerate() {
            own.params.iter().for_each(|&param| bucket_of[param] = bucket);
        }
        for index in (0..network.nodes.len()).rev() {
            if !self.needs_gradient(Source::Node(index)) || self.resolved[index].is_view() {
                continue;
            }
            if self.give_to_neighbour(index) || self.give_to_sum(index) {
                self.pass_gradient(index);
                continue;
            }
            let phases = std::mem::take(&mut self.resolved[index].phases.backward);
            if phases.is_empty() {
                self.pass_gradient(index);
            }
            for phase in &phases {
                self.phase(index, Pass::Backward, phase);
            }
            self.resolved[index].phases.backward = phases;
            let mut buckets: Vec<usize> = network.nodes[index].params.iter().map(|&param| bucket_of[param]).collect();
            buckets.sort_unstable();
            for bucket in buckets {
                waiting[bucket] -= 1;
                if waiting[bucket] == 0 {
                    self.reduce(bucket);
                }
            }
        }
    }

    /// Makes the gradient of a node's output that of its inputs, in the layout of the output.
    fn pass_gradient(&mut self, index: usize) {
        let network = self.network;
        let node = &network.nodes[index];
        let terms = std::mem::take(&mut self.nodes[index].dy);
        let layout = self.placed.tensors[self.outputs[index]].layout;
        let dy = self.combine(&format!("{}.dy", node.name), terms, layout);
        for &input in &node.inputs {
            if self.needs_gradient(input) {
                self.contribute(input, dy);
            }
        }
    }

    /// Adds the gradients of several consumers: first locally, layout by layout. Each of these sums is redistributed to
    /// `to` once; then the sums are added.
    fn combine(&mut self, name: &str, terms: Vec<TensorId>, to: Layout) -> TensorId {
        assert!(!terms.is_empty(), "{name}: the output has no consumers");
        let mut groups: Vec<(Layout, Vec<TensorId>)> = Vec::new();
        for term in terms {
            let layout = self.placed.tensors[term].layout;
            match groups.iter_mut().find(|(l, _)| *l == layout) {
                Some((_, group)) => group.push(term),
                None => groups.push((layout, vec![term])),
            }
        }
        let mut sums = Vec::with_capacity(groups.len());
        for (_, group) in groups {
            let sum = self.add(name, group, None);
            sums.push(self.redistribute(sum, to));
        }
        self.add(name, sums, None)
    }

    /// Adds tensors of one layout; the sum is 0 where `mask` is not positive.
    pub(super) fn add(&mut self, name: &str, terms: Vec<TensorId>, mask: Option<TensorId>) -> TensorId {
        if let [only] = terms[..] {
            return only;
        }
        let Tensor { shape, layout, element, .. } = self.placed.tensors[terms[0]].clone();
        let to = self.tensor(name.into(), shape, layout, Home::Own, MemoryUse::Activations);
        self.placed.tensors[to].element = element;
        self.placed.ops.push(Op::Add { terms, to, mask });
        to
    }

    /// Redistributes a tensor to a layout, one axis after the other, the inner one first.
    pub(super) fn redistribute(&mut self, from: TensorId, to: Layout) -> TensorId {
        let to = to.on_mesh(self.spec.mesh);
        let mut id = from;
        for axis in Axis::INNER_FIRST {
            id = self.move_along(id, axis, to.on(axis));
        }
        id
    }

    /// Redistributes `from` to `want` along one axis: the table.
    fn move_along(&mut self, from: TensorId, axis: Axis, want: Placement) -> TensorId {
        let tensor = self.placed.tensors[from].clone();
        let have = tensor.layout.on(axis);
        if have == want {
            return from;
        }
        let to = tensor.layout.with(axis, want);
        if let Some(&moved) = self.moved.get(&(from, to)) {
            return moved;
        }
        let replicated = self.moved.get(&(from, tensor.layout.with(axis, Placement::Replicate))).copied();
        let collective = match (have, want) {
            (Placement::Partial, Placement::Replicate) => Collective::AllReduce,
            // An all-reduce works in place: the memory of the partial tensor already holds the sum.
            (Placement::Partial, Placement::Shard(_)) if replicated.is_some() => {
                return self.move_along(replicated.unwrap_or(from), axis, want);
            }
            (Placement::Partial, Placement::Shard(_)) => Collective::ReduceScatter,
            (Placement::Shard(_), Placement::Replicate) => Collective::AllGather,
            (Placement::Replicate, Placement::Shard(_)) => Collective::Slice,
            (Placement::Shard(_), Placement::Shard(_)) => Collective::AllToAll,
            _ => unreachable!("no redistribution makes a tensor partial"),
        };
        let home = if collective == Collective::AllReduce { Home::Alias(from) } else { Home::Own };
        let name = tensor.name.split(" [").next().unwrap_or_default();
        let purpose = if home == Home::Own { MemoryUse::Communication } else { tensor.purpose };
        let id = self.tensor(format!("{name} {to}"), tensor.shape, to, home, purpose);
        self.placed.tensors[id].element = tensor.element;
        self.placed.ops.push(Op::Move { collective, axis, from, to: id });
        self.moved.insert((from, to), id);
        id
    }
}
