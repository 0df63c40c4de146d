//! The markers of a JPEG file: its size before anything is decoded, and whether it is whole.
//!
//! Format: ITU-T T.81, annex B, <https://www.w3.org/Graphics/JPEG/itu-t81.pdf>.

const START: u8 = 0xd8;
const END: u8 = 0xd9;
const SCAN: u8 = 0xda;
const APP1: u8 = 0xe1;
const APP14: u8 = 0xee;
const ADOBE: &[u8] = b"Adobe";
const EXIF: &[u8] = b"Exif\0\0";

/// What a JPEG file declares before its first scan.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Headers<'b> {
    /// The height and the width, as stored.
    pub size: [usize; 2],
    /// The components: 1 (grey), 3 or 4.
    pub components: u8,
    /// EXIF data, from their TIFF header.
    pub exif: Option<&'b [u8]>,
    /// What follows the header of the first scan.
    scans: &'b [u8],
}

/// The segments of a file, one after another: their markers and contents. What lies between them, as the data of scans do,
/// is skipped.
struct Segments<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Iterator for Segments<'b> {
    type Item = (u8, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.at += self.bytes.get(self.at..)?.iter().position(|byte| *byte == 0xff)? + 1;
            let marker = *self.bytes.get(self.at)?;
            match marker {
                // A stuffed byte, a temporary marker or a restart within a scan; a fill byte before a marker.
                0 | 1 | 0xd0..=0xd7 => self.at += 1,
                0xff => {}
                START | END => {
                    self.at += 1;
                    return Some((marker, &[]));
                }
                _ => {
                    let rest = &self.bytes[self.at + 1..];
                    let length = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
                    let contents = rest.get(2..length)?;
                    self.at += 1 + length;
                    return Some((marker, contents));
                }
            }
        }
    }
}

impl<'b> Headers<'b> {
    /// Reads the markers before the first scan.
    ///
    /// # Errors
    /// The reason, if the file is truncated, damaged or of a kind that is not decoded.
    pub fn read(bytes: &'b [u8]) -> Result<Self, String> {
        let mut segments = Segments { bytes, at: 2 };
        let (mut frame, mut exif) = (None, None);
        loop {
            let (marker, contents) = segments.next().ok_or_else(|| truncated(bytes))?;
            match marker {
                0xc4 | 0xc8 | 0xcc => {}
                0xc0..=0xcf | 0xf7 if frame.is_some() => return Err(damaged("it has two frames")),
                0xc0..=0xcf | 0xf7 => frame = Some(read_frame(marker, contents)?),
                APP14 if frame.is_some_and(|(_, components)| is_late(components, contents)) => return Err(late()),
                APP1 if exif.is_none() => exif = contents.strip_prefix(EXIF),
                SCAN => {
                    let (size, components) = frame.ok_or_else(|| damaged("its size is missing"))?;
                    return Ok(Headers { size, components, exif, scans: &bytes[segments.at..] });
                }
                START => return Err(damaged("a second image begins within its headers")),
                END => return Err(damaged("it has no image")),
                _ => {}
            }
        }
    }

    /// Checks that the image ends within its file. Anything may follow its end.
    ///
    /// # Errors
    /// The reason, if it does not, or if a marker between its scans is out of place.
    pub fn check_scans(&self, file: &[u8]) -> Result<(), String> {
        for (marker, contents) in (Segments { bytes: self.scans, at: 0 }) {
            match marker {
                END => return Ok(()),
                APP14 if is_late(self.components, contents) => return Err(late()),
                _ => {}
            }
        }
        Err(truncated(file))
    }
}

/// Returns true if a marker behind the frame would make the decoder take grey for other colours.
fn is_late(components: u8, contents: &[u8]) -> bool {
    components == 1 && contents.starts_with(ADOBE)
}

fn late() -> String {
    damaged("its Adobe marker comes after its frame")
}

/// Returns the sentence about a file without the end of the image.
pub(super) fn truncated(bytes: &[u8]) -> String {
    format!("is a truncated JPEG file ({} bytes, without the end of the image); replace it", bytes.len())
}

/// Returns the sentence about a damaged file.
pub(super) fn damaged(what: &str) -> String {
    format!("is a damaged JPEG file ({what}); replace it")
}

