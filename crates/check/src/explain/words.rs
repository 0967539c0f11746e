//! What a line of a story says, in words, and the kernel's function that it stands for.

use super::{NOTICED, Names};
use crate::script::Script;
use machine::Record;
use machine::interconnect::{DeviceId, Node};
use machine::story::{CopyDirection, DriverEvent, EventKind, OtherSide, RetryStep, Serviced, SvmEvent, Told, Where};
use std::fmt::Write;
use units::{GpuVa, HostRange, SZ_4K};

impl Names<'_> {
    /// A piece of memory and the page in it.
    fn at(&self, address: u64) -> Option<String> {
        let (name, range) = self.places.iter().find(|(_, range)| (range.start.0..range.end.0).contains(&address))?;
        Some(format!("{name}[{}]", (address - range.start.0) / SZ_4K))
    }

    fn span(&self, start: u64, end: u64) -> Option<String> {
        let (name, range) = self.places.iter().find(|(_, range)| range.start.0 < end && start < range.end.0)?;
        let page = |address: u64| (address.clamp(range.start.0, range.end.0) - range.start.0) / SZ_4K;
        Some(format!("{name}[{}..{}]", page(start), page(end)))
    }

    /// What a line says, and the kernel's function that it stands for; none where it is about nothing of the scene.
    pub(super) fn words(&self, told: &Told) -> Option<(String, &'static str)> {
        match told {
            Told::Step(text) => Some((format!("> {text}"), "")),
            Told::Driver(device, event) => self.driver(*device, event),
            Told::Svm(event) => self.svm(event),
            Told::Noticed(device, record) => Some((format!("!! {}", noticed(*device, record)), NOTICED)),
        }
    }

    fn driver(&self, device: DeviceId, event: &DriverEvent) -> Option<(String, &'static str)> {
        let name = |tile| Script::tile_name(Node { device, tile });
        Some(match *event {
            DriverEvent::Fault { tile, addr, access, outcome, .. } => {
                let answer = match outcome {
                    Serviced::Resolved => "resolved".into(),
                    Serviced::Valid => "mapped already".into(),
                    Serviced::Refused(errno) => format!("refused with {errno}, the queue is banned"),
                };
                let access = format!("{access:?}").to_lowercase();
                let text = format!("fault of {} at {} ({access}): {answer}", name(tile), self.at(addr.0)?);
                (text, "xe_pagefault_service")
            }
            DriverEvent::Retry { addr, step, .. } => {
                let why = match step {
                    RetryStep::Migrate => "the migration failed",
                    RetryStep::Pages => "the pages cannot be collected",
                    RetryStep::Bind => "the pages changed before the bind",
                };
                (format!("{}: {why}, once more", self.at(addr.0)?), "xe_svm_handle_pagefault")
            }
            DriverEvent::PrefetchOvertaken { tile, span, .. } => {
                let at = self.span(span.start.0, span.end.0)?;
                (
                    format!("{at}: the pages changed before the prefetch binds them on {}", name(tile)),
                    "xe_pt_svm_pre_commit",
                )
            }
            DriverEvent::Bind { tile, span, leaves, .. } => {
                let at = self.span(span.start.0, span.end.0)?;
                (format!("{at} bound on {}, {leaves} leaves", name(tile)), "xe_vm_range_rebind")
            }
            DriverEvent::Zap { tile, span, .. } => (
                format!("{} cleared in {}'s table", self.gpu(span.start, span.end)?, name(tile)),
                "xe_pt_zap_ptes_range",
            ),
            DriverEvent::TlbFlush { tile, span, .. } => {
                (format!("TLB of {} flushed for {}", name(tile), self.gpu(span.start, span.end)?), "xe_tlb_inval_range")
            }
            DriverEvent::Copy { tile, direction, pages, carried, remote, .. } => {
                let way = if direction == CopyDirection::ToVram { "into its VRAM from" } else { "out of its VRAM to" };
                let side = other_side(remote);
                let text = format!("{}'s copy engine carries {carried} of {pages} pages {way} {side}", name(tile));
                (text, "xe_svm_copy")
            }
            DriverEvent::Collected { span, .. } => {
                (format!("range {} removed", self.gpu(span.start, span.end)?), "xe_svm_garbage_collector")
            }
            DriverEvent::FenceArrayHole { count, filled } => {
                (format!("an array of {count} fences has {filled} filled"), "xe_sync_in_fence_get")
            }
            DriverEvent::BoEvicted { tile, bytes } => {
                (format!("a buffer of {bytes} bytes leaves the VRAM of {}", name(tile)), "xe_bo_evict")
            }
            DriverEvent::Banned { .. } => ("a queue is banned".into(), "xe_exec_queue_kill"),
            DriverEvent::VmBind { op: 0, .. } => ("a VM_BIND maps".into(), "xe_vm_bind_ioctl"),
            DriverEvent::VmBind { op: 1, .. } => ("a VM_BIND unmaps".into(), "xe_vm_bind_ioctl"),
            _ => return None,
        })
    }

    fn gpu(&self, start: GpuVa, end: GpuVa) -> Option<String> {
        self.span(start.0, end.0)
    }

    fn svm(&self, event: &SvmEvent) -> Option<(String, &'static str)> {
        let host = |range: HostRange| self.span(range.start.0, range.end.0);
        Some(match *event {
            SvmEvent::Migrated { range, from, to, pages, carried, .. } => {
                let text =
                    format!("{}: {pages} pages {} -> {}, {carried} carried", host(range)?, place(from), place(to));
                let function =
                    if to == Where::System { "drm_pagemap_migrate_to_ram" } else { "drm_pagemap_migrate_to_devmem" };
                (text, function)
            }
            SvmEvent::MigrateFailed { range, to, error } => (
                format!("{} does not migrate to {}: {error:?}", host(range)?, place(to)),
                "drm_pagemap_migrate_to_devmem",
            ),
            SvmEvent::Invalidated { range, kind } => {
                (format!("the notifier was called: {} ({})", host(range)?, event_kind(kind)), "xe_svm_invalidate")
            }
            SvmEvent::CpuFault { addr, pages, .. } => (
                format!("a CPU touches {}, {pages} pages migrate back", self.at(addr.0)?),
                "drm_pagemap_migrate_to_ram",
            ),
            SvmEvent::PagesMapped { range, system, device, .. } => {
                let mut text = format!("{}: collected", host(range)?);
                for (count, what) in [(system, "in system memory"), (device, "in VRAM")] {
                    if count > 0 {
                        let _ = write!(text, ", {count} {what}");
                    }
                }
                (text, "drm_gpusvm_get_pages")
            }
            SvmEvent::Retried { range } => {
                (format!("{}: changed while it was collected, again", host(range)?), "drm_gpusvm_get_pages")
            }
            SvmEvent::Evicted { range, .. } => (format!("{} evicted", host(range)?), "drm_gpusvm_range_evict"),
            _ => return None,
        })
    }
}

