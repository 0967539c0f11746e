//! BOs whose contents are not needed: an eviction gives them up instead of keeping them.
//!
//! Each VMA of a BO says so for itself; the contents are not needed while all of them say so, in all VMs, and nobody else may
//! have the BO. What was given up never comes back, but the BO stays, and so do its addresses: a touch of them by the device is
//! refused, or reads zeros in a VM with a scratch page; a touch by the CPU is a SIGBUS.
//!
//! Locking: the BO's lock.
//!
//! Upstream: `xe_bo_recompute_purgeable_state`, `xe_bo_all_vmas_dontneed`, `xe_ttm_bo_purge`.

use std::sync::Weak;

use units::GpuRange;

use super::{Bo, BoMap, State};
use crate::errno::Errno;

/// Whether a BO's contents are needed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Standing {
    #[default]
    Needed,
    /// They may go.
    Unneeded,
    /// They are gone.
    Purged,
}

impl Standing {
    /// Whether a new use of the BO may begin. `EBUSY`: its contents may go at any time; `EINVAL`: they are gone.
    pub(crate) const fn check(self) -> Result<(), Errno> {
        match self {
            Self::Needed => Ok(()),
            Self::Unneeded => Err(Errno::EBUSY),
            Self::Purged => Err(Errno::EINVAL),
        }
    }
}

impl Bo {
    /// Whether its contents are needed.
    pub(crate) fn standing(&self) -> Standing {
        self.look(&mut self.state.lock())
    }

    /// The same. Without a VMA it is as it was.
    pub(super) fn look(&self, state: &mut State) -> Standing {
        if state.was_advised && state.standing != Standing::Purged {
            let maps = state.maps.iter().filter_map(Weak::upgrade);
            let parts = maps.flat_map(|map| map.live.lock().clone());
            let some_needs_it = parts.map(|part| part.is_needed).reduce(|one, other| one || other);
            state.standing = match some_needs_it {
                _ if self.exported.load() => Standing::Needed,
                Some(true) => Standing::Needed,
                Some(false) => Standing::Unneeded,
                None => state.standing,
            };
        }
        state.standing
    }

    /// It was just evicted, and nothing leads to it.
    pub(super) fn purge_if_unneeded(&self, state: &mut State) {
        if self.look(state) == Standing::Unneeded {
            self.shared.memory.object_purge(self.object, self.config.pages());
            self.give_system(state);
            state.standing = Standing::Purged;
        }
    }
}

impl BoMap {
    /// The program says of the VMA `span` whether it needs what it shows; whether that is there. Of a BO that others may have
    /// nobody says so.
    pub(crate) fn advise(&self, span: GpuRange, is_needed: bool) -> bool {
        let mut state = self.bo.state.lock();
        if self.bo.exported.load() {
            return true;
        }
        let mut live = self.live.lock();
        live.iter_mut().filter(|part| part.span.intersect(span).is_some()).for_each(|part| part.is_needed = is_needed);
        drop(live);
        state.was_advised |= !is_needed;
        self.bo.look(&mut state) != Standing::Purged
    }
}
