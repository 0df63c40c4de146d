//! Lowers operations, which concern all devices, to instructions on queues.

use super::exchange::DeviceCollective;
use super::ir::{Buffer, BufferId, Instruction, LocalOperand, Peer, PeerPart, Program, Slice, Use, Work};
use super::staged::{Sum, add, through_host};
use super::{AllocatedRegion, Regions};
use crate::collectives::{self, Collective, NcclUse};
use crate::device::{Operand, Queue};
use crate::layers::{Access, Mode, Operands};
use crate::network::Network;
use crate::optim::UpdateRole;
use crate::placement::{Home, Input, MemoryUse, Op, Peers, Placed, Region, Spec, TensorId};
use crate::tensor::{Axis, Element, LocalSlice, Strided};
use std::collections::HashMap;
use std::sync::Arc;

/// Lowers the operations of one step; later passes add the waits and the offsets of buffers that are not regions.
pub(super) fn lower(network: &Network, placed: &Placed, regions: &Regions, spec: &Spec) -> Program {
    let devices = spec.mesh.devices();
    let mut emitter = Emitter {
        network,
        placed,
        regions,
        spec,
        buffers: Vec::new(),
        homes: HashMap::new(),
        instructions: Vec::new(),
        counts: vec![0; devices * Queue::COUNT],
    };
    for device in 0..devices {
        for &AllocatedRegion { region, elements, offset } in &regions.all {
            let purpose = match region {
                Region::Weights | Region::Bf16Weights => MemoryUse::Weights,
                Region::Gradients | Region::PartGradients => MemoryUse::Gradients,
                Region::Slot(_) => MemoryUse::Optimizer,
                Region::Statistics | Region::Metrics => MemoryUse::Statistics,
                Region::InputStaging => MemoryUse::Activations,
            };
            let name = region.to_string();
            let element = region.element(spec.precision);
            let region = Some(region);
            emitter.buffers.push(Buffer { device, elements, element, purpose, region, name, offset });
        }
    }
    for op in &placed.ops {
        emitter.op(op);
    }
    Program { variant: placed.variant, buffers: emitter.buffers, instructions: emitter.instructions }
}

struct Emitter<'a> {
    network: &'a Network,
    placed: &'a Placed,
    regions: &'a Regions,
    spec: &'a Spec,
    buffers: Vec<Buffer>,
    homes: HashMap<(TensorId, usize), BufferId>,
    instructions: Vec<Instruction>,
    counts: Vec<usize>,
}

