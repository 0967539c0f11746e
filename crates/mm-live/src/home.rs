//! Bringing pages home without being asked by a fault: before fork, at the end, and for wrappers of libc calls.

use crate::LiveMm;
use crate::arena::Frame;
use crate::map::Home;
use crate::sys::task;
use hostmm::{
    AccessError, ClaimRequest, Claimed, Destination, DevicePage, EventKind, MmError, MmEvent, OwnerId, PagemapId,
    Place, Select, Transferred,
};
use sync::time::now_ns;
use units::{HostFrame, HostRange, HostVa, SZ_2M};

/// How long an evacuation tries: it meets only what a migration in progress holds back.
const PATIENCE_NS: u64 = 10_000_000_000;

impl LiveMm {
    /// Brings every page of `range` home and unregisters its chunks: what a wrapper of mremap calls first, because
    /// registration splits VMAs and mremap refuses to go across two. Migrations may begin again at once.
    /// False where some page would not come, or migrations of it kept beginning.
    pub fn bring_home(&self, range: HostRange) -> bool {
        let end = now_ns() + PATIENCE_NS;
        while self.bring_pages_home_by(range, end) {
            let registered = self.map.lock().chunks_in(range);
            self.retire_chunks(registered);
            if self.map.lock().chunks_at(range).next().is_none() {
                return true;
            }
            if now_ns() > end {
                return false;
            }
            // An event on its way, or a migration that begins or ends: the registration goes when it is over.
            if self.pump() {
                self.kick.ring();
            }
            task::relax();
        }
        false
    }

    /// Brings every page of `range` home, and leaves the registration of its chunks as it is: for memory that shall
    /// migrate no more, or not now. False where some page would not come.
    pub fn bring_pages_home(&self, range: HostRange) -> bool {
        self.bring_pages_home_by(range, now_ns() + PATIENCE_NS)
    }

    fn bring_pages_home_by(&self, range: HostRange, end: u64) -> bool {
        while let Some((va, page)) = self.first_away(range) {
            if self.alive().is_err() || now_ns() > end {
                return false;
            }
            let owner = self.map.lock().arena(page.pagemap).map_or(OwnerId(0), |arena| arena.owner);
            if !self.evacuate(va, range, owner) {
                task::relax();
            }
        }
        true
    }

    /// The first page of `range` that is in VRAM.
    fn first_away(&self, range: HostRange) -> Option<(HostVa, DevicePage)> {
        let map = self.map.lock();
        map.concerned(range).into_iter().find_map(|(va, home, _)| match home {
            Home::Device(page) => Some((va, page)),
            Home::System => None,
        })
    }

    /// Runs `change` with every page of `range` at home, unregistered, and out of migration: what a wrapper of mremap
    /// does. It spares the kernel's EFAULT (registration splits VMAs), and it spares the events: those of several
    /// threads that remap to each other's old places cannot be put in order.
    pub fn at_home<R>(&self, range: HostRange, change: impl FnOnce() -> R) -> R {
        if self.alive().is_err() {
            return change();
        }
        let hold = self.map.lock().quarantine.hold(range);
        self.bring_home(range);
        let result = change();
        self.map.lock().quarantine.release(hold);
        result
    }

    /// Brings home what an owner has in the chunk of `va`.
    fn evacuate(&self, va: HostVa, within: HostRange, owner: OwnerId) -> bool {
        let Some(vma) = self.vma_at(va) else {
            // Its munmap has not been read yet.
            self.pump();
            self.kick.ring();
            return false;
        };
        let window = HostRange::around(va, SZ_2M).intersect(vma.range).and_then(|part| part.intersect(within));
        let Some(range) = window else { return false };
        let request = ClaimRequest { range, owner, select: Select::DeviceOnly, fault: None };
        let mut claimed = vec![Claimed::No; range.pages()];
        let Ok(claim) = self.claim_range(&request, EventKind::Clear, &mut claimed) else {
            return false;
        };
        let to: Vec<_> = claimed
            .iter()
            .map(|page| if matches!(page, Claimed::Device(_)) { Destination::Ram } else { Destination::Stay })
            .collect();
        let mut frames = vec![None; range.pages()];
        let staged = self.stage_claim(claim, &to, &mut frames).is_ok();
        let mut wanted = vec![false; range.pages()];
        let mut at = 0;
        while staged && at < claimed.len() {
            let Claimed::Device(first) = claimed[at] else {
                at += 1;
                continue;
            };
            let run =
                (at..claimed.len()).take_while(|&i| claimed[i] == Claimed::Device(first.add((i - at) as u64))).count();
            let mut done = vec![Transferred::Failed; run];
            let home = Place::Host(HostFrame(range.page_at(at).page_number()));
            self.transfer_run(Place::Device(first), home, &mut done);
            for (offset, how) in done.iter().enumerate() {
                wanted[at + offset] = *how != Transferred::Failed;
            }
            at += run;
        }
        let mut moved = vec![false; range.pages()];
        self.commit_claim(claim, &wanted, &mut moved);
        self.finish_claim(claim);
        moved.contains(&true)
    }

