//! The augmentations of a run, in order.

use super::augmentation::{Augmentation, Draws};
use super::{KEYS, read};
use crate::device::Random;
use crate::error::{Fault, Result, suggest};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// An augmentation of a list.
#[derive(Debug, Clone)]
pub struct Augment(pub Arc<dyn Augmentation>);

impl Deref for Augment {
    type Target = dyn Augmentation;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl<A: Augmentation + 'static> From<A> for Augment {
    fn from(one: A) -> Self {
        Augment(Arc::new(one))
    }
}

impl PartialEq for Augment {
    fn eq(&self, other: &Self) -> bool {
        (self.key(), self.values()) == (other.key(), other.values())
    }
}

/// What a GPU needs to know of the augmentations of a run to have memory for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AugmentSizes {
    /// The values of an image as it is stored.
    pub stored: usize,
    /// The values that are drawn for an image.
    pub drawn: usize,
    /// How many images an augmentation writes that another one reads, at most 2, as they are used in turn: in training, and
    /// in an evaluation.
    pub between: [usize; 2],
    /// The values of the largest of these.
    pub largest: usize,
}

impl AugmentSizes {
    /// Returns the sizes if images, of so many features at the end, are whitened after all augmentations.
    pub fn whitened(self, features: usize) -> Self {
        let between = self.between.map(|count| (count + 1).min(2));
        AugmentSizes { between, largest: self.largest.max(features), ..self }
    }
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

    /// Returns the sizes of a list for images of a shape that it suits.
    pub fn sizes(list: &[Augment], stored: [usize; 3]) -> AugmentSizes {
        let shapes = Augment::shapes(list, stored).unwrap_or_else(|_| vec![stored]);
        let values = |shape: &[usize; 3]| shape.iter().product::<usize>();
        let between = |count: usize| count.saturating_sub(1).min(2);
        AugmentSizes {
            stored: values(&stored),
            drawn: list.iter().map(|one| one.values_drawn()).sum(),
            between: [between(list.len()), between(list.iter().filter(|one| one.evaluates()).count())],
            largest: shapes.iter().skip(1).rev().skip(1).map(values).max().unwrap_or(0),
        }
    }

    /// Appends the values that the augmentations of a list draw for an image, given the random numbers of the image in
    /// training.
    pub(in crate::data) fn draw_all(
        list: &[Augment],
        shapes: &[[usize; 3]],
        random: Option<&Random>,
        to: &mut Vec<f32>,
    ) {
        let mut first = 0;
        for (one, &shape) in list.iter().zip(shapes) {
            let start = to.len();
            to.resize(start + one.values_drawn(), 0.0);
            let draws = random.map(|random| Draws::new(*random, first));
            one.draw(shape, draws.as_ref(), &mut to[start..]);
            first += one.numbers();
        }
    }
}

fn unknown<E: Error>(kind: &str) -> E {
    let (near, known) = (suggest(kind, KEYS.iter().copied()), KEYS.join(", "));
    E::custom(format_args!("unknown augmentation \"{kind}\"{near}; expected one of: {known}"))
}

impl<'de> Deserialize<'de> for Augment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OneKind)
    }
}

/// Reads `{ kind = settings }`.
struct OneKind;

impl<'de> Visitor<'de> for OneKind {
    type Value = Augment;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an augmentation with its settings, such as { shift = 2 }")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Augment, A::Error> {
        let kind: String = map.next_key()?.ok_or_else(|| unknown(""))?;
        let read = map.next_value_seed(Of(&kind))?;
        match map.next_key::<String>()? {
            None => Ok(read),
            Some(other) => {
                Err(A::Error::custom(format_args!("\"{other}\" and \"{kind}\" in one entry; make two entries")))
            }
        }
    }
}

/// Reads the settings of a kind.
struct Of<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Of<'_> {
    type Value = Augment;
    fn deserialize<D: Deserializer<'de>>(self, settings: D) -> Result<Augment, D::Error> {
        read(self.0, settings).ok_or_else(|| unknown(self.0))?.map(|one| Augment(Arc::from(one)))
    }
}
