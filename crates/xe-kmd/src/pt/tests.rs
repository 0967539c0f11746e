//! Page tables against a recorded device: what is planned is what a walk finds.

use super::build::{Access, Memory, PlanError, Segment, VramGranule, coalesce, plan};
use super::*;
use crate::testing::FakeHw;
use std::collections::BTreeMap;
use units::{SZ_2M, SZ_4K, SZ_64K, TileId};
use xe_spec::fault::Asid;
use xe_spec::platform::PVC;
use xe_spec::pte::Entry;

const ACCESS: Access = Access { write: true, atomic_vram: true, atomic_system: false, pat: 3 };
const HERE: (TileId, Asid) = (TileId(0), Asid(7));

struct Bench {
    hw: FakeHw,
    pool: TablePool,
    pt: PageTable,
}

fn bench() -> Bench {
    let hw = FakeHw::default();
    let pool = TablePool::new(PVC.tiles[0].tables_base, 64 * SZ_4K);
    let pt = PageTable::new(&pool, 4).unwrap();
    hw.set_root(HERE.0, HERE.1, pt.root(), true);
    Bench { hw, pool, pt }
}

impl Bench {
    fn bind(&mut self, segments: &[Segment]) -> Committed {
        let runs = plan(segments, ACCESS, VramGranule::Needs64K).unwrap();
        self.pt.stage(&self.hw, &self.pool, &runs).unwrap();
        self.pt.commit(&self.hw, Leaf::encode, &runs).unwrap()
    }

    /// Device address of `va`, its level and leaf.
    fn at(&self, va: u64) -> Option<(u64, u8, Leaf)> {
        let (level, leaf) = self.hw.walk(HERE.0, HERE.1, GpuVa(va))?;
        Some((leaf.addr + va % entry_bytes(level), level, leaf))
    }

    /// Whether the last table of `va` is linked in its compact form.
    fn is_compact(&self, va: u64) -> bool {
        let table = self.pt.table_at(GpuVa(va), 1).unwrap();
        let entry = Entry::decode(self.hw.table_read(table, index_of(GpuVa(va), 1)), 1);
        matches!(entry, Entry::Table { compact: true, .. })
    }
}

fn segment(va: u64, addr: u64, bytes: u64, memory: Memory) -> Segment {
    Segment { va: GpuVa(va), addr, bytes, memory }
}

#[test]
fn leaves_are_as_large_as_both_sides_allow() {
    let mut b = bench();
    let done = b.bind(&[
        segment(0x4000_0000, 0x10_0020_0000, SZ_2M, Memory::Vram),
        segment(0x4020_0000, 0x10_0041_0000, SZ_64K, Memory::Vram),
        segment(0x4021_0000, 0x9_1000, 2 * SZ_4K, Memory::System),
        segment(0x4022_0000, 0x20_0000, SZ_64K, Memory::System),
    ]);
    assert_eq!(done, Committed { leaves: 1 + 16 + 2 + 16, replaced: false });
    let (addr, level, leaf) = b.at(0x4000_5008).unwrap();
    assert_eq!((addr, level, leaf.device, leaf.atomic, leaf.write), (0x10_0020_5008, 1, true, true, true));
    let (addr, level, leaf) = b.at(0x4020_f000).unwrap();
    assert_eq!((addr, level, leaf.ps64, leaf.device), (0x10_0041_f000, 0, true, true));
    let (addr, level, leaf) = b.at(0x4021_1000).unwrap();
    assert_eq!((addr, level, leaf.ps64, leaf.device, leaf.atomic), (0x9_2000, 0, false, false, false));
    assert!(b.at(0x4022_0000).unwrap().2.ps64, "aligned system memory carries it too");
    assert_eq!(b.at(0x4021_2000), None);
}

#[test]
fn vram_below_64k_is_refused_where_it_must_be() {
    let cases = [
        segment(0x1_0000, 0x10_0000_0000, SZ_4K, Memory::Vram),
        segment(0x1_0000, 0x10_0000_1000, SZ_64K, Memory::Vram),
        segment(0x1_1000, 0x10_0000_0000, 2 * SZ_64K, Memory::Vram),
        segment(0x1_0000, 0x10_0000_0000, SZ_64K + SZ_4K, Memory::Vram),
    ];
    for case in cases {
        assert_eq!(plan(&[case], ACCESS, VramGranule::Needs64K), Err(PlanError::Granule), "{case:?}");
        assert!(plan(&[case], ACCESS, VramGranule::Any).is_ok());
    }
}

