//! The built-in scenes: the texts of the folder `scenes`, in the order of their names.

use crate::script::{Script, ScriptError};
use std::sync::Arc;

/// All of them: name and text.
pub const ALL: &[(&str, &str)] = &[
    ("a-1", include_str!("../../../scenes/a-1.scene")),
    ("a-2", include_str!("../../../scenes/a-2.scene")),
    ("a-3", include_str!("../../../scenes/a-3.scene")),
    ("a-4", include_str!("../../../scenes/a-4.scene")),
    ("a-5", include_str!("../../../scenes/a-5.scene")),
    ("a-6", include_str!("../../../scenes/a-6.scene")),
    ("a-not", include_str!("../../../scenes/a-not.scene")),
    ("a-not-2", include_str!("../../../scenes/a-not-2.scene")),
    ("ahead", include_str!("../../../scenes/ahead.scene")),
    ("all-gone", include_str!("../../../scenes/all-gone.scene")),
    ("b-1", include_str!("../../../scenes/b-1.scene")),
    ("b-2", include_str!("../../../scenes/b-2.scene")),
    ("b-3", include_str!("../../../scenes/b-3.scene")),
    ("b-4", include_str!("../../../scenes/b-4.scene")),
    ("b-5", include_str!("../../../scenes/b-5.scene")),
    ("b-6", include_str!("../../../scenes/b-6.scene")),
    ("b-7", include_str!("../../../scenes/b-7.scene")),
    ("b-7-2", include_str!("../../../scenes/b-7-2.scene")),
    ("b-8", include_str!("../../../scenes/b-8.scene")),
    ("b-not", include_str!("../../../scenes/b-not.scene")),
    ("barred", include_str!("../../../scenes/barred.scene")),
    ("behind", include_str!("../../../scenes/behind.scene")),
    ("block", include_str!("../../../scenes/block.scene")),
    ("both-tiles", include_str!("../../../scenes/both-tiles.scene")),
    ("bound", include_str!("../../../scenes/bound.scene")),
    ("c-1", include_str!("../../../scenes/c-1.scene")),
    ("c-2", include_str!("../../../scenes/c-2.scene")),
    ("c-3", include_str!("../../../scenes/c-3.scene")),
    ("collect", include_str!("../../../scenes/collect.scene")),
    ("collectors", include_str!("../../../scenes/collectors.scene")),
    ("copy-fails", include_str!("../../../scenes/copy-fails.scene")),
    ("cut", include_str!("../../../scenes/cut.scene")),
    ("d-1", include_str!("../../../scenes/d-1.scene")),
    ("d-10", include_str!("../../../scenes/d-10.scene")),
    ("d-11", include_str!("../../../scenes/d-11.scene")),
    ("d-12", include_str!("../../../scenes/d-12.scene")),
    ("d-14", include_str!("../../../scenes/d-14.scene")),
    ("d-15", include_str!("../../../scenes/d-15.scene")),
    ("d-16", include_str!("../../../scenes/d-16.scene")),
    ("d-17", include_str!("../../../scenes/d-17.scene")),
    ("d-18", include_str!("../../../scenes/d-18.scene")),
    ("d-19", include_str!("../../../scenes/d-19.scene")),
    ("d-2", include_str!("../../../scenes/d-2.scene")),
    ("d-21", include_str!("../../../scenes/d-21.scene")),
    ("d-22", include_str!("../../../scenes/d-22.scene")),
    ("d-3", include_str!("../../../scenes/d-3.scene")),
    ("d-4", include_str!("../../../scenes/d-4.scene")),
    ("d-5", include_str!("../../../scenes/d-5.scene")),
    ("d-6", include_str!("../../../scenes/d-6.scene")),
    ("d-7", include_str!("../../../scenes/d-7.scene")),
    ("d-8", include_str!("../../../scenes/d-8.scene")),
    ("d-9", include_str!("../../../scenes/d-9.scene")),
    ("dies-late", include_str!("../../../scenes/dies-late.scene")),
    ("dropped", include_str!("../../../scenes/dropped.scene")),
    ("emptied", include_str!("../../../scenes/emptied.scene")),
    ("evict", include_str!("../../../scenes/evict.scene")),
    ("evicted", include_str!("../../../scenes/evicted.scene")),
    ("fight", include_str!("../../../scenes/fight.scene")),
    ("fills", include_str!("../../../scenes/fills.scene")),
    ("forgets", include_str!("../../../scenes/forgets.scene")),
    ("fork", include_str!("../../../scenes/fork.scene")),
    ("forms", include_str!("../../../scenes/forms.scene")),
    ("free", include_str!("../../../scenes/free.scene")),
    ("full", include_str!("../../../scenes/full.scene")),
    ("gaps", include_str!("../../../scenes/gaps.scene")),
    ("gone", include_str!("../../../scenes/gone.scene")),
    ("grow", include_str!("../../../scenes/grow.scene")),
    ("guests", include_str!("../../../scenes/guests.scene")),
    ("half-mapped", include_str!("../../../scenes/half-mapped.scene")),
    ("held", include_str!("../../../scenes/held.scene")),
    ("holes", include_str!("../../../scenes/holes.scene")),
    ("huge", include_str!("../../../scenes/huge.scene")),
    ("late-fill", include_str!("../../../scenes/late-fill.scene")),
    ("lost-page", include_str!("../../../scenes/lost-page.scene")),
    ("mixture", include_str!("../../../scenes/mixture.scene")),
    ("moved", include_str!("../../../scenes/moved.scene")),
    ("movers", include_str!("../../../scenes/movers.scene")),
    ("n-1", include_str!("../../../scenes/n-1.scene")),
    ("n-2", include_str!("../../../scenes/n-2.scene")),
    ("narrow", include_str!("../../../scenes/narrow.scene")),
    ("near", include_str!("../../../scenes/near.scene")),
    ("newcomer", include_str!("../../../scenes/newcomer.scene")),
    ("on-the-way", include_str!("../../../scenes/on-the-way.scene")),
    ("order", include_str!("../../../scenes/order.scene")),
    ("over", include_str!("../../../scenes/over.scene")),
    ("owners", include_str!("../../../scenes/owners.scene")),
    ("owners-3", include_str!("../../../scenes/owners-3.scene")),
    ("p-1", include_str!("../../../scenes/p-1.scene")),
    ("parallel", include_str!("../../../scenes/parallel.scene")),
    ("peer-closed", include_str!("../../../scenes/peer-closed.scene")),
    ("peer-moves", include_str!("../../../scenes/peer-moves.scene")),
    ("peer-unmap", include_str!("../../../scenes/peer-unmap.scene")),
    ("peers", include_str!("../../../scenes/peers.scene")),
    ("pins", include_str!("../../../scenes/pins.scene")),
    ("places", include_str!("../../../scenes/places.scene")),
    ("prefetch", include_str!("../../../scenes/prefetch.scene")),
    ("process", include_str!("../../../scenes/process.scene")),
    ("prunes", include_str!("../../../scenes/prunes.scene")),
    ("put-back", include_str!("../../../scenes/put-back.scene")),
    ("r-1", include_str!("../../../scenes/r-1.scene")),
    ("r-10", include_str!("../../../scenes/r-10.scene")),
    ("r-11", include_str!("../../../scenes/r-11.scene")),
    ("r-12", include_str!("../../../scenes/r-12.scene")),
    ("r-13", include_str!("../../../scenes/r-13.scene")),
    ("r-14", include_str!("../../../scenes/r-14.scene")),
    ("r-15", include_str!("../../../scenes/r-15.scene")),
    ("r-16", include_str!("../../../scenes/r-16.scene")),
    ("r-2", include_str!("../../../scenes/r-2.scene")),
    ("r-3", include_str!("../../../scenes/r-3.scene")),
    ("r-4", include_str!("../../../scenes/r-4.scene")),
    ("r-5", include_str!("../../../scenes/r-5.scene")),
    ("r-6", include_str!("../../../scenes/r-6.scene")),
    ("r-7", include_str!("../../../scenes/r-7.scene")),
    ("r-8", include_str!("../../../scenes/r-8.scene")),
    ("r-9", include_str!("../../../scenes/r-9.scene")),
    ("readonly", include_str!("../../../scenes/readonly.scene")),
    ("refuse", include_str!("../../../scenes/refuse.scene")),
    ("retry", include_str!("../../../scenes/retry.scene")),
    ("reuse", include_str!("../../../scenes/reuse.scene")),
    ("scatter", include_str!("../../../scenes/scatter.scene")),
    ("scratch", include_str!("../../../scenes/scratch.scene")),
    ("set-aside", include_str!("../../../scenes/set-aside.scene")),
    ("short", include_str!("../../../scenes/short.scene")),
    ("shortage", include_str!("../../../scenes/shortage.scene")),
    ("shown-twice", include_str!("../../../scenes/shown-twice.scene")),
    ("sources", include_str!("../../../scenes/sources.scene")),
    ("stays", include_str!("../../../scenes/stays.scene")),
    ("stops", include_str!("../../../scenes/stops.scene")),
    ("strangers", include_str!("../../../scenes/strangers.scene")),
    ("tables", include_str!("../../../scenes/tables.scene")),
    ("tails", include_str!("../../../scenes/tails.scene")),
    ("taken", include_str!("../../../scenes/taken.scene")),
    ("unbind", include_str!("../../../scenes/unbind.scene")),
    ("unfit", include_str!("../../../scenes/unfit.scene")),
    ("userptr", include_str!("../../../scenes/userptr.scene")),
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
