//! VMs of a scene, with their queues. The process has one of each device, which all mirror it; a plain one is of the first device.
//!
//! A scene's tiles are those of the devices that it is written for. Played on another machine they are counted through all
//! devices: the second tile of a scene may be the second device there.

use super::stage::{CODE, Stage, of, refused};
use crate::finding::Finding;
use crate::script::{Home, MOST_QUEUES, VmKind, VmOn};
use machine::checked::Checked;
use machine::interconnect::{DeviceId, Node};
use machine::program::{Advice, BindFlags, Class, Order, Program};
use units::{HostFrame, HostRange, TileId};

/// A VM, with its queues, and the bytes of its batches where it is a plain one.
#[derive(Clone, Default)]
pub(super) struct OpenVm {
    /// By device; a plain one has the first only.
    ids: Vec<u32>,
    /// By lane and by tile of the scene.
    queues: [Vec<u32>; MOST_QUEUES],
    pub code: Option<HostFrame>,
}

impl Stage {
    /// A VM with its queues: one of each device, or a plain one of the first.
    pub fn open_vm(&self, programs: &[Program], index: usize, kind: VmKind) -> Result<(), Finding> {
        let mut vm = OpenVm::default();
        let of = if kind == VmKind::Plain { &programs[..1] } else { programs };
        for program in of {
            let (id, code) = self.create_vm(program, index, kind)?;
            vm.ids.push(id);
            vm.code = code;
        }
        for lane in 0..self.script.queues {
            let queue = |node| self.queue(programs, &vm, index, lane, node);
            vm.queues[lane] = self.script.nodes().map(queue).collect::<Result<_, _>>()?;
        }
        self.now.with(|now| now.vms.insert(index, vm));
        Ok(())
    }

    fn create_vm(&self, program: &Program, index: usize, kind: VmKind) -> Result<(u32, Option<HostFrame>), Finding> {
        Ok(if kind == VmKind::Plain {
            let made =
                if self.script.vms[index].scratch { program.vm_create_scratch() } else { program.vm_create_plain() };
            let id = made.map_err(|e| refused("VM_CREATE", e))?;
            let code = program.bo_create(CODE.len(), 1).map_err(|e| refused("GEM_CREATE", e))?;
            program.bind_bo(id, code, CODE, Order::default()).map_err(|e| refused("VM_BIND", e))?;
            (id, Some(program.bo_frame(code).map_err(|e| refused("GEM_MMAP_OFFSET", e))?))
        } else {
            let id = program.vm_create().map_err(|e| refused("VM_CREATE", e))?;
            let flags = if kind == VmKind::AutoReset { BindFlags::MADVISE_AUTORESET } else { BindFlags::empty() };
            program.bind_mirror_with(id, flags, None).map_err(|e| refused("VM_BIND", e))?;
            (id, None)
        })
    }

    /// Ends a VM and its queues.
    pub fn close_vm(&self, programs: &[Program], index: usize) -> Result<(), Finding> {
        let Some(vm) = self.now.with(|now| now.vms.remove(&index)) else { return Ok(()) };
        let binds = self.now.with(|now| now.bind_queues.remove(&index));
        let queues = vm.queues.iter().flat_map(|queues| self.script.nodes().zip(queues.iter().copied()));
        let all = queues.map(|(node, queue)| (self.node(index, node).device, queue));
        for (device, queue) in all.chain(binds.map(|binds| (DeviceId(0), binds))) {
            let ended = of(programs, device)?.queue_destroy(queue);
            ended.map_err(|e| refused("EXEC_QUEUE_DESTROY", e))?;
        }
        for (program, id) in programs.iter().zip(vm.ids) {
            program.vm_destroy(id).map_err(|e| refused("VM_DESTROY", e))?;
        }
        Ok(())
    }

    /// Which tile of the machine does the work of a scene's tile in a VM: tiles are counted through all devices, and of a machine with
    /// fewer it is the last one. A plain VM has those of the first device.
    pub fn node(&self, vm: usize, node: Node) -> Node {
        if self.script.vms.get(vm).is_some_and(|vm| vm.kind == VmKind::Plain) {
            return Node { device: DeviceId(0), tile: tile_of_first(&self.checked, node.tile) };
        }
        self.vram_node(node)
    }

    /// The tile of the machine that has the VRAM of a scene's tile, likewise.
    pub fn vram_node(&self, node: Node) -> Node {
        self.nodes.get(self.seat(node)).or(self.nodes.last()).copied().unwrap_or(node)
    }

