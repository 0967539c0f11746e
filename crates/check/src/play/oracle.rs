//! What must hold beside the data: what the device noticed, the books of the mm, and that nothing is left in the end.

use crate::finding::Finding;
use crate::script::{Injected, Script};
use machine::Record;
use machine::checked::Checked;
use units::TileId;

/// The bus address of the first stray write that nobody took.
pub(super) fn first_stray_write(checked: &Checked) -> Option<u64> {
    checked.core.gpu().first_records(usize::MAX).iter().find_map(|record| match record {
        Record::StrayWrite { iova, .. } => Some(iova.0),
        _ => None,
    })
}

/// A tile's VRAM is as full as a scene says. What the mover has still to tell the driver of is waited for.
pub(super) fn holds(checked: &Checked, tile: TileId, bytes: u64) -> Result<(), Finding> {
    checked.settle();
    match checked.core.device().vram_used(tile) {
        used if used == bytes => Ok(()),
        used => Err(Finding::Books(format!("{used} bytes of tile {}'s VRAM are taken, and should be {bytes}", tile.0))),
    }
}

/// When every thread of the scene has ended, and the device is still open.
pub(super) fn at_rest(checked: &Checked, script: &Script) -> Result<(), Finding> {
    let gpu = checked.core.gpu();
    let counters = gpu.counters();
    if counters.stray_writes + counters.stray_reads > 0 {
        return Err(Finding::Stray { writes: counters.stray_writes, reads: counters.stray_reads });
    }
    if counters.stale_vram > 0 {
        return Err(Finding::Stale { accesses: counters.stale_vram });
    }
    let copies_may_fail = script.injections.iter().any(|(what, _)| *what == Injected::CopyFails);
    let bad = gpu.first_records(usize::MAX).into_iter().find(|record| match record {
        Record::SystemFault { .. } => false,
        Record::CopyFault { .. } => !copies_may_fail,
        _ => true,
    });
    if let Some(record) = bad {
        return Err(Finding::Device { record });
    }
    checked.settle();
    mover(checked)?;
    checked.sim.check().map_err(Finding::Books)
}

/// What the mover counts where a rule of its own was broken: frames that were given out while they held bytes, two pages for one
/// address, messages that nobody asked for.
fn mover(checked: &Checked) -> Result<(), Finding> {
    let Some(stats) = checked.live().map(|live| live.stats()) else { return Ok(()) };
    let broken = [("occupied", stats.occupied), ("conflicts", stats.conflicts), ("unexpected", stats.unexpected)];
    match broken.into_iter().find(|(_, count)| *count > 0) {
        Some((what, count)) => Err(Finding::Books(format!("the mover counts {count} of '{what}'"))),
        None => Ok(()),
    }
}

/// Page tables that the driver has in use on all tiles.
pub(super) fn tables_used(checked: &Checked) -> u64 {
    [TileId(0), TileId(1)].iter().map(|tile| checked.core.device().tables_used(*tile)).sum()
}

/// When the file is closed and the engines are stopped: nothing that the driver took is left, but the tables that it began
/// with. A run that found something before ends all the same, but is not judged again.
pub(super) fn after_close(checked: &Checked, tables: u64, judged: bool) -> Result<(), Finding> {
    let device = checked.core.device();
    let claims = checked.sim.claims_in_progress();
    let home = checked.end();
    // A reader that nobody waited for may have been in the middle of a copy.
    let mapped = checked.core.gpu().iommu_mapped_pages();
    let left = [TileId(0), TileId(1)].map(|tile| device.vram_used(tile));
    let charged = |tile| checked.neighbour().map_or(0, |neighbour| neighbour.sees(tile));
    if !judged {
        return Ok(());
    }
    let leaks = [
        (claims as u64, "migrations have no end"),
        (mapped, "pages are still mapped for the device"),
        (left[0], "bytes of tile 0's VRAM are still taken"),
        (left[1], "bytes of tile 1's VRAM are still taken"),
        (charged(TileId(0)) + charged(TileId(1)), "bytes of VRAM are still charged"),
        (tables_used(checked).saturating_sub(tables), "page tables are still in use"),
        (u64::from(!home), "process did not get all of its memory back"),
    ];
    match leaks.into_iter().find(|(count, _)| *count > 0) {
        Some((count, what)) => Err(Finding::Leak { what: format!("{count} {what}") }),
        None => Ok(()),
    }
}
