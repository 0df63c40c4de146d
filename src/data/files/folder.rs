//! Lists a folder that has a folder for each class.

use super::catalog::{Catalog, Entry, nanoseconds};
use super::kept::{Kept, Witness};
use crate::data::ClassNames;
use crate::error::{Error, Result, quantity, suggest};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The endings of file names of pictures, in lower case.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// Returns true if a file has the name of a picture.
pub(in crate::data) fn is_picture(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&&*ending))
}

/// Returns the visible entries of a folder in the order of their names; links are followed.
///
/// # Errors
/// If the folder or an entry cannot be read.
pub(in crate::data) fn entries(folder: &Path) -> Result<Vec<(OsString, Metadata)>> {
    let failed = |error| Error::io(folder, "read", error);
    let mut names: Vec<OsString> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !name.as_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort_unstable();
    let with_data = |name: OsString| {
        let path = folder.join(&name);
        let data = std::fs::metadata(&path).map_err(|error| match path.is_symlink() {
            true => Error::file(&path, format!("is a link that leads nowhere ({error}); remove or correct it")),
            false => Error::io(&path, "read", error),
        })?;
        Ok((name, data))
    };
    names.into_iter().map(with_data).collect()
}

/// Adds the pictures in a folder and all below it, in the order of their names. Hidden ones, and folders that are links, are left out.
///
/// # Errors
/// If a folder cannot be read.
pub fn picture_files(folder: &Path, to: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |error| Error::io(folder, "read", error);
    let entries = std::fs::read_dir(folder).map_err(failed)?.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    let mut names: Vec<OsString> = entries.into_iter().map(|entry| entry.file_name()).collect();
    names.retain(|name| !name.as_bytes().starts_with(b"."));
    names.sort_unstable();
    for path in names.into_iter().map(|name| folder.join(name)) {
        // Whatever cannot be read as a picture is reported later.
        if !path.is_dir() {
            to.extend(is_picture(&path).then_some(path));
        } else if !path.is_symlink() {
            picture_files(&path, to)?;
        }
    }
    Ok(())
}

/// Lists the pictures of all classes, which are the folders in `folder` unless their names are given. Those given may have no folder here.
///
/// # Errors
/// A folder that is not divided into classes, or has other contents than pictures in classes.
pub(in crate::data) fn list(folder: &Path, given: Option<&ClassNames>) -> Result<Kept> {
    let wrong = |path: &Path, message: String| Err(Error::file(path, message));
    if !folder.is_dir() {
        return wrong(folder, "is a file, expected a folder with a folder for each class".to_string());
    }
    let mut witnesses = vec![Witness::of(folder)?];
    let (mut folders, mut pictures, mut ignored) = (Vec::new(), Vec::new(), 0);
    for (name, data) in entries(folder)? {
        let path = folder.join(&name);
        match data.is_dir() {
            true => match name.into_string() {
                Ok(name) => {
                    witnesses.push(Witness { path, modified: nanoseconds(&data) });
                    folders.push(name);
                }
                Err(_) => {
                    return wrong(&path, "the name of this class is not UTF-8; rename the folder".to_string());
                }
            },
            false if is_picture(&path) => pictures.push(path),
            false => ignored += 1,
        }
    }
    match (folders.is_empty(), pictures.first()) {
        (true, None) => {
            return wrong(folder, "has no pictures, expected a folder for each class with its pictures".to_string());
        }
        (true, Some(_)) => {
            let count = quantity(pictures.len() as u64, "picture");
            let message = format!("has {count} but no folders, expected a folder for each class with its pictures");
            return wrong(folder, message);
        }
        (false, Some(first)) => {
            return wrong(first, "lies beside the folders of the classes; move it into one of them".to_string());
        }
        (false, None) => {}
    }
    let names: ClassNames = given.cloned().unwrap_or_else(|| folders.clone().into());
    if names.len() < 2 {
        let class = names.first().map_or("", |name| name);
        let message =
            format!("has one class, \"{class}\", expected at least two; is this the folder above the classes?");
        return wrong(folder, message);
    }
    let mut catalog = Catalog::new(folder);
    catalog.ignored = ignored;
    let mut files = vec![(0, 0); names.len()];
    let numbers: HashMap<&str, usize> = names.iter().enumerate().map(|(class, name)| (&**name, class)).collect();
    for name in &folders {
        let path = folder.join(name);
        let Some(&class) = numbers.get(&**name) else {
            let near = suggest(name, names.iter().map(|name| &**name));
            let message =
                format!("is not one of the {} classes{near}; remove the folder, or correct its name", names.len());
            return wrong(&path, message);
        };
        files[class] = list_class(&path, name, class as u32, &mut catalog)?;
    }
    if given.is_none()
        && let Some(class) = files.iter().position(|(pictures, _)| *pictures == 0)
    {
        let others = match files[class].1 {
            0 => "is empty".to_string(),
            others => format!("has no pictures among its {}", quantity(others as u64, "file")),
        };
        let message = format!("{others}, expected pictures ({}); add some, or remove the folder", ENDINGS.join(", "));
        return wrong(&folder.join(&names[class]), message);
    }
    if catalog.len() == 0 {
        return wrong(folder, format!("has no pictures ({}) in the folders of its classes", ENDINGS.join(", ")));
    }
    catalog.classes = Some(names);
    Ok(Kept::new(catalog, witnesses))
}

/// Adds the pictures in the folder of a class, and returns how many these are, and how many other files there are.
fn list_class(path: &Path, name: &str, label: u32, catalog: &mut Catalog) -> Result<(usize, usize)> {
    let (mut pictures, mut others) = (0, 0);
    for (file, data) in entries(path)? {
        let whole = path.join(&file);
        if data.is_dir() {
            let message = "is a folder in the folder of a class, expected pictures only; move them up, or give the folder above the classes";
            return Err(Error::file(&whole, message));
        }
        if !is_picture(&whole) {
            others += 1;
            continue;
        }
        let below = PathBuf::from(name).join(&file);
        catalog.push(Entry {
            name: below.as_os_str().as_bytes(),
            label,
            bytes: data.len(),
            stamp: nanoseconds(&data),
            archive: None,
        });
        pictures += 1;
    }
    catalog.ignored += others;
    Ok((pictures, others))
}
