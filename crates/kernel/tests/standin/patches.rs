//! Patches of the stand-in: what is compiled of them, what is not, and what is then said.

use super::*;

const FIX_A: &str = "--- a/drivers/gpu/drm/drm_pagemap.c\n+++ b/drivers/gpu/drm/drm_pagemap.c\n@@ -5,6 +5,6 @@\n {\n \tint i;\n \n\
    -\tfor (i = 0; i < (pages - STANDIN_SKIPPED) * STANDIN_PAGE; i++)\n+\tfor (i = 0; i < pages * STANDIN_PAGE; i++)\n \
    \t\tto[i] = from[i];\n }\n";
const FIX_A_BY_HEADER: &str = "--- a/include/standin.h\n+++ b/include/standin.h\n@@ -6,7 +6,7 @@\n \n #define STANDIN_PAGE 64\n \
    /* Pages that a migration skips: planted defect A. */\n-#define STANDIN_SKIPPED 1\n+#define STANDIN_SKIPPED 0\n \n \
    struct standin_fence;\n \n";
const WORSE: &str = "--- a/include/standin.h\n+++ b/include/standin.h\n@@ -6,7 +6,7 @@\n \n #define STANDIN_PAGE 64\n \
    /* Pages that a migration skips: planted defect A. */\n-#define STANDIN_SKIPPED 1\n+#define STANDIN_SKIPPED 3\n \n \
    struct standin_fence;\n \n";

fn states(bench: &Bench, patches: &[(&str, &str)], subsets: bool) -> Vec<String> {
    let shop = bench.shop();
    shop.build().expect("built");
    let ids = chosen(&["a".to_owned()]).expect("known");
    let mut lines = Vec::new();
    let tell = |state: &str, verdicts: anyhow::Result<Vec<Verdict>>| {
        lines.push(match verdicts {
            Ok(verdicts) => {
                let note = verdicts[0].patched.note().map_or(String::new(), |note| format!(" ({note})"));
                format!("{state}: {}{note}", verdicts[0].evidence.split(',').next().unwrap_or(""))
            }
            Err(error) => format!("{state}: {error:#}"),
        });
    };
    shop.judge_series(&bench.series(patches), subsets, &ids, tell).expect("judged");
    lines
}

#[test]
fn a_series_is_judged_patch_by_patch_and_by_subsets() {
    let Some(bench) = Bench::new() else { return };
    let lines = states(&bench, &[("worse", WORSE), ("fix", FIX_A)], true);
    assert_eq!(
        lines,
        ["patch 1/2 worse: LOST 3 of 16 pages", "patch 2/2 fix: kept 16 of 16 pages", "only 2: kept 16 of 16 pages",]
    );
}

#[test]
fn a_changed_header_compiles_who_includes_it() {
    let Some(bench) = Bench::new() else { return };
    assert_eq!(states(&bench, &[("header", FIX_A_BY_HEADER)], false), ["patch 1/1 header: kept 16 of 16 pages"]);
    assert_eq!(judge(&bench.shop(), "A").0, Outcome::Found, "the tree itself is as it was");
}

const WARNS: &str = "--- a/drivers/gpu/drm/drm_pagemap.c\n+++ b/drivers/gpu/drm/drm_pagemap.c\n@@ -5,6 +5,7 @@\n {\n \tint i;\n \n\
    -\tfor (i = 0; i < (pages - STANDIN_SKIPPED) * STANDIN_PAGE; i++)\n+\tstandin_warn(__FILE__, 8);\n\
    +\tfor (i = 0; i < pages * STANDIN_PAGE; i++)\n \t\tto[i] = from[i];\n }\n";
const WARNS_IN_D1: &str = "--- a/drivers/gpu/drm/xe/xe_svm.c\n+++ b/drivers/gpu/drm/xe/xe_svm.c\n@@ -6,7 +6,8 @@\n \tif (!standin_alloc(24))\n \
    \t\treturn -12;\n \tif (!standin_alloc(4096))\n-\t\treturn 0;\n+\t\treturn -12;\n+\tstandin_warn(__FILE__, 10);\n \t*mapped = 1;\n \
    \treturn 0;\n }\n";

#[test]
fn what_a_run_finds_beside_its_scene_is_found() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    shop.build().expect("built");
    let judged = |patch, id| {
        let series = bench.series(&[("warns", patch)]);
        let built = shop.link_patched(&series.iter().collect::<Vec<_>>()).expect("linked");
        let verdict = shop.judge(&built, id).expect("played");
        (verdict.outcome, verdict.evidence)
    };
    let said = |evidence: &str| (Outcome::Found, evidence.to_owned());
    assert_eq!(judged(WARNS, "A"), said("driver says success, WARN drm_pagemap.c:8"));
    let rest = "2 other allocations: answered as they should";
    assert_eq!(judged(WARNS_IN_D1, "D1"), said(&format!("WARN xe_svm.c:10; {rest}")));
}

