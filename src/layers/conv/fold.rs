//! Convolution on a GPU of images with few channels, in bf16: strides become channels (kernels/conv_fold.cu), so that
//! products read 16 bytes at a time, and cuDNN uses tensor cores.

use super::local::LocalConv;
use crate::error::Result;
use crate::gpu::kernels::{self, any};
use crate::gpu::libraries::Workspace;
use crate::gpu::{AnyConst, ComputeType, Const, Mut, int, threads};
use crate::layers::window::{Pair, WindowGeometry};
use crate::layers::{Launch, Role};
use crate::tensor::Element;

/// Channels in 16 bytes.
const WIDTH: usize = 8;
/// Minimum number of products for which the additional launches pay.
const ENOUGH: usize = 1 << 24;
/// Maximum factor by which zeros may multiply the number of products.
const MOST: usize = 4;

/// A convolution and its folded form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fold {
    from: LocalConv,
    /// The folded form, with stride 1 and without padding.
    pub part: LocalConv,
}

impl Fold {
    /// Returns the folded form if it is faster.
    pub fn of(part: &LocalConv, element: Element) -> Option<Fold> {
        let LocalConv { n, c, o, .. } = *part;
        if part.is_dilated() {
            return None;
        }
        let single = part.groups().count() == 1 && part.depth == c;
        if element != Element::Bf16 || !single || c.is_multiple_of(WIDTH) || c == 0 {
            return None;
        }
        let fold = |stride: usize, kernel: usize| (stride.min(kernel), kernel.div_ceil(stride.min(kernel)));
        let WindowGeometry { kernel, stride, .. } = part.window;
        let ((fold_h, h), (fold_w, w)) = (fold(stride.h, kernel.h), fold(stride.w, kernel.w));
        let channels = (fold_h * fold_w * c).next_multiple_of(WIDTH);
        let (kernel, stride, none) = (Pair { h, w }, Pair::both(1), Pair::both(0));
        let window = WindowGeometry { kernel, stride, pad: none, after: none, ..part.window };
        let folded = LocalConv {
            window,
            h: part.oh + h - 1,
            w: part.ow + w - 1,
            c: channels,
            depth: channels,
            group_depth: channels,
            offset: 0,
            ..*part
        };
        let pays = n * part.pixels() * o * part.filter() >= ENOUGH && folded.filter() <= MOST * part.filter();
        pays.then_some(Fold { from: *part, part: folded })
    }

    fn images(&self) -> usize {
        self.part.n * self.part.h * self.part.w * self.part.c
    }

    fn filters(&self) -> usize {
        self.part.o * self.part.filter()
    }

    /// Returns the bytes of scratch memory that the folded images and filters occupy.
    pub fn bytes(&self) -> usize {
        Workspace::piece(self.images() * Element::Bf16.bytes())
            + Workspace::piece(self.filters() * Element::Bf16.bytes())
    }

    /// Folds x into memory taken from `room`.
    pub fn x(&self, launch: &Launch, room: &mut Workspace) -> Result<AnyConst> {
        let address = room.take(self.images() * Element::Bf16.bytes());
        let x = Const::at(launch.operand(Role::X(0)).address());
        let grid = threads(self.images() / WIDTH);
        // SAFETY: x has the geometry's shape, and the memory was just taken for its folded form.
        unsafe { kernels::conv_fold_images(&launch.issue, grid, x, Mut::at(address), self.from.geometry()?)? };
        Ok(AnyConst { address, format: ComputeType::Bf16 })
    }

    /// Folds the filters into memory taken from `room`.
    pub fn w(&self, launch: &Launch, room: &mut Workspace) -> Result<AnyConst> {
        let address = room.take(self.filters() * Element::Bf16.bytes());
        let w = Const::at(launch.operand(Role::WEIGHT).address());
        int(self.filters())?;
        let grid = threads(self.filters());
        // SAFETY: the filters have the geometry's shape, and the memory was just taken for their folded form.
        unsafe { kernels::conv_fold_filters(&launch.issue, grid, w, Mut::at(address), self.from.geometry()?)? };
        Ok(AnyConst { address, format: ComputeType::Bf16 })
    }

    /// Computes dw from `parts` parts of its folded form, which are added in order.
    pub fn dw(&self, launch: &Launch, from: AnyConst, parts: usize) -> Result<()> {
        let (dw, grid) = (launch.write(Role::D_WEIGHT), threads(self.from.o * self.from.filter()));
        // SAFETY: dw has the geometry's shape, and every part that of the folded filters.
        unsafe { any::conv_unfold_filters(&launch.issue, grid, from, dw, self.from.geometry()?, int(parts)?) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_what_has_few_channels_and_many_products() {
        let part = |n, size: usize, c, o, [kernel, stride, pad]: [usize; 3]| {
            let out = (size + 2 * pad - kernel) / stride + 1;
            let [kernel, stride, pad] = [kernel, stride, pad].map(Pair::both);
            LocalConv {
                window: WindowGeometry { kernel, stride, pad, after: pad, dilation: Pair::both(1), ceil: false },
                n,
                h: size,
                w: size,
                c,
                oh: out,
                ow: out,
                o,
                depth: c,
                first: 0,
                group_outputs: o,
                group_depth: c,
                offset: 0,
                has_bias: true,
                adds_bias: true,
            }
        };
        let folded = |part: LocalConv| {
            let LocalConv { h, window, c, .. } = Fold::of(&part, Element::Bf16)?.part;
            Some((h, window.kernel.h, c))
        };
        let alexnet = part(128, 227, 3, 96, [11, 4, 0]);
        assert_eq!(folded(alexnet), Some((57, 3, 48)));
        assert_eq!(folded(part(128, 32, 3, 64, [3, 1, 1])), Some((34, 3, 8)), "ResNet-18 on CIFAR");
        assert_eq!(folded(part(32, 224, 3, 64, [7, 2, 3])), Some((115, 4, 16)), "ResNet-50");
        assert_eq!(folded(part(128, 28, 1, 20, [5, 1, 0])), None, "LeNet: 8 times as many products");
        assert_eq!(folded(part(1, 32, 3, 64, [3, 1, 1])), None, "too few products");
        assert_eq!(folded(part(128, 56, 64, 64, [3, 1, 1])), None, "enough channels");
        assert!(Fold::of(&alexnet, Element::F32).is_none());
        let half = LocalConv { o: 48, ..alexnet };
        assert_eq!(folded(half), Some((57, 3, 48)), "a column of two");
    }
}