    /// The number of a tile among all that the scene has.
    fn seat(&self, node: Node) -> usize {
        self.script.nodes().position(|known| known == node).unwrap_or(0)
    }

    fn queue(&self, programs: &[Program], vm: &OpenVm, index: usize, lane: usize, node: Node) -> Result<u32, Finding> {
        let Node { device, tile } = self.node(index, node);
        let id = vm.ids.get(usize::from(device.0)).copied().unwrap_or(0);
        let created = of(programs, device)?.queue_create_on(id, Class::Compute, lane as u16, tile);
        created.map_err(|e| refused("EXEC_QUEUE_CREATE", e))
    }

    /// The queue of a thread's jobs, by its lane, in a VM on a tile; and the device that it is of.
    pub fn queue_of(&self, vm: usize, lane: usize, node: Node) -> Result<(DeviceId, u32), Finding> {
        let open = self.open(vm)?;
        let queue = open.queues.get(lane).and_then(|queues| queues.get(self.seat(node))).copied();
        queue.map(|queue| (self.node(vm, node).device, queue)).ok_or_else(|| self.not_open(vm))
    }

    /// The region of a place, as PREFETCH counts them.
    pub fn region(&self, home: Home) -> u32 {
        match home {
            Home::System => 0,
            Home::Vram(node) => 1 + u32::from(self.vram_node(node).tile.0),
            Home::Default => u32::MAX,
        }
    }

    /// The device whose VM prefetches to a place: that which has it, or else that of the step.
    pub fn prefetcher(&self, on: VmOn, home: Home) -> VmOn {
        match home {
            Home::Vram(node) => VmOn { device: self.vram_node(node).device, ..on },
            Home::System | Home::Default => on,
        }
    }

    /// MADVISE of a place, as the program of a VM gives it.
    pub fn prefer(&self, programs: &[Program], on: VmOn, span: HostRange, home: Home) -> Result<(), Finding> {
        let (vm, program) = (self.vm(on)?, of(programs, on.device)?);
        let advised = match home {
            Home::System => program.madvise(vm, span, Advice::SystemMemory),
            Home::Default => program.madvise(vm, span, Advice::FaultingTile),
            Home::Vram(node) => {
                let Node { device, tile } = self.vram_node(node);
                program.madvise_peer(vm, span, of(programs, device)?.file(), tile)
            }
        };
        advised.map_err(|e| refused("MADVISE", e))
    }

    /// The queue of a tile was banned: the next job finds another one.
    pub fn replace_queue(&self, programs: &[Program], index: usize, lane: usize, node: Node) -> Result<(), Finding> {
        let (device, old) = self.queue_of(index, lane, node)?;
        let new = self.queue(programs, &self.open(index)?, index, lane, node)?;
        let seat = self.seat(node);
        self.now.with(|now| now.vms.get_mut(&index).map(|vm| vm.queues[lane][seat] = new));
        of(programs, device)?.queue_destroy(old).map_err(|e| refused("EXEC_QUEUE_DESTROY", e))
    }

    /// A VM as a device has it.
    pub fn vm(&self, on: VmOn) -> Result<u32, Finding> {
        let id = self.open(on.vm)?.ids.get(usize::from(on.device.0)).copied();
        id.ok_or_else(|| self.not_open(on.vm))
    }

    /// A VM of the first device.
    pub fn plain_vm(&self, index: usize) -> Result<u32, Finding> {
        self.vm(VmOn { vm: index, device: DeviceId(0) })
    }

    /// The bytes of a plain VM's batches.
    pub fn code(&self, index: usize) -> Result<HostFrame, Finding> {
        self.open(index)?.code.ok_or_else(|| Finding::Scene("the VM is no plain one".into()))
    }

    fn open(&self, index: usize) -> Result<OpenVm, Finding> {
        self.now.with(|now| now.vms.get(&index).cloned()).ok_or_else(|| self.not_open(index))
    }

    fn not_open(&self, index: usize) -> Finding {
        Finding::Scene(format!("VM {} is not open here", self.script.vms[index].name))
    }

    /// Closes a device's file, with all that it has.
    pub fn close_device(&self, device: DeviceId) -> Result<(), Finding> {
        of(&self.main, device).map(|program| program.file().close())
    }
}

/// Which tile of the first device does the work of a scene's tile: of one with fewer tiles the last one.
pub(super) fn tile_of_first(checked: &Checked, tile: TileId) -> TileId {
    TileId(tile.0.min((checked.core.device().platform().tiles.len() - 1) as u8))
}
