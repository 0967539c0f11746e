//! What can be known of a program before it starts: whether the preload library will be in it.
//!
//! The dynamic linker loads the library into 64-bit programs that have a dynamic linker and no rights of another user. Others
//! run as they always do, and a line says that they will see no device.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why a program will see no device, as the end of a sentence; `None` where nothing speaks against it.
pub fn why_without_device(program: &OsStr) -> Option<&'static str> {
    let path = find(program)?;
    let file = File::open(&path).ok()?;
    let about = file.metadata().ok()?;
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let is_anothers =
        (about.mode() & 0o4000 != 0 && about.uid() != user) || (about.mode() & 0o2000 != 0 && about.gid() != group);
    if is_anothers {
        return Some("it runs with the rights of another user (setuid), and the dynamic linker loads nothing into it");
    }
    if !rustix::process::getuid().is_root() && has_capabilities(&file) {
        return Some("it has capabilities of its own (setcap), and the dynamic linker loads nothing into it");
    }
    of_elf(&file)
}

/// Whether a program's file gives it capabilities: then it runs as one that is setuid, but for root.
fn has_capabilities(file: &File) -> bool {
    rustix::fs::fgetxattr(file, "security.capability", &mut [0u8; 64]).is_ok_and(|bytes| bytes > 0)
}

/// As execvp finds it.
fn find(program: &OsStr) -> Option<PathBuf> {
    if Path::new(program).components().count() > 1 || program.is_empty() {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|place| place.is_file())
}

/// Why a program that is there cannot be found by `execve`: what it names to run it is not there. `None` where it is not there itself.
pub fn missing_interpreter(program: &OsStr) -> Option<String> {
    let mut head = [0; 256];
    let got = File::open(find(program)?).and_then(|file| file.read_at(&mut head, 0)).ok()?;
    let Some(line) = head[..got].strip_prefix(b"#!") else {
        return Some("the dynamic linker that it names is not there (readelf -l shows its name)".into());
    };
    let line = String::from_utf8_lossy(line);
    let name = line.lines().next().and_then(|line| line.split_whitespace().next()).unwrap_or_default();
    Some(format!("its interpreter '{name}' is not there"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_and_without_a_dynamic_linker_are_told_apart() {
        assert_eq!(why_without_device(OsStr::new("sh")), None);
        assert_eq!(why_without_device(OsStr::new("/nonexistent")), None);
        let dir = tempfile::tempdir().expect("a folder");
        let place = dir.path().join("program");
        let mut file = std::fs::read("/proc/self/exe").expect("this program");
        file[4] = 1;
        std::fs::write(&place, &file).expect("a file");
        assert!(why_without_device(place.as_os_str()).is_some_and(|why| why.contains("32-bit")));
        file[4] = 2;
        file[56..58].fill(0);
        std::fs::write(&place, &file).expect("a file");
        assert!(why_without_device(place.as_os_str()).is_some_and(|why| why.contains("statically")));
        std::fs::write(&place, "#!/bin/sh\n").expect("a file");
        assert_eq!(why_without_device(place.as_os_str()), None);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = dir.path().join("script");
        assert_eq!(missing_interpreter(place.as_os_str()), None);
        std::fs::write(&place, "#! /no/such/shell -e\nexit\n").expect("a file");
        let why = missing_interpreter(place.as_os_str());
        assert_eq!(why.as_deref(), Some("its interpreter '/no/such/shell' is not there"));
        std::fs::write(&place, "\x7fELF").expect("a file");
        assert!(missing_interpreter(place.as_os_str()).is_some_and(|why| why.contains("dynamic linker")));
    }
}
