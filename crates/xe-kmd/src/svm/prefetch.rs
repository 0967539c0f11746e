//! The handler's work ahead of a fault: a span is brought where the program wants it, and bound on every tile.
//!
//! Best effort, as upstream: memory that is not there is skipped, and a migration or a collection that fails
//! leaves the pages where they are; the first fault will see to them.
//!
//! Locking: the VM's lock is held by the caller.
//!
//! Upstream: `vm_bind_ioctl_ops_create` (the PREFETCH branch), `prefetch_ranges`.

use units::{GpuRange, GpuVa, SZ_4K, TileId};

use super::handler::{Round, Tries, Unserved};
use super::policy::Want;
use super::{Mirror, RangeView, devmem};
use crate::vma::Vma;

/// Collections of one range.
const ROUNDS: u32 = 4;

/// Prefetches `span`, which lies in the mirror `vma`.
pub(crate) fn prefetch(mirror: Mirror<'_>, vma: &Vma, span: GpuRange, want: &Want) {
    let mut at = span.start;
    while let Some(cpu) = mirror.svm.mm().next_vma(at.mirrored()) {
        at = at.max(cpu.range.start.mirror());
        if at >= span.end {
            return;
        }
        at = match prefetch_range(mirror, vma, at, want) {
            Some(end) => end,
            None => cpu.range.end.mirror(),
        };
    }
}

/// Prefetches the range around `at`; its end, or `None` where no range can be had there.
fn prefetch_range(mirror: Mirror<'_>, vma: &Vma, at: GpuVa, want: &Want) -> Option<GpuVa> {
    let Mirror { shared, svm, .. } = mirror;
    let key = svm.range_find_or_insert(at.mirrored(), vma.span.mirrored(), &want.find_ctx()).ok()?;
    let view = RangeView::of(svm, key)?;
    let end = view.span.end.mirror();
    let mut tiles = shared.gpu.tiles.iter().map(|tile| tile.id);
    if view.pagemap == want.target && tiles.clone().all(|tile| view.data.bound_on(tile)) {
        return Some(end);
    }
    if want.target.is_none() && view.pagemap.is_some() {
        let _ = svm.range_evict(key);
    }
    if let Some(target) = want.migration(&view) {
        let _ = devmem::to_vram(shared, svm, key, &view, target, want.timeslice_ms);
    }
    let on = |tile: TileId| Round { at: mirror, tile, vma, want, key, view: &view };
    if tiles.any(|tile| bind_on(&on(tile)).is_none()) {
        // The range is gone, or its pages cannot be had: the first fault will say so.
        return Some(end.max(at.add(SZ_4K)));
    }
    Some(end)
}

/// Collects and binds on one tile, a few times.
fn bind_on(round: &Round<'_>) -> Option<()> {
    let mut tries = Tries::new();
    for _ in 0..ROUNDS {
        match round.collect().and_then(|()| round.bind()) {
            Ok(()) => return Some(()),
            Err(Unserved::Again(_, errno)) => tries.spend(errno).ok()?,
            Err(Unserved::CpuTurn | Unserved::Refused(_)) => return None,
        }
    }
    None
}
