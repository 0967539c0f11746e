//! The conformance suite of `hostmm`, in both manners, on real threads.

mod world;

use hostmm::conformance;
use mm_sim::Config;
use world::SimWorld;

fn run(config: Config) {
    for (name, case) in conformance::all() {
        println!("{:?}: {name}", config.manner);
        let world = SimWorld::new(config, 200);
        case(&world);
        world.end();
    }
}

#[test]
fn the_linux_manner_conforms() {
    run(Config::LINUX);
}

#[test]
fn the_userfaultfd_manner_conforms() {
    run(Config::USERFAULTFD);
}

#[test]
fn one_reader_is_enough() {
    run(Config { readers: 1, ..Config::USERFAULTFD });
}

#[test]
fn the_contract_names_every_case() {
    let contract = include_str!("../../../docs/hostmm.md");
    for (name, _) in conformance::all() {
        assert!(contract.contains(&format!("`{name}`")), "docs/hostmm.md does not name {name}");
    }
}
