//! An mm of the simplest kind: VMAs, a home for each page, migrations that happen at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hostmm::*;
use sync::Mutex;
use units::*;

/// The mm. Pages are where `homes` says, else in system memory.
#[derive(Default)]
pub(crate) struct FakeMm {
    state: Mutex<MmState>,
}

#[derive(Default)]
struct MmState {
    vmas: Vec<Vma>,
    notifiers: BTreeMap<u64, (HostRange, Arc<dyn NotifierOps>)>,
    pagemaps: BTreeMap<PagemapId, (OwnerId, Arc<dyn PagemapOps>)>,
    homes: BTreeMap<HostVa, DevicePage>,
    /// Pages that nobody has touched yet.
    holes: BTreeSet<HostVa>,
    claims: BTreeMap<ClaimId, Claim>,
    /// Pages that never migrate.
    pinned: bool,
    /// Claims that get nothing from now on.
    refused: u32,
    /// Walks find nothing that holds before this time.
    stale_until_ns: u64,
    seq: u64,
    next: u64,
}

#[derive(Clone, Default)]
struct Claim {
    pages: Vec<Option<(HostVa, Option<DevicePage>)>>,
    to: Vec<Destination>,
    moved: Vec<bool>,
}

/// The frame of a page in system memory. Frames scatter at every 64K, so that nothing is contiguous for long.
pub(crate) const fn frame_of(va: HostVa) -> HostFrame {
    HostFrame(va.page_number() ^ (va.page_number() >> 4 & 1) << 20)
}

impl FakeMm {
    /// Maps writable anonymous memory.
    pub fn mmap(&self, range: HostRange) {
        self.state.lock().vmas.push(Vma { range, read: true, write: true, anonymous: true, io: false });
    }
    /// From now on no page migrates.
    pub fn pin(&self) {
        self.state.lock().pinned = true;
    }
    /// Nobody has touched `range` yet.
    pub fn unpopulate(&self, range: HostRange) {
        self.state.lock().holes.extend((0..range.pages()).map(|page| range.page_at(page)));
    }
    /// The next `claims` get nothing.
    pub fn refuse(&self, claims: u32) {
        self.state.lock().refused = claims;
    }
    /// For `ns` from now the address space changes faster than it can be walked.
    pub fn unsettle(&self, ns: u64) {
        self.state.lock().stale_until_ns = sync::time::now_ns() + ns;
    }
    /// Makes `range`, cut out of its VMA, read-only.
    pub fn protect(&self, range: HostRange) {
        self.cut(range, |vma| Some(Vma { write: false, ..vma }));
        self.event(range, EventKind::Protection);
    }
    /// Takes `range` out.
    pub fn munmap(&self, range: HostRange) {
        self.cut(range, |_| None);
        self.event(range, EventKind::Unmap);
        let gone: Vec<_> = {
            let mut state = self.state.lock();
            let gone: Vec<_> = state.homes.range(range.start..range.end).map(|(va, page)| (*va, *page)).collect();
            gone.iter().for_each(|(va, _)| _ = state.homes.remove(va));
            gone
        };
        gone.into_iter().for_each(|(_, page)| self.free(page));
    }
    /// Takes `range` out, and tells nobody.
    pub fn forget(&self, range: HostRange) {
        self.cut(range, |_| None);
    }
    /// Where a page is, if it is in VRAM.
    pub fn home(&self, va: u64) -> Option<DevicePage> {
        self.state.lock().homes.get(&HostVa(va)).copied()
    }
    /// A CPU touches a page.
    pub fn touch(&self, va: HostVa) {
        let va = va.page();
        let Some(page) = self.home(va.0) else { return };
        let vma = self.vma_lookup(va).expect("mapped").range;
        let ops = self.state.lock().pagemaps[&page.pagemap].1.clone();
        ops.migrate_to_ram(self, &CpuFault { addr: va, page, vma, write: true });
    }
    /// Tells the notifiers.
    pub fn event(&self, range: HostRange, kind: EventKind) {
        let told: Vec<_> = {
            let mut state = self.state.lock();
            state.seq += 2;
            state.notifiers.values().filter(|(span, _)| span.overlaps(range)).map(|(_, ops)| ops.clone()).collect()
        };
        told.iter().for_each(|ops| ops.invalidate(&MmEvent { range, kind }));
    }
    fn free(&self, page: DevicePage) {
        let ops = self.state.lock().pagemaps[&page.pagemap].1.clone();
        ops.folio_free(page, 1);
    }
    fn cut(&self, range: HostRange, middle: impl Fn(Vma) -> Option<Vma>) {
        let mut state = self.state.lock();
        let old = std::mem::take(&mut state.vmas);
        for vma in old {
            let Some(both) = vma.range.intersect(range) else {
                state.vmas.push(vma);
                continue;
            };
            let head = Vma { range: HostRange::new(vma.range.start, both.start), ..vma };
            let tail = Vma { range: HostRange::new(both.end, vma.range.end), ..vma };
            let parts = [Some(head), middle(Vma { range: both, ..vma }), Some(tail)];
            state.vmas.extend(parts.into_iter().flatten().filter(|vma| !vma.range.is_empty()));
        }
    }
    fn add_claim(&self, pages: Vec<Option<(HostVa, Option<DevicePage>)>>) -> ClaimId {
        let mut state = self.state.lock();
        state.next += 1;
        let id = ClaimId(state.next);
        state.claims.insert(id, Claim { pages, ..Claim::default() });
        id
    }
}

