//! What the evidence of a scene says. Each rule looks at what the run measured, and at whether the run came to the place that the
//! scene is about: one that did not is not judged, and not clean.

use crate::facts::Facts;
use serde_json::Value;

/// What a scene found; of several the greatest counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// The run came to the place, and all was right.
    Clean,
    /// The run says nothing: something that is not modelled was reached, or the place was not.
    NotJudged,
    /// The defect shows itself.
    Found,
}

impl Outcome {
    /// Its word in lines for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Clean => "not found",
            Self::NotJudged => "not judged",
        }
    }
}

/// An outcome, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// What was found.
    pub outcome: Outcome,
    /// The evidence, in one line.
    pub evidence: String,
}

impl Reading {
    fn found(evidence: Vec<String>) -> Self {
        Self { outcome: Outcome::Found, evidence: evidence.join(", ") }
    }

    fn clean(evidence: impl Into<String>) -> Self {
        Self { outcome: Outcome::Clean, evidence: evidence.into() }
    }

    pub(crate) fn not_judged(why: impl Into<String>) -> Self {
        Self { outcome: Outcome::NotJudged, evidence: why.into() }
    }
}

/// What is a finding whatever the scene is about (a warning, two orders of locks, a use after free), and not among the kinds of
/// events `read` that the scene's own rule reads. A death alone is none: what the glue does not hold may be its cause.
pub(crate) fn findings<'a>(facts: &'a Facts, read: &'a [&'a str]) -> impl Iterator<Item = &'a Value> {
    let of_kind = |kind: &str| kface::FINDINGS.contains(&kind) && kind != "crash" && !read.contains(&kind);
    facts.events.iter().filter(move |event| event["event"].as_str().is_some_and(of_kind))
}

impl Reading {
    /// What a scene says whose run tells of `findings`, too. What is not modelled stays without a verdict.
    pub(crate) fn beside(self, findings: &[String], facts: &Facts) -> Self {
        let mut evidence: Vec<String> = Vec::new();
        for text in findings {
            if !evidence.contains(text) {
                evidence.push(text.clone());
            }
        }
        match self.outcome {
            _ if evidence.is_empty() => self,
            Outcome::NotJudged if facts.has("not_modelled") => {
                Self::not_judged(format!("{}; before that: {}", self.evidence, evidence.join(", ")))
            }
            // A BUG is what ended it, and stands there already.
            Outcome::NotJudged if evidence.contains(&self.evidence) => Self::found(evidence),
            Outcome::NotJudged => Self::found([evidence, vec![format!("then {}", self.evidence)]].concat()),
            Outcome::Clean => Self::found([evidence, vec![format!("beside that {}", self.evidence)]].concat()),
            Outcome::Found => Self::found([vec![self.evidence], evidence].concat()),
        }
    }
}

/// What a fault was answered.
fn answered(errno: i64) -> String {
    if errno == 0 { "driver says success".to_owned() } else { format!("fault answered {errno}") }
}

/// A: the block is lost on its way from tile to tile.
pub(crate) fn a(facts: &Facts) -> Reading {
    if let Some(why) = facts.unjudged() {
        return Reading::not_judged(why);
    }
    let in_vram0 = facts.at("where", "tile 0").and_then(|at| at["vram0"].as_u64()).unwrap_or(0);
    let (Some(first), Some(home), Some(errno)) = (facts.data("tile 0"), facts.data("home"), facts.errno("tile 1"))
    else {
        return Reading::not_judged("the scene did not come to the second fault");
    };
    if in_vram0 != home.pages || first.kept != home.pages {
        return Reading::not_judged(format!(
            "the block did not come to tile 0's VRAM ({in_vram0} of {} pages)",
            home.pages
        ));
    }
    let strays = facts.pages("stray_write");
    let mut evidence = Vec::new();
    if home.kept < home.pages {
        evidence.push(format!("LOST {} of {} pages", home.pages - home.kept, home.pages));
    }
    if strays > 0 {
        evidence.push(format!("{strays} stray writes"));
    }
    if facts.has("malformed_table") {
        evidence.push("the copy's page table is one that the device forbids".to_owned());
    }
    let warnings = facts.warnings();
    if !evidence.is_empty() || !warnings.is_empty() || errno != 0 {
        let is_silent = errno == 0 && strays == 0 && warnings.is_empty() && !facts.has("malformed_table");
        evidence.push(answered(errno));
        evidence.extend(warnings);
        if is_silent {
            let jobs = facts.at("fault", "tile 1").and_then(|fault| fault["jobs"].as_u64()).unwrap_or(0);
            evidence.push(format!("SILENT: no warning, no stray access, {jobs} copy jobs"));
        }
        return Reading::found(evidence);
    }
    let second = facts.data("tile 1").unwrap_or_default();
    if second.kept != home.pages {
        return Reading::found(vec![format!("tile 1 reads {} of {} pages", second.kept, home.pages), answered(errno)]);
    }
    let at = facts.at("where", "tile 1");
    let in_vram1 = at.and_then(|at| at["vram1"].as_u64()).unwrap_or(0);
    let jobs = facts.at("fault", "tile 1").and_then(|fault| fault["jobs"].as_u64()).unwrap_or(0);
    let way = match (in_vram1 == home.pages, jobs) {
        (true, 1) => "moved to tile 1 in one copy".to_owned(),
        (true, _) => format!("moved to tile 1 through system memory, {jobs} copies"),
        (false, _) => "tile 1 reads it where it is".to_owned(),
    };
    Reading::clean(format!("kept {} of {} pages, {way}", home.kept, home.pages))
}

