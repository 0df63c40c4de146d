//! What all sources of pictures share: their settings, and the stream that reads and decodes one picture after another.

use super::classes::ClassCounts;
use super::files::{Catalog, Index, Kept};
use super::picture_options::{OnBad, PictureOptions};
use super::pictures::{Bitmap, Fit, Lengths, decode};
use super::{ClassNames, Dataset, Description, Header, Labels, PixelType, Sample, Samples, SourceContext, StoredImage};
use crate::error::{Error, Fault, MOST_LISTED, Problem, Result, quantity};
use std::fs::File;
use std::sync::Arc;

/// The end of the reason why a file cannot be decoded.
const LEAVE_OUT: &str = ", or leave such files out with on_bad = \"skip\"";

/// Defines a source of pictures: its settings, which are its own and those of [`PictureOptions`], and the data format, whose key is that of the short
/// form. The source has a method `listed`, which lists its pictures, and `check_own` for its own settings.
macro_rules! picture_source {
    ($(#[doc = $about:literal])* pub struct $Name:ident from $short:ident { $($own:tt)* }) => {
        $crate::settings::settings! {
            $(#[doc = $about])*
            pub struct $Name from $short {
                $($own)*
                /// The size that pictures are resized to, antialiased, when they are read: one number for both, or height and width. Without it,
                /// `augment` must bring them to one size.
                pub size: Option<$crate::data::pictures::Lengths> = None, unit "pixels", example "64";
                /// How pictures of another aspect are brought to `size`: `stretch` scales height and width independently, `cover` cuts off
                /// what is left over, `pad` adds black.
                pub fit: $crate::data::pictures::Fit = $crate::data::pictures::Fit::Stretch, example "\"cover\"";
                /// The filter with which they are resized.
                pub filter: $crate::data::pictures::Filter = $crate::data::pictures::Filter::Bilinear, example "\"bicubic\"";
                /// The channels of an image: 3 for red, green and blue, 1 for grey.
                pub channels: usize = 3, example "1";
                /// A text file with the names of all classes, one a line, by their numbers. By default, the classes of the training set.
                pub classes: Option<std::path::PathBuf> = None, example "\"classes.txt\"";
                /// What happens to files that cannot be decoded: `fail` ends the run with the first of them; `skip` decodes all files once, when
                /// the list of files is made, and leaves them out.
                pub on_bad: $crate::data::picture_options::OnBad = $crate::data::picture_options::OnBad::Fail, example "\"skip\"";
                /// The largest share of files that may be left out.
                pub most_bad: f64 = 0.01, in $crate::settings::PROBABILITY;
            }
        }

        impl $Name {
            fn options(&self) -> $crate::data::picture_options::PictureOptions {
                $crate::data::picture_options::PictureOptions {
                    size: self.size,
                    fit: self.fit,
                    filter: self.filter,
                    channels: self.channels,
                    classes: self.classes.clone(),
                    on_bad: self.on_bad,
                    most_bad: self.most_bad,
                }
            }
        }

        impl $crate::data::DataFormat for $Name {
            fn key(&self) -> &'static str {
                stringify!($short)
            }
            fn check(&self) -> std::result::Result<(), $crate::error::Fault> {
                $crate::settings::Settings::check_ranges(self)?;
                self.check_own()?;
                self.options().check()
            }
            fn is_stream(&self) -> bool {
                true
            }
            fn pictures(&self) -> Option<$crate::data::PictureOptions> {
                Some(self.options())
            }
            fn varies(&self) -> bool {
                self.options().varies()
            }
            fn describe(&self, cx: $crate::data::SourceContext) -> $crate::error::Result<$crate::data::Description> {
                Ok(self.options().describe(&self.listed(cx)?))
            }
            fn load(&self, cx: $crate::data::SourceContext) -> $crate::error::Result<$crate::data::Dataset> {
                self.options().load(self.listed(cx)?)
            }
            fn examples() -> Vec<Self> {
                Vec::new()
            }
        }
    };
}
pub(super) use picture_source;

/// A list of pictures.
#[derive(Debug)]
pub(super) struct Listed {
    pub catalog: Catalog,
    /// A fingerprint of the contents of all files, if these are known.
    pub contents: Option<String>,
    /// What is to be said of its files.
    pub notes: Vec<String>,
}

/// Returns that files have changed since their contents were first read, if so.
fn changed(kept: &Kept) -> Result<Option<Error>> {
    let changed = kept.changed()?;
    let problem = |&file: &usize| {
        Problem {
        location: kept.catalog.path(file).display().to_string(),
        message: "has other contents than when it was first read, with the same size and time; restore it, or remove the index".to_string(),
    }
    };
    Ok((!changed.is_empty()).then(|| Error::Config(changed.iter().map(problem).collect::<Vec<_>>().into())))
}

impl PictureOptions {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first mistake.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.size.map_or(Ok(()), |size| size.check("size"))?;
        if self.fit == Fit::Short {
            let message =
                "fit = \"short\" leaves pictures of different widths; use augment = [{ resize = ... }], or \"cover\"";
            return Err(Fault::at("fit", message));
        }
        if ![1, 3].contains(&self.channels) {
            return Err(Fault::at("channels", format!("channels = {}, expected 1 or 3", self.channels)));
        }
        Ok(())
    }

    /// Returns true if pictures differ in size.
    pub(super) fn varies(&self) -> bool {
        self.size.is_none()
    }

    /// Returns the names of the classes: those of the other set, or of the file of names, if there are any.
    ///
    /// # Errors
    /// If the file cannot be read, or has not a name for each class.
    pub(super) fn class_names(&self, cx: SourceContext) -> Result<Option<ClassNames>> {
        let given = cx.names.map(ClassNames::from);
        let Some(file) = &self.classes else { return Ok(given) };
        let path = cx.base.find(file)?;
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io(&path, "read", error))?;
        let names: Vec<String> =
            text.lines().map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect();
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::file(&path, format!("has the class \"{}\" twice; name each class once", twice[0])));
        }
        if names.len() < 2 {
            return Err(Error::file(&path, "has fewer than two names, expected the name of a class in each line"));
        }
        match given {
            Some(given) if *given != *names => {
                let message = "has other classes than the training set; remove classes from the test set";
                Err(Error::file(&path, message))
            }
            _ => Ok(Some(names.into())),
        }
    }

    /// Returns the pictures of a list that is kept in an index, without those that are left out.
    ///
    /// # Errors
    /// Those of `make`; files that cannot be decoded, as far as that is known, unless they are left out and few; with `verify`, all of these, and
    /// files whose contents have changed.
    pub(super) fn list(&self, index: &Index, verify: bool, make: impl FnOnce() -> Result<Kept>) -> Result<Listed> {
        let mut kept = index.open(make)?;
        let mut notes = std::mem::take(&mut kept.notes);
        if verify && let Some(error) = changed(&kept)? {
            return Err(error);
        }
        if !kept.is_complete() && (verify || self.on_bad == OnBad::Skip) {
            let channels = self.channels;
            kept.complete(&|bytes| decode(bytes, channels, &mut Bitmap::default()))?;
            // That it cannot be written has been said.
            let _ = index.keep(&kept);
        }
        let (bad, all) = (kept.bad(), kept.catalog.len());
        let problem = |(file, reason): &(usize, &str)| Problem {
            location: kept.catalog.path(*file).display().to_string(),
            message: match self.on_bad {
                OnBad::Fail => format!("{reason}{LEAVE_OUT}"),
                OnBad::Skip => reason.to_string(),
            },
        };
        let share = bad.len() as f64 / all.max(1) as f64;
        if self.on_bad == OnBad::Fail && !bad.is_empty() {
            return Err(Error::Config(bad.iter().map(problem).collect::<Vec<_>>().into()));
        }
        if share > self.most_bad || bad.len() == all {
            let location = kept.catalog.folder.display().to_string();
            let (most, bad_files) = (self.most_bad, quantity(bad.len() as u64, "file"));
            let message = format!(
                "{bad_files} of {all} cannot be decoded, more than most_bad = {most}; replace or remove them, or allow more"
            );
            let summary = Problem { location, message };
            return Err(Error::Config([summary].into_iter().chain(bad.iter().map(problem)).collect::<Vec<_>>().into()));
        }
        if kept.catalog.ignored > 0 {
            let (folder, others) = (kept.catalog.folder.display(), quantity(kept.catalog.ignored as u64, "file"));
            notes.push(format!("{folder}: leaves out {others} of other types"));
        }
        if !bad.is_empty() {
            let folder = kept.catalog.folder.display();
            notes.push(format!("{folder}: leaves out {} of {all} files, which cannot be decoded", bad.len()));
            notes.extend(bad.iter().take(MOST_LISTED).map(|bad| format!("left out: {}", problem(bad))));
            let more = bad.len().saturating_sub(MOST_LISTED);
            notes.extend((more > 0).then(|| format!("left out: {more} more files, which check --data lists")));
        }
        let contents = kept.fingerprint();
        Ok(Listed { contents, notes, catalog: if bad.is_empty() { kept.catalog } else { kept.good() } })
    }

    fn shape(&self) -> [usize; 3] {
        let [h, w] = self.size.map_or([1, 1], Lengths::both);
        [h, w, self.channels]
    }

    /// Returns the description of the pictures of a list, which has at least one.
    pub(super) fn describe(&self, Listed { catalog, notes, .. }: &Listed) -> Description {
        let classes = catalog.num_classes();
        let header =
            Header { images: catalog.len(), shape: self.shape(), classes, pixels: PixelType::U8, target_width: 1 };
        let counts = ClassCounts::new(catalog.labels().iter().copied(), classes);
        let classes = Some((catalog.folder.clone(), counts));
        Description { header, classes, names: catalog.classes.clone(), notes: notes.clone() }
    }

    /// Returns the data set of the pictures of a list.
    ///
    /// # Errors
    /// If an archive cannot be opened.
    pub(super) fn load(&self, listed: Listed) -> Result<Dataset> {
        let Listed { catalog, contents, .. } = listed;
        let archives = catalog.open_archives()?;
        let (labels, classes) = (Labels::Index(catalog.labels().to_vec()), catalog.num_classes());
        let (fingerprint, names) = (catalog.fingerprint(), catalog.classes.clone());
        let pictures = Pictures { catalog, archives, options: self.clone() };
        let data = Dataset::stream(Arc::new(pictures), PixelType::U8, labels, self.shape(), classes);
        Ok(Dataset { names, fingerprint: Some(fingerprint), contents, sizing: self.sizing(), ..data })
    }
}

/// The stream of the pictures of a catalog.
#[derive(Debug)]
pub(super) struct Pictures {
    catalog: Catalog,
    archives: Vec<File>,
    options: PictureOptions,
}

impl Samples for Pictures {
    fn len(&self) -> usize {
        self.catalog.len()
    }

    fn read<'s>(&'s self, index: usize, sample: &'s mut Sample) -> Result<StoredImage<'s>> {
        self.catalog.read(index, &self.archives, &mut sample.stored)?;
        let decoded = decode(&sample.stored, self.options.channels, &mut sample.picture);
        decoded.map_err(|reason| Error::file(&self.catalog.path(index), reason + LEAVE_OUT))?;
        Ok(StoredImage::of(&sample.picture))
    }

    fn fetch(&self, index: usize, sample: &mut Sample) -> Result<usize> {
        self.catalog.read(index, &self.archives, &mut sample.stored)?;
        Ok(sample.stored.len())
    }

    fn name(&self, index: usize) -> Option<String> {
        Some(self.catalog.path(index).display().to_string())
    }
}
