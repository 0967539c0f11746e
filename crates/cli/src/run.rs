//! `pontoon run -- PROGRAM`: any program on the software GPU; its exit code is ours.

use crate::device::Chosen;
use crate::{Device, program, report, shim_library, stats, trace};
use anyhow::{Context, Result, ensure};
use clap::Args;
use machine::profile::Profile;
use machine::report::Report;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Pid, Signal};
use shim_library::Preloaded;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::thread::JoinHandle;

/// Options of `run`.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Options {
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    chosen: Chosen,
    /// Keep migrating every movable page of the program to VRAM and back
    #[arg(long)]
    hostile: bool,
    /// Write what happened (migrations, faults, stray accesses) to this file: a line of JSON for each process that
    /// opened the device
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// As --report, and every event in order: `pontoon report FILE` makes a page or a trace of it, on any machine
    #[arg(long, value_name = "FILE", conflicts_with = "report")]
    record: Option<PathBuf>,
    /// Write a Perfetto trace of the run (opens in ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print tables at the end: faults, migrations, invalidations, retries, and how long they took
    #[arg(long)]
    stats: bool,
    /// Do not say what is limited, nor that no process opened the device
    #[arg(long, short)]
    quiet: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

const EXAMPLES: &str = "Examples:
  pontoon run --stats -- ./program          what moved, how often, and how long it took
  pontoon run --hostile -- python3 x.py     a program that knows no GPU, with its memory in VRAM and back
  pontoon run --record run.json -- ./program && pontoon report run.json --html run.html";

/// Runs the program to its end.
pub fn run(options: &Options) -> Result<ExitCode> {
    let (program, arguments) = options.program.split_first().context("no program given")?;
    let report = options.record.as_deref().or(options.report.as_deref()).map(std::path::absolute).transpose()?;
    let mut preloaded = shim_library::preloaded(program, &options.device, report.as_deref())?;
    preloaded.command.env("PONTOON_DEVICE", options.chosen.as_text()?);
    let report = counted(options, report, &mut preloaded)?;
    if options.hostile {
        let has_vram = options.chosen.profiles()?.iter().any(Profile::has_vram);
        ensure!(has_vram, "--hostile: the device has no VRAM that memory could go to; choose another with --device");
        preloaded.command.env("PONTOON_HOSTILE", "1");
    }
    if options.quiet {
        preloaded.command.env("PONTOON_QUIET", "1");
    }
    let blind = program::why_without_device(program);
    let open = |path: &Path, what| NewFile::open(path, what);
    let new_report = report.as_deref().map(|path| open(path, "report")).transpose()?;
    let trace = options.trace.as_deref().map(|path| open(path, "trace")).transpose()?;
    let signals = Signals::new(caught()).context("cannot watch for signals")?;
    let mut child = match preloaded.command.args(arguments).spawn() {
        Ok(child) => child,
        Err(error) => return Ok(cannot_start(program, &error)),
    };
    for file in [&new_report, &trace].into_iter().flatten() {
        file.begin()?;
    }
    if let Some(why) = blind.filter(|_| !options.quiet) {
        eprintln!("pontoon: {} sees no device: {why}", program.display());
    }
    let handle = signals.handle();
    let forwarder = forward(signals, child.id());
    let status = child.wait();
    handle.close();
    let _ = forwarder.join();
    let code = exit_code(status?);
    let done = conclude(options, &preloaded, report.as_deref(), trace).unwrap_or_else(|error| {
        eprintln!("pontoon: {error:#}");
        false
    });
    if preloaded.has_started() == Some(false) {
        return Ok(without_device(options, blind.is_some() || preloaded.was_refused(), code));
    }
    if code != ExitCode::SUCCESS {
        return Ok(code);
    }
    if !done {
        return Ok(ExitCode::from(REFUSED));
    }
    if options.hostile && (preloaded.was_refused() || preloaded.has_unseen()) {
        eprintln!("pontoon: nothing was migrated of a process that got no machine");
        return Ok(ExitCode::from(NOTHING_DONE));
    }
    Ok(code)
}

/// What is done when the program has ended: the report is complete, an outer run is told, tables and trace are made. False where the
/// report lacks a line that could not be written, which was said.
fn conclude(options: &Options, run: &Preloaded, report: Option<&Path>, trace: Option<NewFile>) -> Result<bool> {
    // Nobody waits for a line that nobody wants.
    let is_reported = report.is_some() || std::env::var_os("PONTOON_REPORT").is_some();
    let ended = if is_reported { run.ended() } else { Vec::new() };
    run.hand_on(report)?;
    let Some(report) = report.filter(|_| run.has_started() != Some(false)) else { return Ok(true) };
    if run.has_unreported() {
        return Ok(false);
    }
    let processes = report::read(report)?;
    note_missing(&processes, &ended);
    report::note_lost(&processes);
    if let Some(trace) = trace {
        trace.write(&trace::encode(&processes))?;
    }
    if options.stats {
        eprint!("{}", stats::text(&report::sum(&processes)));
    }
    Ok(true)
}

