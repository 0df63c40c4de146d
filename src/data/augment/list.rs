//! The augmentations of a run, in order.

use super::augmentation::Augmentation;
use super::axes::ColorAxes;
use super::draws::Draws;
use super::{KEYS, read};
use crate::data::one_kind::{OneKind, deserialize};
use crate::device::Random;
use crate::error::{Fault, Result};
use crate::settings::holder;
use serde::de::{Deserialize, Deserializer};
use std::sync::Arc;

holder! {
    /// An augmentation of a list.
    Augment of Augmentation
}

impl Augment {
    /// Returns those of a list that also apply in an evaluation.
    pub fn of_evaluation(list: &[Augment]) -> Vec<Augment> {
        list.iter().filter(|one| one.evaluates()).cloned().collect()
    }

    /// Returns the shapes (H, W, C) of images of a shape before each augmentation of a list, and after the last.
    ///
    /// # Errors
    /// The first augmentation that does not suit its images.
    pub fn shapes(list: &[Augment], stored: [usize; 3]) -> Result<Vec<[usize; 3]>, Fault> {
        let mut shapes = vec![stored];
        for one in list {
            shapes.push(one.output(shapes[shapes.len() - 1])?);
        }
        Ok(shapes)
    }

    /// Appends the values that the augmentations of a list draw for an image, given the random numbers of the image in
    /// training, the first of them that is free, and the colours of the training set.
    pub(in crate::data) fn draw_all(
        list: &[Augment],
        shapes: &[[usize; 3]],
        (random, mut first, colors): (Option<&Random>, u64, ColorAxes),
        to: &mut Vec<f32>,
    ) {
        for (one, &shape) in list.iter().zip(shapes) {
            let start = to.len();
            to.resize(start + one.values_drawn(), 0.0);
            let draws = random.map(|random| Draws::new(*random, first).with_colors(colors));
            one.draw(shape, draws.as_ref(), &mut to[start..]);
            first += one.numbers();
        }
    }
}

impl OneKind for Augment {
    const NOUN: &'static str = "augmentation";
    const EXAMPLE: &'static str = "{ shift = 2 }";
    const KINDS: &'static [&'static str] = KEYS;
    fn read_kind<'de, D: Deserializer<'de>>(kind: &str, settings: D) -> Option<Result<Self, D::Error>> {
        read(kind, settings).map(|read| read.map(|one| Augment(Arc::from(one))))
    }
}

impl<'de> Deserialize<'de> for Augment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}
