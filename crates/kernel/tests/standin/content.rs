//! The cache goes by content: what was edited is compiled again, though its size and time are what they were.

use super::*;

/// Puts `put` in the place of `find`, of the same length, and gives the file its old time back.
fn edit_unseen(file: &Path, find: &str, put: &str) {
    assert_eq!(find.len(), put.len());
    let time = file.metadata().and_then(|about| about.modified()).expect("a time");
    let old = std::fs::read_to_string(file).expect("a file");
    assert!(old.contains(find), "{old}");
    std::fs::write(file, old.replace(find, put)).expect("written");
    std::fs::File::options().write(true).open(file).and_then(|file| file.set_modified(time)).expect("set");
}

#[test]
fn a_file_that_was_edited_and_looks_the_same_gives_no_old_answer() {
    let Some(bench) = Bench::new() else { return };
    assert_eq!(judge(&bench.shop(), "A").0, Outcome::Found);
    let file = bench.tree().join("drivers/gpu/drm/drm_pagemap.c");
    edit_unseen(&file, "(pages - STANDIN_SKIPPED)", "(pages - 0              )");
    assert_eq!(judge(&bench.shop(), "A").0, Outcome::Clean);
    edit_unseen(&file, "(pages - 0              )", "(pages - STANDIN_SKIPPED)");
    assert_eq!(judge(&bench.shop(), "A").0, Outcome::Found, "and back");
    edit_unseen(&bench.tree().join("include/standin.h"), "STANDIN_SKIPPED 1", "STANDIN_SKIPPED 0");
    assert_eq!(judge(&bench.shop(), "A").0, Outcome::Clean, "a header");
}

#[test]
fn an_older_file_in_the_place_of_another_is_compiled() {
    let Some(bench) = Bench::new() else { return };
    assert_eq!(judge(&bench.shop(), "A").0, Outcome::Found);
    let file = bench.tree().join("drivers/gpu/drm/drm_pagemap.c");
    let text = std::fs::read_to_string(&file).expect("a file").replace("(pages - STANDIN_SKIPPED)", "pages");
    std::fs::write(&file, text).expect("written");
    let old = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    std::fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(old)).expect("set");
    assert_eq!(judge(&bench.shop(), "A").0, Outcome::Clean);
}

#[test]
fn the_trees_own_rules_are_a_part_of_it() {
    let Some(bench) = Bench::new() else { return };
    assert_eq!(judge(&bench.shop(), "A").0, Outcome::Found);
    edit_unseen(&bench.tree().join("Makefile"), "-Wall $(KCFLAGS) -c", "-DX   $(KCFLAGS) -c");
    let shop = bench.shop();
    judge(&shop, "A");
    let saved = std::fs::read_to_string(shop.place().join("o/drivers/gpu/drm/.drm_pagemap.o.cmd")).expect("a command");
    assert!(saved.contains("-DX "), "{saved}");
}

#[test]
fn a_watched_file_that_was_edited_is_watched_anew() {
    let Some(bench) = Bench::new() else { return };
    assert_eq!(explored(&bench.shop(), "faults").outcome(), Outcome::Found);
    edit_unseen(&bench.tree().join("drivers/gpu/drm/xe/xe_svm.c"), "\tstandin_point();", "\t;              ;");
    assert_eq!(explored(&bench.shop(), "faults").outcome(), Outcome::Clean);
}

#[test]
fn a_file_that_only_has_another_time_is_not_compiled_again() {
    let Some(bench) = Bench::new() else { return };
    judge(&bench.shop(), "A");
    let now = SystemTime::now();
    let file = bench.tree().join("drivers/gpu/drm/drm_pagemap.c");
    std::fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(now)).expect("set");
    let shop = bench.shop();
    let log = shop.place().join("o.log");
    let before = std::fs::read_to_string(&log).expect("a log");
    judge(&shop, "A");
    assert_eq!(std::fs::read_to_string(log).expect("a log"), before);
}
