//! C clients for the end-to-end tests: compiled once a test, run by the real command under the real library.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder with a compiled client in it.
pub struct Client {
    dir: tempfile::TempDir,
    program: PathBuf,
}

/// What a run left.
pub struct Run {
    /// Exit code of the client; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
    /// The library's report, of the process that ended last; `Null` where there is none.
    pub report: Value,
    /// Those of all processes that opened the device, in the order of their ends.
    pub reports: Vec<Value>,
}

impl Client {
    /// Compiles `tests/e2e/NAME.c`.
    pub fn here(name: &str) -> Self {
        Self::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(format!("{name}.c")))
    }

    /// Compiles `clients/NAME.c`.
    pub fn new(name: &str) -> Self {
        Self::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients").join(format!("{name}.c")))
    }

    /// Compiles a C file.
    pub fn of(source: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let program = dir.path().join("client");
        compile(source, &program);
        Self { dir, program }
    }

    /// Where it lies.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs it under `pontoon run OPTIONS -- CLIENT ARGUMENTS`, at most five minutes: the guard against a hang.
    pub fn run(&self, options: &[&str], arguments: &[&str]) -> Run {
        let report = self.dir.path().join("report.json");
        let _ = std::fs::remove_file(&report);
        let mut command = pontoon();
        command.arg("run").args(options).arg("--report").arg(&report).arg("--").arg(&self.program).args(arguments);
        let output = command.output().expect("the command starts");
        let text = std::fs::read_to_string(&report).unwrap_or_default();
        let reports: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let report = reports.last().cloned().unwrap_or_default();
        Run { code: output.status.code(), out: text_of(&output.stdout), err: text_of(&output.stderr), report, reports }
    }
}

/// Compiles one C file, without a warning.
pub fn compile(source: &Path, program: &Path) {
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(program).arg(source).args([
        "-ldl",
        "-lpthread",
        "-I",
    ]);
    compiler.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients"));
    let status = compiler.status().expect("a C compiler");
    assert!(status.success(), "{} compiles without a warning", source.display());
}

impl Run {
    /// A counter of the report.
    pub fn count(&self, name: &str) -> u64 {
        self.report[name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {}", self.report))
    }

    /// How often pages went a way, "SYSTEM->VRAM0" for example.
    pub fn times(&self, way: &str) -> u64 {
        self.report["migrations"][way].as_u64().unwrap_or(0)
    }
}

/// The client says that all was as it should be, and no access went astray.
pub fn is_right(client: &Client, options: &[&str], arguments: &[&str]) {
    let run = client.run(options, arguments);
    assert_eq!(run.code, Some(0), "{options:?}: {}{}", run.out, run.err);
    for count in ["stray_writes", "stray_reads", "stale_vram"] {
        assert_eq!(run.count(count), 0, "{options:?}: {count}");
    }
}

/// The command under `timeout`, so that a hang is a failure and not a hang. What does not end by SIGTERM is killed with
/// its children, which would keep our pipes open.
pub fn pontoon() -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "2", "300"]).arg(env!("CARGO_BIN_EXE_pontoon"));
    command
}

/// Whether the kernel lets this user have userfaultfd. Says so loudly where it does not; in CI that is a failure.
pub fn userfaultfd() -> bool {
    let output = pontoon().arg("doctor").output().expect("the command starts");
    if output.status.success() {
        return true;
    }
    let why = text_of(&output.stderr);
    assert!(std::env::var_os("PONTOON_CI").is_none(), "CI must not skip: {why}");
    skipped(&why);
    false
}

/// Says that a test did not run, past the test harness, which keeps what passing tests print to itself.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {}", why.trim_end());
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
