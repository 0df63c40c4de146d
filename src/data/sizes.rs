//! The sizes of the memory in which a GPU prepares batches.

use super::mix::Recipe;
use super::{Augment, Mix};

/// What a GPU needs to know of the augmentation and the mixing of a run to have memory for them: numbers of values for each
/// sample of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AugmentSizes {
    /// Of the images as they are stored; of two with `mix`.
    pub stored: usize,
    /// That are drawn.
    pub drawn: usize,
    /// Of the images that one step writes and another one reads, in one or two parts of memory that are used in turn: in
    /// training, and in an evaluation.
    pub between: [usize; 2],
}

impl AugmentSizes {
    /// Returns the sizes of a run for images of a shape that its augmentations suit, and that are whitened or not.
    pub fn of((augment, mix, whitens): (&[Augment], &[Mix], bool), stored: [usize; 3]) -> Self {
        let shapes = Augment::shapes(augment, stored).unwrap_or_else(|_| vec![stored]);
        let evaluated = augment.iter().filter(|one| one.evaluates()).count();
        let drawn: usize = augment.iter().map(|one| one.values_drawn()).sum();
        let (pairs, whitens) = (!mix.is_empty(), usize::from(whitens));
        let (images, largest) = (if pairs { 2 } else { 1 }, largest(&shapes, pairs || whitens > 0));
        // The last augmentation normalises; without any, that is a step of its own.
        let parts = |augmentations: usize, later: usize| (augmentations.max(1) - 1 + later).min(2);
        AugmentSizes {
            stored: images * stored.iter().product::<usize>(),
            drawn: images * (drawn + if pairs { Recipe::VALUES } else { 0 }),
            between: [
                images * largest * parts(augment.len(), usize::from(pairs) + whitens),
                largest * parts(evaluated, whitens),
            ],
        }
    }
}

/// Returns the values of the largest image between two steps of training, given whether steps follow the last augmentation.
pub(super) fn largest(shapes: &[[usize; 3]], later: bool) -> usize {
    let last = shapes.len() - 1;
    let between = if later { &shapes[1.min(last)..] } else { &shapes[1.min(last)..last] };
    between.iter().map(|shape| shape.iter().product()).max().unwrap_or(0)
}
