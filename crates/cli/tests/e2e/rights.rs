//! Users with fewer rights: the tour runs and says in one line what is limited, or says what to type.
//!
//! Needs root, to become nobody; as another user these tests are skipped (the others then run with few rights).

use crate::clients::{Client, compile, skipped, userfaultfd};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
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

    /// A folder of another user's.
    fn of_nobody(&self, name: &str, mode: u32) -> PathBuf {
        let folder = self.at(name);
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, Permissions::from_mode(mode)).expect("permissions");
        lchown(&folder, Some(NOBODY), Some(NOBODY)).expect("root can");
        folder
    }

    fn as_nobody(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.arg("300").arg(self.at(program)).args(arguments).current_dir("/").uid(NOBODY).gid(NOBODY);
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
        assert!(text.contains("seccomp=unconfined"), "the filter is the reason: {arguments:?}: {text}");
    }
}

/// The dynamic linker loads nothing into a program that runs with other rights than its user's.
#[test]
fn a_program_with_rights_of_its_own_sees_no_device_and_it_is_said_why() {
    let Some(place) = Place::new() else { return };
    for (name, why) in [("setuid", "(setuid)"), ("setcap", "(setcap)"), ("plain", "")] {
        let program = place.at(name);
        fs::copy("/bin/true", &program).expect("a program");
        match name {
            "setuid" => fs::set_permissions(&program, Permissions::from_mode(0o4755)).expect("permissions"),
            // Version 2, in force from the start: CAP_NET_BIND_SERVICE.
            "setcap" => {
                let words = [0x0200_0001u32, 1 << 10, 0, 0, 0].map(u32::to_le_bytes).concat();
                let flags = rustix::fs::XattrFlags::empty();
                if let Err(error) = rustix::fs::setxattr(&program, "security.capability", &words, flags) {
                    return skipped(&format!("no capabilities of files: {error}"));
                }
            }
            _ => {}
        }
        let said = text(&place.as_nobody("pontoon", &["run", "--", program.to_str().expect("text")]));
        assert_eq!(said.contains("sees no device"), !why.is_empty(), "{name}: {said}");
        assert!(said.contains(why), "{name}: {said}");
    }
}

/// What the first line says of system calls, and what they do.
#[test]
fn who_may_not_answer_the_kernels_faults_writes_less_and_is_told_so() {
    let Some(place) = Place::new() else { return };
    compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/whole.c"), &place.at("whole"));
    let whole = place.at("whole").display().to_string();
    let root = Command::new(place.at("pontoon")).args(["run", "--", &whole]).output().expect("it starts");
    assert_eq!(text(&root), "wrote 4194304\n");
    let nobody = place.as_nobody("pontoon", &["run", "--", &whole]);
    let (out, said) = (String::from_utf8_lossy(&nobody.stdout), String::from_utf8_lossy(&nobody.stderr));
    if !said.is_empty() {
        assert!(said.starts_with("pontoon: limited: ") && said.contains("EFAULT, or write less"), "{said}");
        assert!(!said.contains('\n') || said.lines().count() == 1, "one line: {said}");
        assert_eq!(out, "wrote 2097152\n", "what lies before the first page in VRAM: {said}");
    } else {
        assert_eq!(out, "wrote 4194304\n");
    }
}

/// A filter of system calls refuses others than userfaultfd: what is not needed is done without, and what is, is named.
#[test]
fn a_filter_of_other_calls_is_named_where_it_matters() {
    if !userfaultfd() {
        return;
    }
    let (refuse, whole) = (Client::here("refuse"), Client::here("whole"));
    let run = |call: &str| {
        let mut command = Command::new(refuse.program());
        command.args([call, env!("CARGO_BIN_EXE_pontoon"), "run", "--"]).arg(whole.program());
        let output = command.output().expect("it starts");
        (output.status.code(), text(&output))
    };
    let (code, said) = run("mincore");
    assert!(code == Some(0) && said.starts_with("wrote "), "{said}");
    let (code, said) = run("memfd_create");
    assert!(code == Some(2) && said.contains("memfd_create is refused"), "{said}");
    assert!(said.contains("seccomp=unconfined") && !said.contains("sysctl"), "the right advice: {said}");
}

