//! A simulated process as the conformance suite's world, with the kernel's own mm, or with mm-live on its userfaultfd.
#![allow(dead_code, reason = "shared by several test binaries")]

pub mod scene;

use hostmm::conformance::{Body, Contract, Cpu, Join, Mapping, World};
use hostmm::{EventKind, HostMemory, HostMm};
use mm_live::{LiveMm, Transport};
use mm_sim::{Config, MapKind, Sim, SimKernel};
use std::sync::Arc;
use sync::atomic::AtomicU64;
use units::{HostRange, HostVa};

/// Who manages the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manager {
    /// The kernel itself.
    Kernel,
    /// mm-live, with so many readers.
    Live(Transport, u32),
}

/// mm-live as it ships.
pub const LIVE: Manager = Manager::Live(Transport::Move, 2);

/// A simulated process and who manages its memory.
#[derive(Clone)]
pub struct Process {
    pub sim: Arc<Sim>,
    pub live: Option<Arc<LiveMm>>,
    pub mm: Arc<dyn HostMm>,
    pub memory: Arc<dyn HostMemory>,
}

impl Process {
    pub fn new(config: Config, manager: Manager) -> Self {
        let sim = Sim::new(config);
        match manager {
            Manager::Kernel => Self { mm: sim.clone(), memory: sim.clone(), live: None, sim },
            Manager::Live(transport, readers) => {
                let config = mm_live::Config { transport, readers: Some(readers), ..mm_live::Config::default() };
                let live = LiveMm::on(SimKernel::new(&sim, readers), config).expect("there is memory");
                Self { mm: live.clone(), memory: live.clone(), live: Some(live), sim }
            }
        }
    }
    /// Until the notifiers were called for every change so far.
    pub fn settle(&self) {
        if let Some(live) = &self.live {
            live.settle();
        }
    }
    /// munmap, which the preload library does not wrap.
    pub fn munmap(&self, range: HostRange) {
        self.sim.munmap(range);
    }
    /// mremap, as the preload library wraps it.
    pub fn mremap(&self, range: HostRange) -> HostRange {
        self.around_change(range, || self.sim.mremap(range).expect("the range is mapped"))
    }
    /// What the preload library does around a change of mappings.
    pub fn around_change<R>(&self, range: HostRange, change: impl FnOnce() -> R) -> R {
        match &self.live {
            None => change(),
            Some(live) => live.while_in_system(range, Some(EventKind::Unmap), change),
        }
    }
    /// fork, as the preload library prepares it.
    pub fn fork(&self) -> mm_sim::ChildId {
        let Some(live) = &self.live else { return self.sim.fork() };
        assert!(live.migrate_all_back(), "everything migrates back");
        let child = self.sim.fork();
        live.thaw();
        child
    }
    /// Ends it; afterwards nothing of it may be left.
    pub fn end(&self) {
        if let Some(live) = &self.live {
            live.settle();
            assert!(live.stop(), "everything migrates back");
            live.let_go();
        }
        self.sim.exit();
        self.sim.check().expect("the books balance after the exit");
        assert_eq!(self.sim.claims_in_progress(), 0, "every claim was finished");
    }
}

/// One simulated process, and how long its racing cases run.
pub struct SimWorld {
    process: Process,
    rounds: u64,
}

/// One CPU thread of it.
struct Thread(Arc<Sim>);

impl SimWorld {
    /// A fresh process.
    pub fn new(config: Config, manager: Manager, rounds: u64) -> Self {
        Self { process: Process::new(config, manager), rounds }
    }
    /// Ends the process.
    pub fn end(self) {
        self.process.end();
    }
}

impl Cpu for Thread {
    fn load(&self, at: HostVa) -> u64 {
        self.0.load_u64(at).expect("mapped readable")
    }
    fn store(&self, at: HostVa, value: u64) {
        self.0.store_u64(at, value).expect("mapped writable");
    }
    fn fetch_add(&self, at: HostVa, value: u64) -> u64 {
        self.0.fetch_add_u64(at, value).expect("mapped writable")
    }
}

impl Cpu for SimWorld {
    fn load(&self, at: HostVa) -> u64 {
        Thread(self.process.sim.clone()).load(at)
    }
    fn store(&self, at: HostVa, value: u64) {
        Thread(self.process.sim.clone()).store(at, value);
    }
    fn fetch_add(&self, at: HostVa, value: u64) -> u64 {
        Thread(self.process.sim.clone()).fetch_add(at, value)
    }
}

impl World for SimWorld {
    fn contract(&self) -> Contract {
        if self.process.live.is_some() { Contract::USERFAULTFD } else { Contract::LINUX }
    }
    fn mm(&self) -> Arc<dyn HostMm> {
        self.process.mm.clone()
    }
    fn memory(&self) -> Arc<dyn HostMemory> {
        self.process.memory.clone()
    }
    fn rounds(&self) -> u64 {
        self.rounds
    }
    fn mmap(&self, pages: usize, kind: Mapping) -> HostRange {
        let kind = match kind {
            Mapping::Anonymous => MapKind::Anonymous,
            Mapping::Huge => MapKind::Huge,
            Mapping::ReadOnly => MapKind::ReadOnly,
            Mapping::Shared => MapKind::Shared,
        };
        self.process.sim.mmap(pages, kind)
    }
    fn munmap(&self, range: HostRange) {
        self.process.munmap(range);
    }
    fn dontneed(&self, range: HostRange) {
        self.process.sim.madvise_dontneed(range);
    }
    fn protect_read_only(&self, range: HostRange) {
        self.process.sim.protect_read_only(range);
    }
    fn mremap(&self, range: HostRange) -> HostRange {
        self.process.mremap(range)
    }
    fn pin(&self, at: HostVa) {
        self.process.sim.pin(at).expect("the page is mapped writable");
    }
    fn unpin(&self, at: HostVa) {
        assert!(self.process.sim.unpin(at), "it was pinned");
    }
    fn fork_loads(&self, at: &[HostVa]) -> Vec<u64> {
        let child = self.process.fork();
        let seen = at.iter().map(|at| self.process.sim.child_load_u64(child, *at).expect("mapped")).collect();
        self.process.sim.child_exit(child);
        seen
    }
    fn spawn(&self, body: Body) -> Join {
        let sim = self.process.sim.clone();
        let ended = Arc::new(AtomicU64::new(0));
        let flag = ended.clone();
        let handle = sync::spawn("cpu", move || {
            body(&Thread(sim));
            flag.store(1);
        });
        Box::new(move || {
            handle.join();
            assert_eq!(ended.load(), 1, "the CPU thread panicked");
        })
    }
    fn pause(&self) {
        sync::yield_now();
    }
    fn settle(&self) {
        self.process.settle();
    }
    fn audit(&self) -> Result<(), String> {
        self.process.sim.check()
    }
}
