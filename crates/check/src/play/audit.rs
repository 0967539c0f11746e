//! At rest, what page tables, TLBs, the driver's books and the process say of each page must agree.
//!
//! A second check may stand behind one that is left out, so that no data show it. Here it shows: a leaf or a TLB entry that
//! outlives its range, a leaf that may write what the CPU's page table forbids, a range of memory that is gone and is not
//! marked, a notifier, a table, an address space that is kept for nobody.
//!
//! Where the kernel manages the memory, leaves are compared with its page table as well; where the mover does, with what the
//! driver collected.

use super::stage::Stage;
use crate::finding::Finding;
use crate::script::{Action, Script, VmKind};
use machine::checked::Checked;
use machine::interconnect::{DeviceId, Interconnect, Node};
use machine::ledger::Book;
use machine::wiring::Core;
use machine::{Place, Proto, RangeBook, SpaceBook, Translation};
use std::collections::BTreeSet;
use units::{Dpa, HostFrame, HostRange, Iova, SZ_4K, TileId, pages_of};

fn tiles(core: &Core) -> impl Iterator<Item = TileId> + Clone + use<> {
    (0..core.device().platform().tiles.len()).map(|tile| TileId(tile as u8))
}

/// A tile of a device in words.
fn name(core: &Core, tile: TileId) -> String {
    Script::tile_name(Node { device: core.id(), tile })
}

/// VMs that mirror the process; nothing where a job may still run that nobody waited for.
pub(super) fn mirrors(stage: &Stage) -> Result<(), Finding> {
    let open = stage.open_vms();
    if begun(&stage.script).any(|vm| open.contains(&vm)) { Ok(()) } else { look(stage, false) }
}

/// All VMs: no job and no bind is on its way.
pub(super) fn all(stage: &Stage) -> Result<(), Finding> {
    look(stage, true)
}

/// No VM has a range in `span`, and none translates an address of it.
pub(super) fn forgotten(stage: &Stage, span: HostRange) -> Result<(), Finding> {
    stage.checked.settle();
    for (core, book) in
        stage.checked.cores().flat_map(|core| core.device().books().into_iter().map(move |book| (core, book)))
    {
        if let Some(range) = book.ranges.iter().find(|range| range.span.overlaps(span)) {
            return wrong(&book, format!("a range at {:?} is kept for memory that is gone", range.span));
        }
        let leaf = |tile: TileId| {
            let leaves = core.gpu().leaves(tile, book.asid);
            leaves.into_iter().find(|leaf| leaf.span.overlaps(span.mirror()))
        };
        if let Some(leaf) = tiles(core).find_map(leaf) {
            return wrong(&book, format!("a leaf at {:?} is kept for memory that is gone", leaf.span));
        }
    }
    Ok(())
}

/// VMs with jobs that are begun and not waited for.
fn begun(script: &Script) -> impl Iterator<Item = usize> {
    script.steps().filter_map(|step| match step.action {
        Action::Job { vm, waits: false, .. } if script.vms[vm].kind != VmKind::Plain => Some(vm),
        _ => None,
    })
}

fn wrong<T>(book: &SpaceBook, what: String) -> Result<T, Finding> {
    Err(Finding::Audit(format!("in address space {}, {what}", book.asid.0)))
}

fn look(stage: &Stage, with_plain: bool) -> Result<(), Finding> {
    stage.checked.settle();
    stage.checked.cores().try_for_each(|core| device(&stage.checked, core, with_plain))
}

/// One device.
fn device(checked: &Checked, core: &Core, with_plain: bool) -> Result<(), Finding> {
    let books = core.device().books();
    if let Some(pagemap) = core.device().pagemaps().iter().find(|pagemap| !pagemap.is_sound()) {
        return Err(Finding::Audit(format!(
            "an allocation of {:?} names other pages than it counts, or keeps blocks without a page",
            pagemap.id()
        )));
    }
    tiles(core).try_for_each(|tile| spaces(core, &books, tile))?;
    let looked: Vec<&SpaceBook> = books.iter().filter(|book| with_plain || book.mirrors).collect();
    tiles(core).try_for_each(|tile| cached(core, &looked, tile))?;
    for book in looked {
        kept(book)?;
        book.ranges.iter().try_for_each(|range| sound(checked, book, range))?;
        tiles(core).try_for_each(|tile| leaves(checked, core, book, tile))?;
    }
    let still = |book: &Book| book.stats.directions.keys().find(|way| way.from == way.to).copied();
    match core.ledger().look(still) {
        Some(way) => Err(Finding::Audit(format!("pages of {:?} migrated to where they were", way.to))),
        None => Ok(()),
    }
}

/// A tile walks the tables of the VMs that live, and those of migrations.
fn spaces(core: &Core, books: &[SpaceBook], tile: TileId) -> Result<(), Finding> {
    let live: BTreeSet<u32> = books.iter().map(|book| book.asid.0).collect();
    let walked = core.gpu().spaces(tile).into_iter().map(|asid| asid.0);
    let walked: BTreeSet<u32> = walked.filter(|asid| *asid as usize > tiles(core).count()).collect();
    match walked.symmetric_difference(&live).next() {
        None => Ok(()),
        Some(asid) => Err(Finding::Audit(format!(
            "{} has a root for address space {asid}: {}, and its VM lives: {}",
            name(core, tile),
            walked.contains(asid),
            live.contains(asid)
        ))),
    }
}

