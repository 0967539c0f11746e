//! What a first-time user meets: programs that cannot see the device, checkers that run the program their own way, what is said
//! and how often, and what a run leaves behind.

use crate::clients::{Client, pontoon, skipped, userfaultfd};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients").join(name)
}

/// `clients/NAME.c`, compiled with an option more.
fn with(option: &str, name: &str, dir: &Path) -> PathBuf {
    let program = dir.join("client");
    let mut compiler = Command::new("cc");
    compiler.args(["-g", option, "-pthread", "-o"]).arg(&program).arg(source(name)).arg("-I").arg(source(""));
    assert!(compiler.status().expect("a C compiler").success(), "{option}");
    program
}

fn texts(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_program_that_cannot_see_the_device_runs_and_it_is_said_why() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let program = with("-static", "tour.c", dir.path());
    let run = |options: &[&str]| {
        let mut command = pontoon();
        texts(&command.arg("run").args(options).arg("--").arg(&program).output().expect("the command starts")).1
    };
    let said = run(&[]);
    assert!(said.contains("sees no device: it is statically linked"), "{said}");
    assert!(!said.contains("no process of this run"), "once is enough: {said}");
    assert!(!run(&["--quiet"]).contains("sees no device"));

    let report = dir.path().join("report");
    let mut command = pontoon();
    let output = command.args(["run", "--report"]).arg(&report).args(["--", "env", "-i", "true"]).output();
    let (_, said) = texts(&output.expect("the command starts"));
    assert!(said.contains("no process of this run opened the device: the report is empty"), "{said}");
}

#[test]
fn programs_with_a_sanitizer_use_the_device() {
    if !userfaultfd() {
        return;
    }
    for sanitizer in ["-fsanitize=address", "-fsanitize=thread"] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let program = with(sanitizer, "tour.c", dir.path());
        for way in [&[][..], &["--hostile"]] {
            let mut command = pontoon();
            let output = command.arg("run").args(way).arg("--").arg(&program).args(["-t", "01"]).output();
            let output = output.expect("the command starts");
            let (out, err) = texts(&output);
            assert_eq!(output.status.code(), Some(0), "{sanitizer} {way:?}: {out}{err}");
            assert!(out.contains("TOUR ok") && err.is_empty(), "{sanitizer} {way:?}: {out}{err}");
        }
    }
}

#[test]
fn valgrind_is_refused_with_a_sentence() {
    let client = Client::new("tour");
    for way in ["--quiet", "--hostile"] {
        let mut command = pontoon();
        // What valgrind puts there; the dynamic linker says that this one is not.
        command.env("LD_PRELOAD", "/nonexistent/vgpreload_core-amd64-linux.so");
        let output = command.args(["run", way, "--"]).arg(client.program()).output().expect("the command starts");
        let (_, said) = texts(&output);
        assert!(said.contains("no device under valgrind"), "{way}: {said}");
        assert!(!output.status.success(), "{way}: {said}");
    }
}

/// By valgrind itself, where it is installed: its own exit status comes through, and the client hears that there is no device.
#[test]
fn a_client_under_valgrind_is_refused_the_device_and_lives() {
    let Ok(version) = Command::new("valgrind").arg("--version").output() else {
        return skipped("valgrind is not installed");
    };
    assert!(version.status.success(), "{version:?}");
    let client = Client::new("tour");
    for way in [&[][..], &["--hostile"]] {
        let run = |program: &std::ffi::OsStr| {
            let mut command = pontoon();
            let output = command.arg("run").args(way).args(["--", "valgrind", "-q"]).arg(program).output();
            let output = output.expect("the command starts");
            (output.status.code(), texts(&output).1)
        };
        let (code, said) = run(client.program().as_os_str());
        assert_eq!(code, Some(2), "{way:?}: {said}");
        assert!(said.contains("no device under valgrind") && said.contains("No such device"), "{way:?}: {said}");
        assert_eq!(run("false".as_ref()).0, Some(1), "{way:?}");
        let nothing = if way.is_empty() { 0 } else { 125 };
        assert_eq!(run("true".as_ref()).0, Some(nothing), "{way:?}");
    }
}

/// Without the command, and where a folder of this process' own lies on a disk: another process removes it.
#[test]
fn a_program_with_the_library_alone_leaves_no_folder() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("tour");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let library = Path::new(env!("CARGO_BIN_EXE_pontoon")).with_file_name("deps/libpontoon_shim.so");
    let mut command = Command::new(client.program());
    command.env("LD_PRELOAD", library).env("XDG_RUNTIME_DIR", dir.path()).env("PONTOON_QUIET", "1");
    let output = command.output().expect("it starts");
    let (out, said) = texts(&output);
    assert!(out.contains("TOUR ok") && said.is_empty(), "{out}{said}");
    let script = "while test -n \"$(ls -A $0)\"; do sleep 0.02; done";
    let gone = Command::new("timeout").args(["40", "sh", "-c", script]).arg(dir.path()).status();
    assert!(gone.expect("timeout starts").success(), "{:?} is left", dir.path().read_dir().expect("a folder").next());
}

