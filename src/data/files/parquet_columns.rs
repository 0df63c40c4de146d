//! The columns of a Parquet file that hold pictures and classes.

use crate::data::file::quoted;
use crate::error::suggest;
use ::parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::schema::types::ColumnDescriptor;

/// The name under which the Hugging Face Hub has the classes, in the absence of another one.
const LABEL: &str = "label";
/// The columns that a message names.
const MOST_NAMED: usize = 10;

/// The columns that are read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// The place of the column of pictures.
    pub image: usize,
    /// Its name.
    pub image_name: String,
    /// The place of the column of classes.
    pub target: usize,
    /// Its name.
    pub target_name: String,
    /// The names of the classes, if the metadata have them.
    pub names: Option<Vec<String>>,
}

/// A column that may be read: its place, and its name in the table.
type Candidate<'a> = (usize, &'a str);

impl Columns {
    /// Finds the columns, given their names unless there is one of each. Fails with a sentence.
    pub fn find(data: &ParquetMetaData, image: Option<&str>, target: Option<&str>) -> Result<Self, String> {
        let schema = data.file_metadata().schema_descr();
        let columns = schema.columns().iter().enumerate().filter(|(_, column)| column.max_rep_level() == 0);
        let (mut images, mut targets): (Vec<Candidate>, Vec<Candidate>) = (vec![], vec![]);
        let mut all: Vec<&str> = schema.root_schema().get_fields().iter().map(|field| field.name()).collect();
        all.dedup();
        for (place, column) in columns {
            match column.path().parts() {
                [name] if is_bytes(column) => images.push((place, name)),
                [name, bytes] if bytes == "bytes" && is_bytes(column) => images.push((place, name)),
                [name] if is_text(column) || is_whole(column) => targets.push((place, name)),
                _ => {}
            }
        }
        let (image, image_name) =
            choose("image", image, &images, None, ("pictures", "bytes, or a group with a column \"bytes\""), &all)?;
        let expected = ("classes", "whole numbers or text");
        let (target, target_name) = choose("target", target, &targets, Some(LABEL), expected, &all)?;
        let metadata = data.file_metadata().key_value_metadata().into_iter().flatten();
        let huggingface = metadata.filter(|pair| pair.key == "huggingface").find_map(|pair| pair.value.as_deref());
        let names = huggingface.and_then(|text| names(text, &target_name));
        Ok(Columns { image, image_name, target, target_name, names })
    }
}

/// Returns the column that is given, or else the usual or the only one.
fn choose(
    key: &str,
    given: Option<&str>,
    candidates: &[Candidate],
    usual: Option<&str>,
    (what, type_of): (&str, &str),
    all: &[&str],
) -> Result<(usize, String), String> {
    let listed = |names: &[&str]| {
        let more = if names.len() > MOST_NAMED { ", ..." } else { "" };
        names.iter().take(MOST_NAMED).map(|name| quoted(name)).collect::<Vec<_>>().join(", ") + more
    };
    let find = |wanted: &str| candidates.iter().find(|(_, name)| *name == wanted);
    let found = match given {
        Some(given) => find(given).ok_or_else(|| match all.contains(&given) {
            true => format!("{key} names {}, which has other values than {type_of}", quoted(given)),
            false => {
                let (near, all) = (suggest(given, all.iter().copied()), listed(all));
                format!("{key} names {}{near}, but the columns are {all}", quoted(given))
            }
        })?,
        None => match (usual.and_then(find), candidates) {
            (Some(usual), _) => usual,
            (None, [only]) => only,
            (None, []) => {
                return Err(format!("has no column of {what} ({type_of}); its columns are {}", listed(all)));
            }
            (None, [(_, first), ..]) => {
                let names: Vec<&str> = candidates.iter().map(|(_, name)| *name).collect();
                return Err(format!(
                    "has several columns of {what}: {}; name one: {key} = {}",
                    listed(&names),
                    quoted(first)
                ));
            }
        },
    };
    Ok((found.0, found.1.to_string()))
}

/// Returns true if a column holds text.
fn is_text(column: &ColumnDescriptor) -> bool {
    let logical = matches!(column.logical_type_ref(), Some(LogicalType::String | LogicalType::Enum));
    let converted = [ConvertedType::UTF8, ConvertedType::ENUM].contains(&column.converted_type());
    column.physical_type() == Physical::BYTE_ARRAY && (logical || converted)
}

/// Returns true if a column holds bytes that are not text.
fn is_bytes(column: &ColumnDescriptor) -> bool {
    let plain = column.logical_type_ref().is_none() && column.converted_type() == ConvertedType::NONE;
    column.physical_type() == Physical::BYTE_ARRAY && plain
}

/// Returns true if a column holds whole numbers.
fn is_whole(column: &ColumnDescriptor) -> bool {
    use ConvertedType::{INT_8, INT_16, INT_32, INT_64, NONE, UINT_8, UINT_16, UINT_32, UINT_64};
    let whole = [NONE, INT_8, INT_16, INT_32, INT_64, UINT_8, UINT_16, UINT_32, UINT_64];
    let other = !matches!(column.logical_type_ref(), None | Some(LogicalType::Integer(_)));
    [Physical::INT32, Physical::INT64].contains(&column.physical_type())
        && whole.contains(&column.converted_type())
        && !other
}

/// Returns the names of the classes of a column in the metadata of the Hugging Face Hub.
fn names(text: &str, column: &str) -> Option<Vec<String>> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    let names = json.get("info")?.get("features")?.get(column)?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(String::from)).collect()
}
