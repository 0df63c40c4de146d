//! Pictures and their classes in columns of Parquet files (<https://parquet.apache.org/docs/file-format/>), as the Hugging Face Hub has them:
//! a group `image` with the column `bytes`, a column `label` of numbers, and the names of the classes in the metadata.

use super::LARGEST_LABEL;
use super::caught::caught;
use super::parquet_columns::Columns;
use super::tar::ReadAt;
use crate::data::file::quoted;
use crate::error::{Error, Result, quantity};
use crate::storage::open_regular;
use ::parquet::basic::Compression;
use ::parquet::column::reader::ColumnReader;
use ::parquet::data_type::ByteArray;
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use bytes::Bytes;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The rows that are read at once.
const ROWS: usize = 64;

/// The classes of all rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParquetClasses {
    /// Their numbers.
    Numbers(Vec<u32>),
    /// Their names.
    Texts(Vec<String>),
}

/// A file whose columns of pictures and classes are known.
pub struct ParquetFile {
    path: PathBuf,
    reader: SerializedFileReader<Source>,
    columns: Columns,
}

impl ParquetFile {
    /// Opens a file, given the names of its columns of pictures and of classes unless there is one of each.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or does not have such columns.
    pub fn open(path: &Path, image: Option<&str>, target: Option<&str>) -> Result<Self> {
        let (file, len) = open_regular(path)?;
        Self::new(path, Source { bytes: Arc::new(file), len }, image, target)
    }

    /// Reads a file that lies in memory. The path is for messages.
    ///
    /// # Errors
    /// As [`ParquetFile::open`].
    pub fn of(path: &Path, bytes: Vec<u8>, image: Option<&str>, target: Option<&str>) -> Result<Self> {
        let len = bytes.len() as u64;
        Self::new(path, Source { bytes: Arc::new(bytes), len }, image, target)
    }

    fn new(path: &Path, source: Source, image: Option<&str>, target: Option<&str>) -> Result<Self> {
        let reader = library(path, || SerializedFileReader::new(source))?;
        let columns = Columns::find(reader.metadata(), image, target).map_err(|message| Error::file(path, message))?;
        let file = ParquetFile { path: path.to_path_buf(), reader, columns };
        if file.rows() == 0 {
            return Err(file.wrong("has no rows, expected a picture and its class in each"));
        }
        for group in file.reader.metadata().row_groups() {
            for column in [file.columns.image, file.columns.target] {
                let codec = group.column(column).compression();
                if matches!(codec, Compression::BROTLI(_) | Compression::LZO) {
                    let name = if codec == Compression::LZO { "LZO" } else { "Brotli" };
                    let message =
                        format!("is compressed by {name}, which is not known here; write it with zstd or snappy");
                    return Err(file.wrong(message));
                }
            }
        }
        Ok(file)
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        let rows = self.reader.metadata().row_groups().iter().map(|group| group.num_rows().max(0) as usize);
        rows.fold(0, usize::saturating_add)
    }

    /// Returns the column of pictures.
    pub fn image(&self) -> &str {
        &self.columns.image_name
    }

    /// Returns the names of the classes, if the metadata have them.
    pub fn names(&self) -> Option<&[String]> {
        self.columns.names.as_deref()
    }

    /// Returns about how many bytes the pictures have.
    pub fn picture_bytes(&self) -> u64 {
        let groups = self.reader.metadata().row_groups().iter();
        let bytes = groups.map(|group| group.column(self.columns.image).uncompressed_size().max(0) as u64);
        // A damaged file may claim any number.
        bytes.fold(0, u64::saturating_add)
    }

    /// Reads the classes.
    ///
    /// # Errors
    /// If the file is damaged; the first row without a class, or whose class is not a whole number from 0.
    pub fn classes(&self) -> Result<ParquetClasses> {
        let (mut numbers, mut texts, mut row) = (Vec::new(), Vec::new(), 0);
        let name = quoted(&self.columns.target_name);
        self.each(self.columns.target, &mut |value| {
            row += 1;
            let wrong = |found: &str| Err(self.wrong(format!("row {row}: the class in {name} is {found}")));
            match value {
                None => wrong("missing, expected one in each row; add it, or remove the row"),
                Some(Value::Number(number)) => match u32::try_from(number).ok().filter(|&class| class <= LARGEST_LABEL)
                {
                    Some(class) => {
                        numbers.push(class);
                        Ok(())
                    }
                    None if number == -1 => wrong("-1, as in sets whose classes are not published; give another file"),
                    None => wrong(&format!("{number}, expected a whole number from 0 to {LARGEST_LABEL}; correct it")),
                },
                Some(Value::Bytes(text)) => match std::str::from_utf8(text) {
                    Ok(text) => {
                        texts.push(text.to_string());
                        Ok(())
                    }
                    Err(_) => wrong("not UTF-8 text; correct it"),
                },
            }
        })?;
        Ok(if texts.is_empty() { ParquetClasses::Numbers(numbers) } else { ParquetClasses::Texts(texts) })
    }

