//! The cutting and resizing of pictures of any size, while they are read, to the one shape that batches need.

use super::augment::{Augment, Draws, Extent, View};
use super::pictures::Changing;
use crate::device::Random;
use crate::error::{Fault, Result};
use std::sync::Arc;

/// The leading augmentations of a run, which cut and resize pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Frames(Arc<[Augment]>);

/// What is taken of the picture of a sample.
#[derive(Debug, Clone, Copy)]
pub enum Framed<'a> {
    /// What the random numbers of the sample say: training.
    Random(&'a Random),
    /// The middle: evaluations.
    Middle,
    /// One of the ten crops of Krizhevsky et al. (2012): the corners and the middle, and their mirror images.
    OfTen(usize),
}

/// The number of crops of [`Framed::OfTen`].
pub const TEN: usize = 10;

impl Frames {
    /// Returns how many of a list cut and resize pictures while they are read, given whether these differ in size: all up to the last that does
    /// nothing else, and if pictures differ, all until they do not.
    pub fn count(list: &[Augment], varies: bool) -> usize {
        let last = list.iter().rposition(|one| one.framing().is_some_and(|framing| framing.is_only()));
        let mut count = last.map_or(0, |last| last + 1);
        if !varies {
            return count;
        }
        let exact = |count: usize| {
            let extent = list[..count].iter().try_fold(Extent::AtLeast([1; 2]), |extent, one| {
                one.framing().map_or(Ok(extent), |framing| framing.outcome(extent))
            });
            matches!(extent, Ok(Extent::Exact(_)))
        };
        while count < list.len() && !exact(count) && list[count].framing().is_some() {
            count += 1;
        }
        count
    }

    /// Creates the first `count` of a list.
    pub fn new(list: &[Augment], count: usize) -> Self {
        Frames(list[..count].into())
    }

    /// Returns true if pictures stay as they are.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the height and width that all pictures get.
    ///
    /// # Errors
    /// If they differ, or do not suit an entry.
    pub fn size(&self, of: Extent) -> Result<[usize; 2], Fault> {
        let mut extent = of;
        for one in &*self.0 {
            let Some(framing) = one.framing() else {
                let (key, last) = (one.key(), self.0[self.0.len() - 1].key());
                let message = format!("{last} comes after {key}; put it before all augmentations but crop");
                return Err(Fault::at("augment", message));
            };
            extent = framing.outcome(extent)?;
        }
        match extent {
            Extent::Exact(size) => Ok(size),
            Extent::AtLeast(_) => Err(Fault::at(
                "train",
                "these images differ in size, and nothing brings them to one; add size to the source, as in size = 64, or begin augment with \
                 { random_resized_crop = 224 }, or with { resize = 256 } and { crop = 224 }",
            )),
        }
    }

    /// Returns how many random numbers all entries may take for a sample.
    pub fn numbers(&self) -> u64 {
        self.0.iter().map(|one| one.numbers()).sum()
    }

    /// Returns true if an entry cuts out a part, so that there are ten crops.
    pub fn cuts(&self) -> bool {
        self.0.iter().any(|one| one.framing().is_some_and(|framing| framing.cuts()))
    }

    /// Cuts and resizes a picture.
    pub(super) fn apply(&self, picture: &mut Changing, framed: Framed) {
        let mut first = 0;
        for one in &*self.0 {
            let Some(framing) = one.framing() else { continue };
            let draws;
            let view = match framed {
                Framed::Random(random) => {
                    draws = Draws::new(*random, first);
                    View::Random(&draws)
                }
                Framed::OfTen(crop) if crop % 5 < 4 => View::Corner([crop % 5 >= 2, crop % 5 % 2 == 1]),
                Framed::Middle | Framed::OfTen(_) => View::Middle,
            };
            picture.make(framing.changes(picture.size, view));
            first += one.numbers();
        }
        if let Framed::OfTen(5..) = framed {
            picture.mirror();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::augment::Crop;
    use super::super::pictures::PictureMemory;
    use super::*;
    use crate::device::RandomStream;

    #[test]
    fn each_entry_has_random_numbers_of_its_own() {
        let (big, small) = (Crop { size: 6, pad: 0 }, Crop { size: 4, pad: 0 });
        let frames = Frames::new(&[big.into(), small.into()], 2);
        assert_eq!(frames.numbers(), 4);
        let x: Vec<u8> = (0..64).collect();
        let (mut memory, mut differ) = (PictureMemory::default(), 0);
        for sample in 0..50 {
            let random = Random::new(7, RandomStream::Augment, 3, sample);
            let mut picture = Changing::new(&x, [8, 8], 1, &mut memory);
            frames.apply(&mut picture, Framed::Random(&random));
            let drawn = [0, 1, 2, 3].map(|number| random.below(number, 3));
            // The first pixel that is left is in this row and column.
            let [top, left] = [drawn[0] + drawn[2], drawn[1] + drawn[3]];
            assert_eq!(u64::from(picture.pixels()[0]), 8 * top + left);
            differ += u32::from(drawn[..2] != drawn[2..]);
        }
        assert!(differ > 25, "of 50 samples, {differ} have different parts");
    }
}
