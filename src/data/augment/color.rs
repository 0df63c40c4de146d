//! Brightness, contrast, saturation and hue, each by a random amount, in this order (Krizhevsky et al. 2012 and later; the first three as in
//! torchvision's ColorJitter, without clamping). All are linear in the pixels: y = M x + f m, where m is the mean of the grey values 0.299 r + 0.587 g +
//! 0.114 b of the image. Hue turns the colours about the grey axis in YIQ, which leaves grey values as they are.

use super::augmentation::{AugmentLaunch, Augmentation};
use super::draws::Draws;
use crate::error::{Fault, Result};
use crate::gpu::Grid;
use crate::gpu::kernels::any;
use crate::settings::{FRACTION, Range, Settings, settings};

const HALF_TURN: Range<f64> = Range { text: "a number from 0 to 0.5", contains: |&h| (0.0..=0.5).contains(&h) };

settings! {
    /// `{ color = { brightness = 0.4, contrast = 0.4, saturation = 0.4, hue = 0.1 } }`: changes colours at random. Images of one channel have
    /// brightness and contrast only.
    pub struct Color {
        /// Pixels are multiplied by a factor in 1 - b to 1 + b.
        pub brightness: f64 = 0.0, in FRACTION;
        /// Distances from the mean of the grey values are multiplied by a factor in 1 - c to 1 + c.
        pub contrast: f64 = 0.0, in FRACTION;
        /// Distances of colours from their grey values are multiplied by a factor in 1 - s to 1 + s.
        pub saturation: f64 = 0.0, in FRACTION;
        /// Hues are turned by -h to h.
        pub hue: f64 = 0.0, in HALF_TURN, unit "turns";
    }
}

/// Values that describe a change of colours: M by rows, the factor f, and a colour that is added.
pub(super) const VALUES: usize = 13;

/// The share of each colour in the grey value.
const GREY: [f64; 3] = [0.299, 0.587, 0.114];

type Matrix = [[f64; 3]; 3];

fn product(a: Matrix, b: Matrix) -> Matrix {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

/// Returns the map that multiplies distances from the grey value.
fn saturated(factor: f64) -> Matrix {
    std::array::from_fn(|i| {
        std::array::from_fn(|j| if i == j { factor + (1.0 - factor) * GREY[j] } else { (1.0 - factor) * GREY[j] })
    })
}

/// Returns the map that turns hues: to YIQ, a turn of (I, Q), and back.
fn turned(turns: f64) -> Matrix {
    let [y, i, q] = [GREY, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]];
    let (sine, cosine) = (turns * std::f64::consts::TAU).sin_cos();
    let combined = |a: f64, b: f64| std::array::from_fn(|k| a * i[k] + b * q[k]);
    product(inverse([y, i, q]), [y, combined(cosine, -sine), combined(sine, cosine)])
}

fn inverse(m: Matrix) -> Matrix {
    let minor = |i: usize, j: usize| {
        let [a, b] = [(i + 1) % 3, (i + 2) % 3];
        let [c, d] = [(j + 1) % 3, (j + 2) % 3];
        m[a][c] * m[b][d] - m[a][d] * m[b][c]
    };
    let determinant: f64 = (0..3).map(|j| m[0][j] * minor(0, j)).sum();
    std::array::from_fn(|i| std::array::from_fn(|j| minor(j, i) / determinant))
}