/// Folders as another user may plant them where the library's own will be, with a link to a file of root's in them.
fn plant(folder: &Path, target: &Path) {
    let next = std::process::id();
    let names = (next..next + 2000).map(|pid| format!("view.{pid}")).chain(["view".to_string()]);
    for name in names {
        fs::create_dir_all(folder.join(&name).join("dev/dri")).expect("folders");
        for node in ["card0", "renderD128"] {
            symlink(target, folder.join(&name).join("dev/dri").join(node)).expect("a link");
        }
        for part in ["", "dev", "dev/dri"] {
            let part = folder.join(&name).join(part);
            fs::set_permissions(&part, Permissions::from_mode(0o777)).expect("permissions");
            lchown(part, Some(NOBODY), Some(NOBODY)).expect("root can");
        }
    }
}

#[test]
fn what_another_user_planted_is_neither_used_nor_written_to() {
    let Some(place) = Place::new() else { return };
    let target = place.at("target");
    for (name, mode, without) in [("shared", 0o1777, "view"), ("theirs", 0o755, ""), ("open", 0o777, "")] {
        fs::write(&target, "root's").expect("a file");
        fs::set_permissions(&target, Permissions::from_mode(0o600)).expect("permissions");
        let folder = place.of_nobody(name, mode);
        if name == "shared" {
            lchown(&folder, Some(0), Some(0)).expect("root can");
        }
        plant(&folder, &target);
        if !without.is_empty() {
            // The tree's final name is free: one is made, beside all those that are planted.
            fs::remove_dir_all(folder.join(without)).expect("a folder");
        }
        let mut command = Command::new("timeout");
        command
            .args(["300", "sh", "-c", "dd if=/dev/dri/card0 iflag=nonblock bs=6 count=1 2>&1; ls -l /dev/dri"])
            .env("PONTOON_ROOT", &folder);
        let output = command.env("LD_PRELOAD", place.at("libpontoon_shim.so")).output().expect("timeout starts");
        let text = text(&output);
        assert!(text.contains("crw-rw-rw-") && !text.contains("root's"), "{name}: {text}");
        assert_eq!(fs::read_to_string(&target).expect("a file"), "root's", "{name}");
        assert_eq!(fs::metadata(&target).expect("a file").mode() & 0o7777, 0o600, "{name}");
    }
}

#[test]
fn a_run_keeps_nothing_in_a_folder_of_another_user() {
    let Some(place) = Place::new() else { return };
    let theirs = place.of_nobody("theirs", 0o755);
    let mut command = Command::new("timeout");
    command.arg("300").arg(place.at("pontoon")).args([
        "run",
        "--",
        "sh",
        "-c",
        "ls -l /dev/dri; echo at $PONTOON_ROOT",
    ]);
    let output = command.env("TMPDIR", &theirs).output().expect("timeout starts");
    let text = text(&output);
    assert!(text.contains("crw-rw-rw-") && !text.contains(&format!("at {}", theirs.display())), "{text}");
}

#[test]
fn a_program_that_gave_up_its_rights_opens_the_device() {
    let Some(place) = Place::new() else { return };
    compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/drops.c"), &place.at("drops"));
    for arguments in [&["run", "--"][..], &["run", "--no-move", "--"]] {
        let mut command = Command::new("timeout");
        command.arg("300").arg(place.at("pontoon")).args(arguments).arg(place.at("drops"));
        let output = command.output().expect("timeout starts");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
}

#[test]
fn a_program_that_gave_up_its_rights_leaves_a_report() {
    let Some(place) = Place::new() else { return };
    compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/drops.c"), &place.at("drops"));
    let report = place.at("report.json");
    let mut command = Command::new("timeout");
    command.arg("300").arg(place.at("pontoon")).args(["run", "--report"]).arg(&report).arg("--").arg(place.at("drops"));
    let output = command.arg("late").output().expect("timeout starts");
    assert!(output.status.success(), "{}", text(&output));
    let report = fs::read_to_string(report).expect("a report");
    assert!(report.contains("\"gpu_fault_count\":"), "{report:?}{}", text(&output));
}
