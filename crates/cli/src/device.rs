//! The devices that a command line asks for: built-in ones or files, and how much VRAM.
//!
//! All is judged before a program starts; the preload library is then told by a text that needs no file.

use anyhow::{Context, Result, anyhow};
use clap::Args;
use machine::profile::{Profile, Several, Size};
use std::path::Path;

/// Which devices there are.
#[derive(Args)]
pub struct Chosen {
    /// A device: pvc-2t, pvc-1t, pvc-4t, bmg, lnl, or a file of one or several (docs/profiles.md has its keys); as often as wanted,
    /// for up to 4 devices
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "pvc-2t", value_parser = asked)]
    device: Vec<Several>,
    /// VRAM of each tile, such as 64M or 1G; rounded up to 2M
    #[arg(long, value_name = "SIZE", value_parser = vram)]
    vram: Option<Size>,
}

impl Chosen {
    /// The profiles in all.
    pub fn profiles(&self) -> Result<Vec<Profile>> {
        let asked = || self.device.iter().flat_map(|asked| &asked.device);
        let vram = |device: &Profile| self.vram.filter(|_| device.has_vram()).unwrap_or(device.vram);
        let all: Vec<_> = asked().map(|device| Profile { vram: vram(device), ..device.clone() }).collect();
        if let Some(vram) = self.vram.filter(|_| !asked().any(Profile::has_vram)) {
            return Err(anyhow!("--vram {vram}: the device is an integrated GPU and has none; leave it out"));
        }
        Profile::count(&all).map_err(|why| anyhow!("--device: {why}"))?;
        Ok(all)
    }

    /// The profiles as the preload library reads them.
    pub fn as_text(&self) -> Result<String> {
        serde_json::to_string(&self.profiles()?).context("a profile is text")
    }
}

fn asked(asked: &str) -> Result<Several, String> {
    if Path::new(asked).extension().is_none_or(|end| end != "toml") {
        let profile = Profile::named(asked).map_err(|error| format!("{error}; a file's name ends with .toml"))?;
        return Ok(Several { device: vec![profile] });
    }
    let text = std::fs::read_to_string(asked).map_err(|error| format!("cannot read it: {error}"))?;
    let unread = |error| format!("{asked}: {error}docs/profiles.md has the keys, and what may stand there");
    let all = parse(&text).map_err(unread)?;
    all.device
        .iter()
        .try_for_each(|profile| profile.platform().map(drop))
        .map_err(|error| format!("{asked}: {error}"))?;
    Ok(all)
}

fn parse(text: &str) -> Result<Several, toml::de::Error> {
    match toml::from_str::<toml::Table>(text)?.contains_key("device") {
        true => toml::from_str(text),
        false => Ok(Several { device: vec![toml::from_str(text)?] }),
    }
}

fn vram(asked: &str) -> Result<Size, String> {
    let vram = asked.parse()?;
    Profile { vram, ..Profile::default() }.platform().map(|_| vram)
}
