//! Scratch memory in the form that the libraries require.

/// The alignment of a workspace in bytes, as cuBLASLt requires.
pub const WORKSPACE_ALIGN: usize = 256;

/// Device memory that a library may use during a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workspace {
    /// Its address.
    pub address: u64,
    /// Its length in bytes.
    pub bytes: usize,
}

impl Workspace {
    /// Returns how many elements of scratch memory are enough for `bytes` of workspace, whatever their address.
    pub const fn elements(bytes: usize) -> usize {
        (bytes + WORKSPACE_ALIGN).div_ceil(4)
    }

    /// Returns the part of the scratch memory from its first aligned address on.
    pub fn inside(address: u64, bytes: usize) -> Self {
        let start = address.next_multiple_of(WORKSPACE_ALIGN as u64);
        Workspace { address: start, bytes: bytes.saturating_sub((start - address) as usize) }
    }

    /// Returns the bytes that a piece occupies.
    pub const fn piece(bytes: usize) -> usize {
        bytes.next_multiple_of(WORKSPACE_ALIGN)
    }

    /// Takes a piece from the start of an aligned workspace and returns its address.
    ///
    /// # Panics
    /// If the workspace is smaller.
    pub fn take(&mut self, bytes: usize) -> u64 {
        let (address, bytes) = (self.address, Workspace::piece(bytes));
        assert!(bytes <= self.bytes, "{bytes} bytes of scratch memory were planned");
        *self = Workspace { address: address + bytes as u64, bytes: self.bytes - bytes };
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_is_aligned_and_large_enough() {
        for address in [0, 64, 255, 256, 1000] {
            let bytes = Workspace::elements(1 << 20) * 4;
            let inside = Workspace::inside(address, bytes);
            assert!(inside.address >= address && inside.address.is_multiple_of(256) && inside.bytes >= 1 << 20);
            assert!(inside.address + inside.bytes as u64 <= address + bytes as u64);
        }
        assert_eq!(Workspace::inside(1, 8).bytes, 0);
    }
}
