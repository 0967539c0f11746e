//! What each command says for programs: one JSON object a line, the last of it the whole.

use super::*;
use serde_json::{Value, json};

fn about() -> Value {
    json!({"tree": "linux x", "scene": "a scene"})
}

/// That each line has what is said of all, and the last line.
fn last(lines: &[Value]) -> &Value {
    for line in lines {
        assert_eq!((&line["tree"], &line["scene"]), (&json!("linux x"), &json!("a scene")), "{line}");
        assert!(!line.to_string().contains('\n'), "{line}");
    }
    lines.last().expect("a line")
}

#[test]
fn doctor_says_a_line_a_row_and_whether_all_can_be_judged() {
    let Some(bench) = Bench::new() else { return };
    let findings = doctor::look(&bench.shop()).expect("looked");
    let lines = findings.json("linux x");
    assert_eq!(lines.len(), findings.rows.len() + 1);
    assert!(lines.contains(&json!({"tree": "linux x", "what": "scene A", "how": "can be judged"})), "{lines:?}");
    assert_eq!(lines.last(), Some(&json!({"tree": "linux x", "what": "all", "judged": false})));
}

#[test]
fn explore_says_a_line_a_finding_and_one_of_the_search() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    let found = explored(&shop, "faults");
    let lines = found.json(&about());
    let (evidence, runs, seed) = (&lines[0]["evidence"], &lines[0]["runs"], &lines[0]["seed"]);
    assert_eq!((evidence, &lines[0]["outcome"]), (&json!("an update is lost"), &json!("found")));
    assert_eq!((runs.as_u64(), seed.as_u64()), (Some(found.found[0].runs), Some(found.found[0].seed)));
    let whole = last(&lines);
    assert_eq!((&whole["outcome"], &whole["schedules"]), (&json!("found"), &json!(64)));
    assert!(whole["points"].as_u64().is_some_and(|points| points > 0));

    let lines = explored(&shop, "gc").json(&about());
    assert_eq!(lines[0]["evidence"], "not modelled: standin_unmodelled");
    assert_eq!((&lines[0]["outcome"], &last(&lines)["outcome"]), (&json!("not judged"), &json!("not judged")));
    let lines = explored(&shop, "cpufault").json(&about());
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["outcome"], "not found");
    assert_eq!(lines[0]["reached"]["a CPU fault migrated a page back"], 64);
    let lines = explored(&shop, "evict").json(&about());
    assert_eq!(last(&lines)["missed"].as_array().map(Vec::len), Some(3));
}

#[test]
fn explain_says_a_line_a_step_and_one_of_the_run() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    let seed = explored(&shop, "faults").found[0].seed;
    let built = shop.link_watched().expect("linked");
    let told = shop.explain(&built, "faults", 1, seed..seed + 1, Accesses::Marked).expect("told");
    let lines = told.json(&about());
    assert_eq!(lines.len(), told.lines().len() + 1);
    let is = |kind: &str, text: &str| lines.iter().any(|line| line["kind"] == kind && line["text"] == text);
    assert!(is("found", "an update is lost"), "{lines:?}");
    let steps = lines.iter().filter(|line| line["kind"] == "step");
    assert!(steps.clone().count() > 0 && steps.clone().all(|line| line["actor"].is_string()));
    assert_eq!(last(&lines)["actors"].as_array().map(Vec::len), Some(told.actors.len()));
    assert_eq!(last(&lines)["hash"].as_str(), told.run.as_ref().map(|(_, hash)| hash.as_str()));
}

#[test]
fn diff_says_a_line_a_difference_and_one_of_the_comparison() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    shop.build().expect("built");
    let built = shop.link().expect("linked");
    let compare = |until| {
        let asked = Comparison { scene: "faults", tiles: 1, seeds: 0..40, all: true };
        shop.compare(&built, &asked, &|acts| Ok(other(until, acts))).expect("compared")
    };
    let lines = compare(acts::PAGES).json(&about());
    assert_eq!((lines.len(), &last(&lines)["outcome"]), (1, &json!("not found")));
    let compared = compare(12);
    let lines = compared.json(&about());
    assert_eq!((&lines[0]["outcome"], &lines[0]["seed"]), (&json!("found"), &json!(compared.differences[0].seed)));
    assert!(lines[0]["theirs"]["text"].as_str().is_some_and(|text| text.starts_with("  notice clear 1")));
    assert!(lines[0]["theirs"]["at"].as_str().is_some_and(|at| at.contains(".c:")), "{}", lines[0]);
    assert_eq!(lines[0]["ours"]["text"], "  pages: rrrrrrrrrrrrrrrr");
    let whole = last(&lines);
    assert_eq!((&whole["outcome"], &whole["compared"]), (&json!("found"), &json!(40)));
    assert_eq!(whole["different"].as_u64(), Some(compared.different));
}
