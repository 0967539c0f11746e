//! Hostile mode: programs that know nothing of a GPU end as they always do, while their memory is in VRAM and back.

use crate::clients::{Client, pontoon, skipped, userfaultfd};
use std::path::Path;
use std::process::{Command, Output};

/// Output and exit code of a program, and the same under hostile mode.
fn both_ways(dir: &Path, program: &str, arguments: &[&str]) -> Option<[Output; 2]> {
    let plain = Command::new(program).current_dir(dir).args(arguments).output().ok()?;
    let mut hostile = pontoon();
    hostile.current_dir(dir).args(["run", "--hostile", "--", program]).args(arguments);
    Some([plain, hostile.output().expect("the command starts")])
}

fn assert_alike([plain, hostile]: [Output; 2]) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&hostile.stdout), text(&plain.stdout), "stderr: {}", text(&hostile.stderr));
    assert_eq!(hostile.status.code(), plain.status.code(), "stderr: {}", text(&hostile.stderr));
}

#[test]
fn a_client_that_loops_over_dlopen_fork_signals_and_mmap() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("loop");
    let run = client.run(&["--hostile"], &[]);
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    assert!(run.out.starts_with("LOOP ok"), "{}", run.out);
    let there: u64 = ["SYSTEM->VRAM0", "SYSTEM->VRAM1"].iter().map(|way| run.times(way)).sum();
    assert!(there > 50, "memory was migrated: {}", run.report["migrations"]);
}

#[test]
fn what_no_event_tells_of() {
    if !userfaultfd() {
        return;
    }
    let client = Client::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/unannounced.c"));
    let run = client.run(&["--hostile"], &[]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{}", run.err);
    assert!(run.times("SYSTEM->VRAM0") + run.times("SYSTEM->VRAM1") > 3, "{}", run.report["migrations"]);
}

/// libc ends a process with its last thread, and counts ours.
#[test]
fn main_leaves_before_its_threads() {
    if !userfaultfd() {
        return;
    }
    let client = Client::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/unannounced.c"));
    let run = client.run(&["--hostile"], &["leaving"]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), "leaving\n"), "{}", run.err);
}

/// A thread that drops memory without a pause leaves the kernel no moment in which it does not refuse our calls, unless that thread
/// waits for those who were refused: each page was refused 33 times then, and a fourth of a time since.
#[test]
fn a_program_that_drops_memory_without_a_pause_starves_nobody() {
    if !userfaultfd() {
        return;
    }
    let client = Client::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/unpaused.c"));
    let run = client.run(&["--hostile"], &[]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{}", run.err);
    let counters = &run.report["memory"]["counters"];
    let refusals: u64 = ["again", "postponed_faults"].iter().filter_map(|name| counters[name].as_u64()).sum();
    let pages = 20 * 256;
    assert!(refusals < 4 * pages, "{refusals} refusals for {pages} pages: {counters}");
}

#[test]
fn gcc_compiles_a_file() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("a.c"), PROGRAM).expect("a file");
    let runs = both_ways(dir.path(), "cc", &["-O2", "-S", "-o", "-", "a.c"]).expect("a C compiler");
    assert!(runs[0].status.success());
    assert_alike(runs);
}

#[test]
fn python_counts() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    match both_ways(dir.path(), "python3", &["-c", SCRIPT]) {
        Some(runs) => assert_alike(runs),
        None => {
            assert!(std::env::var_os("PONTOON_CI").is_none(), "CI must not skip: no python3");
            skipped("there is no python3");
        }
    }
}

const PROGRAM: &str = "
#include <stdio.h>
#include <string.h>
struct node { struct node *next; int value; };
static int sum(struct node *n) { int s = 0; for (; n; n = n->next) s += n->value; return s; }
int main(int argc, char **argv) { struct node a[64]; for (int i = 0; i < 64; i++) { a[i].next = i ? a + i - 1 : 0; a[i].value = i * argc; }
printf(\"%d %zu\\n\", sum(a + 63), strlen(argv[0])); return 0; }
";

const SCRIPT: &str = "
import hashlib, subprocess, threading, zlib
h = hashlib.sha256()
def work(n):
    d = {str(i): i * n for i in range(30000)}
    return sum(d.values())
for n in range(8):
    h.update(str(work(n)).encode())
    h.update(zlib.compress(bytes(bytearray(range(256))) * 4096))
out = [0] * 4
def run(i): out[i] = work(i)
ts = [threading.Thread(target=run, args=(i,)) for i in range(4)]
[t.start() for t in ts]; [t.join() for t in ts]
print(out, h.hexdigest(), subprocess.run(['echo', 'child'], capture_output=True).stdout)
";

/// libc's own munmap is seen by no wrapper, and where pages are copied their addresses must not be another mapping's meanwhile.
#[test]
fn free_gives_no_memory_back_where_pages_are_copied() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("kept");
    for (way, expected) in [(&["--hostile"][..], "gone\n"), (&["--hostile", "--no-move"], "kept\n")] {
        let run = client.run(way, &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), expected), "{way:?}: {}", run.err);
    }
}

/// The copying path keeps writers out while it copies; a byte that it lost would show here.
#[test]
fn the_loop_by_the_copying_path() {
    if !userfaultfd() {
        return;
    }
    let run = Client::new("loop").run(&["--hostile", "--no-move"], &[]);
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    assert!(run.out.starts_with("LOOP ok"), "{}", run.out);
}
