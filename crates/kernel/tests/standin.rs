//! The pipeline on a stand-in tree of our own: building, private copies, patches, traps, cache, messages. It says nothing about
//! Linux; `tree.rs` does, where there is a kernel tree.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "outside of what the checker controls")]

use kernel::diff::Comparison;
use kernel::diff::acts::{self, Act};
use kernel::diff::stream::Stream;
use kernel::explore::{Accesses, Search};
use kernel::judge::{Outcome, Verdict, chosen};
use kernel::{Interrupt, Kit, Source, Workshop, doctor, series};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

#[path = "standin/content.rs"]
mod content;
#[path = "standin/json.rs"]
mod json;
#[path = "standin/killed.rs"]
mod killed;
#[path = "standin/patches.rs"]
mod patches;

const CONFIG: &[&str] = &["CONFIG_64BIT=y", "CONFIG_STANDIN=y", "CONFIG_OTHER=n"];

fn kit(config: &'static [&'static str]) -> Kit {
    let kface = kface::source::FILES.iter().find(|file| file.name == "kface.h").expect("the joint's header");
    Kit {
        config,
        flags: "-fno-pie -O1 -g1",
        units: &[
            "drivers/gpu/drm/drm_pagemap.o",
            "drivers/gpu/drm/drm_gpusvm.o",
            "drivers/gpu/drm/xe/xe_svm.o",
            "drivers/gpu/drm/xe/xe_sync.o",
            "drivers/dma-buf/dma-fence-array.o",
        ],
        optional: &["drivers/gpu/drm/xe/xe_not_there.o"],
        pattern: "drivers/gpu/drm/xe/xe_svm.o",
        glue: vec![
            Source { name: "kface.h", text: kface.text },
            Source { name: "standin_glue.c", text: include_str!("standin/glue/standin_glue.c") },
        ],
        watched: &["drivers/gpu/drm/xe/xe_svm.o"],
        watch_flags: "-DSTANDIN_WATCHED",
        probes: &[
            ("HAS_PAGES", "#include \"standin.h\"\nint probe = STANDIN_PAGE;\n"),
            ("HAS_UNUSED", "#include \"xe_svm.h\"\nint probe = sizeof(standin_map.unused);\n"),
            ("HAS_NOTHING", "#include \"standin.h\"\nint probe = STANDIN_NOTHING;\n"),
        ],
        wraps: &["dma_fence_array_create"],
        headers: &[("stdio.h", "libc6-dev")],
        needs: &["drivers/gpu/drm/drm_gpusvm.c", "drivers/gpu/drm/drm_pagemap.c", "drivers/gpu/drm/xe/xe_svm.c"],
    }
}

/// A copy of the stand-in, a cache, and a folder with the names of all tools.
struct Bench {
    dir: tempfile::TempDir,
    stop: Interrupt,
}

impl Bench {
    /// `None`, said aloud, where a tool is missing that the stand-in really needs.
    fn new() -> Option<Self> {
        let has = |tool: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|file| file.is_file())
        };
        for tool in ["make", "patch", "gcc", "ld", "objcopy", "nm"] {
            if has(tool).is_none() {
                eprintln!("SKIPPED: no {tool} here, which building a tree needs");
                return None;
            }
        }
        let bench = Self { dir: tempfile::tempdir().expect("a folder"), stop: Interrupt::default() };
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standin/tree"), &bench.tree());
        std::fs::create_dir(bench.tools()).expect("made");
        for tool in ["make", "ld", "objcopy", "flex", "bison", "bc", "patch"] {
            std::fs::write(bench.tools().join(tool), "").expect("written");
        }
        std::os::unix::fs::symlink(has("gcc")?, bench.tools().join("gcc")).expect("linked");
        Some(bench)
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn tools(&self) -> PathBuf {
        self.dir.path().join("tools")
    }

    fn shop(&self) -> Workshop {
        self.open(&self.tree(), CONFIG).expect("opened")
    }

    fn open(&self, tree: &Path, config: &'static [&'static str]) -> anyhow::Result<Workshop> {
        Workshop::open_in(&self.cache(), &OsString::from(self.tools()), tree, kit(config), &self.stop)
    }

    /// What stands in the way of opening a tree.
    fn refusal(&self, tree: &Path) -> String {
        format!("{:#}", self.open(tree, CONFIG).err().expect("refused"))
    }

    fn series(&self, patches: &[(&str, &str)]) -> Vec<series::Patch> {
        let file = self.dir.path().join("x.mbox");
        let mail = |(subject, diff): &(&str, &str)| {
            format!("From 0 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] {subject}\n\n{diff}\n")
        };
        std::fs::write(&file, patches.iter().map(mail).collect::<String>()).expect("written");
        series::read(&file).expect("patches")
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for file in from.read_dir().expect("a folder").flatten() {
        let to = to.join(file.file_name());
        if file.path().is_dir() {
            copy(&file.path(), &to);
        } else {
            std::fs::copy(file.path(), to).expect("copied");
        }
    }
}

