//! Chores of the project: `cargo xtask ci` is the whole of CI, `cargo xtask tidy` its rules about the tree, `cargo xtask
//! mutants` asks how many planted mistakes the check finds.
#![forbid(unsafe_code)]

mod mutants;
mod tidy;

use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        ["ci"] => ci(true),
        ["ci", "--no-tests"] => ci(false),
        ["tidy"] => tidy::check(&root()),
        ["mutants", ref names @ ..] => mutants::run(&root(), names),
        _ => Err(anyhow!("usage: cargo xtask ci [--no-tests] | tidy | mutants [--list] [LAYER | LAYER/NAME]...")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything CI runs; without the tests where they were run before, by the README's own command.
fn ci(with_tests: bool) -> Result<()> {
    tidy::check(&root())?;
    cargo(&root(), &["fmt", "--all", "--", "--check"])?;
    cargo(&root(), &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    if with_tests {
        cargo(&root(), &["test", "--workspace"])?;
    }
    cargo(&root(), &["doc", "--workspace", "--no-deps"])?;
    no_std()?;
    println!("ci: all passed{}", if with_tests { "" } else { ", without the tests" });
    Ok(())
}

/// Links the engine into a program that has no std, so that "no_std" is more than a word at the top of a file.
fn no_std() -> Result<()> {
    cargo(&root().join("xtask/no-std"), &["build", "--release", "--target-dir", "../../target/no-std"])
}

fn cargo(dir: &Path, args: &[&str]) -> Result<()> {
    println!("ci: cargo {}", args.join(" "));
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(dir);
    if args[0] == "doc" {
        command.env("RUSTDOCFLAGS", "-D warnings");
    }
    let status = command.status().with_context(|| format!("cannot start cargo {}", args[0]))?;
    if !status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_path_buf()
}
