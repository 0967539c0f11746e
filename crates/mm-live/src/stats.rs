//! Counters: what happened, counted once, where it happened.

use sync::Counter;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of a [`LiveMm`](crate::LiveMm) since its start.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Stats { $($(#[$doc])* pub $name: u64,)* }

        impl Stats {
            /// Every counter with its name, for reports.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub $name: Counter,)* }

        impl Counters {
            pub fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Pages moved or copied from system memory to VRAM.
    to_device,
    /// Pages moved or copied back.
    to_system,
    /// Pages moved or copied between VRAMs, or inside one.
    across,
    /// Pages of these that were copied and not moved.
    copied,
    /// Pages that a failed or unwanted migration put back.
    put_back,
    /// Holes that became zero pages in VRAM.
    holes,
    /// Page fault messages read.
    faults,
    /// Faults on pages in VRAM, handed to the pagemap's owner.
    device_faults,
    /// Faults on holes, answered with zero pages.
    hole_faults,
    /// Faults on pages of a migration in progress, answered by its end.
    claimed_faults,
    /// Faults that were over when looked at.
    stale_faults,
    /// Faults set aside and taken up again.
    postponed_faults,
    /// Faults answered with SIGBUS.
    fatal_faults,
    /// munmap events.
    unmaps,
    /// madvise events.
    removes,
    /// mremap events.
    remaps,
    /// mremap events that waited for the event of what lay at their place before.
    late_remaps,
    /// Messages that were not asked for.
    unexpected,
    /// System calls refused because an event was unread or its raiser had not run again.
    again,
    /// Pages on their way back that found another mapping in their place, for which no event was raised (SHM_REMAP).
    orphaned,
    /// Pages of VRAM that the kernel took back, as the program had allowed by MADV_FREE.
    reclaimed,
    /// Accesses of VRAM frames that are empty: the translation was stale.
    stale,
    /// Accesses of frames that an event had just emptied, before the notifiers were called: tried again.
    notified_late,
    /// Pages that could not move because they are pinned or shared copy-on-write.
    busy,
    /// Pages that could not move because of permissions, locks or VMAs.
    invalid,
    /// Pages that could not move for other reasons.
    failed,
    /// Pages whose mapping changed during their migration.
    cancelled,
    /// Chunks registered.
    registered,
    /// Chunks unregistered.
    unregistered,
    /// Chunks that could not be registered.
    refused,
    /// Destinations named for a page that were in use.
    occupied,
    /// Pages that the process outside brought home while a debugger had stopped the program.
    rescued,
    /// Pages found in system memory and in VRAM at once: must stay 0.
    conflicts,
    /// Pages that could be put back nowhere and stay at an uncommitted destination.
    stranded,
}
