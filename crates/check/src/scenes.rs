//! The built-in scenes: the texts of the folder `scenes`, in the order of their names.

use crate::script::{Script, ScriptError};
use std::sync::Arc;

/// All of them: name and text.
pub const ALL: &[(&str, &str)] = &[
    ("binds", include_str!("../../../scenes/binds.scene")),
    ("block", include_str!("../../../scenes/block.scene")),
    ("guests", include_str!("../../../scenes/guests.scene")),
    ("movers", include_str!("../../../scenes/movers.scene")),
    ("owners", include_str!("../../../scenes/owners.scene")),
    ("wide", include_str!("../../../scenes/wide.scene")),
];

/// All of them, read.
pub fn all() -> Vec<Arc<Script>> {
    ALL.iter().filter_map(|(name, _)| named(name).ok()).collect()
}

/// A built-in scene by its name.
///
/// # Errors
/// There is none of that name; the message lists those that are.
pub fn named(name: &str) -> Result<Arc<Script>, String> {
    let scene = ALL.iter().find(|scene| scene.0 == name);
    let (name, text) = scene.ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|scene| scene.0).collect();
        format!("there is no scene '{name}'; there are: {}", names.join(", "))
    })?;
    Script::parse(name, text).map(Arc::new).map_err(|error: ScriptError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_can_be_read_and_says_what_it_shows() {
        for (name, _) in ALL {
            let script = named(name).unwrap_or_else(|error| panic!("{error}"));
            assert!(!script.shows.is_empty(), "{name}");
        }
        assert!(ALL.is_sorted() && all().len() == ALL.len());
    }
}
