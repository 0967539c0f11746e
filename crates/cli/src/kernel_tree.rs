//! What every command about a kernel tree begins with.

use ::kernel::{Built, Interrupt, Kit, Workshop, series};
use anyhow::Result;
use std::ops::Range;
use std::path::Path;

/// A range of seeds.
pub(crate) fn seeds(text: &str) -> Result<Range<u64>, String> {
    let range = text.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
    range.filter(|range: &Range<u64>| !range.is_empty()).ok_or_else(|| "give A..B, as 0..1000".to_owned())
}

/// A runner of the tree with a series applied, or of the tree as it is by `link`, and where it was made. Where it `tells`, people read it:
/// what of the series is not compiled is said.
pub(crate) fn built(
    tree: &Path,
    series: Option<&Path>,
    stop: &Interrupt,
    tells: bool,
    link: fn(&Workshop) -> Result<Built>,
) -> Result<(Workshop, Built)> {
    // What is wrong with it is said before minutes of building.
    let series = series.map(series::read).transpose()?;
    let shop = Workshop::open(tree, Kit::xe(), stop)?;
    shop.build()?;
    let built = match series {
        Some(patches) => shop.link_patched(&patches.iter().collect::<Vec<_>>()),
        None => link(&shop),
    }?;
    built.patched.note().filter(|_| tells).iter().for_each(|note| say!("{note}"));
    Ok((shop, built))
}
