//! A program that consists of one redistribution, for measuring and checking collectives by themselves.

use crate::collectives::Collective;
use crate::layers::Activation;
use crate::network::Network;
use crate::optim::Chain;
use crate::placement::{Flat, Home, MemoryUse, Op, Placed, Region, Spec, Tensor, Variant};
use crate::program::{InputStaging, Plan, Regions};
use crate::tensor::{Axis, Element, Layout, Mesh, Placement, Precision, Shape};
use std::sync::Arc;

/// A redistribution along the data axis. Its source is in the region of gradients and its result in the region of
/// weights; an all-reduce works in place, in the region of gradients.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OneMove {
    /// The collective.
    pub collective: Collective,
    /// Shape of the whole tensor.
    pub shape: Shape,
    /// The placement before.
    pub have: Placement,
    /// The placement after.
    pub want: Placement,
}

impl OneMove {
    /// Returns the region of the result.
    pub fn result(&self) -> Region {
        if self.in_place() { Region::Gradients } else { Region::Weights }
    }

    fn in_place(&self) -> bool {
        self.collective == Collective::AllReduce
    }

    /// Returns the layouts before and after.
    pub fn layouts(&self) -> [Layout; 2] {
        [self.have, self.want].map(|place| Layout::new(place, Placement::Replicate))
    }

    fn elements(&self, layout: Layout, mesh: Mesh) -> usize {
        let device = |d| layout.window(&self.shape, mesh, mesh.position(d)).elements();
        (0..mesh.devices()).map(device).max().unwrap_or(0)
    }

    /// Plans the program of the only variant.
    ///
    /// # Panics
    /// If it has a race, which would be a bug in this crate.
    pub fn plan(&self, spec: Spec) -> Plan {
        let mesh = spec.mesh;
        let [from, to] = self.layouts();
        let network = Network {
            input: Activation::new(1, 1, 1),
            nodes: Vec::new(),
            parameters: Vec::new(),
            statistics: Vec::new(),
            metrics: Vec::new(),
        };
        let mut sizes = vec![(Region::Gradients, self.elements(from, mesh))];
        if !self.in_place() {
            sizes.push((self.result(), self.elements(to, mesh)));
        }
        sizes.push((Region::Metrics, Region::COUNTS));
        if spec.target.is_gpu() {
            sizes.push((Region::InputStaging, InputStaging::of(&network, &spec).elements()));
        }
        let regions = Regions::new(&sizes, Precision::F32);
        let tensor = |layout, home| Tensor {
            name: "values".into(),
            shape: self.shape.clone(),
            layout,
            home,
            purpose: MemoryUse::Gradients,
            element: Element::F32,
        };
        let home = if self.in_place() { Home::Alias(0) } else { Home::Fixed(self.result(), 0) };
        let placed = Placed {
            variant: variant(),
            tensors: vec![tensor(from, Home::Fixed(Region::Gradients, 0)), tensor(to, home)],
            ops: vec![Op::Move { collective: self.collective, axis: Axis::Data, from: 0, to: 1 }],
            ..Placed::default()
        };
        let mut plan = Plan {
            network: Arc::new(network),
            chain: Arc::new(Chain::default()),
            own: 0..mesh.devices(),
            arena: vec![regions.end; mesh.devices()],
            regions,
            flat: Flat::default(),
            statistics: Vec::new(),
            programs: Vec::new(),
            hosts: vec![0; spec.processes.count()],
            spec,
        };
        plan.add(&placed);
        plan
    }
}

/// The only step of such a program.
pub(super) fn variant() -> Variant {
    Variant::gradients(1)
}
