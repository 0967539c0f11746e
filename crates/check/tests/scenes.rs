//! The built-in scenes: ours holds under seeds, wrong variants and planted mistakes are found at once and replay.

use check::Manner;
use check::explore::{Caught, Found, Search, Setting, search};
use check::finding::Finding;
use check::plan::Explore;
use check::play::reach::MOMENTS;
use check::scenes;
use check::script::Script;
use std::ops::Range;
use std::sync::Arc;

const BOTH: [Manner; 2] = [Manner::Linux, Manner::Userfaultfd];

fn find(scripts: Vec<Arc<Script>>, behaviours: &str, seeds: Range<u64>, manners: &[Manner]) -> Found {
    let (behaviours, manners) = (behaviours.to_owned(), manners.to_vec());
    search(&Search { scripts, explore: Explore::Pct, seeds, behaviours, manners })
}

fn caught(behaviours: &str, seeds: Range<u64>) -> Caught {
    let found = find(scenes::all(), behaviours, seeds, &BOTH);
    let caught = found.caught.unwrap_or_else(|| panic!("{behaviours} was not found"));
    assert!(caught.replays, "{behaviours}: {}", caught.finding);
    caught
}

#[test]
fn ours_holds_and_the_races_are_reached() {
    let found = find(scenes::all(), "", 0..60, &BOTH);
    if let Some(caught) = found.caught {
        panic!("{} {} ({:?}): {}", caught.script.name, caught.plan, caught.manner, caught.finding);
    }
    assert_eq!(found.runs, 60 * 2 * scenes::ALL.len() as u64);
    let injections: Vec<&String> = found.never_met.iter().filter(|what| what.starts_with("inject ")).collect();
    assert_eq!(injections, Vec::<&String>::new(), "what goes wrong in a scene goes wrong in some run of it");
    // A search that never sees pages change between their collection and their bind would call any driver correct
    // that leaves out the check.
    assert!(found.reached.stale_binds > 0, "no bind was overtaken by a change");
}

#[test]
fn upstream_loses_data_by_stray_writes() {
    let finding = caught("a=upstream", 0..100).finding;
    assert!(
        matches!(&finding, Finding::DataLost(lost) if lost.stray_writes > 0 && lost.first_stray.is_some()),
        "{finding}"
    );
}

#[test]
fn the_posted_count_of_fences_signals_too_early_and_upstreams_is_refused() {
    assert_eq!(caught("c=posted", 0..100).finding, Finding::TooEarly { tile: 1 });
    let finding = caught("c=upstream", 0..100).finding;
    assert!(matches!(&finding, Finding::Refused { what } if what.contains("EFAULT")), "{finding}");
}

/// VRAM is as full as a scene says, or that is a finding; and what ran on after a fork is not in the child.
#[test]
fn a_scene_that_counts_vram_wrong_is_found() {
    let text = |bytes| format!("shows VRAM\nmemory b 64K\nfirst\n tile0 write b\n fork late\n holds vram0 {bytes}\n");
    let run = |bytes, manner| {
        let script = Script::parse("counts", &text(bytes)).unwrap();
        find(vec![Arc::new(script)], "", 0..3, &[manner]).caught.map(|caught| caught.finding)
    };
    // Where somebody moves the memory of the process, all of it is at home for a fork.
    for (manner, right, wrong) in [(Manner::Linux, "64K", "0K"), (Manner::Userfaultfd, "0K", "64K")] {
        assert_eq!(run(right, manner), None);
        assert!(matches!(run(wrong, manner), Some(Finding::Books(_))), "{manner:?}");
    }
}

/// Every depth, with and without racing time.
#[test]
fn every_kind_of_seed_replays() {
    for kind in 0..14 {
        let mut of_that_kind = (kind..1400).step_by(14);
        let found = of_that_kind.find_map(|seed| find(scenes::all(), "plant=no-flush", seed..seed + 1, &BOTH).caught);
        let caught = found.unwrap_or_else(|| panic!("not found by seeds {kind} modulo 14"));
        assert!(caught.replays, "{}", caught.plan);
    }
}

