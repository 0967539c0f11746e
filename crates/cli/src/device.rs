//! The device that a command line asks for: how much VRAM it has.
//!
//! All is judged before a program starts; the preload library is then told by a text.

use anyhow::{Context, Result};
use clap::Args;
use machine::profile::{Profile, Size};

/// Which device there is.
#[derive(Args)]
pub struct Chosen {
    /// VRAM of each tile, such as 64M or 1G; rounded up to 2M
    #[arg(long, value_name = "SIZE", value_parser = vram)]
    vram: Option<Size>,
}

impl Chosen {
    /// The profile in all.
    pub fn profile(&self) -> Profile {
        let device = Profile::default();
        Profile { vram: self.vram.unwrap_or(device.vram), ..device }
    }

    /// The profile as the preload library reads it.
    pub fn as_text(&self) -> Result<String> {
        serde_json::to_string(&self.profile()).context("a profile is text")
    }
}

fn vram(asked: &str) -> Result<Size, String> {
    let vram = asked.parse()?;
    Profile { vram, ..Profile::default() }.platform().map(|_| vram)
}
