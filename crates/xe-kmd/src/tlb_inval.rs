//! TLB invalidation: a span, in the form that the device knows.
//!
//! The hardware flushes naturally aligned blocks of a power of two of bytes. A span becomes the smallest such
//! block that covers it; from 2M on the smallest block is 16M (4M and 8M are never asked for).
//!
//! Locking: none; called from the reader class with notifier and page-table locks held.
//!
//! Upstream: `xe_guc_tlb_inval.c` (the normal form), `xe_tlb_inval.c`.

use units::{GpuRange, GpuVa, SZ_2M, SZ_4K, TileId};
use xe_spec::fault::Asid;

use crate::port::Hw;

const SZ_16M: u64 = 16 << 20;

/// The block that the device is told of for `span`; `None` where no block but everything covers it.
pub(crate) fn normal_form(span: GpuRange) -> Option<GpuRange> {
    let mut size = span.len().max(SZ_4K).checked_next_power_of_two()?;
    loop {
        if size >= SZ_2M {
            size = size.max(SZ_16M);
        }
        let block = GpuRange::around(span.start, size);
        if block.end.0 >= span.end.0 {
            return Some(block);
        }
        size = size.checked_mul(2).filter(|size| *size < 1 << 63)?;
    }
}

/// The correct rule: flush the span's normal form, or everything.
pub(crate) fn flush(hw: &dyn Hw, tile: TileId, asid: Asid, span: GpuRange) {
    let everything = GpuRange::new(GpuVa(0), GpuVa(1 << 57));
    hw.tlb_invalidate(tile, asid, normal_form(span).unwrap_or(everything));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(start: u64, end: u64) -> (u64, u64) {
        let block = normal_form(GpuRange::new(GpuVa(start), GpuVa(end))).unwrap();
        (block.start.0, block.end.0)
    }

    #[test]
    fn spans_become_blocks_of_a_power_of_two() {
        assert_eq!(block(0x5000, 0x6000), (0x5000, 0x6000));
        assert_eq!(block(0x1000, 0x3000), (0, 0x4000));
        assert_eq!(block(0x10000, 0x20000), (0x10000, 0x20000));
        assert_eq!(block(0x1f000, 0x30000), (0, 0x40000));
        assert_eq!(block(0x100000, 0x200000), (0x100000, 0x200000));
    }

    #[test]
    fn from_two_megabytes_on_a_block_is_at_least_sixteen() {
        assert_eq!(block(0x200000, 0x400000), (0, 0x1000000));
        assert_eq!(block(0x1180000, 0x1290000), (0x1000000, 0x2000000));
    }
}
