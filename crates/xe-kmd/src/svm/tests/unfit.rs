//! Pages in VRAM that no leaf of 64K can map (defect B): three ways to them, and what each variant makes of them.

use super::*;
use xe_uapi::attr::{ATTR_PAT, Madvise};
use xe_uapi::vm::BIND_OP_MAP_USERPTR;

use crate::errno::Errno;
use crate::event::Event;
use crate::rules::UnfitVram;
use upstream::unfit;

/// Unfit pages: in which address space, and where.
type Trigger = fn(&Rig) -> (Asid, u64);

/// B-1: of a block in VRAM one page is unmapped.
fn munmap(rig: &Rig) -> (Asid, u64) {
    let asid = start(rig, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    rig.mm.munmap(HostRange::sized(HostVa(DATA + 0xf000), SZ_4K));
    assert_eq!(pagemap(rig, DATA), T0, "fifteen pages are left behind");
    (asid, DATA)
}

/// B-3: a VM has a range of 4K, from when there was no more memory; another VM migrates the block.
fn small_before(rig: &Rig) -> (Asid, u64) {
    let (small, block) = (start(rig, SZ_64K), HostRange::sized(HostVa(DATA), SZ_64K));
    rig.mm.dontneed(block);
    assert_eq!(rig.fault(0, small, DATA, Access::Write), FaultAck::Replay);
    rig.mm.populate(block);
    let large = mirror(rig);
    assert_eq!(rig.fault(0, large, DATA, Access::Write), FaultAck::Replay);
    assert_eq!((pagemap(rig, DATA), leaf(rig, 0, small, DATA)), (T0, None));
    (small, DATA)
}

/// B-5: a block in VRAM is moved by 4K.
fn mremap(rig: &Rig) -> (Asid, u64) {
    const TO: u64 = DATA + (1 << 30) + SZ_4K;
    let asid = start(rig, SZ_2M);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    rig.mm.mremap(HostRange::sized(HostVa(DATA), SZ_2M), HostVa(TO));
    let window = TO.next_multiple_of(SZ_64K);
    assert_eq!(pagemap(rig, window), T0);
    (asid, window)
}

const TRIGGERS: [Trigger; 3] = [munmap, small_before, mremap];

fn rig(unfit_vram: UnfitVram) -> Rig {
    Rig::with(&PVC, Rules { unfit_vram, ..Rules::CORRECT })
}

fn warnings(rig: &Rig) -> usize {
    rig.log.0.lock().iter().filter(|event| matches!(event, Event::UnfitVram { .. })).count()
}

/// Whether a store is served, which is then from system memory; else it is warned of, and the data is where it was.
fn is_served(rule: UnfitVram, trigger: Trigger) -> bool {
    let rig = rig(rule);
    let (asid, va) = trigger(&rig);
    let served = rig.fault(0, asid, va, Access::Write) == FaultAck::Replay;
    assert_eq!(leaf(&rig, 0, asid, va).map(|(_, leaf)| leaf.device), served.then_some(false));
    assert_eq!((pagemap(&rig, va), warnings(&rig)), if served { (None, 0) } else { (T0, 1) });
    served
}

#[test]
fn each_remedy_is_for_some_ways_and_ours_for_all() {
    let expected = [
        (UnfitVram::OURS, [true; 3]),
        (unfit::UPSTREAM, [false; 3]),
        (unfit::POSTED, [true; 3]),
        (unfit::NONE_BELOW_64K, [true, true, false]),
        (unfit::EVICT_PARTIAL, [true, false, false]),
        (unfit::GRANULE, [true; 3]),
        (unfit::RETRY_ONCE, [true; 3]),
    ];
    for (n, (rule, served)) in expected.into_iter().enumerate() {
        assert_eq!(TRIGGERS.map(|trigger| is_served(rule, trigger)), served, "rule {n}");
    }
}

#[test]
fn what_a_munmap_left_comes_home_as_a_whole() {
    let rig = rig(UnfitVram::OURS);
    let (asid, va) = munmap(&rig);
    assert_eq!(rig.fault(0, asid, va, Access::Write), FaultAck::Replay);
    assert!((0..15).all(|n| pagemap(&rig, va + n * SZ_4K).is_none()));
    assert_eq!(rig.device.vram_used(TileId(0)), 0);
    let (level, page) = leaf(&rig, 0, asid, va).unwrap();
    assert!(level == 0 && !page.device && !page.ps64);
}

#[test]
fn evict_partial_frees_the_vram_before_anybody_touches_the_rest() {
    for (rule, left) in [(UnfitVram::OURS, SZ_64K), (unfit::EVICT_PARTIAL, 0)] {
        let rig = rig(rule);
        let (asid, _) = munmap(&rig);
        // Any fault collects.
        rig.mm.mmap(HostRange::sized(HostVa(DATA + SZ_2M), SZ_4K));
        assert_eq!(rig.fault(0, asid, DATA + SZ_2M, Access::Read), FaultAck::Replay);
        assert_eq!(rig.device.vram_used(TileId(0)), left);
    }
}

/// Defect D4.
#[test]
fn vram_of_what_was_unmapped_is_free_at_once_and_the_rest_stays_without_a_copy() {
    let rig = rig(UnfitVram::OURS);
    let asid = start(&rig, SZ_2M);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!((rig.device.vram_used(TileId(0)), pagemap(&rig, DATA)), (SZ_2M, T0));
    // Twenty blocks of 64K and a half.
    rig.mm.munmap(HostRange::sized(HostVa(DATA + 3 * SZ_64K), 20 * SZ_64K + SZ_64K / 2));
    let rest = SZ_2M - 20 * SZ_64K;
    assert_eq!(rig.device.vram_used(TileId(0)), rest);
    let copies = || rig.hw.state.lock().copies.len();
    let before = copies();
    for va in [DATA, DATA + 24 * SZ_64K] {
        assert_eq!(rig.fault(0, asid, va, Access::Write), FaultAck::Replay);
        assert!(leaf(&rig, 0, asid, va).is_some_and(|(_, leaf)| leaf.device));
    }
    assert_eq!((copies(), rig.device.vram_used(TileId(0))), (before, rest));
    rig.mm.munmap(HostRange::sized(HostVa(DATA), SZ_2M));
    assert_eq!(rig.device.vram_used(TileId(0)), 0);
}

/// B-4: a protection of one page that is taken back clears the mark of a block in VRAM, which advice then cuts.
#[test]
fn advice_leaves_unmarked_pages_in_vram_where_it_goes_by_the_mark() {
    let expected = [
        (UnfitVram::OURS, true),
        (unfit::UPSTREAM, false),
        (unfit::POSTED, true),
        (unfit::NONE_BELOW_64K, true),
        (unfit::EVICT_PARTIAL, false),
        (unfit::GRANULE, true),
        (unfit::RETRY_ONCE, true),
    ];
    for (n, (rule, served)) in expected.into_iter().enumerate() {
        for is_marked in [true, false] {
            let rig = rig(rule);
            let asid = start(&rig, SZ_64K);
            assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
            if !is_marked {
                rig.mm.protect(HostRange::sized(HostVa(DATA + 0xf000), SZ_4K));
            }
            let (start, range) = (DATA + 4 * SZ_4K, 5 * SZ_4K);
            let mut args = Madvise { vm_id: 1, start, range, attr: ATTR_PAT, val: 1, ..Default::default() };
            assert_eq!(rig.ioctl(nr::MADVISE, &mut args), Ok(0));
            let stays = rule.cuts_by_mark && !is_marked;
            assert_eq!(pagemap(&rig, DATA), stays.then_some(T0).flatten(), "rule {n}");
            let served = served || is_marked;
            assert_eq!(rig.fault(0, asid, DATA, Access::Write) == FaultAck::Replay, served, "rule {n}");
            assert_eq!(warnings(&rig), usize::from(!served));
        }
    }
}

/// B-7: a userptr `shift` bytes off over a block in VRAM, of which one page may have come home: what a store through it does.
fn through_userptr(rule: UnfitVram, shift: u64, one_is_home: bool) -> (bool, bool) {
    const AT: u64 = 0x2000_0000;
    let rig = rig(rule);
    let asid = start(&rig, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    if one_is_home {
        let page = HostRange::sized(HostVa(DATA + 0xf000), SZ_4K);
        rig.mm.dontneed(page);
        rig.mm.populate(page);
    }
    let bind =
        VmBindOp { op: BIND_OP_MAP_USERPTR, obj_offset: DATA, addr: AT + shift, range: SZ_64K, ..Default::default() };
    let bind = VmBindOp { pat_index: 3, ..bind };
    let mut args = VmBind { vm_id: 1, num_binds: 1, bind, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_BIND, &mut args), Ok(0));
    let served = rig.fault(1, asid, AT + shift, Access::Write) == FaultAck::Replay;
    assert_eq!(warnings(&rig), usize::from(!served));
    let leaf = leaf(&rig, 1, asid, AT + shift);
    assert_eq!(leaf.is_some(), served);
    let in_vram = leaf.is_some_and(|(_, leaf)| leaf.device);
    assert_eq!(pagemap(&rig, DATA).is_some(), in_vram || !served);
    (served, in_vram)
}

#[test]
fn a_userptr_shows_vram_where_the_rule_is_upstreams_and_leaves_fit() {
    let refused = (false, false);
    let home = (true, false);
    let expected = [
        (UnfitVram::OURS, [home, home, home]),
        (unfit::UPSTREAM, [(true, true), refused, refused]),
        (unfit::POSTED, [(true, true), refused, refused]),
        (unfit::NONE_BELOW_64K, [(true, true), refused, refused]),
        (unfit::EVICT_PARTIAL, [(true, true), refused, refused]),
        // The collection does not know the GPU's address.
        (unfit::GRANULE, [(true, true), home, refused]),
        (unfit::RETRY_ONCE, [(true, true), home, home]),
    ];
    for (n, (rule, expected)) in expected.into_iter().enumerate() {
        let ways = [(0, false), (0, true), (SZ_4K, false)];
        assert_eq!(ways.map(|(shift, one_is_home)| through_userptr(rule, shift, one_is_home)), expected, "rule {n}");
    }
}

#[test]
fn a_prefetch_is_refused_where_nobody_handles_the_error() {
    let cases = [(UnfitVram::OURS, Ok(0)), (unfit::UPSTREAM, Err(Errno::EINVAL)), (unfit::POSTED, Err(Errno::ENOSPC))];
    for (rule, expected) in cases {
        let rig = rig(rule);
        munmap(&rig);
        let bind = VmBindOp { op: BIND_OP_PREFETCH, addr: DATA, range: SZ_64K, ..Default::default() };
        let bind = VmBindOp { prefetch_mem_region_instance: 1, ..bind };
        assert_eq!(
            rig.ioctl(nr::VM_BIND, &mut VmBind { vm_id: 1, num_binds: 1, bind, ..Default::default() }),
            expected
        );
    }
}

#[test]
fn an_atomic_has_vram_again_but_as_posted() {
    let served = |rule| {
        let rig = rig(rule);
        let (asid, va) = mremap(&rig);
        assert_eq!(rig.fault(0, asid, va, Access::Atomic), FaultAck::Replay);
        let (_, leaf) = leaf(&rig, 0, asid, va).unwrap();
        (leaf.device, leaf.atomic)
    };
    assert_eq!(served(UnfitVram::OURS), (true, true));
    assert_eq!(served(unfit::POSTED), (false, false), "told that it is mapped, the atomic faults again");
}