/// What a TLB holds is what the tables say.
fn cached(core: &Core, books: &[&SpaceBook], tile: TileId) -> Result<(), Finding> {
    let gpu = core.gpu();
    let spaces = gpu.spaces(tile);
    for entry in gpu.cached(tile) {
        if !spaces.contains(&entry.asid) {
            return Err(Finding::Audit(format!(
                "the TLB of {} translates {:?} of address space {}, which ended",
                name(core, tile),
                entry.span,
                entry.asid.0
            )));
        }
        let Some(book) = books.iter().find(|book| book.asid == entry.asid) else { continue };
        if gpu.look(tile, entry.asid, entry.span.start) != Some(entry.leaf) {
            return wrong(
                book,
                format!("the TLB of {} translates {:?}, which has another leaf", name(core, tile), entry.span),
            );
        }
    }
    Ok(())
}

/// Nothing is kept that nobody asks after.
fn kept(book: &SpaceBook) -> Result<(), Finding> {
    if book.idle_notifiers > 0 {
        return wrong(book, format!("{} notifiers have no range", book.idle_notifiers));
    }
    match book.idle_tables.first() {
        Some(span) => wrong(book, format!("a page table for {span:?} has no leaf, no range and no bind")),
        None => Ok(()),
    }
}

/// A range is of one kind of memory, is valid where it is bound, and is marked where its memory went.
fn sound(checked: &Checked, book: &SpaceBook, range: &RangeBook) -> Result<(), Finding> {
    let span = range.span;
    if range.is_mixed() {
        return wrong(book, format!("the range at {span:?} has pages in VRAM and in system memory"));
    }
    if range.tiles != 0 && range.chunks.is_empty() {
        return wrong(book, format!("the range at {span:?} is bound, and its pages are not mapped"));
    }
    if checked.live().is_none() && !range.unmapped && !checked.sim.is_mapped(span) {
        return wrong(book, format!("the range at {span:?} is not marked, and its memory is gone"));
    }
    Ok(())
}

/// Every leaf is of a range that is bound there, and leads where the process has the page; every bound range has all of its
/// leaves.
fn leaves(checked: &Checked, core: &Core, book: &SpaceBook, tile: TileId) -> Result<(), Finding> {
    let leaves = core.gpu().leaves(tile, book.asid);
    let shown = |range: &RangeBook| checked.live().is_none().then(|| checked.sim.pages(range.span));
    let bound = book.ranges.iter().filter(|range| range.bound_on(tile)).map(|range| (range, shown(range)));
    let bound: Vec<(&RangeBook, Option<Vec<Shown>>)> = bound.collect();
    for leaf in &leaves {
        match bound.iter().find(|(range, _)| range.span.mirror().overlaps(leaf.span)) {
            Some((range, process)) => leads_there(checked, core, book, (range, process.as_deref()), leaf)?,
            None if book.bound.iter().any(|bind| bind.overlaps(leaf.span)) => {}
            None => {
                return wrong(book, format!("{} has a leaf at {:?} that is of no range", name(core, tile), leaf.span));
            }
        }
    }
    for (range, _) in bound {
        let inside = |leaf: &&Translation| range.span.mirror().overlaps(leaf.span);
        let pages: usize = leaves.iter().filter(inside).map(|leaf| pages_of(leaf.span.len())).sum();
        if pages != range.span.pages() {
            let (span, tile) = (range.span, name(core, tile));
            return wrong(book, format!("the range at {span:?} is bound on {tile} by {pages} pages"));
        }
    }
    Ok(())
}

/// Where the process has a page, and whether a store must be told of first.
type Shown = (Option<Place>, bool);

fn leads_there(
    checked: &Checked,
    core: &Core,
    book: &SpaceBook,
    (range, process): (&RangeBook, Option<&[Shown]>),
    leaf: &Translation,
) -> Result<(), Finding> {
    let at = |page: usize| leaf.span.start.add(page as u64 * SZ_4K).mirrored();
    for page in 0..pages_of(leaf.span.len()) {
        let target = leaf.leaf.addr + page as u64 * SZ_4K;
        let index = range.span.page_index(at(page));
        let collected = range.page(index);
        if collected.is_none_or(|(addr, proto)| addr != target || (proto == Proto::Vram) != leaf.leaf.device) {
            return wrong(book, format!("the leaf of {:?} leads to {target:#x}, not to {collected:x?}", at(page)));
        }
        let Some((place, protected)) = process.map(|pages| pages[index]) else { continue };
        let leads = match leaf.leaf.device {
            true => Behind::Vram(core.id(), Dpa(target)),
            false => core.gpu().bus_frame(Iova(target)).map_or(Behind::Nothing, behind),
        };
        if place.is_none_or(|place| expected(checked, place) != leads) {
            return wrong(book, format!("the leaf of {:?} leads to {target:#x}, the process has {place:?}", at(page)));
        }
        if leaf.leaf.write && protected {
            return wrong(book, format!("the leaf of {:?} may write, the process may not", at(page)));
        }
    }
    Ok(())
}

/// What a leaf leads to.
#[derive(PartialEq, Eq)]
enum Behind {
    System(HostFrame),
    Vram(DeviceId, Dpa),
    Nothing,
}

/// What a frame of the bus is: system memory, or VRAM in a device's window.
fn behind(frame: HostFrame) -> Behind {
    Interconnect::behind_window(frame).map_or(Behind::System(frame), |(device, dpa)| Behind::Vram(device, dpa))
}

/// What a leaf must lead to for a page of the process.
fn expected(checked: &Checked, place: Place) -> Behind {
    match place {
        Place::Host(frame) => Behind::System(frame),
        Place::Device(page) => checked.vram(page).map_or(Behind::Nothing, |(device, dpa)| Behind::Vram(device, dpa)),
    }
}
