//! The commands that a user-mode driver puts into its batches, by a C client.

use crate::clients::{Client, userfaultfd};

#[test]
fn commands_do_what_they_say_wherever_memory_is() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("commands");
    for options in [&[][..], &["--no-move"], &["--hostile"]] {
        let run = client.run(options, &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), "COMMANDS ok\n"), "{options:?}: {}", run.err);
        for way in ["SYSTEM->VRAM0", "SYSTEM->VRAM1"] {
            assert!(run.times(way) > 2, "{options:?}: {way} {}", run.report);
        }
        for mistake in ["stray_writes", "stray_reads", "stale_vram", "malformed"] {
            assert_eq!(run.count(mistake), 0, "{options:?}: {mistake}");
        }
        assert_eq!(run.count("bans"), 5, "those that ask for it");
    }
}
