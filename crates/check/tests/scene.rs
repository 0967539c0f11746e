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

/// Seeds that agree modulo 144 differ in their schedule's numbers only.
#[test]
fn every_kind_of_seed_replays() {
    for kind in (0..10).chain(72..82) {
        let mut of_that_kind = (kind..3600).step_by(144);
        let caught = of_that_kind.find_map(|seed| seeds("plant=no-flush", seed..seed + 1).caught);
        let caught = caught.unwrap_or_else(|| panic!("not found: {}", Plan::of(kind)));
        assert!(caught.replays, "{}", caught.plan);
    }
}

/// Mistakes planted where a programmer would make them show themselves on the first seeds, whatever they are.
#[test]
fn every_planted_mistake_is_found_and_replays() {
    let planted = check::behaviour::VARIANTS.iter().filter(|variant| variant.key == "plant");
    for variant in planted.filter(|variant| !RARE.iter().any(|rare| rare.0 == variant.name)) {
        let caught = seeds(&format!("plant={}", variant.name), 0..20).caught;
        let caught = caught.unwrap_or_else(|| panic!("plant={} was not found", variant.name));
        assert!(caught.replays, "plant={}: {}", variant.name, caught.finding);
    }
}

/// Mistakes that show only where one thread stands still in a window of a few steps, and the residue modulo 12 of the seeds
/// with priorities of the scene that is after them.
const RARE: [(&str, u64); 2] = [("overtake-notices", 7), ("insert-uncounted", 9)];

#[test]
fn every_rare_mistake_is_found_and_replays() {
    for (name, scene) in RARE {
        let mut of_the_scene = (scene..72_000).step_by(12);
        let behaviours = format!("plant={name}");
        let caught = of_the_scene.find_map(|seed| {
            let (manners, seeds) = (vec![Manner::Userfaultfd], seed..seed + 1);
            search(&Search { seeds, behaviours: behaviours.clone(), manners }).caught
        });
        let caught = caught.unwrap_or_else(|| panic!("{behaviours} was not found"));
        assert!(caught.replays, "{behaviours}: {}", caught.finding);
    }
}

#[test]
fn the_posted_count_of_fences_signals_too_early_and_upstreams_is_refused() {
    let posted = seeds("c=posted", 0..600).caught.expect("found");
    assert_eq!(posted.finding, Finding::TooEarly { tile: 1 });
    assert!(posted.replays);
    let upstream = seeds("c=upstream", 0..600).caught.expect("found");
    assert!(matches!(&upstream.finding, Finding::Refused { what } if what.contains("EFAULT")), "{}", upstream.finding);
    assert!(upstream.replays);
}
