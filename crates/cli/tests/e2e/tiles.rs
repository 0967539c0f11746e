//! Defect A, live: the ways from tile to tile that were discussed, by a client's own data and by what the device did.

use crate::clients::{Client, Run, userfaultfd};

/// Tile 0, tile 1, tile 0 again store into 64K.
fn peek(behaviour: &str) -> Run {
    Client::new("peek").run(&["--behaviour", behaviour], &["-t", "010", "-p", "1"])
}

#[test]
fn what_is_skipped_reads_zeros_and_nothing_is_written_astray() {
    if !userfaultfd() {
        return;
    }
    let run = peek("a=skip");
    assert_ne!(run.code, Some(0));
    assert!(run.out.contains("PEEK BAD pages=16") || run.err.contains("run:"), "{}{}", run.out, run.err);
    assert_eq!(run.count("stray_writes"), 0);
    assert!(run.times("VRAM0->VRAM1") > 0, "the migration reports success: {}", run.report);
}

#[test]
fn a_bounce_a_stay_and_a_peer_keep_the_data() {
    if !userfaultfd() {
        return;
    }
    // Of each: whether pages went from tile to tile, and whether both tiles had them.
    for (behaviour, across, both) in [("a=bounce", false, true), ("a=stay", false, false), ("a=peer", true, true)] {
        let run = peek(behaviour);
        assert_eq!(
            (run.code, run.out.lines().last()),
            (Some(0), Some("PEEK ok")),
            "{behaviour}: {}{}",
            run.out,
            run.err
        );
        assert_eq!(["stray_writes", "bans"].map(|name| run.count(name)), [0; 2], "{behaviour}");
        assert_eq!(run.times("VRAM0->VRAM1") > 0, across, "{behaviour}: {}", run.report["migrations"]);
        assert_eq!(run.times("SYSTEM->VRAM1") > 0, both && !across, "{behaviour}: {}", run.report["migrations"]);
    }
}