/// All files below, with their times.
fn times(dir: &Path, into: &mut BTreeMap<PathBuf, SystemTime>) {
    for file in dir.read_dir().expect("a folder").flatten() {
        into.insert(file.path(), file.metadata().and_then(|about| about.modified()).expect("a time"));
        if file.path().is_dir() {
            times(&file.path(), into);
        }
    }
}

fn judge(shop: &Workshop, id: &'static str) -> (Outcome, String) {
    shop.build().expect("built");
    let verdict = shop.judge(&shop.link().expect("linked"), id).expect("played");
    (verdict.outcome, verdict.evidence)
}

#[test]
fn planted_defects_are_found_with_their_evidence() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    let found = |id, evidence: &str| assert_eq!(judge(&shop, id), (Outcome::Found, evidence.to_owned()));
    found("A", "LOST 1 of 16 pages, driver says success, SILENT: no warning, no stray access, 1 copy jobs");
    found("C", "2 fences counted, 1 filled, WARN xe_sync.c:7");
    found(
        "D1",
        "allocation of 4096 bytes fails: fault acked as success, nothing mapped; 1 other allocations: answered as they should",
    );
    found("D2", "the fault handler does not end (50 looks at the process' memory)");
    found("F", "the child reads what the GPU wrote after the fork in 16 of 16 pages, no warning, driver says success");
}

#[test]
fn what_is_not_modelled_is_named_and_never_a_verdict() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    assert_eq!(judge(&shop, "B"), (Outcome::NotJudged, "not modelled: standin_unmodelled".to_owned()));
    let findings = doctor::look(&shop).expect("looked");
    assert!(!findings.all);
    let row = |name: &str| findings.rows.iter().find(|(what, _)| what == name).map(|(_, how)| how.as_str());
    assert_eq!(row("scene A"), Some("can be judged"));
    assert_eq!(row("scene B"), Some("cannot be judged: not modelled: standin_unmodelled"));
    assert_eq!(row("not modelled"), Some("1 symbols; a scene that reaches one is not judged"));
}

#[test]
fn nothing_is_written_into_the_tree_and_a_second_look_builds_nothing() {
    let Some(bench) = Bench::new() else { return };
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    times(&bench.tree(), &mut before);
    let log = {
        let shop = bench.shop();
        judge(&shop, "A");
        shop.place().join("o.log")
    };
    times(&bench.tree(), &mut after);
    assert_eq!(before, after);
    let built = std::fs::read_to_string(&log).expect("a log");
    assert!(built.contains("CC drivers/gpu/drm/xe/xe_svm.o"));
    judge(&bench.shop(), "A");
    assert_eq!(std::fs::read_to_string(&log).expect("a log"), built, "nothing was made again");
}

#[test]
fn a_cache_inside_of_the_tree_is_refused() {
    let Some(bench) = Bench::new() else { return };
    let cache = bench.tree().join("cache");
    let opened = Workshop::open_in(&cache, &OsString::from(bench.tools()), &bench.tree(), kit(CONFIG), &bench.stop);
    let text = opened.err().expect("refused").to_string();
    assert!(text.contains("inside of the tree, which is never written into"), "{text}");
    assert!(!cache.exists());
}

#[test]
fn a_file_that_changed_is_compiled_again() {
    let Some(bench) = Bench::new() else { return };
    assert_eq!(judge(&bench.shop(), "A").0, Outcome::Found);
    let file = bench.tree().join("drivers/gpu/drm/drm_pagemap.c");
    let text = std::fs::read_to_string(&file).expect("a file").replace("(pages - STANDIN_SKIPPED)", "pages");
    std::fs::write(&file, text).expect("written");
    assert_eq!(judge(&bench.shop(), "A").0, Outcome::Clean);
}

#[test]
fn what_is_no_tree_or_too_old_is_told_with_the_remedy() {
    let Some(bench) = Bench::new() else { return };
    assert!(bench.refusal(&bench.dir.path().join("nowhere")).contains("is no folder: give --tree a kernel tree"));
    assert!(bench.refusal(&bench.tools()).contains("is no kernel tree"));
    std::fs::remove_file(bench.tree().join("drivers/gpu/drm/drm_pagemap.c")).expect("removed");
    let text = bench.refusal(&bench.tree());
    assert!(text.contains("too old a tree: it has no drivers/gpu/drm/drm_pagemap.c"), "{text}");
}

