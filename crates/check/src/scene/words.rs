//! The oracle for data: words that one writer each writes, and what a CPU must read there in the end.

use super::process::{Process, signal};
use crate::finding::Finding;
use machine::Record;
use machine::program::Batch;
use units::{HostRange, HostVa, SZ_4K};

/// Word `index` of a page.
pub(super) fn word(block: HostRange, page: usize, index: u64) -> HostVa {
    block.start.add(page as u64 * SZ_4K + index * 8)
}

/// What a writer leaves in its word; never 0, and different for each.
pub(super) fn mark(who: u64, page: usize, round: u64) -> u64 {
    0x1000_0000 * (who + 1) + 0x100 * page as u64 + round + 1
}

/// What is known of a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub at: HostVa,
    /// Page of the scene's memory.
    pub page: usize,
    pub writer: &'static str,
    /// Last value written.
    pub value: u64,
    pub held: Held,
}

/// Whether the value must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It must.
    Surely,
    /// The page was emptied, or the writer ended, meanwhile: a value from before, or 0, will do.
    Perhaps,
}

impl Expected {
    fn admits(&self, found: u64) -> bool {
        // The rounds of a mark count up from 1 in its lowest byte.
        let is_earlier = found & !0xff == self.value & !0xff && (1..=self.value & 0xff).contains(&(found & 0xff));
        found == self.value || self.held == Held::Perhaps && (found == 0 || is_earlier)
    }
}

/// Stores of a tile to the words of `who`.
pub(super) fn store(batch: &mut Batch, block: HostRange, who: u64, pages: &[usize], round: u64) {
    for &page in pages {
        batch.store(word(block, page, who).mirror(), mark(who, page, round) as u32);
    }
}

/// What is known of them when `round` was the last.
pub(super) fn expected(
    block: HostRange,
    who: u64,
    writer: &'static str,
    pages: &[usize],
    round: u64,
    held: Held,
) -> impl Iterator<Item = Expected> {
    let of = move |&page| Expected { at: word(block, page, who), page, writer, value: mark(who, page, round), held };
    pages.iter().map(of)
}

/// Counters that somebody added to, so often in all.
pub(super) fn counters(block: HostRange, index: u64, pages: &[usize], value: u64) -> impl Iterator<Item = Expected> {
    let (writer, held) = ("all of them together", Held::Surely);
    pages.iter().map(move |&page| Expected { at: word(block, page, index), page, writer, value, held })
}

/// Reads the words as a CPU; the first wrong one is told, with the stray writes that explain it.
pub(super) fn judge(process: &Process, words: impl IntoIterator<Item = Expected>) -> Result<(), Finding> {
    let mut wrong = Vec::new();
    for expected in words {
        let found = process.checked.sim.load_u64(expected.at).map_err(|e| signal("reading", e))?;
        if !expected.admits(found) {
            wrong.push((expected, found));
        }
    }
    let Some(&(Expected { page, writer, value, .. }, found)) = wrong.first() else { return Ok(()) };
    let gpu = process.checked.core.gpu();
    let stray_writes = gpu.counters().stray_writes;
    let first_stray = gpu.take_records().iter().find_map(|record| match record {
        Record::StrayWrite { iova, .. } => Some(iova.0),
        _ => None,
    });
    Err(Finding::DataLost { words: wrong.len(), page, writer, expected: value, found, stray_writes, first_stray })
}
