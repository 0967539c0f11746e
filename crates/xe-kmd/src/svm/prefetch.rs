//! The handler's work ahead of a fault: a span is brought where the program wants it, and bound on every tile.
//!
//! Best effort, as upstream: memory that is not there is skipped, and a migration or a collection that fails
//! leaves the pages where they are; the first fault will see to them.
//!
//! Locking: the caller shares the VM's lock, with faults and with other prefetches; takes the lock of one range at a time.
//!
//! Upstream: `vm_bind_ioctl_ops_create` (the PREFETCH branch), `prefetch_ranges`.

use gpusvm::{Mapping, MigrateDetails, RangeKey};
use units::{GpuRange, GpuVa, SZ_4K};

use super::devmem::ToVram;
use super::handler::{Round, Tries, Unserved};
use super::policy::Placement;
use super::{Mirror, RangeView};
use crate::errno::Errno;
use crate::event::Event;
use crate::rules::WhenMet;
use crate::vma::Vma;

/// Collections of one range.
const ROUNDS: u32 = 4;

/// Prefetches `span`, which lies in the mirror `vma`. An error says that pages in VRAM were met which no leaf can map, and
/// that the rule for them refuses the ioctl (a variant's does).
pub(crate) fn prefetch(mirror: Mirror<'_>, vma: &Vma, span: GpuRange, placement: &Placement) -> Result<(), Errno> {
    let mut at = span.start;
    while let Some(cpu) = mirror.svm.mm().next_vma(at.mirrored()) {
        at = at.max(cpu.range.start.mirror());
        if at >= span.end {
            return Ok(());
        }
        let key = mirror.svm.range_find_or_insert(at.mirrored(), vma.span.mirrored(), &placement.find_ctx());
        at = match key {
            Ok(key) => prefetch_range(mirror, vma, key, placement)?.max(at.add(SZ_4K)),
            // No range can be had there.
            Err(_) => cpu.range.end.mirror(),
        };
    }
    Ok(())
}

/// Prefetches a range, unless it is gone; its end.
fn prefetch_range(mirror: Mirror<'_>, vma: &Vma, key: RangeKey, placement: &Placement) -> Result<GpuVa, Errno> {
    let _held = mirror.space.hold(key);
    match RangeView::of(mirror.space, mirror.svm, key) {
        Some(view) if view.unmapped => Ok(view.span.end.mirror()),
        Some(view) => bring(mirror, vma, key, &view, placement),
        None => Ok(GpuVa(0)),
    }
}

/// Brings a range where it is wanted, and binds it; its end.
fn bring(
    mirror: Mirror<'_>,
    vma: &Vma,
    key: RangeKey,
    view: &RangeView,
    placement: &Placement,
) -> Result<GpuVa, Errno> {
    let Mirror { shared, svm, .. } = mirror;
    let end = view.span.end.mirror();
    let tiles = shared.gpu.tiles.iter().map(|tile| tile.id);
    if view.pagemap == placement.target && tiles.clone().all(|tile| view.data.bound_on(tile)) {
        return Ok(end);
    }
    if placement.target.is_none() && view.pagemap.is_some() {
        let _ = svm.range_evict(key);
    }
    if let Some(target) = placement.migration(view) {
        let details = MigrateDetails { timeslice_ms: placement.timeslice_ms, ..Default::default() };
        let _ = ToVram { shared, svm, key, view, target, details }.run();
    }
    for (n, tile) in tiles.enumerate() {
        match bind_on(Round { at: mirror, tile, vma, placement, key, view, met: 0, is_alone: false })? {
            Some(Mapping::Anew) if n > 0 => {
                // A notifier came between two tiles. The leaves of those before are gone, and the first fault there brings them back.
                shared.gpu.emit(Event::PrefetchOvertaken { asid: mirror.space.asid, tile, span: view.span.mirror() });
            }
            Some(_) => {}
            // The range is gone, or its pages cannot be had: the first fault will say so.
            None => break,
        }
    }
    Ok(end)
}

/// Collects and binds on one tile, a few times; how the pages were come by, if it is bound.
fn bind_on(mut round: Round<'_>) -> Result<Option<Mapping>, Errno> {
    let mut tries = Tries::default();
    for _ in 0..ROUNDS {
        let errno = match round.collect().and_then(|collected| round.bind().map(|()| collected)) {
            Ok(collected) => return Ok(Some(collected)),
            Err(Unserved::Again(_, errno)) => errno,
            Err(Unserved::Unfit(WhenMet::Evict)) => {
                round.met += 1;
                Errno::EINVAL
            }
            Err(Unserved::Unfit(WhenMet::Refuse | WhenMet::EvictForEver)) => {
                return Err(round.at.shared.gpu.rules.unfit_vram.errno);
            }
            Err(Unserved::CpuTurn | Unserved::Refused(_)) => return Ok(None),
        };
        if tries.spend(errno).is_err() {
            return Ok(None);
        }
    }
    Ok(None)
}