impl Augmentation for Color {
    fn key(&self) -> &'static str {
        "color"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        if *self == (Color { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 }) {
            let message = "color changes nothing; give it brightness, contrast, saturation or hue";
            return Err(Fault::at("augment", message));
        }
        Ok(())
    }
    fn output(&self, shape: [usize; 3]) -> Result<[usize; 3], Fault> {
        let colours = self.saturation > 0.0 || self.hue > 0.0;
        match shape[2] {
            3 => Ok(shape),
            1 if !colours => Ok(shape),
            1 => Err(Fault::at("augment", "color: images of one channel have no saturation and no hue; remove them")),
            c => Err(Fault::at("augment", format!("color needs images of 1 or 3 channels, not {c}"))),
        }
    }
    fn values_drawn(&self) -> usize {
        VALUES
    }
    fn numbers(&self) -> u64 {
        4
    }
    fn draw(&self, shape: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        let amount = |index, most: f64| draws.map_or(0.0, |draws| (2.0 * draws.uniform(index) - 1.0) * most);
        let (brightness, contrast) = (1.0 + amount(0, self.brightness), 1.0 + amount(1, self.contrast));
        let map = product(turned(amount(3, self.hue)), saturated(1.0 + amount(2, self.saturation)));
        let factor = brightness * contrast;
        to.fill(0.0);
        match shape[2] {
            1 => to[0] = factor as f32,
            _ => to.iter_mut().zip(map.as_flattened()).for_each(|(to, value)| *to = (value * factor) as f32),
        }
        to[9] = (brightness * (1.0 - contrast)) as f32;
    }
    fn apply(&self, drawn: &[f32], shape: [usize; 3], x: &[f32], _: &mut Vec<f32>, y: &mut [f32]) {
        recolor(drawn, shape, x, y);
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        launch_recolor(launch)
    }
    fn examples() -> Vec<Self> {
        vec![
            Color { brightness: 0.4, contrast: 0.3, saturation: 0.0, hue: 0.0 },
            Color { brightness: 0.0, contrast: 0.0, saturation: 0.5, hue: 0.2 },
            Color { brightness: 0.2, contrast: 0.6, saturation: 0.7, hue: 0.5 },
        ]
    }
}

/// Threads that share the sum of an image on a GPU.
const THREADS: usize = 256;

/// Returns the sum of a block of threads in the order of its kernel: in each warp, then over the warps.
fn block_sum(values: &[f32; THREADS]) -> f32 {
    let warp_sum = |mut x: [f32; 32]| {
        for bits in [16, 8, 4, 2, 1] {
            let before = x;
            x = std::array::from_fn(|lane| before[lane] + before[lane ^ bits]);
        }
        x[0]
    };
    let mut warps = [0.0; 32];
    for (to, warp) in warps.iter_mut().zip(values.as_chunks::<32>().0) {
        *to = warp_sum(*warp);
    }
    warp_sum(warps)
}

/// Returns the grey value of a pixel.
#[inline(always)]
fn grey(pixel: &[f32]) -> f32 {
    match *pixel {
        [r, g, b] => GREY[0] as f32 * r + GREY[1] as f32 * g + GREY[2] as f32 * b,
        _ => pixel[0],
    }
}

/// Computes y = M x + f m + a for an image of 1 or 3 channels.
pub(super) fn recolor(drawn: &[f32], [h, w, c]: [usize; 3], x: &[f32], y: &mut [f32]) {
    let mut sums = [0.0; THREADS];
    for pixels in x.chunks(THREADS * c) {
        sums.iter_mut().zip(pixels.chunks_exact(c)).for_each(|(sum, pixel)| *sum += grey(pixel));
    }
    let shift = drawn[9] * (block_sum(&sums) / (h * w) as f32);
    let added: [f32; 3] = std::array::from_fn(|k| shift + drawn[10 + k]);
    for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
        match *x {
            [r, g, b] => {
                for (k, y) in y.iter_mut().enumerate() {
                    *y = drawn[3 * k] * r + drawn[3 * k + 1] * g + drawn[3 * k + 2] * b + added[k];
                }
            }
            _ => y[0] = drawn[0] * x[0] + added[0],
        }
    }
}

