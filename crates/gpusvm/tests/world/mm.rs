//! A small host mm for one thread: a flat page map with notifiers, claims and pagemaps. A page's content is
//! one word. It asks nothing of schedules; `mm-sim` does that.

use hostmm::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use sync::Mutex;
use units::{HostFrame, HostRange, HostVa};

/// A page-table entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub backing: Backing,
    pub write: bool,
    pub order: u8,
}

struct Migration {
    pages: Vec<(HostVa, Claimed)>,
    to: Vec<Destination>,
    frames: Vec<Option<HostFrame>>,
    moved: Vec<bool>,
    staged: bool,
}

struct Watcher {
    range: HostRange,
    ops: Arc<dyn NotifierOps>,
    seq: u64,
}

type Hook = Box<dyn FnOnce(&FakeMm) + Send>;

#[derive(Default)]
struct State {
    vmas: Vec<Vma>,
    table: BTreeMap<HostVa, Entry>,
    frames: BTreeMap<HostFrame, u64>,
    vram: BTreeMap<DevicePage, u64>,
    next_frame: u64,
    watchers: BTreeMap<NotifierId, Watcher>,
    pagemaps: BTreeMap<PagemapId, (OwnerId, Arc<dyn PagemapOps>)>,
    migrations: BTreeMap<ClaimId, Migration>,
    claimed: BTreeSet<HostVa>,
    next_id: u64,
    pinned: BTreeSet<HostVa>,
    /// Pages whose commit fails.
    stuck: BTreeSet<HostVa>,
    /// How often `stage` finds no frames for the way home.
    short: u32,
    after_walk: Vec<Hook>,
    before_begin: Option<Hook>,
    walks: usize,
}

/// The mm, and the program that lives in it.
#[derive(Default)]
pub struct FakeMm {
    state: Mutex<State>,
}

impl FakeMm {
    // ---- the program's side

    pub fn mmap(&self, range: HostRange) {
        self.mmap_as(Vma { range, read: true, write: true, anonymous: true, io: false });
    }
    pub fn mmap_as(&self, vma: Vma) {
        self.state.lock().vmas.push(vma);
    }
    pub fn munmap(&self, range: HostRange) {
        self.notify(range, EventKind::Unmap);
        {
            let mut state = self.state.lock();
            let vmas = std::mem::take(&mut state.vmas);
            for vma in vmas {
                let low = HostRange::new(vma.range.start, vma.range.end.min(range.start));
                let high = HostRange::new(vma.range.start.max(range.end), vma.range.end);
                if !vma.range.overlaps(range) {
                    state.vmas.push(vma);
                    continue;
                }
                state.vmas.extend([low, high].iter().filter(|r| !r.is_empty()).map(|&range| Vma { range, ..vma }));
            }
        }
        self.drop_pages(range);
    }
    pub fn dontneed(&self, range: HostRange) {
        self.notify(range, EventKind::Clear);
        self.drop_pages(range);
    }
    pub fn store(&self, at: HostVa, value: u64) {
        self.touch(at, true).expect("the program may store there");
        let mut state = self.state.lock();
        let Backing::System(frame) = state.table[&at.page()].backing else { unreachable!() };
        state.frames.insert(frame, value);
    }
    pub fn load(&self, at: HostVa) -> u64 {
        self.touch(at, false).expect("the program may load there");
        let state = self.state.lock();
        let Backing::System(frame) = state.table[&at.page()].backing else { unreachable!() };
        state.frames[&frame]
    }
    pub fn pin(&self, at: HostVa) {
        self.state.lock().pinned.insert(at);
    }
    /// Makes the commit of a page fail.
    pub fn stick(&self, at: HostVa) {
        self.state.lock().stuck.insert(at);
    }
    pub fn unstick(&self) {
        let mut state = self.state.lock();
        state.stuck.clear();
        state.pinned.clear();
    }
    /// The next `times` migrations home find no frames.
    pub fn set_short(&self, times: u32) {
        self.state.lock().short = times;
    }
    /// Backs a whole naturally aligned block by contiguous frames of one large mapping.
    pub fn make_huge(&self, range: HostRange, order: u8) {
        let mut state = self.state.lock();
        let first = state.next_frame.next_multiple_of(1 << order);
        state.next_frame = first + range.pages() as u64;
        for i in 0..range.pages() {
            let frame = HostFrame(first + i as u64);
            state.frames.insert(frame, i as u64);
            state.table.insert(range.page_at(i), Entry { backing: Backing::System(frame), write: true, order });
        }
    }
    /// Runs once, after the next walk found its pages and before its caller sees them.
    pub fn after_walk(&self, hook: impl FnOnce(&FakeMm) + Send + 'static) {
        self.state.lock().after_walk.insert(0, Box::new(hook));
    }
    /// Runs once, before the next sequence is taken.
    pub fn before_read_begin(&self, hook: impl FnOnce(&FakeMm) + Send + 'static) {
        self.state.lock().before_begin = Some(Box::new(hook));
    }
    /// Takes write permission off a page, wherever it is, as a fork does.
    pub fn share(&self, at: HostVa) {
        self.notify(HostRange::sized(at, 4096), EventKind::Protection);
        self.state.lock().table.get_mut(&at).expect("the page is there").write = false;
    }
    pub fn walks(&self) -> usize {
        self.state.lock().walks
    }
    pub fn backing(&self, at: HostVa) -> Backing {
        self.state.lock().table.get(&at.page()).map_or(Backing::None, |entry| entry.backing)
    }
    pub fn notifiers(&self) -> usize {
        self.state.lock().watchers.len()
    }
    pub fn open_migrations(&self) -> usize {
        self.state.lock().migrations.len()
    }

