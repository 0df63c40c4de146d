//! The flat regions: all parameters of a device one after the other, in the order in which the backward pass
//! completes their gradients, so that each bucket of gradients is contiguous.

use super::resolve::Resolved;
use crate::layers::Role;
use crate::network::Network;
use crate::tensor::{Axis, Layout, Mesh, Placement};

/// The alignment of a part's offset, in elements: a cache line of f32.
const ALIGN: usize = 16;
/// The size at which a bucket is closed, in elements.
const BUCKET: usize = 1 << 20;

/// The range of a parameter in the flat regions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlatRange {
    /// Layout of the parameter.
    pub layout: Layout,
    /// Layout in which the backward pass leaves its gradient.
    pub gradient: Layout,
    /// First element.
    pub offset: usize,
    /// Number of elements on each device.
    pub len: usize,
}

/// Gradients that are reduced together.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// First element in the gradients region.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
    /// Its parameters.
    pub params: Vec<usize>,
    /// The axes over which its gradients are partial.
    pub axes: Vec<Axis>,
}

/// The flat regions of parameters, gradients and optimiser state, with the same offsets on every device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Flat {
    /// Each parameter's part, by parameter.
    pub parts: Vec<FlatRange>,
    /// The parameters in the order of their offsets.
    pub order: Vec<usize>,
    /// The buckets, in the order in which the backward pass fills them.
    pub buckets: Vec<Bucket>,
    /// Number of elements of a region.
    pub len: usize,
}

impl Flat {
    /// Lays out the parameters of a resolved network.
    pub fn new(network: &Network, resolved: &[Resolved], mesh: Mesh) -> Self {
        let blank = FlatRange { layout: Layout::REPLICATE, gradient: Layout::REPLICATE, offset: 0, len: 0 };
        let mut flat = Flat { parts: vec![blank; network.parameters.len()], ..Flat::default() };
        for (node, resolved) in network.nodes.iter().zip(resolved).rev() {
            for (i, &param) in node.params.iter().enumerate() {
                let layout = resolved.phases.params[i].on_mesh(mesh);
                let operands = resolved.phases.backward.iter().flat_map(|phase| &phase.operands);
                let gradient = operands
                    .filter(|o| o.role == Role::DParam(i))
                    .map(|o| o.layout.on_mesh(mesh))
                    .next_back()
                    .unwrap_or(layout);
                let shape = &network.parameters[param].param.shape;
                let len = layout.window(shape, mesh, mesh.position(0)).elements();
                debug_assert!(
                    (0..mesh.devices()).all(|d| layout.window(shape, mesh, mesh.position(d)).elements() == len)
                );
                let part = FlatRange { layout, gradient, offset: flat.len, len };
                flat.add(param, part);
            }
        }
        flat
    }

    fn add(&mut self, param: usize, part: FlatRange) {
        let partial = |axis: &Axis| part.gradient.on(*axis) == Placement::Partial;
        let axes: Vec<Axis> = Axis::INNER_FIRST.into_iter().filter(partial).collect();
        for axis in Axis::INNER_FIRST {
            let (weight, gradient) = (part.layout.on(axis), part.gradient.on(axis));
            assert!(weight == gradient || gradient == Placement::Partial, "a reduced gradient has w's layout");
        }
        match self.buckets.last_mut() {
            Some(bucket) if bucket.axes == axes && bucket.len < BUCKET => {
                bucket.params.push(param);
                bucket.len = part.offset + part.len - bucket.offset;
            }
            _ => self.buckets.push(Bucket { offset: part.offset, len: part.len, params: vec![param], axes }),
        }
        self.parts[param] = part;
        self.order.push(param);
        self.len = (part.offset + part.len).next_multiple_of(ALIGN);
    }
}
