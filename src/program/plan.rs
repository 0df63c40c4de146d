//! The plan: everything that is determined before the first step, as data.

use super::{Compiled, InputStaging, Program, Regions, compile};
use crate::error::Problem;
use crate::network::Network;
use crate::optim::{Chain, Segment};
use crate::placement::{self, Flat, Placed, Region, Spec};
use crate::tensor::{Axis, Layout, Placement};
use std::ops::Range;
use std::sync::Arc;

/// The programs of a run and the arena that they share.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The network.
    pub network: Arc<Network>,
    /// The optimiser.
    pub chain: Arc<Chain>,
    /// The mesh, precision, batch sizes and other settings of how it runs.
    pub spec: Spec,
    /// The regions, which outlive a step, on every device.
    pub regions: Regions,
    /// The layout and offset of each parameter in the flat regions.
    pub flat: Flat,
    /// The layout and offset of each running statistic in its region.
    pub statistics: Vec<(Layout, usize)>,
    /// The devices whose programs these are: all, or those of one process, which then count from 0 in the programs.
    pub own: Range<usize>,
    /// One program per variant.
    pub programs: Vec<Program>,
    /// Bytes of the arena of each of these devices.
    pub arena: Vec<usize>,
    /// Bytes of each process's host memory for transfers of GPUs.
    pub hosts: Vec<usize>,
}

impl Plan {
    /// Plans the programs of a network.
    ///
    /// # Errors
    /// Every split that does not fit its layer.
    ///
    /// # Panics
    /// If the checker finds a race in a program, which would be a bug in this crate.
    pub fn new(network: Arc<Network>, chain: Arc<Chain>, spec: Spec) -> Result<Plan, Vec<Problem>> {
        let place = |&variant| placement::place(&network, &chain, &spec, variant);
        let placed: Vec<Placed> = spec.variants.iter().map(place).collect::<Result<_, _>>()?;
        let first = placed.first().cloned().unwrap_or_default();
        let regions = Regions::of(&network, &chain, &first, &spec);
        let (arena, programs) = (vec![regions.end; spec.mesh.devices()], Vec::with_capacity(placed.len()));
        let Placed { flat, statistics, .. } = first;
        let own = 0..spec.mesh.devices();
        let hosts = vec![0; spec.processes.count()];
        let mut plan = Plan { network, chain, spec, regions, flat, statistics, own, programs, arena, hosts };
        placed.iter().for_each(|placed| plan.add(placed));
        Ok(plan)
    }

    /// Compiles a placed step and adds its program; the arena grows if the program needs more.
    ///
    /// # Panics
    /// If the program is not free of races.
    pub fn add(&mut self, placed: &Placed) {
        let compiled = compile(&self.network, placed, &self.regions, &self.spec);
        let Compiled { program, arena, hosts } = compiled.unwrap_or_else(|race| {
            panic!("the plan of {:?} on a mesh of {} is not safe: {race}", placed.variant, self.spec.mesh)
        });
        let larger = |(all, one): (&mut usize, usize)| *all = (*all).max(one);
        self.hosts.iter_mut().zip(hosts).for_each(larger);
        self.arena.iter_mut().zip(arena).for_each(larger);
        self.programs.push(program);
    }

    /// Returns the plan of a process: that of its own devices, which count from 0 in its programs. Peers of collectives keep their numbers.
    pub fn of_process(&self, process: usize) -> Plan {
        let devices = self.spec.mesh.devices();
        let own = self.spec.processes.devices(process, devices);
        let programs = self.programs.iter().map(|program| program.of_process(own.clone(), devices + process)).collect();
        let (arena, hosts) = (self.arena[own.clone()].to_vec(), vec![self.hosts[process]]);
        Plan { programs, arena, hosts, own, ..self.clone() }
    }

    /// Returns each parameter's segment of the flat regions on a device of this plan, in the order of offsets.
    pub fn segments(&self, device: usize) -> Vec<Segment> {
        let at = self.spec.mesh.position(self.own.start + device);
        let mut layers = vec![0; self.network.parameters.len()];
        for (index, node) in self.network.nodes.iter().enumerate() {
            node.params.iter().for_each(|&param| layers[param] = index);
        }
        let mut units = Vec::with_capacity(self.network.parameters.len());
        let mut next = 0;
        for parameter in &self.network.parameters {
            units.push(next);
            next += parameter.units();
        }
        let segment = |&param: &usize| {
            let part = self.flat.parts[param];
            let parameter = &self.network.parameters[param];
            let first = |axis: Axis| part.layout.on(axis) != Placement::Replicate || at.on(axis) == 0;
            let window = part.layout.window(&parameter.param.shape, self.spec.mesh, at);
            let is_one = parameter.units() == 1;
            let own = if is_one { 1 } else { window.len[0].max(1) };
            Segment {
                unit: units[param] + if is_one { 0 } else { window.start[0] },
                run: (part.len / own).max(1),
                offset: part.offset,
                len: part.len,
                layer: layers[param],
                group: parameter.group,
                lr_mult: parameter.lr_mult,
                decay_mult: parameter.decay_mult,
                counted: parameter.lr_mult != 0.0 && Axis::INNER_FIRST.into_iter().all(first),
            }
        };
        self.flat.order.iter().map(segment).collect()
    }

    /// Returns the first byte of a region in every device's arena, and the number of its elements.
    ///
    /// # Panics
    /// If the plan has no such region.
    pub fn region(&self, required: Region) -> (usize, usize) {
        self.regions
            .get(required)
            .map(|allocated| (allocated.offset, allocated.elements))
            .expect("the region is part of the plan")
    }

    /// Returns the layout of the input staging buffer of a GPU.
    pub fn staging(&self) -> InputStaging {
        InputStaging::of(&self.network, &self.spec)
    }
}
