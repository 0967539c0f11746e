//! REGISTER and UNREGISTER: holes are passed over, VMAs are split at the range's ends, neighbours merge again.
//!
//! Neither looks at the count of changes.

use super::{ContextId, Registration, is_valid};
use crate::config::Injection;
use crate::sim::Sim;
use crate::space::Mapped;
use crate::state::State;
use mm_live::kernel::{Errno, Watch};
use units::HostRange;

impl Mapped {
    /// Whether a descriptor watches it.
    pub(crate) fn is_watched(&self, by: ContextId) -> bool {
        self.attributes.watch.is_some_and(|watch| watch.by == by)
    }
}

impl State {
    fn vmas_in(&self, range: HostRange) -> Vec<Mapped> {
        self.space.vmas().filter(|mapped| mapped.vma.range.overlaps(range)).copied().collect()
    }
    /// Watches, or not any more, what lies in `range`.
    fn set_watch(&mut self, range: HostRange, watch: Option<Registration>) {
        self.split_edges(range);
        for mut piece in self.space.cut_vmas(range) {
            if piece.attributes.watch.is_some_and(|before| before.protected) && !watch.is_some_and(|now| now.protected)
            {
                self.uffd.unprotect(piece.vma.range);
            }
            piece.attributes.watch = watch;
            self.space.insert_vma(piece);
        }
        self.merge(range);
    }
}

impl Sim {
    /// `UFFDIO_REGISTER`.
    pub(crate) fn register_range(&self, by: ContextId, range: HostRange, watch: Watch) -> Result<(), Errno> {
        if !is_valid(range.start, range.len()) {
            return Err(Errno::INVAL);
        }
        let mut state = self.write_mappings();
        let done = check_register(&state, by, range);
        let done = done.and_then(|()| if state.is_short() { Err(Errno::NOMEM) } else { Ok(()) });
        let done = done.and_then(|()| match Injection::strikes(&mut state.injection.strangers) {
            true => Err(Errno::BUSY),
            false => Ok(()),
        });
        if done.is_ok() {
            let protected = watch == Watch::MissingAndProtected;
            state.set_watch(range, Some(Registration { by, protected }));
        }
        self.wrote_mappings(state);
        done
    }

    /// `UFFDIO_UNREGISTER`.
    pub(crate) fn unregister_range(&self, by: ContextId, range: HostRange) -> Result<(), Errno> {
        if !is_valid(range.start, range.len()) {
            return Err(Errno::INVAL);
        }
        let mut state = self.write_mappings();
        let done = check_unregister(&state, by, range);
        if done.is_ok() {
            let watched: Vec<HostRange> = state
                .vmas_in(range)
                .iter()
                .filter(|mapped| mapped.is_watched(by))
                .filter_map(|mapped| mapped.vma.range.intersect(range))
                .collect();
            for part in watched {
                state.set_watch(part, None);
                state.uffd.wake(by, part);
            }
            self.woken.notify_all_held(&state);
        }
        self.wrote_mappings(state);
        done
    }
}

fn check_register(state: &State, by: ContextId, range: HostRange) -> Result<(), Errno> {
    let vmas = state.vmas_in(range);
    if vmas.is_empty() || vmas.iter().any(|mapped| !mapped.vma.anonymous || mapped.vma.io) {
        return Err(Errno::INVAL);
    }
    let others = vmas.iter().any(|mapped| mapped.attributes.watch.is_some_and(|watch| watch.by != by));
    if others { Err(Errno::BUSY) } else { Ok(()) }
}

fn check_unregister(state: &State, by: ContextId, range: HostRange) -> Result<(), Errno> {
    let vmas = state.vmas_in(range);
    let wrong = |mapped: &Mapped| {
        !mapped.vma.anonymous || mapped.vma.io || mapped.attributes.watch.is_some_and(|watch| watch.by != by)
    };
    if vmas.is_empty() || vmas.iter().any(wrong) { Err(Errno::INVAL) } else { Ok(()) }
}
