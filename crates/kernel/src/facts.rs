//! What a run said: its events, and the questions that verdicts ask of them.

use serde_json::Value;
use std::collections::BTreeMap;

/// The events of a run, in order, and how it ended.
pub(crate) struct Facts {
    pub(crate) events: Vec<Value>,
    exit: Option<i32>,
    late: bool,
}

/// Whether pages still had their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Data {
    pub(crate) pages: u64,
    pub(crate) read: u64,
    pub(crate) kept: u64,
}

impl Facts {
    pub(crate) fn read(text: &str, exit: Option<i32>, late: bool) -> Self {
        let events = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Self { events, exit, late }
    }

    /// All events of a name.
    pub(crate) fn all<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Value> + 'a {
        self.events.iter().filter(move |value| value["event"] == event)
    }

    /// The event of a name with this step.
    pub(crate) fn at<'a>(&'a self, event: &'a str, step: &str) -> Option<&'a Value> {
        self.all(event).find(|value| value["step"] == step)
    }

    pub(crate) fn has(&self, event: &str) -> bool {
        self.all(event).next().is_some()
    }

    /// What the handler answered in a step.
    pub(crate) fn errno(&self, step: &str) -> Option<i64> {
        self.at("fault", step)?["errno"].as_i64()
    }

    pub(crate) fn data(&self, step: &str) -> Option<Data> {
        let value = self.at("data", step)?;
        let number = |field: &str| value[field].as_u64();
        Some(Data { pages: number("pages")?, read: number("read")?, kept: number("kept")? })
    }

    /// Pages of all events of a name.
    pub(crate) fn pages(&self, event: &str) -> u64 {
        self.all(event).filter_map(|value| value["pages"].as_u64()).sum()
    }

    /// Warnings by place, "16 WARN xe_migrate.c:2150", in the order of their first.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut places: Vec<String> = Vec::new();
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for warning in self.all("warn") {
            let file = warning["file"].as_str().unwrap_or("?").rsplit('/').next().unwrap_or("?").to_owned();
            let place = format!("{file}:{}", warning["line"]);
            if !counts.contains_key(&place) {
                places.push(place.clone());
            }
            *counts.entry(place).or_default() += 1;
        }
        places
            .iter()
            .map(|place| match counts[place] {
                1 => format!("WARN {place}"),
                count => format!("{count} WARN {place}"),
            })
            .collect()
    }

    /// Why the run cannot be judged, where it cannot: something that is not modelled was reached, the glue gave up, or it died.
    pub(crate) fn unjudged(&self) -> Option<String> {
        if let Some(event) = self.all("not_modelled").next() {
            return Some(format!("not modelled: {}", event["symbol"].as_str().unwrap_or("?")));
        }
        if let Some(event) = self.all("gave_up").next() {
            return Some(event["why"].as_str().unwrap_or("?").to_owned());
        }
        if let Some(event) = self.all("bug").next() {
            let file = event["file"].as_str().and_then(|file| file.rsplit('/').next()).unwrap_or("?");
            return Some(format!("BUG {file}:{}", event["line"]));
        }
        if let Some(event) = self.all("crash").next() {
            return Some(format!(
                "the run died at {:#x} of an access to {}",
                event["ip"].as_u64().unwrap_or(0),
                event["address"].as_str().unwrap_or("?")
            ));
        }
        if self.late {
            return Some("the run did not end".to_owned());
        }
        (!self.has("end")).then(|| format!("the run ended early, with status {:?}", self.exit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_counted_by_place() {
        let line = |line| format!("{{\"event\":\"warn\",\"file\":\"drivers/x/a.c\",\"line\":{line}}}\n");
        let facts = Facts::read(&[line(7), line(9), line(7)].concat(), Some(0), false);
        assert_eq!(facts.warnings(), ["2 WARN a.c:7", "WARN a.c:9"]);
        assert_eq!(facts.unjudged().as_deref(), Some("the run ended early, with status Some(0)"));
    }

    /// The same words as the finding has, whichever copy of the file was compiled.
    #[test]
    fn a_bug_has_no_path() {
        let facts = Facts::read("{\"event\":\"bug\",\"file\":\"/cache/x/a.c\",\"line\":7}\n", Some(3), false);
        assert_eq!(facts.unjudged().as_deref(), Some("BUG a.c:7"));
    }

    #[test]
    fn what_is_not_modelled_is_no_verdict() {
        let facts = Facts::read("{\"event\":\"not_modelled\",\"symbol\":\"schedule\"}\n", Some(3), false);
        assert_eq!(facts.unjudged().as_deref(), Some("not modelled: schedule"));
    }
}
