//! What the leaves of a span are: from segments of device addresses to runs of page-table entries.
//!
//! A [`Segment`] is a contiguous piece of the span that is contiguous for the device too, in one kind of memory.
//! [`plan`] cuts segments into [`Run`]s: consecutive entries of one size. Each leaf is as large as alignment of
//! both sides allows: 1G, 2M, else 4K; a 4K leaf carries PS64 where its whole 64K window is one segment and
//! aligned on the device's side. Where all windows of an aligned 2M are so, the leaves are 32 of 64K, in a compact table.
//!
//! Where a device needs 64K, VRAM must be mapped by leaves of 64K or more: a window that is not is an error
//! here ([`PlanError::Granule`]), and the caller brings those pages back.
//!
//! Upstream: `xe_pt_stage_bind_entry`, `xe_pt_scan_64K`, `xe_pt_hugepte_possible`.

use units::{GpuRange, GpuVa, SZ_2M, SZ_4K, SZ_64K};
use xe_spec::pte::Leaf;

use super::{Form, entry_bytes};

/// Largest level at which a leaf may stand: 1G.
const MAX_LEAF_LEVEL: u8 = 2;

/// What a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    /// System memory: bus addresses.
    System,
    /// VRAM: device addresses.
    Vram,
    /// A peer's VRAM in its window: bus addresses. Atomics do not go there.
    Peer,
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
    /// The tables that they stand in.
    pub form: Form,
    /// Number of entries.
    pub count: u64,
    /// The first of them; the others differ in their address only.
    first: Leaf,
}

impl Run {
    /// First address behind.
    pub(crate) const fn end(&self) -> GpuVa {
        self.va.add(self.count * self.form.entry_bytes())
    }

    fn span(&self) -> GpuRange {
        GpuRange::new(self.va, self.end())
    }

    /// What of it lies in `span`, by entries of `form`.
    fn part(&self, span: GpuRange, form: Form) -> Self {
        let first = self.leaf(span.start.offset_from(self.va) / self.form.entry_bytes());
        let ps64 = first.ps64 && !form.compact;
        Self { va: span.start, form, count: span.len() / form.entry_bytes(), first: Leaf { ps64, ..first } }
    }

    /// Entry `n`.
    pub(crate) const fn leaf(&self, n: u64) -> Leaf {
        Leaf { addr: self.first.addr + n * self.form.entry_bytes(), ..self.first }
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
            let (form, count) = (Form::of(level), (end - at) / entry_bytes(level));
            push(&mut runs, Run { va: segment.va.add(at), form, count, first: leaf(segment, at, access, ps64) });
            at = end;
        }
    }
    Ok(if may_be_compact(&runs) { with_compact(&runs) } else { runs })
}

/// Whether there are PS64 leaves, and room for a whole table of them.
fn may_be_compact(runs: &[Run]) -> bool {
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return false };
    last.end().offset_from(first.va) >= SZ_2M && runs.iter().any(|run| run.first.ps64)
}

/// The same, with compact tables where they can be: every aligned 2M that PS64 leaves cover from end to end.
fn with_compact(runs: &[Run]) -> Vec<Run> {
    let mut out = Vec::with_capacity(runs.len());
    let mut rest = runs;
    while let Some(first) = rest.first() {
        let goes_on = |(one, next): (&Run, &Run)| next.first.ps64 && one.end() == next.va;
        let count = 1 + rest.iter().zip(&rest[1..]).take_while(|pair| first.first.ps64 && goes_on(*pair)).count();
        let (chain, behind) = rest.split_at(count);
        rest = behind;
        let end = chain.last().map_or(first.end(), Run::end);
        let whole = GpuRange::new(first.va.align_up(SZ_2M), end.align_down(SZ_2M).max(first.va.align_up(SZ_2M)));
        for run in chain {
            let Some(inside) = run.span().intersect(whole).filter(|_| first.first.ps64) else {
                push(&mut out, *run);
                continue;
            };
            let (before, after) = (GpuRange::new(run.va, inside.start), GpuRange::new(inside.end, run.end()));
            let parts = [(before, run.form), (inside, Form::COMPACT), (after, run.form)];
            parts
                .into_iter()
                .filter(|part| !part.0.is_empty())
                .for_each(|part| push(&mut out, run.part(part.0, part.1)));
        }
    }
    out
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
        atomic: match segment.memory {
            Memory::Vram => access.atomic_vram,
            Memory::System => access.atomic_system,
            Memory::Peer => false,
        },
        null: false,
        ps64,
        pat: access.pat,
    }
}

/// Appends a run, to the last one where it goes on.
fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.form == run.form && last.end() == run.va && last.leaf(last.count) == run.first => {
            last.count += run.count;
        }
        _ => runs.push(run),
    }
}

/// Leaves over `span` that read zeros and drop writes; and atomics, where they say that they are of VRAM, which takes all of them.
pub(crate) fn null_runs(span: GpuRange, write: bool, atomic: bool) -> Vec<Run> {
    let leaf = Leaf { addr: 0, device: atomic, write, atomic, null: true, ps64: false, pat: 0 };
    let level = if span.start.is_aligned(SZ_2M) && span.len() == SZ_2M { 1 } else { 0 };
    vec![Run { va: span.start, form: Form::of(level), count: span.len() / entry_bytes(level), first: leaf }]
}

/// One run of consecutive leaves of `level`, for tables that the driver builds for itself.
pub(crate) fn own_run(va: GpuVa, level: u8, count: u64, first: Leaf) -> Run {
    debug_assert!(va.is_aligned(entry_bytes(level)) && entry_bytes(level) >= SZ_4K);
    Run { va, form: Form::of(level), count, first }
}
