//! What the environment asks for: set by `pontoon run`, or by hand.
//!
//! | variable | meaning |
//! |---|---|
//! | `PONTOON_BEHAVIOUR` | variants of named behaviours, `a=upstream,b=posted`; empty: the correct ones |
//! | `PONTOON_MODE` | `auto` (default) or `no-move`: never use UFFDIO_MOVE |
//! | `PONTOON_HOSTILE` | `1`: start the machine at load and move the program's memory about |
//! | `PONTOON_REPORT` | file to which every process appends one line of JSON when it ends |
//! | `PONTOON_ROOT` | folder in which the tree behind `/dev/dri` is kept; where it is of no use: one of the process's own, removed at exit |

use crate::libc_calls;

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
        let behaviour = env("PONTOON_BEHAVIOUR").unwrap_or_default();
        Ok(Self { behaviour, mode, hostile: is_hostile(env("PONTOON_HOSTILE")) })
    }
}

/// Whether the machine is to start at load.
pub fn hostile() -> bool {
    is_hostile(libc_calls::env("PONTOON_HOSTILE"))
}

fn is_hostile(value: Option<String>) -> bool {
    matches!(value.as_deref(), Some("1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_or_refused() {
        let none = Config::parse(|_| None).expect("defaults");
        assert_eq!(none, Config { behaviour: String::new(), mode: Mode::Auto, hostile: false });
        let set = |name: &str| match name {
            "PONTOON_MODE" => Some("no-move".to_string()),
            "PONTOON_BEHAVIOUR" => Some("a=upstream".to_string()),
            "PONTOON_HOSTILE" => Some("1".to_string()),
            _ => None,
        };
        let set = Config::parse(set).expect("valid");
        assert_eq!(set, Config { behaviour: "a=upstream".into(), mode: Mode::NoMove, hostile: true });
        assert!(Config::parse(|name| (name == "PONTOON_MODE").then(|| "fast".into())).is_err());
    }
}
