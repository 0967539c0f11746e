//! The tour, as a script would read it.

use crate::clients::{pontoon, userfaultfd};
use serde_json::Value;

#[test]
fn the_tour_is_right_and_says_so_in_json() {
    if !userfaultfd() {
        return;
    }
    let output = pontoon().args(["tour", "--json"]).output().expect("the command starts");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}");
    let json: Value =
        serde_json::from_str(out.trim_end().lines().last().expect("output")).expect("JSON in the last line");
    assert_eq!(json["data_ok"], true);
    for way in ["SYSTEM->VRAM0", "VRAM0->VRAM1", "VRAM1->SYSTEM", "VRAM1->VRAM0"] {
        assert!(json["migrations"][way].as_u64().is_some_and(|n| n > 0), "{way}: {json}");
    }
    assert_eq!(json["a"]["ok"], true);
    assert_eq!(json["a"]["upstream"]["data_ok"], false);
    assert!(json["a"]["upstream"]["stray_writes"].as_u64().is_some_and(|n| n > 0));
    assert_eq!(json["a"]["ours"]["data_ok"], true);
    assert_eq!(json["a"]["ours"]["stray_writes"], 0);
    assert_eq!((&json["b"]["ok"], &json["b"]["ours"]["data_ok"]), (&true.into(), &true.into()));
    assert_eq!((&json["b"]["upstream"]["unfit_vram"], &json["b"]["ours"]["unfit_vram"]), (&1.into(), &0.into()));
    assert!(out.contains("refused: VM_BIND: Bad address") && !out.contains("\n   VM_BIND"), "{out}");
    assert_eq!(json["c"]["ok"], true);
    assert_eq!(json["c"]["upstream"]["fence_array_holes"], 1);
    assert_eq!(json["c"]["ours"]["data_ok"], true);
}

#[test]
fn the_copying_path_passes_the_same_client() {
    if !userfaultfd() {
        return;
    }
    let run = crate::clients::Client::new("tour").run(&["--no-move"], &[]);
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    assert!(
        run.report["memory"]["mechanism"].as_str().is_some_and(|m| m.contains("copied")),
        "{}",
        run.report["memory"]
    );
    assert!(run.times("VRAM0->VRAM1") > 0);
}
