//! The types of the elements of IDX files.

use super::{Labels, PixelType, Pixels};

/// The type of the elements, which are big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    U8,
    I8,
    I16,
    I32,
    F32,
    F64,
}

impl Element {
    /// Returns the type that the third byte of a file stands for.
    pub fn of(code: u8) -> Option<Self> {
        Some(match code {
            0x08 => Element::U8,
            0x09 => Element::I8,
            0x0b => Element::I16,
            0x0c => Element::I32,
            0x0d => Element::F32,
            0x0e => Element::F64,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Element::U8 => "bytes",
            Element::I8 => "signed bytes",
            Element::I16 => "16-bit integers",
            Element::I32 => "32-bit integers",
            Element::F32 => "32-bit floats",
            Element::F64 => "64-bit floats",
        }
    }

    pub fn bytes(self) -> u64 {
        match self {
            Element::U8 | Element::I8 => 1,
            Element::I16 => 2,
            Element::I32 | Element::F32 => 4,
            Element::F64 => 8,
        }
    }

    /// Returns the type of pixels of these elements.
    pub fn pixels(self) -> PixelType {
        if self == Element::U8 { PixelType::U8 } else { PixelType::F32 }
    }

    /// Returns the values of some elements.
    fn values(self, bytes: &[u8]) -> impl Iterator<Item = f64> {
        let value = move |bytes: &[u8]| match self {
            Element::U8 => f64::from(bytes[0]),
            Element::I8 => f64::from(bytes[0].cast_signed()),
            Element::I16 => f64::from(i16::from_be_bytes([bytes[0], bytes[1]])),
            Element::I32 => f64::from(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
            Element::F32 => f64::from(f32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
            Element::F64 => f64::from_be_bytes(std::array::from_fn(|i| bytes[i])),
        };
        bytes.chunks_exact(self.bytes() as usize).map(value)
    }

    /// Returns pixels: bytes as they are, all others as floats.
    ///
    /// # Errors
    /// The index of the first value that is not finite in single precision, and the value.
    pub fn read_pixels(self, bytes: Vec<u8>) -> Result<Pixels, (usize, f64)> {
        if self == Element::U8 {
            return Ok(Pixels::U8(bytes));
        }
        self.floats(&bytes).map(Pixels::F32)
    }

    /// Returns labels: whole numbers are classes, floats are values to be predicted.
    ///
    /// # Errors
    /// The index of the first value that is negative, above `most` or not finite, and the value.
    pub fn read_labels(self, bytes: &[u8], most: u32) -> Result<(Labels, usize), (usize, f64)> {
        if matches!(self, Element::F32 | Element::F64) {
            return self.floats(bytes).map(|values| (Labels::Values(1, values), 0));
        }
        let class = |(index, value): (usize, f64)| match value {
            value if (0.0..=f64::from(most)).contains(&value) => Ok(value as u32),
            value => Err((index, value)),
        };
        let labels: Vec<u32> = self.values(bytes).enumerate().map(class).collect::<Result<_, _>>()?;
        let classes = labels.iter().fold(0, |classes, &label| classes.max(label as usize + 1));
        Ok((Labels::Index(labels), classes))
    }

    fn floats(self, bytes: &[u8]) -> Result<Vec<f32>, (usize, f64)> {
        let float = |(index, value): (usize, f64)| match value as f32 {
            float if float.is_finite() => Ok(float),
            _ => Err((index, value)),
        };
        self.values(bytes).enumerate().map(float).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_every_type_have_their_values() {
        for (code, bytes, values) in [
            (0x08, &[0, 200][..], &[0.0, 200.0][..]),
            (0x09, &[0x80, 5], &[-128.0, 5.0]),
            (0x0b, &[0x01, 0x02, 0xff, 0xff], &[258.0, -1.0]),
            (0x0c, &[0, 1, 0, 0, 0xff, 0xff, 0xff, 0xfe], &[65536.0, -2.0]),
            (0x0d, &[0x3f, 0xc0, 0, 0], &[1.5]),
            (0x0e, &[0xbf, 0xd0, 0, 0, 0, 0, 0, 0], &[-0.25]),
        ] {
            let element = Element::of(code).unwrap();
            assert_eq!(element.values(bytes).collect::<Vec<_>>(), values, "{element:?}");
        }
        assert_eq!(Element::of(0x0a), None);
    }

    #[test]
    fn integers_are_classes_and_floats_are_values() {
        assert_eq!(Element::I16.read_labels(&[0, 3, 0, 1], 9), Ok((Labels::Index(vec![3, 1]), 4)));
        assert_eq!(Element::I8.read_labels(&[1, 0xff], 9), Err((1, -1.0)));
        assert_eq!(Element::I16.read_labels(&[0, 10], 9), Err((0, 10.0)));
        assert_eq!(Element::F32.read_labels(&[0x3f, 0xc0, 0, 0], 9), Ok((Labels::Values(1, vec![1.5]), 0)));
        let infinite = Element::F64.read_pixels(f64::MAX.to_be_bytes().to_vec());
        assert_eq!(infinite, Err((0, f64::MAX)));
        assert_eq!(Element::I8.read_pixels(vec![0xff]), Ok(Pixels::F32(vec![-1.0])));
        assert_eq!(Element::U8.read_pixels(vec![0xff]), Ok(Pixels::U8(vec![255])));
    }
}
