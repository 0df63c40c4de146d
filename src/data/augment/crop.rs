//! Crops: y[i, j] = x[i + top, j + left], a square part of the image, after `pad` pixels of 0 on every side; in evaluations,
//! the part in the middle.

use super::augmentation::{AugmentLaunch, Augmentation};
use super::draws::Draws;
use super::framing::{Extent, Framing, View};
use crate::data::pictures::{Changes, PictureChange, corner, middle};
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;
use crate::settings::{AT_LEAST_ONE, settings};

settings! {
    /// `{ crop = 24 }`: a random square of the image; in evaluations, the one in the middle.
    pub struct Crop from size {
        /// The height and width of the square.
        pub size: usize, in AT_LEAST_ONE, unit "pixels", example "24";
        /// How far the square may reach beyond the image, where pixels are 0.
        pub pad: usize = 0, unit "pixels", example "4";
    }
}

impl Crop {
    /// Returns the largest distance down and right from the first place of the square.
    fn room(&self, [h, w, _]: [usize; 3]) -> [u64; 2] {
        [h, w].map(|extent| (extent + 2 * self.pad).saturating_sub(self.size) as u64)
    }
}

impl Framing for Crop {
    fn outcome(&self, of: Extent) -> Result<Extent, Fault> {
        let Crop { size, pad } = *self;
        let shape = |[h, w]: [usize; 2]| [h, w, 1];
        match of {
            Extent::Exact(exact) => self.output(shape(exact)).map(|_| Extent::Exact([size; 2])),
            Extent::AtLeast(least) if size > least[0].min(least[1]) + 2 * pad => {
                let message =
                    format!("crop = {size} may be more than images have; put {{ resize = {size} }} before it");
                Err(Fault::at("augment", message))
            }
            Extent::AtLeast(least) => self.output(shape(least)).map(|_| Extent::Exact([size; 2])),
        }
    }
    fn changes(&self, [h, w]: [usize; 2], view: View) -> Changes {
        let room = self.room([h, w, 1]);
        let from = match view {
            View::Random(draws) => [0, 1].map(|i| draws.below(i as u64, room[i] + 1) as isize - self.pad as isize),
            View::Middle => middle([h, w], [self.size; 2]),
            View::Corner(which) => corner([h, w], [self.size; 2], which),
        };
        [Some(PictureChange::Cut { from, size: [self.size; 2] }), None]
    }
    fn cuts(&self) -> bool {
        true
    }
}

impl Augmentation for Crop {
    fn key(&self) -> &'static str {
        "crop"
    }
    fn framing(&self) -> Option<&dyn Framing> {
        Some(self)
    }
    fn output(&self, [h, w, c]: [usize; 3]) -> Result<[usize; 3], Fault> {
        let Crop { size, pad } = *self;
        let message = match () {
            () if pad >= size => {
                format!("crop: pad = {pad} can move the whole square out of the image, expected less than {size}")
            }
            () if size > h.min(w) + 2 * pad => {
                format!("crop = {size} is more than images of {h}x{w} have, expected at most {}", h.min(w) + 2 * pad)
            }
            () => return Ok([size, size, c]),
        };
        Err(Fault::at("augment", message))
    }
    fn evaluates(&self) -> bool {
        true
    }
    fn values_drawn(&self) -> usize {
        2
    }
    /// The first row and the first column.
    fn draw(&self, shape: [usize; 3], draws: Option<&Draws>, to: &mut [f32]) {
        for (index, (to, room)) in to.iter_mut().zip(self.room(shape)).enumerate() {
            let place = draws.map_or(room / 2, |draws| draws.below(index as u64, room + 1));
            *to = place as f32 - self.pad as f32;
        }
    }
    fn apply(&self, drawn: &[f32], shape: [usize; 3], x: &[f32], _: &mut Vec<f32>, y: &mut [f32]) {
        part(drawn, shape, [self.size; 2], x, y);
    }
    fn launch(&self, launch: &AugmentLaunch) -> Result<()> {
        launch_part(launch)
    }
    fn examples() -> Vec<Self> {
        vec![Crop { size: 5, pad: 0 }, Crop { size: 7, pad: 2 }]
    }
}

