//! Serving a GPU fault on mirrored memory: one loop, until the faulting tile translates the address.
//!
//! A round: collect garbage → look the VMA up → find or make the range → migrate it, if that is wanted →
//! collect its pages → bind them. Others serve faults of the same VM meanwhile: who works on a range holds its lock for
//! the round, and looks at the range only then. Memory may change under a round all the same, so each step
//! may ask for another: it lost a race, with an munmap, a CPU's touch or another migration. Who lost one waits a
//! little, longer each time, so that the winner gets on. [`Tries`] bounds it all, by time: a fault ends, served
//! or refused.
//!
//! Where upstream 7.2 differs, this is the corrected variant: an error of the collection is reported and not
//! taken for success (D1); rounds are bounded (D2); pages that no leaf can map are brought back (B, a rule with
//! variants); a range that has outgrown its VMA after an mprotect is made anew, smaller, instead of failing for
//! ever; an atomic is not refused because pages are busy for longer than three migrations take.
//!
//! Locking: the caller shares the VM's lock, and holds nothing below. A round takes the range's lock; pauses are without.
//!
//! Upstream: `xe_svm_handle_pagefault`, `__xe_svm_handle_pagefault`.

use gpusvm::{Ctx, Mapping, MigrateDetails, MigrateError, RangeKey, SvmError};
use sync::time::now_ns;
use units::{GpuVa, HostRange, SZ_64K, TileId};
use xe_spec::fault::Access;

use super::bind::{BindError, bind_range};
use super::devmem::ToVram;
use super::garbage::{self, Collected};
use super::policy::{Need, Placement, leaf_access};
use super::{Mirror, RangeView};
use crate::errno::Errno;
use crate::event::{Event, RetryStep, Serviced, Steps};
use crate::patience::Patience;
use crate::rules::{UnfitVram, WhenMet};
use crate::vma::{Kind, Vma, VmaTree};

/// A fault, as the handler needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub tile: TileId,
    pub addr: GpuVa,
    pub access: Access,
}

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handled {
    /// The tile translates the address, or did a moment ago.
    Served(Serviced),
    /// Nothing yet: the VM's lock is to be held alone for a [collection](garbage::collect) first.
    CollectFirst,
}

/// Serves `fault`, and tells of it where it is over.
pub(crate) fn handle(at: Mirror<'_>, vmas: &VmaTree, fault: &Fault) -> Result<Handled, Errno> {
    let (mut tries, since) = (Tries::default(), now_ns());
    let handled = rounds(at, vmas, fault, &mut tries);
    let outcome = match handled {
        Ok(Handled::CollectFirst) => return handled,
        Ok(Handled::Served(outcome)) => outcome,
        Err(errno) => Serviced::Refused(errno),
    };
    let (bytes, steps) = (tries.bytes, tries.steps);
    at.shared.gpu.emit(Event::SvmFault { tile: fault.tile, bytes, outcome, ns: now_ns() - since, steps });
    handled
}

