//! The end of a migration (Linux: `migrate_vma_finalize`).
//!
//! It settles both sides: sources of what moved are freed, what is not wanted goes back, what was cancelled on the way is dropped
//! on both sides; then the waiters are woken.

use crate::LiveMm;
use crate::books::{Books, Claim, Entry, Frame, From, Mark};
use crate::transfer::{Purpose, Transfer};
use hostmm::{ClaimId, DeviceRun, Migration};
use sync::time::now_ns;
use units::{HostRange, Outcome};

/// How long a page that is on the move, or held by somebody else, is followed to put it back, where the engine is not
/// told any more what becomes of it.
const TIMEOUT_NS: u64 = 10_000_000_000;

/// What the end of a claim leaves to be done without a lock.
#[derive(Default)]
struct Ended {
    /// Frames that are free now.
    freed: Vec<DeviceRun>,
    /// Where somebody may wait.
    waited_for: Vec<HostRange>,
}

impl LiveMm {
    pub(crate) fn finish_claim(&self, migration: &mut Migration) {
        let Some(ClaimId(id)) = migration.id.take() else { return };
        self.undo(id, TIMEOUT_NS);
        // Emptied as long as they are claimed: nobody else gets them before.
        let emptied = self.books.lock().frames_to_empty(id);
        self.empty_frames(&emptied);
        let (ended, late) = self.books.lock().release(id);
        self.empty_frames(&late);
        self.free_pages(&ended.freed);
        ended.waited_for.into_iter().for_each(|range| self.kernel.wake(range));
        self.claims_changed.notify_all();
    }

    /// Moves back what was carried and is not wanted. An mremap in the middle gives a page another address: then it
    /// is tried again with that one. What cannot go back at all stays, and that becomes its place.
    pub(crate) fn undo(&self, id: u64, timeout_ns: u64) {
        let (mut end, mut tries) = (None, self.refusals());
        loop {
            let away: Vec<Entry> = match self.books.lock().claims.get(id) {
                Some(claim) => claim.entries.iter().filter(|entry| entry.is_unwanted()).copied().collect(),
                None => return,
            };
            if away.iter().map(|entry| self.put_back(id, entry)).sum::<usize>() == 0 {
                return;
            }
            if now_ns() > *end.get_or_insert_with(|| now_ns() + timeout_ns) {
                let stranded = self.books.lock().strand(id);
                return self.counters.stranded.add(stranded);
            }
            tries.forget();
            self.yield_to_raiser(&mut tries);
        }
    }

    /// Puts a run back; gives how many pages did not go and are not cancelled.
    fn put_back(&self, claim: u64, entry: &Entry) -> usize {
        // What was copied from there left its old bytes behind.
        if let (From::Device(first), Outcome::Copied) = (entry.from, entry.outcome) {
            self.empty_frames(&[DeviceRun { first, pages: entry.pages }]);
        }
        let (mut at, mut left) = (0, 0);
        let transfer = Transfer { claim, name: entry.name(), purpose: Purpose::PutBack };
        self.carry(transfer, &mut |pages, outcome| {
            let name = HostRange::new(entry.name().page_at(at), entry.name().page_at(at + pages));
            let mut books = self.books.lock();
            books.update_named(Transfer { name, ..transfer }, |part| match outcome {
                Outcome::Failed if !part.cancelled => left += part.pages,
                Outcome::Failed => {}
                _ => {
                    part.outcome = Outcome::Failed;
                    self.counters.put_back.add(part.pages as u64);
                }
            });
            drop(books);
            if let (Outcome::Copied, Some(target)) = (outcome, entry.target_page()) {
                self.empty_frames(&[DeviceRun { first: target.add(at as u64), pages }]);
            }
            at += pages;
        });
        left
    }
}

impl Books {
    /// Frames that hold what nobody wants: sources of what was copied or cancelled, targets of what came to nothing.
    fn frames_to_empty(&self, id: u64) -> Vec<DeviceRun> {
        let mut emptied = Vec::new();
        let entries = self.claims.get(id).map_or(&[][..], |claim| &claim.entries);
        for entry in entries {
            let moved_away = entry.committed && entry.outcome == Outcome::Moved;
            if let (Some(first), true) = (entry.source_page(), (entry.committed || entry.cancelled) && !moved_away) {
                emptied.push(DeviceRun { first, pages: entry.pages });
            }
            let came = entry.unstaged || entry.is_carried() || entry.outcome == Outcome::Zeroed;
            if let (Some(first), true) = (entry.target_page(), entry.cancelled || !entry.committed && came) {
                emptied.push(DeviceRun { first, pages: entry.pages });
            }
        }
        emptied
    }

    /// Unmarks the pages and forgets the claim. Gives what is left to be done, and frames of pages that were cancelled so late
    /// that they may not have been emptied yet.
    fn release(&mut self, id: u64) -> (Ended, Vec<DeviceRun>) {
        let now = now_ns();
        let (mut ended, mut late) = (Ended::default(), Vec::new());
        let Some(Claim { mut entries, has_waiters, .. }) = self.claims.remove(id) else { return (ended, late) };
        for entry in &entries {
            self.unmark(entry.range(), Mark::Claimed(id));
            self.note_idle(entry.range(), now);
            if has_waiters {
                ended.waited_for.extend([entry.range(), entry.name()]);
            }
            let mut free = |books: &mut Self, first| {
                let run = DeviceRun { first, pages: entry.pages };
                if entry.cancelled {
                    late.push(run);
                }
                books.set_frames(first, entry.pages, Frame::Cancelled);
                ended.freed.push(run);
            };
            if let (Some(first), true) = (entry.source_page(), entry.committed || entry.cancelled) {
                free(self, first);
            }
            match entry.target_page() {
                Some(first) if entry.cancelled && entry.committed => free(self, first),
                Some(first) if !entry.committed => self.set_frames(first, entry.pages, Frame::Empty),
                _ => {}
            }
        }
        entries.clear();
        self.spare.push(entries);
        (ended, late)
    }
}