/// Mistakes that show only where one thread stands still in a window of a few steps (about one seed in some thousands finds them),
/// the scene that is after them, and seeds that are near to such a one, so that the test is short.
const RARE: [(&str, &str, Range<u64>); 2] =
    [("overtake-notices", "movers", 8_100..8_200), ("insert-uncounted", "guests", 3_150..3_250)];

/// Mistakes planted where a programmer would make them show themselves on the first seeds, whatever they are.
#[test]
fn every_planted_mistake_is_found_and_replays() {
    let planted = check::behaviour::VARIANTS.iter().filter(|variant| variant.key == "plant");
    for variant in planted.filter(|variant| !RARE.iter().any(|rare| rare.0 == variant.name)) {
        caught(&format!("plant={}", variant.name), 0..20);
    }
}

#[test]
fn every_rare_mistake_is_found_and_replays() {
    for (name, scene, seeds) in RARE {
        let behaviours = format!("plant={name}");
        let found = find(vec![scenes::named(scene).unwrap()], &behaviours, seeds, &[Manner::Userfaultfd]);
        let caught = found.caught.unwrap_or_else(|| panic!("{behaviours} was not found"));
        assert!(caught.replays, "{behaviours}: {}", caught.finding);
    }
}

/// What a scene of one thread is found to be.
fn played(steps: &str) -> Option<Finding> {
    let text = format!("memory b 64K\nvm p plain\nbuffer d 64K\nfirst\n{steps}");
    let script = Arc::new(Script::parse("own", &text).unwrap_or_else(|error| panic!("{error}")));
    find(vec![script], "", 0..1, &BOTH).caught.map(|caught| caught.finding)
}

#[test]
fn what_a_scene_does_wrong_itself_is_no_finding_about_the_driver() {
    let cannot = |steps, why: &str| assert_eq!(played(steps), Some(Finding::Scene(why.into())));
    cannot("  pin b[3]\n  pin b[3]", "own:6:3: a page is pinned that is pinned already");
    cannot("  mmap b[3]", "own:5:3: nobody unmaps what mmap waits for");
    cannot("  close vm\n    tile0 read b", "own:6:5: VM vm is not open here");
    assert!(matches!(played("  p.tile1 write d[0]"), Some(Finding::Refused { .. })), "no bind, no fence");
}

/// A thread waits for what another one does not do, as that one failed: that failure is told.
#[test]
fn a_thread_that_waited_for_one_that_failed_says_less() {
    let steps = "  cpu write b\nthread maps\n  mmap b[3]\nthread fails\n  tile0 write b[1] fails\n  munmap b[3]\n";
    assert_eq!(played(steps).map(|finding| finding.kind()), Some("allowed"));
}

#[test]
fn a_part_that_moves_takes_its_words_along() {
    assert_eq!(
        played("  tile0 write b\n  cpu add b[9]\n  move b[8..12] to c\n  tile1 read c, write c\n  cpu read c"),
        None
    );
    // The words are looked at: those of a page are wrong in the place of another one's.
    assert_eq!(played("  tile0 write b\n  move b[8..12] to c keep\n  tile0 read b[8], write b[8]\n  cpu read c"), None);
}

/// Threads of scenes that are right, under seeds in both manners.
fn threads_hold(text: &str) {
    let script = Arc::new(Script::parse("own", text).unwrap_or_else(|error| panic!("{error}")));
    let caught = find(vec![script], "", 0..40, &BOTH).caught;
    assert_eq!(caught.map(|caught| caught.finding), None, "{text}");
}

/// What another thread writes to memory that moves is there, or stayed behind.
#[test]
fn memory_may_move_beside_a_thread_that_writes_there() {
    for (mover, other) in [
        ("move b to c keep", "cpu write b[0]"),
        ("move b to c keep\n  cpu read c", "cpu write b[0], add b[0]"),
        ("dontneed b\n  move b to c keep", "cpu write b[0]"),
        ("move b to c keep\n  munmap c\n  move b to d keep", "cpu write b[0]"),
        ("move b[8..12] to c keep\n  move c to d", "tile0 write b[9], add b"),
    ] {
        let first = "memory b 64K\nfirst\n  tile1 write b\n  cpu write b, add b\n";
        threads_hold(&format!("{first}thread mover\n  {mover}\nthread other\n  {other}\nthen\n  cpu read b\n"));
    }
}