/// One round after the other, until one serves or none will.
fn rounds(at: Mirror<'_>, vmas: &VmaTree, fault: &Fault, tries: &mut Tries) -> Result<Handled, Errno> {
    let Mirror { shared, space, svm } = at;
    let mut access = fault.access;
    loop {
        if garbage::collect_beside(space, svm, vmas) == Collected::NeedsAlone {
            return Ok(Handled::CollectFirst);
        }
        let vma = vmas.find(fault.addr).filter(|vma| vma.kind == Kind::Mirror).ok_or(Errno::EINVAL)?;
        let placement = Placement::of(&shared.gpu, &vma, fault.tile, access)?;
        let bounds = if tries.losing() { shrink(at, &vma, fault.addr) } else { vma.span.mirrored() };
        let key = match svm.range_find_or_insert(fault.addr.mirrored(), bounds, &placement.find_ctx()) {
            Ok(key) => key,
            Err(SvmError::Busy) => {
                tries.spend(Errno::EBUSY)?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match work_on(at, &vma, fault.tile, &placement, key, tries) {
            Worked::Served(outcome) => return Ok(Handled::Served(outcome)),
            Worked::Moved => {}
            Worked::TooSmall if grow(at, &vma, fault.addr, &placement) => tries.grow(Errno::EACCES)?,
            Worked::TooSmall => return Err(Errno::EACCES),
            Worked::Not(Unserved::Refused(errno)) => return Err(errno),
            Worked::Not(Unserved::Again(step, errno)) => {
                tries.spend(errno)?;
                shared.gpu.emit(Event::Retry { asid: space.asid, addr: fault.addr, step });
            }
            Worked::Not(Unserved::CpuTurn) => {
                tries.give_way()?;
                shared.gpu.emit(Event::Retry { asid: space.asid, addr: fault.addr, step: RetryStep::Migrate });
            }
            Worked::Not(Unserved::Unfit(answer)) => {
                tries.met(answer, shared.gpu.rules.unfit_vram.errno)?;
                if answer == WhenMet::EvictForEver && access == Access::Atomic {
                    access = Access::Write;
                }
                shared.gpu.emit(Event::Retry { asid: space.asid, addr: fault.addr, step: RetryStep::Pages });
            }
        }
    }
}

/// What one round on a range came to.
enum Worked {
    Served(Serviced),
    /// Another thread removed the range, or its memory is gone: look again.
    Moved,
    /// What is wanted cannot be had of a range of this size.
    TooSmall,
    Not(Unserved),
}

/// One round on a range, with its lock held. Whoever had it before may have served this fault too.
fn work_on(at: Mirror<'_>, vma: &Vma, tile: TileId, placement: &Placement, key: RangeKey, tries: &mut Tries) -> Worked {
    let _held = at.space.hold(key);
    let Some(view) = RangeView::of(at.space, at.svm, key) else { return Worked::Moved };
    if view.unmapped {
        // Whoever took it off the list may be slow.
        at.space.list_garbage(key);
        return Worked::Moved;
    }
    tries.bytes = view.span.len();
    if placement.impossible(&view) {
        return Worked::TooSmall;
    }
    if placement.satisfied(&view, tile) {
        return Worked::Served(tries.outcome());
    }
    // Devices and VMs whose atomics want one block take it from each other until it is bound, so one that loses does all of a
    // round alone.
    let alone = tries.losing().then(|| at.shared.migrate_lock.write());
    let round = Round { at, tile, vma, placement, key, view: &view, met: tries.met, is_alone: alone.is_some() };
    let migrated = round.migrate(tries);
    let steps = &mut tries.steps;
    let collected = migrated.and_then(|()| steps.add(|steps| &mut steps.pages_ns, || round.collect()));
    match collected.and_then(|_| steps.add(|steps| &mut steps.bind_ns, || round.bind())) {
        Ok(()) => Worked::Served(Serviced::Resolved),
        Err(unserved) => Worked::Not(unserved),
    }
}

/// Bounds for the range around `addr` where a large one loses race after race: whatever keeps changing may not lie
/// in the 64K that are asked for, and less is collected in less time. A range that is larger goes.
fn shrink(Mirror { space, svm, .. }: Mirror<'_>, vma: &Vma, addr: GpuVa) -> HostRange {
    let window = HostRange::around(addr.mirrored(), SZ_64K);
    for key in svm.ranges_in(window) {
        garbage::remove_beside(space, svm, key, |view| view.span.len() > SZ_64K);
    }
    window.intersect(vma.span.mirrored()).unwrap_or(window)
}

/// Makes room for a range of a page of VRAM around `addr`, where CPU and GPU mappings have it, and what is mapped may be in VRAM;
/// whether they do. A smaller range may be there because pages were absent when it was made.
fn grow(Mirror { space, svm, .. }: Mirror<'_>, vma: &Vma, addr: GpuVa, placement: &Placement) -> bool {
    let window = HostRange::around(addr.mirrored(), placement.min_page);
    let cpu = svm.mm().vma_lookup(addr.mirrored()).filter(|cpu| cpu.anonymous);
    let possible = cpu.is_some_and(|cpu| cpu.range.covers(window)) && vma.span.mirrored().covers(window);
    if possible {
        svm.ranges_in(window).into_iter().for_each(|key| garbage::remove_beside(space, svm, key, |_| true));
    }
    possible
}

/// How a round ended that did not serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unserved {
    /// Another round may; the error is the answer where tries are over.
    Again(RetryStep, Errno),
    /// A CPU fault that was deferred comes first. No race was lost.
    CpuTurn,
    /// Pages in VRAM that no leaf can map: what follows.
    Unfit(WhenMet),
    /// No round will.
    Refused(Errno),
}

/// What the steps of one round work on.
pub(crate) struct Round<'a> {
    pub at: Mirror<'a>,
    pub tile: TileId,
    pub vma: &'a Vma,
    pub placement: &'a Placement,
    pub key: RangeKey,
    pub view: &'a RangeView,
    /// Earlier binds that met pages in VRAM which no leaf can map.
    pub met: u32,
    /// Whether the migrate lock is held alone for it.
    pub is_alone: bool,
}

