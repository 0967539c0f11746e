//! What the environment asks for: set by `pontoon run`, or by hand.
//!
//! | variable | meaning |
//! |---|---|
//! | `PONTOON_DEVICE` | the devices: a built-in one by its name, or as JSON a profile with the keys of `docs/profiles.md` or a list of them; empty: `pvc-2t` |
//! | `PONTOON_BEHAVIOUR` | variants of named behaviours, `a=upstream,b=posted`; empty: the correct ones |
//! | `PONTOON_MODE` | `auto` (default) or `no-move`: never use UFFDIO_MOVE |
//! | `PONTOON_HOSTILE` | `1`: start the machine at load and move the program's memory about |
//! | `PONTOON_REPORT` | file to which every process appends one line of JSON when it ends |
//! | `PONTOON_RUN` | folder of a run, in which its processes note what was said and done: `pontoon run` makes it |
//! | `PONTOON_RECORD` | not empty: the report has every event in order |
//! | `PONTOON_QUIET` | not empty: what is limited is not said |
//! | `PONTOON_ROOT` | folder in which the tree behind `/dev/dri` is kept; where it is of no use: one of the process's own, removed at exit |

use crate::device::Identity;
use crate::libc_calls;
use machine::profile::Profile;

/// How pages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// By UFFDIO_MOVE where the kernel has it.
    Auto,
    /// By copying only, as on kernels without UFFDIO_MOVE.
    NoMove,
}

/// What the machine is started with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The devices; the machine knows whether they can be.
    pub devices: Vec<Profile>,
    /// Text of `PONTOON_BEHAVIOUR`; the machine knows the names.
    pub behaviour: String,
    /// How pages travel.
    pub mode: Mode,
    /// Move memory that no GPU asked for.
    pub hostile: bool,
    /// Keep all events in order.
    pub records: bool,
}

impl Config {
    /// Reads the environment; the error is a sentence for the user.
    pub fn from_env() -> Result<Self, String> {
        Self::parse(libc_calls::env)
    }

    fn parse(env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mode = match env("PONTOON_MODE").as_deref() {
            None | Some("" | "auto") => Mode::Auto,
            Some("no-move") => Mode::NoMove,
            Some(other) => return Err(format!("PONTOON_MODE={other} is neither auto nor no-move")),
        };
        let devices = devices(&env)?;
        let behaviour = env("PONTOON_BEHAVIOUR").unwrap_or_default();
        let records = env("PONTOON_RECORD").is_some_and(|value| !value.is_empty());
        Ok(Self { devices, behaviour, mode, hostile: is_hostile(env("PONTOON_HOSTILE")), records })
    }
}

/// The devices that the environment asks for.
fn devices(env: impl Fn(&str) -> Option<String>) -> Result<Vec<Profile>, String> {
    let asked = match env("PONTOON_DEVICE").as_deref() {
        None | Some("") => Ok(vec![Profile::default()]),
        Some(json) if json.starts_with('[') => serde_json::from_str(json).map_err(|error| error.to_string()),
        Some(json) if json.starts_with('{') => {
            serde_json::from_str(json).map(|one| vec![one]).map_err(|error| error.to_string())
        }
        Some(name) => Profile::named(name).map(|one| vec![one]),
    };
    let counted = asked.and_then(|devices| Profile::count(&devices).map(|()| devices));
    counted.map_err(|why| format!("PONTOON_DEVICE: {why}"))
}

/// What the devices' files tell of them. Where there can be no such device, they tell of the default one: who opens it is told why.
pub fn identities() -> Vec<Identity> {
    let asked = devices(libc_calls::env).unwrap_or_else(|_| vec![Profile::default()]);
    let platform = |profile: &Profile| profile.platform().or_else(|_| Profile::default().platform());
    asked.iter().map(|profile| platform(profile).map(Identity::of).unwrap_or_default()).collect()
}

/// Whether the machine is to start at load.
pub fn hostile() -> bool {
    is_hostile(libc_calls::env("PONTOON_HOSTILE"))
}

/// Whether pages of a machine in this process will be copied.
pub fn copies() -> bool {
    libc_calls::env("PONTOON_MODE").as_deref() == Some("no-move")
}

/// Whether valgrind runs this program: it loads a library of its own before ours.
pub fn is_under_valgrind() -> bool {
    libc_calls::env_bytes("LD_PRELOAD").is_some_and(|list| list.windows(15).any(|part| part == b"vgpreload_core-"))
}

fn is_hostile(value: Option<String>) -> bool {
    matches!(value.as_deref(), Some("1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::profile::Size;

    #[test]
    fn words_are_understood_or_refused() {
        let none = Config::parse(|_| None).expect("defaults");
        assert_eq!(
            none,
            Config {
                devices: vec![Profile::default()],
                behaviour: String::new(),
                mode: Mode::Auto,
                hostile: false,
                records: false
            }
        );
        let set = |name: &str| match name {
            "PONTOON_MODE" => Some("no-move".to_string()),
            "PONTOON_BEHAVIOUR" => Some("a=upstream".to_string()),
            "PONTOON_HOSTILE" | "PONTOON_RECORD" => Some("1".to_string()),
            "PONTOON_DEVICE" => Some(r#"{"tiles":3,"vram":"64M"}"#.to_string()),
            _ => None,
        };
        let set = Config::parse(set).expect("valid");
        let device = Profile { tiles: 3, vram: Size(64 << 20), ..Profile::default() };
        let devices = vec![device];
        let behaviour = "a=upstream".into();
        assert_eq!(set, Config { devices, behaviour, mode: Mode::NoMove, hostile: true, records: true });
        let two = Config::parse(|name| (name == "PONTOON_DEVICE").then(|| r#"[{},{"tiles":1}]"#.to_owned()));
        let tiles: Vec<_> = two.expect("two devices").devices.iter().map(|device| device.tiles).collect();
        assert_eq!(tiles, [2, 1]);
        let refused = |variable: &str, text: &str| {
            Config::parse(|name| (name == variable).then(|| text.to_owned())).expect_err("nonsense")
        };
        assert!(refused("PONTOON_MODE", "fast").contains("neither auto nor no-move"));
        assert!(refused("PONTOON_DEVICE", "[]").contains("1 to 4 devices"));
        assert!(refused("PONTOON_DEVICE", "dg2").contains("there are pvc-2t"));
        assert!(refused("PONTOON_DEVICE", r#"{"tyles":1}"#).contains("unknown field `tyles`, expected one of `name`"));
    }
}
