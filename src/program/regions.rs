//! The regions of an arena: the memory that outlives a step, at the same bytes on every device.

use super::arena;
use crate::data::BatchPart;
use crate::gpu::CLOCK_BYTES;
use crate::network::Network;
use crate::optim::Chain;
use crate::placement::{Placed, Region, Spec};
use crate::tensor::{Element, Layout, MatmulPrecision, Precision};

/// A region in the arena of every device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllocatedRegion {
    /// The region.
    pub region: Region,
    /// The number of its elements.
    pub elements: usize,
    /// Its first byte.
    pub offset: usize,
}

/// All regions, one after another from the first byte of the arena.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Regions {
    /// The regions.
    pub all: Vec<AllocatedRegion>,
    /// The first byte after them.
    pub end: usize,
}

impl Regions {
    /// Lays out regions with the given numbers of elements.
    pub fn new(sizes: &[(Region, usize)], precision: Precision) -> Self {
        let mut end = 0;
        let lay = |&(region, elements): &(Region, usize)| {
            let allocated = AllocatedRegion { region, elements, offset: end };
            end = (end + elements * region.element(precision).bytes()).next_multiple_of(arena::ALIGN);
            allocated
        };
        Regions { all: sizes.iter().map(lay).collect(), end }
    }

    /// Lays out the memory that a run keeps between steps. `placed` is any of its placed networks; all have the same
    /// regions.
    pub fn of(network: &Network, chain: &Chain, placed: &Placed, spec: &Spec) -> Self {
        let (flat, mesh) = (&placed.flat, spec.mesh);
        let state = |(i, (layout, offset)): (usize, &(Layout, usize))| {
            offset + layout.window(&network.statistics[i].param.shape, mesh, mesh.position(0)).elements()
        };
        let statistics = placed.statistics.iter().enumerate().map(state).max().unwrap_or(0);
        let mut sizes = vec![(Region::Weights, flat.len)];
        if spec.products == MatmulPrecision::Bf16 {
            sizes.push((Region::Bf16Weights, flat.len));
        }
        sizes.push((Region::Gradients, flat.len));
        if spec.variants.iter().any(|variant| variant.part != BatchPart::Whole) {
            sizes.push((Region::PartGradients, flat.len));
        }
        sizes.extend((0..chain.num_regions()).map(|slot| (Region::Slot(slot), flat.len)));
        let kept = chain.clipping().filter(|_| spec.keeps_norms).map_or(0, |clipping| {
            chain.stages()[clipping.stage].num_norms(network.parameters.len(), network.num_units())
        });
        let metrics = network.metrics.len() + Region::COUNTS + kept;
        sizes.extend([(Region::Statistics, statistics), (Region::Metrics, metrics)]);
        if spec.target.is_gpu() {
            sizes.push((Region::InputStaging, InputStaging::of(network, spec).elements()));
        }
        Regions::new(&sizes, spec.precision)
    }

    /// Returns a region, or `None` if the arena does not have it.
    pub fn get(&self, region: Region) -> Option<AllocatedRegion> {
        self.all.iter().find(|allocated| allocated.region == region).copied()
    }
}

/// The layout of a GPU's input staging buffer, which holds the inputs of submitted steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InputStaging {
    /// The elements of the device's images in the largest batch.
    pub images: usize,
    /// The elements of their targets.
    pub targets: usize,
    /// The elements of their random draws for augmentation.
    pub draws: usize,
    /// The elements of the clock.
    pub clock: usize,
}

impl InputStaging {
    /// The number of batches that the host may submit ahead of the GPU.
    pub const SLOTS: usize = 2;
    /// The number of batches whose memory a GPU may still read when the host requests another one, and that one.
    pub const READS: usize = Self::SLOTS + 1;

    /// Returns the first element of images (`input` 0), targets (1), draws (2) or the clock (3) of a slot.
    pub fn at(self, slot: usize, input: usize) -> usize {
        let parts = [self.images, self.targets, self.draws, self.clock].map(|n| n.next_multiple_of(arena::ALIGN));
        slot * parts.iter().sum::<usize>() + parts[..input].iter().sum::<usize>()
    }

    /// Returns the number of elements of all slots.
    pub fn elements(self) -> usize {
        self.at(Self::SLOTS, 0)
    }

    /// Returns a layout that is large enough for every variant. The first device has the most rows.
    pub fn of(network: &Network, spec: &Spec) -> InputStaging {
        let rows = spec.variants.iter().map(|v| v.batch).max().unwrap_or(0).div_ceil(spec.mesh.data);
        InputStaging {
            images: rows * spec.augment.stored.max(network.input.features()),
            targets: rows * spec.target_width,
            draws: rows * spec.augment.drawn,
            clock: CLOCK_BYTES / Element::F32.bytes(),
        }
    }
}