    /// Calls `visit` with the bytes of the pictures of all rows.
    ///
    /// # Errors
    /// If the file is damaged; the first row without a picture; and those of `visit`.
    pub fn pictures(&self, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut row = 0;
        self.each(self.columns.image, &mut |value| {
            row += 1;
            match value {
                Some(Value::Bytes(bytes)) => visit(bytes),
                Some(Value::Number(_)) | None => {
                    let image = quoted(&self.columns.image_name);
                    let message = format!(
                        "row {row}: {image} has no bytes, expected an encoded picture in each row; write the file with its \
                         pictures in it, or remove the row"
                    );
                    Err(self.wrong(message))
                }
            }
        })
    }

    /// Calls `visit` with the values of a column of numbers or bytes, in the order of rows; with nothing for a row that has none.
    fn each(&self, column: usize, visit: &mut dyn FnMut(Option<Value>) -> Result<()>) -> Result<()> {
        let description = self.reader.metadata().file_metadata().schema_descr().column(column);
        let whole = description.max_def_level();
        let (mut levels, mut integers, mut longs, mut bytes) = (vec![], Vec::<i32>::new(), Vec::<i64>::new(), vec![]);
        for group in 0..self.reader.num_row_groups() {
            let group = library(&self.path, || self.reader.get_row_group(group))?;
            let mut reader = library(&self.path, || group.get_column_reader(column))?;
            let mut left = group.metadata().num_rows();
            while left > 0 {
                let rows = ROWS.min(left as usize);
                levels.clear();
                let (levels_to, longs_to, bytes_to) = (Some(&mut levels), &mut longs, &mut bytes);
                let (read, _, _) = library(&self.path, || match &mut reader {
                    ColumnReader::Int32ColumnReader(reader) => {
                        integers.clear();
                        let read = reader.read_records(rows, levels_to, None, &mut integers);
                        *longs_to = integers.iter().map(|&value| value.into()).collect();
                        read
                    }
                    ColumnReader::Int64ColumnReader(reader) => {
                        longs_to.clear();
                        reader.read_records(rows, levels_to, None, longs_to)
                    }
                    ColumnReader::ByteArrayColumnReader(reader) => {
                        bytes_to.clear();
                        reader.read_records(rows, levels_to, None, bytes_to)
                    }
                    _ => Err(ParquetError::General("a column of another type than its schema has".to_string())),
                })?;
                if read == 0 {
                    let missing = quantity(left as u64, "row");
                    return Err(
                        self.wrong(format!("its columns have {missing} less than it declares; download it again"))
                    );
                }
                let mut values = longs.iter().map(|&number| Value::Number(number)).chain(bytes.iter().map(bytes_of));
                for row in 0..read {
                    let is_null = levels.get(row).is_some_and(|&level| level != whole);
                    visit(if is_null { None } else { values.next() })?;
                }
                left -= read as i64;
            }
        }
        Ok(())
    }

    fn wrong(&self, message: impl Into<String>) -> Error {
        Error::file(&self.path, message)
    }
}

/// A value of a column.
enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
}

fn bytes_of(bytes: &ByteArray) -> Value<'_> {
    Value::Bytes(bytes.data())
}

/// Returns what the library returns, which may also panic if the file is damaged.
fn library<T>(path: &Path, work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    let reason = match caught(work) {
        Some(Ok(done)) => return Ok(done),
        Some(Err(error)) => error.to_string(),
        None => "its contents contradict themselves".to_string(),
    };
    Err(Error::file(path, format!("cannot be read as Parquet ({reason}); is it such a file, and whole?")))
}

/// The bytes of a file, none of which are read beyond its end, whatever it declares.
#[derive(Clone)]
struct Source {
    bytes: Arc<dyn ReadAt + Send + Sync>,
    len: u64,
}

/// The bytes of a source from a place on.
struct Position {
    source: Source,
    at: u64,
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Source {
    type T = BufReader<Position>;

    fn get_read(&self, at: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::new(Position { source: self.clone(), at }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len) {
            return Err(ParquetError::EOF(format!("ends before byte {start} + {length}")));
        }
        let mut bytes = vec![0; length];
        self.bytes.read_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

impl Read for Position {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let read = (to.len() as u64).min(self.source.len.saturating_sub(self.at)) as usize;
        self.source.bytes.read_at(&mut to[..read], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
