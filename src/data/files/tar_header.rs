//! The headers of tar archives: blocks of 512 bytes (POSIX.1-2024, pax, "ustar Interchange Format"; GNU tar's manual, "Basic
//! Tar Format").

/// The bytes of a block.
pub(super) const BLOCK: usize = 512;
/// The longest name of a member, in bytes.
pub(super) const LONGEST_NAME: usize = 4096;

/// What a header announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file.
    Regular,
    /// A folder, a link or a device, without contents.
    Empty,
    /// Contents without use, such as the name of a link.
    Ignored,
    /// The name of the next member.
    LongName,
    /// Keys of the next member.
    Pax,
    /// A member whose contents do not lie in one piece, or of unknown kind: its letter.
    Foreign(u8),
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    pub name: Vec<u8>,
    /// The bytes of the contents.
    pub bytes: u64,
}

impl Header {
    /// Reads a block that is not zeros. Fails with what is wrong with it.
    pub fn new(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        let sum = number(&block[148..156]).ok_or("it has no checksum")?;
        // With blanks in place of the checksum. Some old programs added signed bytes.
        let bytes = || block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]).copied();
        let unsigned: u64 = bytes().map(u64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if sum != unsigned && i64::try_from(sum) != Ok(signed) {
            return Err("its checksum is wrong");
        }
        let mut name = text(&block[..100]).to_vec();
        // GNU's own format has other values in place of a prefix.
        let prefix = text(&block[345..500]);
        if block[257..263] == *b"ustar\0" && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let kind = match block[156] {
            0 if name.ends_with(b"/") => Kind::Empty,
            0 | b'0' | b'7' => Kind::Regular,
            b'1'..=b'6' => Kind::Empty,
            b'g' | b'K' | b'V' | b'D' => Kind::Ignored,
            b'L' => Kind::LongName,
            b'x' => Kind::Pax,
            other => Kind::Foreign(other),
        };
        let bytes = number(&block[124..136]).ok_or("its size is not a number")?;
        Ok(Header { kind, name, bytes: if kind == Kind::Empty { 0 } else { bytes } })
    }
}

/// Returns the bytes before the first zero.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Reads a number: octal digits between blanks, or, after a byte 0x80, big-endian bytes (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        return rest.iter().try_fold(0u64, |value, &byte| value.checked_mul(256)?.checked_add(byte.into()));
    }
    let digits = text(field).trim_ascii();
    let octal = |value: u64, &byte: &u8| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    digits.iter().try_fold(0, octal)
}

/// The keys of a PAX header that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PaxKeys {
    pub path: Option<Vec<u8>>,
    pub size: Option<u64>,
}

impl PaxKeys {
    /// Reads the records of a PAX header: `LENGTH KEY=VALUE` and a line feed, each. Fails with what is wrong with them.
    pub fn new(mut records: &[u8]) -> Result<Self, &'static str> {
        const WRONG: &str = "its PAX header is damaged";
        let mut keys = PaxKeys::default();
        while !records.is_empty() {
            let blank = records.iter().position(|byte| *byte == b' ').ok_or(WRONG)?;
            let len = usize::try_from(decimal(&records[..blank]).ok_or(WRONG)?).map_err(|_| WRONG)?;
            if len <= blank || len > records.len() {
                return Err(WRONG);
            }
            let (record, rest) = records.split_at(len);
            let record = record[blank + 1..].strip_suffix(b"\n").ok_or(WRONG)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(WRONG)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => keys.path = Some(value.to_vec()),
                b"size" => keys.size = Some(decimal(value).ok_or(WRONG)?),
                _ if key.starts_with(b"GNU.sparse.") => return Err("it is a sparse file, which is not read"),
                _ => {}
            }
            records = rest;
        }
        Ok(keys)
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_big_endian() {
        assert_eq!(number(b"00000000017\0"), Some(15));
        assert_eq!(number(b"   17 \0"), Some(15));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\x01"), Some((2 << 32) + 1));
        assert_eq!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        for wrong in [&b"18"[..], b"-1", b"1x", b"\xff\xff\xff\xff"] {
            assert_eq!(number(wrong), None);
        }
    }

    #[test]
    fn only_the_posix_format_has_a_prefix() {
        let name = |magic: &[u8; 8]| {
            let mut block = [0; BLOCK];
            block[..5].copy_from_slice(b"a.jpg");
            block[257..265].copy_from_slice(magic);
            // In GNU's format, the time of the last access.
            block[345..356].copy_from_slice(b"14750631234");
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            Header::new(&block).unwrap().name
        };
        assert_eq!(name(b"ustar\x0000"), b"14750631234/a.jpg");
        assert_eq!(name(b"ustar  \0"), b"a.jpg");
        assert_eq!(name(&[0; 8]), b"a.jpg");
    }

    #[test]
    fn pax_records_have_lengths() {
        let keys = PaxKeys::new(b"12 path=a\xffb\n11 size=42\n13 mtime=1=2\n").unwrap();
        assert_eq!(keys, PaxKeys { path: Some(b"a\xffb".to_vec()), size: Some(42) });
        assert_eq!(PaxKeys::new(b""), Ok(PaxKeys::default()));
        for wrong in [
            &b"12 path=ab\n"[..],
            b"11 path=ab",
            b"11 pathxab\n",
            b"0 ",
            b"2 \n",
            b"x path=a\n",
            b"-1 path=a\n",
            b"12 size=+42\n",
            b"99999999999999999999999 a=b\n",
            b" ",
            b"11",
        ] {
            assert!(PaxKeys::new(wrong).is_err(), "{wrong:?}");
        }
    }
}
