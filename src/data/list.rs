//! Lists of pictures, as Caffe has them: a path and a class number in each line.

use super::files::{Catalog, Entry, FileList, Index, Kept, Witness, nanoseconds, read_list};
use super::picture_source::{Listed, picture_source};
use super::{ClassNames, SourceContext};
use crate::error::{Error, Fault, Problem, Result, quantity};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

picture_source! {
    /// `{ list = "train.txt", root = "images", size = 64 }`: JPEG and PNG files that a text file lists, with a path and a class number in each
    /// line, which are read while training.
    pub struct List from list {
        /// The text file; lines that begin with # are skipped.
        pub list: PathBuf, example "\"train.txt\"";
        /// The folder that its paths are relative to.
        pub root: Option<PathBuf> = None, default "the folder of the list", example "\"images\"";
    }
}

impl List {
    fn check_own(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn listed(&self, cx: SourceContext) -> Result<Listed> {
        let list = cx.base.find(&self.list)?;
        let root = match &self.root {
            Some(root) => cx.base.find(root)?,
            None => list.parent().unwrap_or(Path::new("")).to_path_buf(),
        };
        let names = self.options().class_names(cx)?;
        let asked = format!("list {} {names:?}", root.display());
        self.options().list(&Index::new(&list, &asked), cx.verify, || catalog(&list, &root, names.as_ref()))
    }
}

/// Looks up the files of a list.
///
/// # Errors
/// Every line whose file does not exist or whose class has no name.
fn catalog(list: &Path, root: &Path, names: Option<&ClassNames>) -> Result<Kept> {
    let witness = Witness::of(list)?;
    let FileList { paths, labels, lines } = read_list(list)?;
    let mut catalog = Catalog::new(root);
    catalog.classes = names.cloned();
    let mut problems = Vec::new();
    for ((path, &label), line) in paths.iter().zip(&labels).zip(lines) {
        let mut problem = |message: String| {
            problems.push(Problem { location: format!("{}:{line}", list.display()), message });
        };
        if let Some(names) = names.filter(|names| label as usize >= names.len()) {
            let last = names.len() - 1;
            problem(format!(
                "class {label}, expected 0 to {last}, as {} have names",
                quantity(names.len() as u64, "class")
            ));
            continue;
        }
        match std::fs::metadata(root.join(path)) {
            Ok(data) if data.is_file() => catalog.push(Entry {
                name: Path::new(path).as_os_str().as_bytes(),
                label,
                bytes: data.len(),
                stamp: nanoseconds(&data),
                archive: None,
            }),
            Ok(_) => {
                problem(format!("{} is not a file, expected a picture; correct the path", root.join(path).display()))
            }
            Err(error) => {
                problem(format!("{}: cannot read: {error}; correct the path, or root", root.join(path).display()))
            }
        }
    }
    if !problems.is_empty() {
        return Err(Error::Config(problems.into()));
    }
    if catalog.num_classes() < 2 {
        return Err(Error::file(list, "has pictures of one class, expected at least two"));
    }
    Ok(Kept::new(catalog, vec![witness]))
}
