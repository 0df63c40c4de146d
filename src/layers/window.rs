//! Windows that slide over height and width: the geometry shared by conv and the pooling layers.

use super::Activation;
use crate::device::Operand;
use crate::error::Fault;
use crate::gpu::ints;
use crate::gpu::kernels::PoolGeometry;
use crate::settings::values;
use serde::Deserialize;

/// One number for both height and width, or `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "PairForm")]
pub struct Pair {
    /// For the height.
    pub h: usize,
    /// For the width.
    pub w: usize,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a whole number of at least 0 or [height, width]")]
enum PairForm {
    Both(usize),
    Each([usize; 2]),
}

impl From<PairForm> for Pair {
    fn from(form: PairForm) -> Self {
        match form {
            PairForm::Both(n) => Pair::both(n),
            PairForm::Each([h, w]) => Pair { h, w },
        }
    }
}

impl Pair {
    /// Creates a pair with the same number for both.
    pub const fn both(n: usize) -> Self {
        Pair { h: n, w: n }
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.h == self.w { write!(f, "{}", self.h) } else { write!(f, "[{}, {}]", self.h, self.w) }
    }
}

values! {
    Pair, "integer, or [height, width]", pair => pair.to_string();
}

/// Rows and columns of zeros around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "PaddingForm")]
pub enum Padding {
    /// Before and after the image.
    Given(Pair, Pair),
    /// So many that the output has ceil(H / stride) rows and ceil(W / stride) columns; an odd one comes after the image.
    Same,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a whole number of at least 0, [height, width], [top, bottom, left, right] or \"same\""
)]
enum PaddingForm {
    All(usize),
    Sides([usize; 4]),
    Each([usize; 2]),
    Named(SamePadding),
}

#[derive(Deserialize)]
enum SamePadding {
    #[serde(rename = "same")]
    Same,
}

impl From<PaddingForm> for Padding {
    fn from(form: PaddingForm) -> Self {
        match form {
            PaddingForm::All(n) => Padding::both(Pair::both(n)),
            PaddingForm::Each([h, w]) => Padding::both(Pair { h, w }),
            PaddingForm::Sides([top, bottom, left, right]) => {
                Padding::Given(Pair { h: top, w: left }, Pair { h: bottom, w: right })
            }
            PaddingForm::Named(SamePadding::Same) => Padding::Same,
        }
    }
}

impl std::fmt::Display for Padding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Padding::Same => f.write_str("\"same\""),
            Padding::Given(before, after) if before == after => before.fmt(f),
            Padding::Given(before, after) => write!(f, "[{}, {}, {}, {}]", before.h, after.h, before.w, after.w),
        }
    }
}

values! {
    Padding, "integer, [height, width], [top, bottom, left, right] or \"same\"", pad => pad.to_string();
}

impl Padding {
    /// Creates the same padding before and after.
    pub const fn both(pair: Pair) -> Self {
        Padding::Given(pair, pair)
    }

    /// Returns the padding before and after an image of a size.
    pub fn around(self, size: Pair, kernel: Pair, stride: Pair) -> [Pair; 2] {
        let same = |n: usize, kernel: usize, stride: usize| {
            let last = n.div_ceil(stride.max(1)).saturating_sub(1).saturating_mul(stride);
            let all = last.saturating_add(kernel).saturating_sub(n);
            [all / 2, all - all / 2]
        };
        match self {
            Padding::Given(before, after) => [before, after],
            Padding::Same => {
                let (rows, columns) = (same(size.h, kernel.h, stride.h), same(size.w, kernel.w, stride.w));
                [0, 1].map(|side| Pair { h: rows[side], w: columns[side] })
            }
        }
    }
}

/// The largest kernel, stride and padding allowed, so that their sums do not overflow.
const MOST: usize = 1 << 16;

/// The size of a kernel, its stride, and the padding around the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowGeometry {
    /// Size of the kernel.
    pub kernel: Pair,
    /// Step between windows.
    pub stride: Pair,
    /// Padding before the image: above it and to its left.
    pub pad: Pair,
    /// Padding after it.
    pub after: Pair,
    /// Step between the positions of a kernel on the image.
    pub dilation: Pair,
    /// Whether to include windows that extend beyond the bottom or right edge.
    pub ceil: bool,
}

impl WindowGeometry {
    /// Returns the size of a window on the image.
    pub fn extent(&self) -> Pair {
        let along =
            |kernel: usize, dilation: usize| kernel.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
        Pair { h: along(self.kernel.h, self.dilation.h), w: along(self.kernel.w, self.dilation.w) }
    }

    /// Checks the ranges: kernel and stride are at least 1, and nothing exceeds [`MOST`].
    pub fn check(&self) -> Result<(), Fault> {
        for (key, pair) in [("kernel", self.kernel), ("stride", self.stride), ("dilation", self.dilation)] {
            if pair.h == 0 || pair.w == 0 {
                return Err(Fault::at(key, format!("{key} = {pair}, expected at least 1")));
            }
        }
        for (key, pair) in [("kernel", self.extent()), ("stride", self.stride), ("pad", self.pad), ("pad", self.after)]
        {
            if pair.h > MOST || pair.w > MOST {
                return Err(Fault::at(key, format!("{key} = {pair}, expected at most {MOST}")));
            }
        }
        Ok(())
    }

