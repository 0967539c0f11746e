//! Pages go from tile to tile (defect A): how each variant of it carries them, or does not.

use super::*;
use gpusvm::FromOthers;

/// 64K in tile 0's VRAM, which tile 1 touches next: the address space, and what copy jobs carried for tile 1's fault.
fn cross(rules: Rules, access: Access) -> (Rig, Asid, Vec<Copied>) {
    let rig = Rig::with(&PVC, rules);
    let asid = start(&rig, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    rig.hw.state.lock().copies.clear();
    assert_eq!(rig.fault(1, asid, DATA, access), FaultAck::Replay);
    let copies = std::mem::take(&mut rig.hw.state.lock().copies);
    (rig, asid, copies)
}

fn all(copies: &[Copied], outcome: Outcome) -> bool {
    copies.len() == 16 && copies.iter().all(|page| page.outcome == outcome)
}

/// Page `n` of a tile's first block.
fn dpa(tile: usize, n: usize) -> u64 {
    PVC.tiles[tile].vram_base.0 + ((n as u64) << 12)
}

#[test]
fn tile_to_tile_copies_carry_dm_on_both_sides() {
    let (rig, asid, copies) = cross(Rules::CORRECT, Access::Read);
    assert!(all(&copies, Outcome::Copied));
    for (n, page) in copies.iter().enumerate() {
        assert_eq!(page.tile, TileId(0), "the source's engine pushes");
        assert_eq!((page.src, page.dst), (Some((dpa(0, n), true)), Some((dpa(1, n), true))));
    }
    assert_eq!((pagemap(&rig, DATA), leaf(&rig, 0, asid, DATA)), (T1, None));
    assert_eq!([0, 1].map(|tile| rig.device.vram_used(TileId(tile))), [0, SZ_64K]);
    check_leaves(&rig, asid, SZ_64K);
}

#[test]
fn upstreams_remote_side_writes_to_the_bus_and_says_nothing() {
    let rules = Rules { copy_remote_side: upstream::copy::remote_side, ..Rules::CORRECT };
    let (rig, _, copies) = cross(rules, Access::Read);
    assert!(all(&copies, Outcome::Dropped));
    assert_eq!(copies[3].dst, Some((dpa(1, 3), false)), "a device address on the bus");
    assert_eq!(pagemap(&rig, DATA), T1, "and the migration reports success");
}

#[test]
fn what_is_skipped_is_written_nowhere_and_counts_as_carried() {
    let rules = Rules { copy_remote_side: upstream::copy::skipped, ..Rules::CORRECT };
    let (rig, asid, copies) = cross(rules, Access::Read);
    assert!(copies.is_empty(), "no copy job, so no stray write");
    assert_eq!((pagemap(&rig, DATA), rig.device.vram_used(TileId(0))), (T1, 0), "the source is gone");
    check_leaves(&rig, asid, SZ_64K);
}

#[test]
fn a_bounce_goes_through_system_memory() {
    let rules = Rules { from_others: FromOthers::RefuseSiblings, ..Rules::CORRECT };
    let (rig, asid, copies) = cross(rules, Access::Read);
    let (home, back) = copies.split_at(16);
    assert!(all(home, Outcome::Copied) && all(back, Outcome::Copied));
    let device = |side: Option<(u64, bool)>| side.is_some_and(|(_, device)| device);
    assert!(home.iter().all(|page| device(page.src) && !device(page.dst) && page.tile == TileId(0)));
    assert!(back.iter().all(|page| !device(page.src) && device(page.dst) && page.tile == TileId(1)));
    assert_eq!(pagemap(&rig, DATA), T1);
    check_leaves(&rig, asid, SZ_64K);
}

#[test]
fn what_stays_is_mapped_where_it_is() {
    let rules = Rules { from_others: FromOthers::SiblingsStay, ..Rules::CORRECT };
    for access in [Access::Read, Access::Atomic] {
        let (rig, asid, copies) = cross(rules, access);
        assert!(copies.is_empty());
        assert_eq!((pagemap(&rig, DATA), rig.device.vram_used(TileId(1))), (T0, 0));
        let (_, leaf) = leaf(&rig, 1, asid, DATA).unwrap();
        assert_eq!((leaf.addr, leaf.device, leaf.atomic), (dpa(0, 0), true, true));
        check_leaves(&rig, asid, SZ_64K);
    }
}

#[test]
fn what_is_on_two_tiles_cannot_stay_and_goes_home() {
    let rig = Rig::with(&PVC, Rules { from_others: FromOthers::SiblingsStay, ..Rules::CORRECT });
    let asid = start(&rig, SZ_2M);
    for tile in 0..2u8 {
        let half = HostRange::sized(HostVa(DATA + u64::from(tile) * SZ_2M / 2), SZ_2M / 2);
        assert_eq!(rig.device.migrate_range(TileId(tile), half), Ok(()));
    }
    assert_eq!(rig.fault(1, asid, DATA, Access::Read), FaultAck::Replay);
    assert_eq!([0, SZ_2M / 2].map(|at| pagemap(&rig, DATA + at)), [None; 2]);
    check_leaves(&rig, asid, SZ_2M);
}

#[test]
fn a_peer_is_written_over_the_bus_and_its_window_is_unmapped_again() {
    let rules = Rules { map_for_push: upstream::copy::through_bar, ..Rules::CORRECT };
    let (rig, asid, copies) = cross(rules, Access::Read);
    assert!(all(&copies, Outcome::Copied), "no stray write");
    assert!(copies.iter().all(|page| page.dst.is_some_and(|(addr, device)| !device && addr != dpa(1, 0))));
    assert_eq!((pagemap(&rig, DATA), rig.dma_frames().len()), (T1, 0));
    check_leaves(&rig, asid, SZ_64K);
}