/// Reads the header of the frame: the size and the number of components.
fn read_frame(marker: u8, contents: &[u8]) -> Result<([usize; 2], u8), String> {
    let unusual = |what: &str| {
        Err(format!("is a JPEG file with {what}, expected a baseline or progressive one of 8 bits; convert it"))
    };
    match marker {
        0xc0..=0xc2 => {}
        0xc3 | 0xc7 | 0xf7 => return unusual("lossless compression"),
        0xc5 | 0xc6 => return unusual("hierarchical frames"),
        _ => return unusual("arithmetic coding"),
    }
    let [precision, h0, h1, w0, w1, components, ..] = *contents else { return Err(damaged("its frame is too short")) };
    if precision != 8 {
        return unusual(&format!("{precision} bits a sample"));
    }
    if ![1, 3, 4].contains(&components) {
        return unusual(&format!("{components} components instead of 1, 3 or 4"));
    }
    let size = [[h0, h1], [w0, w1]].map(|side| usize::from(u16::from_be_bytes(side)));
    Ok((size, components))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture 5 pixels high and 7 wide, as far as its markers go.
    fn file(app1: &[u8], components: u8, scan: &[u8]) -> Vec<u8> {
        let segment = |marker, contents: &[u8]| {
            [&[0xff, marker][..], &(contents.len() as u16 + 2).to_be_bytes(), contents].concat()
        };
        let frame = segment(0xc2, &[8, 0, 5, 0, 7, components, 1, 0x11, 0]);
        [&[0xff, START][..], &segment(APP1, app1), &frame, &segment(SCAN, b"abc"), scan].concat()
    }

    /// Reads a file and checks whether it is whole.
    fn whole(bytes: &[u8]) -> Result<(), String> {
        Headers::read(bytes)?.check_scans(bytes)
    }

    #[test]
    fn a_file_is_whole_if_its_image_ends() {
        let scan = [1, 2, 0xff, 0, 3, 0xff, 0xd5, 9, 0xff, 0xff, END, 5, 5];
        let file = file(b"Exif\0\0II", 3, &scan);
        let headers = Headers::read(&file).unwrap();
        assert_eq!(headers, Headers { size: [5, 7], components: 3, exif: Some(b"II"), scans: &scan });
        let image_end = file.len() - 2;
        for cut in 2..file.len() {
            let expected = if cut < image_end { Err(truncated(&file[..cut])) } else { Ok(()) };
            assert_eq!(whole(&file[..cut]), expected);
        }
        let sentence = "is a truncated JPEG file (3 bytes, without the end of the image); replace it";
        assert_eq!(truncated(&file[..3]), sentence);
    }

    #[test]
    fn the_end_of_a_thumbnail_is_not_that_of_the_image() {
        let thumbnail = [&b"Exif\0\0"[..], &file(b"", 3, &[0xff, END])].concat();
        let cut = file(&thumbnail, 3, &[1, 2]);
        assert_eq!(whole(&cut), Err(truncated(&cut)));
        assert_eq!(whole(&file(&thumbnail, 3, &[1, 2, 0xff, END])), Ok(()));
    }

    #[test]
    fn grey_with_the_colours_of_adobe_behind_its_frame_is_refused() {
        let adobe = b"\xff\xee\x00\x0eAdobe\x00d\x00\x00\x00\x00\x00";
        let with = |components, at: usize| {
            let mut file = file(b"", components, &[7, 0xff, END]);
            file.splice(at..at, *adobe);
            whole(&file)
        };
        let late = Err("is a damaged JPEG file (its Adobe marker comes after its frame); replace it".to_string());
        let (before, behind, scan) = (2, 19, 27);
        assert_eq!([with(1, before), with(1, behind), with(1, scan)], [Ok(()), late.clone(), late]);
        assert_eq!([with(3, behind), with(4, scan)], [Ok(()), Ok(())]);
    }

    #[test]
    fn kinds_that_are_not_decoded_are_named() {
        let error = |at: usize, byte| {
            let mut file = file(b"", 3, &[0xff, END]);
            file[at] = byte;
            whole(&file).unwrap_err()
        };
        let expected = |what: &str| {
            format!("is a JPEG file with {what}, expected a baseline or progressive one of 8 bits; convert it")
        };
        assert_eq!(error(7, 0xc3), expected("lossless compression"));
        assert_eq!(error(7, 0xc9), expected("arithmetic coding"));
        assert_eq!(error(10, 12), expected("12 bits a sample"));
        assert_eq!(error(15, 2), expected("2 components instead of 1, 3 or 4"));
        assert_eq!(error(7, 0xc4), "is a damaged JPEG file (its size is missing); replace it");
        assert_eq!(error(7, END), "is a damaged JPEG file (it has no image); replace it");
        let twice = [&file(b"", 3, &[])[..19], &file(b"", 3, &[0xff, END])[6..]].concat();
        assert_eq!(whole(&twice).unwrap_err(), "is a damaged JPEG file (it has two frames); replace it");
    }
}
