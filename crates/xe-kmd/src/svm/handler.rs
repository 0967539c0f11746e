//! Serving a GPU fault on mirrored memory: one loop, until the faulting tile translates the address.
//!
//! A round: collect garbage → look the VMA up → find or make the range → migrate it, if that is wanted →
//! collect its pages → bind them. Anything may change under a round, as only the VM's lock is held, so each step
//! may ask for another. [`Tries`] bounds them: a fault ends, served or refused.
//!
//! Where upstream 7.2 differs, this is the corrected variant: an error of the collection is reported and not
//! taken for success (D1); rounds are bounded (D2); pages of a range too small for VRAM are brought home instead
//! of being bound (B); a range that has outgrown its VMA after an mprotect is made anew, smaller, instead of
//! failing for ever.
//!
//! Locking: the VM's lock is held by the caller, and nothing below.
//!
//! Upstream: `xe_svm_handle_pagefault`, `__xe_svm_handle_pagefault`.

use gpusvm::{RangeKey, SvmError};
use units::{GpuVa, TileId};
use xe_spec::fault::Access;

use super::policy::{Need, Want, leaf_access};
use super::{RangeView, Svm, devmem, garbage};
use crate::bind::{BindError, bind_range};
use crate::errno::Errno;
use crate::event::{Event, RetryStep, Serviced};
use crate::vm::{Vm, VmState};
use crate::vma::{Kind, Vma};

/// A fault, as the handler needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub tile: TileId,
    pub addr: GpuVa,
    pub access: Access,
}

/// Serves `fault`; on `Ok` the tile translates the address, or did a moment ago.
pub(crate) fn handle(vm: &Vm, svm: &Svm, state: &VmState, fault: &Fault) -> Result<Serviced, Errno> {
    let mut tries = Tries::default();
    loop {
        garbage::collect(&vm.space, svm);
        let vma = state.vmas.find(fault.addr).filter(|vma| vma.kind == Kind::Mirror).ok_or(Errno::EINVAL)?;
        let want = Want::of(vm.platform(), &vma, fault.tile, fault.access)?;
        let key = svm.range_find_or_insert(fault.addr.mirrored(), vma.span.mirrored(), &want.find_ctx())?;
        let view = RangeView::of(svm, key).ok_or(Errno::EFAULT)?;
        if want.impossible(&view) {
            return Err(Errno::EACCES);
        }
        if want.satisfied(&view, fault.tile) {
            return Ok(tries.outcome());
        }
        let round = Round { vm, svm, tile: fault.tile, vma: &vma, want: &want, key, view: &view };
        match round.migrate(&mut tries).and_then(|()| round.collect()).and_then(|()| round.bind()) {
            Ok(()) => return Ok(Serviced::Resolved),
            Err(Unserved::Refused(errno)) => return Err(errno),
            Err(Unserved::Again(step, errno)) => {
                tries.spend(step, errno)?;
                vm.device.gpu.tell(Event::Retry { asid: vm.asid, addr: fault.addr, step });
            }
        }
    }
}

/// How a round ended that did not serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unserved {
    /// Another round may; the error is the answer where tries are over.
    Again(RetryStep, Errno),
    /// No round will.
    Refused(Errno),
}

/// What the steps of one round work on.
pub(crate) struct Round<'a> {
    pub vm: &'a Vm,
    pub svm: &'a Svm,
    pub tile: TileId,
    pub vma: &'a Vma,
    pub want: &'a Want,
    pub key: RangeKey,
    pub view: &'a RangeView,
}

impl Round<'_> {
    /// Brings the pages to the VRAM they should be in. Where VRAM is only better, failing is no error.
    pub(crate) fn migrate(&self, tries: &mut Tries) -> Result<(), Unserved> {
        let Some(target) = self.want.migration(self.view) else { return Ok(()) };
        let Some(try_number) = tries.migration(self.want.need) else { return Ok(()) };
        let slice = self.want.timeslice_ms << try_number;
        match devmem::to_vram(&self.vm.device, self.svm, self.key, self.view, target, slice) {
            Ok(()) => Ok(()),
            Err(error) if self.want.need == Need::Vram => Err(Unserved::Again(RetryStep::Migrate, error.into())),
            Err(_) => Ok(()),
        }
    }

    /// Collects the pages wherever they are now.
    pub(crate) fn collect(&self) -> Result<(), Unserved> {
        let Err(error) = self.svm.get_pages(self.key, &self.want.pages_ctx(self.view)) else { return Ok(()) };
        match error {
            SvmError::Mixed => _ = self.svm.range_evict(self.key),
            SvmError::Fault | SvmError::Denied => self.remove_if_outgrown(),
            SvmError::Invalid
            | SvmError::NoVma
            | SvmError::Io
            | SvmError::NoMemory
            | SvmError::Busy
            | SvmError::Gone => return Err(Unserved::Refused(error.into())),
        }
        Err(Unserved::Again(RetryStep::Pages, error.into()))
    }

    /// Binds them.
    pub(crate) fn bind(&self) -> Result<(), Unserved> {
        let access = leaf_access(self.vm.platform(), self.vma);
        match bind_range(&self.vm.space, self.svm, self.key, self.tile, access) {
            Ok(()) => Ok(()),
            Err(BindError::Stale) => Err(Unserved::Again(RetryStep::Bind, Errno::EAGAIN)),
            Err(BindError::NoMemory) => Err(Unserved::Refused(Errno::ENOMEM)),
            Err(BindError::Granule) => {
                // A range whose pages were moved by an mremap of less than 64K: only system memory can map it.
                let _ = self.svm.range_evict(self.key);
                Err(Unserved::Again(RetryStep::Pages, Errno::EINVAL))
            }
        }
    }

    /// A VMA that was split under the range (by an mprotect, say) never lets all of it be collected; smaller
    /// ranges will do.
    fn remove_if_outgrown(&self) {
        let vma = self.svm.mm().vma_lookup(self.view.span.start);
        if !vma.is_some_and(|vma| vma.range.covers(self.view.span)) {
            garbage::remove(&self.vm.space, self.svm, self.key);
        }
    }
}

/// How often a fault was tried, and how often it may be.
#[derive(Default, Debug)]
pub(crate) struct Tries {
    migrations: u32,
    pages: u32,
    binds: u32,
}

impl Tries {
    /// Rounds that pages which could not be collected may cost.
    const PAGES: u32 = 16;
    /// Rounds that pages which changed before their bind may cost: races are lost one by one.
    const BINDS: u32 = 256;

    /// Takes a migration, if one is left; how many there were before.
    fn migration(&mut self, need: Need) -> Option<u32> {
        let most = match need {
            Need::Vram => 3,
            Need::Anywhere => 1,
        };
        let before = self.migrations;
        self.migrations += 1;
        (before < most).then_some(before)
    }

    /// Pays for another round, or ends with `errno`.
    pub(crate) fn spend(&mut self, step: RetryStep, errno: Errno) -> Result<(), Errno> {
        let (spent, most) = match step {
            RetryStep::Migrate | RetryStep::Pages => (&mut self.pages, Self::PAGES),
            RetryStep::Bind => (&mut self.binds, Self::BINDS),
        };
        *spent += 1;
        if *spent < most { Ok(()) } else { Err(errno) }
    }

    /// What to call it when the mapping is found in place.
    fn outcome(&self) -> Serviced {
        if self.pages + self.binds == 0 { Serviced::Valid } else { Serviced::Resolved }
    }
}
