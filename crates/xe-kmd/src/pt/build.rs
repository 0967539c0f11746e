//! What the leaves of a span are: from segments of device addresses to runs of page-table entries.
//!
//! A [`Segment`] is a contiguous piece of the span that is contiguous for the device too, in one kind of memory.
//! [`plan`] cuts segments into [`Run`]s: consecutive entries of one size. Each leaf is as large as alignment of
//! both sides allows: 1G, 2M, else 4K; a 4K leaf carries PS64 where its whole 64K window is one segment and
//! aligned on the device's side.
//!
//! Where a device needs 64K, VRAM must be mapped by leaves of 64K or more: a window that is not is an error
//! here ([`PlanError::Granule`]), and the caller brings those pages home. Compact tables of 64K entries are not
//! built: a 4K table with PS64 says the same.
//!
//! Upstream: `xe_pt_stage_bind_entry`, `xe_pt_scan_64K`, `xe_pt_hugepte_possible`.

use units::{GpuRange, GpuVa, SZ_2M, SZ_4K, SZ_64K};
use xe_spec::pte::Leaf;

use super::entry_bytes;

/// Largest level at which a leaf may stand: 1G.
const MAX_LEAF_LEVEL: u8 = 2;

/// What a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    /// System memory: bus addresses.
    System,
    /// VRAM: device addresses.
    Vram,
}

/// A piece of the span that is contiguous on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    /// First address.
    pub va: GpuVa,
    /// Device's address of it, in the space that `memory` names.
    pub addr: u64,
    /// Bytes, a multiple of 4K.
    pub bytes: u64,
    /// Which space.
    pub memory: Memory,
}

/// What a mapping allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    /// RW.
    pub write: bool,
    /// AE for leaves in VRAM.
    pub atomic_vram: bool,
    /// AE for leaves in system memory.
    pub atomic_system: bool,
    /// PAT index.
    pub pat: u8,
}

/// Consecutive entries of one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// First address.
    pub va: GpuVa,
    /// Level of the tables that they stand in.
    pub level: u8,
    /// Number of entries.
    pub count: u64,
    /// The first of them; the others differ in their address only.
    first: Leaf,
}

impl Run {
    /// First address behind.
    pub(crate) const fn end(&self) -> GpuVa {
        self.va.add(self.count * entry_bytes(self.level))
    }

    /// Entry `n`.
    pub(crate) const fn leaf(&self, n: u64) -> Leaf {
        Leaf { addr: self.first.addr + n * entry_bytes(self.level), ..self.first }
    }
}

/// Why there is no plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PlanError {
    /// VRAM in a window of 64K that is not one aligned page, on a device that needs 64K.
    Granule,
}

/// Whether leaves in VRAM must be of 64K or more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VramGranule {
    /// 4K will do.
    Any,
    /// `XE_VM_FLAG_64K`.
    Needs64K,
}

/// Joins segments that go on where the one before ends, on both sides.
pub(crate) fn coalesce(pieces: impl Iterator<Item = Segment>) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    for piece in pieces {
        match out.last_mut() {
            Some(last)
                if last.memory == piece.memory
                    && last.va.add(last.bytes) == piece.va
                    && last.addr.wrapping_add(last.bytes) == piece.addr =>
            {
                last.bytes += piece.bytes;
            }
            _ => out.push(piece),
        }
    }
    out
}

/// The runs that map `segments`, which are coalesced.
pub(crate) fn plan(segments: &[Segment], access: Access, granule: VramGranule) -> Result<Vec<Run>, PlanError> {
    let mut runs: Vec<Run> = Vec::new();
    for segment in segments {
        let mut at = 0;
        while at < segment.bytes {
            let level = level_at(segment, at);
            let ps64 = level == 0 && window_is_one_page(segment, at);
            if level == 0 && !ps64 && segment.memory == Memory::Vram && granule == VramGranule::Needs64K {
                return Err(PlanError::Granule);
            }
            push(&mut runs, segment.va.add(at), level, leaf(segment, at, access, ps64));
            at += entry_bytes(level);
        }
    }
    Ok(runs)
}

/// Level of the largest leaf that can stand `at` bytes into the segment.
fn level_at(segment: &Segment, at: u64) -> u8 {
    let fits = |level: u8| {
        let size = entry_bytes(level);
        (segment.va.0 + at).is_multiple_of(size)
            && (segment.addr + at).is_multiple_of(size)
            && segment.bytes - at >= size
    };
    (1..=MAX_LEAF_LEVEL).rev().find(|level| fits(*level)).unwrap_or(0)
}

/// Whether the 64K window around `at` lies in the segment and starts at 64K on the device's side too.
fn window_is_one_page(segment: &Segment, at: u64) -> bool {
    let window = GpuRange::around(segment.va.add(at), SZ_64K);
    let whole = GpuRange::sized(segment.va, segment.bytes).covers(window);
    whole && (segment.addr + (window.start.0 - segment.va.0)).is_multiple_of(SZ_64K)
}

fn leaf(segment: &Segment, at: u64, access: Access, ps64: bool) -> Leaf {
    let device = segment.memory == Memory::Vram;
    Leaf {
        addr: segment.addr + at,
        device,
        write: access.write,
        atomic: if device { access.atomic_vram } else { access.atomic_system },
        null: false,
        ps64,
        pat: access.pat,
    }
}

/// Appends one leaf, to the last run where it goes on.
fn push(runs: &mut Vec<Run>, va: GpuVa, level: u8, leaf: Leaf) {
    match runs.last_mut() {
        Some(run) if run.level == level && run.end() == va && run.leaf(run.count) == leaf => run.count += 1,
        _ => runs.push(Run { va, level, count: 1, first: leaf }),
    }
}

/// Leaves over `span` that read zeros and drop writes.
pub(crate) fn null_runs(span: GpuRange, write: bool) -> Vec<Run> {
    let leaf = Leaf { addr: 0, device: false, write, atomic: false, null: true, ps64: false, pat: 0 };
    let level = if span.start.is_aligned(SZ_2M) && span.len() == SZ_2M { 1 } else { 0 };
    vec![Run { va: span.start, level, count: span.len() / entry_bytes(level), first: leaf }]
}

/// One run of consecutive leaves of `level`, for tables that the driver builds for itself.
pub(crate) fn own_run(va: GpuVa, level: u8, count: u64, first: Leaf) -> Run {
    debug_assert!(va.is_aligned(entry_bytes(level)) && entry_bytes(level) >= SZ_4K);
    Run { va, level, count, first }
}
