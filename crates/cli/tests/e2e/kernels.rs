//! Older kernels, as far as a newer one can play them: what came with Linux 6.7 and 6.11 is refused, and pages are copied.

use crate::clients::{Client, compile, userfaultfd};
use std::path::Path;
use std::process::Command;

/// The command, with something refused.
fn without(what: &str, dir: &Path) -> Command {
    let refuse = dir.join("refuse");
    compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/refuse.c"), &refuse);
    let mut command = Command::new("timeout");
    command.arg("300").arg(&refuse).args([what, env!("CARGO_BIN_EXE_pontoon")]);
    command
}

#[test]
fn without_queries_and_moves_the_tour_client_passes() {
    if !userfaultfd() {
        return;
    }
    let tour = Client::new("tour");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let report = dir.path().join("report.json");
    let mut command = without("queries", dir.path());
    command.args(["run", "--no-move", "--report"]);
    let output = command.arg(&report).arg("--").arg(tour.program()).output().expect("timeout starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("TOUR ok"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report = std::fs::read_to_string(&report).expect("a report");
    assert!(report.contains("pages are copied, look-ups read /proc/self/maps"), "{report}");
}

/// Copying can lose a write, so nobody chooses it but the user.
#[test]
fn a_kernel_that_cannot_move_is_refused_and_the_remedy_is_said() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = without("features", dir.path()).arg("doctor").output().expect("timeout starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("UFFDIO_MOVE refused (errno 22)"), "{text}");
    assert!(text.contains("\n  pontoon run --no-move -- PROGRAM") && !text.contains("sysctl"), "{text}");
}
