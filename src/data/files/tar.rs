//! The members of tar archives: their names, and where their contents lie. Only headers are read.

use super::tar_header::{BLOCK, Header, Kind, LONGEST_NAME, PaxKeys, text};
use crate::data::file::quoted;
use crate::error::{Error, Result};
use crate::storage::open_regular;
use std::fs::File;
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The longest PAX header of a member, in bytes.
const LONGEST_PAX: u64 = 64 << 10;

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, with its folders.
    pub name: String,
    /// The first byte of its contents in the archive.
    pub offset: u64,
    /// The bytes of its contents.
    pub bytes: u64,
}

/// Bytes that are read where they lie.
pub trait ReadAt {
    /// Reads all of `to`, from a byte on.
    ///
    /// # Errors
    /// If there are fewer bytes, or they cannot be read.
    fn read_at(&self, to: &mut [u8], offset: u64) -> std::io::Result<()>;
}

impl ReadAt for File {
    fn read_at(&self, to: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.read_exact_at(to, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, to: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.as_slice().read_at(to, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, to: &mut [u8], offset: u64) -> std::io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)?.get(..to.len()));
        from.map(|from| to.copy_from_slice(from)).ok_or_else(|| IoError::from(ErrorKind::UnexpectedEof))
    }
}

/// Calls `visit` with the files in an archive, in order. Folders and links are skipped.
///
/// # Errors
/// If the archive cannot be read, is damaged or ends inside a member; and those of `visit`.
pub fn members(path: &Path, visit: impl FnMut(Member) -> Result<()>) -> Result<()> {
    let (file, len) = open_regular(path)?;
    members_of(path, &file, len, visit)
}

/// Calls `visit` with the files in an archive of `len` bytes. The path is for messages.
///
/// # Errors
/// As [`members`].
pub fn members_of<R: ReadAt + ?Sized>(
    path: &Path,
    archive: &R,
    len: u64,
    mut visit: impl FnMut(Member) -> Result<()>,
) -> Result<()> {
    let reader = Archive { path, archive, len };
    if len == 0 {
        return Err(reader.wrong("is empty, expected a tar archive; write it again"));
    }
    let (mut at, mut long_name, mut pax) = (0, None, PaxKeys::default());
    while let Some(header) = reader.header(at)? {
        let damaged = |what: &str| reader.damaged(at, what);
        let bytes = match header.kind {
            Kind::Regular => pax.size.unwrap_or(header.bytes),
            _ => header.bytes,
        };
        let member = |name: Vec<u8>| String::from_utf8(name).map_err(|_| damaged("its name is not UTF-8"));
        let shown = String::from_utf8_lossy(long_name.as_deref().unwrap_or(&header.name)).into_owned();
        let (start, next) = reader.contents(at, &shown, bytes)?;
        match header.kind {
            Kind::Ignored => {}
            Kind::LongName => long_name = Some(reader.long_name(at, start, bytes)?),
            Kind::Pax if bytes > LONGEST_PAX => {
                return Err(damaged(&format!("its PAX header has {bytes} bytes, expected at most {LONGEST_PAX}")));
            }
            Kind::Pax => pax = PaxKeys::new(&reader.read(start, bytes)?).map_err(damaged)?,
            Kind::Foreign(letter) => {
                let letter = char::from(letter).escape_default();
                return Err(damaged(&format!("it has type '{letter}', expected a file, a folder or a link")));
            }
            Kind::Regular | Kind::Empty => {
                let name = pax.path.take().or(long_name.take()).unwrap_or(header.name);
                (long_name, pax) = (None, PaxKeys::default());
                if header.kind == Kind::Regular && !name.ends_with(b"/") {
                    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(&0) {
                        let expected = format!("expected 1 to {LONGEST_NAME}, none of them zero");
                        return Err(damaged(&format!("its name has {} bytes, {expected}", name.len())));
                    }
                    visit(Member { name: member(name)?, offset: start, bytes })?;
                }
            }
        }
        at = next;
    }
    match long_name.is_some() || pax != PaxKeys::default() {
        true => Err(reader.wrong("ends after the name of a member; the file is truncated, download it again")),
        false => Ok(()),
    }
}

/// An archive that is read.
struct Archive<'a, R: ?Sized> {
    path: &'a Path,
    archive: &'a R,
    len: u64,
}

