//! Everything that is known before the first step, as data.

use super::lower::Context;
use super::{Peers, Program, arena, check, events, lower};
use crate::collectives::Form;
use crate::data::Augment;
use crate::device::{Path, Queue};
use crate::error::Problem;
use crate::layers::METRICS;
use crate::network::Network;
use crate::optim::{Chain, Segment};
use crate::placement::{self, Flat, Placed, Purpose, Region, Request, Variant};
use crate::tensor::{Axis, Layout, Mesh, Place, Precision, Products};
use std::sync::Arc;

/// What runs the phases of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Target {
    /// CPU devices.
    #[default]
    Cpu,
    /// GPUs, emulated ones included.
    Gpu,
    /// GPUs on which NVIDIA's libraries may compute products and convolutions: there is workspace for them.
    GpuWithLibraries,
}

/// Where and how a network runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The mesh of devices.
    pub mesh: Mesh,
    /// What kind of devices they are.
    pub target: Target,
    /// The element type.
    pub precision: Precision,
    /// What GPUs round factors of products, and activations, to.
    pub products: Products,
    /// Threads per CPU device.
    pub threads: usize,
    /// How collectives are done.
    pub form: Form,
    /// Which devices read each other's memory; what crosses between others goes through the host's.
    pub peers: Peers,
    /// Fast or plain layers.
    pub path: Path,
    /// Width of the targets: 1 for class indices, else the number of classes.
    pub target_width: usize,
    /// Steps of augmentation that training images go through.
    pub augment: usize,
    /// The seed of counted random numbers.
    pub seed: u64,
    /// The steps that will be run.
    pub variants: Vec<Variant>,
}

/// The programs of a run and the arena that they share.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The network.
    pub network: Arc<Network>,
    /// The optimiser.
    pub chain: Arc<Chain>,
    /// Where and how it runs.
    pub options: Options,
    /// What outlives a step on every device.
    pub regions: Vec<Laid>,
    /// Where each parameter lies in its regions.
    pub flat: Flat,
    /// Layout and offset of each running statistic in its region.
    pub statistics: Vec<(Layout, usize)>,
    /// One program per variant.
    pub programs: Vec<Program>,
    /// Bytes of each device's arena.
    pub arena: Vec<usize>,
    /// Bytes of the host's memory that GPUs exchange through.
    pub host: usize,
}

/// A region in the arena of every device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Laid {
    /// Which one.
    pub region: Region,
    /// Its length.
    pub elements: usize,
    /// Its first byte.
    pub offset: usize,
}

/// Bytes of one device's arena by purpose. A byte that several purposes share in turn counts for the first of
/// activations, workspace and communication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// All of it.
    pub arena: usize,
    /// Parameters.
    pub weights: usize,
    /// Gradients of parameters.
    pub gradients: usize,
    /// State of the optimiser.
    pub optimizer: usize,
    /// Running statistics and metrics.
    pub statistics: usize,
    /// Inputs, outputs, their gradients.
    pub activations: usize,
    /// Scratch memory of phases.
    pub workspace: usize,
    /// Redistributed copies and buffers of collectives.
    pub communication: usize,
}

impl Plan {
    /// Plans the programs of a network.
    ///
    /// # Errors
    /// Every split that does not fit its layer.
    ///
    /// # Panics
    /// When a program fails its own proof of being free of races, which would be a fault in this crate.
    pub fn new(network: Arc<Network>, chain: Arc<Chain>, options: Options) -> Result<Plan, Vec<Problem>> {
        let mesh = options.mesh;
        let mut placed: Vec<Placed> = Vec::with_capacity(options.variants.len());
        for &variant in &options.variants {
            let Options { target_width, precision, products, .. } = options;
            let fuse = options.target != Target::Cpu;
            let request =
                Request { network: &network, chain: &chain, target_width, mesh, precision, products, fuse, variant };
            placed.push(placement::place(request)?);
        }
        let (flat, statistics) = placed.first().map(|p| (p.flat.clone(), p.statistics.clone())).unwrap_or_default();
        let sizes = sizes(&network, &chain, &flat, &statistics, &options);
        let (regions, base) = lay_out(&sizes, options.precision);
        let queues = mesh.devices() * Queue::COUNT;
        let mut plan = Plan {
            network: Arc::clone(&network),
            chain,
            options,
            regions,
            flat,
            statistics,
            programs: Vec::new(),
            arena: vec![base; mesh.devices()],
            host: 0,
        };
        for (placed, &variant) in placed.iter().zip(&plan.options.variants) {
            let Options { target, form, threads, precision, augment, .. } = plan.options;
            let (peers, regions) = (&plan.options.peers, &plan.regions);
            let network = &network;
            let cx = Context { network, mesh, target, form, peers, threads, variant, precision, augment, regions };
            let mut program = lower::lower(cx, placed);
            let clocks = events::derive(&mut program, queues);
            let (ends, host) = arena::assign(&mut program, &clocks, base, mesh.devices());
            plan.host = plan.host.max(host);
            plan.arena.iter_mut().zip(ends).for_each(|(arena, end)| *arena = (*arena).max(end));
            if let Err(race) = check::check(&program, queues) {
                panic!("the plan of {variant:?} on a mesh of {mesh} is not safe: {race}");
            }
            plan.programs.push(program);
        }
        Ok(plan)
    }