/// Launches the kernel that does the same, a block for each image.
///
/// # Errors
/// When the launch fails.
pub(super) fn launch_recolor(launch: &AugmentLaunch) -> Result<()> {
    let AugmentLaunch { x: (bytes, floats), draws, table, y, images, from: [h, w, c], stride, .. } = *launch;
    let grid = Grid::new((images as usize).min(65535), 1, 1);
    // SAFETY: x and y are (images, h, w, c) and do not overlap, and each image has `stride` drawn values. They launch blocks of 256 threads.
    unsafe { any::augment_color(&launch.issue, grid, bytes, floats, draws, table, y, images, h, w, c, stride) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};

    fn drawn(color: &Color, c: usize, sample: u64) -> [f32; VALUES] {
        let draws = Draws::new(Random::new(1, RandomStream::Augment, 0, sample), 0);
        let mut drawn = [0.0; VALUES];
        color.draw([2, 2, c], Some(&draws), &mut drawn);
        drawn
    }

    #[test]
    fn known_values() {
        // Half the contrast of a grey image with mean 2, doubled brightness: y = 2 (0.5 x + 0.5 * 2).
        let mut values = [0.0; VALUES];
        (values[0], values[9]) = (1.0, 1.0);
        let mut y = [0.0; 4];
        recolor(&values, [2, 2, 1], &[0.0, 1.0, 3.0, 4.0], &mut y);
        assert_eq!(y, [2.0, 3.0, 5.0, 6.0]);
        // Without saturation, all colours are grey.
        let grey: Vec<f64> = saturated(0.0).iter().map(|row| row[0] + 2.0 * row[1] + 4.0 * row[2]).collect();
        assert!(grey.iter().all(|value| (value - (0.299 + 2.0 * 0.587 + 4.0 * 0.114)).abs() < 1e-12), "{grey:?}");
    }

    #[test]
    fn hue_keeps_grey_values_and_a_whole_turn_is_none() {
        for turns in [0.1, -0.37, 0.5, 1.0] {
            let map = turned(turns);
            for colour in [[1.0, 0.0, 0.0], [0.2, 0.7, 0.4], [1.0, 1.0, 1.0]] {
                let turned: [f64; 3] = std::array::from_fn(|i| (0..3).map(|j| map[i][j] * colour[j]).sum());
                let luma = |c: [f64; 3]| c.iter().zip(GREY).map(|(c, share)| c * share).sum::<f64>();
                assert!((luma(turned) - luma(colour)).abs() < 1e-6, "{turned:?}");
                let still = colour[0] == colour[2] || turns == 1.0;
                let same = turned.iter().zip(colour).all(|(a, b)| (a - b).abs() < 1e-5);
                assert_eq!(same, still, "{turns}: {turned:?}");
            }
        }
    }

    #[test]
    fn two_turns_are_one_of_twice_the_angle() {
        for turns in [0.1, -0.2, 0.3] {
            let (twice, once) = (turned(2.0 * turns), product(turned(turns), turned(turns)));
            let pairs = twice.as_flattened().iter().zip(once.as_flattened());
            assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 1e-9), "{turns}: {twice:?} {once:?}");
        }
    }

    #[test]
    fn amounts_are_within_their_ranges_and_an_evaluation_changes_nothing() {
        let color = Color { brightness: 0.4, contrast: 0.0, saturation: 0.0, hue: 0.0 };
        let factors: Vec<f32> = (0..2000).map(|sample| drawn(&color, 3, sample)[0]).collect();
        let (least, most) = factors.iter().fold((9.0f32, 0.0f32), |(a, b), &x| (a.min(x), b.max(x)));
        assert!((0.6..0.61).contains(&least) && (1.39..1.4001).contains(&most), "{least} {most}");
        let mut values = [9.0; VALUES];
        Color { hue: 0.3, saturation: 0.5, ..color }.draw([2, 2, 3], None, &mut values);
        let expected = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
    }

    #[test]
    fn what_cannot_be_changed_is_refused() {
        let color = Color { brightness: 0.0, contrast: 0.0, saturation: 0.1, hue: 0.0 };
        assert!(color.output([2, 2, 1]).unwrap_err().message.contains("no saturation"));
        assert_eq!(color.output([2, 2, 4]).unwrap_err().message, "color needs images of 1 or 3 channels, not 4");
        assert!(Color { saturation: 0.0, ..color }.check().unwrap_err().message.starts_with("color changes nothing"));
    }
}