impl Round<'_> {
    /// Brings the pages to the VRAM they should be in. Where VRAM is only better, failing is no error.
    pub(crate) fn migrate(&self, tries: &mut Tries) -> Result<(), Unserved> {
        let Some(target) = self.placement.migration(self.view) else { return Ok(()) };
        let rules = &self.at.shared.gpu.rules;
        let Some(timeslice_ms) = tries.migration(self.placement, &rules.unfit_vram) else { return Ok(()) };
        let settle_ms = if self.placement.need == Need::Anywhere { rules.settle_ms } else { 0 };
        let details = MigrateDetails { timeslice_ms, settle_ms, ..Default::default() };
        let Mirror { shared, svm, .. } = self.at;
        let migration = ToVram { shared, svm, key: self.key, view: self.view, target, details };
        let run = || if self.is_alone { migration.run_alone() } else { migration.run() };
        tries.steps.migrations += 1;
        match tries.steps.add(|steps| &mut steps.migrate_ns, run) {
            Ok(()) => Ok(()),
            Err(error @ (MigrateError::Invalid | MigrateError::NoVma)) if self.remove_if_outgrown() => {
                tries.migrations = 0;
                Err(Unserved::Again(RetryStep::Migrate, error.into()))
            }
            Err(_) if self.placement.need == Need::Anywhere => Ok(()),
            Err(MigrateError::CpuTurn) => {
                tries.migrations -= 1;
                Err(Unserved::CpuTurn)
            }
            Err(MigrateError::Busy) => Err(Unserved::Again(RetryStep::Migrate, Errno::EBUSY)),
            Err(error) => Err(tries.migration_failed(error.into())),
        }
    }

    /// Collects the pages wherever they are now.
    pub(crate) fn collect(&self) -> Result<Mapping, Unserved> {
        let ctx = self.placement.pages_ctx(self.view, &self.at.shared.gpu.rules.unfit_vram, self.met);
        let error = match self.at.svm.collect_pages(self.key, &ctx) {
            Ok(collected) => return Ok(collected),
            Err(error) => error,
        };
        match error {
            SvmError::Mixed => self.evict(&ctx),
            SvmError::Fault | SvmError::Denied => _ = self.remove_if_outgrown(),
            SvmError::Busy => {}
            SvmError::Invalid | SvmError::NoVma | SvmError::Io | SvmError::NoMemory | SvmError::Gone => {
                return Err(Unserved::Refused(error.into()));
            }
        }
        Err(Unserved::Again(RetryStep::Pages, error.into()))
    }

    /// Brings pages that cannot be collected to system memory. What a fork shares is read-only wherever it goes, so for an atomic,
    /// which has its pages in VRAM again before they are collected, a write fault makes them the process' own first.
    fn evict(&self, ctx: &Ctx) {
        let _ = self.at.svm.range_evict(self.key);
        if self.placement.need == Need::Vram {
            let _ = self.at.svm.get_pages(self.key, &Ctx { owner: None, devmem_only: false, ..*ctx });
        }
    }

    /// Binds them.
    pub(crate) fn bind(&self) -> Result<(), Unserved> {
        let access = leaf_access(self.at.shared.platform(), self.vma);
        match bind_range(self.at.space, self.at.svm, self.key, self.tile, access) {
            Ok(()) => Ok(()),
            Err(BindError::Stale) => Err(Unserved::Again(RetryStep::Bind, Errno::EAGAIN)),
            Err(BindError::NoMemory) => Err(Unserved::Refused(Errno::ENOMEM)),
            Err(BindError::Unreachable) => {
                let _ = self.at.svm.range_evict(self.key);
                Err(Unserved::Again(RetryStep::Pages, Errno::EINVAL))
            }
            Err(BindError::Unfit) => Err(Unserved::Unfit(self.unfit())),
        }
    }

    /// What follows a bind that met pages in VRAM which no leaf can map; those that are to be evicted are.
    fn unfit(&self) -> WhenMet {
        let (gpu, asid) = (&self.at.shared.gpu, self.at.space.asid);
        let rule = &gpu.rules.unfit_vram;
        let answer = (rule.when_met)(rule.errno, self.met);
        match answer {
            WhenMet::Refuse => gpu.emit(Event::UnfitVram { asid, tile: self.tile, span: self.view.span.mirror() }),
            WhenMet::Evict | WhenMet::EvictForEver => {
                let _ = self.at.svm.range_evict(self.key);
                if rule.unmaps {
                    self.at.svm.notifier_lock().unmap_pages(self.key);
                }
            }
        }
        answer
    }

    /// A VMA that was split under the range (by an mprotect, say) never lets all of it migrate, or be collected;
    /// smaller ranges will do. Whether it was.
    fn remove_if_outgrown(&self) -> bool {
        let vma = self.at.svm.mm().vma_lookup(self.view.span.start);
        let outgrown = !vma.is_some_and(|vma| vma.range.covers(self.view.span));
        // One whose memory is gone is the collector's.
        if outgrown && RangeView::of(self.at.space, self.at.svm, self.key).is_some_and(|view| !view.unmapped) {
            garbage::remove(self.at.space, self.at.svm, self.key);
        }
        outgrown
    }
}

