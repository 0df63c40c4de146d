//! Scratch memory as libraries want it.

/// Where workspace begins: at a multiple of this many bytes, as cuBLASLt asks for.
pub const WORKSPACE_ALIGN: usize = 256;

/// Device memory that a library may use while it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workspace {
    /// Its address.
    pub address: u64,
    /// Its length.
    pub bytes: usize,
}

impl Workspace {
    /// Returns the elements of scratch memory, wherever it lies, that hold `bytes` of workspace.
    pub const fn elements(bytes: usize) -> usize {
        (bytes + WORKSPACE_ALIGN).div_ceil(4)
    }

    /// Takes scratch memory from the first place where workspace may begin.
    pub fn inside(address: u64, bytes: usize) -> Self {
        let start = address.next_multiple_of(WORKSPACE_ALIGN as u64);
        Workspace { address: start, bytes: bytes.saturating_sub((start - address) as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_begins_at_its_alignment_and_is_whole() {
        for address in [0, 64, 255, 256, 1000] {
            let bytes = Workspace::elements(1 << 20) * 4;
            let inside = Workspace::inside(address, bytes);
            assert!(inside.address >= address && inside.address.is_multiple_of(256) && inside.bytes >= 1 << 20);
            assert!(inside.address + inside.bytes as u64 <= address + bytes as u64);
        }
        assert_eq!(Workspace::inside(1, 8).bytes, 0);
    }
}
