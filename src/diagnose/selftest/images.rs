//! Checks that the batches that the device prepares from raw pixels are bit-identical to the host's.

use super::compare::{Compared, Tally, worst_bits};
use super::device::{Device, Effort};
use crate::data::{
    Arrived, Augment, AugmentSizes, Augmented, Batches, Dataset, Labels, Mix, Normalization, Normalize, SampleOrder,
    Whitening, augment, augment::ColorAxes, mix,
};
use crate::data::{LoadRole, Pixels, Preparation, Preparer, SampleSet, SampleSets};
use crate::device::{Operand, Operands, Queue, Random, RandomStream};
use crate::error::{Error, Result};
use crate::gpu::{Const, DriverKind, Launch};
use crate::tensor::{Element, LocalSlice, Shape};
use half::bf16;
use std::sync::Arc;

/// Number of images in the data set; a batch has one fewer.
const IMAGES: usize = 6;

/// The shapes (H, W, C) of images: one pixel, odd sizes, more than a block of threads, and those of common data sets.
const SHAPES: [[usize; 3]; 5] = [[1, 1, 3], [5, 7, 1], [28, 28, 1], [32, 32, 3], [17, 19, 5]];

/// The most features of images that are also whitened; more would take long on an emulated device.
const MOST_WHITENED: usize = 1000;

/// Returns lists of augmentations that suit images of a shape: none, each of the examples, and all of them, in both orders.
fn lists(shape: [usize; 3]) -> Vec<Vec<Augment>> {
    let examples: Vec<Augment> = augment::all_examples().into_iter().map(|one| Augment(Arc::from(one))).collect();
    let suiting = |all: &mut dyn Iterator<Item = &Augment>| {
        let mut list = Vec::new();
        for one in all {
            list.push(one.clone());
            if Augment::shapes(&list, shape).is_err() {
                list.pop();
            }
        }
        list
    };
    let each = examples.iter().map(|one| suiting(&mut [one].into_iter()));
    let all = [suiting(&mut [].iter()), suiting(&mut examples.iter()), suiting(&mut examples.iter().rev())];
    each.filter(|list| !list.is_empty()).chain(all).collect()
}

/// Returns every kind of mixing that suits images of a shape.
fn mixtures(shape: [usize; 3]) -> Vec<Mix> {
    let all = mix::all_examples().into_iter().map(|one| Mix(Arc::from(one)));
    all.filter(|one| one.suits(shape).is_ok()).collect()
}

/// Prepares batches of 8-bit images, normalised by channel, and of float images, by feature if their shape stays; for training and for
/// evaluation, alone and mixed; small images also mixed and whitened.
pub(super) fn check(device: &Device, kind: DriverKind, effort: Effort, tally: &mut Tally) {
    let shapes = if effort == Effort::Quick { &SHAPES[1..2] } else { &SHAPES[..] };
    for &shape in shapes {
        for list in lists(shape) {
            for (name, floats) in [("8-bit", false), ("float", true)] {
                let same = Augment::shapes(&list, shape).is_ok_and(|shapes| shapes.iter().all(|one| *one == shape));
                let how = if same && floats { Normalize::StandardizeFeatures } else { Normalize::Standardize };
                let last = Augment::shapes(&list, shape).map_or(shape, |shapes| shapes[shapes.len() - 1]);
                let plain = splits(shape, (&list, &[]), floats, how.clone());
                let mixed = splits(shape, (&list, &mixtures(last)), floats, how);
                let whitened = (same && shape.iter().product::<usize>() <= MOST_WHITENED).then(|| whitened(&mixed));
                for splits in [Some(plain), Some(mixed), whitened].into_iter().flatten() {
                    let SampleSet { mix, whitening, .. } = &*splits.train;
                    for (augmented, element) in [
                        (Augmented::Yes, Element::F32),
                        (Augmented::No, Element::F32),
                        (Augmented::Yes, Element::Bf16),
                        (Augmented::No, Element::Bf16),
                    ] {
                        let case = format!(
                            "{name} images of {shape:?}, {list:?}, {mix:?}, whitening: {whitening:?}, augmented: {augmented:?}, to {element:?}"
                        );
                        tally.run(&case, || prepare(device, kind, &splits, augmented, element));
                    }
                }
            }
        }
    }
}

