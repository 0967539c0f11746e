//! The last thread of a process; alone in its process, because it says that it is.

use std::process::{Command, exit};
use sync::Mutex;

#[test]
fn who_would_wait_for_the_dead_leaves() {
    const CHILD: &str = "PONTOON_TEST_ALONE";
    if std::env::var_os(CHILD).is_some() {
        let lock = Mutex::new(());
        sync::alone(|| exit(3));
        drop(lock.lock());
        std::mem::forget(lock.lock());
        drop(lock.lock());
        exit(4);
    }
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    let status = child.args(["--exact", "who_would_wait_for_the_dead_leaves"]).env(CHILD, "1").status();
    assert_eq!(status.expect("a child").code(), Some(3));
}
