//! Linear maps of an image about its centre ((H - 1) / 2, (W - 1) / 2), with bilinear interpolation; pixels from outside the image are 0.
//! What `rotate`, `scale` and `shear` have in common.

use super::augmentation::AugmentLaunch;
use crate::cpu::vectorized;
use crate::error::{Fault, Result};
use crate::gpu::kernels::any;

/// A map M, by rows: y at centre + (di, dj) is x at centre + M (di, dj).
pub(super) type Linear = [f32; 4];

/// Refuses images of one pixel, on which maps have no effect.
pub(super) fn output(kind: &str, shape: [usize; 3]) -> Result<[usize; 3], Fault> {
    match shape {
        [1, 1, _] => Err(Fault::at("augment", format!("{kind} has no effect on images of 1x1; remove it"))),
        _ => Ok(shape),
    }
}

/// Launches the kernel that computes the same as [`warp`].
///
/// # Errors
/// When the launch fails.
pub(super) fn launch_warp(launch: &AugmentLaunch) -> Result<()> {
    let AugmentLaunch { x: (bytes, floats), draws, table, y, images, from: [h, w, c], stride, .. } = *launch;
    // SAFETY: x and y are (images, h, w, c) and do not overlap, and each image has `stride` drawn values. They launch one thread per
    // pixel of y.
    unsafe { any::augment_warp(&launch.issue, launch.grid, bytes, floats, draws, table, y, images, h, w, c, stride) }
}

/// Maps an image: y at p is x at M p, interpolated bilinearly.
pub(super) fn warp(map: Linear, [h, w, c]: [usize; 3], x: &[f32], framed: &mut Vec<f32>, y: &mut [f32]) {
    // A frame of zeros, one pixel before and two after the image, so that reading neighbours needs no bounds check.
    let across = (w + 3) * c;
    framed.resize((h + 3) * across, 0.0);
    for (framed, x) in framed[across..].chunks_exact_mut(across).zip(x.chunks_exact(w * c)) {
        framed[c..(w + 1) * c].copy_from_slice(x);
    }
    vectorized(
        #[inline(always)]
        || match c {
            // The two common numbers of channels are compile-time constants.
            1 => warped(map, [h, w, 1], framed, y),
            3 => warped(map, [h, w, 3], framed, y),
            _ => warped(map, [h, w, c], framed, y),
        },
    );
}

#[inline(always)]
fn warped(map: Linear, [h, w, c]: [usize; 3], framed: &[f32], y: &mut [f32]) {
    let (middle_i, middle_j) = ((h - 1) as f32 / 2.0, (w - 1) as f32 / 2.0);
    let (last_i, last_j) = ((h + 1) as f32, (w + 1) as f32);
    let across = (w + 3) * c;
    for (row, y) in y.chunks_exact_mut(w * c).enumerate() {
        let di = row as f32 - middle_i;
        for (column, y) in y.chunks_exact_mut(c).enumerate() {
            let dj = column as f32 - middle_j;
            // Coordinates in the framed image; positions far outside are clamped to the frame.
            let i = (map[0] * di + map[1] * dj + middle_i + 1.0).clamp(0.0, last_i);
            let j = (map[2] * di + map[3] * dj + middle_j + 1.0).clamp(0.0, last_j);
            let (top, left) = (i as i32, j as i32);
            let (down, right) = (i - top as f32, j - left as f32);
            let start = top as usize * across + left as usize * c;
            let (upper, lower) = (&framed[start..][..2 * c], &framed[start + across..][..2 * c]);
            for k in 0..c {
                y[k] = (1.0 - down) * ((1.0 - right) * upper[k] + right * upper[k + c])
                    + down * ((1.0 - right) * lower[k] + right * lower[k + c]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_is_counter_clockwise_and_no_turn_is_exact() {
        let x: Vec<f32> = (0..9).map(|i| i as f32).collect();
        let mut y = vec![0.0; 9];
        let mut work = Vec::new();
        warp([1.0, 0.0, 0.0, 1.0], [3, 3, 1], &x, &mut work, &mut y);
        assert_eq!(y, x);
        warp([0.0, 1.0, -1.0, 0.0], [3, 3, 1], &x, &mut work, &mut y);
        let turned = [2.0, 5.0, 8.0, 1.0, 4.0, 7.0, 0.0, 3.0, 6.0];
        assert!(y.iter().zip(turned).all(|(y, t)| (y - t).abs() < 1e-5), "{y:?}");
    }

    #[test]
    fn channels_move_alike_whatever_their_number() {
        let plane: Vec<f32> = (0..20).map(|i| (i * i % 17) as f32).collect();
        let map = [0.9, 0.4, -0.3, 1.2];
        let mut expected = vec![0.0; 20];
        warp(map, [4, 5, 1], &plane, &mut Vec::new(), &mut expected);
        for c in [2, 3, 4] {
            let x: Vec<f32> = plane.iter().flat_map(|&v| (0..c).map(move |k| v * (1 << k) as f32)).collect();
            let mut y = vec![0.0; 20 * c];
            warp(map, [4, 5, c], &x, &mut Vec::new(), &mut y);
            assert!(y.iter().enumerate().all(|(i, &v)| v == expected[i / c] * (1 << (i % c)) as f32));
        }
    }

    #[test]
    fn half_a_pixel_is_the_mean_of_its_neighbours() {
        let mut y = vec![0.0; 2];
        warp([0.0, 1.0, -1.0, 0.0], [1, 2, 1], &[2.0, 4.0], &mut Vec::new(), &mut y);
        // Both pixels turn back to half a row above or below the only row.
        assert!((y[0] - 1.5).abs() < 1e-5 && (y[1] - 1.5).abs() < 1e-5, "{y:?}");
    }
}
