//! What is found is shrunk, kept in a file, made again, and told in lines that fit a mail.

use check::Manner;
use check::explain::{self, Names};
use check::explore::{Caught, Search, Setting, search};
use check::finding::Finding;
use check::plan::Explore;
use check::replay::Record;
use check::scenes;
use check::script::Script;
use check::shrink;
use std::sync::Arc;

/// The smallest failing run of a scene.
fn smallest(scene: &str, behaviours: &str) -> (Caught, Record) {
    let script = scenes::named(scene).unwrap();
    let found = search(&Search {
        scripts: vec![script.clone()],
        explore: Explore::Pct,
        seeds: 0..200,
        behaviours: behaviours.into(),
        manners: vec![Manner::Linux],
    });
    let caught = found.caught.unwrap_or_else(|| panic!("{scene} with {behaviours}: nothing found"));
    let setting = Setting::new(script, caught.manner, behaviours.into(), Explore::Pct);
    let shrunk = shrink::smallest(&setting, &caught);
    let finding = shrunk.ran.finding.as_ref().expect("it still fails").to_string();
    let (deviations, trace) = (shrunk.deviations, shrunk.ran.report.trace_hash);
    (caught, Record { setting, time: shrunk.time, deviations, trace, finding })
}

/// Scenes and behaviours, and how many switches their smallest runs need at most.
const WRONG: [(&str, &str, usize); 6] = [
    ("a-1", "a=upstream", 0),
    ("a-1", "a=skip", 0),
    ("b-1", "b=upstream", 0),
    ("b-5", "b=none-below-64k", 0),
    ("c-1", "c=upstream", 0),
    ("c-2", "c=posted", 1),
];

#[test]
fn every_wrong_variant_shrinks_to_next_to_nothing() {
    for (scene, behaviours, most) in WRONG {
        let (caught, record) = smallest(scene, behaviours);
        assert!(caught.replays, "{scene} {behaviours}");
        assert!(record.deviations.len() <= most, "{scene} {behaviours}: {:?}", record.deviations);
    }
}

#[test]
fn a_run_in_a_file_is_the_same_run() {
    let (caught, record) = smallest("c-2", "c=posted");
    let again = Record::parse(&record.to_string()).unwrap();
    assert_eq!((&again.finding, &again.deviations), (&record.finding, &record.deviations));
    let (first, second) = (record.run(), again.run());
    assert_eq!((first.report.trace_hash, first.report.steps), (second.report.trace_hash, second.report.steps));
    assert_eq!(second.finding.map(|finding| finding.kind()), Some(caught.finding.kind()));
}

#[test]
fn a_file_that_is_no_run_is_refused_with_its_reason() {
    let good = smallest("c-1", "c=upstream").1.to_string();
    let cases = [
        ("pontoon-run 3", "pontoon-run 2", "the first line must be"),
        ("trace ", "trace x", "is no trace"),
        ("manner linux", "manner windows", "manner is linux or userfaultfd"),
        ("device scene", "device nine", "'nine' is no machine of the checker"),
        ("behaviour c=upstream", "behaviour c=nonsense", "unknown behaviour"),
        ("schedule ", "schedule 5<4 ", "'5<4' in the schedule"),
        ("time idle", "time flies", "time is idle, calm or racing"),
        ("\n---\n", "\n", "no line '---'"),
        ("vm      p plain", "vm p plane", "c-1:"),
    ];
    for (from, to, expected) in cases {
        assert!(good.contains(from), "{from}");
        let error = Record::parse(&good.replace(from, to)).expect_err(to);
        assert!(error.contains(expected), "{to}: {error}");
    }
}

/// A file in which the schedule was changed is another run, or none, even where that finds the same.
#[test]
fn a_file_with_another_schedule_is_not_met() {
    let record = smallest("c-2", "c=posted").1;
    assert_eq!(record.is_met_by(&record.run()), Ok(()));
    let differs = |record: &Record| record.is_met_by(&record.run()).expect_err("it differs");
    let mut late = record.clone();
    late.deviations.push("99999>0".parse().expect("a deviation"));
    assert!(differs(&late).contains("no choice 99999>0"));
    let other = Record { trace: 7, ..record };
    assert!(differs(&other).contains("its trace is 0000000000000007"));
}

/// A scene of one's own that fails by a count: it fails so where its story is written, too.
#[test]
fn a_run_that_is_told_is_counted() {
    let text = "memory b 64K\nfirst\n tile0 write b\n counts migrations 7\n";
    let script = Arc::new(Script::parse("counts", text).unwrap());
    let setting = Setting::new(script, Manner::Linux, String::new(), Explore::Pct);
    let silent = setting.replay(&[], check::replay::TimeRule::WhenIdle);
    let (told, _) = setting.tell(&[], check::replay::TimeRule::WhenIdle);
    assert_eq!(told.finding.as_ref().map(Finding::kind), Some("cost"));
    assert_eq!((told.finding, told.reached), (silent.finding, silent.reached));
    assert_eq!(told.report, silent.report);
}

#[test]
fn a_story_fits_a_mail_and_says_what_happened() {
    let told = |scene, behaviours| {
        let (_, record) = smallest(scene, behaviours);
        let (ran, story) = record.setting.tell(&record.deviations, record.time);
        assert_eq!(ran.finding.map(|finding| finding.to_string()), Some(record.finding), "telling changes no run");
        let names = Names { script: &record.setting.script, places: &ran.reached.places };
        let lines = explain::tell(&explain::rows(&names, &story.lines()));
        assert!(lines.iter().all(|line| line.chars().count() <= 75), "{lines:#?}");
        lines.join("\n")
    };
    let a = told("a-1", "a=upstream");
    assert!(a.contains("engine of tile 1") && a.contains("> tile1 read b"), "{a}");
    assert!(a.contains("!! tile 0 wrote 4096 bytes to bus address"), "{a}");
    assert!(a.contains("b[0..16]: 16 pages VRAM0 -> VRAM1"), "{a}");
    // In a mail a sentence may go over several lines; who does something holds what its last line said.
    let sentences =
        a.split_whitespace().filter(|word| !["a", "b", "c", "."].contains(word)).collect::<Vec<_>>().join(" ");
    assert!(sentences.contains(", holding vm->lock, driver_migrate_lock"), "{a}");
    assert!(a.contains("leaf without DM"), "the form of the address says why: {a}");
    let ours = {
        let setting = Setting::new(scenes::named("a-1").unwrap(), Manner::Linux, String::new(), Explore::Pct);
        let (ran, story) = setting.tell(&[], check::replay::TimeRule::WhenIdle);
        let names = Names { script: &setting.script, places: &ran.reached.places };
        explain::tell(&explain::rows(&names, &story.lines())).join("\n")
    };
    assert!(ours.contains("leaf with DM"), "{ours}");
    let b = told("b-1", "b=upstream");
    assert!(b.contains("> munmap b[15]") && b.contains("refused with EINVAL"), "{b}");
    assert!(told("c-1", "c=upstream").contains("an array of 6 fences has 3 filled"));
}