/// Computes y[i, j] = x[i + top, j + left], and 0 where there is no x, for a part of so many rows and columns.
pub(super) fn part(drawn: &[f32], [h, w, c]: [usize; 3], [rows, columns]: [usize; 2], x: &[f32], y: &mut [f32]) {
    let (top, left) = (drawn[0] as isize, drawn[1] as isize);
    // The columns of y that lie in the image.
    let (first, end) = (left.min(0).unsigned_abs(), (w as isize - left).clamp(0, columns as isize) as usize);
    debug_assert_eq!(y.len(), rows * columns * c);
    for (i, y) in y.chunks_exact_mut(columns * c).enumerate() {
        let row = i as isize + top;
        y.fill(0.0);
        if (0..h as isize).contains(&row) && first < end {
            let from = (row as usize * w + (first as isize + left) as usize) * c;
            y[first * c..end * c].copy_from_slice(&x[from..][..(end - first) * c]);
        }
    }
}

/// Launches the kernel that does the same.
///
/// # Errors
/// When the launch fails.
pub(super) fn launch_part(launch: &AugmentLaunch) -> Result<()> {
    let AugmentLaunch { x: (bytes, floats), draws, table, y, images, from, to, stride, .. } = *launch;
    let ([h, w, c], [rows, columns, _]) = (from, to);
    // SAFETY: x is (images, h, w, c), y (images, rows, columns, c), which do not overlap, and each image has `stride` drawn
    // values. They launch one thread per pixel of y.
    unsafe {
        any::augment_crop(
            &launch.issue,
            launch.grid,
            bytes,
            floats,
            draws,
            table,
            y,
            images,
            h,
            w,
            c,
            rows,
            columns,
            stride,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Random, RandomStream};

    #[test]
    fn a_crop_is_a_part_of_the_image_and_black_beyond_it() {
        let x: Vec<f32> = (1..=24).map(|i| i as f32).collect();
        let mut y = vec![9.0; 8];
        part(&[1.0, 1.0], [3, 4, 2], [2, 2], &x, &mut y);
        assert_eq!(y, [11.0, 12.0, 13.0, 14.0, 19.0, 20.0, 21.0, 22.0]);
        part(&[-1.0, -1.0], [3, 4, 2], [2, 2], &x, &mut y);
        assert_eq!(y, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
        part(&[2.0, 3.0], [3, 4, 2], [2, 2], &x, &mut y);
        assert_eq!(y, [23.0, 24.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn training_takes_every_place_and_an_evaluation_the_middle() {
        let (one, shape) = (Crop { size: 4, pad: 1 }, [5, 6, 1]);
        let mut counts = [[0; 4], [0, 0, 0, 0]];
        let mut wide = 0;
        for sample in 0..4000 {
            let draws = Draws::new(Random::new(1, RandomStream::Augment, 0, sample), 0);
            let mut drawn = [0.0; 2];
            one.draw(shape, Some(&draws), &mut drawn);
            counts[0][(drawn[0] + 1.0) as usize] += 1;
            match (drawn[1] + 1.0) as usize {
                4 => wide += 1,
                at => counts[1][at] += 1,
            }
        }
        assert!(counts[0].iter().all(|count| (900..1100).contains(count)), "{counts:?}");
        assert!(counts[1].iter().chain([&wide]).all(|count| (700..900).contains(count)), "{counts:?} {wide}");
        let mut drawn = [9.0; 2];
        one.draw(shape, None, &mut drawn);
        assert_eq!(drawn, [0.0, 1.0]);
    }

    #[test]
    fn squares_that_do_not_fit_are_refused() {
        let message = |size, pad| Crop { size, pad }.output([28, 32, 1]).unwrap_err().message;
        assert_eq!(message(29, 0), "crop = 29 is more than images of 28x32 have, expected at most 28");
        assert_eq!(message(4, 4), "crop: pad = 4 can move the whole square out of the image, expected less than 4");
        assert_eq!(Crop { size: 30, pad: 1 }.output([28, 32, 3]), Ok([30, 30, 3]));
    }
}
