//! What a fault asks of the kernel: calls by kind, the median over the rounds of a bench.

use comfy_table::{CellAlignment, Table, presets};
use machine::measure::Calls;

/// Calls of one kind of step, a round an entry.
#[derive(Default)]
pub struct Steps {
    what: &'static str,
    size: &'static str,
    rounds: Vec<Calls>,
}

impl Steps {
    /// Of no round yet.
    pub const fn new(what: &'static str, size: &'static str) -> Self {
        Self { what, size, rounds: Vec::new() }
    }

    /// Another round: from before the step to behind it.
    pub fn push(&mut self, before: &Calls, behind: &Calls) {
        self.rounds.push(behind.since(before));
    }

    /// Kinds that the median round made calls of, and how many.
    fn medians(&self) -> Vec<(&'static str, u64)> {
        let kinds = Calls::default().named().into_iter().enumerate();
        let median = |index: usize| {
            let mut counts: Vec<u64> = self.rounds.iter().map(|calls| calls.named()[index].1).collect();
            counts.sort_unstable();
            counts.get(counts.len() / 2).copied().unwrap_or_default()
        };
        kinds.map(|(index, (name, _))| (name, median(index))).filter(|(_, count)| *count > 0).collect()
    }

    /// For scripts.
    pub fn json(&self) -> serde_json::Value {
        let calls: serde_json::Map<_, _> =
            self.medians().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
        serde_json::json!({ "what": self.what, "size": self.size, "calls": calls })
    }
}

/// A line a step.
pub fn table(steps: &[Steps]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["system calls of", "size", "in all", "by kind"]);
    for step in steps {
        let medians = step.medians();
        let all: u64 = medians.iter().map(|(_, count)| count).sum();
        let kinds: Vec<_> = medians.iter().map(|(name, count)| format!("{name} {count}")).collect();
        table.add_row([step.what.to_owned(), step.size.to_owned(), all.to_string(), kinds.join(", ")]);
    }
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
