//! The rules of userfaultfd, one case each, on the model and on the real kernel.
//!
//! `cases` is the table: scripts of steps with what is to be seen. `script` has their words and plays them; `model` and
//! `real` are who they are played to. `docs/userfaultfd.md` names every case beside its rule.

mod cases;
mod model;
mod real;
mod script;

#[test]
fn the_document_names_every_case() {
    let document = include_str!("../../../../docs/userfaultfd.md");
    for case in cases::all() {
        assert!(document.contains(&format!("`{}`", case.name)), "docs/userfaultfd.md does not name {}", case.name);
    }
}