/// How often a fault was tried, and how often it may be.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// Migrations begun.
    migrations: u32,
    /// Migrations that failed otherwise than by a race.
    failed: u32,
    /// Rounds that did not serve.
    patience: Patience,
    /// Times that a CPU fault came first.
    gave_way: u32,
    /// Bytes of the range that the last round worked on.
    bytes: u64,
    /// What the rounds took.
    steps: Steps,
    /// Ranges were too small for VRAM, and room was made for a larger one.
    grown: bool,
    /// Binds that met pages in VRAM which no leaf can map.
    pub(crate) met: u32,
}

impl Tries {
    /// Failures, other than by a race, that a migration which must be may have.
    const FAILED: u32 = 3;
    /// Pause in which a CPU fault may be served.
    const GIVE_WAY_NS: u64 = 100_000;
    /// Rounds, and time with one round at least, after which the range is too large.
    const LOSING: (u32, u64) = (4, 100_000_000);

    /// Takes a migration, if one is left: the minimum residency to ask for. It doubles, twice at most, where the
    /// pages were lost again before they were bound.
    fn migration(&mut self, placement: &Placement, rule: &UnfitVram) -> Option<u32> {
        let before = self.migrations;
        self.migrations += 1;
        let doubled = before.min(2) + if rule.doubles_residency { self.met.min(2) } else { 0 };
        (placement.need == Need::Vram || before == 0).then_some(placement.timeslice_ms << doubled)
    }

    /// A migration failed that must be.
    fn migration_failed(&mut self, errno: Errno) -> Unserved {
        self.failed += 1;
        if self.failed < Self::FAILED { Unserved::Again(RetryStep::Migrate, errno) } else { Unserved::Refused(errno) }
    }

    /// Pays for another round, and pauses before it; or ends with `errno`.
    pub(crate) fn spend(&mut self, errno: Errno) -> Result<(), Errno> {
        self.patience.spend(errno)
    }

    /// Pages in VRAM were met that no leaf can map.
    pub(crate) fn met(&mut self, answer: WhenMet, errno: Errno) -> Result<(), Errno> {
        self.met += 1;
        match answer {
            WhenMet::Refuse => Err(errno),
            WhenMet::Evict => self.spend(errno),
            WhenMet::EvictForEver => Ok(()),
        }
    }

    /// Lets a deferred CPU fault go first. Its turn is over in a few milliseconds; that turns follow on each other for
    /// as long as races may be lost takes other VMs that migrate the same memory.
    fn give_way(&mut self) -> Result<(), Errno> {
        if self.patience.is_over(self.gave_way) {
            return Err(Errno::EBUSY);
        }
        self.gave_way += 1;
        self.patience.pause(Self::GIVE_WAY_NS);
        Ok(())
    }

    /// Room was made for a larger range. Where it was made before, another fault has found a small one there since: a race is lost.
    fn grow(&mut self, errno: Errno) -> Result<(), Errno> {
        if std::mem::replace(&mut self.grown, true) { self.spend(errno) } else { Ok(()) }
    }

    /// Whether races are lost more often than by chance.
    fn losing(&self) -> bool {
        let ((rounds, ns), lost) = (Self::LOSING, self.patience.rounds());
        let given_ns = u64::from(self.gave_way) * Self::GIVE_WAY_NS;
        lost >= rounds || (lost > 0 && self.patience.elapsed_ns() >= ns + given_ns)
    }

    /// What to call it when the mapping is found in place.
    fn outcome(&self) -> Serviced {
        if self.patience.rounds() + self.gave_way == 0 { Serviced::Valid } else { Serviced::Resolved }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_that_must_be_may_fail_three_times() {
        let mut tries = Tries::default();
        let again = Unserved::Again(RetryStep::Migrate, Errno::ENOMEM);
        let failed = [(); 3].map(|()| tries.migration_failed(Errno::ENOMEM));
        assert_eq!(failed, [again, again, Unserved::Refused(Errno::ENOMEM)]);
    }
}
