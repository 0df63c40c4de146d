//! Checks kernels below the layers, whose results are known to the bit: random numbers, copies and sums of strided
//! pieces, casts.

use super::compare::{Compared, Tally, unfit, worst_bits};
use super::device::Device;
use super::layers::Case;
use crate::device::{Queue, Random, RandomStream};
use crate::error::Result;
use crate::gpu::{Driver, DriverKind, Gpus, cast};
use crate::layers::{self, Activation, Role, Setup};
use crate::tensor::{Dim, Element, Mesh, Placement, Strided};
use half::bf16;

/// Number of samples for dropout.
const ROWS: usize = 5;

/// Compares the elements that dropout keeps with the host's counter-based random words, on one device and split over
/// several.
pub(super) fn dropout(device: &Device, tally: &mut Tally) {
    for (rate, [h, w, c]) in [(0.5, [1, 1, 1031]), (0.2, [7, 5, 12]), (0.9, [3, 3, 5])] {
        let settings = toml::Table::from_iter([("rate".to_string(), toml::Value::Float(rate))]);
        let layer = layers::read("dropout", settings).expect("dropout is a layer").expect("the settings are valid");
        let case = Case::new(layer, vec![Activation::new(h, w, c)], ROWS);
        for (data, columns, incoming) in [
            (1, 1, Placement::Replicate),
            (2, 1, Placement::Shard(Dim::BATCH)),
            (2, 2, Placement::Shard(Dim::CHANNELS)),
        ] {
            let mesh = Mesh { data, columns };
            let threads = device.threads;
            let setup = Setup { mesh, incoming, threads, ..case.setup() };
            let name = format!("{} on {mesh} from {incoming:?}", case.name);
            tally.run(&name, || mask(device, &case, &setup, rate));
        }
    }
}

fn mask(device: &Device, case: &Case, setup: &Setup, rate: f64) -> Result<Vec<Compared>> {
    let filled = case.single::<f32>(setup).map_err(|fault| unfit(&fault))?;
    // A single layer runs as layer 0 in step 1 with seed 1.
    let random = Random::new(1, RandomStream::Dropout, 1, 0);
    let threshold = (rate * 4_294_967_296.0).round() as u32;
    let scale = (1.0 / (1.0 - rate)) as f32;
    let masked = |role: Role| -> Vec<f32> {
        let kept = |(i, &x): (usize, &f32)| if random.word(i as u64) >= threshold { x * scale } else { 0.0 };
        filled.values(role).iter().enumerate().map(kept).collect()
    };
    let compared = |(role, got): &(Role, Vec<f32>)| {
        let expected = masked(if *role == Role::Y { Role::X(0) } else { Role::Dy });
        Compared { role: format!("{role:?}"), difference: worst_bits(got, &expected), bound: 0.0 }
    };
    Ok(case.run::<f32>(setup, device.driver.as_ref())?.iter().map(compared).collect())
}

/// Checks copies and sums of pieces of an arena, for several numbers of rows, lengths of a row and numbers of sources.
pub(super) fn strided(device: &Device, kind: DriverKind, tally: &mut Tally) {
    for (rows, len) in [(1, 1), (1, 5000), (7, 3), (13, 129), (61, 64)] {
        for sources in [1, 2, 3] {
            let case = format!("{rows} rows of {len}, {sources} source(s)");
            tally.run(&case, || sum(device, kind, rows, len, sources));
        }
    }
}

fn sum(device: &Device, kind: DriverKind, rows: usize, len: usize, sources: usize) -> Result<Vec<Compared>> {
    // Each piece has a different stride; the target is last.
    let piece = |i: usize| Strided { offset: 3 + i, rows, len, stride: len + 2 * i };
    let room = |i: usize| (piece(i).end() + 5).next_multiple_of(64);
    let first = |i: usize| (0..i).map(room).sum::<usize>();
    let elements = first(sources + 1);
    let random = Random::new(11, RandomStream::Probe, 0, 0);
    let start: Vec<f32> = (0..elements as u64).map(|i| random.normal(i) as f32).collect();
    let gpus: Gpus = device.gpus(kind, elements)?;
    gpus.store(0, 0, &start)?;
    let at = |i: usize| (gpus.address(0, first(i) * size_of::<f32>()), piece(i));
    let terms: Vec<(u64, Strided)> = (0..sources).map(at).collect();
    gpus.sum(0, Queue::Compute, Element::F32, (&terms, None), at(sources))?;
    gpus.synchronize(0, Queue::Compute)?;
    let mut got = vec![0.0; elements];
    gpus.fetch(0, 0, &mut got)?;
    let mut expected = start.clone();
    for (row, column) in (0..rows).flat_map(|row| (0..len).map(move |column| (row, column))) {
        let index = |i: usize| first(i) + piece(i).offset + row * piece(i).stride + column;
        let terms = (1..sources).map(|i| start[index(i)]);
        expected[index(sources)] = terms.fold(start[index(0)], |sum, term| sum + term);
    }
    Ok(vec![Compared { role: "arena".into(), difference: worst_bits(&got, &expected), bound: 0.0 }])
}

/// Casts every bf16 to f32, and casts to bf16 the f32 value of every bf16, the halfway points between two of them, and
/// the neighbours of these.
pub(super) fn casts(driver: &Driver, tally: &mut Tally) {
    let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    // The bits of a NaN depend on the device.
    let plain = |x: f32| if x.is_nan() { f32::NAN } else { x };
    let compared = |got: Vec<f32>, expected: Vec<f32>| {
        let [got, expected] = [got, expected].map(|x| x.into_iter().map(plain).collect::<Vec<f32>>());
        vec![Compared { role: "y".into(), difference: worst_bits(&got, &expected), bound: 0.0 }]
    };
    let widened = cast::to_f32(driver, &all).map(|got| compared(got, all.iter().map(|x| x.to_f32()).collect()));
    tally.add("all 65536 numbers of bf16 to f32", widened);
    for (low, name) in [(0, "themselves"), (0x7fff, "just below halfway"), (0x8000, "halfway"), (0x8001, "just above")]
    {
        let x: Vec<f32> = (0..=u16::MAX).map(|high| f32::from_bits(u32::from(high) << 16 | low)).collect();
        let widths = |x: Vec<bf16>| x.into_iter().map(bf16::to_f32).collect();
        let expected = widths(x.iter().map(|&x| bf16::from_f32(x)).collect());
        let rounded = cast::to_bf16(driver, &x).map(|got| compared(widths(got), expected));
        tally.add(&format!("all 65536 numbers of bf16 to bf16, {name}"), rounded);
    }
}
