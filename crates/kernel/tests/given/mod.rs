//! The kernel tree that `KERNEL_TREE=DIR` names, with what was built of it.

use kernel::{Interrupt, Kit, Workshop};
use std::io::Write;
use std::path::PathBuf;

/// The tree and its workshop. Where none is named that is said, with what was not done.
pub fn tree(not_done: &str) -> Option<(PathBuf, Workshop)> {
    let Some(tree) = std::env::var_os("KERNEL_TREE").map(PathBuf::from) else {
        // Not by a macro: what these say is shown of a test that fails only.
        let _ = writeln!(std::io::stderr(), "SKIPPED: KERNEL_TREE=DIR names no kernel tree; {not_done}");
        return None;
    };
    let shop = Workshop::open(&tree, Kit::xe(), &Interrupt::default()).expect("a tree and tools");
    shop.build().expect("built");
    Some((tree, shop))
}