impl Emitter<'_> {
    fn window(&self, tensor: TensorId, device: usize) -> LocalSlice {
        let t = &self.placed.tensors[tensor];
        t.layout.window(&t.shape, self.spec.mesh, self.spec.mesh.position(device))
    }

    /// Returns the buffer and first element of a tensor on a device.
    fn home(&mut self, tensor: TensorId, device: usize) -> (BufferId, usize) {
        let root = self.placed.root(tensor);
        let t = &self.placed.tensors[root];
        if let Home::Fixed(region, offset) = t.home {
            let number = self
                .regions
                .all
                .iter()
                .position(|allocated| allocated.region == region)
                .expect("every region is laid out");
            return (device * self.regions.all.len() + number, offset);
        }
        if let Some(&buffer) = self.homes.get(&(root, device)) {
            return (buffer, 0);
        }
        let elements = self.window(root, device).elements();
        let buffer = self.buffer(device, elements, t.element, t.purpose, t.name.clone());
        self.homes.insert((root, device), buffer);
        (buffer, 0)
    }

    fn buffer(
        &mut self,
        device: usize,
        elements: usize,
        element: Element,
        purpose: MemoryUse,
        name: String,
    ) -> BufferId {
        self.buffers.push(Buffer { device, elements, element, purpose, region: None, name, offset: 0 });
        self.buffers.len() - 1
    }

    fn local(&mut self, tensor: TensorId, device: usize, access: Access) -> LocalOperand {
        let (buffer, offset) = self.home(tensor, device);
        let shape = self.placed.tensors[tensor].shape.clone();
        LocalOperand { buffer, offset, shape, window: self.window(tensor, device), access }
    }

    fn push(&mut self, device: usize, queue: Queue, work: Work, uses: Vec<Use>, name: String) {
        let count = &mut self.counts[queue.index(device)];
        let index = *count;
        *count += 1;
        let uses = uses.into_iter().filter(|u| u.part.elements() > 0).collect();
        self.instructions.push(Instruction { device, queue, index, work, uses, waits: Vec::new(), name });
    }

    fn op(&mut self, op: &Op) {
        let devices = self.spec.mesh.devices();
        match op {
            Op::Load { input, to } => {
                // Steps of the preparation before the last one write f32 images in turn to this memory.
                let between = match (input, self.placed.variant.mode) {
                    (Input::Images, Mode::Train) => self.spec.augment.between[0],
                    (Input::Images, Mode::Eval) => self.spec.augment.between[1],
                    (Input::Targets, _) => 0,
                };
                for device in 0..devices {
                    let to = self.local(*to, device, Access::Write);
                    let mut uses = vec![whole(&to)];
                    let staging =
                        self.regions.all.iter().position(|allocated| allocated.region == Region::InputStaging);
                    if let Some(number) = staging {
                        let part = Strided::contiguous(0, self.regions.all[number].elements);
                        let buffer = device * self.regions.all.len() + number;
                        uses.push(Use { buffer, part, access: Access::Read });
                    }
                    let mut scratch = None;
                    if between > 0 && staging.is_some() {
                        let elements = between * to.window.len[0];
                        scratch = Some(self.scratch(device, elements, "augmented".into(), &mut uses));
                    }
                    let name = format!("load {input:?}").to_lowercase();
                    // On a GPU, the device's part is already in the input staging buffer. Kernels prepare the images;
                    // the targets are copied beside the forward pass.
                    let prepares = staging.is_some() && *input == Input::Images;
                    let queue = if prepares { Queue::Compute } else { Queue::Copy };
                    self.push(device, queue, Work::Load { input: *input, to, scratch }, uses, name);
                }
            }
            Op::Phase { node, pass, phase, operands, epilogue } => {
                let layer = &self.network.nodes[*node];
                for device in 0..devices {
                    let (operands, mut uses) = self.operands(operands, device);
                    let shapes: Operands = operands.iter().map(|(role, l)| (*role, self.described(l))).collect();
                    let elements = layer.layer.scratch(phase, &shapes, self.spec.target);
                    let scratch = (elements > 0).then(|| {
                        let name = format!("{} scratch", layer.name);
                        self.scratch(device, elements, name, &mut uses)
                    });
                    let with = epilogue.map(|(_, node)| format!(" with {}", self.network.nodes[node].name));
                    let name = format!("{}.{phase}{}", layer.name, with.unwrap_or_default());
                    let (node, pass, epilogue) = (*node, *pass, *epilogue);
                    let work = Work::Phase { node, pass, phase, operands, scratch, epilogue };
                    self.push(device, Queue::Compute, work, uses, name);
                }
            }
            Op::Add { terms, to, mask } => {
                for device in 0..devices {
                    let pieces = |this: &mut Self, ids: &[TensorId]| -> Vec<Slice> {
                        ids.iter().map(|&id| this.piece(id, device)).collect()
                    };
                    let (sources, targets) = (pieces(self, terms), pieces(self, &[*to]));
                    let piece = mask.map(|mask| self.piece(mask, device));
                    let only = mask.map(|mask| format!(" where {} > 0", self.placed.tensors[mask].name));
                    let name = format!("add {}{}", self.placed.tensors[*to].name, only.unwrap_or_default());
                    self.sum(device, Queue::Compute, None, (sources, targets, piece), 0, name);
                }
            }
            Op::Move { collective, axis, from, to } => self.collective(*collective, *axis, *from, *to),
            Op::Update { stage, bucket, operands } => {
                let writes = |role| operands.iter().any(|&(r, _, access)| r == role && access == Access::Write);
                let (name, queue) = match (writes(UpdateRole::Norms), writes(UpdateRole::NonFiniteGradients), bucket) {
                    (true, ..) => ("optimizer.norms", Queue::Compute),
                    (false, _, Some(_)) => ("optimizer.check", Queue::Communication),
                    (false, true, None) => ("optimizer.check", Queue::Compute),
                    (false, false, None) => ("optimizer.update", Queue::Compute),
                };
                for device in 0..devices {
                    let (operands, uses) = self.operands(operands, device);
                    let work = Work::Update { stage: *stage, bucket: *bucket, operands };
                    self.push(device, queue, work, uses, name.into());
                }
            }
        }
    }

    /// Allocates scratch memory for a single instruction.
    fn scratch(&mut self, device: usize, elements: usize, name: String, uses: &mut Vec<Use>) -> LocalOperand {
        let element = Element::Real(self.spec.precision);
        let buffer = self.buffer(device, elements, element, MemoryUse::Workspace, name);
        let window = LocalSlice { start: vec![0], len: vec![elements] };
        let local = LocalOperand { buffer, offset: 0, shape: [elements].into(), window, access: Access::Scratch };
        uses.push(whole(&local));
        local
    }

    fn operands<R: Copy>(
        &mut self,
        operands: &[(R, TensorId, Access)],
        device: usize,
    ) -> (Vec<(R, LocalOperand)>, Vec<Use>) {
        let mut uses = Vec::new();
        let locals = operands
            .iter()
            .map(|&(role, tensor, access)| {
                let local = self.local(tensor, device, access);
                uses.push(whole(&local));
                (role, local)
            })
            .collect();
        (locals, uses)
    }

    /// Returns the description of an operand that has no address yet.
    fn described(&self, local: &LocalOperand) -> Operand {
        Operand::described(self.buffers[local.buffer].element, local.shape.clone(), local.window.clone())
    }

    fn piece(&mut self, tensor: TensorId, device: usize) -> (BufferId, Strided) {
        let (buffer, offset) = self.home(tensor, device);
        (buffer, Strided::contiguous(offset, self.window(tensor, device).elements()))
    }

    fn sum(
        &mut self,
        device: usize,
        queue: Queue,
        collective: Option<(Collective, Axis)>,
        (sources, targets, mask): (Vec<Slice>, Vec<Slice>, Option<Slice>),
        wire: usize,
        name: String,
    ) {
        if targets.iter().all(|(_, part)| part.elements() == 0) {
            return;
        }
        let read = sources.iter().chain(&mask).map(|&(buffer, part)| Use { buffer, part, access: Access::Read });
        let write = targets.iter().map(|&(buffer, part)| Use { buffer, part, access: Access::Write });
        let uses = read.chain(write).collect();
        self.push(device, queue, Work::Sum { collective, sources, targets, mask, wire }, uses, name);
    }

    fn collective(&mut self, collective: Collective, axis: Axis, from: TensorId, to: TensorId) {
        let queue = if collective == Collective::Slice { Queue::Compute } else { Queue::Communication };
        for group in self.spec.mesh.groups(axis) {
            let whole = self.spec.nccl == NcclUse::Always || !self.spec.processes.is_one(&group);
            if queue == Queue::Communication && whole {
                self.between_processes(collective, axis, &group, (from, to));
                continue;
            }
            let windows = |tensor| group.iter().map(|&d| self.window(tensor, d)).collect::<Vec<_>>();
            let hops = collectives::lower(collective, self.spec.algorithm, &windows(from), &windows(to));
            let mut scratch = HashMap::new();
            let name = format!("{collective} {}", self.placed.tensors[to].name);
            let mut sums = Vec::new();
            for hop in hops.hops {
                let mut pieces = |this: &mut Self, pieces: &[collectives::HopSlice]| -> Vec<Slice> {
                    pieces
                        .iter()
                        .map(|piece| {
                            let device = group[piece.rank];
                            let (buffer, offset) = match piece.buffer {
                                collectives::HopBuffer::From => this.home(from, device),
                                collectives::HopBuffer::To => this.home(to, device),
                                collectives::HopBuffer::Scratch => {
                                    let buffer = *scratch.entry(device).or_insert_with(|| {
                                        let name = format!("{name} scratch");
                                        let element = this.placed.tensors[to].element;
                                        this.buffer(device, hops.scratch, element, MemoryUse::Communication, name)
                                    });
                                    (buffer, 0)
                                }
                            };
                            (buffer, piece.part.shifted(offset))
                        })
                        .collect()
                };
                let (sources, targets) = (pieces(self, &hop.sources), pieces(self, &hop.targets));
                let wire = hop.wire_elements() * self.placed.tensors[to].element.bytes();
                sums.push(Sum { device: group[hop.rank], sources, targets, wire, way: "" });
            }
            if let Peers::SameGpu(gpus) = &self.spec.peers {
                let host = self.host_of(group[0]);
                sums = through_host(&sums, gpus, host, &mut self.buffers);
            }
            for Sum { device, sources, targets, wire, way } in sums {
                let name = format!("{name}{way}");
                self.sum(device, queue, Some((collective, axis)), (sources, targets, None), wire, name);
            }
        }
    }
}

