//! Threads of a program with queues on tiles of several devices, which all take one block.

use machine::behaviour;
use machine::checked::{Checked, Config, Manner, MapKind};
use machine::profile::Platform;
use machine::program::{Batch, Class, Program};
use machine::topology::PVC_SMALL;
use std::sync::Arc;
use sync::sim::{self, Limits, Random};
use units::{HostRange, HostVa, SZ_64K, TileId};

const DONE: u64 = 0x600d_f00d;

/// Devices of one machine, which reach each other through the bus, or do not.
pub const PEERS: [&Platform; 2] = [&PVC_SMALL, &PVC_SMALL];
static LONELY: Platform = Platform { p2p: false, ..PVC_SMALL };
pub const STRANGERS: [&Platform; 2] = [&LONELY, &LONELY];

/// A machine of them, under some behaviours.
pub fn machine(manner: Manner, devices: [&'static Platform; 2], behaviour: &str) -> Arc<Checked> {
    let behaviours = behaviour::parse(behaviour).expect("a behaviour");
    Arc::new(Checked::with_devices(Config::default(), manner, &devices, behaviours).expect("a machine"))
}

/// A block of 64K of memory that was touched.
pub fn block(checked: &Checked) -> HostRange {
    let area = checked.sim.mmap(32, MapKind::Anonymous);
    let block = HostRange::sized(area.start.align_up(SZ_64K), SZ_64K);
    (0..block.pages()).for_each(|n| checked.sim.store_u64(block.page_at(n), 0).expect("mapped"));
    block
}

/// A thread of the program with a queue on a tile of one device. Batch and fence lie in pages that no device migrates.
pub struct Hand {
    checked: Arc<Checked>,
    pub program: Program,
    pub vm: u32,
    queue: u32,
    batch: HostVa,
    fence: HostVa,
}

impl Hand {
    pub fn new(checked: &Arc<Checked>, program: Program, tile: u8) -> Self {
        let vm = program.vm_create().expect("a VM");
        program.bind_mirror(vm, None).expect("a bind");
        let queue = program.queue_create(vm, Class::Compute, TileId(tile)).expect("a queue");
        let memory = checked.sim.mmap(2, MapKind::Anonymous);
        Self { checked: checked.clone(), program, vm, queue, batch: memory.start, fence: memory.page_at(1) }
    }

    /// Adds one, atomically, to the first word of every page of a block: the block must be in this device's VRAM for that.
    pub fn add_to(&self, block: HostRange) {
        let mut batch = Batch::default();
        (0..block.pages()).for_each(|n| _ = batch.increment(block.page_at(n).mirror()));
        self.run(batch);
    }

    /// Writes a value to the first word of every page of a block, wherever it is.
    pub fn write(&self, block: HostRange, value: u32) {
        let mut batch = Batch::default();
        (0..block.pages()).for_each(|n| _ = batch.store(block.page_at(n).mirror(), value));
        self.run(batch);
    }

    fn run(&self, mut batch: Batch) {
        self.checked.sim.store(self.batch, &batch.end()).expect("mapped");
        self.checked.sim.store_u64(self.fence, 0).expect("mapped");
        self.program.exec(self.queue, self.batch.mirror(), self.fence.mirror(), DONE).expect("a job");
        self.program.wait(self.fence, DONE, -1, self.queue).expect("the job ends");
    }
}

/// Everything is closed, and nothing is left in VRAM.
pub fn end(checked: &Checked, programs: &[Program]) {
    programs.iter().for_each(|program| program.file().close());
    checked.cores().for_each(|core| core.engines().stop());
    assert!(checked.end(), "everything migrates back");
    for (core, tile) in checked.cores().flat_map(|core| [0, 1].map(|tile| (core, TileId(tile)))) {
        assert_eq!(core.device().vram_used(tile), 0, "VRAM is left");
    }
}

/// Plays under one schedule, to an end without a finding.
pub fn once(what: &str, seed: u64, play: impl Fn() + Clone + Send + 'static) {
    let report = sim::run(&mut Random::new(seed), Limits::default(), play);
    assert!(!report.outcome.is_finding(), "{what}, seed {seed}: {:?}", report.outcome);
}
