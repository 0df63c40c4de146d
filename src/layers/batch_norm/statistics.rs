//! Means, variances and gradient sums over the batch, computed in blocks of rows that depend only on the shape and
//! merged in order.

use super::settings::{PART, SAVED, SUMS};
use crate::cpu::vectorized;
use crate::layers::{Args, Operands, Role};
use crate::tensor::Real;

/// Returns the number of rows of `width` channels in a block, which fits in the second-level cache because it is read
/// twice.
fn rows_per_block(width: usize) -> usize {
    ((1 << 16) / width).max(32)
}

fn num_blocks(elements: usize, width: usize) -> usize {
    (elements / width).div_ceil(rows_per_block(width))
}

/// Returns the scratch elements that [`count`] and [`reduce`] need: two values per channel and block.
pub(super) fn scratch(shapes: &Operands, width: usize) -> usize {
    if width == 0 { 0 } else { 2 * width * num_blocks(shapes[Role::X(0)].elements(), width).max(1) }
}

/// Returns the number of values per channel in the whole batch.
pub(super) fn values_per_channel(args: &Args) -> usize {
    let (x, kept) = (&args.operand(Role::X(0)).shape, &args.operand(SAVED).shape);
    x.elements() / (kept.0[2] * kept.0[3])
}

/// Computes PART = (count, mean, M2) of each channel in this device's part of the batch.
pub(super) fn count<T: Real>(args: &Args, width: usize) {
    let x = args.read::<T>(Role::X(0));
    let block = rows_per_block(width) * width;
    let blocks = num_blocks(x.len(), width);
    let scratch = &mut args.scratch::<T>()[..2 * width * blocks];
    args.chunks(scratch, 2 * width, |i, out, _| {
        let x = &x[i * block..x.len().min((i + 1) * block)];
        let (mean, m2) = out.split_at_mut(width);
        vectorized(
            #[inline(always)]
            || {
                sum_into(
                    x,
                    mean,
                    #[inline(always)]
                    |_, x| x,
                );
                let share = T::from_f64(width as f64 / x.len() as f64);
                mean.iter_mut().for_each(|m| *m *= share);
                let mean = &*mean;
                sum_into(
                    x,
                    m2,
                    #[inline(always)]
                    |c, x| (x - mean[c]) * (x - mean[c]),
                );
            },
        );
    });
    let part = args.write::<T>(PART);
    part.fill(T::ZERO);
    let (counts, rest) = part.split_at_mut(width);
    let (mean, m2) = rest.split_at_mut(width);
    let mut total = 0.0;
    for (i, block_values) in scratch.chunks_exact(2 * width).enumerate() {
        let rows = (x.len() - i * block).min(block) / width;
        total = chan(total, mean, m2, rows as f64, &block_values[..width], &block_values[width..]);
    }
    counts.fill(T::from_f64(total));
}

/// Merges all parts, in order, into the mean and M2 of each channel. Returns the count.
pub(super) fn merge<T: Real>(parts: &[T], mean: &mut [T], m2: &mut [T]) -> f64 {
    mean.fill(T::ZERO);
    m2.fill(T::ZERO);
    let width = mean.len();
    parts.chunks_exact(3 * width).fold(0.0, |count, part| {
        let (more_mean, more_m2) = part[width..].split_at(width);
        chan(count, mean, m2, part[0].to_f64(), more_mean, more_m2)
    })
}

/// Merges the statistics of `more` values into those of `count` values. Returns the new count.
fn chan<T: Real>(count: f64, mean: &mut [T], m2: &mut [T], more: f64, more_mean: &[T], more_m2: &[T]) -> f64 {
    if more == 0.0 {
        return count;
    }
    let total = count + more;
    let (share, weight) = (T::from_f64(more / total), T::from_f64(count * more / total));
    vectorized(
        #[inline(always)]
        || {
            let more = more_mean.iter().zip(more_m2);
            for ((mean, m2), (&more_mean, &more_m2)) in mean.iter_mut().zip(m2).zip(more) {
                let delta = more_mean - *mean;
                *mean += delta * share;
                *m2 += more_m2 + delta * delta * weight;
            }
        },
    );
    total
}

/// Computes SUMS = this device's sums of dy and of dy xhat.
pub(super) fn reduce<T: Real>(args: &Args, width: usize) {
    let (x, dy) = (args.read::<T>(Role::X(0)), args.read::<T>(Role::Dy));
    let (mean, deviation) = args.read::<T>(SAVED).split_at(width);
    let block = rows_per_block(width) * width;
    let blocks = num_blocks(x.len(), width);
    let scratch = &mut args.scratch::<T>()[..2 * width * blocks];
    args.chunks(scratch, 2 * width, |i, out, _| {
        let part = i * block..x.len().min((i + 1) * block);
        let (x, dy) = (&x[part.clone()], &dy[part]);
        let (sum, weighted) = out.split_at_mut(width);
        vectorized(
            #[inline(always)]
            || {
                sum_into(
                    dy,
                    sum,
                    #[inline(always)]
                    |_, dy| dy,
                );
                weighted.fill(T::ZERO);
                for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
                    for (((s, &x), &dy), &mean) in weighted.iter_mut().zip(x).zip(dy).zip(mean) {
                        *s += dy * (x - mean);
                    }
                }
                weighted.iter_mut().zip(deviation).for_each(|(s, &deviation)| *s *= deviation);
            },
        );
    });
    let term = args.write::<T>(SUMS);
    term.fill(T::ZERO);
    for block in scratch.chunks_exact(2 * width) {
        term.iter_mut().zip(block).for_each(|(sum, &more)| *sum += more);
    }
}

/// Computes sums[c] = sum over rows of f(c, x[row, c]), four rows at a time.
#[inline(always)]
fn sum_into<T: Real>(x: &[T], sums: &mut [T], f: impl Fn(usize, T) -> T) {
    let width = sums.len();
    sums.fill(T::ZERO);
    let mut fours = x.chunks_exact(4 * width);
    for rows in fours.by_ref() {
        let (r0, rest) = rows.split_at(width);
        let (r1, rest) = rest.split_at(width);
        let (r2, r3) = rest.split_at(width);
        for c in 0..width {
            sums[c] += (f(c, r0[c]) + f(c, r1[c])) + (f(c, r2[c]) + f(c, r3[c]));
        }
    }
    for row in fours.remainder().chunks_exact(width) {
        for c in 0..width {
            sums[c] += f(c, row[c]);
        }
    }
}
