//! The bytes of one page: 4096 of them, which take no memory while they are all zero.

use hostmm::AtomicOp;
use units::SZ_4K;

/// Bytes of a page.
#[derive(Clone, Default)]
pub(crate) enum Content {
    /// All zero, never written.
    #[default]
    Zero,
    /// Written at least once.
    Bytes(Box<[u8]>),
}

impl Content {
    /// Copies the bytes from `offset` on; the run does not cross the page.
    pub(crate) fn read(&self, offset: usize, buf: &mut [u8]) {
        match self {
            Self::Zero => buf.fill(0),
            Self::Bytes(bytes) => buf.copy_from_slice(&bytes[offset..offset + buf.len()]),
        }
    }
    /// Overwrites the bytes from `offset` on; the run does not cross the page.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    /// Does `op` on `size` (4 or 8) bytes; gives the old value.
    pub(crate) fn atomic(&mut self, offset: usize, size: usize, op: AtomicOp) -> u64 {
        let mut word = [0; 8];
        self.read(offset, &mut word[..size]);
        let old = u64::from_le_bytes(word);
        let mask = if size == 8 { u64::MAX } else { (1 << (size * 8)) - 1 };
        let new = match op {
            AtomicOp::Exchange(value) => value,
            AtomicOp::Add(value) => old.wrapping_add(value),
            AtomicOp::Sub(value) => old.wrapping_sub(value),
            AtomicOp::CompareExchange { expected, new } if old == expected & mask => new,
            AtomicOp::CompareExchange { .. } => old,
        };
        self.write(offset, &(new & mask).to_le_bytes()[..size]);
        old
    }
    fn bytes(&mut self) -> &mut [u8] {
        if let Self::Zero = self {
            *self = Self::Bytes(vec![0; SZ_4K as usize].into());
        }
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Zero => &mut [],
        }
    }
}
