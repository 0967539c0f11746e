//! The verdicts on A, B and C: what upstream does, what the review's remedies do, what ours does, in cells that were computed.

use check::Manner;
use check::judge::{self, SUBJECTS};

/// By behaviour and scene: every cell that is not `ok`.
const NOT_OK: &[(&str, &str, &str)] = &[
    ("a=upstream", "a-1", "LOST, strays"),
    ("a=upstream", "a-2", "LOST, strays"),
    ("a=upstream", "a-3", "LOST, strays"),
    ("a=upstream", "a-5", "LOST, strays"),
    ("a=skip", "a-1", "LOST"),
    ("a=skip", "a-2", "LOST"),
    ("a=skip", "a-3", "LOST"),
    ("a=skip", "a-5", "LOST"),
    ("b=upstream", "b-1", "refused"),
    ("b=upstream", "b-2", "refused"),
    ("b=upstream", "b-3", "refused"),
    ("b=upstream", "b-5", "refused"),
    ("b=upstream", "b-8", "refused"),
    ("b=posted", "b-8", "refused"),
    ("b=none-below-64k", "b-5", "refused"),
    ("b=evict-partial", "b-3", "refused"),
    ("b=evict-partial", "b-5", "refused"),
    ("c=upstream", "c-1", "refused"),
    ("c=upstream", "c-2", "refused"),
    ("c=posted", "c-2", "under-waits"),
];

#[test]
fn every_cell_is_as_the_analysis_says() {
    let mut wrong = Vec::new();
    for subject in &SUBJECTS {
        let (rows, scripts) = (subject.variants(), subject.scenes());
        for cell in judge::cells(&rows, &scripts, &(0..6), Manner::Linux).into_iter().flatten() {
            let expected = NOT_OK.iter().find(|(row, scene, _)| (*row, *scene) == (&cell.behaviours, &cell.scene));
            let verdict = cell.verdict();
            let fits = expected.map_or(verdict.starts_with("ok "), |(_, _, expected)| verdict == *expected);
            if !fits {
                wrong.push(format!("{} {}: {verdict}", cell.behaviours, cell.scene));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn remedies_for_a_differ_in_what_they_cost() {
    let scene = check::scenes::named("a-1").unwrap();
    let cost = |behaviours: &str| judge::cell(&scene, behaviours, 0..1, Manner::Linux).verdict();
    assert_eq!(["a=ours", "a=peer", "a=bounce", "a=stay"].map(cost), ["ok 16/0", "ok 16/0", "ok 0/16", "ok 0/0"]);
}
