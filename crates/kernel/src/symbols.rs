//! What is left undefined when the tree's objects and the glue are put together: each such symbol becomes a trap that is known by
//! its name, so nothing is silently something else.

use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// What the glue takes of the C library. A kernel's function of another name that libc has, too, is trapped and not libc's.
const OF_LIBC: &[&str] = &[
    "malloc",
    "free",
    "vsnprintf",
    "snprintf",
    "strlen",
    "memmove",
    "memcpy",
    "memset",
    "memcmp",
    "strcmp",
    "strncmp",
    "strnlen",
    "strchr",
    "strerrorname_np",
];
/// Names that the linker, or the Rust half, gives.
const OF_OTHERS: &[&str] = &["__start_", "__stop_", "__real_", "kface_", "_GLOBAL_OFFSET_TABLE_"];
/// Data that means "off" where it is zero.
const ZERO: &[&str] = &["__tracepoint_"];
/// Traps lie here, 64K each: below 2 GiB, where a kernel's code can reach, and nothing else is.
const BASE: u64 = 0x6000_0000;
const TRAP: u64 = 1 << 16;

/// The undefined symbols of an object.
pub(crate) fn undefined(object: &Path) -> Result<Vec<String>> {
    let said = Command::new("nm").arg("-u").arg(object).env("LC_ALL", "C").output().context("cannot start nm")?;
    if !said.status.success() {
        bail!("nm refuses {}: {}", object.display(), String::from_utf8_lossy(&said.stderr));
    }
    let text = String::from_utf8_lossy(&said.stdout);
    let names = text.lines().filter_map(|line| line.split_whitespace().last());
    Ok(names.filter(|name| !is_given(name)).map(str::to_owned).collect())
}

fn is_given(name: &str) -> bool {
    OF_LIBC.contains(&name) || OF_OTHERS.iter().any(|start| name.starts_with(start))
}

fn is_zero(name: &str) -> bool {
    ZERO.iter().any(|start| name.starts_with(start))
}

/// Assembler that defines all of them.
pub(crate) fn stubs(names: &[String]) -> String {
    let mut text = String::from(".section .note.GNU-stack,\"\",@progbits\n.data\n");
    for name in names.iter().filter(|name| is_zero(name)) {
        let _ = writeln!(text, ".globl {name}\n.hidden {name}\n.balign 64\n{name}: .zero 256");
    }
    let traps: Vec<&String> = names.iter().filter(|name| !is_zero(name)).collect();
    for (at, name) in traps.iter().enumerate() {
        // Hidden: a library's call of libc's function of that name is not for the trap.
        let _ = writeln!(text, ".globl {name}\n.hidden {name}\n.set {name}, {}", BASE + at as u64 * TRAP);
    }
    text.push_str(".section .rodata\n");
    for (at, name) in traps.iter().enumerate() {
        let _ = writeln!(text, ".Lname{at}: .asciz \"{name}\"");
    }
    text.push_str(".balign 8\n.globl kface_traps, kface_trap_count, kface_trap_base\nkface_traps:\n");
    for at in 0..traps.len() {
        let _ = writeln!(text, ".quad .Lname{at}");
    }
    let _ = writeln!(text, "kface_trap_count: .quad {}\nkface_trap_base: .quad {BASE}", traps.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traps_have_addresses_of_their_own_and_tracepoints_are_off() {
        let names = ["__tracepoint_x", "schedule", "kill"].map(str::to_owned);
        let text = stubs(&names);
        assert!(text.contains("__tracepoint_x: .zero 256"));
        assert!(text.contains(".set schedule, 1610612736\n") && text.contains(".set kill, 1610678272\n"));
        assert!(text.contains("kface_trap_count: .quad 2"));
    }

    #[test]
    fn only_what_the_glue_takes_of_libc_is_libcs() {
        assert!(is_given("malloc") && is_given("kface_event"));
        assert!(!is_given("kill") && !is_given("sort"));
    }
}