/// On a disk the tree has only what somebody looked at, and whoever looks finds all of it.
#[test]
fn a_tree_on_a_disk_has_what_is_looked_at() {
    if !userfaultfd() {
        return;
    }
    let library = Path::new(env!("CARGO_BIN_EXE_pontoon")).with_file_name("deps/libpontoon_shim.so");
    let on_a_disk = |script: &str| {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("LD_PRELOAD", &library).env("PONTOON_ROOT", dir.path());
        let said = texts(&command.output().expect("it starts"));
        let made = Command::new("find").arg(dir.path().join("view")).output().expect("find starts");
        (said, texts(&made).0)
    };
    let (said, made) = on_a_disk("exec 3<> /dev/dri/renderD128 && test -c /dev/fd/3 && echo open");
    assert_eq!(said, ("open\n".into(), String::new()));
    let kind = Command::new("stat").args(["-f", "-c", "%T", env!("CARGO_TARGET_TMPDIR")]).output().expect("stat");
    if texts(&kind).0 == "tmpfs\n" {
        skipped("the target folder is in memory");
    } else {
        assert_eq!(made.lines().count(), 6, "view, dev, dri, by-path and the nodes: {made}");
    }
    let list = "find /dev/dri /dev/char/226:* /sys/dev/char/226:0/ /sys/class /sys/bus/pci/devices \
                /sys/bus/pci/drivers/xe /sys/devices/pci0000:4c /sys/kernel/debug/dri -printf '%p %y %m %l\\n' | sort; \
                cd /sys/class/drm/card0/device && cd tile1 && cat gt1/freq0/max_freq ../vendor && ls -d ../*/*/engines/* && \
                cat /sys/dev/char/226:128/device/uevent /sys/kernel/debug/dri/128/info && echo 7 > gt1/engines/ccs/job_timeout_ms && \
                cat gt1/engines/ccs/job_timeout_ms; echo 0 > gt1/engines/ccs/job_timeout_ms";
    let output = pontoon().args(["run", "-q", "--", "sh", "-c", list]).output().expect("the command starts");
    let (in_memory, (on_a_disk, _)) = (texts(&output), on_a_disk(list));
    assert!(in_memory.0.contains("/tile1/gt1/engines/ccs/.defaults") && in_memory.0.contains("\n7\n"), "{in_memory:?}");
    assert_eq!(on_a_disk, in_memory);
}

#[test]
fn hostility_that_moves_nothing_is_no_success() {
    let mut command = pontoon();
    // Statically linked, or as here: there is no machine.
    command.env("LD_PRELOAD", "/nonexistent/vgpreload_core-amd64-linux.so");
    let output = command.args(["run", "--hostile", "--", "echo", "it ran"]).output().expect("the command starts");
    let (out, said) = texts(&output);
    assert_eq!((output.status.code(), out.as_str()), (Some(125), "it ran\n"), "{said}");
    assert!(said.contains("nothing was migrated"), "{said}");
}

#[test]
fn a_limit_is_said_once_a_run_or_not_at_all() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("tour");
    let limits = |options: &[&str]| {
        let mut command = pontoon();
        command.args(["run", "--no-move"]).args(options).args(["--", "sh", "-c", "$0 -t 0 && $0 -t 0"]);
        let output = command.arg(client.program()).output().expect("the command starts");
        let (_, said) = texts(&output);
        assert!(output.status.success(), "{said}");
        said.matches("limited:").count()
    };
    assert_eq!((limits(&[]), limits(&["--quiet"])), (1, 0));
}

/// A launcher had a machine, and what it became had none.
#[test]
fn hostility_that_passes_a_process_by_is_no_success() {
    if !userfaultfd() {
        return;
    }
    let script = "export LD_PRELOAD=$LD_PRELOAD:/nonexistent/vgpreload_core-amd64-linux.so; exec /bin/true";
    let output = pontoon().args(["run", "--hostile", "--", "sh", "-c", script]).output().expect("the command starts");
    let (_, said) = texts(&output);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("no device under valgrind") && said.contains("nothing was migrated"), "{said}");
}