    /// Returns the windows of a pool over an image of a size.
    pub fn of_pool(kernel: Pair, stride: Option<Pair>, pad: Padding, ceil: bool, image: Pair) -> Self {
        let stride = stride.unwrap_or(kernel);
        let [pad, after] = pad.around(image, kernel, stride);
        WindowGeometry { kernel, stride, pad, after, dilation: Pair::both(1), ceil }
    }

    /// Checks the ranges, and that padding is at most half the kernel so that every window overlaps the image.
    pub fn check_pool(&self) -> Result<(), Fault> {
        self.check()?;
        let most = Pair { h: self.kernel.h / 2, w: self.kernel.w / 2 };
        if [self.pad, self.after].iter().any(|pad| pad.h > most.h || pad.w > most.w) {
            let pad = Padding::Given(self.pad, self.after);
            return Err(Fault::at("pad", format!("pad = {pad}, expected at most half the kernel, {most}")));
        }
        Ok(())
    }

    /// Returns the output for one sample, with `channels` channels.
    pub fn output(&self, kind: &str, x: Activation, channels: usize) -> Result<Activation, Fault> {
        if x.flat {
            let message = format!(
                "{kind} needs images (height, width, channels), but its input is a flat vector of {} features; put \
                 it before flatten",
                x.features()
            );
            return Err(Fault::whole(message));
        }
        let extent = self.extent();
        let h = self.positions(x.h, extent.h, self.stride.h, [self.pad.h, self.after.h]);
        let w = self.positions(x.w, extent.w, self.stride.w, [self.pad.w, self.after.w]);
        let (Some(h), Some(w)) = (h, w) else {
            let message = format!(
                "kernel = {} is larger than its input {x} with pad = {}; use a smaller kernel or more padding",
                self.kernel, self.pad
            );
            return Err(Fault::at("kernel", message));
        };
        Ok(Activation::new(h, w, channels))
    }

    /// Returns the number of windows along a dim of size `n`, as PyTorch counts them; none if the kernel is too large.
    fn positions(&self, n: usize, kernel: usize, stride: usize, [pad, after]: [usize; 2]) -> Option<usize> {
        let beyond = if self.ceil { stride - 1 } else { 0 };
        let count = (n + pad + after + beyond).checked_sub(kernel)? / stride + 1;
        // A window starts on the image or on the padding before it, never on the padding after it.
        if self.ceil && (count - 1) * stride >= n + pad { Some(count - 1) } else { Some(count) }
    }

    /// Returns the geometry in the form that the pooling kernels expect, for a device's part of the image and output.
    pub fn geometry(&self, x: &Operand, y: &Operand) -> crate::error::Result<PoolGeometry> {
        let WindowGeometry { kernel, stride, pad, after, .. } = *self;
        let (h, w, c, oh, ow) = (x.len(1), x.len(2), x.len(3), y.len(1), y.len(2));
        // Kernels use 32-bit indices within one image.
        ints([h * w * c, oh * ow * c])?;
        let [h, w, c, oh, ow] = ints([h, w, c, oh, ow])?;
        let [kh, kw, stride_h, stride_w, pad_h, pad_w] = ints([kernel.h, kernel.w, stride.h, stride.w, pad.h, pad.w])?;
        let [after_h, after_w] = ints([after.h, after.w])?;
        Ok(PoolGeometry { h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w, after_h, after_w })
    }

    /// Returns the rows of an image of height `h` that the window of output row `oh` covers.
    #[inline(always)]
    pub fn rows(&self, oh: usize, h: usize) -> Span {
        Span::new(oh * self.stride.h, (self.kernel.h, self.dilation.h), [self.pad.h, self.after.h], h)
    }

    /// Returns the columns of an image of width `w` that the window of output column `ow` covers.
    #[inline(always)]
    pub fn cols(&self, ow: usize, w: usize) -> Span {
        Span::new(ow * self.stride.w, (self.kernel.w, self.dilation.w), [self.pad.w, self.after.w], w)
    }

    /// Calls `visit(pixel of the image, position in the kernel)`, row by row, for the part of the window of output
    /// pixel (oh, ow) that is on an image of size (h, w).
    #[inline(always)]
    pub fn each_tap(&self, (oh, ow): (usize, usize), (h, w): (usize, usize), mut visit: impl FnMut(usize, usize)) {
        let (rows, cols) = (self.rows(oh, h), self.cols(ow, w));
        for (kh, ih) in (rows.start..rows.end).step_by(self.dilation.h).enumerate() {
            for (kw, iw) in (cols.start..cols.end).step_by(self.dilation.w).enumerate() {
                visit(ih * w + iw, (rows.first + kh) * self.kernel.w + cols.first + kw);
            }
        }
    }
}

