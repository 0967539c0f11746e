//! The tour, as a script would read it.

use crate::clients::{pontoon, userfaultfd};
use prost::Message;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

#[path = "../../src/trace/proto.rs"]
mod proto;

#[test]
fn the_tour_is_right_and_says_so_in_json() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let trace = dir.path().join("trace");
    let mut command = pontoon();
    command.args(["run", "--trace"]).arg(&trace).args(["--", env!("CARGO_BIN_EXE_pontoon"), "tour", "--json"]);
    let output = command.output().expect("the command starts");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    is_sound(&std::fs::read(&trace).expect("a trace"));
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

/// Each slice ends, one after the other on its track, and a flow leads from a fault to its migration and its bind.
fn is_sound(trace: &[u8]) {
    let trace = proto::Trace::decode(trace).expect("a trace");
    let described = trace.packet.iter().filter_map(|packet| packet.track_descriptor.as_ref());
    let tracks: BTreeMap<u64, &str> = described.map(|track| (track.uuid, track.name.as_str())).collect();
    let mut open: BTreeMap<u64, i32> = BTreeMap::new();
    let mut flows: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    let mut kinds = BTreeSet::new();
    for event in trace.packet.iter().filter_map(|packet| packet.track_event.as_ref()) {
        let depth = open.entry(event.track_uuid).or_default();
        *depth += [1, -1, 0][event.kind as usize - 1];
        assert!((0..=1).contains(depth), "{event:?} on {:?}", tracks.get(&event.track_uuid));
        let kind = event.categories.first().map_or("", String::as_str);
        kinds.insert(kind);
        event.flow_ids.iter().for_each(|flow| flows.entry(*flow).or_default().push(kind));
    }
    assert!(open.iter().all(|(track, depth)| tracks.contains_key(track) && *depth == 0), "{open:?}");
    assert!(flows.values().any(|kinds| kinds.starts_with(&["fault", "migrate", "bind"])), "{flows:?}");
    for kind in ["invalidate", "cpu fault", "flush", "job"] {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
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
