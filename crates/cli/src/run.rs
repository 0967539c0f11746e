//! `pontoon run -- PROGRAM`: any program on the software GPU; its exit code is ours.

use crate::{Device, shim_library};
use anyhow::{Context, Result};
use clap::Args;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

/// Options of `run`.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    device: Device,
    /// Keep migrating every movable page of the program to VRAM and back
    #[arg(long)]
    hostile: bool,
    /// Write what happened (migrations, faults, stray accesses) to this file as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// Runs the program to its end.
pub fn run(options: &Options) -> Result<ExitCode> {
    let (program, arguments) = options.program.split_first().context("no program given")?;
    let report = options.report.as_deref().map(std::path::absolute).transpose()?;
    let mut preloaded = shim_library::preloaded(program, &options.device, report.as_deref())?;
    if options.hostile {
        preloaded.command.env("PONTOON_HOSTILE", "1");
    }
    let status = preloaded.command.args(arguments).status();
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    Ok(exit_code(status))
}

/// The program's own exit code; 128 + n where signal n ended it, as a shell says it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