/// The report of the run: the user's, or one in its folder, where tables or a trace are to be made of it.
fn counted(options: &Options, report: Option<PathBuf>, preloaded: &mut Preloaded) -> Result<Option<PathBuf>> {
    if options.record.is_some() || options.trace.is_some() {
        preloaded.command.env("PONTOON_RECORD", "1");
    }
    if report.is_some() || (!options.stats && options.trace.is_none()) {
        return Ok(report);
    }
    let folder = preloaded.folder().context("no temporary folder for the counters: use --report FILE as well")?;
    let report = folder.join("report.json");
    preloaded.command.env("PONTOON_REPORT", &report);
    Ok(Some(report))
}

/// Says of which processes the report has no line: a thread that was ended in the middle of a change has left it half done.
fn note_missing(reports: &[Report], ended: &[u32]) {
    for process in ended.iter().filter(|process| reports.iter().all(|report| report.process != **process)) {
        eprintln!(
            "pontoon: process {process} is not in the report: it was killed in the middle of a change of its books"
        );
    }
}

/// The run is over, and none of its processes has started a machine.
fn without_device(options: &Options, is_said: bool, code: ExitCode) -> ExitCode {
    if options.hostile {
        eprintln!("pontoon: nothing was migrated: no process of this run started a machine");
        return if code == ExitCode::SUCCESS { ExitCode::from(NOTHING_DONE) } else { code };
    }
    if !options.quiet && !is_said {
        let has_report = options.report.is_some() || options.record.is_some();
        let what = match (has_report, options.trace.is_some()) {
            (true, true) => ": report and trace are empty",
            (true, false) => ": the report is empty",
            (false, true) => ": the trace is empty",
            (false, false) => "",
        };
        eprintln!("pontoon: no process of this run opened the device{what}");
    }
    code
}

/// What `--hostile` ends with where it could not do what it is for, and the program saw no fault. Launchers use it for
/// failures of their own.
const NOTHING_DONE: u8 = 125;
/// What was asked for beside the program could not be had.
const REFUSED: u8 = 2;

/// As every launcher says it: 127 where there is no such program, 126 where it cannot be run.
fn cannot_start(program: &OsStr, error: &io::Error) -> ExitCode {
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    let why = is_missing.then(|| program::missing_interpreter(program)).flatten().unwrap_or_else(|| error.to_string());
    eprintln!("pontoon: cannot start {}: {why}", program.display());
    ExitCode::from(if is_missing { 127 } else { 126 })
}

/// A file that the run is to write, still as an earlier run left it. It may be the report, to which every process that opens the
/// device adds a line, under a lock which this holds until the program has started and the file was emptied.
struct NewFile {
    file: File,
    /// What and where it is.
    name: String,
}

impl NewFile {
    /// Opens it without following a link: it may lie in a folder of others.
    fn open(path: &Path, what: &str) -> Result<Self> {
        let name = format!("{what} {}", path.display());
        let open = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?);
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no regular file"));
            }
            rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        let file = open().with_context(|| format!("cannot write the {name}"))?;
        Ok(Self { file, name })
    }

    /// Empties it, and lets others write.
    fn begin(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        Ok(rustix::fs::fcntl_lock(&self.file, FlockOperation::Unlock)?)
    }

    /// Writes all of it.
    fn write(mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write the {}", self.name))
    }
}

/// The signals that end a run, but those which this process was told to ignore: the program is to ignore them, too (`nohup`).
fn caught() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    [SIGINT, SIGQUIT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0).collect()
}

/// What is sent to us is meant for the program. A terminal's signals have reached it already, as one of our group.
fn forward(mut signals: Signals, program: u32) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let program = i32::try_from(program).ok().and_then(Pid::from_raw);
            for signal in signals.forever() {
                let sent = match signal {
                    SIGTERM => Signal::TERM,
                    SIGHUP => Signal::HUP,
                    _ => continue,
                };
                if let Some(program) = program {
                    let _ = rustix::process::kill_process(program, sent);
                }
            }
        })
        .expect("a thread")
}

/// The program's own exit code; 128 + n where signal n ended it, as a shell says it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
