//! Fork and the end: migrations stop, everything migrates back, the readers end.

use crate::LiveMm;
use crate::books::chunk_range;
use hostmm::MmError;

impl LiveMm {
    /// Stops migrations, waits for those in progress, and brings everything back: `pthread_atfork`'s prepare. A
    /// child inherits no VRAM and no userfaultfd, so what is in VRAM at the fork reads as zeros there. Undone by
    /// [`thaw`](Self::thaw) in the parent, [`after_fork_child`](Self::after_fork_child) in the child. Not to be
    /// called by a thread that is inside a migration. False where some page would not come.
    pub fn migrate_all_back(&self) -> bool {
        self.books.lock().frozen += 1;
        loop {
            let chunks: Vec<u64> = self.books.lock().chunks.iter().map(|(number, _)| number).collect();
            let all = chunks.iter().all(|&number| self.migrate_back(chunk_range(number)));
            let deferred = self.has_deferred();
            let mut books = self.books.lock();
            let quiet = books.claims.is_empty() && !deferred && books.chunks.iter().all(|(_, chunk)| chunk.is_idle());
            if !all || quiet || self.alive().is_err() {
                return all;
            }
            self.claims_changed.wait_for(&mut books, 1_000_000);
        }
    }

    /// Lets migrations begin again: `pthread_atfork`'s parent.
    pub fn thaw(&self) {
        {
            let mut books = self.books.lock();
            books.frozen = books.frozen.saturating_sub(1);
        }
        self.claims_changed.notify_all();
    }

    /// In a forked child: the threads are gone, so every call says [`MmError::Gone`] from now on. The program's
    /// memory is all there and works natively. Takes no lock.
    pub fn after_fork_child(&self) {
        self.life.store(crate::LIFE_DEAD);
    }

    /// Ends it: everything migrates back, the readers end, the descriptors may be closed. What would be in VRAM when
    /// they close is lost silently. False where some page would not come; then nothing is ended.
    pub fn stop(&self) -> bool {
        if self.alive().is_err() {
            return false;
        }
        self.silent.store(true);
        if !self.migrate_all_back() {
            self.silent.store(false);
            self.thaw();
            return false;
        }
        self.life.store(crate::LIFE_STOPPING);
        self.kernel.kick();
        let readers = core::mem::take(&mut *self.readers.lock());
        readers.into_iter().for_each(sync::JoinHandle::join);
        self.deliver_notices();
        self.life.store(crate::LIFE_DEAD);
        true
    }

    /// Lets go of the pagemaps: they hold the engine, which holds this. After [`stop`](Self::stop), where several
    /// worlds follow each other in one process.
    pub fn let_go(&self) {
        let pagemaps: Vec<_> = self.books.lock().arenas.iter_mut().map(Option::take).collect();
        drop(pagemaps);
    }

    pub(crate) fn alive(&self) -> Result<(), MmError> {
        if self.life.load() == crate::LIFE_DEAD { Err(MmError::Gone) } else { Ok(()) }
    }
}
