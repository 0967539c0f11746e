//! The command itself: what is linked into it, and how it refuses nonsense.

use crate::clients::{pontoon, userfaultfd};
use std::process::Command;

/// The command depends on the preload library only so that both are built at once. Were it linked in, its `open` and
/// `ioctl` would answer the command's own calls.
#[test]
fn no_interposer_is_linked_into_the_command() {
    let nm = Command::new("nm").args(["--defined-only", env!("CARGO_BIN_EXE_pontoon")]).output();
    let symbols = String::from_utf8(nm.expect("nm, which comes with the C compiler").stdout).expect("names");
    let defined = |name: &str| symbols.lines().any(|line| line.split_whitespace().next_back() == Some(name));
    assert!(defined("main"), "the list is one");
    for interposed in ["open", "open64", "openat", "ioctl", "close", "mmap", "mmap64", "fork", "sigaction"] {
        assert!(!defined(interposed), "{interposed}");
    }
}

#[test]
fn nonsense_is_refused_with_cause_and_remedy() {
    let cases: [(&[&str], &str); 13] = [
        (&["run", "--behaviour", "a=nonsense", "--", "true"], "a=upstream"),
        (&["run", "--report", "/", "--", "true"], "cannot write the report /"),
        (&["run", "--report", "/dev/null", "--", "true"], "it is no regular file"),
        (&["run", "--trace", "/dev/null/t", "--", "sh", "-c", "echo it ran >&2; exit 7"], "cannot write the trace"),
        (&["run", "--trace", "/dev/null", "--", "true"], "it is no regular file"),
        (&["check", "--seeds", "5..1"], "has no seed in it"),
        (&["check", "--behaviour", "b"], "unknown behaviour 'b'"),
        (&["check", "nowhere"], "there is no scene 'nowhere'"),
        (&["check", "/nonexistent.scene"], "cannot be read"),
        (&["explain", "D"], "there is no scene 'D'"),
        (&["judge", "Z"], "there are A, B, C and all"),
        (&["replay", "/dev/null"], "behind which the scene follows"),
        (&["run"], "PROGRAM"),
    ];
    for (arguments, expected) in cases {
        let output = pontoon().args(arguments).output().expect("the command starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(expected) && !errors.contains("it ran"), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_file_is_not_taken_for_a_scene_of_its_name() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("c-1"), [0xff]).expect("a file");
    for (scene, code) in [("c-1", 0), ("./c-1", 2)] {
        let output = pontoon().current_dir(&dir).args(["check", scene, "--seeds", "0"]).output().expect("it starts");
        assert_eq!(output.status.code(), Some(code), "{scene}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_programs_exit_code_is_ours() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15)] {
        let output = pontoon().args(["run", "--", "sh", "-c", script]).output().expect("the command starts");
        assert_eq!(output.status.code(), Some(code), "{script}");
    }
}

#[test]
fn what_cannot_be_started_is_said_as_launchers_say_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [report, script] = ["report", "script"].map(|name| dir.path().join(name));
    std::fs::write(&report, "of an earlier run").expect("a file");
    std::fs::write(&script, "no program").expect("a file");
    let script = script.to_str().expect("text");
    for (program, code) in [("/nonexistent/program", 127), ("no-such-program", 127), ("/", 126), (script, 126)] {
        let mut command = pontoon();
        let output = command.args(["run", "--report"]).arg(&report).args(["--", program]).output().expect("starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{program}: {errors}");
        assert!(errors.contains(&format!("cannot start {program}")), "{program}: {errors}");
        assert_eq!(std::fs::read_to_string(&report).expect("a file"), "of an earlier run", "{program}");
    }
}

#[test]
fn a_report_follows_no_link_and_its_name_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [target, link] = ["target", "link"].map(|name| dir.path().join(name));
    std::fs::write(&target, "precious").expect("a file");
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    let output = pontoon().args(["run", "--report"]).arg(&link).args(["--", "true"]).output().expect("starts");
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(&target).expect("a file"), "precious");

    let strange = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    std::fs::create_dir(&strange).expect("a folder");
    let report = strange.join(std::ffi::OsStr::from_bytes(b"report\xff"));
    let mut command = pontoon();
    command.env("TMPDIR", &strange).args(["run", "--hostile", "--report"]).arg(&report);
    let output = command.args(["--", "ls", "/dev/dri"]).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "by-path\ncard0\nrenderD128\n");
    let report = std::fs::read_to_string(&report).expect("a report");
    assert!(report.is_empty() != userfaultfd(), "{report:?}");
}

#[test]
fn a_report_that_cannot_be_written_is_said_once_and_no_success() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("report.json");
    for code in [0, 3] {
        let program = format!("exec 3< /dev/dri/card0; ulimit -f 0; exit {code}");
        let mut command = pontoon();
        let output = command
            .args(["run", "--report"])
            .arg(&file)
            .args(["--", "sh", "-c", &program])
            .output()
            .expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if code == 0 { 2 } else { code }), "{errors}");
        assert_eq!(errors.matches("cannot write the report").count(), 1, "{errors}");
        assert!(!errors.contains("books"), "{errors}");
    }
}

#[test]
fn a_full_disk_is_said_and_no_panic() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device of every Linux");
    let output = pontoon().arg("behaviours").stdout(full).output().expect("the command starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), errors.contains("cannot be written")), (Some(2), true), "{errors}");
}

/// A defect is told, kept in a file and made again; a scene of one's own is checked, and its mistakes have line and column.
#[test]
fn a_finding_is_told_and_replayed_and_a_scene_is_read_from_a_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [run, scene] = ["c.run", "own.scene"].map(|name| dir.path().join(name));
    let code_and_text = |arguments: &[&std::ffi::OsStr]| {
        let output = pontoon().args(arguments).output().expect("the command starts");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = code_and_text(&["explain".as_ref(), "C".as_ref(), "--save".as_ref(), run.as_ref()]);
    assert!(code == Some(1) && text.contains("an array of 6 fences has 3 filled"), "{text}");
    let (code, text) = code_and_text(&["replay".as_ref(), run.as_ref()]);
    assert!(code == Some(1) && text.contains("VM_BIND without work: EFAULT"), "{text}");

    std::fs::write(&scene, "memory b 64K\nfirst\n  tile0 write b\n  tile1 read b\n").expect("a file");
    let check = ["check".as_ref(), scene.as_ref(), "--seeds".as_ref(), "0..5".as_ref()];
    let (code, text) = code_and_text(&check);
    assert!(code == Some(0) && text.contains("nothing found"), "{text}");
    std::fs::write(&scene, "memory b 64K\nfirst\n  rest\n  tile0 read b fails\n").expect("a file");
    let (code, text) = code_and_text(&check);
    let first = text.lines().next().unwrap_or_default();
    assert!(code == Some(1) && first.ends_with(" runs, in line 4: tile0 read b fails"), "{text}");
    std::fs::write(&scene, "memory b 64K\nfirst\n  tile0 wriet b\n").expect("a file");
    let (code, text) = code_and_text(&check);
    assert!(code == Some(2) && text.contains(":3:9: expected read, write or add"), "{text}");
    std::fs::write(&scene, "memory b 64K\nfirst\n  close vm\n  tile0 read b\n").expect("a file");
    let (code, text) = code_and_text(&check);
    assert!(code == Some(2) && text.contains("own.scene:4:3: VM vm is not open here"), "{text}");
    let (code, text) = code_and_text(&["explain".as_ref(), scene.as_ref()]);
    assert!(code == Some(2) && text.contains("own.scene:4:3: VM vm is not open here"), "{text}");
}
