//! Trying again: whether looking again may help, and for how long.
//!
//! Upstream: `-EAGAIN` inside of `drm_gpusvm`, `HMM_RANGE_DEFAULT_TIMEOUT`.

use crate::call::SvmError;
use hostmm::MmError;

/// How long the engine goes on losing races before it says so (`HMM_RANGE_DEFAULT_TIMEOUT`), in nanoseconds.
pub(crate) const HMM_TIMEOUT_NS: u64 = 1_000_000_000;

/// How an attempt failed: whether looking again may help.
pub(crate) enum Attempt {
    /// The address space changed meanwhile.
    Stale,
    /// Another thread of the driver did the same work, and was faster: look again at once.
    Raced,
    /// It would fail again.
    Failed(SvmError),
}

impl From<MmError> for Attempt {
    fn from(error: MmError) -> Self {
        match error {
            MmError::Stale => Self::Stale,
            other => Self::Failed(other.into()),
        }
    }
}

impl From<SvmError> for Attempt {
    fn from(error: SvmError) -> Self {
        Self::Failed(error)
    }
}

/// How long to go on after lost races: [`HMM_TIMEOUT_NS`] from the first one on.
#[derive(Default)]
pub(crate) struct Retry {
    end_ns: Option<u64>,
}

impl Retry {
    /// Time between tries, in nanoseconds: enough for whoever won to get on.
    const PAUSE_NS: u64 = 20_000;

    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Lets others run; `false` where the time is over. Not in reader class.
    pub(crate) fn wait(&mut self) -> bool {
        let now_ns = sync::time::now_ns();
        if now_ns >= *self.end_ns.get_or_insert(now_ns.saturating_add(HMM_TIMEOUT_NS)) {
            return false;
        }
        sync::time::sleep_ns(Self::PAUSE_NS);
        true
    }
}
