//! The counters of a GT under the kernel's names: what `gt*/stats` of debugfs shows.
//!
//! All names are there, in the kernel's order. What nothing here does stays 0: prefetches of the hardware's own, groups of engines,
//! lists of reclaimed pages. Where upstream counts one thing twice, this does not: a fault is counted once, and not again in each
//! round; pages that go from tile to tile are copied to a device, and not to the CPU.
//!
//! Locking: none; the ledger's lock protects them.
//!
//! Upstream: `xe_gt_stats.c`, `xe_svm_copy_kb_stats_incr` and its kin.

use std::collections::BTreeMap;
use units::{SZ_2M, SZ_4K, SZ_64K, TileId};
use xe_kmd::{CopyDirection, Event, OtherSide, Serviced, Steps};

/// All names.
const NAMES: [&str; 54] = [
    "svm_pagefault_count",
    "tlb_inval_count",
    "svm_tlb_inval_count",
    "svm_tlb_inval_us",
    "vma_pagefault_count",
    "vma_pagefault_kb",
    "invalid_prefetch_pagefault_count",
    "svm_4K_pagefault_count",
    "svm_64K_pagefault_count",
    "svm_2M_pagefault_count",
    "svm_4K_valid_pagefault_count",
    "svm_64K_valid_pagefault_count",
    "svm_2M_valid_pagefault_count",
    "svm_4K_pagefault_us",
    "svm_64K_pagefault_us",
    "svm_2M_pagefault_us",
    "svm_4K_migrate_count",
    "svm_64K_migrate_count",
    "svm_2M_migrate_count",
    "svm_4K_migrate_us",
    "svm_64K_migrate_us",
    "svm_2M_migrate_us",
    "svm_device_copy_us",
    "svm_4K_device_copy_us",
    "svm_64K_device_copy_us",
    "svm_2M_device_copy_us",
    "svm_cpu_copy_us",
    "svm_4K_cpu_copy_us",
    "svm_64K_cpu_copy_us",
    "svm_2M_cpu_copy_us",
    "svm_device_copy_kb",
    "svm_4K_device_copy_kb",
    "svm_64K_device_copy_kb",
    "svm_2M_device_copy_kb",
    "svm_cpu_copy_kb",
    "svm_4K_cpu_copy_kb",
    "svm_64K_cpu_copy_kb",
    "svm_2M_cpu_copy_kb",
    "svm_4K_get_pages_us",
    "svm_64K_get_pages_us",
    "svm_2M_get_pages_us",
    "svm_4K_bind_us",
    "svm_64K_bind_us",
    "svm_2M_bind_us",
    "hw_engine_group_suspend_lr_queue_count",
    "hw_engine_group_skip_lr_queue_count",
    "hw_engine_group_wait_dma_queue_count",
    "hw_engine_group_suspend_lr_queue_us",
    "hw_engine_group_wait_dma_queue_us",
    "prl_4k_entry_count",
    "prl_64k_entry_count",
    "prl_2m_entry_count",
    "prl_issued_count",
    "prl_aborted_count",
];

/// The counters of one GT: times in nanoseconds, amounts in bytes, so that small ones add up.
#[derive(Clone, Copy, Debug)]
pub struct GtStats([u64; NAMES.len()]);

impl Default for GtStats {
    fn default() -> Self {
        Self([0; NAMES.len()])
    }
}

/// Of how many of what is counted the kernel's unit is.
fn unit(name: &str) -> u64 {
    match name.rsplit('_').next() {
        Some("us") => 1000,
        Some("kb") => 1024,
        _ => 1,
    }
}

