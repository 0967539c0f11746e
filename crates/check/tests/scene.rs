//! The built-in scenes: ours holds under seeds, upstream's variant is found at once and replays.

use check::explore::{Search, search};
use check::finding::Finding;
use check::plan::Plan;
use check::scene::Manner;

const BOTH: [Manner; 2] = [Manner::Linux, Manner::Userfaultfd];

fn seeds(behaviours: &str, seeds: std::ops::Range<u64>) -> check::explore::Found {
    search(&Search { seeds, behaviours: behaviours.into(), manners: BOTH.to_vec() })
}

#[test]
fn ours_holds_and_the_races_are_reached() {
    let found = seeds("", 0..600);
    if let Some(caught) = found.caught {
        panic!("seed {} ({}, {:?}): {}", caught.plan.seed, caught.plan, caught.manner, caught.finding);
    }
    assert_eq!(found.runs, 1200);
    // A search that never sees pages change between their collection and their bind would call any driver correct
    // that leaves out the check.
    assert!(found.reached.stale_binds > 0, "no bind was overtaken by a change");
}

#[test]
fn upstream_loses_data_by_stray_writes_and_the_seed_replays() {
    let caught = seeds("a=upstream", 0..100).caught.expect("found");
    assert!(
        matches!(caught.finding, Finding::DataLost { stray_writes, first_stray: Some(_), .. } if stray_writes > 0),
        "{}",
        caught.finding
    );
    assert!(caught.replays);
}

/// Seeds that agree modulo 72 differ in their schedule's numbers only.
#[test]
fn every_kind_of_seed_replays() {
    for kind in (0..6).chain(36..42) {
        let mut of_that_kind = (kind..3000).step_by(72);
        let caught = of_that_kind.find_map(|seed| seeds("plant=no-flush", seed..seed + 1).caught);
        let caught = caught.unwrap_or_else(|| panic!("not found: {}", Plan::of(kind)));
        assert!(caught.replays, "{}", caught.plan);
    }
}

/// Mistakes planted where a programmer would make them show themselves on the first seeds, whatever they are.
#[test]
fn every_planted_mistake_is_found_and_replays() {
    let planted = check::behaviour::VARIANTS.iter().filter(|variant| variant.key == "plant");
    for variant in planted {
        let caught = seeds(&format!("plant={}", variant.name), 0..20).caught;
        let caught = caught.unwrap_or_else(|| panic!("plant={} was not found", variant.name));
        assert!(caught.replays, "plant={}: {}", variant.name, caught.finding);
    }
}