/// A run has set the folder: nobody is told to do so.
#[test]
fn who_cannot_have_the_devices_files_is_told_why() {
    let cases = [
        ("-n 10", "ls /dev/dri", "no descriptor is left (ulimit -n)"),
        ("-f 0", "cat /sys/dev/char/226:128/device/vendor", "File too large"),
    ];
    for (limit, program, why) in cases {
        let script = format!("ulimit {limit}; exec \"$0\" run -- {program}");
        let output = Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_pontoon")]).output().expect("a shell");
        let (_, said) = texts(&output);
        assert!(said.contains(why) && !said.contains("PONTOON_ROOT"), "{limit}: {said}");
    }
}

/// A command whose library lies where LD_PRELOAD cannot name it: another place is found.
#[test]
fn a_command_in_a_folder_with_a_space_finds_its_library() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("a b:c");
    std::fs::create_dir(&folder).expect("a folder");
    let command = Path::new(env!("CARGO_BIN_EXE_pontoon"));
    std::fs::copy(command, folder.join("pontoon")).expect("the command");
    let library = "libpontoon_shim.so";
    std::fs::copy(command.with_file_name("deps").join(library), folder.join(library)).expect("the library");
    let mut run = Command::new(folder.join("pontoon"));
    let output = run.args(["run", "--", "ls", "/dev/dri"]).env("HOME", &folder).env_remove("XDG_CACHE_HOME").output();
    let (out, said) = texts(&output.expect("it starts"));
    assert_eq!(out, "by-path\ncard0\nrenderD128\n", "{said}");
    assert!(!said.contains("ld.so"), "{said}");
}

/// The folder of a run is gone when the command is: killed, interrupted, or ended.
#[test]
fn a_run_leaves_no_folder_however_it_ends() {
    let gone = |folder: &str| {
        Command::new("timeout").args(["40", "sh", "-c", "while test -e $0; do sleep 0.02; done", folder]).status()
    };
    let mut command = pontoon();
    let output = command.args(["run", "--", "sh", "-c", "ls /dev/dri > /dev/null; echo $PONTOON_ROOT"]).output();
    let (folder, _) = texts(&output.expect("the command starts"));
    assert!(gone(folder.trim_end()).expect("timeout starts").success(), "{folder} is left");
    // To the command, to its whole group as by a terminal's Ctrl-C, or to a program whose reader has gone.
    for (signal, at_group) in [("KILL", ""), ("TERM", ""), ("HUP", ""), ("INT", "-"), ("KILL", "-"), ("PIPE", "")] {
        let script = "ls /dev/dri > /dev/null; echo $$ $PONTOON_ROOT; exec $0";
        let last = if signal == "PIPE" { "yes" } else { "sleep 50" };
        let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
        let child =
            command.args(["run", "--", "sh", "-c", script, last]).stdout(Stdio::piped()).process_group(0).spawn();
        let mut child = child.expect("the command starts");
        let mut line = String::new();
        let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
        reader.read_line(&mut line).expect("a line");
        let (program, folder) = line.trim_end().split_once(' ').expect("two words");
        assert!(Path::new(folder).join("view").is_dir(), "{line}");
        let kill = |process: &str| {
            let _ = Command::new("kill").args([&format!("-{signal}"), "--", process]).stderr(Stdio::null()).status();
        };
        drop(reader);
        if signal != "PIPE" {
            kill(&format!("{at_group}{}", child.id()));
        }
        let _ = child.wait();
        assert!(gone(folder).expect("timeout starts").success(), "{signal}: {folder} is left");
        kill(program);
    }
}

#[test]
fn the_tables_count_what_the_report_counts() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("tour");
    let run = client.run(&["--stats"], &["-t", "01"]);
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    let cells = |start: &str| {
        let line = run.err.lines().find(|line| line.starts_with(start));
        let cells = line.unwrap_or_else(|| panic!("no line {start}: {}", run.err)).split('|').skip(2);
        cells.map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
    };
    let faults: u64 = cells("| svm_pagefault_count").iter().map(|count| count.parse::<u64>().expect("a number")).sum();
    assert!(faults > 0 && faults == run.count("gpu_fault_count"), "{}", run.err);
    for way in ["SYSTEM->VRAM0", "VRAM0->VRAM1", "VRAM1->SYSTEM"] {
        let bytes = run.report["migrated_pages"][way].as_u64().expect("pages") * 4096;
        let cells = cells(&format!("| {way}"));
        assert_eq!([&cells[0], &cells[2]], [&run.times(way).to_string(), &bytes.to_string()], "{}", run.err);
    }
    // Without a report of the user's, and the program's own output as it is.
    let mut command = pontoon();
    let output = command.args(["run", "--stats", "--"]).arg(client.program()).output().expect("the command starts");
    let (out, err) = texts(&output);
    assert!(
        out.ends_with("TOUR ok\n") && err.contains("svm_pagefault_count") && err.contains("invalidations:"),
        "{out}{err}"
    );
}

