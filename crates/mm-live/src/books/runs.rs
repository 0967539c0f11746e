//! Pages of a 2M block as runs: what follows from page to page is kept once.
//!
//! A block that is wholly in VRAM is one run, one that nothing is known of is none. Writing splits and merges runs, so two
//! blocks that hold the same are equal.

/// What is kept of a page, where the next page's may follow from it.
pub(crate) trait Follow: Copy + PartialEq {
    /// What is not kept.
    const NOTHING: Self;
    /// What the page `pages` further on has in the same run.
    fn further(self, pages: usize) -> Self;
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Item<T> {
    first: u16,
    end: u16,
    value: T,
}

impl<T: Follow> Item<T> {
    fn part(&self, first: usize, end: usize) -> Self {
        let value = self.value.further(first - self.first as usize);
        Self { first: first as u16, end: end as u16, value }
    }
    fn goes_on(&self, next: &Self) -> bool {
        self.end == next.first && self.value.further((self.end - self.first) as usize) == next.value
    }
}

/// Runs of pages, by their number within the block.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Runs<T> {
    items: Vec<Item<T>>,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

impl<T: Follow> Runs<T> {
    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What page `at` has, and how many pages from there on, at most up to `end`, have what follows from it.
    pub fn run(&self, at: usize, end: usize) -> (usize, T) {
        let index = self.items.partition_point(|item| item.end as usize <= at);
        match self.items.get(index) {
            Some(item) if item.first as usize <= at => {
                let part = item.part(at, end.min(item.end as usize));
                (end.min(item.end as usize) - at, part.value)
            }
            Some(item) => (end.min(item.first as usize) - at, T::NOTHING),
            None => (end - at, T::NOTHING),
        }
    }

    /// Runs that are kept within `[at, end)`: first page, number of pages, value.
    pub fn kept(&self, at: usize, end: usize) -> impl Iterator<Item = (usize, usize, T)> {
        let index = self.items.partition_point(|item| item.end as usize <= at);
        self.items[index..].iter().take_while(move |item| (item.first as usize) < end).map(move |item| {
            let (first, end) = (at.max(item.first as usize), end.min(item.end as usize));
            (first, end - first, item.part(first, end).value)
        })
    }

    /// Page `at` has `value`, and each of `[at, end)` what follows from it.
    pub fn set(&mut self, at: usize, end: usize, value: T) {
        if at >= end {
            return;
        }
        let low = self.items.partition_point(|item| item.end as usize <= at);
        let high = self.items.partition_point(|item| (item.first as usize) < end);
        let (mut from, mut to) = (low, high);
        let mut new = Item { first: at as u16, end: end as u16, value };
        let head = self.items[low..high].first().filter(|item| (item.first as usize) < at);
        let mut head = head.map(|item| item.part(item.first as usize, at));
        let tail = self.items[low..high].last().filter(|item| item.end as usize > end);
        let mut tail = tail.map(|item| item.part(end, item.end as usize));
        if value != T::NOTHING {
            // What touches it from outside may be merged, too.
            if head.is_none() && low > 0 && self.items[low - 1].goes_on(&new) {
                from = low - 1;
                head = Some(self.items[from]);
            }
            if tail.is_none() && self.items.get(high).is_some_and(|item| new.goes_on(item)) {
                to = high + 1;
                tail = Some(self.items[high]);
            }
            if let Some(before) = head.filter(|item| item.goes_on(&new)) {
                new = Item { end: new.end, ..before };
                head = None;
            }
            if let Some(behind) = tail.filter(|item| new.goes_on(item)) {
                new.end = behind.end;
                tail = None;
            }
        }
        let new = (value != T::NOTHING).then_some(new);
        if let (None, Some(new), None, 1) = (head, new, tail, to - from) {
            self.items[from] = new;
        } else {
            self.items.splice(from..to, [head, new, tail].into_iter().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 0 is nothing; the rest counts up.
    impl Follow for u32 {
        const NOTHING: Self = 0;
        fn further(self, pages: usize) -> Self {
            if self == 0 { 0 } else { self + pages as u32 }
        }
    }

    proptest! {
        #[test]
        fn they_are_what_single_pages_are(writes in proptest::collection::vec((0usize..64, 1usize..64, 0u32..3), 1..60)) {
            let (mut runs, mut pages) = (Runs::<u32>::default(), [0u32; 64]);
            for (at, length, kind) in writes {
                let end = (at + length).min(64);
                // Two numberings, so that neighbours often go on from each other.
                let value = if kind == 0 { 0 } else { kind * 1000 + at as u32 };
                runs.set(at, end, value);
                (at..end).for_each(|page| pages[page] = value.further(page - at));
                let mut seen = 0;
                while seen < 64 {
                    let (length, value) = runs.run(seen, 64);
                    prop_assert!(length > 0);
                    (0..length).for_each(|i| assert_eq!(value.further(i), pages[seen + i]));
                    seen += length;
                }
                let kept: Vec<_> = runs.kept(0, 64).collect();
                for pair in kept.windows(2) {
                    let ((first, length, value), (next, _, after)) = (pair[0], pair[1]);
                    prop_assert!(first + length < next || value.further(length) != after, "two runs are one");
                }
                let kept_pages: usize = kept.iter().map(|run| run.1).sum();
                prop_assert_eq!(kept_pages, pages.iter().filter(|page| **page != 0).count());
            }
        }
    }
}
