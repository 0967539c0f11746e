//! What can be known of a program before it starts: whether the preload library will be in it, and why it cannot start.

use machine::unseen;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Why a program will see no device, as the end of a sentence; `None` where nothing speaks against it.
pub fn why_without_device(program: &OsStr) -> Option<&'static str> {
    let path = unseen::find(program)?;
    let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let capable = "it has capabilities of its own (setcap), and the dynamic linker loads nothing into it";
    unseen::why(&path, ids).or_else(|| has_capabilities(&path).then_some(capable))
}

/// Whether a program's file gives it capabilities: then it runs as one that is setuid, but for root.
fn has_capabilities(path: &Path) -> bool {
    let is_root = rustix::process::getuid().is_root();
    !is_root && rustix::fs::getxattr(path, "security.capability", &mut [0u8; 64]).is_ok_and(|bytes| bytes > 0)
}

/// Why a program that is there cannot be found by `execve`: what it names to run it is not there. `None` where it is not there itself.
pub fn missing_interpreter(program: &OsStr) -> Option<String> {
    let mut head = [0; 256];
    let got = File::open(unseen::find(program)?).and_then(|file| file.read_at(&mut head, 0)).ok()?;
    let Some(line) = head[..got].strip_prefix(b"#!") else {
        return Some("the dynamic linker that it names is not there (readelf -l shows its name)".into());
    };
    let line = String::from_utf8_lossy(line);
    let name = line.lines().next().and_then(|line| line.split_whitespace().next()).unwrap_or_default();
    Some(format!("its interpreter '{name}' is not there"))
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
        // The dynamic linker itself has none, and loads the library.
        let linker = dir.path().join("ld-linux-x86-64.so.2");
        std::fs::copy(&place, &linker).expect("a copy");
        assert_eq!(why_without_device(linker.as_os_str()), None);
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
