//! What the environment asks for: set by `pontoon run`, or by hand.
//!
//! | variable | meaning |
//! |---|---|
//! | `PONTOON_DEVICE` | the device: a built-in one by its name, or a profile as JSON with the keys of `docs/profiles.md`; empty: `pvc-2t` |
//! | `PONTOON_BEHAVIOUR` | variants of named behaviours, `a=upstream,b=posted`; empty: the correct ones |
//! | `PONTOON_MODE` | `auto` (default) or `no-move`: never use UFFDIO_MOVE |
//! | `PONTOON_HOSTILE` | `1`: start the machine at load and move the program's memory about |
//! | `PONTOON_REPORT` | file to which every process appends one line of JSON when it ends |
//! | `PONTOON_RUN` | folder of a run, in which its processes note what was said and done: `pontoon run` makes it |
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
    /// The device; the machine knows whether it can be.
    pub device: Profile,
    /// Text of `PONTOON_BEHAVIOUR`; the machine knows the names.
    pub behaviour: String,
    /// How pages travel.
    pub mode: Mode,
    /// Move memory that no GPU asked for.
    pub hostile: bool,
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
        let device = device(&env)?;
        let behaviour = env("PONTOON_BEHAVIOUR").unwrap_or_default();
        Ok(Self { device, behaviour, mode, hostile: is_hostile(env("PONTOON_HOSTILE")) })
    }
}

/// The device that the environment asks for.
fn device(env: impl Fn(&str) -> Option<String>) -> Result<Profile, String> {
    let refused = |why: String| format!("PONTOON_DEVICE: {why}");
    match env("PONTOON_DEVICE").as_deref() {
        None | Some("") => Ok(Profile::default()),
        Some(json) if json.starts_with('{') => serde_json::from_str(json).map_err(|error| refused(error.to_string())),
        Some(name) => Profile::named(name).map_err(refused),
    }
}

/// What the device's files tell of it. Where no device can be, they tell of the default one: who opens it is told why.
pub fn identity() -> Identity {
    let asked = device(libc_calls::env).unwrap_or_default();
    let platform = asked.platform().or_else(|_| Profile::default().platform());
    platform.map(Identity::of).unwrap_or_default()
}

/// Whether the machine is to start at load.
pub fn hostile() -> bool {
    is_hostile(libc_calls::env("PONTOON_HOSTILE"))
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
            Config { device: Profile::default(), behaviour: String::new(), mode: Mode::Auto, hostile: false }
        );
        let set = |name: &str| match name {
            "PONTOON_MODE" => Some("no-move".to_string()),
            "PONTOON_BEHAVIOUR" => Some("a=upstream".to_string()),
            "PONTOON_HOSTILE" => Some("1".to_string()),
            "PONTOON_DEVICE" => Some(r#"{"tiles":3,"vram":"64M"}"#.to_string()),
            _ => None,
        };
        let set = Config::parse(set).expect("valid");
        let device = Profile { tiles: 3, vram: Size(64 << 20), ..Profile::default() };
        assert_eq!(set, Config { device, behaviour: "a=upstream".into(), mode: Mode::NoMove, hostile: true });
        let refused = |variable: &str, text: &str| {
            Config::parse(|name| (name == variable).then(|| text.to_owned())).expect_err("nonsense")
        };
        assert!(refused("PONTOON_MODE", "fast").contains("neither auto nor no-move"));
        assert!(refused("PONTOON_DEVICE", "bmg").contains("there are pvc-2t"));
        assert!(refused("PONTOON_DEVICE", r#"{"tyles":1}"#).contains("unknown field `tyles`, expected one of `name`"));
    }
}
