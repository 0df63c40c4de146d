//! The kind of a file, from its first bytes: names and suffixes are often wrong.

/// The kinds of files that are decoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Jpeg,
    Png,
}

const JPEG: &[u8] = b"\xff\xd8\xff";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Other kinds, which are refused by name: the name, and bytes at an offset.
const OTHERS: [(&str, usize, &[u8]); 16] = [
    ("a GIF file", 0, b"GIF8"),
    ("a BMP file", 6, b"\0\0\0\0"),
    ("a WebP file", 8, b"WEBP"),
    ("a TIFF file", 0, b"II*\0"),
    ("a TIFF file", 0, b"MM\0*"),
    ("an AVIF file", 4, b"ftypavif"),
    ("an HEIC file", 4, b"ftyphei"),
    ("an HEIC file", 4, b"ftypmif1"),
    ("a JPEG 2000 file", 4, b"jP  \r\n\x87\n"),
    ("a JPEG XL file", 4, b"JXL \r\n\x87\n"),
    ("a JPEG XL file", 0, b"\xff\x0a"),
    ("a Photoshop file", 0, b"8BPS"),
    ("a PDF file", 0, b"%PDF-"),
    ("a gzip file", 0, b"\x1f\x8b"),
    ("a zip file", 0, b"PK\x03\x04"),
    ("a NumPy file", 0, b"\x93NUMPY"),
];

/// The first bytes of the kinds of which [`OTHERS`] has bytes within.
const BEGINNINGS: [(&str, &[u8]); 2] = [("a BMP file", b"BM"), ("a WebP file", b"RIFF")];

/// Returns the kind of a file, or why it is refused.
pub(super) fn kind(bytes: &[u8]) -> Result<Kind, String> {
    if bytes.starts_with(JPEG) {
        return Ok(Kind::Jpeg);
    }
    if bytes.starts_with(PNG) {
        return Ok(Kind::Png);
    }
    if bytes.is_empty() {
        return Err("is empty (0 bytes), expected a JPEG or PNG file; replace it".into());
    }
    if JPEG.starts_with(bytes) || PNG.starts_with(bytes) {
        return Err(format!("is a truncated file ({} bytes), expected JPEG or PNG; replace it", bytes.len()));
    }
    let begins = |name| BEGINNINGS.iter().all(|(of, first)| *of != name || bytes.starts_with(first));
    let has = |at: usize, part: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(part));
    match OTHERS.iter().find(|(name, at, part)| begins(*name) && has(*at, part)) {
        Some((name, ..)) => Err(format!("is {name}, expected JPEG or PNG; convert it")),
        None => Err(format!("is not a picture: begins with {}, expected JPEG or PNG; replace it", start(bytes))),
    }
}

/// Returns the first bytes as text if they are text, otherwise as a hexadecimal number.
fn start(bytes: &[u8]) -> String {
    let first = &bytes[..bytes.len().min(12)];
    if first.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        format!("{:?}", String::from_utf8_lossy(first))
    } else {
        first[..first.len().min(8)].iter().fold("0x".to_string(), |shown, byte| format!("{shown}{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named() {
        assert_eq!(kind(b"\xff\xd8\xff\xe0"), Ok(Kind::Jpeg));
        assert_eq!(kind(b"\x89PNG\r\n\x1a\n\0\0"), Ok(Kind::Png));
        for (bytes, expected) in [
            (&b"GIF89a"[..], "is a GIF file, expected JPEG or PNG; convert it"),
            (b"BM\x36\x0c\0\0\0\0\0\0\x36", "is a BMP file, expected JPEG or PNG; convert it"),
            (b"RIFF\x24\0\0\0WEBPVP8 ", "is a WebP file, expected JPEG or PNG; convert it"),
            (b"\0\0\0\x1cftypavif", "is an AVIF file, expected JPEG or PNG; convert it"),
            (b"", "is empty (0 bytes), expected a JPEG or PNG file; replace it"),
            (b"\xff\xd8", "is a truncated file (2 bytes), expected JPEG or PNG; replace it"),
            (b"<!DOCTYPE html>", "is not a picture: begins with \"<!DOCTYPE ht\", expected JPEG or PNG; replace it"),
            (b"BMW\n", "is not a picture: begins with 0x424d570a, expected JPEG or PNG; replace it"),
            (
                b"RIFF\x24\0\0\0WAVE",
                "is not a picture: begins with 0x5249464624000000, expected JPEG or PNG; replace it",
            ),
        ] {
            assert_eq!(kind(bytes), Err(expected.to_string()));
        }
    }
}
