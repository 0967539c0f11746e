//! A series of patches: an mbox as `git format-patch --stdout` or a mail archive gives it, one patch, or a folder of them.

use anyhow::{Context, Result, bail};
use std::path::Path;

/// One patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The subject of its mail, without "[PATCH 1/3]"; the file's name where it has none.
    pub subject: String,
    /// All of it, as the tool `patch` takes it.
    pub text: String,
    /// The files that it changes, as paths in the tree: of one that is renamed both names.
    pub files: Vec<String>,
}

/// Reads a series.
pub fn read(path: &Path) -> Result<Vec<Patch>> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = path.read_dir()?.flatten().map(|file| file.path()).filter(|file| file.is_file()).collect();
        files.sort();
    }
    let mut patches = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        patches.extend(split(&String::from_utf8_lossy(&bytes), &name));
    }
    if patches.is_empty() {
        bail!(
            "{} has no patch: give an mbox, a patch, or a folder of patches, made with -p1 as git makes them",
            path.display()
        );
    }
    Ok(patches)
}

/// Cuts a text into patches; mails without one (a cover letter, an answer) are left out.
fn split(text: &str, name: &str) -> Vec<Patch> {
    let mut parts: Vec<String> = vec![String::new()];
    let mut before_blank = true;
    for line in text.split_inclusive('\n') {
        if before_blank && line.starts_with("From ") {
            parts.push(String::new());
        }
        before_blank = line.trim().is_empty();
        if let Some(part) = parts.last_mut() {
            part.push_str(line);
        }
    }
    parts.into_iter().filter_map(|text| patch(text, name)).collect()
}

fn patch(text: String, name: &str) -> Option<Patch> {
    let mut files = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2) {
        if let (Some(old), Some(new)) = (pair[0].strip_prefix("--- "), pair[1].strip_prefix("+++ ")) {
            files.extend([old, new].iter().filter_map(|side| path_in_tree(side)));
        }
    }
    // What is renamed, or gets other rights, and keeps its text has no other line that names it.
    let of_git = lines.iter().filter_map(|line| line.strip_prefix("diff --git ")?.split_once(' '));
    files.extend(of_git.flat_map(|(old, new)| [old, new]).filter_map(path_in_tree));
    files.sort();
    files.dedup();
    let subject = subject(&lines).unwrap_or_else(|| name.to_owned());
    (!files.is_empty()).then_some(Patch { subject, text, files })
}

/// `a/mm/x.c` with the first folder off; nothing for `/dev/null`, and nothing that leads out of the tree.
fn path_in_tree(side: &str) -> Option<String> {
    let path = side.split('\t').next()?.trim().split_once('/')?.1;
    let inside = !side.starts_with('/') && path.split('/').all(|part| !part.is_empty() && part != "..");
    inside.then(|| path.to_owned())
}

fn subject(lines: &[&str]) -> Option<String> {
    let at = lines.iter().position(|line| line.to_ascii_lowercase().starts_with("subject:"))?;
    let mut text = lines[at][8..].trim().to_owned();
    for more in lines[at + 1..].iter().take_while(|line| line.starts_with([' ', '\t'])) {
        text.push(' ');
        text.push_str(more.trim());
    }
    while text.starts_with('[')
        && let Some((_, rest)) = text.split_once(']')
    {
        text = rest.trim().to_owned();
    }
    Some(text)
}

/// The subsets of `count` patches that are judged: each non-empty one, in the series' order, those with fewer patches first.
pub(crate) fn subsets(count: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> =
        (1u32..1 << count).map(|bits| (0..count).filter(|at| bits >> at & 1 == 1).collect()).collect();
    all.sort_by_key(|subset: &Vec<usize>| (subset.len(), subset.clone()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBOX: &str = "From 0123456789 Mon Sep 17 00:00:00 2001\nSubject: [PATCH 0/2] cover\n\nwords\n\n\
        From 1123456789 Mon Sep 17 00:00:00 2001\nSubject: [PATCH 1/2] drm/pagemap: compare\n devices\n\n---\n a.c | 1 +\n\n\
        --- a/drivers/a.c\n+++ b/drivers/a.c\n@@ -1 +1,2 @@\n x\n+From here\n\n\
        From 2123456789 Mon Sep 17 00:00:00 2001\nSubject: [PATCH 2/2] second\n\n--- /dev/null\n+++ b/lib/new.c\n@@ -0,0 +1 @@\n+y\n";

    #[test]
    fn an_mbox_is_cut_into_its_patches() {
        let patches = split(MBOX, "x.mbox");
        let subjects: Vec<&str> = patches.iter().map(|patch| patch.subject.as_str()).collect();
        assert_eq!(subjects, ["drm/pagemap: compare devices", "second"]);
        assert_eq!(patches[0].files, ["drivers/a.c"]);
        assert_eq!(patches[1].files, ["lib/new.c"]);
    }

    #[test]
    fn a_patch_that_leads_out_of_the_tree_changes_nothing() {
        assert_eq!(split("--- a/../../etc/x\n+++ b/../../etc/x\n@@ -1 +1 @@\n", "x"), []);
    }

    #[test]
    fn a_rename_and_a_change_of_rights_are_patches() {
        let git = "diff --git a/mm/a.c b/mm/b.c\nsimilarity index 100%\nrename from mm/a.c\nrename to mm/b.c\n";
        assert_eq!(split(git, "x")[0].files, ["mm/a.c", "mm/b.c"]);
        let git = "diff --git a/mm/a.c b/mm/a.c\nold mode 100644\nnew mode 100755\n";
        assert_eq!(split(git, "x")[0].files, ["mm/a.c"]);
    }

    #[test]
    fn subsets_come_small_ones_first() {
        assert_eq!(subsets(2), [vec![0], vec![1], vec![0, 1]]);
        assert_eq!(subsets(5).len(), 31);
    }
}