/// The part of a window that is on the image, along height or width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First index in the image.
    pub start: usize,
    /// One past the last index in the image; with a dilation, the window has the indices from `start` on in its steps.
    pub end: usize,
    /// Index in the kernel that corresponds to `start`; at most its size, also if no part of the window is on the image.
    pub first: usize,
    /// Size of the part of the window that is on the image or its padding.
    pub padded: usize,
}

impl Span {
    /// Creates the span of a window that starts at `at`, counted from the start of the padding.
    #[inline(always)]
    fn new(at: usize, (kernel, step): (usize, usize), [pad, after]: [usize; 2], n: usize) -> Self {
        let first = pad.saturating_sub(at).div_ceil(step).min(kernel);
        let last = (n + pad).saturating_sub(at).div_ceil(step).min(kernel);
        let start = (at + first * step).saturating_sub(pad);
        let end = if last > first { start + (last - first - 1) * step + 1 } else { start };
        let padded = (at + (kernel - 1) * step + 1).min(n + pad + after) - at;
        Span { start, end, first, padded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kernel: usize, stride: usize, pad: usize, ceil: bool) -> WindowGeometry {
        let [kernel, stride, pad] = [kernel, stride, pad].map(Pair::both);
        WindowGeometry { kernel, stride, pad, after: pad, dilation: Pair::both(1), ceil }
    }

    #[test]
    fn a_dilated_window_skips_pixels() {
        let s = WindowGeometry { dilation: Pair::both(3), ..window(3, 2, 2, false) };
        assert_eq!(s.extent(), Pair::both(7));
        assert_eq!(s.output("conv", Activation::new(8, 8, 1), 1).unwrap().h, 3);
        let s = WindowGeometry { kernel: Pair { h: 1, w: 3 }, pad: Pair { h: 0, w: 2 }, ..s };
        let taps = |o| {
            let mut all = Vec::new();
            s.each_tap((0, o), (1, 8), |pixel, tap| all.push((pixel, tap)));
            all
        };
        assert_eq!(taps(0), [(1, 1), (4, 2)]);
        assert_eq!(taps(1), [(0, 0), (3, 1), (6, 2)]);
        assert_eq!(taps(2), [(2, 0), (5, 1)]);
    }

    #[test]
    fn padding_to_the_same_size_is_that_of_tensorflow() {
        let same = |n: usize, kernel: usize, stride: usize| {
            let [before, after] = Padding::Same.around(Pair::both(n), Pair::both(kernel), Pair::both(stride));
            (before.h, after.h)
        };
        assert_eq!(same(224, 3, 2), (0, 1));
        assert_eq!(same(225, 3, 2), (1, 1));
        assert_eq!(same(7, 5, 1), (2, 2));
        assert_eq!(same(7, 4, 1), (1, 2));
        assert_eq!(same(8, 1, 4), (0, 0));
    }

    #[test]
    fn sizes_agree_with_pytorch() {
        let size = |n, s: WindowGeometry| s.output("conv", Activation::new(n, n, 1), 1).unwrap().h;
        assert_eq!(size(227, window(11, 4, 0, false)), 55);
        assert_eq!(size(55, window(3, 2, 0, false)), 27);
        assert_eq!(size(32, window(3, 2, 0, true)), 16);
        assert_eq!(size(32, window(3, 2, 0, false)), 15);
        // The third window would start in the padding after the image.
        assert_eq!(size(3, window(2, 2, 1, true)), 2);
        // The kernel is larger than the image, but reaches beyond it by less than a stride.
        assert_eq!(size(2, window(3, 2, 0, true)), 1);
        assert_eq!(size(2, window(5, 4, 0, true)), 1);
    }

    #[test]
    fn windows_are_clipped_at_the_edges() {
        let s = window(3, 2, 1, true);
        assert_eq!(s.rows(0, 4), Span { start: 0, end: 2, first: 1, padded: 3 });
        assert_eq!(s.rows(1, 4), Span { start: 1, end: 4, first: 0, padded: 3 });
        assert_eq!(s.rows(2, 4), Span { start: 3, end: 4, first: 0, padded: 2 });
    }

    #[test]
    fn a_window_in_the_padding_is_empty_and_stays_within_its_kernel() {
        let s = window(2, 1, 5, false);
        for (at, first, len) in [(0, 2, 0), (3, 2, 0), (4, 1, 1), (5, 0, 2), (8, 0, 1), (9, 0, 0), (12, 0, 0)] {
            let span = s.rows(at, 4);
            assert_eq!((span.first, span.end - span.start), (first, len), "window {at}");
        }
    }

    #[test]
    fn a_kernel_larger_than_its_input_is_rejected() {
        for window in [window(5, 1, 0, false), window(5, 1, 0, true), window(8, 4, 0, true)] {
            let fault = window.output("conv", Activation::new(4, 8, 3), 1).unwrap_err();
            let kernel = window.kernel;
            assert!(
                fault.message.starts_with(&format!("kernel = {kernel} is larger than its input 4x8x3")),
                "{fault:?}"
            );
        }
    }
}
