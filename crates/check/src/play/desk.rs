//! Memory of a thread for its jobs, and where a word lies in a page.

use super::stage::Stage;
use machine::checked::MapKind;
use units::{HostRange, HostVa, SZ_4K, pages_of};

/// Where results begin, in the page of the fence.
const RESULTS: u64 = 64;
/// Bytes of a word.
pub(super) const WORD: u64 = 8;

/// Where a word lies in its page: the counter first, then the writers'.
pub(super) const fn offset(writer: Option<usize>) -> u64 {
    match writer {
        None => 0,
        Some(writer) => (1 + writer as u64) * WORD,
    }
}

/// The word at an offset of bytes that were read.
pub(super) fn word_at(bytes: &[u8], offset: u64) -> u64 {
    let word = bytes.iter().skip(offset as usize).take(WORD as usize);
    word.rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Memory of a thread for its jobs: the batch, and from a page boundary on the fence and the results.
#[derive(Clone, Copy)]
pub(super) struct Desk {
    range: HostRange,
    fence: HostVa,
}

impl Desk {
    /// Maps one with the room for a batch of so many bytes and so many results.
    pub fn new(stage: &Stage, batch: u64, results: usize) -> Self {
        let batch_pages = pages_of(batch.next_multiple_of(SZ_4K));
        let pages = batch_pages + pages_of((RESULTS + results as u64 * WORD).next_multiple_of(SZ_4K));
        let range = stage.checked.sim.mmap(pages, MapKind::Anonymous);
        Self { range, fence: range.page_at(batch_pages) }
    }

    /// Where the batch lies.
    pub fn batch(&self) -> HostVa {
        self.range.start
    }

    /// Where the job says that it is done.
    pub fn fence(&self) -> HostVa {
        self.fence
    }

    /// Whether it has the room for a batch of so many bytes and so many results.
    pub fn holds(&self, batch: u64, results: usize) -> bool {
        self.fence.0 - self.range.start.0 >= batch && self.range.end.0 - self.fence.0 >= RESULTS + results as u64 * WORD
    }

    /// Where the job's `n`th result comes.
    pub fn result(&self, n: usize) -> HostVa {
        self.fence.add(RESULTS + n as u64 * WORD)
    }
}
