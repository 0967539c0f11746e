//! Binding: a range's pages become leaves of a tile's page table.
//!
//! Optimistic, in three steps. Under the notifier lock the pages are read; without it the leaves are planned and
//! the tables they need are made; under it again the leaves are written, if the pages are still valid. An
//! invalidation in between makes the bind [`Stale`](BindError::Stale): the caller collects pages anew. Where somebody took
//! empty tables out in between, the leaves are staged again.
//!
//! Leaves are written by the CPU, at once: there are no bind jobs, so no fence to wait for. VRAM that was bound counts as
//! used just now.
//!
//! Locking: the VM's lock is held, shared, and the range's; takes the notifier lock and below.
//!
//! Upstream: `xe_vm_range_rebind`, `xe_pt_update_ops_prepare`, `xe_pt_svm_pre_commit`, `xe_pt_update_ops_run`.

use gpusvm::{PagemapAddr, Proto, RangeKey};
use sync::time::now_ns;
use units::{Dpa, GpuRange, GpuVa, PAGE_SHIFT, TileId, bytes_of};

use super::{Space, Staged, Svm};
use crate::event::Event;
use crate::pt::NoTable;
use crate::pt::build::{self, Access, Memory, PlanError, Run, Segment};

/// How a bind failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BindError {
    /// The pages changed: collect them again. (`-EAGAIN`)
    Stale,
    /// Pages in VRAM that the tile does not reach: bring them back first.
    Unreachable,
    /// Pages in VRAM that no leaf can map: [`UnfitVram`](crate::UnfitVram) says what follows.
    Unfit,
    /// Tables are short. (`-ENOMEM`)
    NoMemory,
}

impl From<NoTable> for BindError {
    fn from(NoTable: NoTable) -> Self {
        Self::NoMemory
    }
}

impl From<PlanError> for BindError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Granule => Self::Unfit,
        }
    }
}

/// Binds a range's pages, which were collected, on one tile.
pub(crate) fn bind_range(
    space: &Space,
    svm: &Svm,
    key: RangeKey,
    tile: TileId,
    access: Access,
) -> Result<(), BindError> {
    let start = now_ns();
    let (span, segments) = read_pages(space, svm, key, tile)?;
    let runs = build::plan(&segments, access, space.gpu.granule())?;
    let leaves = loop {
        let staged = space.stage(tile, &runs)?;
        if let Some(leaves) = commit(space, svm, key, tile, &runs, staged)? {
            break leaves;
        }
    };
    for segment in segments.iter().filter(|segment| segment.memory == Memory::Vram) {
        space.gpu.vram_touch(Dpa(segment.addr), segment.bytes);
    }
    space.gpu.emit(Event::Bind { asid: space.asid, tile, span, leaves, ns: now_ns() - start });
    Ok(())
}

/// The range's span, and its pages as the tile addresses them.
fn read_pages(space: &Space, svm: &Svm, key: RangeKey, tile: TileId) -> Result<(GpuRange, Vec<Segment>), BindError> {
    let locked = svm.notifier_lock();
    let range = locked.range(key).filter(|range| range.pages().valid()).ok_or(BindError::Stale)?;
    if range.pages().pagemap().is_some_and(|vram| !space.gpu.reaches(tile, vram)) {
        return Err(BindError::Unreachable);
    }
    let span = range.span().mirror();
    Ok((span, segments(span.start, range.pages().dma_addr())))
}

/// Packed chunks from `start`, joined where they go on.
fn segments(start: GpuVa, chunks: &[PagemapAddr]) -> Vec<Segment> {
    let mut page = 0u64;
    build::coalesce(chunks.iter().map(|chunk| {
        let va = start.add(page << PAGE_SHIFT);
        page += chunk.pages() as u64;
        Segment { va, addr: chunk.addr, bytes: bytes_of(chunk.pages()), memory: memory_of(chunk.proto) }
    }))
}

/// What a protocol reaches.
pub(super) const fn memory_of(proto: Proto) -> Memory {
    match proto {
        Proto::Vram => Memory::Vram,
        Proto::System => Memory::System,
        Proto::P2p => Memory::Peer,
    }
}

/// Writes the leaves if the pages are still those of the plan; the number of leaves. `None`: they are not staged any more.
fn commit(
    space: &Space,
    svm: &Svm,
    key: RangeKey,
    tile: TileId,
    runs: &[Run],
    staged: Staged,
) -> Result<Option<u32>, BindError> {
    let mut locked = svm.notifier_lock();
    if !locked.pages_valid(key) {
        return Err(BindError::Stale);
    }
    let Some(range) = locked.range_mut(key) else { return Err(BindError::Stale) };
    let Some(done) = space.commit(tile, runs, staged) else { return Ok(None) };
    range.data.tile_present |= tile.bit();
    range.data.tile_invalidated &= !tile.bit();
    if done.replaced {
        space.gpu.flush(tile, space.asid, range.span().mirror());
    }
    Ok(Some(done.leaves))
}