fn place(place: Where) -> String {
    match place {
        Where::System => "SYSTEM".into(),
        Where::Vram(pagemap) => format!("VRAM{}", pagemap.0),
    }
}

/// The form of an address says which memory a leaf leads to.
fn other_side(side: OtherSide) -> String {
    match side {
        OtherSide::Vram(dpa) => format!("device address {:#x} (leaf with DM)", dpa.0),
        OtherSide::Bus(iova) => format!("bus address {:#x} (leaf without DM)", iova.0),
    }
}

const fn event_kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Unmap => "unmapped",
        EventKind::Clear => "emptied",
        EventKind::Protection => "protected",
        EventKind::Migrate(_) => "migrates",
        EventKind::Release => "the process ends",
    }
}

fn noticed(device: DeviceId, record: &Record) -> String {
    let name = |tile| Script::tile_name(Node { device, tile });
    match record {
        Record::StrayWrite { tile, iova, bytes } => {
            format!("{} wrote {bytes} bytes to bus address {:#x}, which nothing maps", name(*tile), iova.0)
        }
        Record::StrayRead { tile, iova, bytes } => {
            format!("{} read {bytes} bytes of bus address {:#x}, which nothing maps", name(*tile), iova.0)
        }
        Record::StaleVram { engine, access, dpa, .. } => {
            format!("{}: a stale {access:?} of VRAM {:#x}, which its page has left", name(engine.tile), dpa.0)
        }
        Record::Malformed { tile, violation, .. } => format!("{} walked into {violation:?}", name(*tile)),
        other => format!("the device noticed {other:?}"),
    }
}
