//! Antialiased resizing of 8-bit pictures, as Pillow 13 does it: along the rows and along the columns, each rounded to 8 bits.
//!
//! A pixel of the result at i is the sum of k((p + 1/2 - (i + 1/2) s) / max(s, 1)) x\[p\] over the pixels p, over the sum of these
//! weights, where s = pixels before / pixels after. The kernel k depends on the [`Filter`]. Sums are of integers, and the weights come
//! from exact operations and `libm`, so the results are the same bits on every CPU.

use crate::settings::values;
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{self as fir, FilterType, PixelTrait, ResizeAlg, ResizeOptions};
use serde::Deserialize;
use std::f64::consts::PI;

/// The kernel of resizing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// A triangle: k(x) = 1 - |x| for |x| < 1.
    #[default]
    Bilinear,
    /// Catmull and Rom's cubic, for |x| < 2 (Keys 1981 with a = -1/2, <https://doi.org/10.1109/TASSP.1981.1163711>).
    Bicubic,
    /// Lanczos': k(x) = sinc(x) sinc(x / 3) for |x| < 3.
    Lanczos,
    /// The pixel at floor((i + 1/2) s), without antialiasing.
    Nearest,
}

values! {
    Filter, "`bilinear`, `bicubic`, `lanczos` or `nearest`", filter => format!("{:?}", format!("{filter:?}").to_lowercase());
}

impl Filter {
    /// Returns the convolution; none for `nearest`.
    fn convolution(self) -> Option<FilterType> {
        match self {
            Filter::Bilinear => Some(FilterType::Bilinear),
            Filter::Bicubic => Some(FilterType::CatmullRom),
            Filter::Lanczos => {
                Some(FilterType::Custom(fir::Filter::new("lanczos", lanczos, 3.0).expect("3 is finite and above 0")))
            }
            Filter::Nearest => None,
        }
    }
}

/// Returns sinc(x) sinc(x / 3). The sines of `std` may differ in the last bit from one CPU to another.
fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { libm::sin(PI * x) / (PI * x) };
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

/// Resizes pictures one after another, in memory that it keeps.
#[derive(Debug, Default)]
pub(in crate::data) struct Resizer {
    inner: fir::Resizer,
    /// The part after the first of two passes: (H, W, C), with one side of the part and one of the result.
    between: Vec<u8>,
    /// The column of every column of the result, for `nearest`.
    columns: Vec<usize>,
}

impl Resizer {
    /// Resizes a part of `from`, (H, W, C), to `to`, (H, W, C) of `to_size`. The part is top, left, height and width, of at least one
    /// pixel; pixels outside it have no influence. Parts that have the size of the result are copied.
    ///
    /// # Panics
    /// When the part is empty or not inside the picture, `channels` is not 1 or 3, or memory does not have the size stated.
    #[expect(clippy::too_many_arguments, reason = "two pictures with their shapes")]
    pub(in crate::data) fn resize(
        &mut self,
        from: &[u8],
        from_size: [usize; 2],
        part: [usize; 4],
        channels: usize,
        filter: Filter,
        to: &mut [u8],
        to_size: [usize; 2],
    ) {
        let [top, left, height, width] = part;
        assert_eq!(from.len(), from_size[0] * from_size[1] * channels, "{from_size:?}, {channels} channels");
        assert_eq!(to.len(), to_size[0] * to_size[1] * channels, "{to_size:?}, {channels} channels");
        assert!(height > 0 && top + height <= from_size[0], "{part:?} of {from_size:?}");
        assert!(width > 0 && left + width <= from_size[1], "{part:?} of {from_size:?}");
        if to.is_empty() {
            return;
        }
        let Some(kernel) = filter.convolution() else {
            self.columns.clear();
            self.columns.extend(positions(width, to_size[1]).map(|j| left + j));
            let rows = positions(height, to_size[0]).map(|i| top + i);
            return match channels {
                1 => nearest(from.as_chunks::<1>().0, from_size[1], rows, &self.columns, to.as_chunks_mut::<1>().0),
                3 => nearest(from.as_chunks::<3>().0, from_size[1], rows, &self.columns, to.as_chunks_mut::<3>().0),
                _ => unreachable!("pictures have 1 or 3 channels, not {channels}"),
            };
        };
        match channels {
            1 => self.convolve::<U8>(from, from_size, part, kernel, to, to_size),
            3 => self.convolve::<U8x3>(from, from_size, part, kernel, to, to_size),
            _ => unreachable!("pictures have 1 or 3 channels, not {channels}"),
        }
    }

