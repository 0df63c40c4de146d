//! The identity of a communicator that is to be created.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Its length in bytes.
const LENGTH: usize = 128;

/// The identity of a communicator, by which its members find each other. One of them creates it and tells the others. It is written in
/// hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct UniqueId([u8; LENGTH]);

impl UniqueId {
    /// Returns room for one.
    pub(super) fn empty() -> Self {
        UniqueId([0; LENGTH])
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UniqueId(..)")
    }
}

impl FromStr for UniqueId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::Run(format!("an identity of NCCL has {} characters, expected {}", text.len(), 2 * LENGTH));
        if text.len() != 2 * LENGTH || !text.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; LENGTH];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| wrong())?;
        }
        Ok(UniqueId(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_as_they_are_written() {
        let id = UniqueId(std::array::from_fn(|index| index as u8));
        assert_eq!(id.to_string().parse::<UniqueId>().unwrap(), id);
        for text in ["", "12", &"g".repeat(256), &"\u{e9}".repeat(128)] {
            assert!(text.parse::<UniqueId>().is_err());
        }
    }
}
