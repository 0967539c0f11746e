//! The real thing, where there is a kernel tree: `KERNEL_TREE=DIR cargo test -p pontoon-kernel --test tree`.

mod given;

use kernel::judge::{Outcome, names};

#[test]
fn every_scene_can_be_judged_on_the_tree() {
    let Some((_, shop)) = given::tree("nothing was judged") else { return };
    let built = shop.link().expect("linked");
    let verdicts: Vec<_> = names().map(|id| shop.judge(&built, id).expect("played")).collect();
    for verdict in &verdicts {
        println!("{}", verdict.line());
        assert_ne!(verdict.outcome, Outcome::NotJudged, "{}", verdict.line());
    }
    // On the trees that were looked at by hand, all of them are there.
    if shop.title().starts_with("linux 7.2.") || shop.title().starts_with("linux 7.3.") {
        assert!(verdicts.iter().all(|verdict| verdict.outcome == Outcome::Found));
        assert!(verdicts[0].evidence.starts_with("LOST 16 of 16 pages, 16 stray writes, driver says success"));
        assert!(verdicts[2].evidence.starts_with("6 fences counted, 3 filled"));
    }
}