    // ---- the data plane

    pub fn frame(&self, frame: HostFrame) -> u64 {
        self.state.lock().frames[&frame]
    }
    pub fn set_frame(&self, frame: HostFrame, value: u64) {
        let mut state = self.state.lock();
        assert!(state.frames.contains_key(&frame), "a device writes to {frame:?}, which is free");
        state.frames.insert(frame, value);
    }
    pub fn vram(&self, page: DevicePage) -> u64 {
        *self.state.lock().vram.get(&page).unwrap_or_else(|| panic!("{page:?} is empty"))
    }
    pub fn set_vram(&self, page: DevicePage, value: u64) {
        self.state.lock().vram.insert(page, value);
    }

    // ---- inside

    fn notify(&self, range: HostRange, kind: EventKind) {
        let told: Vec<_> = {
            let mut state = self.state.lock();
            let hit = state.watchers.values_mut().filter(|watcher| watcher.range.overlaps(range));
            hit.map(|watcher| {
                watcher.seq += 1;
                watcher.ops.clone()
            })
            .collect()
        };
        for ops in told {
            ops.invalidate(&MmEvent { range, kind });
        }
        for watcher in self.state.lock().watchers.values_mut().filter(|watcher| watcher.seq % 2 == 1) {
            watcher.seq += 1;
        }
    }

    fn drop_pages(&self, range: HostRange) {
        let mut freed = Vec::new();
        {
            let mut state = self.state.lock();
            for i in 0..range.pages() {
                match state.table.remove(&range.page_at(i)).map(|entry| entry.backing) {
                    Some(Backing::System(frame)) => drop(state.frames.remove(&frame)),
                    Some(Backing::Device(page)) => {
                        state.vram.remove(&page);
                        freed.push((state.pagemaps[&page.pagemap].1.clone(), page));
                    }
                    Some(Backing::None) | None => {}
                }
            }
        }
        for (ops, page) in freed {
            ops.folio_free(page, 1);
        }
    }

    /// Makes a page present in system memory, as a CPU's touch does.
    fn touch(&self, at: HostVa, write: bool) -> Result<(), MmError> {
        let at = at.page();
        for _ in 0..100_000 {
            let vma = self.vma_lookup(at).ok_or(MmError::NoVma)?;
            if write && !vma.write {
                return Err(MmError::Denied);
            }
            let (ops, fault) = {
                let mut state = self.state.lock();
                match state.table.get_mut(&at) {
                    None => {
                        let frame = state.new_frame();
                        let backing = Backing::System(frame);
                        state.table.insert(at, Entry { backing, write: vma.write, order: 0 });
                        return Ok(());
                    }
                    Some(Entry { backing: Backing::Device(page), .. }) => {
                        let page = *page;
                        (state.pagemaps[&page.pagemap].1.clone(), CpuFault { addr: at, page, vma: vma.range, write })
                    }
                    Some(entry) => {
                        entry.write |= write;
                        return Ok(());
                    }
                }
            };
            match ops.migrate_to_ram(self, &fault) {
                FaultOutcome::Retry => {}
                FaultOutcome::Defer => sync::time::sleep_ns(100_000),
                FaultOutcome::Fatal => return Err(MmError::NoMemory),
            }
        }
        panic!("a CPU's touch of {at:?} never ends");
    }

