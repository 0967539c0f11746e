//! What the driver believes of its translations, for an observer that compares it with what the hardware walks and the host mm
//! maps. At rest both must agree: no leaf outlives its range, and nothing is kept that nobody asks after.
//!
//! Locking: each VM's lock, then the notifier lock, then those of its page tables; the caller holds none.

use std::sync::Arc;

use gpusvm::{PagemapAddr, Proto};
use units::{GpuRange, HostRange, TileId};
use xe_spec::fault::Asid;

use crate::device::Device;
use crate::svm::{Space, Svm};
use crate::vm::Vm;
use crate::vma::{Kind, VmaTree};

/// A VM's books.
#[derive(Clone, Debug)]
pub struct SpaceBook {
    /// Its address space.
    pub asid: Asid,
    /// Whether it serves faults and mirrors the process.
    pub mirrors: bool,
    /// Ranges of its mirror, by address.
    pub ranges: Vec<RangeBook>,
    /// What is bound and no mirror.
    pub bound: Vec<GpuRange>,
    /// Notifiers without a range.
    pub idle_notifiers: usize,
    /// Tables without a leaf, where there is neither a range nor a bind.
    pub idle_tables: Vec<GpuRange>,
}

/// A range of a mirror.
#[derive(Clone, Debug)]
pub struct RangeBook {
    /// Its extent.
    pub span: HostRange,
    /// Tiles that translate it; a bit each.
    pub tiles: u8,
    /// Its mapping is gone.
    pub unmapped: bool,
    /// Its pages, as the device reaches them; none where they are not valid.
    pub chunks: Vec<PagemapAddr>,
}

impl RangeBook {
    /// Whether a tile translates it.
    pub const fn bound_on(&self, tile: TileId) -> bool {
        self.tiles & tile.bit() != 0
    }

    /// Whether some of its pages are in VRAM and some are not.
    pub fn is_mixed(&self) -> bool {
        let in_system = |chunk: &PagemapAddr| chunk.proto == Proto::System;
        self.chunks.iter().any(in_system) && !self.chunks.iter().all(in_system)
    }

    /// Where the device reaches a page of it.
    pub fn page(&self, index: usize) -> Option<(u64, Proto)> {
        let mut before = 0;
        self.chunks.iter().find_map(|chunk| {
            let inside = index.checked_sub(before)?;
            before += chunk.pages();
            (inside < chunk.pages()).then_some((chunk.addr + units::bytes_of(inside), chunk.proto))
        })
    }
}

impl Device {
    /// The books of every VM that is open.
    pub fn books(&self) -> Vec<SpaceBook> {
        self.vms.all().iter().filter_map(book).collect()
    }
}

fn book(vm: &Arc<Vm>) -> Option<SpaceBook> {
    let state = vm.state.read();
    if state.closed {
        return None;
    }
    let ranges = vm.svm.as_ref().map(|svm| ranges(svm, vm.window().mirrored())).unwrap_or_default();
    let bound = bound(&state.vmas, vm.window());
    let idle_tables = idle_tables(&vm.space, &ranges, &bound);
    let idle_notifiers = vm.svm.as_ref().map_or(0, |svm| svm.idle_notifiers());
    Some(SpaceBook { asid: vm.asid, mirrors: vm.has_faults(), ranges, bound, idle_notifiers, idle_tables })
}

fn ranges(svm: &Svm, window: HostRange) -> Vec<RangeBook> {
    let locked = svm.notifier_lock();
    let book = |key| {
        let range = locked.range(key)?;
        let tiles = range.data.tile_present & !range.data.tile_invalidated;
        let chunks = range.pages().dma_addr().to_vec();
        Some(RangeBook { span: range.span(), tiles, unmapped: range.unmapped(), chunks })
    };
    locked.ranges_in(window).into_iter().filter_map(book).collect()
}

fn bound(vmas: &VmaTree, window: GpuRange) -> Vec<GpuRange> {
    let all = vmas.overlapping(window).into_iter();
    all.filter(|vma| vma.kind != Kind::Mirror).map(|vma| vma.span).collect()
}

fn idle_tables(space: &Space, ranges: &[RangeBook], bound: &[GpuRange]) -> Vec<GpuRange> {
    let asked_after = |span: &GpuRange| {
        let mut ranges = ranges.iter().map(|range| range.span.mirror());
        ranges.any(|range| range.overlaps(*span)) || bound.iter().any(|bind| bind.overlaps(*span))
    };
    space.empty_tables().into_iter().filter(|span| !asked_after(span)).collect()
}