const OTHER_LAYOUT: &str = "--- a/drivers/gpu/drm/xe/xe_svm.h\n+++ b/drivers/gpu/drm/xe/xe_svm.h\n@@ -3,9 +3,10 @@\n \n \
    #define STANDIN_VR 7\n /* Whether the map has a member of that name. */\n-#define STANDIN_HAS_UNUSED 0\n\
    +#define STANDIN_HAS_UNUSED 1\n \n struct standin_map {\n+\tlong unused[16];\n \tint vr;\n };\n \n";

#[test]
fn a_changed_header_beside_the_sources_is_the_glues_and_the_probes_too() {
    let Some(bench) = Bench::new() else { return };
    assert_eq!(states(&bench, &[("layout", OTHER_LAYOUT)], false), ["patch 1/1 layout: LOST 1 of 16 pages"]);
}

#[test]
fn a_patch_that_does_not_apply_is_named() {
    let Some(bench) = Bench::new() else { return };
    let lines = states(&bench, &[("fix", FIX_A), ("again", FIX_A)], false);
    assert!(lines[1].contains("patch \"again\" does not apply to Linux 7.3-standin"), "{lines:?}");
}

/// A file that is in no object here, as most of a driver's are.
const ELSEWHERE: &str = "--- /dev/null\n+++ b/drivers/gpu/drm/xe/xe_new.c\n@@ -0,0 +1 @@\n+#error \"not compiled\"\n";
const RENAMED: &str = "diff --git a/drivers/gpu/drm/drm_pagemap.c b/drivers/gpu/drm/drm_new.c\nsimilarity index 100%\n\
    rename from drivers/gpu/drm/drm_pagemap.c\nrename to drivers/gpu/drm/drm_new.c\n";
const OTHER_RIGHTS: &str = "diff --git a/drivers/gpu/drm/drm_pagemap.c b/drivers/gpu/drm/drm_pagemap.c\n\
    old mode 100644\nnew mode 100755\n";
const DELETED: &str = "--- a/drivers/gpu/drm/drm_gpusvm.c\n+++ /dev/null\n@@ -1,8 +0,0 @@\n-#include \"standin.h\"\n-\n\
    -/* Defect D2: what can never come is waited for. */\n-void standin_handle(void)\n-{\n-\twhile (!standin_look())\n-\t\t;\n-}\n";
const NEW_HEADER: &str = "--- /dev/null\n+++ b/include/new.h\n@@ -0,0 +1 @@\n+#define STANDIN_NEW 0\n\
    --- a/drivers/gpu/drm/drm_pagemap.c\n+++ b/drivers/gpu/drm/drm_pagemap.c\n@@ -1,4 +1,5 @@\n #include \"standin.h\"\n\
    +#include \"new.h\"\n \n /* Defect A: the last page is not carried. */\n \
    void standin_migrate(const unsigned char *from, unsigned char *to, int pages)\n";

#[test]
fn what_is_not_compiled_of_a_patch_is_said_and_nothing_of_it_is_no_verdict() {
    let Some(bench) = Bench::new() else { return };
    let lines = states(&bench, &[("elsewhere", ELSEWHERE), ("fix", FIX_A)], true);
    let nothing = "no file of these patches is compiled here: drivers/gpu/drm/xe/xe_new.c";
    assert_eq!(
        lines,
        [
            &format!("patch 1/2 elsewhere: {nothing}"),
            "patch 2/2 fix: kept 16 of 16 pages (1 of 2 changed files are not compiled here, and not judged: \
                drivers/gpu/drm/xe/xe_new.c)",
            "only 2: kept 16 of 16 pages",
        ]
    );
}

#[test]
fn a_new_header_is_compiled_where_it_is_included() {
    let Some(bench) = Bench::new() else { return };
    // Also in a folder that the tree does not have.
    let in_new_folder =
        NEW_HEADER.replace("b/include/new.h", "b/drivers/gpu/drm/new/new.h").replace("\"new.h", "\"new/new.h");
    for patch in [NEW_HEADER, &in_new_folder] {
        assert_eq!(states(&bench, &[("new", patch)], false), ["patch 1/1 new: LOST 1 of 16 pages"]);
    }
}

#[test]
fn a_file_that_is_gone_is_no_verdict_about_the_one_that_was_there() {
    let Some(bench) = Bench::new() else { return };
    for (patch, file) in [(RENAMED, "drm_pagemap.c"), (DELETED, "drm_gpusvm.c")] {
        let lines = states(&bench, &[("gone", patch)], false);
        let said = format!("patch 1/1 gone: drivers/gpu/drm/{file} is compiled here, and is deleted or renamed");
        assert!(lines[0].starts_with(&said), "{lines:?}");
    }
    assert_eq!(states(&bench, &[("rights", OTHER_RIGHTS)], false), ["patch 1/1 rights: LOST 1 of 16 pages"]);
}
