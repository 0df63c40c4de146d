//! Pictures in Parquet files, as the Hugging Face Hub has them, which are unpacked once.

use super::cifar::Files;
use super::files::{Archive, Catalog, Entry, Index, Kept, ParquetClasses, ParquetFile, Witness, unpack};
use super::picture_source::{Listed, picture_source};
use super::{ClassNames, SourceContext};
use crate::error::{Error, Fault, Result, quantity, suggest};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

picture_source! {
    /// `{ parquet = "train-{00000..00001}-of-00002.parquet", size = 64 }`: JPEG and PNG pictures in a column of Parquet files, as the Hugging Face Hub
    /// has them. They are unpacked once, into a file beside each or, where that cannot be written, in the user's cache, which needs as much room.
    pub struct Parquet from parquet {
        /// The files: one name or several, in which braces stand for numbers or words, as in `{00000..00001}` or `{a,b}`.
        pub parquet: Files, example "\"train-00000-of-00001.parquet\"";
        /// The column of pictures: bytes, or a group with a column `bytes`.
        pub image: Option<String> = None, default "the only one", example "\"img\"";
        /// The column of classes: whole numbers, or text. Names of numbers that are in the metadata of the file are used.
        pub target: Option<String> = None, default "label, or else the only one", example "\"fine_label\"";
    }
}

impl Parquet {
    fn check_own(&self) -> Result<(), Fault> {
        self.parquet.check()?;
        self.parquet.expanded("parquet").map(drop)
    }

    fn listed(&self, cx: SourceContext) -> Result<Listed> {
        let names = self.parquet.expanded("parquet").map_err(|fault| Error::Usage(fault.message))?;
        let paths = names.iter().map(|name| cx.base.find(name)).collect::<Result<Vec<_>>>()?;
        let classes = self.options().class_names(cx)?;
        let asked = format!("parquet {paths:?} {:?} {:?} {classes:?}", self.image, self.target);
        self.options().list(&Index::new(&paths[0], &asked), cx.verify, || self.catalog(&paths, classes))
    }

    /// Lists the rows of files, and unpacks their pictures.
    ///
    /// # Errors
    /// The first file that is not valid, or has a class without a name; if there is no room.
    fn catalog(&self, paths: &[PathBuf], given: Option<ClassNames>) -> Result<Kept> {
        let mut witnesses = paths.iter().map(|path| Witness::of(path)).collect::<Result<Vec<_>>>()?;
        let open = |path: &PathBuf| ParquetFile::open(path, self.image.as_deref(), self.target.as_deref());
        let files = paths.iter().map(open).collect::<Result<Vec<_>>>()?;
        let mut names = given;
        for (file, path) in files.iter().zip(paths) {
            match (file.names(), &names) {
                (Some(own), Some(names)) if *own != **names => {
                    let message = match own.iter().find(|own| !names.contains(own)) {
                        Some(own) => format!(
                            "has a class \"{own}\", which is not among the classes{}",
                            suggest(own, names.iter().map(|name| &**name))
                        ),
                        None => "has the classes in another order, or fewer".to_string(),
                    };
                    return Err(Error::file(path, message + "; give files of the same classes"));
                }
                (Some(own), None) => names = Some(own.into()),
                _ => {}
            }
        }
        let classes = files.iter().map(ParquetFile::classes).collect::<Result<Vec<_>>>()?;
        if names.is_none() {
            names = named(&classes);
        }
        let mut catalog = Catalog::new(paths[0].parent().unwrap_or(&paths[0]));
        catalog.classes = names.clone();
        let mut notes = Vec::new();
        for (archive, ((file, path), classes)) in files.iter().zip(paths).zip(classes).enumerate() {
            let classes = numbers(classes, names.as_ref(), path)?;
            let unpacked =
                unpack(path, file.image(), (file.rows(), file.picture_bytes()), &|visit| file.pictures(visit))?;
            if unpacked.is_new {
                notes.push(format!("{}: unpacked into {}", path.display(), unpacked.path.display()));
            }
            witnesses.push(Witness::of(&unpacked.path)?);
            let mut offset = 0;
            for (row, (label, &bytes)) in classes.into_iter().zip(&unpacked.lengths).enumerate() {
                let name = format!("row {}", row + 1);
                catalog.push(Entry { name: name.as_bytes(), label, bytes, stamp: offset, archive: Some(archive) });
                offset += bytes as i64;
            }
            catalog.archives.push(Archive { path: path.clone(), unpacked: Some(unpacked.path) });
        }
        if catalog.num_classes() < 2 {
            return Err(Error::file(&paths[0], "has pictures of one class, expected at least two"));
        }
        Ok(Kept { notes, ..Kept::new(catalog, witnesses) })
    }
}

/// Returns the texts in columns of classes, in order, if there are any.
fn named(classes: &[ParquetClasses]) -> Option<ClassNames> {
    let texts = classes.iter().filter_map(|classes| match classes {
        ParquetClasses::Texts(texts) => Some(texts),
        ParquetClasses::Numbers(_) => None,
    });
    let texts: BTreeSet<&String> = texts.flatten().collect();
    (!texts.is_empty()).then(|| texts.into_iter().cloned().collect::<Vec<String>>().into())
}

/// Returns the numbers of classes.
fn numbers(classes: ParquetClasses, names: Option<&ClassNames>, path: &Path) -> Result<Vec<u32>> {
    let count = names.map_or(usize::MAX, |names| names.len());
    let wrong = |row: usize, message: String| Error::file(path, format!("row {}: {message}", row + 1));
    match classes {
        ParquetClasses::Numbers(numbers) => match numbers.iter().position(|&number| number as usize >= count) {
            None => Ok(numbers),
            Some(row) => {
                let names = quantity(count as u64, "class");
                Err(wrong(row, format!("class {}, expected 0 to {}, as {names} have names", numbers[row], count - 1)))
            }
        },
        ParquetClasses::Texts(texts) => {
            let names: &[String] = names.map_or(&[], |names| names);
            let places: HashMap<&str, u32> = names.iter().zip(0..).map(|(name, place)| (&**name, place)).collect();
            let number = |(row, text): (usize, &String)| match places.get(&**text) {
                Some(&number) => Ok(number),
                None => {
                    let near = suggest(text, names.iter().map(|name| &**name));
                    Err(wrong(row, format!("class \"{text}\", which is not among the classes{near}; correct it")))
                }
            };
            texts.iter().enumerate().map(number).collect()
        }
    }
}
