//! The part of a convolution that one device computes: its samples, filters and input channels.

use crate::layers::window::{Pair, WindowGeometry};

/// The part of the layer on one device.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalConv {
    pub window: WindowGeometry,
    /// Number of samples, and the height and width of an input image.
    pub n: usize,
    pub h: usize,
    pub w: usize,
    /// Number of input channels that the device holds.
    pub c: usize,
    /// Height and width of an output image, and the number of output channels that the device holds.
    pub oh: usize,
    pub ow: usize,
    pub o: usize,
    /// Number of input channels of a filter that the device holds.
    pub depth: usize,
    /// Global index of the first output channel, then the numbers of outputs and input channels per group.
    pub first: usize,
    pub group_outputs: usize,
    pub group_depth: usize,
    /// Global index of the first channel of x that the device holds, minus that of each filter.
    pub offset: usize,
    /// Whether the layer has a bias, and whether this device adds it.
    pub has_bias: bool,
    pub adds_bias: bool,
}

/// The outputs of one group on this device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// First output channel of the group, among the device's, and the number of them.
    pub first: usize,
    pub outputs: usize,
    /// First input channel of the group, among the device's.
    pub channel: usize,
}

impl LocalConv {
    /// Returns the number of elements in one row of a filter on this device.
    pub fn row(&self) -> usize {
        self.window.kernel.w * self.depth
    }

    /// Returns the number of elements in one filter on this device.
    pub fn filter(&self) -> usize {
        self.window.kernel.h * self.row()
    }

    /// Returns true if every window is one pixel and every pixel is a window.
    pub fn is_pointwise(&self) -> bool {
        let s = self.window;
        let none = Pair::both(0);
        (s.kernel, s.stride, s.pad, s.after) == (Pair::both(1), Pair::both(1), none, none)
    }

    /// Returns true if the positions of a filter are not neighbours on the image.
    pub fn is_dilated(&self) -> bool {
        self.window.dilation != Pair::both(1)
    }

    /// Returns the number of output pixels per sample.
    pub fn pixels(&self) -> usize {
        self.oh * self.ow
    }

    /// Returns the groups that the device's outputs belong to.
    pub fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        let part = *self;
        let (first, end) = (part.first, part.first + part.o);
        (first / part.group_outputs..end.div_ceil(part.group_outputs)).filter(move |_| part.o > 0).map(move |group| {
            let start = first.max(group * part.group_outputs);
            let outputs = end.min((group + 1) * part.group_outputs) - start;
            Group { first: start - first, outputs, channel: group * part.group_depth - part.offset }
        })
    }
}
