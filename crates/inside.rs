//! A module of build scripts: the library that goes inside of a release build.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::{env, io};

/// Tells the crate, by an environment variable, where the library of that name lies, which goes inside of a release build: so a
/// command that was copied or installed works by itself. A debug build has it beside itself, and is told of an empty file.
///
/// Cargo has built the library when it compiles the crate, as a dependency of it: but not yet when it runs this script, and not at
/// all where it only checks. So there is an empty file in its place until then.
pub fn tell(library: &str, variable: &str) -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../inside.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names it"));
    let library = if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        // OUT_DIR is PROFILE/build/NAME/out.
        out.ancestors().nth(3).expect("cargo's layout").join("deps").join(library)
    } else {
        out.join("no-library")
    };
    match OpenOptions::new().write(true).create_new(true).open(&library) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    println!("cargo::rustc-env={variable}={}", library.display());
    Ok(())
}
