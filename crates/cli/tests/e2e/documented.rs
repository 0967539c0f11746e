//! The commands that README and docs/ show are run: what stands in a block of shell there is true.
//!
//! Names that stand for something are replaced, searches are made short, and the few that take minutes all the same are ended after
//! some seconds. What cannot be run here is named with the reason.

use crate::clients::{Client, pontoon, userfaultfd};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Commands that are not run, by how they begin, and why.
const NOT_RUN: [(&str, &str); 6] = [
    ("pontoon run --quiet --report", "needs a build of IGT"),
    ("pontoon kernel", "needs a kernel tree; kernels.rs"),
    ("pontoon merge", "needs all shards; searches.rs"),
    ("pontoon judge A --json |", "needs jq; searches.rs"),
    ("pontoon check --seeds 0..10000000", "one of an array of jobs"),
    ("pontoon run -- $DIR", "needs another libc"),
];

/// What names stand for, replaced one after the other.
const STANDS_FOR: [(&str, &str); 12] = [
    ("-- PROGRAM ARGS", "-- ./peek -t 0 -p 1"),
    ("-- PROGRAM", "-- ./peek -t 0 -p 1"),
    ("-- P", "-- ./peek -t 0 -p 1"),
    ("-- ./program", "-- ./peek -t 0 -p 1"),
    ("-- ./tests", "-- ./peek -t 0 -p 1"),
    ("./your-level-zero-program", "./peek -t 0 -p 1"),
    ("0..100000", "0..8"),
    ("0..10000", "0..2"),
    ("0..1000", "0..60"),
    ("$i/4", "1/4"),
    ("--time 5m", "--time 1s"),
    ("check --behaviour c", "check c-2 --behaviour c"),
];

/// Parts of commands that take minutes. They are ended after some seconds: by then they were understood, and had begun.
const LONG: [&str; 4] = ["check --seeds", "--explore exhaustive", "judge all", "bench --"];
const PATIENCE: &str = "4";
/// Seconds after which every other command counts as hanging.
const GUARD: &str = "300";

struct Shown {
    at: String,
    command: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The lines of blocks of shell that begin with the command's name.
fn shown() -> Vec<Shown> {
    let docs = fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|it| it == "md")).collect();
    files.push(root().join("README.md"));
    files.sort();
    let mut shown = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        let mut is_block = false;
        for (number, line) in (1..).zip(text.lines()) {
            is_block ^= line.starts_with("```");
            let command = line.trim_start().trim_end_matches(" &");
            let command = command.find(" #").map_or(command, |comment| &command[..comment]).trim_end();
            if is_block && command.starts_with("pontoon ") {
                let name = file.file_name().expect("a name").to_string_lossy();
                shown.push(Shown { at: format!("{name}:{number}"), command: command.to_owned() });
            }
        }
    }
    shown
}

fn runnable(command: &str) -> String {
    let mut command = command.replace(" ...", "");
    for (name, is) in STANDS_FOR {
        command = command.replace(name, is);
    }
    let has_seeds = ["--seeds", "--time", "exhaustive"].iter().any(|option| command.contains(option));
    if command.starts_with("pontoon check") && !has_seeds {
        command = command.replacen("pontoon check", "pontoon check --seeds 0..30", 1);
    }
    command
}

/// The book's table of contents has every page, and no other.
#[test]
fn the_book_has_every_page() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).expect("the table of contents");
    let listed: BTreeSet<String> =
        summary.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect();
    let pages = |folder: &str| {
        let entries =
            fs::read_dir(docs.join(folder)).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        entries.map(|name| format!("{folder}{}", name.to_string_lossy())).filter(|name| name.ends_with(".md")).collect()
    };
    let mut all: BTreeSet<String> =
        [pages(""), pages("adr/")].into_iter().flat_map(|pages: Vec<String>| pages).collect();
    all.remove("SUMMARY.md");
    assert_eq!(listed, all);
}