#[test]
fn a_tree_that_was_configured_in_place_is_told_so() {
    let Some(bench) = Bench::new() else { return };
    std::fs::write(bench.tree().join(".config"), "").expect("written");
    assert!(bench.refusal(&bench.tree()).contains("make mrproper"));
}

#[test]
fn missing_tools_are_named() {
    let Some(bench) = Bench::new() else { return };
    for tool in ["flex", "bison"] {
        std::fs::remove_file(bench.tools().join(tool)).expect("removed");
    }
    assert_eq!(
        bench.refusal(&bench.tree()),
        "no flex, bison here: install flex bison (building a kernel's files needs them)"
    );
    std::fs::remove_file(bench.tools().join("gcc")).expect("removed");
    assert!(bench.refusal(&bench.tree()).starts_with("no gcc, flex, bison here: install gcc flex bison"));
}

#[test]
fn a_header_that_tools_of_the_build_include_is_named_with_its_package() {
    let Some(bench) = Bench::new() else { return };
    let kit = Kit { headers: &[("stdio.h", "libc6-dev"), ("pontoon/none.h", "libnone-dev")], ..kit(CONFIG) };
    let path = OsString::from(bench.tools());
    let opened = Workshop::open_in(&bench.cache(), &path, &bench.tree(), kit, &bench.stop);
    let text = opened.err().expect("refused").to_string();
    assert_eq!(text, "no pontoon/none.h here: install libnone-dev (building a kernel's tools needs it)");
    assert!(!bench.cache().exists());
}

/// A file system of so many bytes, as a cache; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(dir: PathBuf, bytes: u32) -> Option<Self> {
        std::fs::create_dir_all(&dir).expect("made");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]).arg(&dir).output();
        if !mounted.is_ok_and(|said| said.status.success()) {
            eprintln!("SKIPPED: no small file system can be mounted here; what a full disk says was not seen");
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_with_the_remedy_and_nothing_half_made_is_kept() {
    let Some(bench) = Bench::new() else { return };
    // The tree's objects do not fit; and where they do, a runner does not.
    for (bytes, stage) in [(24 << 10, "the build"), (2 << 20, "the link")] {
        let Some(small) = Small::mount(bench.cache(), bytes) else { return };
        let shop = bench.shop();
        let failed = shop.build().and_then(|()| shop.link().map(|_| ()));
        let text = format!("{:#}", failed.expect_err("full"));
        assert!(text.contains("is full") && text.contains("PONTOON_KERNEL_CACHE"), "{stage}: {text}");
        let left = || shop.place().read_dir().into_iter().flatten().flatten();
        let runners = left().filter(|file| file.file_name().to_string_lossy().starts_with("run-"));
        assert_eq!(runners.count(), 0, "{stage}");
        assert_eq!(left().count() == 0, stage == "the build", "what was built whole stays: {stage}");
        drop(shop);
        drop(small);
    }
}

#[test]
fn a_configuration_that_does_not_stick_is_an_error_and_nothing_is_kept() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.open(&bench.tree(), &["CONFIG_64BIT=y", "CONFIG_LOST=y"]).expect("opened");
    let text = format!("{:#}", shop.build().expect_err("lost"));
    assert!(text.contains("does not stick: CONFIG_LOST=y"), "{text}");
    assert!(!shop.place().exists());
}

#[test]
fn a_configuration_that_no_longer_sticks_is_an_error_of_the_next_build() {
    let Some(bench) = Bench::new() else { return };
    let config = {
        let shop = bench.shop();
        shop.build().expect("built");
        shop.place().join("o/.config")
    };
    // As a make does where a Kconfig file has changed.
    std::fs::write(&config, "CONFIG_64BIT=y\n").expect("written");
    let file = bench.tree().join("drivers/gpu/drm/drm_pagemap.c");
    let text = std::fs::read_to_string(&file).expect("a file");
    std::fs::write(&file, text + "\n").expect("written");
    // The clock of files goes by steps of some milliseconds, and what is not newer than the build has all of it made anew.
    let later = SystemTime::now() + std::time::Duration::from_secs(1);
    for file in [&config, &file] {
        std::fs::File::options().write(true).open(file).and_then(|file| file.set_modified(later)).expect("set");
    }
    let text = format!("{:#}", bench.shop().build().expect_err("lost"));
    assert!(text.contains("does not stick: CONFIG_STANDIN=y"), "{text}");
}