/// B: a page in VRAM that a VM of 64K pages cannot map.
pub(crate) fn b(facts: &Facts) -> Reading {
    if let Some(why) = facts.unjudged() {
        return Reading::not_judged(why);
    }
    let whole = facts.at("where", "whole").and_then(|at| at["vram0"].as_u64()).unwrap_or(0);
    let (Some(errno), Some(cut), Some(home)) = (facts.errno("cut"), facts.data("cut"), facts.data("home")) else {
        return Reading::not_judged("the scene did not come to the second fault");
    };
    if whole != home.pages + 1 {
        return Reading::not_judged(format!("the block did not come to VRAM ({whole} of {} pages)", home.pages + 1));
    }
    let mut evidence = facts.warnings();
    if errno != 0 {
        evidence.push(answered(errno));
    } else if cut.read == 0 {
        evidence.push("fault answered 0, and nothing is mapped".to_owned());
    }
    if facts.has("malformed_table") {
        evidence.push("a page table that the device forbids".to_owned());
    }
    if home.kept < home.pages {
        evidence.push(format!("LOST {} of {} pages", home.pages - home.kept, home.pages));
    }
    if evidence.is_empty() {
        return Reading::clean(format!(
            "fault answered 0, the page is read, kept {} of {} pages",
            home.kept, home.pages
        ));
    }
    Reading::found(evidence)
}

/// C: fences that are counted and not filled in. The run may die of it, so this looks at the array first.
pub(crate) fn c(facts: &Facts) -> Reading {
    let arrays =
        facts.all("fence_array").filter_map(|array| Some((array["counted"].as_u64()?, array["filled"].as_u64()?)));
    let mut evidence: Vec<String> = Vec::new();
    let mut last = None;
    for (counted, filled) in arrays {
        last = Some(counted);
        if filled < counted {
            evidence.push(format!("{counted} fences counted, {filled} filled"));
        }
    }
    if !evidence.is_empty() {
        evidence.extend(facts.warnings());
        evidence.extend(facts.all("crash").take(1).map(|_| "then the run dies of the others".to_owned()));
        return Reading::found(evidence);
    }
    if let Some(why) = facts.unjudged() {
        return Reading::not_judged(why);
    }
    let (Some(bind), warnings) = (facts.all("bind").next(), facts.warnings()) else {
        return Reading::not_judged("the scene did not come to the bind");
    };
    if !warnings.is_empty() || bind["errno"] != 0 {
        return Reading::found([warnings, vec![format!("bind answered {}", bind["errno"])]].concat());
    }
    // All work is done by then: it counts right and waits for nothing, or nobody tells the program.
    if bind["fence"] == 0 {
        return Reading::found(vec!["bind answered 0, and the program's fence is never signalled".to_owned()]);
    }
    match last {
        Some(counted) => Reading::clean(format!("{counted} fences counted and filled")),
        None => Reading::clean("no array of fences is made, bind answered 0"),
    }
}

/// D1, one run: an allocation fails, and the fault is answered as if it had not. `None` where no allocation failed any more.
pub(crate) fn d1(facts: &Facts) -> Option<Reading> {
    let bytes = facts.all("allocation_failed").next()?["bytes"].as_u64()?;
    if let Some(why) = facts.unjudged() {
        return Some(Reading::not_judged(format!("allocation of {bytes} bytes: {why}")));
    }
    let (errno, data) = (facts.errno("fails")?, facts.data("fails")?);
    if errno == 0 && data.read == 0 {
        return Some(Reading::found(vec![format!(
            "allocation of {bytes} bytes fails: fault acked as success, nothing mapped"
        )]));
    }
    let home = facts.data("home").unwrap_or_default();
    if home.kept < home.pages {
        return Some(Reading::found(vec![format!(
            "allocation of {bytes} bytes fails: LOST {} pages",
            home.pages - home.kept
        )]));
    }
    Some(Reading::clean(format!("allocation of {bytes} bytes: {}", answered(errno))))
}