impl Emitter<'_> {
    /// Leaves a collective whole: memory is not shared.
    fn between_processes(
        &mut self,
        collective: Collective,
        axis: Axis,
        group: &[usize],
        (from, to): (TensorId, TensorId),
    ) {
        let peer = |&device: &usize| Peer { device, from: self.window(from, device), to: self.window(to, device) };
        let peers: Arc<[Peer]> = group.iter().map(peer).collect();
        let [before, after] = [|peer: &Peer| peer.from.clone(), |peer: &Peer| peer.to.clone()]
            .map(|window| peers.iter().map(window).collect::<Vec<_>>());
        let hops = collectives::lower(collective, self.spec.algorithm, &before, &after).hops;
        let element = self.placed.tensors[to].element;
        let crossing =
            |rank: usize| -> usize { hops.iter().filter(|hop| hop.rank == rank).map(|hop| hop.wire_elements()).sum() };
        let wire = |rank: usize| element.bytes() * crossing(rank);
        let pieces = |this: &mut Self, device| (this.piece(from, device), this.piece(to, device));
        if !self.spec.target.is_gpu() || self.spec.nccl != NcclUse::Never {
            for (rank, &device) in group.iter().enumerate() {
                let (from, to) = pieces(self, device);
                let scratch = self.scratch_of(&DeviceCollective { collective, peers: &peers, device }, to.0);
                // Gradients that are rounded cross as such.
                let element = scratch.map_or(element, |(buffer, _)| self.buffers[buffer].element);
                let wire = element.bytes() * crossing(rank);
                self.whole((collective, axis, &peers), vec![PeerPart { device, from, to, scratch }], wire);
            }
            return;
        }
        // GPUs copy their tensors to and from host memory, where one instruction is for all of a process.
        let mut parts = Vec::new();
        for &device in group {
            let (from, to) = pieces(self, device);
            let (name, host) = (format!("{collective} {}", self.buffers[to.0].name), self.host_of(device));
            let before = add(&mut self.buffers, host, from.0, from.1.elements());
            let after = if from == to { before } else { add(&mut self.buffers, host, to.0, to.1.elements()) };
            let moved = (vec![from], vec![before], None);
            self.sum(device, Queue::Communication, Some((collective, axis)), moved, 0, format!("{name} to the host"));
            parts.push((name, to, PeerPart { device, from: before, to: after, scratch: None }));
        }
        for members in parts.chunk_by(|a, b| self.spec.processes.is_one(&[a.2.device, b.2.device])) {
            let rank = |part: &PeerPart| group.iter().position(|&device| device == part.device);
            let wire = members.iter().filter_map(|(.., part)| rank(part)).map(wire).sum();
            self.whole((collective, axis, &peers), members.iter().map(|(.., part)| part.clone()).collect(), wire);
        }
        for (name, to, PeerPart { device, to: after, .. }) in parts {
            let moved = (vec![after], vec![to], None);
            self.sum(device, Queue::Communication, Some((collective, axis)), moved, 0, format!("{name} from the host"));
        }
    }

    /// Adds the part in a collective of a device, or of the devices of a process.
    fn whole(
        &mut self,
        (collective, axis, peers): (Collective, Axis, &Arc<[Peer]>),
        parts: Vec<PeerPart>,
        wire: usize,
    ) {
        let using = |&(buffer, part): &Slice, access| Use { buffer, part, access };
        let uses = parts.iter().flat_map(|part| {
            let scratch = part.scratch.iter().map(|scratch| using(scratch, Access::Scratch));
            [using(&part.from, Access::Read), using(&part.to, Access::Write)].into_iter().chain(scratch)
        });
        let (uses, device) = (uses.collect(), parts[0].device);
        let name = format!("{collective} {}", self.buffers[parts[0].to.0].name);
        let work = Work::Collective { collective, axis, peers: Arc::clone(peers), parts, wire };
        self.push(device, Queue::Communication, work, uses, name);
    }

    /// Allocates the scratch memory of a GPU for a collective of NCCL, if it needs any.
    fn scratch_of(&mut self, collective: &DeviceCollective, to: BufferId) -> Option<Slice> {
        if !self.spec.target.is_gpu() {
            return None;
        }
        let (elements, element) = collective.nccl_scratch(&self.buffers[to], self.spec);
        let (device, name) = (collective.device, format!("{} scratch", self.buffers[to].name));
        let add = |this: &mut Self| this.buffer(device, elements, element, MemoryUse::Communication, name);
        (elements > 0).then(|| (add(self), Strided::contiguous(0, elements)))
    }

    /// Returns the number of the host memory of a device's process.
    fn host_of(&self, device: usize) -> usize {
        self.spec.mesh.devices() + self.spec.processes.of(device)
    }
}

fn whole(local: &LocalOperand) -> Use {
    let part = Strided::contiguous(local.offset, local.window.elements());
    Use { buffer: local.buffer, part, access: local.access }
}