/// A place that memory moves to again has nothing of what was there.
#[test]
fn memory_moves_twice_to_one_name() {
    let again = "  move b to c keep\n  tile0 write c, add c\n";
    assert_eq!(played(&format!("{again}  move b to c keep\n  cpu read c")), None);
    threads_hold(&format!(
        "memory b 64K\nfirst\n{again}thread mover\n  move b to c keep\nthread other\n  cpu add b[1]\n"
    ));
}

/// A child has shared memory as it is, and other memory as it was.
#[test]
fn a_child_sees_what_is_written_to_shared_memory_after_the_fork() {
    for kind in ["", " shared"] {
        let text =
            format!("memory c 64K{kind}\nfirst\n  cpu write c\nthread t0\n  fork late\nthread t1\n  cpu write c\n");
        threads_hold(&text);
    }
    threads_hold(
        "memory c 64K shared\nfirst\n  cpu write c\n  move c to d\nthread t0\n  fork late\nthread t1\n  tile0 write d\n",
    );
}

/// A finding has the step that came upon it, where one did.
#[test]
fn a_finding_has_its_step() {
    let step = |behaviours, steps: &str| {
        let script = Arc::new(Script::parse("own", &format!("memory b 64K\nfirst\n{steps}")).unwrap());
        let caught = find(vec![script], behaviours, 0..1, &[Manner::Linux]).caught.expect("a finding");
        (caught.finding.kind(), caught.step)
    };
    let counts = "  cpu write b\n  counts faults 3\n";
    assert_eq!(step("", counts), ("cost", Some("line 4: counts faults 3".into())));
    assert_eq!(step("plant=no-flush", "  tile0 read b[3]\n  munmap b[3]\n"), ("audit", None));
}

/// What ends in no wrong data has a verdict of its own: something that is never given back, a wait for what never comes, an assertion
/// that fails in the driver, and two locks that are taken the other way round than elsewhere.
#[test]
fn leaks_deadlocks_panics_and_lock_orders_are_verdicts() {
    let verdict = |behaviours: &str, scene: &str, manner| {
        let found = find(vec![scenes::named(scene).unwrap()], behaviours, 0..20, &[manner]);
        let caught = found.caught.unwrap_or_else(|| panic!("{behaviours} was not found in {scene}"));
        assert!(caught.replays, "{behaviours}: {}", caught.finding);
        (caught.finding.kind(), caught.finding.to_string())
    };
    let (kind, told) = verdict("plant=window-kept", "a-1", Manner::Linux);
    assert_eq!((kind, told.as_str()), ("leak", "left when all was closed: 16 pages are still mapped for the device"));
    let (kind, told) = verdict("plant=unanswered", "d-6", Manner::Linux);
    assert_eq!(kind, "deadlock");
    assert!(told.contains("task 'root' (t0) waits for a notification of Condvar"), "{told}");
    let (kind, told) = verdict("plant=asserted", "a-1", Manner::Linux);
    assert_eq!(kind, "panic");
    assert!(told.contains("planted/ends.rs") && told.ends_with("planted: a leaf in VRAM"), "{told}");
    let (kind, told) = verdict("plant=lock-order", "emptied", Manner::Userfaultfd);
    assert_eq!(kind, "lock order");
    assert!(told.contains("task 'pontoon-reader'"), "{told}");
}

/// A copy that there is not does not fail, and a scene that is clean so shows nothing.
#[test]
fn an_injection_that_no_run_meets_is_told() {
    let text = "memory b 64K\ninject copy-fails 15\ninject copy-fails 999\ninject map-fails 999\n\
                inject lose-page 999\nfirst\n  tile0 write b\n";
    let found = find(vec![Arc::new(Script::parse("own", text).unwrap())], "", 0..2, &BOTH);
    assert!(found.caught.is_none());
    let never = ["copy-fails", "map-fails", "lose-page"].map(|what| format!("inject {what} 999 of scene own"));
    assert_eq!(found.never_met, never);
}

