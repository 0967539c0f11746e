//! Threads and scheduling points.
use std::boxed::Box;

/// A thread that can be waited for.
pub struct JoinHandle(std::thread::JoinHandle<()>);
impl JoinHandle {
    /// Waits for its end.
    pub fn join(self) {
        let _ = self.0.join();
    }
}
/// Starts a thread (live) or a task (checked).
pub fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> JoinHandle {
    let body: Box<dyn FnOnce() + Send> = Box::new(body);
    JoinHandle(std::thread::Builder::new().name(name.into()).spawn(body).expect("thread"))
}
/// A scheduling point: nothing, live.
pub fn point() {}
/// Lets others run.
pub fn yield_now() {
    std::thread::yield_now();
}
/// A choice below `n`, made by the schedule; 0 live.
pub fn choose(n: u32) -> u32 {
    let _ = n;
    0
}