/// The place of a name. Where there is none, a constant of it does not compile.
const fn place(name: &str) -> usize {
    let mut at = 0;
    while !is_same(NAMES[at].as_bytes(), name.as_bytes()) {
        at += 1;
    }
    at
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// The places of what is counted by size, the first of three that follow each other.
mod by_size {
    use super::place;
    pub const FAULTS: usize = place("svm_4K_pagefault_count");
    pub const VALID: usize = place("svm_4K_valid_pagefault_count");
    pub const FAULT_NS: usize = place("svm_4K_pagefault_us");
    pub const MIGRATIONS: usize = place("svm_4K_migrate_count");
    pub const MIGRATE_NS: usize = place("svm_4K_migrate_us");
    pub const PAGES_NS: usize = place("svm_4K_get_pages_us");
    pub const BIND_NS: usize = place("svm_4K_bind_us");
}

impl GtStats {
    /// What others have counted of the GT, a `name: value` a line.
    pub fn add_text(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
            let place = NAMES.iter().position(|own| *own == name);
            if let (Some(place), Ok(value)) = (place, value.parse::<u64>()) {
                self.0[place] = self.0[place].saturating_add(value.saturating_mul(unit(name)));
            }
        }
    }

    /// All of it, as debugfs has it: a `name: value` a line.
    pub fn text(&self) -> String {
        NAMES.iter().zip(&self.0).map(|(name, value)| format!("{name}: {}\n", value / unit(name))).collect()
    }

    /// Counts an event for the tile whose it is.
    pub(crate) fn count(all: &mut BTreeMap<u8, Self>, event: &Event) {
        let mut of = |tile: TileId, count: &dyn Fn(&mut Self)| count(all.entry(tile.0).or_default());
        match *event {
            Event::SvmFault { tile, bytes, outcome, ns, steps } => {
                of(tile, &|own| own.fault(bytes, outcome, ns, steps));
            }
            Event::VmaFault { tile, bytes } => of(tile, &|own| {
                own.0[const { place("vma_pagefault_count") }] += 1;
                own.0[const { place("vma_pagefault_kb") }] += bytes;
            }),
            Event::TlbFlush { tile, .. } => of(tile, &|own| own.0[const { place("tlb_inval_count") }] += 1),
            Event::SvmFlush { tile, ns } => of(tile, &|own| {
                own.0[const { place("svm_tlb_inval_count") }] += 1;
                own.0[const { place("svm_tlb_inval_us") }] += ns;
            }),
            Event::Copy { tile, direction, pages, carried, remote, ns, .. } => {
                let is_home = direction == CopyDirection::FromVram && matches!(remote, OtherSide::Bus(_));
                of(tile, &|own| own.copy(is_home, pages.into(), u64::from(carried) * SZ_4K, ns));
            }
            _ => {}
        }
    }

    fn fault(&mut self, bytes: u64, outcome: Serviced, ns: u64, steps: Steps) {
        self.0[const { place("svm_pagefault_count") }] += 1;
        let class = match bytes {
            0 => return,
            SZ_2M.. => 2,
            SZ_64K.. => 1,
            _ => 0,
        };
        let is_refused = matches!(outcome, Serviced::Refused(_));
        for (first, more) in [
            (by_size::FAULTS, 1),
            (by_size::VALID, u64::from(outcome == Serviced::Valid)),
            (by_size::FAULT_NS, if is_refused { 0 } else { ns }),
            (by_size::MIGRATIONS, steps.migrations.into()),
            (by_size::MIGRATE_NS, steps.migrate_ns),
            (by_size::PAGES_NS, steps.pages_ns),
            (by_size::BIND_NS, steps.bind_ns),
        ] {
            self.0[first + class] += more;
        }
    }

    /// Of sizes in between only the sums know.
    fn copy(&mut self, is_home: bool, pages: u64, bytes: u64, ns: u64) {
        let (times, amounts) = match is_home {
            false => const { (place("svm_device_copy_us"), place("svm_device_copy_kb")) },
            true => const { (place("svm_cpu_copy_us"), place("svm_cpu_copy_kb")) },
        };
        let class = match pages * SZ_4K {
            SZ_4K => Some(1),
            SZ_64K => Some(2),
            SZ_2M => Some(3),
            _ => None,
        };
        for place in [Some(0), class].into_iter().flatten() {
            self.0[times + place] += ns;
            self.0[amounts + place] += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::{Dpa, Iova};

    /// What is not 0, after the text was added up from nothing, as another process does.
    fn told(events: &[Event]) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        events.iter().for_each(|event| GtStats::count(&mut all, event));
        let mut again = GtStats::default();
        again.add_text(&all[&1].text());
        let values = NAMES.into_iter().zip(again.0).map(|(name, value)| (name, value / unit(name)));
        values.filter(|(_, value)| *value > 0).collect()
    }

    #[test]
    fn faults_count_by_the_size_of_their_range() {
        let steps = Steps { migrations: 1, migrate_ns: 900, pages_ns: 2000, bind_ns: 3000 };
        let fault = |bytes, outcome| Event::SvmFault { tile: TileId(1), bytes, outcome, ns: 10_000, steps };
        let vma = Event::VmaFault { tile: TileId(1), bytes: SZ_64K };
        let refused = Serviced::Refused(xe_kmd::Errno::EACCES);
        let small = fault(SZ_4K, Serviced::Resolved);
        let counted = told(&[small, small, fault(SZ_2M, refused), fault(0, refused), vma]);
        let wanted = [
            ("svm_pagefault_count", 4),
            ("vma_pagefault_count", 1),
            ("vma_pagefault_kb", 64),
            ("svm_4K_pagefault_count", 2),
            ("svm_2M_pagefault_count", 1),
            ("svm_4K_pagefault_us", 20),
            ("svm_4K_migrate_count", 2),
            ("svm_2M_migrate_count", 1),
            ("svm_4K_migrate_us", 1),
            ("svm_4K_get_pages_us", 4),
            ("svm_2M_get_pages_us", 2),
            ("svm_4K_bind_us", 6),
            ("svm_2M_bind_us", 3),
        ];
        assert_eq!(counted, BTreeMap::from(wanted));
    }

    #[test]
    fn copies_count_by_their_end_and_their_size() {
        let copy = |direction, pages, remote| Event::Copy {
            tile: TileId(1),
            direction,
            pages,
            carried: pages,
            remote,
            crossings: 1,
            ns: 5000,
        };
        let (bus, peer) = (OtherSide::Bus(Iova(0)), OtherSide::Vram(Dpa(0)));
        let counted = told(&[
            copy(CopyDirection::ToVram, 16, bus),
            copy(CopyDirection::FromVram, 3, bus),
            copy(CopyDirection::FromVram, 512, peer),
        ]);
        let wanted = [
            ("svm_device_copy_us", 10),
            ("svm_64K_device_copy_us", 5),
            ("svm_2M_device_copy_us", 5),
            ("svm_cpu_copy_us", 5),
            ("svm_device_copy_kb", 2112),
            ("svm_64K_device_copy_kb", 64),
            ("svm_2M_device_copy_kb", 2048),
            ("svm_cpu_copy_kb", 12),
        ];
        assert_eq!(counted, BTreeMap::from(wanted));
    }
}
