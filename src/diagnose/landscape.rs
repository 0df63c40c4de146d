//! The loss on a plane through given weights: center + a first + b second.
//!
//! - *Random directions*, normalised by filter (Li et al. 2018, <https://arxiv.org/abs/1712.09913>): normal random numbers, scaled for each output of a
//!   weight to the norm of its values; biases and other vectors stay as they are. Distances are then relative to the size of the weights.
//! - *Principal directions* of the checkpoints of a run: those along which the differences from the last one vary most, of length 1.

use super::probe::{Probe, Subject};
use crate::cpu::{Eigen, vectors};
use crate::device::{Random, RandomStream};
use crate::error::{Error, Result};
use crate::network::Network;
use crate::tensor::Precision;

/// The values of all parameters, one after another.
pub type Weights = Vec<Vec<f64>>;

/// Two directions in the space of weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    /// The directions.
    pub directions: [Weights; 2],
    /// The places of a run's checkpoints on the plane, in order; empty for random directions.
    pub path: Vec<[f64; 2]>,
    /// The coordinates of the center.
    pub origin: [f64; 2],
    /// The share of the checkpoints' squared distances from the last one that lies in the plane.
    pub share: Option<f64>,
}

/// The losses on a plane.
#[derive(Debug, Clone, PartialEq)]
pub struct Landscape {
    /// The coordinates along the first and the second direction.
    pub axes: [Vec<f64>; 2],
    /// The losses, for each second coordinate those of all first ones; infinite where they are not finite.
    pub losses: Vec<f64>,
}

impl Plane {
    /// Returns random directions, normalised by filter.
    pub fn random(network: &Network, center: &Weights, seed: u64) -> Plane {
        let direction = |which: u64| {
            let of = |(p, values): (usize, &Vec<f64>)| {
                let parameter = &network.parameters[p];
                let outputs = parameter.units();
                if parameter.param.shape.rank() < 2 || parameter.lr_mult == 0.0 {
                    return vec![0.0; values.len()];
                }
                let random = Random::new(seed, RandomStream::Probe, 4 + which, p as u64);
                let mut drawn: Vec<f64> = (0..values.len() as u64).map(|i| random.normal(i)).collect();
                let row = values.len() / outputs;
                for (drawn, values) in drawn.chunks_exact_mut(row).zip(values.chunks_exact(row)) {
                    let factor = vectors::norm(values) / vectors::norm(drawn);
                    drawn.iter_mut().for_each(|x| *x *= factor);
                }
                drawn
            };
            center.iter().enumerate().map(of).collect()
        };
        Plane { directions: [direction(0), direction(1)], path: Vec::new(), origin: [0.0; 2], share: None }
    }

    /// Returns the principal directions of checkpoints, the last of which is the center.
    ///
    /// # Errors
    /// If there are fewer than 3, or they are all the same.
    pub fn principal(checkpoints: &[Weights]) -> Result<Plane> {
        let count = checkpoints.len();
        let Some(last) = checkpoints.last().filter(|_| count >= 3) else {
            let message = format!("the run has {count} checkpoints, expected at least 3 (train.checkpoint.keep)");
            return Err(Error::Usage(message));
        };
        let flat = |weights: &Weights| -> Vec<f64> {
            let pairs = weights.iter().flatten().zip(last.iter().flatten());
            pairs.map(|(value, last)| value - last).collect()
        };
        let moved: Vec<Vec<f64>> = checkpoints.iter().map(flat).collect();
        let products = moved.iter().flat_map(|a| moved.iter().map(|b| vectors::dot(a, b))).collect();
        let Eigen { values, vectors: found } = Eigen::of(products, count);
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let total: f64 = values.iter().map(|value| value.max(0.0)).sum();
        if values[order[0]] <= 0.0 {
            return Err(Error::Usage("all checkpoints of the run have the same weights".into()));
        }
        let mut path = vec![[0.0; 2]; count];
        let directions = [0, 1].map(|which| {
            let (value, vector) = (values[order[which]].max(0.0), &found[order[which] * count..][..count]);
            let length = value.sqrt();
            let mut direction = vec![0.0; moved[0].len()];
            // Of checkpoints on a line, the second direction is 0, but for the rounding of the products.
            if length > 1e-6 * total.sqrt() {
                moved.iter().zip(vector).for_each(|(moved, share)| vectors::add(&mut direction, share / length, moved));
                path.iter_mut().zip(vector).for_each(|(at, share)| at[which] = share * length);
            }
            let mut rest = &direction[..];
            let mut parts = Vec::with_capacity(last.len());
            for values in last {
                let (own, after) = rest.split_at(values.len());
                parts.push(own.to_vec());
                rest = after;
            }
            parts
        });
        let share = (values[order[0]].max(0.0) + values[order[1]].max(0.0)) / total;
        Ok(Plane { directions, path, origin: [0.0; 2], share: Some(share) })
    }

