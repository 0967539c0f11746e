//! Users with fewer rights: the tour runs and says in one line what is limited, or says what to type.
//!
//! Needs root, to become nobody; as another user these tests are skipped (the others then run with few rights).

use crate::clients::{compile, skipped, userfaultfd};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const NOBODY: u32 = 65534;

/// A place that nobody can enter, with the command and its library in it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Option<Self> {
        if fs::metadata("/proc/self").map(|me| me.uid()).unwrap_or(NOBODY) != 0 {
            assert!(std::env::var_os("PONTOON_CI").is_none(), "CI must not skip: not root");
            skipped("only root can become nobody");
            return None;
        }
        if !userfaultfd() {
            return None;
        }
        let place = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        fs::set_permissions(place.dir.path(), Permissions::from_mode(0o755)).expect("permissions");
        let command = Path::new(env!("CARGO_BIN_EXE_pontoon"));
        let library = "libpontoon_shim.so";
        fs::copy(command, place.at("pontoon")).expect("the command");
        let built = command.parent().expect("a folder").join("deps").join(library);
        fs::copy(built, place.at(library)).expect("the library");
        Some(place)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn as_nobody(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.arg("60").arg(self.at(program)).args(arguments).current_dir("/").uid(NOBODY).gid(NOBODY);
        command.output().expect("timeout starts")
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn nobody_gets_the_tour_and_one_line_of_limits() {
    let Some(place) = Place::new() else { return };
    let output = place.as_nobody("pontoon", &["tour"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let unlimited = fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").is_ok_and(|on| on.trim() == "1");
    assert!(unlimited || text.contains("limited: system calls that meet a page in VRAM fail with EFAULT"), "{text}");
}

#[test]
fn who_is_refused_is_told_what_to_type() {
    let Some(place) = Place::new() else { return };
    compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/refuse.c"), &place.at("refuse"));
    let pontoon = place.at("pontoon").display().to_string();
    for arguments in [&["tour"][..], &["doctor"], &["bench"]] {
        let output = place.as_nobody("refuse", &[&["userfaultfd", pontoon.as_str()], arguments].concat());
        let text = text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains("sudo sysctl vm.unprivileged_userfaultfd=1"), "{arguments:?}: {text}");
    }
}