impl<R: ReadAt + ?Sized> Archive<'_, R> {
    /// Reads the header at a byte; `None` at the end of the archive.
    fn header(&self, at: u64) -> Result<Option<Header>> {
        let Some(block) = self.block(at)? else { return Ok(None) };
        if block == [0; BLOCK] {
            // Two blocks of zeros are the end, or one, if nothing follows.
            return match self.block(at + BLOCK as u64)? {
                Some(next) if next != [0; BLOCK] => {
                    Err(self.damaged(at + BLOCK as u64, "a block of zeros stands before it"))
                }
                _ => Ok(None),
            };
        }
        let packed =
            [(&b"\x1f\x8b"[..], "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];
        match Header::new(&block) {
            Ok(header) => Ok(Some(header)),
            Err(_) if at == 0 => match packed.iter().find(|(magic, _)| block.starts_with(magic)) {
                Some((_, program)) => {
                    let message = "but pictures are read where they lie; unpack the archive";
                    Err(self.wrong(format!("is compressed with {program}, {message}")))
                }
                None => Err(self.wrong("is not a tar archive: it does not begin with a header; correct the path")),
            },
            Err(what) => Err(self.damaged(at, what)),
        }
    }

    /// Reads a block; `None` at the end of the file.
    fn block(&self, at: u64) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        match self.len.saturating_sub(at) {
            0 => return Ok(None),
            left if left < BLOCK as u64 => {
                let found = format!("ends inside the header at byte {at}: the file has {} bytes", self.len);
                return Err(self.wrong(format!("{found}; it is truncated, download it again")));
            }
            _ => self.fill(&mut block, at)?,
        }
        Ok(Some(block))
    }

    /// Returns the first byte of the contents that follow the header at a byte, and the next header.
    fn contents(&self, at: u64, name: &str, bytes: u64) -> Result<(u64, u64)> {
        let start = at + BLOCK as u64;
        let ends = start.checked_add(bytes).map(|end| (end, end.checked_next_multiple_of(BLOCK as u64)));
        match ends {
            Some((_, Some(next))) if next <= self.len => Ok((start, next)),
            _ => {
                let (name, len) = (quoted(name), self.len);
                let end = ends.map_or_else(
                    || "beyond any file".to_string(),
                    |(end, next)| match end <= len {
                        true => next.unwrap_or(end).to_string(),
                        false => end.to_string(),
                    },
                );
                let found = format!("ends inside member {name} (bytes {start} to {end}, but the file has {len})");
                Err(self.wrong(format!("{found}; it is truncated or damaged, download it again")))
            }
        }
    }

    fn long_name(&self, at: u64, start: u64, bytes: u64) -> Result<Vec<u8>> {
        if bytes > LONGEST_NAME as u64 + 1 {
            let message = format!("its name has {bytes} bytes, expected at most {LONGEST_NAME}");
            return Err(self.damaged(at, &message));
        }
        Ok(text(&self.read(start, bytes)?).to_vec())
    }

    /// Reads contents whose number was bounded.
    fn read(&self, start: u64, bytes: u64) -> Result<Vec<u8>> {
        let mut contents = vec![0; bytes as usize];
        self.fill(&mut contents, start)?;
        Ok(contents)
    }

    fn fill(&self, to: &mut [u8], at: u64) -> Result<()> {
        self.archive.read_at(to, at).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.wrong("was cut while it was in use; restore it"),
            _ => Error::io(self.path, "read", error),
        })
    }

    fn wrong(&self, message: impl Into<String>) -> Error {
        Error::file(self.path, message)
    }

    fn damaged(&self, at: u64, what: &str) -> Error {
        self.wrong(format!("the member at byte {at} cannot be read: {what}; write the archive again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads an archive of the fuzz corpus; Python's tarfile wrote them.
    fn stored(name: &str) -> Vec<u8> {
        std::fs::read(Path::new("fuzz/corpus/tar").join(name)).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, u64, u64)>, String> {
        let mut found = Vec::new();
        let add = |Member { name, offset, bytes }| {
            found.push((name, offset, bytes));
            Ok(())
        };
        let read = members_of(Path::new("a.tar"), bytes, bytes.len() as u64, add);
        read.map(|()| found).map_err(|error| error.to_string())
    }

    /// Corrects the checksum of the header at a byte.
    fn signed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
        bytes[at + 148..at + 156].fill(b' ');
        let sum: u32 = bytes[at..at + BLOCK].iter().map(|byte| u32::from(*byte)).sum();
        bytes[at + 148..at + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes
    }

    #[test]
    fn members_lie_where_python_finds_them() {
        let long = format!("{}/{}/00012.jpg", "f".repeat(60), "g".repeat(60));
        let (h, e) = (format!("{}.jpg", "h".repeat(200)), format!("{}.png", "\u{e9}".repeat(70)));
        let samples = [
            ("0001.jpg", 512, 10),
            ("0001.cls", 1536, 3),
            ("0001.json", 2560, 2),
            ("d/0002.PNG", 3584, 3),
            ("d/0002.cls", 4608, 8),
        ];
        for (name, expected) in [
            ("ustar", &[("n01/a.jpg", 1024, 700), ("n01/a.cls", 2560, 2), (&*long, 4096, 2)][..]),
            ("gnu", &[("a.jpg", 512, 0), (&*h, 2048, 512), ("b.cls", 4608, 2)]),
            ("pax", &[("a.jpg", 512, 1), (&*e, 2560, 2), ("c.cls", 3584, 1)]),
            ("samples", &samples),
            ("base256", &samples),
        ] {
            let expected = expected.iter().map(|&(name, at, bytes)| (name.to_string(), at, bytes)).collect::<Vec<_>>();
            assert_eq!(read(&stored(name)).unwrap(), expected, "{name}");
        }
        // The blocks of zeros may be missing, or followed by padding.
        let bytes = stored("samples");
        for zeros in [0, 512, 1024, 10240] {
            assert_eq!(read(&[&bytes[..], &vec![0; zeros]].concat()).unwrap().len(), 5);
        }
    }

    #[test]
    fn an_archive_is_cut_only_between_members() {
        for name in ["ustar", "gnu", "pax", "samples", "base256"] {
            let (bytes, all) = (stored(name), read(&stored(name)).unwrap());
            for len in 0..bytes.len() {
                match read(&bytes[..len]) {
                    Ok(found) => assert!(len % BLOCK == 0 && all.starts_with(&found), "{name} {len}"),
                    Err(error) => assert!(error.starts_with("a.tar: ") && !error.contains('\n'), "{error}"),
                }
            }
        }
        let cut = |len: usize| read(&stored("ustar")[..len]).unwrap_err();
        let after = "it is truncated or damaged, download it again";
        assert_eq!(
            cut(1324),
            format!("a.tar: ends inside member \"n01/a.jpg\" (bytes 1024 to 1724, but the file has 1324); {after}")
        );
        assert_eq!(
            cut(1800),
            format!("a.tar: ends inside member \"n01/a.jpg\" (bytes 1024 to 2048, but the file has 1800); {after}")
        );
        assert_eq!(
            cut(600),
            "a.tar: ends inside the header at byte 512: the file has 600 bytes; it is truncated, download it again"
        );
        assert_eq!(cut(0), "a.tar: is empty, expected a tar archive; write it again");
        let name = read(&stored("gnu")[..1536]).unwrap_err();
        assert_eq!(name, "a.tar: ends after the name of a member; the file is truncated, download it again");
    }

    #[test]
    fn damaged_archives_are_refused_in_one_sentence() {
        let samples = stored("samples");
        let changed = |at: usize, to: &[u8]| {
            let mut bytes = samples.clone();
            bytes[at..at + to.len()].copy_from_slice(to);
            bytes
        };
        let header = |at: usize, to: &[u8]| signed(changed(at, to), at / 1024 * 1024);
        let damaged =
            |what: &str| format!("a.tar: the member at byte 1024 cannot be read: {what}; write the archive again");
        for (bytes, message) in [
            (changed(1024, b"x"), damaged("its checksum is wrong")),
            (changed(1024 + 148, b"zz"), damaged("it has no checksum")),
            (header(1024 + 124, b"9"), damaged("its size is not a number")),
            (header(1024 + 156, b"S"), damaged("it has type 'S', expected a file, a folder or a link")),
            (header(1024, b"\xff"), damaged("its name is not UTF-8")),
            (header(1024, b"\0"), damaged("its name has 0 bytes, expected 1 to 4096, none of them zero")),
            (header(1024 + 156, b"x"), damaged("its PAX header is damaged")),
            (
                signed(changed(1024 + 124, b"00000400000\0"), 1024),
                "a.tar: ends inside member \"0001.cls\" (bytes 1536 to 132608, but the file has 5120); it is truncated or \
                 damaged, download it again"
                    .to_string(),
            ),
            (
                header(1024 + 124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
                "a.tar: ends inside member \"0001.cls\" (bytes 1536 to beyond any file, but the file has 5120); it is \
                 truncated or damaged, download it again"
                    .to_string(),
            ),
            (changed(1024, &[0; BLOCK]), "a.tar: the member at byte 1536 cannot be read: a block of zeros stands before it; write the archive again".to_string()),
            (b"\x1f\x8b\x08".repeat(300), "a.tar: is compressed with gzip, but pictures are read where they lie; unpack the archive".to_string()),
            (b"path,label\n".repeat(300), "a.tar: is not a tar archive: it does not begin with a header; correct the path".to_string()),
        ] {
            assert_eq!(read(&bytes).unwrap_err(), message);
        }
        for (kind, most) in [
            (b"L", "its name has 5000 bytes, expected at most 4096"),
            (b"x", "its PAX header has 70000 bytes, expected at most 65536"),
        ] {
            let size: usize = most.split(' ').find_map(|word| word.parse().ok()).unwrap();
            let bytes = signed(
                [&changed(1024 + 124, format!("{size:011o}\0").as_bytes())[..], &vec![b'a'; 1 << 17]].concat(),
                1024,
            );
            let bytes = signed(
                {
                    let mut bytes = bytes;
                    bytes[1024 + 156] = kind[0];
                    bytes
                },
                1024,
            );
            assert_eq!(read(&bytes).unwrap_err(), damaged(most));
        }
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(
            name in prop_oneof![Just("ustar"), Just("gnu"), Just("pax"), Just("base256")],
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            header in any::<prop::sample::Index>(),
        ) {
            let mut bytes = stored(name);
            for (at, to) in changes {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            let at = header.index(bytes.len() / BLOCK) * BLOCK;
            let _ = read(&bytes);
            if let Ok(found) = read(&signed(bytes.clone(), at)) {
                prop_assert!(found.iter().all(|(_, at, size)| at + size <= bytes.len() as u64));
            }
        }
    }
}
