//! A picture in memory, and which sizes are accepted.

/// The most pixels of a picture, height times width: 100 million. A header may claim any size, and is checked before memory is
/// allocated.
pub const MOST_PIXELS: usize = 100_000_000;

/// An 8-bit picture of any size. Its memory is kept from one decoded picture to the next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bitmap {
    /// The height and the width.
    pub size: [usize; 2],
    /// The channels: 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// The pixels, (H, W, C).
    pub pixels: Vec<u8>,
}

/// Refuses a size without pixels, one of more than [`MOST_PIXELS`], and one whose pixels cannot be stored in a file of
/// `bytes` bytes, each of which holds at most `densest` pixels.
pub(super) fn check_size([height, width]: [usize; 2], bytes: usize, densest: f64) -> Result<(), String> {
    let pixels = height.saturating_mul(width);
    if pixels == 0 || pixels > MOST_PIXELS {
        let (expected, advice) = if pixels == 0 {
            ("at least 1 of each".to_string(), "replace it")
        } else {
            (format!("at most {MOST_PIXELS} pixels in all"), "make it smaller")
        };
        return Err(format!("is {width} pixels wide and {height} high, expected {expected}; {advice}"));
    }
    if pixels as f64 > densest * bytes as f64 {
        let claimed = format!("{width} pixels wide and {height} high according to its header");
        return Err(format!("is a truncated file ({claimed}, in {bytes} bytes); replace it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_refused_before_memory_is_allocated() {
        assert_eq!(check_size([10_000, 10_000], 1_000_000, 1e3), Ok(()));
        let refused = |size, bytes| check_size(size, bytes, 1e3).unwrap_err();
        assert_eq!(
            refused([10_001, 10_000], 1_000_000),
            "is 10000 pixels wide and 10001 high, expected at most 100000000 pixels in all; make it smaller"
        );
        assert_eq!(refused([0, 7], 100), "is 7 pixels wide and 0 high, expected at least 1 of each; replace it");
        assert!(refused([usize::MAX, usize::MAX], usize::MAX).contains("at most 100000000"));
        assert_eq!(
            refused([1000, 101], 100),
            "is a truncated file (101 pixels wide and 1000 high according to its header, in 100 bytes); replace it"
        );
    }
}
