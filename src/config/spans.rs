//! Parsed TOML with its byte offsets, and the map from offsets to `file:line:column`.

use crate::error::Locations;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeString, DeValue};

/// A value with its span in the file.
pub(super) type SpannedValue<'i> = Spanned<DeValue<'i>>;

/// The bytes between two counts of characters.
const BLOCK: usize = 64;

/// Maps offsets to locations: offsets inside the file to lines and columns, offsets after its end to a `--set`.
#[derive(Debug, Clone)]
pub(super) struct SourceMap {
    name: String,
    text: String,
    lines: Vec<usize>,
    /// The number of characters that start before each block of bytes.
    blocks: Vec<usize>,
    sets: Vec<(usize, String)>,
    end: usize,
}

impl SourceMap {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        let mut before = 0;
        let count = |block: &[u8]| {
            before += characters(block);
            before
        };
        let blocks = std::iter::once(0).chain(text.as_bytes().chunks(BLOCK).map(count)).collect();
        let end = text.len() + 1;
        SourceMap { name: name.to_string(), text: text.to_string(), lines, blocks, sets: Vec::new(), end }
    }

    /// Reserves offsets for the value of a `--set` and returns the first one.
    pub(super) fn add_set(&mut self, key: &str, len: usize) -> usize {
        let start = self.end;
        self.sets.push((start, key.to_string()));
        self.end += len + 1;
        start
    }

    /// Returns true if an offset belongs to a `--set`.
    pub(super) fn is_set(&self, offset: usize) -> bool {
        self.sets.first().is_some_and(|(start, _)| offset >= *start)
    }

    /// Returns `file:line:column` or `--set KEY`.
    pub(super) fn at(&self, offset: usize) -> String {
        if let Some((_, key)) = self.sets.iter().rfind(|(start, _)| offset >= *start) {
            return format!("--set {key}");
        }
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.lines.partition_point(|&start| start <= offset);
        let column = self.characters_before(offset) - self.characters_before(self.lines[line - 1]) + 1;
        format!("{}:{line}:{column}", self.name)
    }

    /// Returns the number of characters before an offset. A file may have a single line, so this does not read all of it.
    fn characters_before(&self, offset: usize) -> usize {
        let block = offset / BLOCK;
        self.blocks[block] + characters(&self.text.as_bytes()[block * BLOCK..offset])
    }

    /// Returns the name of the file.
    pub(super) fn file(&self) -> &str {
        &self.name
    }

    /// Returns the locations of a table and of the value of each of its keys.
    pub(super) fn locations(&self, value: &SpannedValue) -> Locations {
        let mut locations = Locations { whole: self.at(value.span().start), keys: Vec::new() };
        if let DeValue::Table(table) = value.get_ref() {
            locations.keys = table.iter().map(|(k, v)| (k.get_ref().to_string(), self.at(v.span().start))).collect();
        }
        locations
    }
}

/// Returns the number of characters that start in these bytes of UTF-8.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}

/// Creates a key with a span.
pub(super) fn key(name: &str, span: Range<usize>) -> Spanned<DeString<'static>> {
    Spanned::new(span, DeString::Owned(name.to_string()))
}
