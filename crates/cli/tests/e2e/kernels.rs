//! Older kernels, as far as a newer one can play them: what came with Linux 6.7 and 6.11 is refused, and pages are copied.

use crate::clients::{Client, compile, userfaultfd};
use std::path::Path;
use std::process::Command;

#[test]
fn without_queries_and_moves_the_tour_client_passes() {
    if !userfaultfd() {
        return;
    }
    let tour = Client::new("tour");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let refuse = dir.path().join("refuse");
    compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/refuse.c"), &refuse);
    let report = dir.path().join("report.json");
    let mut command = Command::new("timeout");
    command.arg("60").arg(&refuse).args(["queries", env!("CARGO_BIN_EXE_pontoon"), "run", "--no-move", "--report"]);
    let output = command.arg(&report).arg("--").arg(tour.program()).output().expect("timeout starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("TOUR ok"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report = std::fs::read_to_string(&report).expect("a report");
    assert!(report.contains("pages are copied, look-ups read /proc/self/maps"), "{report}");
}
