//! Searches in parts, their results joined, and a run as a page.

use crate::clients::pontoon;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// Exit code and output of the command.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = pontoon().args(arguments).output().expect("the command starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn last_line(text: &str) -> Value {
    serde_json::from_str(text.lines().next_back().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A search in parts, a process each: what they printed, a file a part.
fn parts(dir: &Path, behaviour: &str, parts: u32) -> Vec<String> {
    let part = |n: u32| {
        let shard = format!("{n}/{parts}");
        let search = ["check", "c-2", "--behaviour", behaviour, "--manner", "linux", "--seeds", "0..60", "--json"];
        let (code, text) = run(&[&search[..], &["--shard", &shard]].concat());
        assert!(code < Some(2), "{text}");
        let file = dir.join(format!("{behaviour}-{n}.out"));
        std::fs::write(&file, text).expect("a file");
        file.to_str().expect("text").to_owned()
    };
    (1..=parts).map(part).collect()
}

#[test]
fn parts_of_a_search_are_the_search() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (code, whole) =
        run(&["check", "c-2", "--behaviour", "c=posted", "--manner", "linux", "--seeds", "0..60", "--json"]);
    assert_eq!(code, Some(1), "{whole}");
    let files = parts(dir.path(), "c=posted", 3);
    let saved = dir.path().join("first.run");
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let saved = saved.to_str().expect("text");
    let (code, merged) = run(&[&["merge", "--json", "--save", saved][..], &files].concat());
    assert_eq!(code, Some(1), "{merged}");
    assert_eq!(last_line(&merged)["found"], last_line(&whole)["found"]);
    assert_eq!(run(&["replay", saved]).0, Some(1));
    let (code, text) = run(&[&["merge"][..], &files[1..]].concat());
    assert!(code == Some(2) && text.contains("part 1 of 3 is missing"), "{text}");

    let files = parts(dir.path(), "c=ours", 2);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let (code, text) = run(&[&["merge"][..], &files].concat());
    assert!(code == Some(0) && text.contains("2 shards, 60 runs: nothing found"), "{text}");
    let (code, text) = run(&["check", "c-1", "--explore", "exhaustive", "--shard", "1/2"]);
    assert!(code == Some(2) && text.contains("--shard does not go with --explore exhaustive"), "{text}");
}

/// Parts that were played with other texts of a scene are none of one search.
#[test]
fn parts_of_a_scene_that_was_changed_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let scene = dir.path().join("own.scene");
    let part = |n: u32, text: &str| {
        std::fs::write(&scene, text).expect("a file");
        let shard = format!("{n}/2");
        let (code, text) =
            run(&["check", scene.to_str().expect("text"), "--seeds", "0..4", "--shard", &shard, "--json"]);
        assert_eq!(code, Some(0), "{text}");
        let file = dir.path().join(format!("{n}.out"));
        std::fs::write(&file, text).expect("a file");
        file.to_str().expect("text").to_owned()
    };
    let files = [part(1, "memory b 64K\nfirst\n  tile0 write b\n"), part(2, "memory b 64K\nfirst\n  tile1 write b\n")];
    let (code, text) = run(&["merge", &files[0], &files[1]]);
    assert!(code == Some(2) && text.contains("shards of different checks: 'texts'"), "{text}");
}

#[test]
fn what_a_search_cannot_do_is_said_before_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [nowhere, new] = ["none/c.run", "c.run"].map(|name| dir.path().join(name).to_str().expect("text").to_owned());
    for explore in ["pct", "exhaustive"] {
        let (code, text) = run(&["check", "c-2", "--explore", explore, "--behaviour", "c=posted", "--save", &nowhere]);
        assert!(code == Some(2) && text.contains("none/c.run cannot be written"), "{text}");
        assert_eq!(text.lines().count(), 1, "nothing was searched: {text}");
    }
    let (code, text) = run(&["check", "c-1", "--seeds", "0..2", "--save", &new]);
    assert!(code == Some(0) && !Path::new(&new).exists(), "where nothing is found, nothing is written: {text}");
    let (code, text) = run(&["check", "c-1", "--deviations", "1"]);
    assert!(code == Some(2) && text.contains("--deviations goes with --explore exhaustive"), "{text}");
}

#[test]
fn a_search_ends_by_its_time() {
    let (code, text) = run(&["check", "c-1", "--time", "1s", "--json"]);
    let json = last_line(&text);
    assert_eq!((code, &json["ended_early"], &json["found"]), (Some(0), &Value::Bool(true), &Value::Null), "{text}");
    // 200,000 runs would be hours.
    let (code, text) = run(&["check", "p-1", "--explore", "exhaustive", "--deviations", "3", "--time", "1s"]);
    assert!(code == Some(0) && text.contains("schedules were left"), "{text}");
    // One run of each manner, in which nobody is overtaken: it shows nothing of the race.
    let (code, text) = run(&["check", "r-2", "--explore", "exhaustive", "--deviations", "0", "--json"]);
    let never = &last_line(&text)[0]["never_met"][0];
    assert!(code == Some(0) && text.contains("meets binds overtaken of scene r-2: no run met it"), "{text}");
    assert_eq!(never, "meets binds overtaken of scene r-2", "{text}");
    let (code, text) = run(&["explain", "r-2", "--seeds", "0..1", "--json"]);
    assert!(code == Some(0) && text.contains("nothing shown of what never came (1)"), "{text}");
    assert_eq!(&last_line(&text)["never_met"][0], never, "{text}");
}

