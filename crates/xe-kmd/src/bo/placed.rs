//! A BO that is held where it is, and how the device addresses parts of it there.
//!
//! Locking: the BO's is held as long as this lives; touching takes the VRAM's.
//!
//! Upstream: `xe_res_cursor.h`, a BO under its `dma_resv`.

use sync::MutexGuard;
use units::{GpuRange, TileId};

use super::{Bo, BoMap, Residence, State};
use crate::pt::build::{Memory, Segment};

/// A BO that stays where it is.
pub(crate) struct Placed<'a> {
    pub(super) bo: &'a Bo,
    pub(super) state: MutexGuard<'a, State>,
    /// So does what it shows: released after it.
    #[expect(dead_code, reason = "held for its lock")]
    pub(super) origin: Option<Box<Self>>,
}

impl Placed<'_> {
    /// The tile in whose VRAM it is; `None`: in system memory.
    pub(crate) fn tile(&self) -> Option<TileId> {
        match self.state.residence {
            Residence::Vram(tile, _) => Some(tile),
            Residence::System(_) | Residence::Peer(_) | Residence::Nowhere => None,
        }
    }

    /// How the device addresses `span`, a part of `map`.
    pub(crate) fn segments(&self, map: &BoMap, span: GpuRange) -> Vec<Segment> {
        let (first, bytes) = (map.offset_of(span.start), span.len());
        match &self.state.residence {
            Residence::Nowhere => Vec::new(),
            Residence::System(iova) => {
                vec![Segment { va: span.start, addr: iova.0 + first, bytes, memory: Memory::System }]
            }
            Residence::Vram(tile, blocks) => {
                let blocks = self.bo.dpas(*tile, &blocks.list).map(|(dpa, block)| (dpa.0, block.bytes));
                pieces(span, first, blocks, Memory::Vram)
            }
            Residence::Peer(windows) => {
                pieces(span, first, windows.iter().map(|window| (window.iova.0, window.bytes)), Memory::Peer)
            }
        }
    }

    /// Its VRAM was used just now.
    pub(crate) fn touch(&self) {
        if let Residence::Vram(tile, blocks) = &self.state.residence
            && let Some(tile) = self.bo.shared.gpu.tile(*tile)
        {
            blocks.list.iter().for_each(|block| tile.vram.touch(block.offset, block.bytes));
        }
    }

    /// Its pages are mapped in pieces that VRAM does not allow: from now on it is in system memory, whatever it was made for.
    pub(crate) fn stay_in_system(mut self) {
        self.state.split = true;
    }
}

/// The parts of blocks (address, bytes; in the order of their contents) that `span` shows, from byte `first` of the contents on.
fn pieces(span: GpuRange, first: u64, blocks: impl Iterator<Item = (u64, u64)>, memory: Memory) -> Vec<Segment> {
    let (mut start, end) = (0, first + span.len());
    crate::pt::build::coalesce(blocks.filter_map(|(block, bytes)| {
        let (from, to) = (first.max(start), end.min(start + bytes));
        let addr = block + from.saturating_sub(start);
        start += bytes;
        let va = span.start.add(from - first);
        (from < to).then(|| Segment { va, addr, bytes: to - from, memory })
    }))
}
