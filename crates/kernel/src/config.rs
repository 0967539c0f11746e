//! The configuration: tinyconfig, a list of lines on top, and a look whether each of them stuck. What does not stick would
//! silently compile other code, so it is an error that names every such line.

use crate::build::Make;
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Configures the build folder.
pub(crate) fn configure(make: &Make<'_>, lines: &[&str]) -> Result<()> {
    make.run(&["tinyconfig"], "the configuration")?;
    let path = make.out.join(".config");
    let mut text = std::fs::read_to_string(&path)?;
    for line in lines {
        text.push_str(&match line.strip_suffix("=n") {
            Some(symbol) => format!("# {symbol} is not set\n"),
            None => format!("{line}\n"),
        });
    }
    std::fs::write(&path, text)?;
    make.run(&["olddefconfig"], "the configuration")?;
    check(&make.out, lines)
}

/// The Kconfig files that kbuild wrote down of the build folder `out`; none where it did not.
pub(crate) fn made_from(out: &Path, tree: &Path) -> BTreeSet<PathBuf> {
    let text = std::fs::read_to_string(out.join("include/config/auto.conf.cmd")).unwrap_or_default();
    let lines = text.lines().skip_while(|line| !line.starts_with("deps_config")).take_while(|line| !line.is_empty());
    let words = lines.flat_map(str::split_whitespace).map(|word| tree.join(word));
    words.filter(|file| file.is_file()).collect()
}

/// Whether every line stuck in the build folder `out`.
pub(crate) fn check(out: &Path, lines: &[&str]) -> Result<()> {
    let text = std::fs::read_to_string(out.join(".config"))?;
    let lost: Vec<&str> = lines.iter().filter(|line| !sticks(&text, line)).copied().collect();
    if lost.is_empty() {
        return Ok(());
    }
    bail!(
        "the configuration does not stick: {} (this tree has other dependencies between its symbols than the trees that were tried; \
         `make menuconfig` and its search, the key /, say which)",
        lost.join(", ")
    )
}

fn sticks(text: &str, line: &str) -> bool {
    match line.strip_suffix("=n") {
        Some(symbol) => !text.lines().any(|have| have.strip_prefix(symbol).is_some_and(|rest| rest.starts_with('='))),
        None => text.lines().any(|have| have == line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kconfig_files_are_those_that_kbuild_wrote_down() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(dir.path().join("include/config")).expect("made");
        for file in ["Kconfig", "lib.Kconfig", "other"] {
            std::fs::write(dir.path().join(file), "").expect("written");
        }
        let text = "autoconfig := x\n\ndeps_config := \\\n\tKconfig \\\n\tlib.Kconfig \\\n\n$(autoconfig): $(deps_config)\nother\n";
        std::fs::write(dir.path().join("include/config/auto.conf.cmd"), text).expect("written");
        let files = made_from(dir.path(), dir.path());
        assert_eq!(files, ["Kconfig", "lib.Kconfig"].map(|file| dir.path().join(file)).into());
    }

    #[test]
    fn on_must_be_there_and_off_must_not() {
        let text = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_CD=y\n";
        assert!(sticks(text, "CONFIG_A=y") && sticks(text, "CONFIG_B=n") && sticks(text, "CONFIG_C=n"));
        assert!(!sticks(text, "CONFIG_B=y") && !sticks(text, "CONFIG_A=n"));
    }
}