#[test]
fn chunks_join_only_where_both_sides_go_on() {
    let pieces = [
        segment(0x1000, 0x8000, SZ_4K, Memory::System),
        segment(0x2000, 0x9000, SZ_4K, Memory::System),
        segment(0x3000, 0xa000, SZ_4K, Memory::Vram),
        segment(0x4000, 0xf000, SZ_4K, Memory::Vram),
    ];
    let joined = coalesce(pieces.into_iter());
    assert_eq!(joined.iter().map(|s| s.bytes).collect::<Vec<_>>(), [2 * SZ_4K, SZ_4K, SZ_4K]);
}

#[test]
fn a_zap_clears_its_span_and_frees_nothing() {
    let mut b = bench();
    b.bind(&[segment(0, 0x10_0020_0000, 2 * SZ_64K, Memory::Vram)]);
    let free_before = b.hw.live_entries();
    assert_eq!(b.pt.zap(&b.hw, GpuRange::sized(GpuVa(0), SZ_64K)), 16);
    assert_eq!((b.at(0), b.at(0xf000)), (None, None));
    assert!(b.at(0x1_0000).is_some());
    assert_eq!(b.hw.live_entries(), free_before - 16);
    assert_eq!(b.pt.prune(&b.hw, GpuRange::sized(GpuVa(0), SZ_64K)), [], "the table is still in use");
    assert_eq!(b.pt.zap(&b.hw, GpuRange::sized(GpuVa(0), SZ_2M)), 16);
    assert_eq!(b.pt.prune(&b.hw, GpuRange::sized(GpuVa(0), SZ_64K)).len(), 4);
    assert_eq!(b.hw.live_entries(), 0);
}

#[test]
fn a_2m_leaf_and_a_table_take_turns_at_one_entry() {
    let mut b = bench();
    let small = segment(0, 0x10_0020_0000, SZ_64K, Memory::Vram);
    let large = segment(0, 0x10_0040_0000, SZ_2M, Memory::Vram);
    assert!(!b.bind(&[small]).replaced);
    assert!(b.bind(&[large]).replaced, "a table with leaves gave way");
    assert_eq!(b.at(0x5000).map(|(addr, level, _)| (addr, level)), Some((0x10_0040_5000, 1)));
    b.pt.zap(&b.hw, GpuRange::sized(GpuVa(0), SZ_2M));
    assert!(!b.bind(&[small]).replaced);
    assert_eq!(b.at(0x5000).map(|(addr, level, _)| (addr, level)), Some((0x10_0020_5000, 0)));
    assert_eq!(b.at(0x1_0000), None, "the parked table kept no leaf");
    assert!(b.bind(&[large]).replaced);
    assert!(b.bind(&[small]).replaced, "a leaf gave way to its table");
    assert!(!b.bind(&[small]).replaced, "the same leaf again is no change");
}

/// 2M of VRAM in pages of 64K that do not follow each other as a page of 2M would.
fn pieces(va: u64, addr: u64) -> [Segment; 2] {
    let half = SZ_2M / 2;
    [segment(va, addr + 3 * SZ_64K, half, Memory::Vram), segment(va + half, addr + 5 * SZ_2M, half, Memory::Vram)]
}

const VRAM: u64 = 0x10_0000_0000;

#[test]
fn two_megabytes_of_64k_pages_are_a_compact_table() {
    let mut b = bench();
    let (va, half) = (0x4000_0000, SZ_2M / 2);
    let done = b.bind(&pieces(va, VRAM));
    assert_eq!((done, b.is_compact(va)), (Committed { leaves: 32, replaced: false }, true));
    for at in (0..SZ_2M).step_by(SZ_4K as usize) {
        let addr = if at < half { VRAM + 3 * SZ_64K + at } else { VRAM + 5 * SZ_2M + at - half };
        assert_eq!(b.at(va + at).map(|(addr, _, leaf)| (addr, leaf.device)), Some((addr, true)), "{at:#x}");
    }
    // What is not covered from end to end is not: a hole, or a page that is not aligned.
    b.bind(&[segment(va + SZ_2M, VRAM + SZ_64K, SZ_2M - SZ_64K, Memory::Vram)]);
    assert!(!b.is_compact(va + SZ_2M));
    b.bind(&[segment(va + 2 * SZ_2M, 0x9_1000, SZ_2M, Memory::System)]);
    assert!(!b.is_compact(va + 2 * SZ_2M));
    // System memory may be, too, and both kinds in one table.
    let [vram, _] = pieces(va + 3 * SZ_2M, VRAM);
    b.bind(&[vram, segment(va + 3 * SZ_2M + half, 0x9_0000, half, Memory::System)]);
    assert!(b.is_compact(va + 3 * SZ_2M));
    assert_eq!(b.at(va + 3 * SZ_2M + half).map(|(addr, _, leaf)| (addr, leaf.device)), Some((0x9_0000, false)));
}

