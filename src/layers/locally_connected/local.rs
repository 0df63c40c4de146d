//! The part of the layer that one device computes: its samples, filters and input channels.

use crate::layers::window::WindowGeometry;
use crate::tensor::Real;
use std::ops::Range;

/// Number of elements in a tile of windows: 640 KiB of f32.
const TILE: usize = 160 << 10;
/// Samples whose dx one task computes, and the minimum number in a tile.
pub(super) const SAMPLES: usize = 16;
/// Maximum number of samples in a tile.
pub(super) const MOST_SAMPLES: usize = 512;

/// The part of the layer that one device computes.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalPart {
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
    /// Whether the layer has a bias, and whether this device adds it.
    pub has_bias: bool,
    pub adds_bias: bool,
}

impl LocalPart {
    /// Returns the number of positions of the output.
    pub fn positions(&self) -> usize {
        self.oh * self.ow
    }

    /// Returns the number of elements of an input image.
    pub fn image(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Returns the number of elements of an output image.
    pub fn outputs(&self) -> usize {
        self.positions() * self.o
    }

    /// Returns the number of elements of a filter, which are also those of a window.
    pub fn filter(&self) -> usize {
        self.window.kernel.h * self.window.kernel.w * self.c
    }

    /// Returns the number of elements of the bias.
    pub fn biases(&self) -> usize {
        if self.has_bias { self.outputs() } else { 0 }
    }

    /// Returns the maximum number of samples in a tile.
    pub fn samples(&self) -> usize {
        (TILE / self.filter().max(1)).clamp(SAMPLES, MOST_SAMPLES).min(self.n)
    }

    /// Divides the samples into those of each tile.
    pub fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (n, step) = (self.n, self.samples());
        (0..n).step_by(step.max(1)).map(move |start| start..n.min(start + step))
    }

    /// Calls `visit(first element of an image, first element of its window, number of elements)` for each kernel row of the
    /// window at a position, as far as it is on the image.
    pub fn each_row(&self, position: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let rows = self.window.rows(position / self.ow, self.h);
        let cols = self.window.cols(position % self.ow, self.w);
        for (kh, ih) in (rows.start..rows.end).enumerate() {
            let to = (rows.first + kh) * self.window.kernel.w + cols.first;
            visit((ih * self.w + cols.start) * self.c, to * self.c, (cols.end - cols.start) * self.c);
        }
    }

    /// Copies the windows at a position of some samples of x into the rows of a tile, with zeros outside the image.
    pub fn gather<T: Real>(&self, position: usize, samples: Range<usize>, x: &[T], tile: &mut [T]) {
        let (image, filter) = (self.image(), self.filter());
        tile[..samples.len() * filter].fill(T::ZERO);
        self.each_row(position, |from, to, len| {
            for (row, n) in samples.clone().enumerate() {
                tile[row * filter + to..][..len].copy_from_slice(&x[n * image + from..][..len]);
            }
        });
    }

    /// Adds the rows of a tile to dx of as many samples, where the windows at a position are.
    pub fn scatter<T: Real>(&self, position: usize, tile: &[T], dx: &mut [T]) {
        let (image, filter) = (self.image(), self.filter());
        self.each_row(position, |at, from, len| {
            for (dx, tile) in dx.chunks_exact_mut(image).zip(tile.chunks_exact(filter)) {
                dx[at..at + len].iter_mut().zip(&tile[from..from + len]).for_each(|(dx, &t)| *dx += t);
            }
        });
    }
}