fn splits(shape: [usize; 3], (augment, mix): (&[Augment], &[Mix]), floats: bool, how: Normalize) -> SampleSets {
    let values = (IMAGES * shape.iter().product::<usize>()) as u64;
    let random = Random::new(13, RandomStream::Probe, 0, 0);
    let pixels = match floats {
        false => Pixels::U8((0..values).map(|i| random.word(i) as u8).collect()),
        true => Pixels::F32((0..values).map(|i| random.normal(i) as f32).collect()),
    };
    let data = Dataset::loaded(pixels, Labels::Index(vec![0; IMAGES]), shape, 2);
    let samples: Vec<u32> = (0..IMAGES as u32).collect();
    let normalization = Normalization::new(how, &data, &samples);
    let normalization = Arc::new(normalization.expect("random pixels differ"));
    let (data, augment, mix) = (Arc::new(data), augment.into(), mix.into());
    let (name, target_width, whitening, colors) = ("train", 2, None, ColorAxes::UNIFORM);
    let train =
        Arc::new(SampleSet { name, data, samples, normalization, whitening, augment, colors, mix, target_width });
    let order = SampleOrder::Shuffle;
    SampleSets { train, validation: None, test: None, batch: IMAGES - 1, order, seed: 17, notes: Vec::new() }
}

/// Returns the same sets with a whitening by random numbers.
fn whitened(sets: &SampleSets) -> SampleSets {
    let n = sets.train.data.features() as u64;
    let random = Random::new(19, RandomStream::Probe, 0, 0);
    let draws = |numbers: std::ops::Range<u64>| numbers.map(|i| random.normal(i) as f32).collect::<Vec<f32>>();
    let whitening = Some(Arc::new(Whitening::new(draws(0..n), &draws(n..n + n * n))));
    SampleSets { train: Arc::new(SampleSet { whitening, ..(*sets.train).clone() }), ..sets.clone() }
}

fn prepare(
    device: &Device,
    kind: DriverKind,
    splits: &SampleSets,
    augmented: Augmented,
    element: Element,
) -> Result<Vec<Compared>> {
    let batches = |preparer| {
        let all = match augmented {
            Augmented::Yes => Batches::train(splits),
            Augmented::No => Batches::eval(&splits.train, splits.batch),
        };
        let mut all = all.prepared_by(preparer);
        let mut batch = all.empty();
        all.fill(3, 0, &mut batch).expect("images in memory can be read");
        batch
    };
    let (expected, batch) = (batches(Preparer::Host), batches(Preparer::Device));
    let raw = batch.raw.expect("the device prepares this batch");
    let list = &splits.train.augment;
    let shapes = Augment::shapes(list, splits.shape()).map_err(|fault| Error::Run(fault.message))?;
    // What changes the shape applies in evaluations, too.
    let [h, w, c] = shapes[shapes.len() - 1];
    let shape = Shape::from([batch.rows, h, w, c]);
    let (elements, preparation) = (shape.elements(), Preparation::of(splits));
    // The images, then the memory for images between two steps, which is aligned like every buffer.
    let set = &splits.train;
    let sizes = AugmentSizes::of((list, &set.mix, set.whitening.is_some()), splits.shape());
    let [training, evaluation] = sizes.between;
    let between = if augmented == Augmented::Yes { training } else { evaluation };
    let (second, parts) = (elements.next_multiple_of(64), batch.rows * between);
    let mut gpus = device.gpus(kind, second + parts.max(1))?;
    gpus.store(0, 0, &vec![f32::NAN; second + parts.max(1)])?;
    let pixels = gpus.upload(0, raw.pixels.bytes())?;
    let draws = Const::at(gpus.upload(0, &raw.draws)?);
    let table = Const::at(gpus.upload(0, &preparation.table())?);
    let window = LocalSlice { start: vec![0; 4], len: shape.0.clone() };
    let images = Operand::at(gpus.address(0, 0), element, shape.clone(), window);
    let operands: Operands<LoadRole> = [(LoadRole::Batch, images)].into_iter().collect();
    let window = LocalSlice { start: vec![0], len: vec![parts] };
    let scratch = gpus.address(0, second * size_of::<f32>());
    let operands = operands.with_scratch(Some(Operand::at(scratch, Element::F32, [parts].into(), window)));
    let launch = Launch {
        issue: gpus.issue(0, Queue::Compute),
        operands: &operands,
        clock: 0,
        seed: 0,
        layer: 0,
        divisor: batch.rows,
        loss_weight: 1.0,
        tf32: false,
        epilogue: None,
    };
    preparation.launch(augmented, &Arrived { pixels, draws, table }, &launch)?;
    gpus.synchronize(0, Queue::Compute)?;
    let mut words = vec![0.0f32; (elements * element.bytes()).div_ceil(size_of::<f32>())];
    gpus.fetch(0, 0, &mut words)?;
    let (got, expected): (Vec<f32>, Vec<f32>) = match element {
        Element::Bf16 => {
            let pairs = words.iter().map(|word| word.to_bits()).flat_map(|bits| [bits as u16, (bits >> 16) as u16]);
            let rounded = expected.images.iter().map(|&x| bf16::from_f32(x).to_f32());
            (pairs.map(|bits| bf16::from_bits(bits).to_f32()).take(elements).collect(), rounded.collect())
        }
        Element::Real(_) => (words, expected.images),
    };
    Ok(vec![Compared { role: "images".into(), difference: worst_bits(&got, &expected), bound: 0.0 }])
}
