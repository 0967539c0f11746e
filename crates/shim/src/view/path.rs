//! Which paths are shown: a decision on bytes, without a lock or an allocation, for it stands before every open.
//!
//! A path is walked component by component until what was walked is one of the prefixes below; the rest is left to
//! the kernel, which resolves it inside the tree (its links are relative).

use super::FileSystem;

/// A path that is shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The path.
    pub path: &'static [u8],
    /// Where there is no device of this number, neither is there this path.
    pub device: u8,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A directory of the tree: `..` behind it leads out, to the real one.
    Directory,
    /// A symbolic link of the tree: `..` behind it is resolved where the link leads.
    Link,
    /// Shown only itself: what lies below is real, unless it has a prefix of its own.
    Alone,
}

macro_rules! prefix {
    ($kind:ident $device:literal $($path:literal)+) => {
        Prefix { path: concat!($($path),+).as_bytes(), device: $device, kind: Kind::$kind }
    };
}

/// What is of one device: its number, and that as a digit of the card, the render node, and its place on the bus.
macro_rules! of_device {
    ($device:literal $card:literal $render:literal $bus:literal) => {
        [
            prefix!(Link $device "/dev/char/226:" $card),
            prefix!(Link $device "/dev/char/226:" $render),
            prefix!(Link $device "/sys/dev/char/226:" $card),
            prefix!(Link $device "/sys/dev/char/226:" $render),
            prefix!(Directory $device "/sys/devices/pci0000:" $bus "c"),
            prefix!(Link $device "/sys/bus/pci/devices/0000:" $bus "d:00.0"),
            prefix!(Link $device "/sys/bus/pci/devices/0000:" $bus "c:01.0"),
        ]
    };
}

static OF_ALL: [Prefix; 8] = [
    prefix!(Directory 0 "/dev/dri"),
    prefix!(Alone 0 "/sys/class"),
    prefix!(Directory 0 "/sys/class/drm"),
    prefix!(Alone 0 "/sys/kernel/debug"),
    prefix!(Directory 0 "/sys/kernel/debug/dri"),
    prefix!(Alone 0 "/sys/bus/pci/devices"),
    prefix!(Alone 0 "/sys/bus/pci/drivers"),
    prefix!(Directory 0 "/sys/bus/pci/drivers/xe"),
];
static OF_DEVICES: [[Prefix; 7]; 4] = [
    of_device!(0 "0" "128" "4"),
    of_device!(1 "1" "129" "5"),
    of_device!(2 "2" "130" "6"),
    of_device!(3 "3" "131" "7"),
];
fn prefixes() -> impl Iterator<Item = &'static Prefix> {
    OF_ALL.iter().chain(OF_DEVICES.iter().flatten())
}

/// Whether a relative path may lead into the tree from a directory above it: `..`, or the name of something on the way there.
pub fn may_lead(path: &[u8]) -> bool {
    let Some((first, _)) = next_component(path, 0).filter(|_| path.first() != Some(&b'/')) else { return false };
    let on_the_way = |prefix: &Prefix| prefix.path.split(|byte| *byte == b'/').any(|name| name == first);
    first == b".." || prefixes().any(on_the_way)
}

/// What an absolute path means.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// Nothing of ours.
    Foreign,
    /// Below a prefix: the prefix, and the rest of the path as it was written.
    Shown(&'static Prefix, &'a [u8]),
    /// Out of a directory of the tree again, by `..`: this real path.
    Left(Walked),
    /// `/proc/self/fd/N` and its other names.
    Descriptor(i32),
}

/// Decides; relative paths are foreign here.
pub fn meaning(path: &[u8]) -> Meaning<'_> {
    if path.first() != Some(&b'/') {
        return Meaning::Foreign;
    }
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let inside = &path[start..];
    if !(inside.starts_with(b"dev") || inside.starts_with(b"sys") || inside.starts_with(b"proc")) {
        return Meaning::Foreign;
    }
    walk(path)
}

fn walk(path: &[u8]) -> Meaning<'_> {
    let mut walked = Walked::default();
    let (mut at, mut was_inside) = (0, false);
    while let Some((component, after)) = next_component(path, at) {
        at = after;
        match component {
            b".." => walked.pop(),
            _ if !walked.push(component) => return Meaning::Foreign,
            _ => {}
        }
        let Some(prefix) = prefixes().find(|prefix| prefix.path == walked.bytes()) else { continue };
        let rest = &path[at..];
        let matched = match (prefix.kind, next_component(rest, 0)) {
            (_, None) | (Kind::Link, _) => true,
            (Kind::Directory, Some((next, _))) => next != b"..",
            (Kind::Alone, Some(_)) => false,
        };
        if matched {
            return Meaning::Shown(prefix, rest);
        }
        was_inside |= prefix.kind == Kind::Directory;
    }
    if was_inside {
        return Meaning::Left(walked);
    }
    descriptor(walked.bytes()).map_or(Meaning::Foreign, Meaning::Descriptor)
}