    /// Resizes a part of `from` in one pass or two. The crate's own choice among its types of pixels would compile them all.
    fn convolve<P: PixelTrait>(
        &mut self,
        from: &[u8],
        from_size: [usize; 2],
        part: [usize; 4],
        kernel: FilterType,
        to: &mut [u8],
        to_size: [usize; 2],
    ) {
        let [.., height, width] = part;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(kernel)).use_alpha(false);
        let inner = &mut self.inner;
        if height == to_size[0] || width == to_size[1] {
            return pass::<P>(inner, from, from_size, part, to, to_size, &options);
        }
        // What the first pass clips depends on the order, by up to 40 levels at edges. Pillow 13 takes the columns first if the height
        // loses more than twice as many pixels as the width; before it, the rows always came first.
        let lost = |dim: usize, before: usize| before as i64 - to_size[dim] as i64;
        let columns_first = lost(0, height) > (2 * lost(1, width)).max(0);
        let [rows, columns] = if columns_first { [to_size[0], width] } else { [height, to_size[1]] };
        self.between.resize(rows * columns * P::size(), 0);
        pass::<P>(inner, from, from_size, part, &mut self.between, [rows, columns], &options);
        pass::<P>(inner, &self.between, [rows, columns], [0, 0, rows, columns], to, to_size, &options);
    }
}

/// Resizes along rows, along columns, or copies.
fn pass<P: PixelTrait>(
    resizer: &mut fir::Resizer,
    from: &[u8],
    from_size: [usize; 2],
    part: [usize; 4],
    to: &mut [u8],
    size: [usize; 2],
    options: &ResizeOptions,
) {
    let [[rows, columns], size] = [from_size, size].map(|sides| sides.map(side));
    let [top, left, height, width] = part.map(side);
    let all = TypedImageRef::<P>::from_buffer(columns, rows, from).expect("the memory has this size");
    // A view of the part alone: the crate's own crop reads pixels around it.
    let part = TypedCroppedImage::new(all, left, top, width, height).expect("the part is inside");
    let mut to = TypedImage::<P>::from_buffer(size[1], size[0], to).expect("the memory has this size");
    resizer.resize_typed(&part, &mut to, options).expect("no crop can be outside");
}

fn side(pixels: usize) -> u32 {
    u32::try_from(pixels).expect("a side has fewer than 2^32 pixels")
}

/// Copies these rows and columns of a picture whose rows have `width` pixels.
fn nearest<const C: usize>(
    from: &[[u8; C]],
    width: usize,
    rows: impl Iterator<Item = usize>,
    columns: &[usize],
    to: &mut [[u8; C]],
) {
    for (row, to) in rows.zip(to.chunks_exact_mut(columns.len())) {
        let from = &from[row * width..][..width];
        for (to, column) in to.iter_mut().zip(columns) {
            *to = from[*column];
        }
    }
}