impl HostMm for FakeMm {
    fn vma_lookup(&self, addr: HostVa) -> Option<Vma> {
        self.state.lock().vmas.iter().find(|vma| vma.range.contains(addr)).copied()
    }
    fn pagemap_insert(&self, id: PagemapId, owner: OwnerId, _frames: u64, ops: Arc<dyn PagemapOps>) {
        self.state.lock().pagemaps.insert(id, (owner, ops));
    }
    fn notifier_insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError> {
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        state.notifiers.insert(id, (range, ops));
        Ok(NotifierId(id))
    }
    fn notifier_remove(&self, id: NotifierId) {
        self.state.lock().notifiers.remove(&id.0);
    }
    fn read_begin(&self, _id: NotifierId) -> Seq {
        Seq(self.state.lock().seq)
    }
    fn read_retry(&self, _id: NotifierId, seq: Seq) -> bool {
        self.state.lock().seq != seq.0
    }
    fn walk(&self, walk: &Walk, pages: &mut [HostPage]) -> Result<(), MmError> {
        if sync::time::now_ns() < self.state.lock().stale_until_ns {
            return Err(MmError::Stale);
        }
        for (n, page) in pages.iter_mut().enumerate() {
            let va = walk.range.page_at(n);
            let vma = self.vma_lookup(va).ok_or(MmError::NoVma)?;
            if walk.write && !vma.write {
                return Err(MmError::Denied);
            }
            let home = self.home(va.0);
            let foreign = home.is_some_and(|home| walk.owner != Some(self.state.lock().pagemaps[&home.pagemap].0));
            if foreign && walk.fault {
                self.touch(va);
                return Err(MmError::Stale);
            }
            let is_hole = {
                let mut state = self.state.lock();
                if walk.fault {
                    state.holes.remove(&va);
                }
                state.holes.contains(&va)
            };
            let backing = match home {
                None if is_hole => Backing::None,
                None => Backing::System(frame_of(va)),
                Some(_) if foreign => Backing::None,
                Some(page) => Backing::Device(page),
            };
            *page = HostPage { backing, write: vma.write, order: 0 };
        }
        Ok(())
    }
    fn claim(&self, request: &ClaimRequest, out: &mut [Claimed]) -> Result<ClaimId, MmError> {
        self.event(request.range, EventKind::Migrate(request.owner));
        let pinned = {
            let mut state = self.state.lock();
            let refused = state.refused > 0;
            state.refused = state.refused.saturating_sub(1);
            state.pinned || refused
        };
        let mut pages = Vec::new();
        for (n, out) in out.iter_mut().enumerate() {
            let va = request.range.page_at(n);
            let home = self.home(va.0);
            *out = match home {
                Some(page) => Claimed::Device(page),
                None if self.state.lock().holes.contains(&va) => Claimed::Hole,
                None if pinned || request.select == Select::DeviceOnly => Claimed::No,
                None => Claimed::System(frame_of(va)),
            };
            pages.push((*out != Claimed::No).then_some((va, home)));
        }
        Ok(self.add_claim(pages))
    }
    fn claim_device(&self, pages: &[DevicePage], out: &mut [Option<HostVa>]) -> Result<ClaimId, MmError> {
        let homes = self.state.lock().homes.clone();
        let mut claimed = Vec::new();
        for (page, out) in pages.iter().zip(out) {
            *out = homes.iter().find(|(_, home)| *home == page).map(|(va, _)| *va);
            if let Some(va) = *out {
                self.event(HostRange::sized(va, SZ_4K), EventKind::Clear);
            }
            claimed.push(out.map(|va| (va, Some(*page))));
        }
        Ok(self.add_claim(claimed))
    }
    fn stage(&self, claim: ClaimId, to: &[Destination], frames: &mut [Option<HostFrame>]) -> Result<(), MmError> {
        let mut state = self.state.lock();
        let claim = state.claims.get_mut(&claim).expect("claimed");
        for ((to, frame), page) in to.iter().zip(frames).zip(&claim.pages) {
            if *to == Destination::Ram {
                *frame = page.map(|(va, _)| frame_of(va));
            }
        }
        (claim.to, claim.moved) = (to.to_vec(), vec![false; to.len()]);
        Ok(())
    }
    fn commit(&self, claim: ClaimId, wanted: &[bool], moved: &mut [bool]) {
        let mut state = self.state.lock();
        let mut claim_data = state.claims.remove(&claim).expect("staged");
        for (n, moved) in moved.iter_mut().enumerate() {
            let Some((va, _)) = claim_data.pages[n].filter(|_| wanted[n]) else { continue };
            match claim_data.to[n] {
                Destination::Stay => continue,
                Destination::Ram => _ = state.homes.remove(&va),
                Destination::Device(page) => _ = state.homes.insert(va, page),
            }
            *moved = true;
            claim_data.moved[n] = true;
            state.holes.remove(&va);
        }
        state.claims.insert(claim, claim_data);
    }
    fn finish(&self, claim: ClaimId) {
        let claim = self.state.lock().claims.remove(&claim).expect("claimed");
        let sources = claim.pages.iter().zip(&claim.moved).filter(|(_, moved)| **moved);
        for page in sources.filter_map(|(page, _)| (*page)?.1) {
            self.free(page);
        }
    }
}
