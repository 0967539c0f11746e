//! Programs under the preload library: what they see of the device, and that all else is as without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The library, beside this test's executable.
fn library() -> PathBuf {
    let executable = std::env::current_exe().expect("a path");
    let library = executable.with_file_name("libpontoon_shim.so");
    assert!(library.exists(), "{} was not built", library.display());
    library
}

/// A directory of this test's own, for what it compiles and for the tree.
fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

fn compile(source: &str, out: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let status =
        Command::new("cc").args(["-O1", "-pthread", "-Wall", "-Wextra", "-Werror", "-o"]).arg(out).arg(source).status();
    assert!(status.expect("a C compiler").success());
}

/// The program under the library, with its places for files inside `dir`.
fn preloaded(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg("300").arg(program).env("LD_PRELOAD", library()).env("XDG_RUNTIME_DIR", dir);
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_c_program_sees_the_device() {
    let dir = scratch("probe");
    let program = dir.join("probe.bin");
    compile("tests/probe.c", &program);
    let output = preloaded(&program, &dir).output().expect("runs");
    let text = text(&output);
    assert!(output.status.success() && !text.contains("BAD"), "{text}");
    assert!(text.ends_with("ok the program's SIGSEGV handler runs\n"), "{text}");
    assert_eq!(left_after_the_end(&dir), ["probe.bin"], "the tree is removed at the end");
}

/// A thread that ends inside the heap of the library, or of libc, never gives its lock back; and others make files until they end.
#[test]
fn the_tree_is_removed_whatever_threads_end_in() {
    let dir = scratch("ends");
    let program = dir.join("ends.bin");
    compile("tests/ends.c", &program);
    for _ in 0..60 {
        let output = preloaded(&program, &dir).output().expect("runs");
        assert_eq!(text(&output), "ok\n");
    }
    assert_eq!(left_after_the_end(&dir), ["ends.bin"]);
}

/// What is in a folder besides the trees of programs that have ended: on a disk another process removes them, which takes its time.
fn left_after_the_end(dir: &Path) -> Vec<String> {
    let left = || {
        let names = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("an entry").file_name());
        names.map(|name| name.into_string().expect("ours")).collect::<Vec<_>>()
    };
    for _ in 0..2000 {
        if left().len() <= 1 {
            break;
        }
        sync::time::sleep_ns(20_000_000);
    }
    left()
}

#[test]
fn the_tree_is_shared_where_it_is_given_a_place() {
    let dir = scratch("root");
    let root = dir.join("root");
    fs::create_dir(&root).expect("a directory");
    for _ in 0..2 {
        let output = preloaded(Path::new("cat"), &dir)
            .arg("/sys/kernel/debug/dri/0/name")
            .env("PONTOON_ROOT", &root)
            .output()
            .expect("runs");
        assert_eq!(text(&output), "xe dev=0000:4d:00.0 unique=0000:4d:00.0\n");
    }
    assert!(root.join("view/dev/dri/renderD128").exists());
}

#[test]
fn coreutils_list_the_nodes() {
    let dir = scratch("ls");
    let output = preloaded(Path::new("ls"), &dir).args(["-la", "/dev/dri"]).output().expect("runs");
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let of = |name: &str| text.lines().find(|line| line.ends_with(name)).unwrap_or("");
    assert!(of("renderD128").starts_with("crw-rw-rw-") && of("renderD128").contains("226, 128"), "{text}");
    assert!(of("card0").contains("226,   0") && of("..").starts_with('d') && !text.contains('?'), "{text}");
}

/// What a directory lists, without and with the library.
fn listings(path: &str, scratch: &Path) -> [Vec<String>; 2] {
    let names = |output: std::process::Output| text(&output).lines().map(String::from).collect();
    let real = Command::new("ls").args(["-1", path]).output().expect("runs");
    [names(real), names(preloaded(Path::new("ls"), scratch).args(["-1", path]).output().expect("runs"))]
}

