//! The devices that a command line asks for: built-in ones or files, and how much VRAM.
//!
//! All is judged before a program starts; the preload library is then told by a text that needs no file.

use anyhow::{Context, Result, anyhow};
use clap::Args;
use machine::profile::{Profile, Size};
use std::path::Path;

/// Which devices there are.
#[derive(Args)]
pub struct Chosen {
    /// A device: pvc-2t, pvc-1t, pvc-4t, bmg, or a file (docs/profiles.md has its keys); once for each of up to 4 devices
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "pvc-2t", value_parser = profile)]
    device: Vec<Profile>,
    /// VRAM of each tile, such as 64M or 1G; rounded up to 2M
    #[arg(long, value_name = "SIZE", value_parser = vram)]
    vram: Option<Size>,
}

impl Chosen {
    /// The profiles in all.
    pub fn profiles(&self) -> Result<Vec<Profile>> {
        Profile::count(&self.device).map_err(|why| anyhow!("--device: {why}"))?;
        let whole = |device: &Profile| Profile { vram: self.vram.unwrap_or(device.vram), ..device.clone() };
        Ok(self.device.iter().map(whole).collect())
    }

    /// The profiles as the preload library reads them.
    pub fn as_text(&self) -> Result<String> {
        serde_json::to_string(&self.profiles()?).context("a profile is text")
    }
}

fn profile(asked: &str) -> Result<Profile, String> {
    if Path::new(asked).extension().is_none_or(|end| end != "toml") {
        return Profile::named(asked).map_err(|error| format!("{error}; a file's name ends with .toml"));
    }
    let text = std::fs::read_to_string(asked).map_err(|error| format!("cannot read it: {error}"))?;
    let unread = |error| format!("{asked}: {error}docs/profiles.md has the keys, and what may stand there");
    let profile: Profile = toml::from_str(&text).map_err(unread)?;
    profile.platform().map_err(|error| format!("{asked}: {error}"))?;
    Ok(profile)
}

fn vram(asked: &str) -> Result<Size, String> {
    let vram = asked.parse()?;
    Profile { vram, ..Profile::default() }.platform().map(|_| vram)
}
