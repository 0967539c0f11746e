//! Tells where the preload library is that goes inside the command, so that a command that was copied or installed works by
//! itself. A debug build has no need of that: its library lies beside it.
//!
//! Cargo has built the library when it compiles the command, as a dependency of it: but not yet when it runs this script, and
//! not at all where it only checks. So there is an empty file in its place until then.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::{env, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names it"));
    let library = if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        // OUT_DIR is PROFILE/build/NAME/out.
        out.ancestors().nth(3).expect("cargo's layout").join("deps/libpontoon_shim.so")
    } else {
        out.join("no-library")
    };
    match OpenOptions::new().write(true).create_new(true).open(&library) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    println!("cargo::rustc-env=PONTOON_LIBRARY={}", library.display());
    Ok(())
}
