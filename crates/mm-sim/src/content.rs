//! The bytes of one page: 4096 of them, of which only those up to the last written one take memory.
//!
//! Scenes write a few words at the start of a page: pages that travel all the time are cheap to copy then.

use hostmm::AtomicOp;
use units::SZ_4K;

/// Bytes at the start of a page that are kept without asking for memory; the rest takes pieces of so many.
const FIRST: usize = 64;

/// Bytes of a page: the first ones, those behind them as far as they were written, and zeros.
#[derive(Clone)]
pub(crate) struct Content {
    first: [u8; FIRST],
    rest: Vec<u8>,
}

impl Default for Content {
    fn default() -> Self {
        Self { first: [0; FIRST], rest: Vec::new() }
    }
}

impl Content {
    /// Copies the bytes from `offset` on; the run does not cross the page.
    pub(crate) fn read(&self, offset: usize, buf: &mut [u8]) {
        let done = read_from(&self.first, offset, buf);
        if done < buf.len() {
            let done = done + read_from(&self.rest, (offset + done) - FIRST, &mut buf[done..]);
            buf[done..].fill(0);
        }
    }
    /// Overwrites the bytes from `offset` on; the run does not cross the page.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        debug_assert!(offset + bytes.len() <= SZ_4K as usize, "a write crosses the page");
        let (first, rest) = bytes.split_at(FIRST.saturating_sub(offset).min(bytes.len()));
        if !first.is_empty() {
            self.first[offset..offset + first.len()].copy_from_slice(first);
        }
        if !rest.is_empty() {
            let start = offset.max(FIRST) - FIRST;
            let end = start + rest.len();
            if self.rest.len() < end {
                self.rest.resize(end.next_multiple_of(FIRST), 0);
            }
            self.rest[start..end].copy_from_slice(rest);
        }
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
}

/// Copies what `from` has from `offset` on; how many bytes that are.
fn read_from(from: &[u8], offset: usize, buf: &mut [u8]) -> usize {
    let there = from.get(offset..).unwrap_or_default();
    let count = there.len().min(buf.len());
    buf[..count].copy_from_slice(&there[..count]);
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_wrote_is_zero() {
        let mut page = Content::default();
        // Across the end of what is kept without memory, and behind it.
        page.write(62, &[1, 2, 3, 4]);
        let mut bytes = [9; SZ_4K as usize];
        page.read(0, &mut bytes);
        let mut expected = [0; SZ_4K as usize];
        expected[62..66].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(bytes, expected);
        let mut few = [9; 4];
        page.read(60, &mut few);
        assert_eq!(few, [0, 0, 1, 2]);
        page.read(1000, &mut few);
        assert_eq!(few, [0; 4]);
        page.write(SZ_4K as usize - 8, &[7; 8]);
        let mut last = [0; 16];
        page.read(SZ_4K as usize - 16, &mut last);
        assert_eq!(last, [0, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7]);
        assert_eq!(page.atomic(2000, 8, AtomicOp::Add(5)), 0);
        assert_eq!(page.atomic(2000, 8, AtomicOp::Add(5)), 5);
    }
}