/// Whatever it has of its own: nothing, tables, a report, a trace. What the program ends with is what both end with.
#[test]
fn a_run_within_a_run_reports_to_the_outer_one() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("tour");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [report, trace, own] = ["report", "trace", "own"].map(|name| dir.path().join(name));
    let own = own.to_str().expect("text");
    for inner in [&[][..], &["--stats"], &["--report", own], &["--trace", own]] {
        let mut command = pontoon();
        command.args(["run", "--stats", "--report"]).arg(&report).arg("--trace").arg(&trace);
        command.args(["--", env!("CARGO_BIN_EXE_pontoon"), "run"]).args(inner);
        command.args(["--", "sh", "-c", "$0 -t 01 && exit 7"]).arg(client.program());
        let output = command.output().expect("the command starts");
        let (out, err) = texts(&output);
        let is_silent = !err.contains("no process") && !err.contains("no device");
        assert!(output.status.code() == Some(7) && is_silent, "{inner:?}: {out}{err}");
        let tables = 1 + usize::from(inner == ["--stats"]);
        assert_eq!(err.matches("| SYSTEM->VRAM0").count(), tables, "{inner:?}: {err}");
        assert!(std::fs::metadata(&trace).expect("a trace").len() > 100, "{inner:?}");
        let lines = std::fs::read_to_string(&report).expect("a report");
        assert!(lines.lines().count() == 1 && lines.contains("SYSTEM->VRAM0"), "{inner:?}: {lines}");
    }
}

/// Nothing of an earlier run is left that looks like this one's, and an empty report says that it is.
#[test]
fn where_no_device_was_opened_report_and_trace_say_so() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [report, trace] = ["report", "trace"].map(|name| dir.path().join(name));
    std::fs::write(&trace, "of an earlier run").expect("a file");
    let mut command = pontoon();
    command.args(["run", "--trace"]).arg(&trace).arg("--report").arg(&report);
    let (_, said) = texts(&command.args(["--", "true"]).output().expect("the command starts"));
    assert!(said.contains("no process of this run opened the device: report and trace are empty"), "{said}");
    assert_eq!(std::fs::read(&trace).expect("a file"), b"");
    let output = pontoon().arg("report").arg(&report).output().expect("the command starts");
    let (out, said) = texts(&output);
    assert!(output.status.success() && out.is_empty(), "{out}{said}");
    assert!(said.contains("is empty: no process of the run opened the device"), "{said}");
}

/// `nohup`, or a shell that starts it in the background.
#[test]
fn signals_that_were_ignored_stay_so() {
    let script = "trap '' HUP INT QUIT; exec \"$0\" run -- sh -c 'kill -HUP $PPID; sleep 0.2; grep SigIgn /proc/self/status; exit 5'";
    let mut command = Command::new("timeout");
    let output = command.args(["60", "sh", "-c", script, env!("CARGO_BIN_EXE_pontoon")]).output().expect("a shell");
    let (out, err) = texts(&output);
    assert_eq!((output.status.code(), out.trim_end().chars().last()), (Some(5), Some('7')), "{out}{err}");
}

/// A program that the library is not in, started by one that it is in: it is said once a run, and is no success of `--hostile`.
#[test]
fn who_starts_a_program_without_the_library_says_so_once() {
    if !userfaultfd() {
        return;
    }
    let (client, dir) = (Client::new("tour"), tempfile::tempdir().expect("a temporary folder"));
    let program = with("-static", "tour.c", dir.path());
    let run = |options: &[&str], script: &str| {
        let mut command = pontoon();
        command.arg("run").args(options).args(["--", "sh", "-c", script]).arg(client.program()).arg(&program);
        let output = command.output().expect("the command starts");
        (output.status.code(), texts(&output).1)
    };
    for (script, why) in [
        ("$0 -t 0; env -i $0; env -i $0; true", "does not name the library"),
        ("$0 -t 0; unset LD_PRELOAD; $0; true", "does not name the library"),
        ("$0 -t 0; $1; $1; true", "statically linked"),
    ] {
        let (code, said) = run(&[], script);
        assert_eq!((code, said.matches("sees no device").count()), (Some(0), 1), "{script}: {said}");
        assert!(said.contains(why), "{script}: {said}");
        let (code, said) = run(&["--quiet", "--hostile"], script);
        assert_eq!((code, said.matches("sees no device").count()), (Some(125), 0), "{script}: {said}");
    }
    let output = pontoon().args(["run", "--hostile", "--", "env", "-i", "true"]).output().expect("the command starts");
    let (_, said) = texts(&output);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("sees no device") && said.contains("nothing was migrated"), "{said}");
    // What is not there, or is no program, is not said.
    let (_, said) = run(&[], "env -i /nonexistent; env -i /etc/passwd; true");
    assert!(!said.contains("sees no device"), "{said}");
}