#[test]
fn listings_have_the_device_and_what_is_real() {
    let dir = scratch("listings");
    let cases: [(&str, &[&str]); 3] = [
        ("/sys/class", &["drm"]),
        ("/sys/bus/pci/devices", &["0000:4c:01.0", "0000:4d:00.0"]),
        ("/sys/bus/pci/drivers", &["xe"]),
    ];
    for (path, ours) in cases {
        let [mut real, shown] = listings(path, &dir);
        real.extend(ours.iter().map(ToString::to_string));
        real.sort();
        real.dedup();
        let mut shown = shown;
        shown.sort();
        assert_eq!(shown, real, "{path}");
    }
    // What is real is found by its own path, by a path from the listing, and with its own contents.
    let script = "cd /sys/class && for f in */; do test -d $f || echo $f is no directory; done; \
                  for d in /sys/bus/pci/devices/*; do test -r $d/vendor || echo $d has no vendor; done; \
                  for f in max_link_width max_link_speed class; do cat $(realpath /sys/class/drm/renderD128/device)/../$f; done; \
                  cat /sys/class/drm/card0/device/tile1/gt1/freq0/rp0_freq /sys/bus/pci/devices/0000:4d:00.0/device; \
                  realpath /dev/dri/by-path/pci-0000:4d:00.0-render; stat -L -c %F /dev/dri/by-path/*-card";
    let output = preloaded(Path::new("sh"), &dir).args(["-c", script]).output().expect("runs");
    let expected = "16\n32.0 GT/s PCIe\n0x060400\n1600\n0x0bd5\n/dev/dri/renderD128\ncharacter special file\n";
    assert_eq!(text(&output), expected);
}

#[test]
fn python_opens_the_device() {
    let dir = scratch("python");
    let script = "import os, stat, subprocess\n\
        fd = os.open('/dev/dri/renderD128', os.O_RDWR)\n\
        assert os.readlink('/proc/self/fd/%d' % fd) == '/dev/dri/renderD128'\n\
        assert stat.S_ISCHR(os.fstat(fd).st_mode)\n\
        assert os.listdir('/dev/dri').sort() == None\n\
        out = subprocess.run(['echo', 'hello'], capture_output=True).stdout\n\
        assert os.readlink('/proc/self/fd/%d' % fd) == '/dev/dri/renderD128', 'a spawn closed it'\n\
        print(out.decode(), end='')\n";
    let Ok(output) = preloaded(Path::new("python3"), &dir).args(["-c", script]).output() else { return };
    if output.status.code() == Some(127) {
        return; // no Python on this machine
    }
    assert_eq!(text(&output), "hello\n");
}

#[test]
fn other_programs_do_not_notice() {
    let dir = scratch("quiet");
    let script = "set -e; cd /; for f in /etc/passwd /proc/self/comm; do cat $f; done; ls /usr | sort; \
                  (echo a; echo b) | tac; realpath /proc/../usr/bin/env; stat -c %n%F /dev/null; exec 7</dev/null; \
                  readlink /proc/$$/fd/7; exit 5";
    let run = |library: Option<PathBuf>| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("XDG_RUNTIME_DIR", &dir);
        if let Some(library) = library {
            command.env("LD_PRELOAD", library);
        }
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(5), "{}", text(&output));
        text(&output)
    };
    assert_eq!(run(Some(library())), run(None));
    assert_eq!(fs::read_dir(&dir).expect("readable").count(), 0, "no tree is made for those who do not look");
}

#[test]
fn the_library_exports_the_interposers_and_nothing_else() {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(library()).output().expect("nm");
    let text = text(&output);
    let exported: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    for name in "open open64 openat openat64 __open_2 __open64_2 __openat_2 __openat64_2 fopen fopen64 close close_range \
                 dup dup2 dup3 fcntl fcntl64 ioctl mmap mmap64 mprotect mremap mlock stat stat64 lstat64 fstat64 fstatat64 \
                 statx __xstat64 __fxstat64 access faccessat readlink readlinkat realpath __realpath_chk opendir scandir64 \
                 sigaction signal _exit syscall process_madvise"
        .split_whitespace()
    {
        assert!(exported.contains(&name), "{name} is not exported");
    }
    let stray: Vec<_> = exported.iter().filter(|name| name.contains("rust") || name.contains("pontoon")).collect();
    assert!(stray.is_empty(), "{stray:?}");
}

