//! The verdicts on A, B and C: what upstream does, what the review's remedies do, what ours does, in cells that were computed.

use check::judge::machines::{MACHINES, Machines};
use check::judge::orders::{self, MergeOrder};
use check::judge::patch;
use check::judge::{self, Cell, Grade, Question, SUBJECTS};
use check::{Manner, Topology, scenes};

/// By behaviour and scene: every cell that is not `ok`.
const NOT_OK: &[(&str, &str, &str)] = &[
    ("a=upstream", "a-1", "LOST, strays"),
    ("a=upstream", "a-2", "LOST, strays"),
    ("a=upstream", "a-3", "LOST, strays"),
    ("a=upstream", "a-4", "LOST, strays"),
    ("a=upstream", "a-5", "LOST, strays"),
    ("a=upstream", "a-6", "LOST, strays"),
    ("a=skip", "a-1", "LOST"),
    ("a=skip", "a-2", "LOST"),
    ("a=skip", "a-3", "LOST"),
    ("a=skip", "a-4", "LOST"),
    ("a=skip", "a-5", "LOST"),
    ("a=skip", "a-6", "LOST"),
    ("a=entries", "a-6", "device"),
    ("b=upstream", "b-1", "refused"),
    ("b=upstream", "b-2", "refused"),
    ("b=upstream", "b-3", "refused"),
    ("b=upstream", "b-4", "refused"),
    ("b=upstream", "b-5", "refused"),
    ("b=upstream", "b-6", "refused"),
    ("b=upstream", "b-7", "refused"),
    ("b=upstream", "b-7-2", "refused"),
    ("b=upstream", "b-8", "refused"),
    ("b=posted", "b-7", "refused"),
    ("b=posted", "b-7-2", "refused"),
    ("b=posted", "b-8", "refused"),
    ("b=none-below-64k", "b-5", "refused"),
    ("b=none-below-64k", "b-7", "refused"),
    ("b=none-below-64k", "b-7-2", "refused"),
    ("b=evict-partial", "b-3", "refused"),
    ("b=evict-partial", "b-4", "refused"),
    ("b=evict-partial", "b-5", "refused"),
    ("b=evict-partial", "b-6", "refused"),
    ("b=evict-partial", "b-7", "refused"),
    ("b=evict-partial", "b-7-2", "refused"),
    ("b=granule", "b-7", "refused"),
    ("c=upstream", "c-1", "refused"),
    ("c=upstream", "c-2", "refused"),
    ("c=posted", "c-2", "under-waits"),
];

fn question(seeds: u64) -> Question {
    let script = scenes::named("a-1").unwrap();
    let (manner, topology) = (Manner::Linux, Topology::Two);
    Question { script, behaviours: String::new(), manner, topology, seeds: 0..seeds, tick: |_, _| () }
}

fn cell(scene: &str, behaviours: &str, topology: Topology) -> Cell {
    let script = scenes::named(scene).unwrap();
    judge::cell(&Question { script, behaviours: behaviours.into(), topology, ..question(6) })
}

