//! `pontoon doctor`: what this kernel, and this user on it, allow; and what to type where that is not enough.

use crate::device::Chosen;
use anyhow::Result;
use clap::Args;
use machine::live::{Live, LiveConfig};
use std::process::ExitCode;

/// Options of `doctor`.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    chosen: Chosen,
}

/// Starts a machine in this very process, tells how its pages would travel, and stops it.
pub fn run(options: &Options) -> Result<ExitCode> {
    let library = crate::shim_library::path()?;
    say!("preload library: {}", library.display());
    let live = Live::start(&LiveConfig { devices: options.chosen.profiles()?, ..LiveConfig::default() })?;
    for device in live.report().devices {
        say!("device: {device}");
    }
    say!("memory: {}", live.report().memory.mechanism);
    say!("{}", live.limits().unwrap_or("nothing is limited"));
    anyhow::ensure!(live.shutdown(), "memory did not migrate back from VRAM");
    Ok(ExitCode::SUCCESS)
}