    /// Returns the first two weights as directions, with a path of their values.
    ///
    /// # Errors
    /// If there are fewer than two weights.
    pub fn first_weights(center: &Weights, path: &[[f64; 2]]) -> Result<Plane> {
        let places: Vec<(usize, usize)> =
            center.iter().enumerate().flat_map(|(p, values)| (0..values.len()).map(move |i| (p, i))).take(2).collect();
        let [first, second] = places[..] else {
            return Err(Error::Usage("the network has fewer than two weights".into()));
        };
        let direction = |(p, i): (usize, usize)| {
            let mut direction: Weights = center.iter().map(|values| vec![0.0; values.len()]).collect();
            direction[p][i] = 1.0;
            direction
        };
        let origin = [first, second].map(|(p, i)| center[p][i]);
        Ok(Plane { directions: [direction(first), direction(second)], path: path.to_vec(), origin, share: None })
    }

    /// Returns axes of so many points: around the path with a margin, or from -reach to reach.
    pub fn axes(&self, points: usize, reach: f64) -> [Vec<f64>; 2] {
        let range = |which: usize| {
            let origin = self.origin[which];
            if self.path.is_empty() {
                return [origin - reach, origin + reach];
            }
            let along = self.path.iter().map(|at| at[which]);
            let (least, most) =
                along.fold((origin, origin), |(least, most): (f64, f64), x| (least.min(x), most.max(x)));
            let margin = 0.25 * (most - least).max(1e-6);
            [least - margin, most + margin]
        };
        let extents = [range(0), range(1)];
        // The same scale on both axes, so that angles are right.
        let widest = extents.iter().fold(0.0f64, |most, [from, to]| most.max(to - from));
        extents.map(|[from, to]| {
            let (middle, half) = (f64::midpoint(from, to), widest / 2.0);
            (0..points).map(|i| middle + half * (2.0 * i as f64 / (points - 1) as f64 - 1.0)).collect()
        })
    }
}

impl Landscape {
    /// Computes the losses of a batch on a plane. Calls `report` with the number of losses so far.
    ///
    /// # Errors
    /// If the network cannot be planned on one device, or a step fails.
    pub fn of(
        subject: &Subject,
        center: &Weights,
        plane: &Plane,
        axes: [Vec<f64>; 2],
        mut report: impl FnMut(usize),
    ) -> Result<Landscape> {
        let mut probe = Probe::new(subject, Precision::F64, false)?;
        let [first, second] = &plane.directions;
        let mut losses = Vec::with_capacity(axes[0].len() * axes[1].len());
        for &b in &axes[1] {
            for &a in &axes[0] {
                for (p, center) in center.iter().enumerate() {
                    let (a, b) = (a - plane.origin[0], b - plane.origin[1]);
                    let moved = center.iter().zip(&first[p]).zip(&second[p]);
                    probe.set(p, &moved.map(|((c, d), e)| c + a * d + b * e).collect::<Vec<f64>>())?;
                }
                losses.push(match probe.loss() {
                    Ok(loss) => loss,
                    Err(Error::Goal(_)) => f64::INFINITY,
                    Err(error) => return Err(error),
                });
                report(losses.len());
            }
        }
        Ok(Landscape { axes, losses })
    }