/// The next component that is not `.`, and where it ends.
fn next_component(path: &[u8], mut at: usize) -> Option<(&[u8], usize)> {
    loop {
        at += path[at..].iter().position(|byte| *byte != b'/')?;
        let end = path[at..].iter().position(|byte| *byte == b'/').map_or(path.len(), |length| at + length);
        if &path[at..end] != b"." {
            return Some((&path[at..end], end));
        }
        at = end;
    }
}

/// N of `/proc/self/fd/N`, `/proc/thread-self/fd/N`, `/proc/<own pid>/fd/N`, `/dev/fd/N`.
fn descriptor(path: &[u8]) -> Option<i32> {
    let number = if let Some(rest) = path.strip_prefix(b"/dev/fd/") {
        rest
    } else {
        let rest = path.strip_prefix(b"/proc/")?;
        let slash = rest.iter().position(|byte| *byte == b'/')?;
        let (who, rest) = rest.split_at(slash);
        let is_self = who == b"self" || who == b"thread-self" || decimal(who) == Some(std::process::id());
        rest.strip_prefix(b"/fd/").filter(|_| is_self)?
    };
    decimal(number).and_then(|number| i32::try_from(number).ok())
}

/// A descriptor of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Of {
    /// The process; none: this one.
    pub process: Option<u32>,
    /// The descriptor's number.
    pub fd: i32,
}

/// Whose descriptor `/proc/self/fdinfo/N`, `/proc/PID/fdinfo/N` and their other names tell of.
pub fn fdinfo(path: &[u8]) -> Option<Of> {
    if !path.starts_with(b"/proc/") {
        return None;
    }
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    let process = fdinfo_of(&path[..slash])?;
    Some(Of { process, fd: number(&path[slash + 1..])? })
}

/// The process (none: this one) whose directory of descriptors a path is.
pub fn fdinfo_of(path: &[u8]) -> Option<Option<u32>> {
    let who = path.strip_prefix(b"/proc/").and_then(|rest| rest.strip_suffix(b"/fdinfo"))?;
    if who == b"self" || who == b"thread-self" {
        return Some(None);
    }
    decimal(who).map(|process| Some(process).filter(|process| *process != std::process::id()))
}

/// Which file system a path that is shown lies in.
pub fn file_system(path: &[u8]) -> Option<FileSystem> {
    let is_below =
        |folder: &[u8]| path.strip_prefix(folder).is_some_and(|rest| rest.first().is_none_or(|c| *c == b'/'));
    let all: [(&[u8], _); 4] = [
        (b"/sys/kernel/debug", FileSystem::Debugfs),
        (b"/sys", FileSystem::Sysfs),
        (b"/dev", FileSystem::Devices),
        (b"/proc", FileSystem::Proc),
    ];
    all.into_iter().find(|(folder, _)| is_below(folder)).map(|(_, of)| of)
}

/// A descriptor's number, if that is all of the path.
pub fn number(path: &[u8]) -> Option<i32> {
    decimal(path).and_then(|number| i32::try_from(number).ok())
}

fn decimal(digits: &[u8]) -> Option<u32> {
    let digits = Some(digits).filter(|digits| !digits.is_empty() && digits.len() <= 9)?;
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))
}

/// A path as walked so far, without `.`, `..` and double slashes. Longer ones than the room are none of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Walked {
    bytes: [u8; 128],
    length: usize,
}

impl Default for Walked {
    fn default() -> Self {
        Self { bytes: [0; 128], length: 0 }
    }
}