#[test]
fn a_part_of_a_compact_table_goes_by_64k() {
    let mut b = bench();
    let va = 0x4000_0000;
    b.bind(&pieces(va, VRAM));
    assert_eq!(b.pt.zap(&b.hw, GpuRange::sized(GpuVa(va + SZ_64K), 2 * SZ_64K)), 2);
    assert_eq!(b.pt.zap(&b.hw, GpuRange::sized(GpuVa(va + 5 * SZ_64K + SZ_4K), SZ_4K)), 1, "the page it lies in");
    let there: Vec<bool> = (0..7).map(|n| b.at(va + n * SZ_64K).is_some()).collect();
    assert_eq!(there, [true, false, false, true, true, false, true]);
    assert_eq!(b.pt.prune(&b.hw, GpuRange::sized(GpuVa(va), SZ_2M)), [], "the table is still in use");
    assert_eq!(b.pt.zap(&b.hw, GpuRange::sized(GpuVa(va), SZ_2M)), 29);
    assert_eq!(b.pt.prune(&b.hw, GpuRange::sized(GpuVa(va), SZ_2M)).len(), 4);
    assert_eq!(b.hw.live_entries(), 0);
}

#[test]
fn the_forms_of_a_table_and_a_2m_leaf_take_turns() {
    let mut b = bench();
    let va = 0x4000_0000;
    let page = |b: &Bench| b.at(va + SZ_64K).map(|(addr, level, _)| (addr, level));
    let (small, large) = ([segment(va + SZ_64K, VRAM, SZ_64K, Memory::Vram)], [segment(va, VRAM, SZ_2M, Memory::Vram)]);
    let compact = pieces(va, VRAM);
    let (by_small, by_compact, by_large) = ((VRAM, 0), (VRAM + 4 * SZ_64K, 0), (VRAM + SZ_64K, 1));
    assert!(!b.bind(&small).replaced);
    let mut now = by_small;
    let turns = [by_compact, by_small, by_large, by_compact, by_large, by_small, by_compact];
    for turn in turns {
        let segments: &[Segment] = match turn {
            _ if turn == by_small => &small,
            _ if turn == by_large => &large,
            _ => &compact,
        };
        assert_eq!(page(&b), Some(now));
        assert!(b.bind(segments).replaced, "{now:x?} gives way to {turn:x?}");
        assert_eq!(page(&b), Some(turn));
        assert_eq!(b.at(va + 7 * SZ_64K).is_some(), turn != by_small, "what gave way kept no leaf");
        assert!(!b.bind(segments).replaced, "the same again is no change");
        now = turn;
    }
    b.pt.destroy(&b.hw, &b.pool);
    assert_eq!((b.hw.live_entries(), b.pool.used()), (0, 0));
}

#[test]
fn a_destroyed_table_leaves_an_empty_pool() {
    let mut b = bench();
    b.bind(&[segment(0x7fff_0000_0000, 0x10_0000_0000, 4 * SZ_2M, Memory::Vram)]);
    b.bind(&[segment(0, 0x9000, SZ_4K, Memory::System)]);
    b.pt.destroy(&b.hw, &b.pool);
    assert_eq!(b.hw.live_entries(), 0);
    let again: std::collections::BTreeSet<_> = std::iter::from_fn(|| b.pool.alloc()).collect();
    assert_eq!(again.len(), 64, "every table came back, once");
}

