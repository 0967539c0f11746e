//! What a bench of the checker needs: the scene that is measured, and a floor that does nothing but take turns.

use crate::script::{Script, ScriptError};
use std::sync::Arc;
use sync::sim::{self, Limits, Pct, RunReport};

/// Two GPU faults and a CPU fault on one block.
const SCENE: &str = "memory b 64K\nthread zero\n    tile0 write b[0]\nthread one\n    tile1 write b[5]\nthread cpu\n    cpu write b[9]\n";

/// The scene.
///
/// # Errors
/// Never: it is a scene.
pub fn scene() -> Result<Arc<Script>, ScriptError> {
    Script::parse("speed", SCENE).map(Arc::new)
}

/// A run of three threads that take one lock in turn, `times` times each: what a scheduling point costs by itself.
pub fn bare(seed: u64, times: u32) -> RunReport {
    sim::run(&mut Pct::new(seed, 3, u64::from(times)), Limits::default(), move || {
        let count = Arc::new(sync::Mutex::new(0u32));
        let spawn = |_| {
            let count = count.clone();
            sync::spawn("floor", move || (0..times).for_each(|_| *count.lock() += 1))
        };
        (0..3).map(spawn).collect::<Vec<_>>().into_iter().for_each(sync::JoinHandle::join);
    })
}
