//! What a scene has go wrong, and whether it went wrong: an injection that no run of a search meets shows nothing.

use crate::script::{Injected, Script};
use machine::checked::{Checked, MmInjection};
use machine::{Injection, Numbered};

/// How often something is to happen, as far as it can be counted down.
fn times(count: u64) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}

/// What may go wrong in the simulated mm, and in the devices.
pub(super) fn of(script: &Script) -> (MmInjection, Injection) {
    let (mut mm, mut device) = (MmInjection::default(), Injection::default());
    for &(what, count) in &script.injections {
        let times = times(count);
        match what {
            Injected::CopyFails => device.fail_copy = Some(count),
            Injected::CopyStops => device.stop_copy = Some(count),
            Injected::MapFails => device.fail_maps.push(count),
            Injected::LosePage => device.lose_page = Some(count),
            Injected::Slow => mm.slow_ns = count,
            Injected::Strangers => mm.strangers = times,
            Injected::FlushDelay => device.flush_delay_ns = count,
            Injected::Cuts => mm.cuts = times,
            Injected::Refusals => mm.refusals = times,
            Injected::Busy => mm.busy = times,
            Injected::Shortages => mm.shortages = times,
        }
    }
    (mm, device)
}

/// Which injections of a scene struck, by the copies and mappings that there were and by what of the simulated mm's is `left`.
pub(super) fn met(script: &Script, checked: &Checked, left: &MmInjection) -> Vec<bool> {
    let numbered: Vec<Numbered> = checked.cores().map(|core| core.gpu().numbered()).collect();
    let struck = |count: u64, left: u32| left < times(count);
    let is_met = |&(what, number): &(Injected, u64)| match what {
        Injected::CopyFails | Injected::CopyStops => numbered.iter().any(|device| device.copies > number),
        Injected::MapFails => numbered.iter().any(|device| device.maps > number),
        Injected::LosePage => numbered.iter().any(|device| device.found > number),
        Injected::Strangers => struck(number, left.strangers),
        Injected::Cuts => struck(number, left.cuts),
        Injected::Refusals => struck(number, left.refusals),
        Injected::Busy => struck(number, left.busy),
        Injected::Shortages => struck(number, left.shortages),
        // These hold for all that a run does.
        Injected::Slow | Injected::FlushDelay => true,
    };
    script.injections.iter().map(is_met).collect()
}
