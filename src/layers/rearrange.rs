//! Layers that only move values: y = x elsewhere, and 0 where no value moves to. The backward pass moves gradients back.
//! Such a layer states its moves, with the operands of a phase, and has the rest of its methods from `by_moves`.

use super::layer::unknown_phase;
use super::{Args, Launch, LayerContext, LayerPhases, Operands, Phase, Role, by_precision};
use crate::device::Operand;
use crate::error::Result;
use crate::gpu::kernels::{MoveGeometry, any};
use crate::gpu::{Grid, int};
use crate::layers::Split;
use crate::tensor::{Dim, Placement, Real};

/// The number of dims of a move.
const DIMS: usize = 5;

/// A box of values of each sample that moves from an input to the output. Strides and first elements count from the
/// beginning of the sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    /// The input.
    pub input: usize,
    /// The size of the box.
    pub dims: [usize; DIMS],
    /// The first element in the input, and the strides there.
    pub from: (usize, [usize; DIMS]),
    /// The first element in the output, and the strides there.
    pub to: (usize, [usize; DIMS]),
    /// How often each value is copied, and the strides of its copies in the output.
    pub copies: [(usize, usize); 2],
}

/// Each value is moved once.
pub(super) const ONCE: [(usize, usize); 2] = [(1, 0); 2];

impl Move {
    fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Returns the distances of the copies of a value in the output.
    fn offsets(&self) -> impl Iterator<Item = usize> {
        let [(rows, down), (columns, across)] = self.copies;
        (0..rows).flat_map(move |i| (0..columns).map(move |j| i * down + j * across))
    }
}

/// The shape of a sample of an operand on a device: (H, W, C).
pub(super) fn sample(operand: &Operand) -> [usize; 3] {
    [operand.len(1), operand.len(2), operand.len(3)]
}

/// Returns the samples of input 0 and of the output, by their operands in a phase; `None` if no gradient of the input is needed.
pub(super) fn samples(phase: &str, operands: &Operands) -> Option<[[usize; 3]; 2]> {
    let (x, y) = match phase {
        "forward" => (Role::X(0), Role::Y),
        _ => (Role::Dx(0), Role::Dy),
    };
    operands.has(x).then(|| [sample(&operands[x]), sample(&operands[y])])
}

/// The methods of a layer that does only what `moves(phase, operands)` says. Layers that need all channels of their inputs name that.
macro_rules! by_moves {
    () => {
        fn cost(&self, _: &[$crate::layers::Activation]) -> u64 {
            0
        }
        fn phases(
            &self,
            cx: &$crate::layers::LayerContext,
        ) -> Result<$crate::layers::LayerPhases, $crate::error::Fault> {
            Ok($crate::layers::rearrange::phases(cx))
        }
        fn run(&self, phase: &str, args: &$crate::layers::Args) {
            $crate::layers::rearrange::run(phase, args, &self.moves(phase, args.operands));
        }
        fn launch(&self, phase: &str, launch: &$crate::layers::Launch) -> $crate::error::Result<()> {
            $crate::layers::rearrange::launch(phase, launch, &self.moves(phase, launch.operands))
        }
    };
    (all_channels) => {
        $crate::layers::rearrange::by_moves!();
        fn splits(&self) -> &'static [$crate::layers::Split] {
            &[$crate::layers::Split::Batch, $crate::layers::Split::None]
        }
        fn preferred_input(
            &self,
            _: $crate::layers::Activation,
            incoming: $crate::tensor::Placement,
            split: Option<$crate::layers::Split>,
            _: $crate::tensor::Mesh,
        ) -> Option<$crate::tensor::Placement> {
            $crate::layers::rearrange::all_channels(incoming, split)
        }
    };
}
pub(super) use by_moves;

/// Returns the phases of a layer with so many inputs.
pub(super) fn phases(cx: &LayerContext) -> LayerPhases {
    let x = cx.x();
    let (mut forward, mut backward) =
        (Phase::new("forward").write(Role::Y, x), Phase::new("backward").read(Role::Dy, x));
    for i in 0..cx.inputs.len() {
        forward = forward.read(Role::X(i), x);
        backward = backward.write(Role::Dx(i), x);
    }
    LayerPhases::simple(forward, backward)
}

/// Returns the placement that a layer requires that needs all channels of its inputs.
pub(super) fn all_channels(incoming: Placement, split: Option<Split>) -> Option<Placement> {
    match split {
        Some(Split::Batch) => Some(Placement::Shard(Dim::BATCH)),
        Some(_) => Some(Placement::Replicate),
        None if matches!(incoming, Placement::Shard(Dim::CHANNELS) | Placement::Partial) => Some(Placement::Replicate),
        None => None,
    }
}

/// What a phase does with the moves.
struct Work<'a> {
    /// The operands that it reads and writes, and the move between them.
    all: Vec<(Role, Role, &'a Move)>,
    /// The operands that the moves do not cover.
    uncovered: Vec<Role>,
    /// Whether gradients move back.
    back: bool,
}

