//! The `pontoon` command. Without a word it gives the tour.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, reason = "the command is outside of what the checker controls")]

/// `println!`, but for output that cannot be written, a full disk say, it ends the command with a word instead of a
/// panic.
macro_rules! say {
    () => { say!("") };
    ($($text:tt)*) => { $crate::write_line(format_args!($($text)*)) };
}

mod bench;
mod calls;
mod check;
mod colour;
mod device;
mod device_bench;
mod doctor;
mod engine;
mod exhaust;
mod explain;
mod inside;
mod judge;
mod judge_machines;
mod kernel;
mod kernel_diff;
mod kernel_tree;
mod merge;
mod page;
mod picture;
mod program;
mod progress;
mod report;
mod run;
mod shim_library;
mod speed;
mod stats;
mod tour;
mod trace;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A Ponte Vecchio made of software: GPU shared virtual memory on a two-tile device that does not exist.
#[derive(Parser)]
#[command(
    version,
    about = "A Ponte Vecchio made of software: GPU shared virtual memory on a two-tile device that does not exist"
)]
struct Cli {
    /// When to colour the output; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t, hide_possible_values = true)]
    color: colour::When,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Show the whole way: a C program's memory goes to both tiles and back, then defects A, B and C as Linux has them and as Pontoon does (the default)
    Tour(tour::Options),
    /// Run a program on the software GPU
    Run(run::Options),
    /// Show what a run left: as tables, as an HTML page, or as a Perfetto trace
    Report(report::Options),
    /// Run engine, driver and hardware on a simulated mm under many schedules
    Check(check::Options),
    /// Join what the shards of a check printed with --json
    Merge(merge::Options),
    /// Tell the smallest failing run of a defect or a scene, for a mail
    Explain(explain::Options),
    /// Judge every remedy for A, B and C against every trigger, and the orders to merge them in
    Judge(judge::Options),
    /// Bring your own kernel: judge a tree's own SVM code
    Kernel(kernel::Options),
    /// Make a run again from its file
    Replay(explain::ReplayOptions),
    /// Measure fault service beside its floors
    Bench(bench::Options),
    /// Say what this kernel allows, and what to type where that is not enough
    Doctor(doctor::Options),
    /// List the behaviours that --behaviour takes
    Behaviours,
    /// List the built-in scenes that `check` takes
    Scenes,
    /// Print what completes this command's words in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages of this command and its words
    Man {
        /// An existing folder
        #[arg(value_name = "FOLDER")]
        folder: std::path::PathBuf,
    },
    /// Write a scene as a C program that runs on a real Xe node and under `pontoon run`
    EmitC(EmitC),
    /// Do something with a scene: `pontoon scene emit-c SCENE` is `pontoon emit-c SCENE`
    #[command(subcommand)]
    Scene(SceneCommand),
}

#[derive(Subcommand)]
enum SceneCommand {
    /// Write it as a C program that runs on a real Xe node and under `pontoon run`
    EmitC(EmitC),
}

/// Options of `emit-c`.
#[derive(Args)]
struct EmitC {
    /// Name of a built-in scene, or a file
    #[arg(value_name = "SCENE", value_parser = check::scene)]
    scene: std::sync::Arc<::check::script::Script>,
}

/// How pages travel and which variants of the rules run; common to `run` and `tour`.
#[derive(Args, Clone, Default)]
pub struct Device {
    /// Variants of rules, for example a=upstream; `pontoon behaviours` lists them
    #[arg(long, value_name = "KEY=VARIANT,...", default_value = "", hide_default_value = true, value_parser = behaviours)]
    behaviour: String,
    /// Copy pages instead of moving them (for kernels without UFFDIO_MOVE)
    #[arg(long)]
    no_move: bool,
}

/// Refuses an unknown behaviour at the command line, where the message is seen.
fn behaviours(list: &str) -> Result<String, String> {
    machine::behaviour::parse(list).map(|_| list.to_owned())
}

fn main() -> ExitCode {
    sigpipe::reset();
    // What a run starts beside itself; no word of the command line, so that no shell completes it.
    let tidies_up =
        std::env::args_os().nth(1).filter(|word| word == shim_library::TIDY_UP).and(std::env::args_os().nth(2));
    let outcome = match tidies_up {
        Some(folder) => shim_library::tidy_up(folder.as_ref()),
        None => {
            let Cli { color, command } = Cli::parse();
            colour::choose(color);
            obey(command)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("pontoon: {error:#}");
        ExitCode::from(2)
    })
}

fn obey(command: Option<Command>) -> Result<ExitCode> {
    match command {
        None => tour::run(&tour::Options::default()),
        Some(Command::Tour(options)) => tour::run(&options),
        Some(Command::Run(options)) => run::run(&options),
        Some(Command::Check(options)) => match options.drawn() {
            Some(explore) => check::run(&options, explore),
            None => exhaust::run(&options),
        },
        Some(Command::Merge(options)) => merge::run(&options),
        Some(Command::Explain(options)) => explain::run(&options),
        Some(Command::Judge(options)) => judge::run(&options),
        Some(Command::Kernel(options)) => kernel::run(&options),
        Some(Command::Replay(options)) => explain::replay(&options),
        Some(Command::Bench(options)) => bench::run(&options),
        Some(Command::Doctor(options)) => doctor::run(&options),
        Some(Command::Report(options)) => report::run(&options),
        Some(Command::Completions { shell }) => complete(shell),
        Some(Command::Man { folder }) => man(&folder),
        Some(Command::Behaviours) => list_behaviours(),
        Some(Command::EmitC(EmitC { scene }) | Command::Scene(SceneCommand::EmitC(EmitC { scene }))) => {
            let program = ::check::emit::c_program(&scene).map_err(anyhow::Error::msg)?;
            say!("{program}");
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Scenes) => {
            check::list();
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn complete(shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pontoon", &mut text);
    say!("{}", String::from_utf8_lossy(&text).trim_end());
    Ok(ExitCode::SUCCESS)
}

fn man(folder: &std::path::Path) -> Result<ExitCode> {
    let written = clap_mangen::generate_to(Cli::command().name("pontoon"), folder);
    written.with_context(|| format!("cannot write to {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn write_line(line: std::fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        eprintln!("pontoon: the output cannot be written: {error}");
        std::process::exit(2);
    }
}

fn list_behaviours() -> Result<ExitCode> {
    for variant in machine::behaviour::VARIANTS {
        say!("{:<20} {}", format!("{}={}", variant.key, variant.name), variant.about);
    }
    Ok(ExitCode::SUCCESS)
}
