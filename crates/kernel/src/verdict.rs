//! What the evidence of a scene says. Each rule looks at what the run measured, and at whether the run came to the place that the
//! scene is about: one that did not is not judged, and not clean.

use crate::facts::Facts;

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
    let Some(errno) = facts.errno("half") else {
        return Reading::not_judged("the scene did not come to the second fault");
    };
    if errno == 0 && facts.data("half").unwrap_or_default().read == 0 {
        return Reading::found(vec!["fault answered 0, and nothing is mapped".to_owned()]);
    }
    Reading::clean(format!("the handler ends: {}", answered(errno)))
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
    fn a_symbol_that_is_not_modelled_is_never_a_verdict() {
        let facts = run(&["{\"event\":\"not_modelled\",\"symbol\":\"x\"}"]);
        for reading in [a(&facts), b(&facts), c(&facts), d2(&facts)] {
            assert_eq!(reading.outcome, Outcome::NotJudged);
        }
    }
}