    fn seq_holds(&self, since: Option<(NotifierId, Seq)>) -> Result<(), MmError> {
        match since {
            Some((id, seq)) if self.read_retry(id, seq) => Err(MmError::Stale),
            _ => Ok(()),
        }
    }

    fn begin(&self, pages: Vec<(HostVa, Claimed)>) -> ClaimId {
        let mut state = self.state.lock();
        state.next_id += 1;
        let id = ClaimId(state.next_id);
        state.claimed.extend(pages.iter().filter(|(_, page)| *page != Claimed::No).map(|(at, _)| *at));
        let n = pages.len();
        let (to, frames, moved) = (vec![Destination::Stay; n], vec![None; n], vec![false; n]);
        state.migrations.insert(id, Migration { pages, to, frames, moved, staged: false });
        id
    }
}

impl State {
    fn new_frame(&mut self) -> HostFrame {
        self.next_frame += 1;
        self.frames.insert(HostFrame(self.next_frame), 0);
        HostFrame(self.next_frame)
    }

    fn collect(&self, at: HostVa, request: &ClaimRequest) -> Claimed {
        if self.claimed.contains(&at) || self.pinned.contains(&at) {
            return Claimed::No;
        }
        match self.table.get(&at).map(|entry| entry.backing) {
            Some(Backing::Device(page)) if self.pagemaps[&page.pagemap].0 == request.owner => Claimed::Device(page),
            Some(Backing::Device(_)) => Claimed::No,
            _ if request.select == Select::DeviceOnly => Claimed::No,
            Some(Backing::System(frame)) => Claimed::System(frame),
            Some(Backing::None) | None => Claimed::Hole,
        }
    }
}

impl HostMm for FakeMm {
    fn vma_lookup(&self, addr: HostVa) -> Option<Vma> {
        self.state.lock().vmas.iter().find(|vma| vma.range.contains(addr)).copied()
    }

    fn pagemap_insert(&self, id: PagemapId, owner: OwnerId, _frames: u64, ops: Arc<dyn PagemapOps>) {
        assert!(self.state.lock().pagemaps.insert(id, (owner, ops)).is_none());
    }

    fn notifier_insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError> {
        let mut state = self.state.lock();
        state.next_id += 1;
        let id = NotifierId(state.next_id);
        state.watchers.insert(id, Watcher { range, ops, seq: 0 });
        Ok(id)
    }

    fn notifier_remove(&self, id: NotifierId) {
        assert!(self.state.lock().watchers.remove(&id).is_some(), "a notifier is removed twice");
    }

    fn read_begin(&self, id: NotifierId) -> Seq {
        let hook = self.state.lock().before_begin.take();
        if let Some(hook) = hook {
            hook(self);
        }
        Seq(self.state.lock().watchers[&id].seq)
    }

    fn read_retry(&self, id: NotifierId, seq: Seq) -> bool {
        self.state.lock().watchers[&id].seq != seq.0
    }

    fn walk(&self, walk: &Walk, pages: &mut [HostPage]) -> Result<(), MmError> {
        assert_eq!(walk.range.pages(), pages.len());
        self.state.lock().walks += 1;
        self.seq_holds(walk.valid_since)?;
        for (i, out) in pages.iter_mut().enumerate() {
            let at = walk.range.page_at(i);
            *out = HostPage::HOLE;
            let Some(vma) = self.vma_lookup(at) else {
                if walk.fault {
                    return Err(MmError::NoVma);
                }
                continue;
            };
            let found = self.state.lock().table.get(&at).copied();
            if let Some(Entry { backing: Backing::Device(page), write, order }) = found
                && walk.owner == Some(self.state.lock().pagemaps[&page.pagemap].0)
            {
                *out = HostPage { backing: Backing::Device(page), write, order };
                continue;
            }
            if walk.fault {
                if walk.write && !vma.write {
                    return Err(MmError::Denied);
                }
                self.touch(at, walk.write)?;
            }
            if let Some(Entry { backing: Backing::System(frame), write, order }) =
                self.state.lock().table.get(&at).copied()
            {
                *out = HostPage { backing: Backing::System(frame), write, order };
            }
        }
        self.seq_holds(walk.valid_since)?;
        let hook = self.state.lock().after_walk.pop();
        if let Some(hook) = hook {
            hook(self);
        }
        Ok(())
    }

