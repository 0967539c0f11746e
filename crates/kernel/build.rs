//! Tells where the Rust half of runners is, which goes inside of a release build: so a command that was copied or installed works
//! by itself. A debug build has it beside itself.
//!
//! Cargo has built it when it compiles this crate, as a dependency: but not yet when it runs this script, and not at all where it
//! only checks. So there is an empty file in its place until then.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::{env, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names it"));
    let library = if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        // OUT_DIR is PROFILE/build/NAME/out.
        out.ancestors().nth(3).expect("cargo's layout").join("deps/libpontoon_kface.so")
    } else {
        out.join("no-library")
    };
    match OpenOptions::new().write(true).create_new(true).open(&library) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    println!("cargo::rustc-env=PONTOON_KFACE={}", library.display());
    Ok(())
}
