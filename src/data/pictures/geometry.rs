//! Sizes and parts of pictures, by torchvision's rules. A size is \[H, W\], of at least one pixel each; a part is \[top, left, height,
//! width\].

/// The attempts of [`random_part`] at a part that fits.
const TRIES: u64 = 10;

/// The random numbers that [`random_part`] may take.
pub(in crate::data) const NUMBERS_OF_A_PART: u64 = 4 * TRIES;

/// Returns a size with the same aspect and a short side of `short`: the long side is floor(short * long / short before), as that of
/// torchvision's `Resize`.
pub(in crate::data) fn short_side([h, w]: [usize; 2], short: usize) -> [usize; 2] {
    let long = |long: usize, before: usize| (short as u128 * long as u128 / before as u128) as usize;
    let size = if w <= h { [long(h, w), short] } else { [short, long(w, h)] };
    size.map(|side| side.max(1))
}

/// Returns the largest size with the same aspect that fits into `to`: one side is that of `to`, and the other round(side * to / before),
/// half to even.
pub(in crate::data) fn fit_inside(size: [usize; 2], to: [usize; 2]) -> [usize; 2] {
    scaled(size, to, !is_wider(size, to))
}

/// Returns the smallest size with the same aspect that covers `to`, rounded as in [`fit_inside`].
pub(in crate::data) fn cover(size: [usize; 2], to: [usize; 2]) -> [usize; 2] {
    scaled(size, to, is_wider(size, to))
}

/// Returns whether the aspect W / H of the first is above that of the second.
fn is_wider(size: [usize; 2], than: [usize; 2]) -> bool {
    size[1] as u128 * than[0] as u128 > than[1] as u128 * size[0] as u128
}

/// Returns the size with the same aspect and the height, or the width, of `to`.
fn scaled([h, w]: [usize; 2], to: [usize; 2], by_height: bool) -> [usize; 2] {
    let size = if by_height { [to[0], round_quotient(w, to[0], h)] } else { [round_quotient(h, to[1], w), to[1]] };
    size.map(|side| side.max(1))
}

/// Returns a b / c, rounded half to even.
fn round_quotient(a: usize, b: usize, c: usize) -> usize {
    let (product, c) = (a as u128 * b as u128, c as u128);
    let (quotient, rest) = (product / c, product % c);
    (quotient + u128::from(2 * rest > c || (2 * rest == c && quotient % 2 == 1))) as usize
}

/// Returns the top and left of the crop in the middle, as torchvision's `center_crop` has them: round((side - crop) / 2), half to even;
/// for a crop that is larger than the picture, -floor((crop - side) / 2), with so many pixels beyond the picture.
pub(in crate::data) fn middle(size: [usize; 2], crop: [usize; 2]) -> [isize; 2] {
    [0, 1].map(|dim| match size[dim].checked_sub(crop[dim]) {
        Some(room) => round_quotient(room, 1, 2) as isize,
        None => -((crop[dim] - size[dim]) as isize / 2),
    })
}

/// Returns a random part of a random area and aspect, as torchvision's `RandomResizedCrop` draws it (Szegedy et al. 2014,
/// <https://arxiv.org/abs/1409.4842>).
///
/// The area a is H W times a number uniform in `area`, and the logarithm of the aspect r = width / height uniform in that of `aspect`;
/// the width is round(sqrt(a r)) and the height round(sqrt(a / r)), half to even, and every place in the picture is equally
/// likely. If none of 10 such parts fits, it is the largest part in the middle whose aspect is in `aspect`.
///
/// `uniform(i)` is random number i of this sample, uniform in \[0, 1), for i below [`NUMBERS_OF_A_PART`].
pub(in crate::data) fn random_part(
    [h, w]: [usize; 2],
    area: [f64; 2],
    aspect: [f64; 2],
    mut uniform: impl FnMut(u64) -> f64,
) -> [usize; 4] {
    let pixels = h as f64 * w as f64;
    // The logarithms of `std` may differ in the last bit from one CPU to another.
    let logs = aspect.map(libm::log);
    let between = |[least, most]: [f64; 2], x: f64| least + (most - least) * x;
    for first in (0..TRIES).map(|index| 4 * index) {
        let target = pixels * between(area, uniform(first));
        let ratio = libm::exp(between(logs, uniform(first + 1)));
        let width = (target * ratio).sqrt().round_ties_even();
        let height = (target / ratio).sqrt().round_ties_even();
        if 0.0 < width && width <= w as f64 && 0.0 < height && height <= h as f64 {
            let [height, width] = [height as usize, width as usize];
            let mut place = |index, room: usize| ((uniform(index) * (room + 1) as f64) as usize).min(room);
            return [place(first + 2, h - height), place(first + 3, w - width), height, width];
        }
    }
    middle_part([h, w], aspect)
}

