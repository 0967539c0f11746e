//! Programs that the preload library will not be in, by their files: they see no device.
//!
//! The dynamic linker loads the library into 64-bit programs that have a dynamic linker and no rights of another user. Others
//! run as they always do. Command and library say so before such a program starts.
//!
//! Locking: none.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why a program will see no device, as the end of a sentence; `None` where nothing speaks against it. `ids` are the user and the
/// group that start it.
pub fn why(program: &Path, ids: (u32, u32)) -> Option<&'static str> {
    let file = File::open(program).ok()?;
    let about = file.metadata().ok()?;
    let (user, group) = ids;
    let is_anothers =
        (about.mode() & 0o4000 != 0 && about.uid() != user) || (about.mode() & 0o2000 != 0 && about.gid() != group);
    if is_anothers {
        return Some("it runs with the rights of another user (setuid), and the dynamic linker loads nothing into it");
    }
    if is_dynamic_linker(program) { None } else { of_elf(&file) }
}

/// Where libc looks in an environment without `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The file of a program, as execvp finds it.
pub fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') || program.is_empty() {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|place| is_program(place))
}

/// Whether it is a file that somebody may execute.
pub fn is_program(place: &Path) -> bool {
    place.metadata().is_ok_and(|about| about.is_file() && about.mode() & 0o111 != 0)
}

/// By its name: it names no dynamic linker, as it is one, and loads the library with the program that it is given.
fn is_dynamic_linker(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("ld") && name.contains(".so")
}

const INTERPRETER: u32 = 3;

fn of_elf(file: &File) -> Option<&'static str> {
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0).ok()?;
    if head[..4] != *b"\x7fELF" {
        return None;
    }
    if head[4] != 2 {
        return Some("it is a 32-bit program, and the library has 64 bits");
    }
    let half = |at: usize| u64::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let table = u64::from_le_bytes(head[32..40].try_into().ok()?);
    let is_dynamic = (0..half(56)).any(|index| {
        let mut kind = [0; 4];
        let at = table.checked_add(index * half(54));
        at.is_some_and(|at| file.read_exact_at(&mut kind, at).is_ok()) && u32::from_le_bytes(kind) == INTERPRETER
    });
    (!is_dynamic).then_some("it is statically linked, and calls the kernel without a library in between")
}
