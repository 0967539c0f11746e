//! The tools that a build needs. All that are missing are named at once, with the package that has them.

use crate::cache::Hash;
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
    /// Tells one compiler from another, whatever it calls itself.
    pub(crate) mark: String,
}

impl Tools {
    /// Finds all in `path`, a list of folders as `PATH` has it, and asks the compiler for `headers`, each with its package.
    pub(crate) fn find(path: &OsStr, headers: &[(&str, &str)]) -> Result<Self> {
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
        for (header, package) in headers {
            let mut look = Command::new("gcc");
            look.args(["-E", "-include", header, "-x", "c", "/dev/null"]).env("PATH", path).env("LC_ALL", "C");
            if !look.output()?.status.success() {
                bail!("no {header} here: install {package} (building a kernel's tools needs it)");
            }
        }
        let ask = |word: &str| -> Result<String> {
            let said = Command::new("gcc").arg(word).env("PATH", path).env("LC_ALL", "C").output()?;
            Ok(String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or("gcc").trim().to_owned())
        };
        let compiler = ask("--version")?;
        // What compiles is another program, which the first one names.
        let driver = folders.iter().map(|folder| folder.join("gcc")).find(|file| file.is_file());
        let files = driver.into_iter().chain([PathBuf::from(ask("-print-prog-name=cc1")?)]);
        let bytes = files.map(|file| std::fs::read(file).unwrap_or_default());
        let mark = bytes.fold(Hash::new().add(&compiler), |hash, bytes| hash.add_whole(&bytes)).text();
        Ok(Self { compiler, mark })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let Err(error) = Tools::find(OsStr::new("/nonexistent"), &[]) else { panic!("nothing is there") };
        let text = error.to_string();
        assert!(text.starts_with("no gcc, make, ld, objcopy, flex, bison, bc, patch here: install"), "{text}");
        assert!(text.contains("gcc make binutils flex bison bc patch"), "{text}");
    }
}
