//! Monotonic time in nanoseconds: real, or virtual under the checker.
use std::sync::OnceLock;
use std::time::{Duration, Instant};
static START: OnceLock<Instant> = OnceLock::new();
/// Nanoseconds since some start.
pub fn now_ns() -> u64 {
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}
/// Sleeps.
pub fn sleep_ns(ns: u64) {
    std::thread::sleep(Duration::from_nanos(ns));
}
