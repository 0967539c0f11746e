//! Fences that programs put on a BO, through the descriptor of its dma-buf.
//!
//! Jobs do not appear here: the driver's own fences are for its own use (`DMA_RESV_USAGE_BOOKKEEP`), and order nothing that a
//! program did not ask for.
//!
//! Locking: a leaf.
//!
//! Upstream: `dma-resv.c`.

use std::sync::Arc;

use sync::Mutex;
use sync::rank::mutex;

use crate::fence::Fence;
use crate::ranks;

/// What a fence ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    Read,
    Write,
}

/// The fences of one BO.
pub(crate) struct Reservation(Mutex<Vec<(Use, Arc<Fence>)>>);

impl Reservation {
    /// None.
    pub(crate) fn new() -> Self {
        Self(mutex(ranks::LEAF, Vec::new()))
    }

    /// One more. Those that are over are forgotten.
    pub(crate) fn add(&self, what: Use, fence: Arc<Fence>) {
        let mut fences = self.0.lock();
        fences.retain(|(_, fence)| !fence.is_over());
        fences.push((what, fence));
    }

    /// What somebody has to wait for who reads, or writes: a reader waits for writers, a writer for all.
    pub(crate) fn before(&self, what: Use) -> Arc<Fence> {
        let fences = self.0.lock().clone();
        let waits = fences.into_iter().filter(|(of, _)| what == Use::Write || *of == Use::Write);
        Fence::all(waits.map(|(_, fence)| fence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_wait_for_writers_and_writers_for_all() {
        let fences = Reservation::new();
        let (read, write) = (Fence::new(), Fence::new());
        fences.add(Use::Read, read.clone());
        assert_eq!((fences.before(Use::Read).is_over(), fences.before(Use::Write).is_over()), (true, false));
        fences.add(Use::Write, write.clone());
        assert_eq!((fences.before(Use::Read).is_over(), fences.before(Use::Write).is_over()), (false, false));
        write.signal(Ok(()));
        assert_eq!((fences.before(Use::Read).is_over(), fences.before(Use::Write).is_over()), (true, false));
        read.signal(Ok(()));
        assert!(fences.before(Use::Write).is_over());
    }
}
