//! What one device has in its VRAM another gets, and no write is lost.

use crate::hands::{Hand, PEERS, STRANGERS, block, end, machine, once};
use gpusvm::Where;
use hostmm::PagemapId;
use machine::Errno;
use machine::checked::{Manner, MapKind};
use machine::profile::Platform;
use machine::program::Program;
use machine::wiring::Core;
use std::sync::Arc;
use units::{HostRange, SZ_64K, TileId};

const MANNERS: [Manner; 2] = [Manner::Linux, Manner::Userfaultfd];

/// Threads on all tiles of two devices, each of which adds to both blocks so many times, beside a CPU that reads.
fn play(manner: Manner, devices: [&'static Platform; 2], rounds: u64) {
    let checked = machine(manner, devices, "");
    let area = checked.sim.mmap(48, MapKind::Anonymous);
    let first = HostRange::sized(area.start.align_up(SZ_64K), SZ_64K);
    let blocks = [first, HostRange::sized(first.end, SZ_64K)];
    let programs = checked.open_all();
    let hands = programs.iter().flat_map(|program| [0, 1].map(|tile| (program, tile)));
    let threads: Vec<_> = hands
        .map(|(program, tile)| {
            let (checked, program) = (checked.clone(), checked.thread_of(program.file().clone()));
            sync::spawn("tile", move || {
                let hand = Hand::new(&checked, program, tile);
                (0..rounds).flat_map(|_| blocks).for_each(|block| hand.add_to(block));
            })
        })
        .collect();
    let reader = sync::spawn("reader", {
        let checked = checked.clone();
        move || blocks.iter().for_each(|block| _ = checked.sim.load_u64(block.page_at(3)).expect("mapped"))
    });
    threads.into_iter().chain([reader]).for_each(sync::JoinHandle::join);
    for page in blocks.iter().flat_map(|block| (0..block.pages()).map(|n| block.page_at(n))) {
        assert_eq!(checked.sim.load_u64(page).expect("mapped"), 4 * rounds, "{page}");
    }
    end(&checked, &programs);
}

fn vram(pagemap: u16) -> Where {
    Where::Vram(PagemapId(pagemap))
}

#[test]
fn devices_that_race_for_a_block_all_end() {
    for (manner, devices) in MANNERS.into_iter().flat_map(|manner| [(manner, PEERS), (manner, STRANGERS)]) {
        (0..10).for_each(|seed| once("a race", seed, move || play(manner, devices, 1)));
    }
}

/// A block goes from device to device: from VRAM to VRAM where they reach each other, by way of system memory else.
#[test]
fn a_block_goes_from_device_to_device() {
    let direct = vec![(vram(0), vram(2), [0, 16])];
    let detour = vec![(vram(0), Where::System, [16, 0]), (Where::System, vram(2), [0, 16])];
    for manner in MANNERS {
        for (devices, flows) in [(PEERS, direct.clone()), (STRANGERS, detour.clone())] {
            once("a block", 1, move || {
                let checked = machine(manner, devices, "");
                let block = block(&checked);
                let programs = checked.open_all();
                let hand = |program: &Program| Hand::new(&checked, checked.thread_of(program.file().clone()), 0);
                let hands: Vec<_> = programs.iter().map(hand).collect();
                hands.iter().for_each(|hand| hand.add_to(block));
                for &(from, to, pages) in &flows {
                    let flow = |core: &Arc<Core>| core.ledger().flow(from, to).pages;
                    assert_eq!(checked.cores().map(flow).collect::<Vec<_>>(), pages, "{from:?} to {to:?}");
                }
                assert_eq!(checked.sim.load_u64(block.start).expect("mapped"), 2);
                end(&checked, &programs);
            });
        }
    }
}

/// Memory that a device prefers in a peer's VRAM goes there when the device touches it, and is reached through the bus.
#[test]
fn a_device_maps_what_is_in_a_peers_vram() {
    for manner in MANNERS {
        once("a peer's VRAM", 1, move || {
            let checked = machine(manner, PEERS, "");
            let block = block(&checked);
            let programs = checked.open_all();
            let hand = |n: usize| Hand::new(&checked, checked.thread_of(programs[n].file().clone()), 0);
            let (first, second) = (hand(0), hand(1));
            first.program.madvise_peer(first.vm, block, programs[1].file(), TileId(1)).expect("a peer");
            first.write(block, 7);
            let flow =
                |device: usize, from, to| checked.cores().nth(device).expect("a device").ledger().flow(from, to).pages;
            assert_eq!(flow(1, Where::System, vram(3)), 16, "the peer's VRAM has it");
            second.write(block, 8);
            assert_eq!(flow(1, vram(3), vram(2)), 16, "a tile of the peer takes it to its own");
            first.write(block, 9);
            for n in 0..block.pages() {
                assert_eq!(checked.sim.load_u64(block.page_at(n)).expect("mapped"), 9);
            }
            let hardware = checked.cores().map(|core| core.gpu().counters());
            assert!(hardware.into_iter().all(|counters| counters.stray_writes + counters.stray_reads == 0));
            end(&checked, &programs);
        });
    }
}

#[test]
fn advice_of_a_stranger_is_refused() {
    once("a stranger", 1, || {
        let checked = machine(Manner::Linux, STRANGERS, "");
        let (block, programs) = (block(&checked), checked.open_all());
        let hand = Hand::new(&checked, checked.thread_of(programs[0].file().clone()), 0);
        let advice = |tile| hand.program.madvise_peer(hand.vm, block, programs[1].file(), TileId(tile));
        assert_eq!(advice(0), Err(Errno::ENOLINK));
        for program in &programs {
            let region = hand.program.madvise_peer(hand.vm, block, program.file(), TileId(5));
            assert_eq!(region, Err(Errno::ENOENT), "no such region, whoever's");
        }
        end(&checked, &programs);
    });
}