    /// Returns each parameter's segment of the flat regions on a device, in the order of their offsets.
    pub fn segments(&self, device: usize) -> Vec<Segment> {
        let at = self.options.mesh.position(device);
        let segment = |&param: &usize| {
            let part = self.flat.parts[param];
            let parameter = &self.network.parameters[param];
            let first = |axis: Axis| part.layout.on(axis) != Place::Replicate || at.on(axis) == 0;
            Segment {
                offset: part.offset,
                len: part.len,
                lr_mult: parameter.lr_mult,
                decay_mult: parameter.decay_mult,
                counted: Axis::INNER_FIRST.into_iter().all(first),
            }
        };
        self.flat.order.iter().map(segment).collect()
    }

    /// Returns the first byte of a region in every device's arena, and the number of its elements.
    ///
    /// # Panics
    /// When the chain has no such slot.
    pub fn region(&self, wanted: Region) -> (usize, usize) {
        let found = self.regions.iter().find(|laid| laid.region == wanted);
        found.map(|laid| (laid.offset, laid.elements)).expect("every region is laid out")
    }

    /// Returns where batches wait on a GPU.
    pub fn inbox(&self) -> Inbox {
        Inbox::of(&self.network, &self.options)
    }

    /// Returns what the bytes of a device's arena are for.
    pub fn usage(&self, device: usize) -> Usage {
        let mut usage = Usage { arena: self.arena[device], ..Usage::default() };
        for &Laid { region, elements, .. } in &self.regions {
            let field = match region {
                Region::Weights | Region::Halves => &mut usage.weights,
                Region::Gradients => &mut usage.gradients,
                Region::Slot(_) => &mut usage.optimizer,
                Region::Statistics | Region::Metrics => &mut usage.statistics,
                Region::Inbox => &mut usage.activations,
            };
            *field += elements * region.element(self.options.precision).bytes();
        }
        let mut covered: Vec<(usize, usize)> = Vec::new();
        for purpose in [Purpose::Activations, Purpose::Workspace, Purpose::Communication] {
            let before = total(&covered);
            let own = self
                .programs
                .iter()
                .flat_map(|p| &p.buffers)
                .filter(|b| b.device == device && b.region.is_none() && b.purpose == purpose && b.elements > 0);
            covered.extend(own.map(|b| (b.offset, b.offset + b.bytes())));
            covered = merged(covered);
            let field = match purpose {
                Purpose::Activations => &mut usage.activations,
                Purpose::Workspace => &mut usage.workspace,
                _ => &mut usage.communication,
            };
            *field = total(&covered) - before;
        }
        usage
    }
}

fn total(ranges: &[(usize, usize)]) -> usize {
    ranges.iter().map(|(start, end)| end - start).sum()
}

fn merged(mut ranges: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    ranges.sort_unstable();
    let mut out: Vec<(usize, usize)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match out.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}

/// Where a batch for a GPU waits in its inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inbox {
    /// Elements of the device's images in the largest batch.
    pub images: usize,
    /// Elements of its targets.
    pub targets: usize,
    /// Elements of what augmentation draws for them.
    pub draws: usize,
}

impl Inbox {
    /// Batches that the host may be ahead of the GPU.
    pub const SLOTS: usize = 2;

    /// Returns the first element of images (`input` 0), targets (1) or draws (2) of a slot.
    pub fn at(self, slot: usize, input: usize) -> usize {
        let parts = [self.images, self.targets, self.draws].map(|n| n.next_multiple_of(arena::ALIGN));
        slot * parts.iter().sum::<usize>() + parts[..input].iter().sum::<usize>()
    }

    /// Returns the elements of all slots.
    pub fn elements(self) -> usize {
        self.at(Self::SLOTS, 0)
    }

    /// Returns the inbox that is large enough for every variant: the first device holds the most rows.
    pub fn of(network: &Network, options: &Options) -> Inbox {
        let rows = options.variants.iter().map(|v| v.rows).max().unwrap_or(0).div_ceil(options.mesh.data);
        Inbox {
            images: rows * network.input.features(),
            targets: rows * options.target_width,
            draws: rows * options.augment * Augment::DRAWS,
        }
    }
}

/// The regions of every device and their elements.
fn sizes(
    network: &Network,
    chain: &Chain,
    flat: &Flat,
    statistics: &[(Layout, usize)],
    options: &Options,
) -> Vec<(Region, usize)> {
    let mesh = options.mesh;
    let state = |(i, (layout, offset)): (usize, &(Layout, usize))| {
        offset + layout.window(&network.states[i].param.shape, mesh, mesh.position(0)).elements()
    };
    let statistics = statistics.iter().enumerate().map(state).max().unwrap_or(0);
    let slots = chain.slots(0..chain.0.len()).len();
    let halves = (options.products == Products::Bf16).then_some((Region::Halves, flat.len));
    [(Region::Weights, flat.len)]
        .into_iter()
        .chain(halves)
        .chain([(Region::Gradients, flat.len)])
        .chain((0..slots).map(|slot| (Region::Slot(slot), flat.len)))
        .chain([(Region::Statistics, statistics), (Region::Metrics, METRICS)])
        .chain((options.target != Target::Cpu).then(|| (Region::Inbox, Inbox::of(network, options).elements())))
        .collect()
}

/// Places regions one after the other; returns the first byte after them too.
pub fn lay_out(sizes: &[(Region, usize)], precision: Precision) -> (Vec<Laid>, usize) {
    let mut offset = 0;
    let place = |&(region, elements): &(Region, usize)| {
        let laid = Laid { region, elements, offset };
        offset = (offset + elements * region.element(precision).bytes()).next_multiple_of(arena::ALIGN);
        laid
    };
    (sizes.iter().map(place).collect(), offset)
}