impl<'a> Work<'a> {
    fn of(phase: &str, operands: &Operands, moves: &'a [Move]) -> Self {
        let (back, mut all, mut covered): (_, Vec<_>, Vec<(Role, usize)>) = match phase {
            "forward" => (false, Vec::new(), Vec::new()),
            "backward" => (true, Vec::new(), Vec::new()),
            _ => unknown_phase(phase),
        };
        for one in moves {
            let (from, to) = if back { (Role::Dy, Role::Dx(one.input)) } else { (Role::X(one.input), Role::Y) };
            if !operands.has(to) {
                continue;
            }
            let elements = one.elements() * if back { 1 } else { one.offsets().count() };
            match covered.iter_mut().find(|(role, _)| *role == to) {
                Some((_, sum)) => *sum += elements,
                None => covered.push((to, elements)),
            }
            all.push((from, to, one));
        }
        let is_covered =
            |(role, elements): &(Role, usize)| sample(&operands[*role]).iter().product::<usize>() == *elements;
        let uncovered = covered.iter().filter(|pair| !is_covered(pair)).map(|(role, _)| *role).collect();
        Work { all, uncovered, back }
    }
}

/// Runs a phase on a CPU device.
pub(super) fn run(phase: &str, args: &Args, moves: &[Move]) {
    by_precision!(args, T => run_in::<T>(&Work::of(phase, args.operands, moves), args));
}

fn run_in<T: Real>(work: &Work, args: &Args) {
    for &role in &work.uncovered {
        args.write::<T>(role).fill(T::ZERO);
    }
    for &(from, to, one) in &work.all {
        let [source, target] = [from, to].map(|role| sample(args.operand(role)).iter().product::<usize>());
        let x = args.read::<T>(from);
        args.chunks(args.write::<T>(to), target, |n, y, _| {
            let x = &x[n * source..][..source];
            for (copy, offset) in one.offsets().enumerate() {
                each_row(one, |at_input, at_output| match work.back {
                    false => {
                        move_row(one, (&x[at_input..], one.from.1), (&mut y[at_output + offset..], one.to.1), false)
                    }
                    true => {
                        move_row(one, (&x[at_output + offset..], one.to.1), (&mut y[at_input..], one.from.1), copy > 0);
                    }
                });
            }
        });
    }
}

/// Moves the innermost row of a box, or adds it.
fn move_row<T: Real>(one: &Move, (x, from): (&[T], [usize; DIMS]), (y, to): (&mut [T], [usize; DIMS]), add: bool) {
    let (len, step_x, step_y) = (one.dims[DIMS - 1], from[DIMS - 1], to[DIMS - 1]);
    if step_x == 1 && step_y == 1 && !add {
        y[..len].copy_from_slice(&x[..len]);
        return;
    }
    for i in 0..len {
        let (value, y) = (x[i * step_x], &mut y[i * step_y]);
        *y = if add { *y + value } else { value };
    }
}

/// Calls `f` with the first element on either side of each row of a box.
fn each_row(one: &Move, mut f: impl FnMut(usize, usize)) {
    let ([a, b, c, d, last], (from, x), (to, y)) = (one.dims, one.from, one.to);
    if last == 0 {
        return;
    }
    for i in 0..a {
        for j in 0..b {
            for k in 0..c {
                for l in 0..d {
                    let at = |first: usize, s: [usize; DIMS]| first + i * s[0] + j * s[1] + k * s[2] + l * s[3];
                    f(at(from, x), at(to, y));
                }
            }
        }
    }
}

/// Launches a phase on a GPU.
pub(super) fn launch(phase: &str, launch: &Launch, moves: &[Move]) -> Result<()> {
    let work = Work::of(phase, launch.operands, moves);
    work.uncovered.iter().try_for_each(|&role| launch.clear(role))?;
    for &(from, to, one) in &work.all {
        let n = launch.operand(to).len(0) * one.elements();
        if n == 0 {
            continue;
        }
        let geometry = geometry(one, launch.operand(from), launch.operand(to), work.back)?;
        let bytes = launch.operand(to).element.bytes();
        let (grid, x, y) = (Grid::cover(n * bytes, 256 * 16), launch.any(from), launch.any_mut(to));
        // SAFETY: the box is within a sample of both operands, which have the same number of samples.
        unsafe { any::rearrange(&launch.issue, grid, x, y, n as i64, geometry)? };
    }
    Ok(())
}

fn geometry(one: &Move, from: &Operand, to: &Operand, back: bool) -> Result<MoveGeometry> {
    let [source, target] = [from, to].map(|operand| sample(operand).iter().product::<usize>());
    // Every index within a sample is less than these.
    let (source, target) = (int(source)?, int(target)?);
    let ints = |all: [usize; DIMS]| all.map(|n| n as i32);
    let (x, y) = if back { (one.to, one.from) } else { (one.from, one.to) };
    let ([d0, d1, d2, d3, d4], [f0, f1, f2, f3, f4]) = (ints(one.dims), ints(x.1));
    let [t0, t1, t2, t3, t4] = ints(y.1);
    let [(c0, s0), (c1, s1)] = one.copies.map(|(count, stride)| (count as i32, stride as i32));
    let (from, to, back) = (x.0 as i32, y.0 as i32, i32::from(back));
    Ok(MoveGeometry {
        d0,
        d1,
        d2,
        d3,
        d4,
        f0,
        f1,
        f2,
        f3,
        f4,
        t0,
        t1,
        t2,
        t3,
        t4,
        c0,
        c1,
        s0,
        s1,
        from,
        to,
        source,
        target,
        back,
    })
}