/// A scene whose race never comes shows nothing of it: each of R1 to R16 says by which moment it is known. One in some hundred runs is enough,
/// where the kernel manages the memory: a search makes thousands.
#[test]
fn races_are_reached() {
    const SEEDS: u64 = 2_000;
    const STEP: u64 = 50;
    for number in 1..=16 {
        let script = scenes::named(&format!("r-{number}")).unwrap();
        assert!(!script.meets.is_empty(), "{}", script.name);
        let comes = |seed| {
            let found = find(vec![script.clone()], "", seed..seed + STEP, &[Manner::Linux]);
            assert!(found.caught.is_none(), "{}", script.name);
            found.never_met.is_empty()
        };
        assert!((0..SEEDS).step_by(STEP as usize).any(comes), "{}: {} never came", script.name, moments(&script));
    }
}

fn moments(script: &Script) -> String {
    let names: Vec<&str> = script.meets.iter().map(|number| MOMENTS[*number].0).collect();
    names.join(", ")
}

/// A search in which a scene's moment never comes says so, and one in which something was found has more to say.
#[test]
fn a_moment_that_no_run_meets_is_told() {
    let text = "memory b 64K\nmeets queues banned\nmeets CPU faults\nfirst\n tile0 write b\n cpu read b\n";
    let script = |text| vec![Arc::new(Script::parse("own", text).unwrap())];
    assert_eq!(find(script(text), "", 0..2, &BOTH).never_met, ["meets queues banned of scene own"]);
    let found = find(script(&format!("{text} holds vram0 64K\n")), "", 0..2, &BOTH);
    assert!(found.caught.is_some() && found.never_met.is_empty());
}

/// What migrates in the scenes that are no triggers of A, and in the one of advice, step by step: pages from tile to tile and to VRAM at all.
#[test]
fn what_is_no_trigger_of_a_moves_nothing_between_tiles() {
    for (scene, between, to_vram) in [("a-not-2", 0, 16), ("a-not", 0, 16 + 16 + 512), ("a-4", 16, 32)] {
        for manner in BOTH {
            let setting = Setting::new(scenes::named(scene).unwrap(), manner, String::new(), Explore::Pct);
            let ran = setting.run_seed(0);
            assert_eq!(ran.finding, None);
            let reached = (ran.reached.pages_between_tiles, ran.reached.pages_to_vram);
            assert_eq!(reached, (between, to_vram), "{scene} {manner:?}");
        }
    }
}

/// A step may name the errno that it must be refused with: a job's is that of its fault.
#[test]
fn a_refusal_has_the_errno_that_a_step_names() {
    assert_eq!(played("  protect b ro\n  tile0 write b fails EPERM"), None);
    let other = played("  protect b ro\n  tile0 write b fails ENOLINK").map(|finding| finding.to_string());
    assert_eq!(other.as_deref(), Some("refused: not with ENOLINK, but a fault with EPERM: a job of tile 0: EIO"));
    assert_eq!(played("  cpu write b fails EINVAL").map(|finding| finding.kind()), Some("allowed"));
}

/// Kinds of findings that no built-in scene ends with, each by the shortest scene that does.
#[test]
fn each_kind_is_found() {
    let kind = |behaviours, text: &str| {
        let script = Arc::new(Script::parse("own", &format!("memory b 64K\nmemory c 64K\n{text}")).unwrap());
        let caught = find(vec![script], behaviours, 0..1, &[Manner::Linux]).caught.expect(text);
        assert!(caught.replays, "{text}");
        caught.finding.kind()
    };
    assert_eq!(kind("", "first\n protect b ro\n cpu write b\n"), "signal");
    assert_eq!(kind("plant=dm-dropped", "first\n tile0 write b\n munmap b\n"), "stray accesses");
    let stale = "first\n tile0 write b\n cpu read b\n tile0 write b\n munmap b\n close vm\n";
    assert_eq!(kind("plant=no-flush", stale), "stale translation");
    assert_eq!(kind("plant=ps64-missing", "first\n tile0 read b fails\n"), "device");
    let circle = "thread one\n mmap b[3]\n munmap c[3]\nthread two\n mmap c[3]\n munmap b[3]\n";
    assert_eq!(kind("", circle), "no end");
    assert_eq!(kind("", "first\n holds vram0 64K\n"), "books");
}
