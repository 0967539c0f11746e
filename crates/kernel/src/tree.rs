//! A kernel tree, looked at and never written to.

use crate::kit::Kit;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// What to type for a tree from Debian.
const GET_ONE: &str = "Debian's package linux-source-7.3 has one: unpack /usr/src/linux-source-7.3.tar.xz";

/// A tree that has what a kit needs.
pub(crate) struct Tree {
    pub(crate) dir: PathBuf,
    /// As its Makefile says; for people only.
    pub(crate) version: String,
}

impl Tree {
    /// Looks at `dir`.
    pub(crate) fn open(dir: &Path, kit: &Kit) -> Result<Self> {
        if !dir.is_dir() {
            bail!("{} is no folder: give --tree a kernel tree. {GET_ONE}", dir.display());
        }
        let dir = dir.canonicalize()?;
        let makefile = std::fs::read_to_string(dir.join("Makefile")).unwrap_or_default();
        let Some(version) = version(&makefile) else {
            bail!("{} is no kernel tree: its Makefile names no VERSION and PATCHLEVEL. {GET_ONE}", dir.display());
        };
        if let Some(missing) = kit.needs.iter().find(|file| !dir.join(file).is_file()) {
            bail!(
                "{} is Linux {version}, too old a tree: it has no {missing}. GPU SVM with pagemaps came with 7.0; tried are 7.2 and \
                 7.3. {GET_ONE}",
                dir.display()
            );
        }
        if dir.join(".config").exists() || dir.join("include/config").exists() {
            bail!(
                "{} has been configured in place, and kbuild then refuses to build elsewhere: give a clean copy, or run `make \
                 mrproper` in it",
                dir.display()
            );
        }
        Ok(Self { dir, version })
    }

    pub(crate) fn has(&self, file: &str) -> bool {
        self.dir.join(file).is_file()
    }

    /// A file's text.
    pub(crate) fn read(&self, file: &str) -> Result<Vec<u8>> {
        std::fs::read(self.dir.join(file)).with_context(|| format!("the tree has no {file}"))
    }
}

fn version(makefile: &str) -> Option<String> {
    let field = |name: &str| {
        let line = makefile.lines().find(|line| line.split('=').next().is_some_and(|left| left.trim() == name))?;
        Some(line.split_once('=')?.1.trim().to_owned())
    };
    let number = format!("{}.{}", field("VERSION")?, field("PATCHLEVEL")?);
    let sub =
        field("SUBLEVEL").filter(|sub| !sub.is_empty() && sub != "0").map_or(String::new(), |sub| format!(".{sub}"));
    Some(format!("{number}{sub}{}", field("EXTRAVERSION").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_other_makefiles_have_none() {
        let makefile = "# x\nVERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n";
        assert_eq!(version(makefile).as_deref(), Some("7.3.4"));
        assert_eq!(
            version("VERSION = 7\nPATCHLEVEL = 4\nSUBLEVEL = 0\nEXTRAVERSION = -rc1\n").as_deref(),
            Some("7.4-rc1")
        );
        assert_eq!(version("all:\n\tcc x.c\n"), None);
    }
}
