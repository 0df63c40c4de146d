use crate::rig::*;
use peristyle::gpu::kernels::{augment_crop, augment_normalize, augment_warp};
use peristyle::gpu::{Const, Grid, Mut};

/// (images, h, w, c, rows of the grid): one pixel, odd sizes, more pixels than a block has threads,
/// fewer rows than images.
const CASES: [[usize; 5]; 4] = [[1, 1, 1, 1, 1], [5, 4, 7, 3, 2], [2, 19, 17, 1, 2], [3, 2, 9, 5, 3]];

/// The number of steps in the list; the kernels receive the draws of the second.
const STEPS: usize = 3;

/// Returns raw pixels that both types of a data set can hold: whole numbers of 8 bits.
fn raw(n: usize) -> Vec<u8> {
    values(n, 3).iter().map(|v| (v.abs() * 255.0) as u8).collect()
}

/// Returns the scale, the number of means, and the means and standard deviations of c channels.
fn table(c: usize) -> Vec<f32> {
    let channels = |from: f32| (0..c).map(move |k| from + 0.125 * k as f32);
    [255.0, c as f32].into_iter().chain(channels(0.25)).chain(channels(0.5)).collect()
}

fn normalized(table: &[f32], k: usize, c: usize, x: f64) -> f64 {
    let [scale, mean, std] = [table[0], table[2 + k], table[2 + c + k]].map(f64::from);
    (x / scale - mean) / std
}

/// Returns pixels as bytes or as floats; the other pointer is null.
fn pixels(rig: &Rig, x: &[u8], floats: bool) -> (Const<u8>, Const<f32>) {
    match floats {
        true => (Const::NONE, rig.give(&x.iter().map(|&v| f32::from(v)).collect::<Vec<_>>())),
        false => (rig.give(x), Const::NONE),
    }
}

#[test]
fn pixels_are_normalised_by_channel() {
    for [images, h, w, c, _] in CASES {
        let n = images * h * w * c;
        let (x, table) = (raw(n), table(c));
        let y: Vec<f64> = x.iter().enumerate().map(|(i, &v)| normalized(&table, i % c, c, v.into())).collect();
        for floats in [false, true] {
            let got = outputs(|rig| {
                let (to, (bytes, values)) = (rig.out::<f32>(n), pixels(rig, &x, floats));
                let (grid, table) = (vectors::<f32>(n), rig.give(&table));
                // SAFETY: x and y have n elements, the table 2 + 2 c.
                unsafe { augment_normalize(&rig.on(), grid, bytes, values, table, to, n as i64, c as i32).unwrap() };
                vec![rig.numbers(to, n)]
            });
            close("y", &got[0], &y, 1e-6);
        }
    }
}

#[test]
fn pixels_begin_at_any_byte() {
    let (n, x, table) = (1031, raw(1040), table(1));
    for first in 0..4 {
        let y: Vec<f64> = x[first..first + n].iter().map(|&v| normalized(&table, 0, 1, v.into())).collect();
        let got = outputs(|rig| {
            let to = rig.out::<f32>(n);
            let (bytes, table) = (rig.give(&x[..first + n]).offset(first), rig.give(&table));
            // SAFETY: there are n elements from `first` on.
            unsafe {
                augment_normalize(&rig.on(), vectors::<f32>(n), bytes, Const::NONE, table, to, n as i64, 1).unwrap()
            };
            vec![rig.numbers(to, n)]
        });
        close("y", &got[0], &y, 1e-6);
    }
}

/// The numbers that a step draws for each image, of which a crop has two.
type Draws = Vec<[f32; 4]>;

/// Compares a kernel, with and without a table, on bytes and on floats, with bilinear samples in f64. `at` returns the
/// position in x of the pixel (i, j) of y, from the draws of its image and the middle of x.
fn moved(warps: bool, draws: impl Fn(usize) -> Draws, at: impl Fn([f32; 4], [f64; 2], [f64; 2]) -> [f64; 2]) {
    for [images, h, w, c, rows] in CASES {
        let n = images * h * w * c;
        let (x, all, draws) = (raw(n), table(c), draws(images));
        let steps: Vec<f32> = draws.iter().flat_map(|&d| [[f32::NAN; 4], d, [f32::NAN; 4]]).flatten().collect();
        let pixel = |image: usize, i: f64, j: f64, k: usize| {
            let inside = i >= 0.0 && j >= 0.0 && i < h as f64 && j < w as f64;
            if inside { f64::from(x[((image * h + i as usize) * w + j as usize) * c + k]) } else { 0.0 }
        };
        let middle = [(h - 1) as f64 / 2.0, (w - 1) as f64 / 2.0];
        let value = |e: usize| {
            let (k, j, i, image) = (e % c, e / c % w, e / c / w % h, e / c / w / h);
            let [i, j] = at(draws[image], [i as f64, j as f64], middle);
            let (top, left) = (i.floor(), j.floor());
            let (down, right) = (i - top, j - left);
            let row = |i| (1.0 - right) * pixel(image, i, left, k) + right * pixel(image, i, left + 1.0, k);
            (1.0 - down) * row(top) + down * row(top + 1.0)
        };
        let y: Vec<f64> = (0..n).map(value).collect();
        for (floats, last) in [(false, false), (false, true), (true, false), (true, true)] {
            let got = outputs(|rig| {
                let (to, (bytes, values)): (Mut<f32>, _) = (rig.out(n), pixels(rig, &x, floats));
                let draws = rig.give(&steps).offset(4);
                let table = if last { rig.give(&all) } else { Const::NONE };
                let grid = Grid::new((h * w).div_ceil(256), rows, 1);
                let (on, [images, h, w, c, stride]) = (&rig.on(), [images, h, w, c, 4 * STEPS].map(|v| v as i32));
                // SAFETY: x and y have the shape of the case; there are draws for every image.
                unsafe {
                    match warps {
                        true => augment_warp(on, grid, bytes, values, draws, table, to, images, h, w, c, stride),
                        false => augment_crop(on, grid, bytes, values, draws, table, to, images, h, w, c, h, w, stride),
                    }
                    .unwrap();
                }
                vec![rig.numbers(to, n)]
            });
            let y: Vec<f64> =
                y.iter().enumerate().map(|(e, &v)| if last { normalized(&all, e % c, c, v) } else { v }).collect();
            // Positions are f32, about 1e-6 of a pixel off; neighbouring pixels differ by up to the largest value.
            close("y", &got[0], &y, 1e-5);
        }
    }
}

#[test]
fn a_crop_moves_pixels_and_fills_with_zero() {
    let draws =
        |images| (0..images).map(|image| [image as f32 - 1.0, 2.0 - image as f32, f32::NAN, f32::NAN]).collect();
    moved(false, draws, |[top, left, ..], [i, j], _| [i + f64::from(top), j + f64::from(left)]);
}

#[test]
fn a_rotation_samples_the_image_turned_back() {
    let turn = |angle: f32| [angle.cos(), angle.sin(), -angle.sin(), angle.cos()];
    let draws = |images: usize| (0..images).map(|image| turn([0.3, -1.0, 3.1, 2.0, -0.01][image])).collect();
    moved(true, draws, |[cosine, sine, ..], [i, j], [mi, mj]| {
        let (di, dj, sine, cosine) = (i - mi, j - mj, f64::from(sine), f64::from(cosine));
        [sine * dj + cosine * di + mi, cosine * dj - sine * di + mj]
    });
}