#[test]
fn a_file_that_does_not_compile_is_told_with_the_compilers_words() {
    let Some(bench) = Bench::new() else { return };
    std::fs::write(bench.tree().join("drivers/gpu/drm/drm_gpusvm.c"), "int standin_handle(\n").expect("written");
    let shop = bench.shop();
    let text = format!("{:#}", shop.build().expect_err("broken"));
    assert!(text.contains("compiling the tree's files fails") && text.contains("error:"), "{text}");
    assert!(!shop.place().exists());
}

#[test]
fn an_interruption_leaves_nothing_behind() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    bench.stop.set();
    assert_eq!(shop.build().expect_err("interrupted").to_string(), "interrupted; nothing is left behind");
    assert!(!shop.place().exists());
}

#[test]
fn an_interruption_in_the_middle_ends_make_and_leaves_nothing_behind() {
    let Some(bench) = Bench::new() else { return };
    std::fs::write(bench.tree().join("slow"), "").expect("written");
    let shop = bench.shop();
    let (prepared, stop) = (shop.place().join("o/include/prepared.h"), bench.stop.clone());
    let other = std::thread::spawn(move || {
        while !prepared.is_file() {
            std::thread::yield_now();
        }
        stop.set();
    });
    assert_eq!(shop.build().expect_err("interrupted").to_string(), "interrupted; nothing is left behind");
    other.join().expect("ended");
    assert!(!shop.place().exists());
    drop(shop);
    assert_eq!(bench.cache().read_dir().expect("a folder").count(), 0, "its lock neither");
}

fn explored(shop: &Workshop, scene: &str) -> kernel::explore::Explored {
    shop.build().expect("built");
    let built = shop.link_watched().expect("linked");
    shop.explore(&built, &Search { scene, tiles: 1, seeds: 0..64, all: true, points: Accesses::Marked })
        .expect("explored")
}

#[test]
fn a_race_is_found_and_its_seed_plays_the_same_again() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    let found = explored(&shop, "faults");
    assert_eq!((found.runs, found.outcome()), (64, Outcome::Found));
    assert_eq!(found.found.len(), 1);
    assert_eq!(found.found[0].text, "an update is lost");
    assert!(found.found[0].runs < 64, "some schedules lose nothing");
    let built = shop.link_watched().expect("linked");
    let seed = found.found[0].seed;
    let [once, again] =
        [(); 2].map(|()| shop.explain(&built, "faults", 1, seed..seed + 1, Accesses::Marked).expect("told"));
    assert_eq!((&once.run, &once.steps), (&again.run, &again.steps));
    assert!(once.lines().iter().any(|line| line == "!!! an update is lost"), "{:?}", once.lines());
    assert!(once.lines().iter().any(|line| line.contains("READ_ONCE word")), "{:?}", once.lines());
}

#[test]
fn a_run_behind_others_is_what_it_is_alone() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    shop.build().expect("built");
    let built = shop.link_watched().expect("linked");
    for scene in ["faults", "munmap"] {
        for seed in 1..24 {
            let alone = shop.explain(&built, scene, 1, seed..seed + 1, Accesses::Marked).expect("told");
            let behind = shop.explain(&built, scene, 1, 0..seed + 1, Accesses::Marked).expect("told");
            assert!(alone.run.is_some() || !alone.steps.is_empty(), "{scene} {seed}");
            assert_eq!((alone.run, alone.steps), (behind.run, behind.steps), "{scene} {seed}");
        }
    }
}

#[test]
fn a_run_that_cannot_be_taken_back_ends_its_process_and_no_seed_is_lost() {
    let Some(bench) = Bench::new() else { return };
    let explored = explored(&bench.shop(), "cpufault");
    assert_eq!((explored.outcome(), explored.runs), (Outcome::Clean, 64));
    assert_eq!(explored.reached["a CPU fault migrated a page back"], 64);
}

/// An engine that does what the stand-in's does, but for writes of CPUs to pages from `until` on.
fn other(until: u64, acts: &[Act]) -> Stream {
    let mut stream = Stream::default();
    for act in acts {
        let page = match *act {
            Act::Tile { page, .. } => {
                stream.answered(0, "ours.rs:1".to_owned());
                page.into()
            }
            Act::Cpu { page, write } if !write || u64::from(page) < until => {
                let addr = acts::BLOCK + 4096 * u64::from(page);
                stream.noticed("clear", addr, addr + 4096, "ours.rs:2".to_owned());
                page.into()
            }
            Act::Cpu { page, .. } => page.into(),
            _ => 0,
        };
        stream.act(*act, page);
        stream.is("pages", "rrrrrrrrrrrrrrrr");
        stream.ranges(&[]);
    }
    stream
}

