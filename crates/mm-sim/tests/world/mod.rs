//! A simulated process as the conformance suite's world.

use hostmm::conformance::{Body, Contract, Cpu, Join, Mapping, World};
use hostmm::{HostMemory, HostMm};
use mm_sim::{Config, Manner, MapKind, Sim};
use std::sync::Arc;
use sync::atomic::AtomicU64;
use units::{HostRange, HostVa};

/// One simulated process, and how long its racing cases run.
pub struct SimWorld {
    sim: Arc<Sim>,
    rounds: u64,
}

/// One CPU thread of it.
struct Thread(Arc<Sim>);

impl SimWorld {
    /// A fresh process.
    pub fn new(config: Config, rounds: u64) -> Self {
        Self { sim: Sim::new(config), rounds }
    }
    /// Ends the process; afterwards nothing of it may be left.
    pub fn end(self) {
        self.sim.exit();
        self.sim.check().expect("the books balance after the exit");
        assert_eq!(self.sim.claims_in_progress(), 0, "every claim was finished");
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
        Thread(self.sim.clone()).load(at)
    }
    fn store(&self, at: HostVa, value: u64) {
        Thread(self.sim.clone()).store(at, value);
    }
    fn fetch_add(&self, at: HostVa, value: u64) -> u64 {
        Thread(self.sim.clone()).fetch_add(at, value)
    }
}

impl World for SimWorld {
    fn contract(&self) -> Contract {
        match self.sim.manner() {
            Manner::Linux => Contract::LINUX,
            Manner::Userfaultfd => Contract::USERFAULTFD,
        }
    }
    fn mm(&self) -> Arc<dyn HostMm> {
        self.sim.clone()
    }
    fn memory(&self) -> Arc<dyn HostMemory> {
        self.sim.clone()
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
        self.sim.mmap(pages, kind)
    }
    fn munmap(&self, range: HostRange) {
        self.sim.munmap(range);
    }
    fn dontneed(&self, range: HostRange) {
        self.sim.madvise_dontneed(range);
    }
    fn protect_read_only(&self, range: HostRange) {
        self.sim.protect_read_only(range);
    }
    fn mremap(&self, range: HostRange) -> HostRange {
        self.sim.mremap(range).expect("the range is mapped")
    }
    fn pin(&self, at: HostVa) {
        self.sim.pin(at).expect("the page is mapped writable");
    }
    fn unpin(&self, at: HostVa) {
        assert!(self.sim.unpin(at), "it was pinned");
    }
    fn fork_loads(&self, at: &[HostVa]) -> Vec<u64> {
        let child = self.sim.fork();
        let seen = at.iter().map(|at| self.sim.child_load_u64(child, *at).expect("mapped")).collect();
        self.sim.child_exit(child);
        seen
    }
    fn spawn(&self, body: Body) -> Join {
        let sim = self.sim.clone();
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
        self.sim.settle();
    }
    fn audit(&self) -> Result<(), String> {
        self.sim.check()
    }
}
