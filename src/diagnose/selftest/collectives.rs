//! Redistributions over logical devices of one device, beside sums worked out on the host.

use super::compare::{Compared, Tally, worst};
use super::{Device, Effort, training};
use crate::collectives::{Collective, Form};
use crate::data::Batch;
use crate::device::{Clock, Purpose, Random};
use crate::diagnose::one_move::{OneMove, VARIANT};
use crate::error::Result;
use crate::placement::Region;
use crate::program::Options;
use crate::tensor::{Layout, Place, Precision, Products, Shape, Strided, Window};

/// What is checked; a slice is a copy that no device waits for.
pub(super) const ALL: [Collective; 4] =
    [Collective::AllReduce, Collective::ReduceScatter, Collective::AllGather, Collective::AllToAll];

/// Four terms are three roundings of 6e-8.
pub(super) const BOUND: f64 = 2e-7;

/// (N, H, W, C) of the tensors: smaller than the devices are many, odd, and of many blocks.
const SHAPES: [[usize; 4]; 4] = [[1, 1, 1, 3], [5, 1, 3, 7], [8, 2, 2, 16], [33, 3, 5, 67]];

/// Runs a collective on two and four devices in several sizes.
pub(super) fn check(collective: Collective, device: &Device, effort: Effort, tally: &mut Tally) {
    let moves: &[(Place, Place)] = match collective {
        Collective::AllReduce => &[(Place::Partial, Place::Replicate)],
        Collective::ReduceScatter => &[(Place::Partial, Place::Shard(0)), (Place::Partial, Place::Shard(3))],
        Collective::AllGather => &[(Place::Shard(0), Place::Replicate), (Place::Shard(3), Place::Replicate)],
        _ => &[(Place::Shard(0), Place::Shard(3)), (Place::Shard(3), Place::Shard(0))],
    };
    let forms: &[Form] = if device.driver.is_some() { &[Form::Ring] } else { &[Form::Ring, Form::OnePass] };
    let shapes = if effort == Effort::Quick { &SHAPES[1..2] } else { &SHAPES[..] };
    for devices in [2, 4] {
        for shape in shapes {
            for &(have, want) in moves {
                for &form in forms {
                    let shape = Shape::from(*shape);
                    let case = format!("{shape:?} from {have:?} to {want:?} on {devices} devices, {form:?}");
                    tally.add(&case, run(device, devices, form, OneMove { collective, shape, have, want }));
                }
            }
        }
    }
}

fn run(device: &Device, devices: usize, form: Form, moved: OneMove) -> Result<Vec<Compared>> {
    let (job, _) = training::job(&device.times(devices), &[])?;
    let options = Options { form, precision: Precision::F32, products: Products::Full, ..job.options(vec![VARIANT]) };
    let mesh = options.mesh;
    let mut session = job.session(moved.plan(options))?;
    // A partial sum has a term of its own on every device; else all hold parts of the first.
    let terms: Vec<Vec<f32>> = (0..devices)
        .map(|term| {
            let random = Random::new(7, Purpose::Probe, 0, if moved.have == Place::Partial { term as u64 } else { 0 });
            (0..moved.shape.elements() as u64).map(|i| random.normal(i) as f32).collect()
        })
        .collect();
    let sum = |i: usize| match moved.have {
        Place::Partial => terms.iter().map(|term| f64::from(term[i])).sum::<f64>(),
        _ => f64::from(terms[0][i]),
    };
    let whole: Vec<f64> = (0..moved.shape.elements()).map(sum).collect();
    let [from, to] = moved.layouts();
    let window = |layout: Layout, device: usize| layout.window(&moved.shape, mesh, mesh.position(device));
    let mut compared = Vec::new();
    // GPUs capture a program when it runs again.
    for run in ["first run", "second run"] {
        for (d, term) in terms.iter().enumerate() {
            let mut mine = cut(term, &moved.shape, &window(from, d));
            // Regions are as long on every device as the longest part.
            mine.resize(session.plan().region(Region::Gradients).1, 0.0);
            session.write_region(d, Region::Gradients, &mine)?;
            if moved.result() != Region::Gradients {
                // What an earlier run left must not pass for a result.
                let room = session.plan().region(moved.result()).1;
                session.write_region(d, moved.result(), &vec![f32::NAN; room])?;
            }
        }
        session.run(VARIANT, &mut Batch::default(), Clock::default())?;
        for d in 0..devices {
            let expected = cut(&whole, &moved.shape, &window(to, d));
            let mut got = session.read_region::<f32>(d, moved.result())?;
            got.truncate(expected.len());
            let role = format!("device {d}, {run}");
            compared.push(Compared { role, difference: worst(&got, &expected), bound: BOUND });
        }
    }
    Ok(compared)
}

/// Returns a device's elements of a whole tensor.
fn cut<T: Copy>(whole: &[T], shape: &Shape, window: &Window) -> Vec<T> {
    let part = Strided::of(window, &Window { start: vec![0; shape.rank()], len: shape.0.clone() });
    (0..part.rows).flat_map(|row| &whole[part.offset + row * part.stride..][..part.len]).copied().collect()
}
