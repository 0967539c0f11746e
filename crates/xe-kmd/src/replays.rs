//! Faults of a context that are answered "it is mapped already".
//!
//! Locking: the owner's.
//!
//! Upstream: none; a mapping that the device does not accept faults for ever there.

use units::GpuVa;

use crate::event::Serviced;

/// How often in a row a context may be told "it is mapped already" of one page. More than a few come from races
/// of engines; this many only from a mapping that the device does not accept, and would come for ever.
pub(crate) const MOST_VALID: u32 = 64;

/// The page of the last such answer, and how often in a row it was given.
#[derive(Default)]
pub(crate) struct Replays {
    last: Option<(GpuVa, u32)>,
}

impl Replays {
    /// Notes a fault's answer. False where this page was found mapped so often in a row that the device evidently
    /// does not accept the mapping: the driver's tables are wrong, and a replay would only fault again.
    pub(crate) fn makes_progress(&mut self, addr: GpuVa, outcome: Serviced) -> bool {
        if outcome != Serviced::Valid {
            self.last = None;
            return true;
        }
        let times = 1 + self.last.filter(|(page, _)| *page == addr.page()).map_or(0, |(_, times)| times);
        self.last = Some((addr.page(), times));
        times < MOST_VALID
    }
}
