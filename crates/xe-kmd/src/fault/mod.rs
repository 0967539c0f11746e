//! Page faults of the device: queued by the interrupt, served by whoever has time, answered.
//!
//! [`queue`] → [`service`] → (for mirrored memory) [`svm::handler`](crate::svm::handler) → [`ack`].
//!
//! Upstream: `xe_pagefault.c`, `xe_guc_pagefault.c`.

mod ack;
pub(crate) mod queue;
pub(crate) mod replays;
pub(crate) mod service;
