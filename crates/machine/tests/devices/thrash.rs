//! Tiles and devices that want the same pages: how often these travel, with and without the policy against that.

use crate::hands::{Hand, PEERS, block, end, machine, once};
use gpusvm::Where;
use machine::checked::Manner;
use std::sync::Arc;

const ROUNDS: u64 = 20;

/// Two hands of a machine read a block in turn, or add to it; migrations from one VRAM to another.
fn moves(behaviour: &'static str, hands: [(usize, u8); 2], adds: bool, manner: Manner) -> u64 {
    let moves = Arc::new(sync::atomic::AtomicU64::new(0));
    let told = moves.clone();
    once(behaviour, 1, move || {
        let checked = machine(manner, PEERS, behaviour);
        let block = block(&checked);
        let programs = checked.open_all();
        let hands =
            hands.map(|(device, tile)| Hand::new(&checked, checked.thread_of(programs[device].file().clone()), tile));
        for _ in 0..ROUNDS {
            hands.iter().for_each(|hand| if adds { hand.add_to(block) } else { hand.write(block, 7) });
        }
        let ways = |stats: &machine::stats::Stats| {
            stats.flow_of(|way| way.from != Where::System && way.to != Where::System).times
        };
        told.store(checked.cores().map(|core| core.ledger().look(|book| ways(&book.stats))).sum());
        let total = if adds { 2 * ROUNDS } else { 7 };
        assert_eq!(checked.sim.load_u64(block.start).expect("mapped"), total);
        end(&checked, &programs);
    });
    moves.load()
}

#[test]
fn pages_that_settle_do_not_travel_to_and_fro() {
    let (tiles, devices) = ([(0, 0), (0, 1)], [(0, 0), (1, 0)]);
    for manner in [Manner::Linux, Manner::Userfaultfd] {
        for pair in [tiles, devices] {
            assert_eq!(moves("", pair, false, manner), 2 * ROUNDS - 1, "each takes it from the other");
            assert_eq!(moves("thrash=settle", pair, false, manner), 1, "the first maps it in the second's VRAM");
            assert_eq!(moves("thrash=settle", pair, true, manner), 2 * ROUNDS - 1, "atomics need their own VRAM");
        }
    }
}
