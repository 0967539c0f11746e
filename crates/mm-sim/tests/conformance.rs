//! The conformance suite of `hostmm` on the simulated kernel's mm, and on mm-live over its userfaultfd.

mod world;

use hostmm::conformance;
use mm_live::Transport;
use mm_sim::Config;
use world::{Manager, SimWorld};

fn run(manager: Manager) {
    for (name, case) in conformance::all() {
        if manager == Manager::Live(Transport::Copy, 2) && *name == "a_pinned_page_fails_alone" {
            continue; // A copy does not notice pins (docs/hostmm.md).
        }
        println!("{manager:?}: {name}");
        let world = SimWorld::new(Config::default(), manager, 200);
        case(&world);
        world.end();
    }
}

#[test]
fn the_kernel_conforms() {
    run(Manager::Kernel);
}

#[test]
fn live_conforms() {
    run(world::LIVE);
}

#[test]
fn one_reader_is_enough() {
    run(Manager::Live(Transport::Move, 1));
}

#[test]
fn copying_conforms() {
    run(Manager::Live(Transport::Copy, 2));
}

#[test]
fn the_contract_names_every_case() {
    let contract = include_str!("../../../docs/hostmm.md");
    for (name, _) in conformance::all() {
        assert!(contract.contains(&format!("`{name}`")), "docs/hostmm.md does not name {name}");
    }
}