#[test]
fn random_binds_and_zaps_agree_with_a_flat_map() {
    let mut state = 42u64;
    let mut random = move |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % n
    };
    let mut b = bench();
    let base = 0x7f00_0000_0000u64;
    let mut flat: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
    let (mut large, mut compact) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for _ in 0..400 {
        let (size, in_pieces) = [(SZ_4K, false), (SZ_64K, false), (SZ_2M, false), (SZ_2M, true)][random(4) as usize];
        let va = base + random(6 * SZ_2M / size) * size;
        let pages = (0..size / SZ_4K).map(|n| n * SZ_4K);
        if random(3) == 0 {
            b.pt.zap(&b.hw, GpuRange::sized(GpuVa(va), size));
            pages.for_each(|at| _ = flat.remove(&(va + at)));
            // A leaf that is touched goes whole.
            flat.retain(|at, _| !large.contains(&(at / SZ_2M)) || at / SZ_2M != va / SZ_2M);
            flat.retain(|at, _| {
                !compact.contains(&(at / SZ_2M)) || at / SZ_64K < va / SZ_64K || at / SZ_64K * SZ_64K >= va + size
            });
        } else {
            // As ranges do: what overlaps goes first, whole.
            b.pt.zap(&b.hw, GpuRange::around(GpuVa(va), SZ_2M));
            let block = va / SZ_2M * SZ_2M;
            flat.retain(|at, _| at / SZ_2M * SZ_2M != block);
            large.remove(&(va / SZ_2M));
            compact.remove(&(va / SZ_2M));
            if in_pieces {
                compact.insert(va / SZ_2M);
                let pieces = pieces(va, VRAM + random(8) * SZ_2M);
                b.bind(&pieces);
                for piece in pieces {
                    let pages = (0..piece.bytes / SZ_4K).map(|n| n * SZ_4K);
                    pages.for_each(|at| _ = flat.insert(piece.va.0 + at, (piece.addr + at, true)));
                }
                continue;
            }
            large.extend((size == SZ_2M).then_some(va / SZ_2M));
            let device = size > SZ_4K && random(2) == 0;
            let addr = 0x10_0000_0000 + random(64) * size;
            let memory = if device { Memory::Vram } else { Memory::System };
            b.bind(&[segment(va, addr, size, memory)]);
            pages.for_each(|at| _ = flat.insert(va + at, (addr + at, device)));
        }
        for page in (0..6 * SZ_2M / SZ_4K).map(|n| base + n * SZ_4K) {
            let got = b.at(page).map(|(addr, _, leaf)| (addr, leaf.device));
            assert_eq!(got, flat.get(&page).copied(), "{page:#x}");
        }
    }
}

/// The largest leaf that can stand `at` bytes into a segment, by trying: its level, PS64, and whether it is in a compact table.
fn by_trying(s: &Segment, at: u64) -> (u8, bool, bool) {
    let fits = |size: u64, at: u64| {
        (s.va.0 + at).is_multiple_of(size) && (s.addr + at).is_multiple_of(size) && at + size <= s.bytes
    };
    let level = (1..=2).rev().find(|level| fits(entry_bytes(*level), at)).unwrap_or(0);
    let window = (s.va.0 + at) / SZ_64K * SZ_64K;
    let ps64 = level == 0 && window >= s.va.0 && fits(SZ_64K, window - s.va.0);
    let table = (s.va.0 + at) / SZ_2M * SZ_2M;
    let compact = ps64 && table >= s.va.0 && table + SZ_2M <= s.va.0 + s.bytes;
    (level, ps64 && !compact, compact)
}

#[test]
fn a_plan_is_what_trying_at_every_page_finds() {
    let offsets = [0, SZ_4K, SZ_64K - SZ_4K, SZ_64K, SZ_2M - SZ_64K, SZ_2M, 5 * SZ_2M + 3 * SZ_4K];
    let lengths = [SZ_4K, 15 * SZ_4K, SZ_64K, SZ_64K + SZ_4K, SZ_2M - SZ_4K, SZ_2M, 2 * SZ_2M + SZ_64K + SZ_4K];
    for (va, addr, bytes) in offsets
        .iter()
        .flat_map(|va| offsets.iter().map(move |addr| (va, addr)))
        .flat_map(|(va, addr)| lengths.iter().map(move |bytes| (0x4000_0000 + va, 0x10_0000_0000 + addr, *bytes)))
    {
        let segment = segment(va, addr, bytes, Memory::System);
        let mut at = 0;
        for run in plan(&[segment], ACCESS, VramGranule::Any).unwrap() {
            for n in 0..run.count {
                let (here, leaf) = (va + at, run.leaf(n));
                assert_eq!((run.va.0 + n * run.form.entry_bytes(), leaf.addr), (here, addr + at));
                let planned = (run.form.level, leaf.ps64, run.form.compact);
                assert_eq!(planned, by_trying(&segment, at), "{at:#x} of {segment:?}");
                at += run.form.entry_bytes();
            }
        }
        assert_eq!(at, bytes);
    }
}
