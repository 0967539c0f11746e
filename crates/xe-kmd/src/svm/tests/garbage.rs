//! Memory that goes without anybody being told: what its ranges hold comes back.

use super::*;
use crate::svm::garbage::look;

/// Maps a page of the `n`th block of 2M, has tile 0 store to it, and unmaps it silently.
fn touch_and_forget(rig: &Rig, asid: Asid, n: u64) {
    let page = HostRange::sized(HostVa(DATA + n * SZ_2M), SZ_4K);
    rig.mm.mmap(page);
    assert_eq!(rig.fault(0, asid, page.start.0, Access::Write), FaultAck::Replay, "block {n}");
    rig.mm.forget(page);
}

/// A PVC with `tables` page tables a tile.
fn small(tables: u64) -> Rig {
    let tiles = [0, 1].map(|n| Tile { tables_size: tables * SZ_4K, ..PVC.tiles[n] });
    let platform = Platform { tiles: Box::leak(Box::new(tiles)), ..PVC };
    Rig::with(Box::leak(Box::new(platform)), Rules::CORRECT)
}

#[test]
fn running_out_of_tables_sweeps_what_is_gone() {
    let rig = small(64);
    let asid = start(&rig, SZ_4K);
    (1..200).step_by(3).for_each(|n| touch_and_forget(&rig, asid, n));
    // Also what another VM holds.
    let other = mirror(&rig);
    assert_ne!(asid, other);
    (200..300).for_each(|n| touch_and_forget(&rig, other, n));
    for n in 300..400 {
        touch_and_forget(&rig, asid, n);
        let mut args = VmCreate { flags: 6, ..Default::default() };
        assert_eq!(rig.ioctl(nr::VM_CREATE, &mut args), Ok(0), "after block {n}");
        let mut args = VmDestroy { vm_id: args.vm_id, ..Default::default() };
        assert_eq!(rig.ioctl(nr::VM_DESTROY, &mut args), Ok(0));
    }
}

/// However many ranges there are, no look takes the notifier lock for all of them, and none is left out.
#[test]
fn a_sweep_goes_through_all_ranges_piece_by_piece() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_4K);
    for n in 1..400 {
        let page = HostRange::sized(HostVa(DATA + n * SZ_2M), SZ_4K);
        rig.mm.mmap(page);
        assert_eq!(rig.fault(0, asid, page.start.0, Access::Write), FaultAck::Replay, "block {n}");
    }
    let vm = rig.device.vms.find(asid).unwrap();
    let svm = vm.svm.as_ref().unwrap();
    let window = vm.window().mirrored();
    assert_eq!(svm.first_ranges_in(window, 129).len(), 129);
    (1..400).filter(|n| n % 3 == 0).for_each(|n| rig.mm.forget(HostRange::sized(HostVa(DATA + n * SZ_2M), SZ_4K)));
    let all = svm.ranges_in(window).len();
    let goes =
        std::iter::successors(Some(window.start), |start| look(&vm.space, svm, HostRange::new(*start, window.end)));
    assert_eq!(goes.count(), 4, "399 ranges, 128 at a time");
    vm.collect();
    assert_eq!(all - svm.ranges_in(window).len(), 133);
}

#[test]
fn what_is_gone_does_not_pile_up() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_4K);
    (1..1000).for_each(|n| touch_and_forget(&rig, asid, n));
    let held = rig.dma_frames().len();
    assert!(held <= 128, "{held} pages are still mapped for the device");
}

#[test]
fn a_look_at_a_range_is_one_question() {
    let rig = Rig::new();
    let asid = start(&rig, 4 * SZ_2M);
    (0..4).for_each(|n| assert_eq!(rig.fault(0, asid, DATA + n * SZ_2M, Access::Write), FaultAck::Replay));
    rig.mm.forget(HostRange::sized(HostVa(DATA), 4 * SZ_2M));
    let pages = HostRange::sized(HostVa(DATA + 4 * SZ_2M), 128 * SZ_4K);
    rig.mm.mmap(pages);
    let before = rig.mm.vma_questions();
    // Twice as many faults as there are between two looks.
    (0..128).for_each(|i| assert_eq!(rig.fault(0, asid, pages.page_at(i).0, Access::Read), FaultAck::Replay));
    assert_eq!(leaf(&rig, 0, asid, DATA), None, "what is gone was found");
    let asked = rig.mm.vma_questions() - before;
    assert!(asked < 1000, "{asked} questions");
}