/// The report that a process left, one line of JSON a process.
fn reports(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).expect("a report");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Where the kernel refuses userfaultfd to this user there is nothing to run on.
fn is_refused(output: &Output) -> bool {
    let refused = text(output).contains("memory cannot be moved");
    if refused {
        eprintln!("skipped: {}", text(output));
    }
    refused
}

#[test]
fn malloced_memory_travels_from_tile_to_tile() {
    let dir = scratch("tour");
    let (program, report) = (dir.join("tour.bin"), dir.join("report"));
    compile("../../clients/tour.c", &program);
    let output = preloaded(&program, &dir).env("PONTOON_REPORT", &report).output().expect("runs");
    if is_refused(&output) {
        return;
    }
    let text = text(&output);
    assert!(output.status.success() && !text.contains("BAD") && text.ends_with("TOUR ok\n"), "{text}");
    let migrations = &reports(&report)[0]["migrations"];
    for way in ["SYSTEM->VRAM0", "SYSTEM->VRAM1", "VRAM0->VRAM1", "VRAM1->VRAM0", "VRAM1->SYSTEM", "VRAM0->SYSTEM"] {
        assert!(migrations[way].as_u64() >= Some(2), "{way}: {migrations}");
    }
}

#[test]
fn upstreams_copy_between_tiles_is_seen_by_the_tour() {
    let dir = scratch("tour-upstream");
    let program = dir.join("tour.bin");
    compile("../../clients/tour.c", &program);
    let output = preloaded(&program, &dir).env("PONTOON_BEHAVIOUR", "a=upstream").output().expect("runs");
    if is_refused(&output) {
        return;
    }
    let text = text(&output);
    assert!(text.contains("64K.after-tile1 ok"), "by way of system memory all is well: {text}");
    assert!(text.contains("64K.system-vram0-vram1-cpu BAD") && text.ends_with("TOUR BAD\n"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_unknown_behaviour_is_said_and_the_program_lives() {
    let dir = scratch("unknown");
    let script = "cat /dev/dri/card0 2>/dev/null || echo refused";
    let output = preloaded(Path::new("sh"), &dir)
        .args(["-c", script])
        .env("PONTOON_BEHAVIOUR", "a=nothing")
        .output()
        .expect("runs");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("refused\n"), "{}", text(&output));
}

/// A program that no GPU is asked for, with the machine idle or moving its memory about, prints what it always prints.
fn loop_prints_its_line(name: &str, hostile: &str) {
    let dir = scratch(name);
    let (program, report) = (dir.join("loop.bin"), dir.join("report"));
    compile("../../clients/loop.c", &program);
    let plain = Command::new(&program).output().expect("runs");
    // The library in the program only, not in `timeout`.
    let output = Command::new("timeout")
        .args(["-k", "1", "120", "env"])
        .arg(format!("LD_PRELOAD={}", library().display()))
        .arg(format!("PONTOON_HOSTILE={hostile}"))
        .arg(format!("PONTOON_REPORT={}", report.display()))
        .arg(&program)
        .output()
        .expect("runs");
    if is_refused(&output) {
        return;
    }
    assert_eq!(text(&output), text(&plain));
    assert!(output.status.success());
    if hostile == "1" {
        let moved = &reports(&report)[0]["migrated_pages"]["SYSTEM->VRAM0"];
        assert!(moved.as_u64() > Some(1000), "memory moved: {moved}");
    }
}

#[test]
fn a_program_without_a_gpu_runs_as_ever() {
    loop_prints_its_line("loop", "0");
}

#[test]
fn a_program_whose_memory_is_moved_about_runs_as_ever() {
    loop_prints_its_line("loop-hostile", "1");
}
