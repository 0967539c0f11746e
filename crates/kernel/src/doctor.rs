//! What can be judged of a tree here: compiler, configuration, symbols, scenes.

use crate::judge::{Outcome, names};
use crate::workshop::Workshop;
use anyhow::Result;
use serde_json::{Value, json};

/// Lines for people, and whether every scene can be judged.
pub struct Findings {
    /// A table, row by row: what, and how it is.
    pub rows: Vec<(String, String)>,
    /// Whether all can be judged.
    pub all: bool,
}

impl Findings {
    /// A line for programs a row, and one of all of them.
    pub fn json(&self, tree: &str) -> Vec<Value> {
        let rows = self.rows.iter().map(|(what, how)| json!({"tree": tree, "what": what, "how": how}));
        rows.chain([json!({"tree": tree, "what": "all", "judged": self.all})]).collect()
    }
}

/// Builds and looks.
pub fn look(shop: &Workshop) -> Result<Findings> {
    let mut rows = vec![
        ("tree".to_owned(), format!("{} in {}", shop.title(), shop.tree.dir.display())),
        ("compiler".to_owned(), shop.tools.compiler.clone()),
        ("cache".to_owned(), shop.place().display().to_string()),
    ];
    shop.build()?;
    rows.push(("configuration".to_owned(), format!("all {} lines stick", shop.kit.config.len())));
    let built = shop.link()?;
    rows.push(("files of the tree".to_owned(), format!("{}, as they are", shop.files())));
    rows.push((
        "not modelled".to_owned(),
        format!("{} symbols; a scene that reaches one is not judged", built.trapped),
    ));
    let mut all = true;
    for id in names() {
        let verdict = shop.judge(&built, id)?;
        all &= verdict.outcome != Outcome::NotJudged;
        let word = match verdict.outcome {
            Outcome::NotJudged => format!("cannot be judged: {}", verdict.evidence),
            _ => "can be judged".to_owned(),
        };
        rows.push((format!("scene {id}"), word));
    }
    Ok(Findings { rows, all })
}
