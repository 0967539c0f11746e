//! `pontoon bench`.
use anyhow::{Result, bail};
use clap::Args;
use std::process::ExitCode;
/// Options of `bench`.
#[derive(Args)]
pub struct Options {}
/// First light.
pub fn run(_: &Options) -> Result<ExitCode> {
    bail!("not measured yet")
}
