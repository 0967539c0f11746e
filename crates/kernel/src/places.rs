//! Places in the tree's code: file and line of an address in a runner, by binutils' addr2line.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Asks about a runner's addresses, each once.
#[derive(Default)]
pub(crate) struct Places {
    runner: PathBuf,
    known: RefCell<BTreeMap<u64, String>>,
}

impl Places {
    pub(crate) fn of(runner: &Path) -> Self {
        Self { runner: runner.to_owned(), known: RefCell::default() }
    }

    /// Asks about many at once.
    pub(crate) fn learn(&self, addresses: impl IntoIterator<Item = u64>) {
        let mut all: Vec<u64> = addresses.into_iter().filter(|at| !self.known.borrow().contains_key(at)).collect();
        all.sort_unstable();
        all.dedup();
        for some in all.chunks(500) {
            // A return address is behind the call.
            let words = some.iter().map(|at| format!("{:x}", at.saturating_sub(1)));
            let said = Command::new("addr2line").args(["-a", "-i", "-e"]).arg(&self.runner).args(words).output();
            let text = said.map_or(String::new(), |said| String::from_utf8_lossy(&said.stdout).into_owned());
            let mut known = self.known.borrow_mut();
            let answers = answers(&text).into_iter().chain(std::iter::repeat(String::new()));
            known.extend(some.iter().copied().zip(answers));
        }
    }

    /// "drm_gpusvm.c:1044"; empty where nothing is known.
    pub(crate) fn at(&self, address: u64) -> String {
        self.learn([address]);
        self.known.borrow().get(&address).cloned().unwrap_or_default()
    }
}

/// A place for each address: of inlined functions of headers, the source that they are in.
fn answers(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("0x") {
            all.push(String::new());
        } else if let Some(place) = all.last_mut()
            && !place.contains(".c:")
        {
            *place = short(line);
        }
    }
    all
}

fn short(line: &str) -> String {
    let line = line.split(" (").next().unwrap_or(line);
    if line.starts_with('?') { String::new() } else { line.rsplit('/').next().unwrap_or(line).to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_and_a_line() {
        assert_eq!(short("/t/drivers/gpu/drm/drm_gpusvm.c:1044 (discriminator 2)"), "drm_gpusvm.c:1044");
        assert_eq!(short("??:0"), "");
        let inlined = "0x10\n/t/include/linux/atomic.h:23\n/t/mm/hmm.c:7\n/t/mm/hmm.c:90\n0x20\n??:0\n";
        assert_eq!(answers(inlined), ["hmm.c:7", ""]);
    }
}