#[test]
fn a_run_is_a_page_and_is_read_from_standard_input() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [page, saved] = ["c.html", "c.run"].map(|name| dir.path().join(name).to_str().expect("text").to_owned());
    let (code, text) = run(&["explain", "c-1", "--behaviour", "c=upstream", "--html", &page, "--save", &saved]);
    assert_eq!(code, Some(1), "{text}");
    let page = std::fs::read_to_string(&page).expect("a page");
    assert!(page.contains("an array of 6 fences has 3 filled") && !page.contains("http"), "{page}");
    let mut replay =
        pontoon().args(["replay", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    let run = std::fs::read(&saved).expect("a run");
    replay.stdin.take().expect("a pipe").write_all(&run).expect("it reads");
    assert_eq!(replay.wait().expect("it ends").code(), Some(1));
}

/// What a script reads is there whether something was found or not, and a file of a run that was changed is no run.
#[test]
fn every_command_of_a_search_has_a_line_for_scripts() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let saved = dir.path().join("c.run");
    let saved = saved.to_str().expect("text");
    let exhaustive = ["check", "c-2", "--manner", "linux", "--explore", "exhaustive", "--deviations", "1", "--json"];
    let (code, text) = run(&[&exhaustive[..], &["--behaviour", "c=posted", "--save", saved]].concat());
    let found = &last_line(&text)[0]["found"];
    assert_eq!(
        (code, &found["kind"], &found["deviations"]),
        (Some(1), &"signalled too early".into(), &1.into()),
        "{text}"
    );
    assert_eq!(found["run"].as_str(), std::fs::read_to_string(saved).ok().as_deref());
    let (code, text) = run(&["replay", "--json", saved]);
    let json = last_line(&text);
    assert_eq!((code, &json["kind"], &json["same"]), (Some(1), &"signalled too early".into(), &true.into()), "{text}");
    let changed = found["run"].as_str().expect("a run").replace("\nschedule ", "\nschedule 1>0 ");
    std::fs::write(saved, changed).expect("a file");
    let (code, text) = run(&["replay", saved]);
    assert!(code == Some(2) && text.contains("its schedule cannot be followed: the run has no choice 1>0"), "{text}");
    let (code, text) = run(&["check", "c-1", "--explore", "exhaustive", "--deviations", "0", "--json"]);
    assert_eq!((code, &last_line(&text)[0]["found"]), (Some(0), &Value::Null), "{text}");

    let page = dir.path().join("none.html");
    let (code, text) = run(&["explain", "c-1", "--seeds", "0..2", "--json", "--html", page.to_str().expect("text")]);
    let json = last_line(&text);
    assert_eq!((code, &json["runs"], &json["finding"]), (Some(0), &4.into(), &Value::Null), "{text}");
    assert!(text.contains("none.html is not written") && !page.exists(), "{text}");
}

/// What ends a run otherwise than by its data is a finding like any other: the command goes on, says which, and exits with 1. So is
/// the race that a search looked for and did not meet told.
#[test]
fn leaks_deadlocks_and_panics_are_findings_of_a_search() {
    for (behaviour, scene, manner, kind) in [
        ("plant=window-kept", "a-1", "linux", "leak"),
        ("plant=unanswered", "d-6", "linux", "deadlock"),
        ("plant=asserted", "a-1", "linux", "panic"),
        ("plant=lock-order", "emptied", "userfaultfd", "lock order"),
    ] {
        let search = ["check", scene, "--behaviour", behaviour, "--manner", manner, "--seeds", "0..5", "--json"];
        let (code, text) = run(&search);
        let found = &last_line(&text)["found"];
        assert_eq!((code, &found["kind"], &found["replays"]), (Some(1), &kind.into(), &true.into()), "{text}");
    }
    let (code, text) = run(&["check", "r-16", "--seeds", "0..1", "--manner", "linux"]);
    assert!(code == Some(0) && text.contains("nothing found") && !text.contains("nothing shown"), "{text}");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let scene = dir.path().join("own.scene");
    std::fs::write(&scene, "memory b 64K\nmeets queues banned\nfirst\n  tile0 write b\n").expect("a file");
    let (code, text) = run(&["check", scene.to_str().expect("text"), "--seeds", "0..4"]);
    assert!(code == Some(0) && text.contains("nothing found, and nothing shown of what never came (1)"), "{text}");
}

/// Nobody reads a verdict by its colour alone, and a file gets none unless it is asked for.
#[test]
fn colour_comes_where_it_is_asked_for() {
    let search = ["check", "a-1", "--seeds", "0..2"];
    let coloured = run(&[&search[..], &["--color", "always"]].concat());
    assert_eq!((coloured.0, coloured.1.contains("\x1b[32mnothing found\x1b[0m")), (Some(0), true), "{}", coloured.1);
    for plain in [&[][..], &["--color", "never"]] {
        let (code, text) = run(&[&search[..], plain].concat());
        assert_eq!((code, text.contains("nothing found"), text.contains('\x1b')), (Some(0), true, false), "{text}");
    }
}
