//! How often things happened: what a rule costs where the data do not show whether it is kept.

use crate::finding::Finding;
use crate::script::Counted;
use machine::checked::Checked;
use machine::story::Where;
use machine::wiring::Core;
use std::ops::RangeInclusive;

/// A count for each [`Counted`].
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally([u64; Counted::ALL.len()]);

impl Tally {
    /// All that happened so far.
    pub fn of(checked: &Checked) -> Self {
        checked
            .cores()
            .map(|core| Self::of_device(core))
            .fold(Self::default(), |sum, one| Self(std::array::from_fn(|index| sum.0[index] + one.0[index])))
    }

    fn of_device(core: &Core) -> Self {
        let device = core.gpu().counters();
        core.ledger().look(|book| {
            let stats = &book.stats;
            Self(Counted::ALL.map(|(_, what)| match what {
                Counted::Faults => stats.gpu_faults(),
                Counted::Refusals => stats.gpu_faults_refused(),
                Counted::Violations => device.faults_write + device.faults_atomic,
                Counted::Retries => stats.retries.values().sum(),
                Counted::Stranded => stats.retries.get("migrate").copied().unwrap_or(0),
                Counted::Deferrals => stats.cpu_faults_deferred,
                Counted::Pushes => stats.flow_of(super::is_between_tiles).times,
                Counted::Returns => stats.flow_of(|way| way.to == Where::System).times,
                Counted::Migrations => stats.flow_of(|_| true).times,
                Counted::Flushes => stats.tiles.values().map(|tile| tile.flushes).sum(),
            }))
        })
    }

    /// What happened after `before`.
    pub fn since(self, before: &Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index].saturating_sub(before.0[index])))
    }

    /// How often one thing happened.
    pub fn get(self, what: Counted) -> u64 {
        self.0[what as usize]
    }

    /// Whether each is as a scene says.
    pub fn judge(self, expected: &[(Counted, RangeInclusive<u64>)]) -> Result<(), Finding> {
        match expected.iter().find(|(what, times)| !times.contains(&self.get(*what))) {
            Some((what, times)) => Err(Finding::Cost {
                what: what.name(),
                times: self.get(*what),
                least: *times.start(),
                most: *times.end(),
            }),
            None => Ok(()),
        }
    }
}