#[test]
fn every_cell_is_as_the_analysis_says() {
    let mut wrong = Vec::new();
    for subject in &SUBJECTS {
        let (rows, scripts) = (subject.variants(), subject.scenes());
        for cell in judge::cells(&rows, &scripts, &question(6)).into_iter().flatten() {
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

/// Pages that go over the bus, a page that migrates: none where both ends are VRAM, two where it bounces, and two where an engine
/// reaches its own device through the bus.
#[test]
fn remedies_for_a_differ_in_what_they_cost() {
    let rows = ["a=ours", "a=peer", "a=bounce", "a=stay"].map(str::to_owned);
    let table = judge::cells(&rows, &[scenes::named("a-1").unwrap()], &question(1));
    let verdicts: Vec<String> = table.iter().map(|row| row[0].verdict()).collect();
    assert_eq!(verdicts, ["ok 16/0", "ok 16/0", "ok 0/16", "ok 0/0, skips"]);
    // All of them begin with 16 pages from system memory to VRAM0.
    let costs: Vec<(u64, u64)> = table.iter().map(|row| (row[0].cost.copied, row[0].cost.crossings)).collect();
    assert_eq!(costs, [(32, 16), (32, 48), (48, 48), (16, 16)]);
}

#[test]
fn a_failing_cell_has_a_run_that_can_be_made_again() {
    for (scene, behaviours, device) in [
        ("a-1", "a=upstream", Topology::Two),
        ("c-2", "c=posted", Topology::Two),
        ("c-1", "c=upstream", Topology::Four),
    ] {
        let failure = cell(scene, behaviours, device).failure.expect("it fails");
        let again = check::replay::Record::parse(&failure.record.to_string()).expect("a record").run();
        assert_eq!(again.finding, Some(failure.finding), "{scene} {behaviours} {device:?}");
    }
}

/// Where there is one pagemap nothing goes from one to another, and default queues have one list; B needs one tile only.
#[test]
fn what_a_defect_needs_of_a_device() {
    let grade = |scene, behaviours, machine| cell(scene, behaviours, machine).grade();
    let grades = |scene, behaviours| {
        [Topology::Two, Topology::One, Topology::Four, Topology::Apart].map(|machine| grade(scene, behaviours, machine))
    };
    use Grade::{Ok, Refused, Wrong};
    assert_eq!(grades("a-1", "a=upstream"), [Wrong, Ok, Wrong, Ok], "two, one, four, apart");
    assert_eq!(grades("b-1", "b=upstream"), [Refused; 4]);
    assert_eq!(grades("c-1", "c=upstream"), [Refused, Ok, Refused, Refused]);
    for scene in ["a-1", "a-3", "a-5", "b-1", "b-5", "c-1", "c-2"] {
        assert_eq!(grades(scene, ""), [Ok; 4], "{scene}");
    }
}

/// By device or by pagemap? Each cell is computed; what is written here is what the analysis says.
#[test]
fn a_over_machines_answers_what_a_driver_should_compare() {
    use Topology::{Four, One, Pairs, Parts, Peers, Two, Whole, WholeFour};
    let subject = SUBJECTS.iter().find(|subject| subject.letter == 'A').expect("A");
    let machines = Machines::judge(subject, &question(1));
    let row = |name: &str| machines.rows.iter().position(|row| row == name).expect("a row");
    let sum = |name: &str, machine| {
        machines.sum(row(name), MACHINES.iter().position(|known| *known == machine).expect("a machine"))
    };
    assert_eq!(machines.defective(), [Two, Four, Parts], "several pagemaps that one device's engines reach");
    let right: Vec<&str> = machines.right_everywhere().into_iter().map(|row| machines.rows[row].as_str()).collect();
    assert_eq!(right, ["a=ours", "a=bounce", "a=bounce-all", "a=stay", "a=peer"]);
    for name in ["a=ours", "a=skip", "a=bounce", "a=stay", "a=peer"] {
        assert_eq!(machines.not_neutral(row(name)), [], "{name}");
    }
    assert_eq!(machines.not_neutral(row("a=bounce-all")), [Peers, Pairs]);
    assert_eq!(machines.differ("bounce", "bounce-all"), [Peers, Pairs]);
    // One pagemap: nothing goes from tile to tile, whatever the rule.
    for machine in [One, Whole, WholeFour] {
        assert!(machines.rows.iter().all(|name| sum(name, machine) == sum("a=ours", machine)), "{machine:?}");
        assert_eq!(sum("a=ours", machine).between, 0, "{machine:?}");
    }
    // What one copy engine carries for several partitions goes as from tile to tile.
    assert_eq!(sum("a=ours", Parts), sum("a=ours", Two));
    assert!(sum("a=ours", Peers).between > 0 && sum("a=bounce-all", Peers).between == 0);
    // Advice for a stranger's VRAM cannot be asked for.
    assert_eq!(sum("a=ours", Topology::Strangers).scenes, sum("a=ours", Peers).scenes - 1);
}

#[test]
fn the_posted_patch_is_judged_switch_by_switch() {
    let scripts = ["a-1", "b-1", "b-8", "c-1", "c-2"].map(|name| scenes::named(name).unwrap());
    let verdicts = patch::judge(&scripts, &question(4));
    assert_eq!((verdicts.switches.len(), verdicts.subsets(), verdicts.cells.len()), (9, 512, 64));
    let sufficient: Vec<Vec<&str>> = verdicts.minimal_sufficient().into_iter().map(|s| verdicts.names(s)).collect();
    assert_eq!(sufficient, [["peer-map", "enospc", "handler", "fence-count"]]);
    assert_eq!(verdicts.hopeless(), [("b-8".to_owned(), Grade::Refused), ("c-2".to_owned(), Grade::UnderWaits)]);
    let role =
        |name: &str| verdicts.role(verdicts.switches.iter().position(|switch| switch.name == name).expect("a switch"));
    assert_eq!(role("peer-map").needed, ["a-1"]);
    assert_eq!((role("enospc").needed, role("handler").needed), (vec!["b-1".to_owned()], vec!["b-1".to_owned()]));
    let count = role("fence-count");
    assert_eq!((count.needed, count.redundant), (vec!["c-1".to_owned()], false));
    assert_eq!(count.harmful, [(0, "c-2".to_owned(), Grade::Refused, Grade::UnderWaits)]);
    for name in ["copy-flush", "needs-migrate", "local-dpagemap", "timeslice"] {
        let role = role(name);
        assert!(role.dead && role.redundant && role.needed.is_empty() && role.harmful.is_empty(), "{name}: {role:?}");
    }
    let unmap = role("unmap-pages");
    assert!(unmap.redundant && !unmap.dead, "{unmap:?}");
    // The posted count makes a loud failure a silent one, in whichever order.
    let orders = orders::of_posted(&verdicts);
    let broken = |order: &MergeOrder| order.breaks.iter().map(|(scene, ..)| scene.clone()).collect::<Vec<_>>();
    assert!(orders.iter().all(|order| broken(order) == ["c-2"]), "{orders:?}");
}

#[test]
fn our_fixes_may_be_merged_in_any_order() {
    let scripts = ["a-1", "b-1", "c-1", "c-2"].map(|name| scenes::named(name).unwrap());
    let (ours, cells) = orders::of_ours(&scripts, &question(6));
    assert_eq!(cells.iter().map(Vec::len).collect::<Vec<_>>(), [4; 8]);
    assert!(ours.len() == 6 && ours.iter().all(|order| order.breaks.is_empty()), "{ours:?}");
}
