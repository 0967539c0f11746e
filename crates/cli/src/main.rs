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
mod device;
mod doctor;
mod engine;
mod exhaust;
mod explain;
mod inside;
mod judge;
mod program;
mod run;
mod shim_library;
mod speed;
mod stats;
mod tour;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// A Ponte Vecchio made of software: GPU shared virtual memory on a two-tile device that does not exist.
#[derive(Parser)]
#[command(
    version,
    about = "A Ponte Vecchio made of software: GPU shared virtual memory on a two-tile device that does not exist"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Show the whole way: a C program's memory goes to both tiles and home, then defect A twice (the default)
    Tour(tour::Options),
    /// Run a program on the software GPU
    Run(run::Options),
    /// Run engine, driver and hardware on a simulated mm under many schedules
    Check(check::Options),
    /// Tell the smallest failing run of a defect or a scene, for a mail
    Explain(explain::Options),
    /// Judge every remedy for A, B and C against every trigger, and the orders to merge them in
    Judge(judge::Options),
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
    /// Remove a run's folder when the run has ended, however it did (the run starts this itself)
    #[command(hide = true)]
    TidyUp {
        /// The folder
        folder: std::path::PathBuf,
    },
    /// Write a scene as a C program that runs on a real Xe node and under `pontoon run`
    EmitC {
        /// Name of a built-in scene, or a file
        #[arg(value_name = "SCENE", value_parser = check::scene)]
        scene: std::sync::Arc<::check::script::Script>,
    },
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
    let outcome = match Cli::parse().command {
        None => tour::run(&tour::Options::default()),
        Some(Command::Tour(options)) => tour::run(&options),
        Some(Command::Run(options)) => run::run(&options),
        Some(Command::Check(options)) => match options.drawn() {
            Some(explore) => check::run(&options, explore),
            None => exhaust::run(&options),
        },
        Some(Command::Explain(options)) => explain::run(&options),
        Some(Command::Judge(options)) => judge::run(&options),
        Some(Command::Replay(options)) => explain::replay(&options),
        Some(Command::Bench(options)) => bench::run(&options),
        Some(Command::Doctor(options)) => doctor::run(&options),
        Some(Command::TidyUp { folder }) => shim_library::tidy_up(&folder),
        Some(Command::Behaviours) => list_behaviours(),
        Some(Command::EmitC { scene }) => ::check::emit::c_program(&scene).map_err(anyhow::Error::msg).map(|program| {
            say!("{program}");
            ExitCode::SUCCESS
        }),
        Some(Command::Scenes) => {
            check::list();
            Ok(ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("pontoon: {error:#}");
        ExitCode::from(2)
    })
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