/// D2: a handler that does not end.
pub(crate) fn d2(facts: &Facts) -> Reading {
    if let Some(retry) = facts.all("endless_retry").next() {
        let looks = retry["looks"].as_u64().unwrap_or(0);
        return Reading::found(vec![format!("the fault handler does not end ({looks} looks at the process' memory)")]);
    }
    if let Some(why) = facts.unjudged() {
        return Reading::not_judged(why);
    }
    let (Some(errno), Some(half)) = (facts.errno("half"), facts.data("half")) else {
        return Reading::not_judged("the scene did not come to the second fault");
    };
    // That half may be written as before.
    if errno != 0 || half.kept < half.pages {
        let seen = format!("the tile reads {} of {} pages that it may", half.kept, half.pages);
        return Reading::found(vec![format!("the handler ends: {}", answered(errno)), seen]);
    }
    Reading::clean(format!("the handler ends, fault answered 0, {} of {} pages are read", half.kept, half.pages))
}

/// F: what the GPU writes after a fork must not show in the child.
pub(crate) fn f(facts: &Facts) -> Reading {
    if let Some(why) = facts.unjudged() {
        return Reading::not_judged(why);
    }
    let (Some(errno), Some(child), Some(parent)) = (facts.errno("write"), facts.data("child"), facts.data("parent"))
    else {
        return Reading::not_judged("the scene did not come to the child's look");
    };
    let before = facts.at("where", "before").and_then(|at| at["vram0"].as_u64()).unwrap_or(0);
    if before != child.pages || child.read != child.pages {
        let (pages, read) = (child.pages, child.read);
        return Reading::not_judged(format!(
            "{before} of {pages} pages were in VRAM at the fork, the child has {read}"
        ));
    }
    if errno != 0 {
        return Reading::found(vec![answered(errno)]);
    }
    if child.kept < child.pages {
        let shown = child.pages - child.kept;
        let mut evidence =
            vec![format!("the child reads what the GPU wrote after the fork in {shown} of {} pages", child.pages)];
        evidence.extend(facts.warnings().is_empty().then(|| "no warning".to_owned()));
        evidence.push(answered(errno));
        return Reading::found(evidence);
    }
    if parent.kept < parent.pages {
        return Reading::found(vec![format!(
            "LOST {} of {} pages that the GPU wrote",
            parent.pages - parent.kept,
            parent.pages
        )]);
    }
    Reading::clean(format!("the child has its {} pages, the process what the GPU wrote", child.pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lines: &[&str]) -> Facts {
        Facts::read(&lines.join("\n"), Some(0), false)
    }

    const TO_TILE_0: &str = "{\"event\":\"where\",\"step\":\"tile 0\",\"vram0\":16}\n\
        {\"event\":\"data\",\"step\":\"tile 0\",\"pages\":16,\"read\":16,\"kept\":16}";
    const HOME_ZERO: &str =
        "{\"event\":\"data\",\"step\":\"home\",\"pages\":16,\"read\":16,\"kept\":0}\n{\"event\":\"end\"}";

    #[test]
    fn a_loss_without_a_word_is_silent() {
        let fault = "{\"event\":\"fault\",\"step\":\"tile 1\",\"errno\":0,\"jobs\":0}";
        let reading = a(&run(&[TO_TILE_0, fault, HOME_ZERO]));
        assert_eq!(reading.outcome, Outcome::Found);
        assert_eq!(
            reading.evidence,
            "LOST 16 of 16 pages, driver says success, SILENT: no warning, no stray access, 0 copy jobs"
        );
    }

    #[test]
    fn a_table_that_the_device_forbids_is_said_and_is_not_silent() {
        let fault = "{\"event\":\"fault\",\"step\":\"tile 1\",\"errno\":0,\"jobs\":1}\n{\"event\":\"malformed_table\"}";
        let evidence = a(&run(&[TO_TILE_0, fault, HOME_ZERO])).evidence;
        assert_eq!(
            evidence,
            "LOST 16 of 16 pages, the copy's page table is one that the device forbids, driver says success"
        );
    }

    #[test]
    fn a_block_that_never_came_to_vram_is_not_judged() {
        let at = "{\"event\":\"where\",\"step\":\"tile 0\",\"vram0\":0}\n\
            {\"event\":\"data\",\"step\":\"tile 0\",\"pages\":16,\"read\":16,\"kept\":16}";
        let fault = "{\"event\":\"fault\",\"step\":\"tile 1\",\"errno\":0,\"jobs\":0}";
        assert_eq!(a(&run(&[at, fault, HOME_ZERO])).outcome, Outcome::NotJudged);
    }

    #[test]
    fn slots_that_nobody_filled_are_found_even_if_the_run_dies() {
        let facts = run(&["{\"event\":\"fence_array\",\"counted\":6,\"filled\":3}", "{\"event\":\"crash\"}"]);
        assert_eq!(c(&facts).evidence, "6 fences counted, 3 filled, then the run dies of the others");
    }

    #[test]
    fn what_a_run_finds_beside_makes_a_scene_found_and_not_where_something_is_not_modelled() {
        let facts = run(&[
            "{\"event\":\"sleep_in_atomic\"}",
            "{\"event\":\"warn\"}",
            "{\"event\":\"crash\"}",
            "{\"event\":\"end\"}",
        ]);
        assert_eq!(findings(&facts, &["warn"]).count(), 1);
        let found = ["sleeps".to_owned(), "sleeps".to_owned()];
        let beside = |reading: Reading, facts: &Facts| reading.beside(&found, facts).evidence;
        assert_eq!(Reading::clean("kept").beside(&found, &facts).outcome, Outcome::Found);
        assert_eq!(beside(Reading::clean("kept"), &facts), "sleeps, beside that kept");
        assert_eq!(beside(Reading::found(vec!["LOST".to_owned()]), &facts), "LOST, sleeps");
        assert_eq!(beside(Reading::not_judged("sleeps"), &facts), "sleeps");
        let not_modelled = run(&["{\"event\":\"not_modelled\"}"]);
        let reading = Reading::not_judged("not modelled: x").beside(&found, &not_modelled);
        assert_eq!((reading.outcome, &*reading.evidence), (Outcome::NotJudged, "not modelled: x; before that: sleeps"));
    }

    #[test]
    fn a_fence_that_is_counted_right_and_never_signalled_is_found() {
        let bind = |fence: u32| {
            let bind = format!("{{\"event\":\"bind\",\"errno\":0,\"fence\":{fence}}}");
            c(&run(&["{\"event\":\"fence_array\",\"counted\":3,\"filled\":3}", &bind, "{\"event\":\"end\"}"]))
        };
        assert_eq!(bind(0).evidence, "bind answered 0, and the program's fence is never signalled");
        assert_eq!((bind(0).outcome, bind(7).outcome), (Outcome::Found, Outcome::Clean));
    }

    #[test]
    fn a_handler_that_ends_must_also_serve_the_fault() {
        let ends = |errno: i32, kept: u32| {
            let fault = format!("{{\"event\":\"fault\",\"step\":\"half\",\"errno\":{errno}}}");
            let data = format!("{{\"event\":\"data\",\"step\":\"half\",\"pages\":8,\"read\":{kept},\"kept\":{kept}}}");
            d2(&run(&[&fault, &data, "{\"event\":\"end\"}"])).outcome
        };
        assert_eq!([ends(-1, 0), ends(0, 0), ends(0, 7), ends(-1, 8)], [Outcome::Found; 4]);
        assert_eq!(ends(0, 8), Outcome::Clean);
    }

    #[test]
    fn a_child_must_not_see_what_the_gpu_writes_after_the_fork() {
        let ends = |errno: i32, child: u32, parent: u32| {
            let data = |step: &str, kept: u32| {
                format!("{{\"event\":\"data\",\"step\":\"{step}\",\"pages\":4,\"read\":4,\"kept\":{kept}}}")
            };
            let fault = format!("{{\"event\":\"fault\",\"step\":\"write\",\"errno\":{errno}}}");
            let before = "{\"event\":\"where\",\"step\":\"before\",\"vram0\":4}";
            f(&run(&[before, &fault, &data("child", child), &data("parent", parent), "{\"event\":\"end\"}"])).outcome
        };
        assert_eq!([ends(-22, 4, 4), ends(0, 0, 4), ends(0, 4, 3)], [Outcome::Found; 3]);
        assert_eq!(ends(0, 4, 4), Outcome::Clean);
        assert_eq!(f(&run(&["{\"event\":\"end\"}"])).outcome, Outcome::NotJudged);
    }

    #[test]
    fn a_symbol_that_is_not_modelled_is_never_a_verdict() {
        let facts = run(&["{\"event\":\"not_modelled\",\"symbol\":\"x\"}"]);
        for reading in [a(&facts), b(&facts), c(&facts), d2(&facts)] {
            assert_eq!(reading.outcome, Outcome::NotJudged);
        }
    }
}
