//! Changes of a tree's files, found by pattern: a patch is made of them against whatever release the tree is. So no text of the
//! kernel but the few words that are looked for is part of the project.
#![allow(clippy::disallowed_types, reason = "outside of what the checker controls")]

pub mod remedy;

use kernel::series::Patch;
use std::path::Path;
use std::process::Command;

/// One change: behind the first `behind` of `file`, the first `find` becomes `put`.
#[derive(Clone, Copy)]
pub struct Edit {
    pub file: &'static str,
    pub behind: &'static str,
    pub find: &'static str,
    pub put: &'static str,
}

#[allow(dead_code, reason = "not all that take this edit it")]
pub const PAGEMAP: &str = "drivers/gpu/drm/drm_pagemap.c";
#[allow(dead_code, reason = "not all that take this edit it")]
pub const GPUSVM: &str = "drivers/gpu/drm/drm_gpusvm.c";
#[allow(dead_code, reason = "not all that take this edit it")]
pub const XE_SVM: &str = "drivers/gpu/drm/xe/xe_svm.c";

/// A patch of all edits, each of which must find its place.
pub fn patch(tree: &Path, subject: &str, edits: &[Edit]) -> Patch {
    patch_behind(tree, subject, &[], edits)
}

/// The same, against a tree that has the edits `before` already.
pub fn patch_behind(tree: &Path, subject: &str, before: &[Edit], edits: &[Edit]) -> Patch {
    let mut files: Vec<&str> = edits.iter().map(|edit| edit.file).collect();
    files.sort_unstable();
    files.dedup();
    let text = files.iter().map(|file| difference(tree, file, before, edits)).collect();
    Patch { subject: subject.to_owned(), text, files: files.into_iter().map(str::to_owned).collect() }
}

fn difference(tree: &Path, file: &str, before: &[Edit], edits: &[Edit]) -> String {
    let of_file = |edits: &'_ [Edit], text: String| {
        edits.iter().filter(|edit| edit.file == file).fold(text, |text, edit| changed(&text, edit))
    };
    let old = of_file(before, std::fs::read_to_string(tree.join(file)).expect("a file of the tree"));
    let new = of_file(edits, old.clone());
    let dir = tempfile::tempdir().expect("a folder");
    let [a, b] = [("a", old), ("b", new)].map(|(name, text)| {
        std::fs::write(dir.path().join(name), text).expect("written");
        dir.path().join(name)
    });
    let said = Command::new("diff")
        .args(["-u", "--label", &format!("a/{file}"), "--label", &format!("b/{file}")])
        .args([a, b])
        .output();
    String::from_utf8(said.expect("diff").stdout).expect("text")
}

fn changed(text: &str, edit: &Edit) -> String {
    let start = text.find(edit.behind).unwrap_or_else(|| panic!("{} has no {:?}", edit.file, edit.behind));
    let at = text[start..].find(edit.find).unwrap_or_else(|| panic!("{} has no {:?} there", edit.file, edit.find));
    let at = start + at;
    format!("{}{}{}", &text[..at], edit.put, &text[at + edit.find.len()..])
}