impl Walked {
    /// The path, absolute; empty for the root.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, component: &[u8]) -> bool {
        let end = self.length + 1 + component.len();
        let Some(room) = self.bytes.get_mut(self.length..end) else { return false };
        room[0] = b'/';
        room[1..].copy_from_slice(component);
        self.length = end;
        true
    }

    fn pop(&mut self) {
        self.length = self.bytes().iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_paths_are_found_however_they_are_written() {
        for (path, prefix, rest) in [
            ("/dev/dri", "/dev/dri", ""),
            ("//dev/./dri//card0", "/dev/dri", "//card0"),
            ("/dev/../dev/dri/card0", "/dev/dri", "/card0"),
            ("/sys/dev/char/226:0/device/tile0", "/sys/dev/char/226:0", "/device/tile0"),
            ("/sys/dev/char/226:128/..", "/sys/dev/char/226:128", "/.."),
            ("/sys/kernel/debug/.", "/sys/kernel/debug", "/."),
            ("/sys/class/drm/..", "/sys/class", ""),
            ("/sys/bus/pci/devices/", "/sys/bus/pci/devices", "/"),
            ("/sys/kernel/debug/dri/0/name", "/sys/kernel/debug/dri", "/0/name"),
        ] {
            let Meaning::Shown(found, left) = meaning(path.as_bytes()) else { panic!("{path} is foreign") };
            assert_eq!((found.path, left), (prefix.as_bytes(), rest.as_bytes()), "{path}");
        }
    }

    #[test]
    fn every_device_has_its_paths() {
        for device in 0..machine::profile::MAX_DEVICES as u8 {
            let slot = super::super::slot(device);
            let node = 128 + u32::from(device);
            for path in [format!("/sys/bus/pci/devices/{slot}/vendor"), format!("/sys/dev/char/226:{node}")] {
                let Meaning::Shown(prefix, _) = meaning(path.as_bytes()) else { panic!("{path} is foreign") };
                assert_eq!(prefix.device, device, "{path}");
            }
        }
    }

    #[test]
    fn a_path_says_which_file_system_it_is_in() {
        for (path, of) in [
            ("/sys/devices/pci0000:4c", Some(FileSystem::Sysfs)),
            ("/sys/kernel/debug/dri/0/name", Some(FileSystem::Debugfs)),
            ("/sys/kernel/debugger", Some(FileSystem::Sysfs)),
            ("/dev/dri/card0", Some(FileSystem::Devices)),
            ("/proc/self/fdinfo/3", Some(FileSystem::Proc)),
            ("/devices", None),
            ("pontoon-bo:1", None),
            ("", None),
        ] {
            assert_eq!(file_system(path.as_bytes()), of, "{path}");
        }
    }

    #[test]
    fn names_on_the_way_into_the_tree_are_few() {
        for path in ["sys", "./class/drm", "drm", "../class", "pci0000:6c/x", "226:131"] {
            assert!(may_lead(path.as_bytes()), "{path}");
        }
        for path in ["/sys", "home", "drm1", "", "226:7"] {
            assert!(!may_lead(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn other_paths_are_left_alone() {
        let paths = ["", "dev/dri", "/dev", "/dev/drip", "/sys/kernel/debug/..", "/home/dev/dri"];
        for path in
            paths.into_iter().chain(["/sys/kernel/debug/tracing", "/sys/class/net", "/proc/self/fd", "/proc/1/fd/x"])
        {
            assert_eq!(meaning(path.as_bytes()), Meaning::Foreign, "{path}");
        }
        let long = format!("/dev/{}", "x".repeat(5000));
        assert_eq!(meaning(long.as_bytes()), Meaning::Foreign);
    }

    #[test]
    fn the_tree_can_be_left() {
        for (path, real) in
            [("/dev/dri/../null", "/dev/null"), ("/sys/kernel/debug/dri/../tracing", "/sys/kernel/debug/tracing")]
        {
            let Meaning::Left(walked) = meaning(path.as_bytes()) else { panic!("{path} stays") };
            assert_eq!(walked.bytes(), real.as_bytes());
        }
    }

    #[test]
    fn descriptors_have_many_names() {
        let own = format!("/proc/{}/fd/7", std::process::id());
        for path in ["/proc/self/fd/7", "/proc/self//fd/./7", "/proc/thread-self/fd/7", "/dev/fd/7", &own] {
            assert_eq!(meaning(path.as_bytes()), Meaning::Descriptor(7), "{path}");
        }
        assert_eq!(meaning(b"/proc/self/fd/7/x"), Meaning::Foreign);
        let own = format!("/proc/{}/fdinfo/7", std::process::id());
        for path in ["/proc/self/fdinfo/7", "/proc/thread-self/fdinfo/7", &own] {
            let own = Some(Of { process: None, fd: 7 });
            assert_eq!((fdinfo(path.as_bytes()), meaning(path.as_bytes())), (own, Meaning::Foreign), "{path}");
        }
        assert_eq!(fdinfo(b"/proc/1/fdinfo/7"), Some(Of { process: Some(1), fd: 7 }));
        for path in ["/proc/self/fdinfo", "/proc/self/fdinfo/", "/proc/self/fdinfo/7/", "/proc/x/fdinfo/7", "7"] {
            assert_eq!(fdinfo(path.as_bytes()), None, "{path}");
        }
    }
}