    fn claim(&self, request: &ClaimRequest, out: &mut [Claimed]) -> Result<ClaimId, MmError> {
        let vma = self.vma_lookup(request.range.start).ok_or(MmError::NoVma)?;
        if !vma.range.covers(request.range) {
            return Err(MmError::Stale);
        }
        self.notify(request.range, EventKind::Migrate(request.owner));
        let mut pages = Vec::new();
        for (i, out) in out.iter_mut().enumerate() {
            let at = request.range.page_at(i);
            *out = self.state.lock().collect(at, request);
            pages.push((at, *out));
        }
        Ok(self.begin(pages))
    }

    fn claim_device(&self, wanted: &[DevicePage], out: &mut [Option<HostVa>]) -> Result<ClaimId, MmError> {
        let mut pages = Vec::new();
        for (&page, out) in wanted.iter().zip(out) {
            let place = {
                let state = self.state.lock();
                let mut entries = state.table.iter();
                entries.find(|(_, entry)| entry.backing == Backing::Device(page)).map(|(at, _)| *at)
            };
            *out = place.filter(|at| !self.state.lock().pinned.contains(at));
            pages.push((place.unwrap_or(HostVa(0)), out.map_or(Claimed::No, |_| Claimed::Device(page))));
        }
        for (at, _) in pages.iter().filter(|(_, page)| *page != Claimed::No) {
            self.notify(HostRange::around(*at, 4096), EventKind::Clear);
        }
        Ok(self.begin(pages))
    }

    fn stage(&self, claim: ClaimId, to: &[Destination], frames: &mut [Option<HostFrame>]) -> Result<(), MmError> {
        let mut state = self.state.lock();
        if state.short > 0 && to.contains(&Destination::Ram) {
            state.short -= 1;
            return Err(MmError::NoMemory);
        }
        for (i, to) in to.iter().enumerate() {
            if *to == Destination::Ram {
                frames[i] = Some(state.new_frame());
            }
        }
        let migration = state.migrations.get_mut(&claim).expect("a claim is open");
        assert!(!migration.staged);
        (migration.staged, migration.to, migration.frames) = (true, to.to_vec(), frames.to_vec());
        Ok(())
    }

    fn commit(&self, claim: ClaimId, wanted: &[bool], moved: &mut [bool]) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let migration = state.migrations.get_mut(&claim).expect("a claim is open");
        assert!(migration.staged);
        for (i, (at, from)) in migration.pages.iter().enumerate() {
            let backing = match migration.to[i] {
                _ if !wanted[i] || *from == Claimed::No || state.stuck.contains(at) => continue,
                Destination::Stay => continue,
                Destination::Device(page) => {
                    state.vram.entry(page).or_insert(0);
                    Backing::Device(page)
                }
                Destination::Ram => Backing::System(migration.frames[i].expect("a frame was allocated")),
            };
            state.table.insert(*at, Entry { backing, write: true, order: 0 });
            (migration.moved[i], moved[i]) = (true, true);
        }
    }

    fn finish(&self, claim: ClaimId) {
        let mut freed = Vec::new();
        {
            let mut state = self.state.lock();
            let state = &mut *state;
            let migration = state.migrations.remove(&claim).expect("a claim is finished once");
            for (i, (at, from)) in migration.pages.into_iter().enumerate() {
                state.claimed.remove(&at);
                match (migration.moved[i], from, migration.to[i]) {
                    (true, Claimed::System(frame), _) => drop(state.frames.remove(&frame)),
                    (true, Claimed::Device(page), _) => {
                        state.vram.remove(&page);
                        freed.push((state.pagemaps[&page.pagemap].1.clone(), page));
                    }
                    (false, _, Destination::Device(page)) => drop(state.vram.remove(&page)),
                    (false, _, Destination::Ram) => {
                        migration.frames[i].map(|frame| state.frames.remove(&frame));
                    }
                    _ => {}
                }
            }
        }
        for (ops, page) in freed {
            ops.folio_free(page, 1);
        }
    }
}