    /// Stops migrations, waits for those in progress, and brings everything home: `pthread_atfork`'s prepare. A
    /// child inherits no VRAM and no userfaultfd, so what is in VRAM at the fork reads as zeros there. Undone by
    /// [`thaw`](Self::thaw) in the parent, [`after_fork_child`](Self::after_fork_child) in the child. Not to be
    /// called by a thread that is inside a migration. False where some page would not come.
    pub fn bring_all_home(&self) -> bool {
        self.map.lock().frozen = true;
        loop {
            let chunks: Vec<u64> = self.map.lock().chunks.iter().map(|(number, _)| number).collect();
            let all = chunks.iter().all(|&number| self.bring_home(crate::map::chunk_range(number)));
            let deferred = self.has_deferred();
            let mut map = self.map.lock();
            let quiet = map.claims.is_empty() && !deferred && map.chunks.iter().all(|(_, chunk)| chunk.is_idle());
            if !all || quiet || self.alive().is_err() {
                return all;
            }
            self.claims_changed.wait_for(&mut map, 1_000_000);
        }
    }

    /// Lets migrations begin again: `pthread_atfork`'s parent.
    pub fn thaw(&self) {
        self.map.lock().frozen = false;
        self.claims_changed.notify_all();
    }

    /// In a forked child: the threads are gone, so every call says [`MmError::Gone`] from now on. The program's
    /// memory is all there and works natively. Takes no lock.
    pub fn after_fork_child(&self) {
        self.life.store(crate::LIFE_DEAD);
    }

    /// Tells the notifiers of a change that is about to happen, and runs it between start and end: what wrappers
    /// of munmap, mprotect and madvise use, where the kernel tells late or not at all.
    pub fn changing<R>(&self, range: HostRange, kind: EventKind, change: impl FnOnce() -> R) -> R {
        if self.alive().is_err() {
            return change();
        }
        let begun = self.notifiers.begin(MmEvent { range, kind });
        self.notifiers.tell(&begun);
        let result = change();
        self.notifiers.end(begun);
        result
    }

    /// Tells the notifiers of a change that has happened. Ranges that have no page in VRAM are not registered, so
    /// the kernel raises no event for them; a device reaches their pages by address and needs none, but an engine
    /// that wants to forget its ranges there relies on the wrapper of munmap to call this.
    pub fn changed(&self, range: HostRange, kind: EventKind) {
        self.changing(range, kind, || ());
    }

    /// Ends it: everything comes home, the readers end, the descriptors may be closed. What would be in VRAM when
    /// they close is lost silently. False where some page would not come; then nothing is ended.
    pub fn stop(&self) -> bool {
        if self.alive().is_err() {
            return false;
        }
        if !self.bring_all_home() {
            self.thaw();
            return false;
        }
        self.life.store(crate::LIFE_STOPPING);
        self.kick.ring();
        let readers = core::mem::take(&mut *self.readers.lock());
        readers.into_iter().for_each(sync::JoinHandle::join);
        self.deliver_notices();
        self.life.store(crate::LIFE_DEAD);
        true
    }

    /// Frames that hold bytes, as accounted.
    pub fn resident_frames(&self, id: PagemapId) -> u64 {
        self.map.lock().arena(id).map_or(0, crate::arena::Arena::resident)
    }

    /// Frames that hold bytes, as the kernel says: the truth that accounting is compared with.
    pub fn mincore_frames(&self, id: PagemapId) -> u64 {
        let whole = self.places.range(id);
        let mut resident = [0u8; 512];
        let mut count = 0;
        let mut block = HostRange::sized(whole.start, SZ_2M);
        while whole.covers(block) {
            if self.present(block, &mut resident).is_ok() {
                count += resident.iter().filter(|&&page| page & 1 != 0).count() as u64;
            }
            block = HostRange::sized(block.end, SZ_2M);
        }
        count
    }

    /// Where the page at `va` lives, in VRAM or not. For observers: it may be over when it returns.
    pub fn device_page(&self, va: HostVa) -> Option<DevicePage> {
        match self.map.lock().home(va) {
            Home::Device(page) => Some(page),
            Home::System => None,
        }
    }

    /// A picture of the page map for a report on a stall: chunks, marks, claims, queues.
    pub fn dump(&self) -> String {
        let map = self.map.lock();
        let mut text = String::new();
        for (number, chunk) in map.chunks.iter() {
            text += &format!("chunk {} registered {:?}", crate::map::chunk_range(number), chunk.registered);
            let pages = map.concerned(crate::map::chunk_range(number));
            let away = pages.iter().filter(|page| page.1 != Home::System).count();
            let marked = pages.iter().find(|page| page.2 != crate::map::Mark::Free);
            text += &format!(" in VRAM {away}, first mark {marked:?}\n");
        }
        for (id, claim) in map.claims.iter() {
            let first = claim.entries.iter().find(|entry| entry.from != crate::entry::From::Nowhere);
            text += &format!("claim {id}: {} entries, first {first:?}\n", claim.entries.len());
        }
        drop(map);
        text += &format!(
            "faults waiting {:?}, notices {}, event pending {}\n{:?}\n",
            self.queue.faults.lock(),
            self.queue.notices.lock().len(),
            self.program.event_pending(),
            self.stats()
        );
        text
    }

    pub(crate) fn alive(&self) -> Result<(), MmError> {
        if self.life.load() == crate::LIFE_DEAD { Err(MmError::Gone) } else { Ok(()) }
    }

    /// Why a frame is empty: an event emptied it of which the engine has not been told to the end, the kernel took
    /// back what the program had freed by MADV_FREE, or the translation is stale. An access in flight holds up the
    /// telling, so the frame cannot be free again meanwhile.
    pub(crate) fn explain_empty(&self, page: DevicePage) -> AccessError {
        if self.map.lock().frame(page) == Some(Frame::Condemned) {
            self.counters.told_late.fetch_add(1);
            AccessError::Again
        } else if self.refill(page) {
            AccessError::Again
        } else {
            self.counters.stale.fetch_add(1);
            AccessError::Empty
        }
    }
}
