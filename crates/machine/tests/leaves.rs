//! Leaves of every size, written by the driver and walked by the device: what a job stores through them is where a CPU finds it.

use machine::Injection;
use machine::behaviour::{self, Behaviours};
use machine::checked::{Checked, Config, Manner};
use machine::program::{Batch, Class, Order, Program};
use sync::sim::{self, Limits, Random};
use units::{GpuVa, HostRange, HostVa, SZ_2M, SZ_4K, SZ_64K, TileId};

/// Where batches are bound.
const CODE: HostRange = HostRange::new(HostVa(0x10_0000), HostVa(0x11_0000));
const AT: u64 = 0x2000_0000_0000;

/// A VM without faults, with a queue on each tile.
struct Stand {
    checked: Checked,
    program: Program,
    vm: u32,
    queues: [u32; 2],
    code: u32,
}

impl Stand {
    fn new(behaviours: Behaviours) -> Self {
        let checked = Checked::new(Config::default(), Manner::Linux, behaviours, Injection::default());
        let checked = checked.expect("a machine");
        let program = checked.open();
        let vm = program.vm_create_plain().expect("a VM");
        let code = program.bo_create(CODE.len(), 1).expect("a buffer");
        program.bind_bo(vm, code, CODE, Order::default()).expect("a bind");
        let queues = [0, 1].map(|tile| program.queue_create(vm, Class::Copy, TileId(tile)).expect("a queue"));
        Self { checked, program, vm, queues, code }
    }

    /// A buffer of 4M in the VRAM of tile 1, or in system memory, bound at `at`.
    fn buffer(&self, placement: u32, at: u64) -> (u32, HostRange) {
        let handle = self.program.bo_create(2 * SZ_2M, placement).expect("a buffer");
        let span = HostRange::sized(HostVa(at), 2 * SZ_2M);
        self.program.bind_bo(self.vm, handle, span, Order::default()).expect("a bind");
        (handle, span)
    }

    /// A tile stores each value at its address; whether the job was done.
    fn store(&self, tile: usize, words: &[(u64, u32)]) -> bool {
        let done = self.program.syncobj_create().expect("a syncobj");
        for part in words.chunks(200) {
            let mut batch = Batch::default();
            part.iter().for_each(|(at, value)| _ = batch.store(GpuVa(*at), *value));
            let frame = self.program.bo_frame(self.code).expect("a frame");
            for (page, bytes) in batch.end().chunks(SZ_4K as usize).enumerate() {
                self.checked.write_buffer(frame.add(page as u64), bytes).expect("the buffer's bytes");
            }
            let order = Order { signals: Some(done), ..Default::default() };
            let submitted = self.program.exec_behind(self.queues[tile], CODE.start.mirror(), order);
            if submitted.and_then(|()| self.program.syncobj_wait(done)).is_err() {
                return false;
            }
        }
        true
    }

    /// The first word of a page of a buffer.
    fn word(&self, handle: u32, page: u64) -> u32 {
        let frame = self.program.bo_frame(handle).expect("a frame");
        let mut bytes = [0; 4];
        self.checked.read_buffer(frame.add(page), &mut bytes).expect("the buffer's bytes");
        u32::from_le_bytes(bytes)
    }

    /// Both tiles store to pages of every 64K of a buffer, but not to those of `hole`; how many a CPU finds otherwise.
    fn wrong(&self, placement: u32, shift: u64, hole: Option<HostRange>) -> usize {
        let (handle, span) = self.buffer(placement, AT + shift);
        if let Some(hole) = hole {
            self.program.unbind(self.vm, hole, Order::default()).expect("an unbind");
        }
        // First and last of each 64K, and one between that is another in each.
        let is_chosen = |page: &u64| matches!(page % 16, 0 | 15) || page % 16 == page / 16 % 16;
        let there =
            |page: &u64| is_chosen(page) && hole.is_none_or(|hole| !hole.contains(span.start.add(page * SZ_4K)));
        let pages: Vec<u64> = (0..span.pages() as u64).filter(there).collect();
        let mut wrong = 0;
        for tile in [0, 1] {
            let value = |page: u64| 1 + page as u32 * 2 + tile as u32;
            let words: Vec<_> = pages.iter().map(|page| (span.start.0 + page * SZ_4K, value(*page))).collect();
            self.store(tile, &words);
            wrong += pages.iter().filter(|page| self.word(handle, **page) != value(**page)).count();
        }
        self.program.unbind(self.vm, span, Order::default()).expect("an unbind");
        self.program.bo_close(handle).expect("a buffer");
        wrong
    }

    fn end(self) {
        self.program.file().close();
        self.checked.core.engines().stop();
        self.checked.core.device().stop_jobs();
    }
}

const SYSTEM: u32 = 1;
const VRAM: u32 = 4;

fn run(behaviours: &str, play: impl FnOnce(&Stand) + Send + 'static) {
    let behaviours = behaviour::parse(behaviours).expect("behaviours");
    let limits = Limits { steps: 50_000_000, ..Limits::default() };
    let report = sim::run(&mut Random::new(1), limits, move || {
        let stand = Stand::new(behaviours);
        play(&stand);
        stand.end();
    });
    assert!(!report.outcome.is_finding(), "{:?}", report.outcome);
}

/// Congruent by 2M: leaves of 2M. By 64K: compact tables, and PS64 at the ends. By 4K, in system memory: leaves of 4K.
#[test]
fn what_is_stored_through_any_leaf_is_where_it_belongs() {
    run("", |stand| {
        for (placement, shift) in [(VRAM, 0), (VRAM, SZ_64K), (VRAM, 7 * SZ_64K), (SYSTEM, 0), (SYSTEM, SZ_64K)] {
            assert_eq!(stand.wrong(placement, shift, None), 0, "placement {placement}, {shift:#x}");
        }
        assert_eq!(stand.wrong(SYSTEM, SZ_4K, None), 0);
    });
}

/// 64K, and 4K, out of the middle of a leaf or a table: the rest still leads to its bytes.
#[test]
fn what_is_left_of_a_leaf_leads_to_the_same_bytes() {
    run("", |stand| {
        for (placement, shift) in [(VRAM, 0), (VRAM, SZ_64K), (SYSTEM, 0), (SYSTEM, SZ_64K)] {
            for bytes in [SZ_64K, SZ_4K] {
                let hole = HostRange::sized(HostVa(AT + SZ_2M + 5 * SZ_64K), bytes);
                assert_eq!(stand.wrong(placement, shift, Some(hole)), 0, "{bytes:#x} of {placement}, {shift:#x}");
            }
        }
    });
}

/// What a mistake of the encoder does to data, with leaves of 2M, and with compact tables that have PS64 leaves beside them.
#[test]
fn a_forgotten_bit_is_seen_in_the_data() {
    for (planted, shift) in [("plant=dm-dropped", 0), ("plant=dm-dropped", SZ_64K), ("plant=ps64-missing", SZ_64K)] {
        run(planted, move |stand| {
            assert!(stand.wrong(VRAM, shift, None) > 0, "{planted}: nobody sees it, {shift:#x}");
        });
    }
}