/// A folder with what the commands name.
fn workplace(dir: &Path) {
    for client in ["tour", "peek"] {
        fs::copy(Client::new(client).program(), dir.join(client)).expect("a copy");
    }
    fs::write(dir.join("x.py"), "print(sum(range(10)))\n").expect("a file");
    fs::write(dir.join("mine.toml"), "tiles = 4\nvram = \"256M\"\n").expect("a file");
    fs::copy(root().join("scenes/a-1.scene"), dir.join("my.scene")).expect("a scene");
    let record = ["run", "--record", "run.json", "--", "./tour"];
    let recorded = pontoon().current_dir(dir).args(record).output().expect("the command starts");
    assert!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
    fs::copy(dir.join("run.json"), dir.join("r.json")).expect("a copy");
    // As searches leave them that are ended before they find.
    let search = ["check", "c-2", "--behaviour", "c=posted", "--seeds", "0..60", "--save", "c.run"];
    let found = pontoon().current_dir(dir).args(search).output().expect("the command starts");
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stderr));
    fs::copy(dir.join("c.run"), dir.join("first.run")).expect("a copy");
}

#[test]
fn commands_in_the_documentation_do_what_is_said() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    workplace(dir.path());
    let own = Path::new(env!("CARGO_BIN_EXE_pontoon")).parent().expect("a folder").to_owned();
    let path = std::env::join_paths(
        [own].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").expect("a path"))),
    );
    let path = path.expect("a path");
    let (mut run, mut not_run) = (0, Vec::new());
    for Shown { at, command } in shown() {
        if let Some((start, _)) = NOT_RUN.iter().find(|(start, _)| command.starts_with(start)) {
            not_run.push(*start);
            continue;
        }
        let now = runnable(&command);
        let is_long = LONG.iter().any(|part| now.contains(part));
        let mut shell = Command::new("timeout");
        shell
            .args(["-k", "1", if is_long { PATIENCE } else { GUARD }, "sh", "-c", &format!("exec {now}")])
            .current_dir(dir.path())
            .env("PATH", &path);
        let output = shell.output().expect("timeout starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        // 1: something was found; 124, 137: it was ended.
        let code = output.status.code();
        let finds = ["check", "replay", "explain", "judge"].iter().any(|word| command.contains(word));
        let is_right = match code {
            Some(0) => true,
            Some(1) => finds,
            Some(124 | 137) => is_long,
            _ => false,
        };
        assert!(is_right, "{at}: {now}: {code:?}\n{said}");
        run += 1;
    }
    assert!(run > 35, "only {run} commands were found");
    let stale = NOT_RUN.iter().find(|(start, _)| !not_run.contains(start));
    assert!(stale.is_none(), "nobody shows {stale:?} any more");
}

/// What the first hour shows of an output is what is printed: the files of the device, and how often memory went which way.
#[test]
fn the_first_hour_shows_what_is_printed() {
    if !userfaultfd() {
        return;
    }
    let page = fs::read_to_string(root().join("docs/first-hour.md")).expect("text");
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::copy(Client::new("tour").program(), dir.path().join("tour")).expect("a copy");
    let run = |arguments: &[&str]| {
        let output = pontoon().current_dir(dir.path()).arg("run").args(arguments).output().expect("the command starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let listed = page.lines().find_map(|line| line.strip_prefix("pontoon run -- ls /dev/dri")).expect("the listing");
    let (names, said) = run(&["--", "ls", "/dev/dri"]);
    assert_eq!(names.split_whitespace().collect::<Vec<_>>(), words(listed)[1..]);
    assert!(said.contains("no process of this run opened the device"), "{said}");
    let (out, said) = run(&["--stats", "--", "./tour"]);
    assert!(out.ends_with("TOUR ok\n"), "{out}");
    // The two last cells are times.
    let rows = |text: &str| {
        let table = text.lines().skip_while(|line| *line != "Migrations by direction").skip(1);
        let rows = table.take_while(|line| line.starts_with('|'));
        rows.map(|row| words(row).into_iter().take(10).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let table = rows(&page);
    assert!(table.len() == 8 && table[2].contains("SYSTEM->VRAM0"), "{table:?}");
    assert_eq!(table[2..], rows(&said)[2..], "{said}");
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}