#[test]
fn two_engines_are_compared_and_the_first_difference_is_told_with_both_places() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    shop.build().expect("built");
    let built = shop.link().expect("linked");
    let compare = |until, all| {
        let asked = Comparison { scene: "faults", tiles: 1, seeds: 0..40, all };
        shop.compare(&built, &asked, &|acts| Ok(other(until, acts))).expect("compared")
    };
    let same = compare(acts::PAGES, true);
    assert_eq!((same.seeds, same.different), (40, 0), "{:?}", same.differences);
    let different = compare(12, true);
    assert_eq!(different.seeds, 40);
    assert!(0 < different.different && different.different < 40);
    assert_eq!(different.differences.len(), 1, "differences that are alike are one");
    let difference = &different.differences[0];
    let theirs = difference.theirs.as_ref().expect("a line");
    assert!(theirs.text.starts_with("  notice clear 1"), "{theirs:?}");
    assert!(difference.ours.as_ref().is_some_and(|line| line.text == "  pages: rrrrrrrrrrrrrrrr"));
    assert!(difference.before[0].text.starts_with("the CPU writes page 1"), "{:?}", difference.before);
    assert_eq!(compare(12, false).different, 1, "the first is enough");
}

#[test]
fn a_race_in_code_that_is_not_watched_is_not_seen() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    shop.build().expect("built");
    let built = shop.link().expect("linked");
    let explored = shop
        .explore(&built, &Search { scene: "faults", tiles: 1, seeds: 0..64, all: true, points: Accesses::Marked })
        .expect("explored");
    assert_eq!(explored.outcome(), Outcome::Clean);
}

#[test]
fn a_deadlock_is_found_with_who_waits_for_what() {
    let Some(bench) = Bench::new() else { return };
    let found = explored(&bench.shop(), "munmap").found;
    assert_eq!(found.len(), 1);
    assert!(found[0].text.starts_with("deadlock: "), "{found:?}");
    assert!(found[0].text.contains("waits for a word"), "{found:?}");
}

#[test]
fn what_is_left_behind_is_found_with_who_asked_for_it() {
    let Some(bench) = Bench::new() else { return };
    let found = explored(&bench.shop(), "close").found;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].text.as_str(), found[0].runs),
        ("leak: 24 bytes that were asked for at xe_svm.c:34, nothing leads there any more", 64)
    );
}

#[test]
fn an_array_of_fences_that_was_not_filled_in_is_found_where_it_is_made() {
    let Some(bench) = Bench::new() else { return };
    let found = explored(&bench.shop(), "queue").found;
    let unfilled = found.iter().find(|finding| finding.text == "an array of 2 fences has 1 filled in, xe_sync.c:8");
    assert_eq!(unfilled.map(|finding| finding.runs), Some(64), "{found:?}");
}

#[test]
fn a_pointer_out_of_memory_that_was_freed_is_told_as_that() {
    let Some(bench) = Bench::new() else { return };
    let found = explored(&bench.shop(), "glue").found;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].text.as_str(), found[0].runs),
        ("the kernel's code follows a pointer out of memory that is freed, at xe_svm.c:42", 64)
    );
}

#[test]
fn a_search_that_did_not_come_to_its_place_is_not_clean() {
    let Some(bench) = Bench::new() else { return };
    let explored = explored(&bench.shop(), "evict");
    assert_eq!((explored.outcome(), explored.runs), (Outcome::NotJudged, 64));
    assert_eq!(explored.missed.len(), 3);
}

#[test]
fn a_run_that_comes_to_what_is_not_modelled_is_counted_and_never_found() {
    let Some(bench) = Bench::new() else { return };
    let explored = explored(&bench.shop(), "gc");
    assert_eq!(explored.outcome(), Outcome::NotJudged);
    assert_eq!(explored.not_judged["not modelled: standin_unmodelled"], 64);
}

#[test]
fn a_series_can_be_explored() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    shop.build().expect("built");
    let fix = "--- a/drivers/gpu/drm/xe/xe_svm.c\n+++ b/drivers/gpu/drm/xe/xe_svm.c\n@@ -17,7 +17,6 @@\n \tint have = *word;\n \n \
        #ifdef STANDIN_WATCHED\n-\tstandin_point();\n #endif\n \t*word = have + 1;\n }\n";
    let series = bench.series(&[("no point", fix)]);
    let built = shop.link_patched(&series.iter().collect::<Vec<_>>()).expect("linked");
    let explored = shop
        .explore(&built, &Search { scene: "faults", tiles: 1, seeds: 0..64, all: true, points: Accesses::Marked })
        .expect("explored");
    assert_eq!(explored.outcome(), Outcome::Clean);
}
