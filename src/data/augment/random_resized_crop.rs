//! Random parts of pictures, resized to one size: Szegedy et al., "Going Deeper with Convolutions" (2015), with the rule of
//! torchvision's `RandomResizedCrop`.

use super::frames_only::FramesOnly;
use super::framing::{Extent, Framing, View};
use crate::data::pictures::{
    Changes, Filter, Lengths, NUMBERS_OF_A_PART, PictureChange, corner, middle, random_part, short_side,
};
use crate::error::{Fault, Result};
use crate::settings::{AT_LEAST_ONE, Range, Settings, settings};

const SHARES: Range<[f64; 2]> = Range {
    text: "two shares above 0 and at most 1, the smaller one first",
    contains: |&[least, most]| least > 0.0 && most <= 1.0 && least <= most,
};

const ASPECTS: Range<[f64; 2]> = Range {
    text: "two ratios from 0.01 to 100, the smaller one first",
    contains: |&[least, most]| least >= 0.01 && most <= 100.0 && least <= most,
};

settings! {
    /// `{ random_resized_crop = 224 }`: a random part of a picture, resized, antialiased, before all other augmentations. In evaluations, the
    /// short side is resized to `evaluate`, and the middle is taken.
    pub struct RandomResizedCrop from size {
        /// The height and width that parts are resized to, one number or two.
        pub size: Lengths, unit "pixels", example "224";
        /// The smallest and the largest share of the picture's area.
        pub area: [f64; 2] = [0.08, 1.0], in SHARES;
        /// The smallest and the largest ratio of the part's width to its height; logarithms are uniform between theirs.
        pub aspect: [f64; 2] = [0.75, 4.0 / 3.0], in ASPECTS, default "3/4 to 4/3";
        /// The short side of pictures of an evaluation, of which the middle is taken.
        pub evaluate: Option<usize> = None, in AT_LEAST_ONE, unit "pixels", default "size * 256 / 224, rounded", example "256";
        /// The filter.
        pub filter: Filter = Filter::Bilinear, example "\"bicubic\"";
    }
}

impl RandomResizedCrop {
    /// Returns the short side of pictures of an evaluation.
    fn short(&self) -> usize {
        let [h, w] = self.size.both();
        self.evaluate.unwrap_or((h.max(w) * 256 + 112) / 224)
    }
}

impl Framing for RandomResizedCrop {
    fn outcome(&self, _: Extent) -> Result<Extent, Fault> {
        Ok(Extent::Exact(self.size.both()))
    }
    fn changes(&self, size: [usize; 2], view: View) -> Changes {
        let to = self.size.both();
        if let View::Random(draws) = view {
            let [top, left, h, w] = random_part(size, self.area, self.aspect, |index| draws.uniform(index));
            let cut = PictureChange::Cut { from: [top as isize, left as isize], size: [h, w] };
            return [Some(cut), Some(PictureChange::Resize(to, self.filter))];
        }
        let scaled = short_side(size, self.short());
        let from = match view {
            View::Corner(which) => corner(scaled, to, which),
            _ => middle(scaled, to),
        };
        [Some(PictureChange::Resize(scaled, self.filter)), Some(PictureChange::Cut { from, size: to })]
    }
    fn cuts(&self) -> bool {
        true
    }
    fn is_only(&self) -> bool {
        true
    }
}

impl FramesOnly for RandomResizedCrop {
    const KEY: &'static str = "random_resized_crop";
    const NUMBERS: u64 = NUMBERS_OF_A_PART;

    fn check_settings(&self) -> Result<(), Fault> {
        self.size.check("size")?;
        self.check_ranges()?;
        let [h, w] = self.size.both();
        match self.evaluate {
            Some(short) if short < h.max(w) => {
                let most = h.max(w);
                let message = format!("evaluate = {short} is less than the size, expected at least {most}");
                Err(Fault::at("evaluate", message))
            }
            _ => Ok(()),
        }
    }
}
