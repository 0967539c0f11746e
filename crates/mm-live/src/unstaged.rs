//! Copies that are no migration: a pair that nobody staged goes as bytes, to whatever its places are, just as wrong
//! page tables do it in silicon. Not copied is what an event has torn apart since it was translated: one of its
//! places is another page's by now.

use crate::LiveMm;
use crate::books::{Books, Frame, Mark, Residency};
use crate::kernel::Descriptor;
use hostmm::Place;
use units::{HostRange, HostVa, Outcome, PAGE_SHIFT, SZ_4K};

impl LiveMm {
    /// A pair that was not staged, or is no pair of a migration at all: bytes go where the tables said.
    pub(crate) fn copy_unstaged(&self, src: Place, dst: Place) -> Outcome {
        let (Some(from), Some(to)) = (self.address(src), self.address(dst)) else { return Outcome::Failed };
        if self.is_ours(src) || self.is_ours(dst) || !self.books.lock().may_copy(src, dst) {
            return Outcome::Failed;
        }
        let mut buffer = [0u8; SZ_4K as usize];
        if self.kernel.read(from, &mut buffer).is_err() {
            return Outcome::Failed;
        }
        if self.kernel.write(to, &buffer).is_ok() {
            return Outcome::Copied;
        }
        let Place::Device(page) = dst else { return Outcome::Failed };
        if !self.books.lock().is_staged(dst) || self.kernel.fill(Descriptor::Device, to, &buffer).bytes != SZ_4K {
            return Outcome::Failed;
        }
        let mut books = self.books.lock();
        books.note_bytes(page, 1, true);
        books.note_unstaged(page);
        Outcome::Copied
    }

    fn is_ours(&self, place: Place) -> bool {
        matches!(place, Place::Host(frame) if self.ours.contains(HostVa(frame.0 << PAGE_SHIFT)))
    }
}

impl Books {
    fn may_copy(&self, src: Place, dst: Place) -> bool {
        // The claimer may be this very thread; waiting for the page would be for ever.
        let claimed = self.is_claimed(src) || self.is_claimed(dst) && !self.is_staged(dst);
        self.is_sound(src) && self.is_sound(dst) && !claimed
    }

    fn is_claimed(&self, place: Place) -> bool {
        matches!(place, Place::Host(frame) if self.mark(HostVa(frame.0 << PAGE_SHIFT)) != Mark::Free)
    }

    fn is_staged(&self, place: Place) -> bool {
        matches!(place, Place::Device(page) if matches!(self.frame(page), Some(Frame::Staged(_))))
    }

    /// Whether a place is still what a translation can have meant. A staged pair that an event has torn apart since
    /// is no pair any more, but its bytes must not be copied either: one of its places is another page's by now.
    fn is_sound(&self, place: Place) -> bool {
        let Place::Device(page) = place else { return true };
        let staged_for = |va: HostVa| {
            let Mark::Claimed(id) = self.mark(va) else { return None };
            let entry = self.claims.get(id)?.find(va).filter(|entry| !entry.cancelled && !entry.is_remapped())?;
            Some(entry.to.map(|to| to.add(entry.range().page_index(va) as u64)))
        };
        match self.frame(page) {
            Some(Frame::Backs(va)) => {
                self.residency(va) == Residency::Device(page)
                    && (self.mark(va) == Mark::Free || staged_for(va).is_some())
            }
            Some(Frame::Staged(va)) => staged_for(va) == Some(Some(Place::Device(page))),
            // The access will say that it is empty.
            _ => true,
        }
    }

    /// Notes that something else than its page was copied to a staged frame.
    fn note_unstaged(&mut self, page: hostmm::DevicePage) {
        let Some(Frame::Staged(va)) = self.frame(page) else { return };
        let Mark::Claimed(id) = self.mark(va) else { return };
        if let Some(claim) = self.claims.get_mut(id) {
            claim.update(HostRange::sized(va, SZ_4K), |entry| entry.unstaged = true);
        }
    }
}