    /// Returns the segments of the contour line of a loss, in the coordinates of the axes (marching squares with linear
    /// interpolation).
    pub fn contour(&self, level: f64) -> Vec<[[f64; 2]; 2]> {
        let [xs, ys] = &self.axes;
        let mut segments = Vec::new();
        for (j, pair) in ys.windows(2).enumerate() {
            for (i, along) in xs.windows(2).enumerate() {
                let at = |x: usize, y: usize| self.losses[(j + y) * xs.len() + i + x];
                let corners = [(0, 0), (1, 0), (1, 1), (0, 1)].map(|(x, y)| ([along[x], pair[y]], at(x, y)));
                if corners.iter().any(|(_, loss)| !loss.is_finite()) {
                    continue;
                }
                let mut crossed = Vec::new();
                for side in 0..4 {
                    let [(from, a), (to, b)] = [corners[side], corners[(side + 1) % 4]];
                    if (a < level) != (b < level) {
                        let share = (level - a) / (b - a);
                        crossed.push([0, 1].map(|axis| from[axis] + share * (to[axis] - from[axis])));
                    }
                }
                // At a saddle inside the square, two lines cross it; either pairing is right.
                segments.extend(crossed.chunks_exact(2).map(|ends| [ends[0], ends[1]]));
            }
        }
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principal_directions_of_a_plane_contain_the_whole_path() {
        // Points on a plane of five dimensions.
        let (u, v) = ([0.6, 0.8, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]);
        let at = |a: f64, b: f64| vec![(0..3).map(|i| 1.0 + a * u[i] + b * v[i]).collect(), vec![2.0, 3.0]];
        let places = [(4.0, 0.0), (3.0, 1.0), (1.5, 0.5), (0.0, 0.0)];
        let plane = Plane::principal(&places.map(|(a, b)| at(a, b))).unwrap();
        assert!((plane.share.unwrap() - 1.0).abs() < 1e-12);
        let [first, second] = &plane.directions;
        let product =
            |a: &Weights, b: &Weights| a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| a * b).sum::<f64>();
        for (a, b, expected) in [(first, first, 1.0), (second, second, 1.0), (first, second, 0.0)] {
            assert!((product(a, b) - expected).abs() < 1e-9);
        }
        for (place, expected) in plane.path.iter().zip(places) {
            let [x, y] = *place;
            assert!((x.hypot(y) - expected.0.hypot(expected.1)).abs() < 1e-9, "{:?}", plane.path);
            let rebuilt: Vec<f64> = (0..3).map(|i| 1.0 + x * first[0][i] + y * second[0][i]).collect();
            let wanted = &at(expected.0, expected.1)[0];
            assert!(rebuilt.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-9), "{rebuilt:?} {wanted:?}");
        }
        let axes = plane.axes(5, 1.0);
        assert!(
            axes.iter().all(|axis| axis.len() == 5)
                && ((axes[0][4] - axes[0][0]) - (axes[1][4] - axes[1][0])).abs() < 1e-9
        );
        assert!(Plane::principal(&[at(1.0, 0.0), at(0.0, 0.0)]).unwrap_err().to_string().contains("at least 3"));
        assert!(Plane::principal(&[at(0.0, 0.0), at(0.0, 0.0), at(0.0, 0.0)]).is_err());
        // On a line, there is no second direction.
        let line = Plane::principal(&[at(2.0, 0.0), at(1.0, 0.0), at(0.0, 0.0)]).unwrap();
        assert!(line.directions[1].iter().flatten().all(|x| *x == 0.0) && line.path[0][1] == 0.0);
    }

    #[test]
    fn a_contour_of_a_bowl_is_a_circle() {
        let axis: Vec<f64> = (-20..=20).map(|i| f64::from(i) / 10.0).collect();
        let losses = axis.iter().flat_map(|y| axis.iter().map(move |x| x * x + y * y)).collect();
        let bowl = Landscape { axes: [axis.clone(), axis], losses };
        let segments = bowl.contour(1.0);
        assert!(segments.len() > 40);
        for at in segments.iter().flatten() {
            assert!((at[0].hypot(at[1]) - 1.0).abs() < 0.005, "{at:?}");
        }
        assert!(bowl.contour(100.0).is_empty());
    }
}
