//! What the leaves of a span are: from segments of device addresses to runs of page-table entries.
//!
//! A [`Segment`] is a contiguous piece of the span that is contiguous for the device too, in one kind of memory.
//! [`plan`] cuts segments into [`Run`]s: consecutive entries of one size. Each leaf is as large as alignment of
//! both sides allows: 1G, 2M, else 4K; a 4K leaf carries PS64 where its whole 64K window is one segment and
//! aligned on the device's side.
//!
//! Where a device needs 64K, VRAM must be mapped by leaves of 64K or more: a window that is not is an error
//! here ([`PlanError::Granule`]), and the caller brings those pages back. Compact tables of 64K entries are not
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
    let mut runs: Vec<Run> = Vec::with_capacity(segments.len());
    for segment in segments {
        let mut at = 0;
        while at < segment.bytes {
            let (level, ps64, end) = stretch(segment, at);
            if level == 0 && !ps64 && segment.memory == Memory::Vram && granule == VramGranule::Needs64K {
                return Err(PlanError::Granule);
            }
            let count = (end - at) / entry_bytes(level);
            push(&mut runs, Run { va: segment.va.add(at), level, count, first: leaf(segment, at, access, ps64) });
            at = end;
        }
    }
    Ok(runs)
}

/// The largest leaves that can stand `at` bytes into the segment: their level, whether they carry PS64, and where they
/// end, in bytes into the segment.
fn stretch(segment: &Segment, at: u64) -> (u8, bool, u64) {
    let fits = |size: u64| first_fit(segment, at, size);
    let end_of = |size: u64| (segment.va.0 + segment.bytes) / size * size - segment.va.0;
    let larger = |level: u8| if level < MAX_LEAF_LEVEL { fits(entry_bytes(level + 1)) } else { segment.bytes };
    match (1..=MAX_LEAF_LEVEL).rev().find(|level| fits(entry_bytes(*level)) == at) {
        Some(level) => (level, false, end_of(entry_bytes(level)).min(larger(level))),
        None if fits(SZ_64K) == at => (0, true, end_of(SZ_64K).min(larger(0))),
        None => (0, false, fits(SZ_64K)),
    }
}

/// The first place from `at` on where a page of `size` fits, aligned on both sides; the segment's end where none does.
fn first_fit(segment: &Segment, at: u64, size: u64) -> u64 {
    let start = (segment.va.0 + at).next_multiple_of(size) - segment.va.0;
    let fits = (segment.addr + start).is_multiple_of(size) && start + size <= segment.bytes;
    if fits { start } else { segment.bytes }
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

/// Appends a run, to the last one where it goes on.
fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.level == run.level && last.end() == run.va && last.leaf(last.count) == run.first => {
            last.count += run.count;
        }
        _ => runs.push(run),
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
