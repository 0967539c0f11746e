//! What must hold beside the data: what the device noticed, the books of the mm, and that nothing is left in the end.

use crate::finding::Finding;
use crate::script::{Injected, Script};
use machine::Record;
use machine::checked::Checked;
use machine::interconnect::Node;
use units::TileId;

/// The bus address of the first stray write that nobody took.
pub(super) fn first_stray_write(checked: &Checked) -> Option<u64> {
    records(checked).iter().find_map(|record| match record {
        Record::StrayWrite { iova, .. } => Some(iova.0),
        _ => None,
    })
}

/// What the devices noticed.
fn records(checked: &Checked) -> Vec<Record> {
    checked.cores().flat_map(|core| core.gpu().first_records(usize::MAX)).collect()
}

/// Writes of the devices to bus addresses that nothing maps.
pub(super) fn stray_writes(checked: &Checked) -> u64 {
    checked.cores().map(|core| core.gpu().counters().stray_writes).sum()
}

/// A tile's VRAM is as full as a scene says. What the mover has still to tell the driver of is waited for.
pub(super) fn holds(checked: &Checked, node: Node, bytes: u64) -> Result<(), Finding> {
    checked.settle();
    match vram_used(checked, node) {
        used if used == bytes => Ok(()),
        used => {
            let tile = Script::tile_name(node);
            Err(Finding::Books(format!("{used} bytes of {tile}'s VRAM are taken, and should be {bytes}")))
        }
    }
}

fn vram_used(checked: &Checked, node: Node) -> u64 {
    checked.device(node.device).map_or(0, |core| core.device().vram_used(node.tile))
}

/// When every thread of the scene has ended, and the device is still open.
pub(super) fn at_rest(checked: &Checked, script: &Script) -> Result<(), Finding> {
    for counters in checked.cores().map(|core| core.gpu().counters()) {
        if counters.stray_writes + counters.stray_reads > 0 {
            return Err(Finding::Stray { writes: counters.stray_writes, reads: counters.stray_reads });
        }
        if counters.stale_vram > 0 {
            return Err(Finding::Stale { accesses: counters.stale_vram });
        }
    }
    let copies_may_fail = script.injections.iter().any(|(what, _)| *what == Injected::CopyFails);
    let bad = records(checked).into_iter().find(|record| match record {
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
    let used = |node: Node| checked.device(node.device).map_or(0, |core| core.device().tables_used(node.tile));
    checked.nodes().map(used).sum()
}

/// When the file is closed and the engines are stopped: nothing that the driver took is left, but the tables that it began
/// with. A run that found something before ends all the same, but is not judged again.
pub(super) fn after_close(checked: &Checked, (claims, tables): (usize, u64), judged: bool) -> Result<(), Finding> {
    let home = checked.end();
    // A reader that nobody waited for may have been in the middle of a copy.
    let mapped = checked.cores().map(|core| core.gpu().iommu_mapped_pages()).sum();
    let left = checked.nodes().map(|node| (node, vram_used(checked, node))).find(|(_, bytes)| *bytes > 0);
    let charged = |tile| checked.neighbour().map_or(0, |neighbour| neighbour.sees(tile));
    if !judged {
        return Ok(());
    }
    let leaks = [
        (claims as u64, "migrations have no end"),
        (mapped, "pages are still mapped for the device"),
        (charged(TileId(0)) + charged(TileId(1)), "bytes of VRAM are still charged"),
        (tables_used(checked).saturating_sub(tables), "page tables are still in use"),
        (u64::from(!home), "process did not get all of its memory back"),
    ];
    if let Some((node, bytes)) = left {
        let tile = Script::tile_name(node);
        return Err(Finding::Leak { what: format!("{bytes} bytes of {tile}'s VRAM are still taken") });
    }
    match leaks.into_iter().find(|(count, _)| *count > 0) {
        Some((count, what)) => Err(Finding::Leak { what: format!("{count} {what}") }),
        None => Ok(()),
    }
}
