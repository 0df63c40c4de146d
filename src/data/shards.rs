//! Shards of pictures, tar archives as WebDataset has them, whose members are read where they lie.

use super::cifar::Files;
use super::files::{Archive, Catalog, Entry, Index, Kept, ShardSamples, Witness, read_shards};
use super::picture_source::{Listed, picture_source};
use super::{ClassNames, SourceContext};
use crate::error::{Error, Fault, Result, quantity};
use std::path::PathBuf;

picture_source! {
    /// `{ shards = "train-{000..146}.tar", size = 64 }`: tar archives in the form of WebDataset: a picture and its class number are members with
    /// one name, as in `00012.jpg` and `00012.cls`. Members are read where they lie, while training.
    pub struct Shards from shards {
        /// The archives: one name or several, in which braces stand for numbers or words, as in `{000..146}` or `{a,b}`.
        pub shards: Files, example "\"train-{000..146}.tar\"";
    }
}

impl Shards {
    fn names(&self) -> Result<Vec<PathBuf>, Fault> {
        self.shards.expanded("shards")
    }

    fn check_own(&self) -> Result<(), Fault> {
        self.shards.check()?;
        self.names().map(drop)
    }

    fn listed(&self, cx: SourceContext) -> Result<Listed> {
        let names = self.names().map_err(|fault| Error::Usage(fault.message))?;
        let paths = names.iter().map(|name| cx.base.find(name)).collect::<Result<Vec<_>>>()?;
        let classes = self.options().class_names(cx)?;
        let asked = format!("shards {paths:?} {classes:?}");
        self.options().list(&Index::new(&paths[0], &asked), cx.verify, || catalog(&paths, classes.as_ref()))
    }
}

/// Reads the headers of archives.
///
/// # Errors
/// The first archive that is not valid, or has a class without a name.
fn catalog(paths: &[PathBuf], names: Option<&ClassNames>) -> Result<Kept> {
    let witnesses = paths.iter().map(|path| Witness::of(path)).collect::<Result<Vec<_>>>()?;
    let ShardSamples { samples, ignored } = read_shards(paths)?;
    let mut catalog = Catalog::new(paths[0].parent().unwrap_or(&paths[0]));
    (catalog.archives, catalog.ignored, catalog.classes) =
        (paths.iter().map(|path| Archive::new(path)).collect(), ignored, names.cloned());
    for sample in samples {
        if let Some(names) = names.filter(|names| sample.class as usize >= names.len()) {
            let (last, names) = (names.len() - 1, quantity(names.len() as u64, "class"));
            let message =
                format!("\"{}\" has class {}, expected 0 to {last}, as {names} have names", sample.key, sample.class);
            return Err(Error::file(&paths[sample.shard], message));
        }
        catalog.push(Entry {
            name: sample.key.as_bytes(),
            label: sample.class,
            bytes: sample.bytes,
            stamp: sample.offset as i64,
            archive: Some(sample.shard),
        });
    }
    if catalog.num_classes() < 2 {
        return Err(Error::file(&paths[0], "has pictures of one class, expected at least two"));
    }
    Ok(Kept::new(catalog, witnesses))
}
