//! How pages travelled: one word for the copy engine that carries them, the driver that ordered it, the engine that
//! decides, and the host mm whose pages they are.

/// How a run of pages travelled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Outcome {
    /// Nobody has carried it yet.
    #[default]
    Pending,
    /// The pages themselves moved: no byte was copied.
    Moved,
    /// Their bytes were copied.
    Copied,
    /// The source held nothing; the destination reads as zeros.
    Zeroed,
    /// The writes went to a bus address that no mapping covers. The device does not learn of it, so a driver must not
    /// act on it: the run counts as carried.
    Dropped,
    /// It stays where it is: pinned, gone meanwhile, refused by tables or by memory.
    Failed,
}

impl Outcome {
    /// Whether the device believes that it carried the run.
    pub const fn carried(self) -> bool {
        matches!(self, Self::Moved | Self::Copied | Self::Zeroed | Self::Dropped)
    }
}

/// Who is told how pages travelled, run by run: how many pages, and how. The runs come in order and without gaps, and
/// are as many pages in all as were to be carried.
pub type Report<'a> = dyn FnMut(usize, Outcome) + 'a;

/// Joins reports of consecutive runs that travelled alike, and passes them on. What is held back is passed on when it
/// is dropped.
pub struct Joined<'a, 'b> {
    report: &'a mut Report<'b>,
    pages: usize,
    outcome: Outcome,
}

impl<'a, 'b> Joined<'a, 'b> {
    /// Passes on to `report`.
    pub fn new(report: &'a mut Report<'b>) -> Self {
        Self { report, pages: 0, outcome: Outcome::Pending }
    }
    /// The next `pages` pages travelled so.
    pub fn note(&mut self, pages: usize, outcome: Outcome) {
        if outcome != self.outcome {
            self.flush();
            self.outcome = outcome;
        }
        self.pages += pages;
    }
    fn flush(&mut self) {
        let pages = core::mem::take(&mut self.pages);
        if pages > 0 {
            (self.report)(pages, self.outcome);
        }
    }
}

impl Drop for Joined<'_, '_> {
    fn drop(&mut self) {
        self.flush();
    }
}