/// Returns the largest part in the middle whose width / height is in `aspect`.
fn middle_part([h, w]: [usize; 2], [least, most]: [f64; 2]) -> [usize; 4] {
    let ratio = w as f64 / h as f64;
    let side = |x: f64, most: usize| (x.round_ties_even() as usize).clamp(1, most);
    let [height, width] = match () {
        () if ratio < least => [side(w as f64 / least, h), w],
        () if ratio > most => [h, side(h as f64 * most, w)],
        () => [h, w],
    };
    [(h - height) / 2, (w - width) / 2, height, width]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};
    use serde::Deserialize;

    /// Sizes and parts of tests/reference/pictures.json, by torchvision and Pillow.
    #[derive(Deserialize)]
    struct Stored {
        short_side: Vec<ShortSide>,
        fits: Vec<Fits>,
        middle: Vec<Middle>,
        parts: Vec<Parts>,
    }

    #[derive(Deserialize)]
    struct ShortSide {
        size: [usize; 2],
        short: usize,
        result: [usize; 2],
    }

    #[derive(Deserialize)]
    struct Fits {
        size: [usize; 2],
        to: [usize; 2],
        inside: [usize; 2],
        cover: [usize; 2],
    }

    #[derive(Deserialize)]
    struct Middle {
        size: [usize; 2],
        crop: [usize; 2],
        result: [isize; 2],
    }

    #[derive(Deserialize)]
    struct Parts {
        size: [usize; 2],
        area: [f64; 2],
        aspect: [f64; 2],
        /// With the numbers of seeds 0, 1..
        exact: Vec<[usize; 4]>,
        draws: usize,
        /// The part that is taken when none fits.
        middle: [usize; 4],
        middles: usize,
        /// Of top, left, height, width and share of the area.
        mean: [f64; 5],
        std: [f64; 5],
    }

    fn stored() -> Stored {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/pictures.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn sizes_are_those_of_torchvision_and_pillow() {
        let stored = stored();
        for ShortSide { size, short, result } in stored.short_side {
            assert_eq!(short_side(size, short), result, "{size:?} to {short}");
        }
        for Fits { size, to, inside, cover: covering } in stored.fits {
            assert_eq!(fit_inside(size, to), inside, "{size:?} in {to:?}");
            assert_eq!(cover(size, to), covering, "{size:?} over {to:?}");
        }
        for Middle { size, crop, result } in stored.middle {
            assert_eq!(middle(size, crop), result, "{crop:?} of {size:?}");
        }
    }

    #[test]
    fn sizes_are_those_computed_by_hand() {
        // 256 * 500 / 375 = 341.3; 32 * 500 / 375 = 42.67, rounded down.
        assert_eq!(short_side([375, 500], 256), [256, 341]);
        assert_eq!(short_side([500, 375], 32), [42, 32]);
        // 375 * 224 / 500 = 168; 500 * 224 / 375 = 298.67, rounded up. 5 / 2 and 7 / 2 round to even.
        assert_eq!(fit_inside([375, 500], [224, 224]), [168, 224]);
        assert_eq!(cover([375, 500], [224, 224]), [224, 299]);
        assert_eq!([5, 7].map(|side| fit_inside([side, 10], [5, 5])), [[2, 5], [4, 5]]);
        assert_eq!(fit_inside([1, 1000], [8, 8]), [1, 8]);
        assert_eq!(middle([10, 11], [5, 4]), [2, 4]);
        assert_eq!(middle([10, 10], [13, 15]), [-1, -2]);
    }

    #[test]
    fn random_parts_are_those_of_torchvision_for_the_same_numbers() {
        for Parts { size, area, aspect, exact, middle, .. } in stored().parts {
            for (seed, expected) in exact.into_iter().enumerate() {
                let number = |index| {
                    assert!(index < NUMBERS_OF_A_PART);
                    (seed as f64 * 0.7548776662466927 + (index + 1) as f64 * 0.6180339887498949) % 1.0
                };
                assert_eq!(random_part(size, area, aspect, number), expected, "{size:?}, seed {seed}");
            }
            assert_eq!(random_part(size, [9.0, 9.0], aspect, |_| 0.5), middle, "{size:?}");
        }
    }

    #[test]
    fn random_parts_have_the_distribution_of_torchvision() {
        for Parts { size, area, aspect, draws, middle, middles, mean, std, .. } in stored().parts {
            let (mut sums, mut count) = ([0.0; 5], 0);
            for sample in 0..draws {
                let random = Random::new(1, RandomStream::Augment, 0, sample as u64);
                let part = random_part(size, area, aspect, |index| random.uniform(index));
                let [top, left, height, width] = part;
                assert!(top + height <= size[0] && left + width <= size[1] && height > 0 && width > 0, "{part:?}");
                let share = (height * width) as f64 / (size[0] * size[1]) as f64;
                for (sum, x) in sums.iter_mut().zip(part.map(|x| x as f64).into_iter().chain([share])) {
                    *sum += x;
                }
                count += usize::from(part == middle);
            }
            // Within 4.5 standard deviations of the difference of two means: one in 140,000 if the distributions are the same.
            let wide = |deviation: f64| 4.5 * deviation * (2.0 / draws as f64).sqrt() + 1e-9;
            for ((sum, mean), std) in sums.iter().zip(mean).zip(std) {
                let found = sum / draws as f64;
                assert!((found - mean).abs() <= wide(std), "{size:?}: {found}, torchvision's {mean}");
            }
            let [share, expected] = [count, middles].map(|count| count as f64 / draws as f64);
            let deviation = (expected * (1.0 - expected)).sqrt();
            assert!((share - expected).abs() <= wide(deviation), "{size:?}: {share}, torchvision's {expected}");
            println!("{size:?}: area {} and {}, middle {share} and {expected}", sums[4] / draws as f64, mean[4]);
        }
    }

    #[test]
    fn parts_are_inside_whatever_is_drawn() {
        let numbers = [0.0, 0.5, 1.0 - f64::EPSILON / 2.0];
        for size in [[1, 1], [1, 70_000], [70_000, 1], [3, 2], [10_007, 9_999]] {
            for (area, aspect) in [
                ([0.0, 0.0], [1.0, 1.0]),
                ([1.0, 1.0], [0.75, 1.33]),
                ([0.0, 1.0], [1e-9, 1e9]),
                ([0.5, 0.5], [0.1, 0.3]),
            ] {
                for x in numbers {
                    let [top, left, height, width] = random_part(size, area, aspect, |_| x);
                    assert!(height > 0 && width > 0 && top + height <= size[0] && left + width <= size[1]);
                }
            }
        }
    }
}
