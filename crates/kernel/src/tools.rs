//! The tools that a build needs. All that are missing are named at once, with the package that has them.

use anyhow::{Result, bail};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// Tools by name, and the package of Debian and Fedora alike.
const NEEDED: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("make", "make"),
    ("ld", "binutils"),
    ("objcopy", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("patch", "patch"),
];

/// A compiler, and what else was found.
pub(crate) struct Tools {
    /// The compiler's first line about itself.
    pub(crate) compiler: String,
}

impl Tools {
    /// Finds all in `path`, a list of folders as `PATH` has it.
    pub(crate) fn find(path: &OsStr) -> Result<Self> {
        let folders: Vec<PathBuf> = std::env::split_paths(path).collect();
        let missing = |tool: &&(&str, &str)| !folders.iter().any(|folder| folder.join(tool.0).is_file());
        let missing: Vec<_> = NEEDED.iter().filter(missing).collect();
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
            let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
            packages.dedup();
            bail!(
                "no {} here: install {} (building a kernel's files needs them)",
                names.join(", "),
                packages.join(" ")
            );
        }
        let said = Command::new("gcc").arg("--version").env("PATH", path).env("LC_ALL", "C").output()?;
        let compiler = String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or("gcc").to_owned();
        Ok(Self { compiler })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let Err(error) = Tools::find(OsStr::new("/nonexistent")) else { panic!("nothing is there") };
        let text = error.to_string();
        assert!(text.starts_with("no gcc, make, ld, objcopy, flex, bison, bc, patch here: install"), "{text}");
        assert!(text.contains("gcc make binutils flex bison bc patch"), "{text}");
    }
}
