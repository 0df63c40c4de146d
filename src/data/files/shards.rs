//! The samples of shards, tar archives as WebDataset's: a picture and its class are members with one key, the name up to the
//! first dot, as in `n01440764/00012.jpg` and `n01440764/00012.cls` (<https://github.com/webdataset/webdataset>).

use super::LARGEST_LABEL;
use super::tar::{Member, members_of};
use crate::data::file::quoted;
use crate::error::{Error, Result};
use crate::storage::open_regular;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The longest text of a class, in bytes.
const LONGEST_CLASS: u64 = 32;

/// A picture in a shard, and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSample {
    /// The name of its members up to the first dot, with its folders.
    pub key: String,
    /// The index of its shard.
    pub shard: usize,
    /// The first byte of the picture in the shard.
    pub offset: u64,
    /// The bytes of the picture.
    pub bytes: u64,
    /// The class.
    pub class: u32,
}

/// The samples of shards, in the order of their pictures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardSamples {
    /// The samples.
    pub samples: Vec<ShardSample>,
    /// The number of members that are neither pictures nor their classes.
    pub ignored: usize,
}

/// Reads the headers of shards, and the classes in them.
///
/// # Errors
/// A shard that cannot be read, is damaged or has no pictures; a picture without a class, a class that is not a whole number,
/// and names that occur twice, in one shard or in several.
pub fn read_shards(paths: &[PathBuf]) -> Result<ShardSamples> {
    let mut all = ShardSamples::default();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (index, path) in paths.iter().enumerate() {
        let shard = Shard::open(path)?;
        let found = shard.samples(index)?;
        for sample in &found.samples {
            if let Some(other) = places.insert(sample.key.clone(), index) {
                let (key, other) = (quoted(&sample.key), paths[other].display());
                let message = format!("has a picture {key}, as {other} has; give shards of different pictures");
                return Err(Error::file(path, message));
            }
        }
        all.samples.extend(found.samples);
        all.ignored += found.ignored;
    }
    Ok(all)
}

/// What a member is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Picture,
    Class,
    Other,
}

/// Returns the key of a member's name, and what it is: the name of the file is split at its first dot.
fn key_of(name: &str) -> (&str, Part) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let Some(dot) = name[file..].find('.').filter(|dot| *dot > 0) else { return (name, Part::Other) };
    let (key, suffix) = name.split_at(file + dot);
    let part = match suffix.to_ascii_lowercase().as_str() {
        ".jpg" | ".jpeg" | ".png" => Part::Picture,
        ".cls" => Part::Class,
        _ => Part::Other,
    };
    (key, part)
}

/// A shard that is read.
struct Shard<'a> {
    path: &'a Path,
    file: File,
    len: u64,
}

impl<'a> Shard<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let (file, len) = open_regular(path)?;
        Ok(Shard { path, file, len })
    }

    fn samples(&self, shard: usize) -> Result<ShardSamples> {
        let mut pictures: Vec<Member> = Vec::new();
        let (mut picture_of, mut class_of) = (HashMap::<String, usize>::new(), HashMap::<String, Member>::new());
        let mut ignored = 0;
        members_of(self.path, &self.file, self.len, |member| {
            let (key, part) = key_of(&member.name);
            let earlier = match part {
                Part::Picture => {
                    pictures.push(member.clone());
                    let earlier = picture_of.insert(key.to_string(), pictures.len() - 1);
                    earlier.map(|earlier| pictures[earlier].name.clone())
                }
                Part::Class => class_of.insert(key.to_string(), member.clone()).map(|earlier| earlier.name),
                Part::Other => {
                    ignored += 1;
                    None
                }
            };
            match earlier {
                None => Ok(()),
                Some(earlier) if earlier == member.name => {
                    Err(self.wrong(format!("has two members {}; write the shard again", quoted(&earlier))))
                }
                Some(earlier) => {
                    let (one, other) = (quoted(&earlier), quoted(&member.name));
                    Err(self.wrong(format!("has {one} and {other}, expected one of them for a key; remove the other")))
                }
            }
        })?;
        if pictures.is_empty() {
            return Err(self.wrong("has no pictures (.jpg, .jpeg or .png), expected at least one; correct the path"));
        }
        let without: Vec<&Member> =
            pictures.iter().filter(|picture| !class_of.contains_key(key_of(&picture.name).0)).collect();
        if let Some(first) = without.first() {
            let (picture, key) = (quoted(&first.name), key_of(&first.name).0);
            let class = quoted(&format!("{key}.cls"));
            let message = format!(
                "picture {picture} has no label {class} (so for {} of {} pictures)",
                without.len(),
                pictures.len()
            );
            return Err(self.wrong(format!("{message}; write a number from 0 as its .cls")));
        }
        let mut samples = Vec::with_capacity(pictures.len());
        for picture in pictures {
            let key = key_of(&picture.name).0.to_string();
            let class = self.class(&class_of[&key])?;
            class_of.remove(&key);
            samples.push(ShardSample { key, shard, offset: picture.offset, bytes: picture.bytes, class });
        }
        Ok(ShardSamples { samples, ignored: ignored + class_of.len() })
    }

    /// Reads a class.
    fn class(&self, member: &Member) -> Result<u32> {
        let name = quoted(&member.name);
        let expected = format!("expected a whole number from 0 to {LARGEST_LABEL}");
        if member.bytes > LONGEST_CLASS {
            return Err(self.wrong(format!("{name} has {} bytes, {expected}; correct it", member.bytes)));
        }
        let mut text = vec![0; member.bytes as usize];
        self.file.read_exact_at(&mut text, member.offset).map_err(|error| Error::io(self.path, "read", error))?;
        let digits = text.trim_ascii();
        let class = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let class = class.and_then(|digits| digits.parse().ok()).filter(|class| *class <= LARGEST_LABEL);
        class.ok_or_else(|| {
            let found = quoted(&String::from_utf8_lossy(&text));
            self.wrong(format!("{name} holds {found}, {expected}; correct it"))
        })
    }

    fn wrong(&self, message: impl Into<String>) -> Error {
        Error::file(self.path, message)
    }
}
