//! Scenes as C programs: the triggers of A, B and C fail live as upstream does it, and pass as we do.

use crate::clients::{Client, pontoon, userfaultfd};

/// A scene that forks.
const FORK: &str = "shows a fork between two tiles\nmemory b 64K\nfirst\n  tile0 write b\n  fork\n  tile1 add b, write b\n  cpu read b\n";

/// The program of a scene: a built-in one, or the one above.
fn emitted(scene: &str, dir: &std::path::Path) -> Client {
    let own = dir.join("own.scene");
    std::fs::write(&own, FORK).expect("a file");
    let scene = if scene == "own" { own.to_str().expect("text") } else { scene };
    let output = pontoon().args(["emit-c", scene]).output().expect("the command starts");
    assert!(output.status.success(), "{scene}: {}", String::from_utf8_lossy(&output.stderr));
    let source = dir.join("scene.c");
    std::fs::write(&source, output.stdout).expect("a file");
    Client::of(&source)
}

#[test]
fn a_scene_in_c_fails_live_as_upstream_does_it_and_passes_as_we_do() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cases = [
        ("a-1", "a=upstream", 1, "DATA LOST"),
        ("b-1", "b=upstream", 3, "REFUSED: tile0 read b[0,7,14]"),
        ("c-1", "c=upstream", 2, "VM_BIND without work: Bad address"),
        ("a-1", "", 0, "SCENE a-1: ok"),
        ("b-1", "", 0, "SCENE b-1: ok"),
        ("c-1", "", 0, "SCENE c-1: ok"),
        ("c-2", "", 0, "SCENE c-2: ok"),
        ("unbind", "", 0, "SCENE unbind: ok"),
        ("pins", "", 0, "SCENE pins: ok"),
        ("cut", "", 0, "SCENE cut: ok"),
        ("places", "", 0, "SCENE places: ok"),
        ("full", "", 0, "SCENE full: ok"),
        ("a-1", "b=upstream", 0, "SCENE a-1: ok"),
        ("movers", "", 0, "SCENE movers: ok"),
        ("own", "", 0, "own.scene: ok"),
        ("d-2", "", 0, "SCENE d-2: ok"),
    ];
    for (scene, behaviour, code, expected) in cases {
        let client = emitted(scene, dir.path());
        let options = if behaviour.is_empty() { vec![] } else { vec!["--behaviour", behaviour] };
        let run = client.run(&options, &[]);
        let text = run.out + &run.err;
        assert_eq!(run.code, Some(code), "{scene} {behaviour}: {text}");
        assert!(text.contains(expected), "{scene} {behaviour}: {text}");
    }
}

/// A block that is in VRAM0 but for a page has no entries of 64K. What the device forbids is counted, the pages go by way of system memory.
#[test]
fn a_copy_by_entries_meets_a_forbidden_table_and_loses_nothing() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = emitted("a-6", dir.path()).run(&["--behaviour", "a=entries"], &[]);
    assert!(run.out.contains("SCENE a-6: ok"), "{}{}", run.out, run.err);
    assert!(run.count("malformed") > 0 && run.times("VRAM0->VRAM1") == 0, "{}", run.report);
}

#[test]
fn what_no_program_can_do_is_refused_by_name() {
    for (scene, expected) in
        [("copy-fails", "what is injected"), ("fork", "'fork late'"), ("wide", "'guest.tile1 begin write all[0,22]'")]
    {
        let output = pontoon().args(["emit-c", scene]).output().expect("the command starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{scene}: {errors}");
        assert!(errors.contains(expected), "{scene}: {errors}");
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let scene = dir.path().join("own.scene");
    let closes = "shows */ a comment that goes on\nvm p plain\nbuffer d 64K\nfirst\n  p.tile0 write d\n";
    std::fs::write(&scene, format!("{closes}  close p\n")).expect("a file");
    let emit = || pontoon().arg("emit-c").arg(&scene).output().expect("the command starts");
    assert!(String::from_utf8_lossy(&emit().stderr).contains("'close p': a plain VM stays open in C"));
    std::fs::write(&scene, closes).expect("a file");
    let text = emit().stdout;
    assert!(String::from_utf8_lossy(&text).contains(": * / a comment that goes on."), "it ends with the head");
}
