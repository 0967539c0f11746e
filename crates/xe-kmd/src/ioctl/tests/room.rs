//! VRAM without room: who is told, and when.

use super::bos::{AT, create, leaf, map};
use super::*;
use xe_spec::platform::PVC;

const ENOMEM: Result<u32, Errno> = err(Errno::ENOMEM);
/// Two of that size have no room in the VRAM of a tile.
const MOST: u64 = PVC.tiles[0].vram_size / 4 * 3;

fn vm_of(rig: &Rig, flags: u32) -> (u32, Asid) {
    let mut args = VmCreate { flags, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_CREATE, &mut args), OK);
    (args.vm_id, rig.file.vm(args.vm_id).unwrap().asid)
}

fn prefetch(region: u32, addr: u64, range: u64) -> VmBindOp {
    VmBindOp { op: BIND_OP_PREFETCH, prefetch_mem_region_instance: region, flags: 0, ..map(0, addr, range) }
}

fn used(rig: &Rig) -> [u64; 2] {
    [0, 1].map(|tile| rig.device.vram_used(TileId(tile)))
}

#[test]
fn a_prefetch_of_a_bo_fails_without_room_and_changes_nothing() {
    let rig = Rig::new();
    let (vm, _) = vm_of(&rig, 6);
    let (big, other) = (create(&rig, 2 * SZ_1G, 3), create(&rig, SZ_2M, 1));
    assert_eq!(bind(&rig, vm, VmBindOp { flags: 0, ..map(big, AT, 2 * SZ_1G) }), OK);
    assert_eq!(bind(&rig, vm, prefetch(1, AT, SZ_2M)), ENOMEM, "more than there is");
    rig.put(USER, &[map(other, AT + 4 * SZ_1G, SZ_2M), prefetch(1, AT, SZ_2M)][..]);
    let first = VmBindOp { extensions: USER, ..Default::default() };
    let mut array = VmBind { vm_id: vm, num_binds: 2, bind: first, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_BIND, &mut array), ENOMEM);
    let bound = |at| rig.file.vm(vm).unwrap().state.read().vmas.overlapping(GpuRange::sized(GpuVa(at), SZ_2M)).len();
    assert_eq!((bound(AT), bound(AT + 4 * SZ_1G), used(&rig)), (1, 0, [0, 0]));
    assert_eq!(bind(&rig, vm, prefetch(0, AT, SZ_2M)), OK, "it is there");
}

#[test]
fn a_prefetch_of_a_bo_goes_where_it_says_and_nowhere_else() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let [first, second] = [7, 3].map(|placement| create(&rig, MOST, placement));
    for (n, bo) in [first, second].into_iter().enumerate() {
        assert_eq!(bind(&rig, vm, VmBindOp { flags: 0, ..map(bo, AT + n as u64 * SZ_1G, MOST) }), OK);
    }
    let go = |n: u64, region| (bind(&rig, vm, prefetch(region, AT + n * SZ_1G, SZ_2M)), used(&rig));
    assert_eq!(go(0, 2), (OK, [MOST, MOST]), "the other was there first");
    assert_eq!(go(0, 1), (OK, [MOST, 0]));
    assert_eq!(go(1, 1), (OK, [MOST, 0]), "the other goes for it");
    assert!(leaf(&rig, 0, asid, AT).is_none() && leaf(&rig, 0, asid, AT + SZ_1G).is_some());
    assert_eq!(go(1, 0), (OK, [0, 0]));
    assert_eq!(go(1, CONSULT_MEM_ADVISE_PREF_LOC), (OK, [MOST, 0]), "the first VRAM that it may be in");
}

/// A job of `vm` that does nothing.
fn exec(rig: &Rig, exec_queue_id: u32) -> Result<u32, Errno> {
    rig.ioctl(nr::EXEC, &mut Exec { exec_queue_id, address: DATA, num_batch_buffer: 1, ..Default::default() })
}

#[test]
fn a_job_with_dma_fences_has_evicted_bos_back_or_is_refused() {
    let rig = Rig::new();
    let ((vm, asid), (other, _)) = (vm_of(&rig, 0), vm_of(&rig, 0));
    let [mine, theirs, more] = [2; 3].map(|placement| create(&rig, MOST, placement));
    let id = queue(&rig, vm, CLASS_COPY, 0).unwrap();
    assert_eq!((bind(&rig, vm, map(mine, AT, MOST)), bind(&rig, other, map(theirs, AT, MOST))), (OK, OK));
    assert_eq!(leaf(&rig, 0, asid, AT), None, "evicted");
    assert_eq!(exec(&rig, id), OK);
    assert!(leaf(&rig, 0, asid, AT).is_some(), "before the job runs");
    // A bind of its own may evict it, a job may not.
    assert_eq!(bind(&rig, vm, map(more, AT + SZ_1G, MOST)), OK);
    assert_eq!([exec(&rig, id), exec(&rig, id)], [ENOMEM; 2]);
    let unmap = VmBindOp { op: BIND_OP_UNMAP, obj: 0, flags: 0, ..map(0, AT + SZ_1G, MOST) };
    assert_eq!((bind(&rig, vm, unmap), exec(&rig, id)), (OK, OK));
    assert!(leaf(&rig, 0, asid, AT).is_some());
}

#[test]
fn a_job_of_a_vm_with_faults_is_never_refused_for_room() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let id = queue(&rig, vm, CLASS_COPY, 0).unwrap();
    for n in 0..2 {
        assert_eq!(bind(&rig, vm, map(create(&rig, MOST, 2), AT + n * SZ_1G, MOST)), OK);
    }
    assert_eq!((exec(&rig, id), leaf(&rig, 0, asid, AT)), (OK, None), "a fault fetches it");
}
