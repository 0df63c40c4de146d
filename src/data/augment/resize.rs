//! Resizing: antialiased, as Pillow does it, while pictures are read.

use super::frames_only::FramesOnly;
use super::framing::{Extent, Framing, View};
use crate::data::pictures::{Changes, Filter, Fit, Lengths, short_side};
use crate::error::{Fault, Result};
use crate::settings::settings;

settings! {
    /// `{ resize = 256 }`: resizes 8-bit images, antialiased, before all other augmentations, in training and in evaluations.
    pub struct Resize from size {
        /// The length of the short side, or height and width.
        pub size: Lengths, unit "pixels", example "256";
        /// How images of another aspect are brought to the size: `short` scales them until their short side has it, `stretch` scales
        /// height and width independently, `cover` cuts off what is left over, `pad` adds black.
        pub fit: Option<Fit> = None, default "`short` for one length, `stretch` for two", example "\"cover\"";
        /// The filter.
        pub filter: Filter = Filter::Bilinear, example "\"bicubic\"";
    }
}

impl Resize {
    fn fit(&self) -> Fit {
        self.fit.unwrap_or(match self.size {
            Lengths::One(_) => Fit::Short,
            Lengths::Two(_) => Fit::Stretch,
        })
    }
}

impl Framing for Resize {
    fn outcome(&self, of: Extent) -> Result<Extent, Fault> {
        let to = self.size.both();
        Ok(match (self.fit(), of) {
            (Fit::Short, Extent::Exact(size)) => Extent::Exact(short_side(size, to[0])),
            (Fit::Short, Extent::AtLeast(_)) => Extent::AtLeast(to),
            _ => Extent::Exact(to),
        })
    }
    fn changes(&self, size: [usize; 2], _: View) -> Changes {
        self.fit().changes(size, self.size.both(), self.filter)
    }
    fn is_only(&self) -> bool {
        true
    }
}

impl FramesOnly for Resize {
    const KEY: &'static str = "resize";
    const NUMBERS: u64 = 0;

    fn check_settings(&self) -> Result<(), Fault> {
        self.size.check("size")?;
        match (self.size, self.fit) {
            (Lengths::Two(_), Some(Fit::Short)) => {
                Err(Fault::at("fit", "fit = \"short\" scales the short side, but size has two lengths; give one"))
            }
            _ => Ok(()),
        }
    }
}
