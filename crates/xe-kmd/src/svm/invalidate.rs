//! Pages change: no tile may translate to them when this returns.
//!
//! 1. Zap the leaves of each range that the event touches, on each tile that has them.
//! 2. Flush exactly those tiles, once, over all that was zapped. (Upstream keeps the bounds of the last range
//!    only, and is saved by the rounding of flushes; here they accumulate.)
//! 3. Unmap the ranges' pages from the IOMMU, and list the ranges whose mapping is gone.
//!
//! The order matters: a page is unmapped for DMA only when no TLB knows it.
//!
//! Locking: called with the notifier lock held, in reader class; takes page-table locks and the list's.
//!
//! Upstream: `xe_svm_invalidate`, `xe_svm_range_notifier_event_begin`, `xe_svm_range_notifier_event_end`.

use gpusvm::{GpuSvmOps, NotifierKey, NotifierLocked, RangeKey};
use hostmm::{EventKind, MmEvent};
use sync::time::now_ns;
use units::{GpuRange, HostRange, TileId};

use super::{RangeData, Space, Svm};
use crate::event::Event;

impl GpuSvmOps for Space {
    type RangeData = RangeData;

    fn invalidate(&self, locked: &mut NotifierLocked<'_, Self>, notifier: NotifierKey, event: &MmEvent) {
        let touched = locked.ranges_of(notifier, event.range);
        let mut stale = Stale::default();
        for &key in &touched {
            self.zap_range(locked, key, &mut stale);
        }
        self.flush_stale(&stale);
        for key in touched {
            locked.unmap_pages(key);
            if matches!(event.kind, EventKind::Unmap | EventKind::Release) {
                self.to_garbage(locked, key, event);
            }
        }
    }
}

/// What was zapped, and on which tiles.
#[derive(Default)]
pub(super) struct Stale {
    tiles: u8,
    span: Option<GpuRange>,
    /// When the first of it was.
    since_ns: u64,
}

impl Space {
    /// Zaps a range wherever it is bound, and adds it to what must be flushed.
    pub(super) fn zap_range(&self, locked: &mut NotifierLocked<'_, Self>, key: RangeKey, stale: &mut Stale) {
        let Some(range) = locked.range_mut(key).filter(|range| !range.unmapped()) else { return };
        let span = range.span().mirror();
        let bound = range.data.tile_present & !range.data.tile_invalidated;
        if bound == 0 {
            return;
        }
        range.data.tile_invalidated |= bound;
        if stale.span.is_none() {
            stale.since_ns = now_ns();
        }
        for tile in self.tiles_of(bound) {
            self.zap(tile, span);
        }
        stale.tiles |= bound;
        let hull = |all: GpuRange| GpuRange::new(all.start.min(span.start), all.end.max(span.end));
        stale.span = Some(stale.span.map_or(span, hull));
    }

    /// Clears the leaves of every range in `span`, wherever they are bound; the ranges' pages stay as they are.
    pub(crate) fn invalidate_span(&self, svm: &Svm, span: HostRange) {
        let mut locked = svm.notifier_lock();
        let mut stale = Stale::default();
        for key in locked.ranges_in(span) {
            self.zap_range(&mut locked, key, &mut stale);
        }
        self.flush_stale(&stale);
    }

    /// Flushes it, on those tiles and no others.
    pub(super) fn flush_stale(&self, stale: &Stale) {
        let Some(span) = stale.span else { return };
        for tile in self.tiles_of(stale.tiles) {
            self.gpu.flush(tile, self.asid, span);
        }
        let ns = now_ns() - stale.since_ns;
        self.tiles_of(stale.tiles).for_each(|tile| self.gpu.emit(Event::SvmFlush { tile, ns }));
    }

    fn tiles_of(&self, mask: u8) -> impl Iterator<Item = TileId> {
        self.gpu.tiles.iter().map(|tile| tile.id).filter(move |tile| mask & tile.bit() != 0)
    }

    fn to_garbage(&self, locked: &mut NotifierLocked<'_, Self>, key: RangeKey, event: &MmEvent) {
        let listed = locked.range(key).is_none_or(|range| range.unmapped());
        locked.set_unmapped(key, event);
        if !listed {
            self.list_garbage(key);
        }
    }
}