/// Returns floor((i + 1/2) before / after) for every i below `after`. The positions are summed up as in Pillow, so that those between two
/// pixels fall on the same side.
fn positions(before: usize, after: usize) -> impl Iterator<Item = usize> {
    let step = before as f64 / after as f64;
    std::iter::successors(Some(step * 0.5), move |x| Some(x + step))
        .take(after)
        .map(move |x| (x as usize).min(before - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// A picture of tests/reference/pictures.py, whose formulas these are.
    fn picture(name: &str, [h, w]: [usize; 2], channels: usize, photo: &[u8]) -> Vec<u8> {
        let pixel = |i: usize, j: usize, c: usize| match name {
            "noise" => ((7 * i * i + 13 * j + 31 * c * j * i) % 256) as u8,
            "waves" => ((2 * i + 3 * j + 40 * c) % 511).abs_diff(255) as u8,
            "blocks" => 255 * ((i / 3 + j / 5 + c) % 2) as u8,
            _ => photo[(i * w + j) * channels + c],
        };
        let places = (0..h).flat_map(|i| (0..w).map(move |j| (i, j)));
        places.flat_map(|(i, j)| (0..channels).map(move |c| (i, j, c))).map(|(i, j, c)| pixel(i, j, c)).collect()
    }

    fn bytes(hex: &Value) -> Vec<u8> {
        let digits = hex.as_str().unwrap().as_bytes().as_chunks::<2>().0;
        digits.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn resized(
        x: &[u8],
        size: [usize; 2],
        part: [usize; 4],
        channels: usize,
        filter: Filter,
        to: [usize; 2],
    ) -> Vec<u8> {
        let mut y = vec![99; to[0] * to[1] * channels];
        Resizer::default().resize(x, size, part, channels, filter, &mut y, to);
        y
    }

    #[test]
    fn values_are_those_of_pillow_within_one_level() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/pictures.json");
        let stored: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let photo = bytes(&stored["photo"]);
        let mut resizer = Resizer::default();
        let (mut values, mut off) = ([0; 4], [0; 4]);
        for case in stored["resized"].as_array().unwrap() {
            let field = |key: &str| case[key].clone();
            let (size, to): ([usize; 2], [usize; 2]) =
                (serde_json::from_value(field("size")).unwrap(), serde_json::from_value(field("to")).unwrap());
            let part: [usize; 4] = serde_json::from_value(field("part")).unwrap();
            let filter: Filter = serde_json::from_value(field("filter")).unwrap();
            let [channels, step] = ["channels", "step"].map(|key| case[key].as_u64().unwrap() as usize);
            let x = picture(case["picture"].as_str().unwrap(), size, channels, &photo);
            let mut y = vec![99; to[0] * to[1] * channels];
            resizer.resize(&x, size, part, channels, filter, &mut y, to);
            let expected = bytes(&case["values"]);
            assert_eq!(y.len().div_ceil(step), expected.len());
            for (index, (y, expected)) in y.iter().step_by(step).zip(expected).enumerate() {
                let most = u8::from(filter != Filter::Nearest);
                assert!(y.abs_diff(expected) <= most, "value {index}: {y}, expected {expected}, in {case}");
                values[filter as usize] += 1;
                off[filter as usize] += usize::from(*y != expected);
            }
        }
        // Pillow's weights have 22 bits and these 16, so a few sums are rounded to the other side.
        println!("of {values:?} values, {off:?} differ by one level");
        assert!(values.iter().zip(off).all(|(values, off)| 100 * off < 2 * values), "{values:?} {off:?}");
    }

    #[test]
    fn small_pictures_have_values_computed_by_hand() {
        // Weights 3/4 and 1/4 between two pixels; (3 0 + 3 40 + 80) / 7 and (40 + 3 80 + 3 120) / 7.
        let row = |x: &[u8], filter, w| resized(x, [1, x.len()], [0, 0, 1, x.len()], 1, filter, [1, w]);
        assert_eq!(row(&[0, 100], Filter::Bilinear, 4), [0, 25, 75, 100]);
        assert_eq!(row(&[0, 40, 80, 120], Filter::Bilinear, 2), [29, 91]);
        assert_eq!(row(&[0, 40, 80, 120], Filter::Nearest, 2), [40, 120]);
        assert_eq!(row(&[7, 9], Filter::Nearest, 5), [7, 7, 9, 9, 9]);
        // k(1/4) = 111/128, k(5/4) = -9/128, k(3/4) = 29/128: (111 0 - 9 128) / 102 is below 0, and (111 0 + 29 128) / 140 = 26.5.
        assert_eq!(row(&[0, 128], Filter::Bicubic, 4), [0, 27, 101, 139]);
    }

    #[test]
    fn pixels_outside_the_part_have_no_influence() {
        let (size, part, to) = ([20, 30], [4, 7, 9, 16], [14, 11]);
        let x = picture("noise", size, 3, &[]);
        let rows = x.chunks(30 * 3).skip(4).take(9);
        let cut: Vec<u8> = rows.flat_map(|row| &row[7 * 3..][..16 * 3]).copied().collect();
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos, Filter::Nearest] {
            for to in [to, [9, 11], [14, 16]] {
                let expected = resized(&cut, [9, 16], [0, 0, 9, 16], 3, filter, to);
                assert_eq!(resized(&x, size, part, 3, filter, to), expected, "{filter:?} to {to:?}");
            }
            assert_eq!(resized(&x, size, part, 3, filter, [9, 16]), cut, "{filter:?}");
        }
    }

    #[test]
    fn one_resizer_takes_pictures_of_any_size() {
        let mut resizer = Resizer::default();
        let sizes = [[1, 1], [1, 300], [300, 1], [2, 2], [64, 48], [1, 5000]];
        for (size, to) in sizes.iter().flat_map(|size| sizes.map(|to| (*size, to))) {
            for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos, Filter::Nearest] {
                for channels in [1, 3] {
                    let (x, mut y) = (vec![255; size[0] * size[1] * channels], vec![0; to[0] * to[1] * channels]);
                    resizer.resize(&x, size, [0, 0, size[0], size[1]], channels, filter, &mut y, to);
                    assert!(y.iter().all(|y| *y == 255), "{size:?} to {to:?}, {filter:?}");
                }
            }
        }
    }
}
