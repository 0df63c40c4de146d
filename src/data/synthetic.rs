//! Generated images that a network can learn: one pattern of 4x4 blocks for each class, plus noise.
//!
//! pixel = clamp(128 + pattern + noise, 0, 255) in integers, the pattern uniform in -64..=63, the noise triangular in
//! -127..=127; image i has class i mod classes. All random numbers are counter-based.

use super::{DataFormat, Dataset, Description, Header, Labels, PixelType, Pixels, SourceContext, Subset};
use crate::device::{Random, RandomStream};
use crate::error::{Error, Fault, Result};
use crate::settings::{AT_LEAST_ONE, Range, Settings, settings};

const BLOCK: usize = 4;
/// The largest number of pixels; more are taken for a mistake.
const LARGEST: usize = 1 << 36;

settings! {
    /// `{ synthetic = { images = 1000, classes = 10, shape = [28, 28, 1] } }`: 8-bit images in memory, without files. The
    /// noise of `test` differs from that of `train`; the patterns are the same if the seeds are.
    pub struct Synthetic {
        /// The number of images.
        pub images: usize, in AT_LEAST_ONE, example "1000";
        /// The number of classes, at most that of the images.
        pub classes: usize, in CLASSES, example "10";
        /// Height, width and channels.
        pub shape: [usize; 3], in SHAPE, example "[28, 28, 1]";
        /// The seed of the patterns and the noise.
        pub seed: u64 = 1;
    }
}

const CLASSES: Range<usize> = Range { text: "2 to 65536", contains: |n| (2..=1 << 16).contains(n) };
const SHAPE: Range<[usize; 3]> =
    Range { text: "height, width and channels of at least 1", contains: |shape| !shape.contains(&0) };

impl Synthetic {
    /// Returns the number of pixels in all images, or `None` if there are too many.
    fn pixels(&self) -> Option<usize> {
        let all = self.shape.iter().try_fold(self.images, |n, &extent| n.checked_mul(extent));
        all.filter(|&n| n <= LARGEST && self.images <= u32::MAX as usize)
    }
}

impl DataFormat for Synthetic {
    fn key(&self) -> &'static str {
        "synthetic"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        let Synthetic { images, classes, shape, .. } = self;
        if classes > images {
            let message = format!("classes = {classes}, expected no more than images = {images}");
            return Err(Fault::at("classes", message));
        }
        if self.pixels().is_none() {
            let message = format!("{images} images of shape {shape:?} are too large for memory; use fewer");
            return Err(Fault::at("images", message));
        }
        Ok(())
    }
    fn describe(&self, _: SourceContext) -> Result<Description> {
        let Synthetic { images, shape, classes, .. } = *self;
        Ok(Header { images, shape, classes, pixels: PixelType::U8, target_width: 1 }.into())
    }
    fn load(&self, cx: SourceContext) -> Result<Dataset> {
        let Synthetic { images, shape, classes, seed } = *self;
        let mut pixels = Vec::new();
        let len = self.pixels().filter(|&len| pixels.try_reserve_exact(len).is_ok());
        let features = match len {
            Some(len) => len / images,
            None => return Err(Error::Usage(format!("synthetic: no memory for {images} images of shape {shape:?}"))),
        };
        let patterns: Vec<Vec<i16>> = (0..classes).map(|class| pattern(seed, class, shape)).collect();
        let time = match cx.subset {
            Subset::Train => 1,
            Subset::Test => 2,
        };
        for i in 0..images {
            let noise = Random::new(seed, RandomStream::Synthetic, time, i as u64);
            let pattern = &patterns[i % classes];
            for first in (0..features).step_by(8) {
                let halves = noise.words(first as u64 / 8).into_iter().flat_map(|word| [word, word >> 16]);
                let noise = halves.map(|half| ((half & 255) as i16 + (half >> 8 & 255) as i16 - 255) / 2);
                let mean = pattern[first..].iter().map(|p| 128 + p);
                pixels.extend(mean.zip(noise).map(|(mean, noise)| (mean + noise).clamp(0, 255) as u8));
            }
        }
        let labels = (0..images).map(|i| (i % classes) as u32).collect();
        Ok(Dataset::loaded(Pixels::U8(pixels), Labels::Index(labels), shape, classes))
    }
    fn examples() -> Vec<Self> {
        vec![Synthetic { images: 20, classes: 3, shape: [5, 6, 2], seed: 1 }]
    }
}

/// The pattern of a class, (H, W, C), constant over blocks of 4x4 pixels.
fn pattern(seed: u64, class: usize, [h, w, c]: [usize; 3]) -> Vec<i16> {
    let random = Random::new(seed, RandomStream::Synthetic, 0, class as u64);
    let value = |i: usize| (random.word(i as u64) & 127) as i16 - 64;
    let across = w.div_ceil(BLOCK);
    let block = |i: usize| (i / (w * c) / BLOCK * across + i / c % w / BLOCK) * c + i % c;
    (0..h * w * c).map(|i| value(block(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Synthetic = Synthetic { images: 300, classes: 3, shape: [6, 5, 3], seed: 1 };

    fn load(synthetic: &Synthetic, subset: Subset) -> (Vec<u8>, Dataset) {
        let dataset = synthetic.load(SourceContext::new(subset, &crate::data::Base::default())).unwrap();
        let Pixels::U8(pixels) = dataset.all_pixels().unwrap() else { panic!("synthetic images are bytes") };
        (pixels, dataset)
    }

    #[test]
    fn images_follow_their_class_and_the_test_part_has_its_own_noise() {
        let (pixels, dataset) = load(&SMALL, Subset::Train);
        let (test, _) = load(&SMALL, Subset::Test);
        assert_eq!((dataset.images(), pixels.len()), (300, 300 * 90));
        assert_eq!(
            dataset.header(),
            SMALL.describe(SourceContext::new(Subset::Train, &crate::data::Base::default())).unwrap().header
        );
        assert_ne!(pixels, test);
        for class in 0..3 {
            let mean = |pixels: &[u8], i: usize| {
                (class..300).step_by(3).map(|n| f64::from(pixels[n * 90 + i])).sum::<f64>() / 100.0
            };
            let pattern = pattern(1, class, [6, 5, 3]);
            for i in 0..90 {
                assert_eq!(pattern[i], pattern[i / 15 / 4 * 4 * 15 + i / 3 % 5 / 4 * 4 * 3 + i % 3]);
                for pixels in [&pixels, &test] {
                    assert!((mean(pixels, i) - 128.0 - f64::from(pattern[i])).abs() < 25.0);
                }
            }
        }
    }

    #[test]
    fn impossible_sizes_are_rejected() {
        let fault = |synthetic: Synthetic| synthetic.check().unwrap_err().message;
        assert!(SMALL.check().is_ok());
        assert_eq!(fault(Synthetic { images: 0, ..SMALL }), "images = 0, expected at least 1");
        assert_eq!(fault(Synthetic { classes: 301, ..SMALL }), "classes = 301, expected no more than images = 300");
        assert_eq!(
            fault(Synthetic { shape: [6, 0, 3], ..SMALL }),
            "shape = [6, 0, 3], expected height, width and channels of at least 1"
        );
        let huge = Synthetic { shape: [usize::MAX, 2, 3], ..SMALL };
        assert!(fault(huge).ends_with("are too large for memory; use fewer"));
    }
}
