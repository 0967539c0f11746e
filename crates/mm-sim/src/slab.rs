//! Values in one array, each in a place that it keeps: who has the place has the value, and nothing is moved or searched.
//!
//! Key types: [`Slab`]. A place that is given back is given away again, the last one first.

/// For how many values the first one takes room.
const ROOM: usize = 32;

/// Values by place.
pub(crate) struct Slab<V> {
    values: Vec<V>,
    free: Vec<u32>,
}

impl<V> Default for Slab<V> {
    fn default() -> Self {
        Self { values: Vec::new(), free: Vec::new() }
    }
}

impl<V: Default> Slab<V> {
    /// Puts a value in a free place; gives the place.
    pub(crate) fn insert(&mut self, value: V) -> u32 {
        if let Some(place) = self.free.pop() {
            self.values[place as usize] = value;
            return place;
        }
        if self.values.capacity() == 0 {
            self.values.reserve_exact(ROOM);
        }
        self.values.push(value);
        self.values.len() as u32 - 1
    }
    /// Takes the value out of a place, which is free from now on.
    pub(crate) fn remove(&mut self, place: u32) -> V {
        if self.free.capacity() == 0 {
            self.free.reserve_exact(ROOM);
        }
        self.free.push(place);
        core::mem::take(&mut self.values[place as usize])
    }
    /// What is in a place that somebody has.
    #[inline]
    pub(crate) fn get(&self, place: u32) -> &V {
        &self.values[place as usize]
    }
    /// The same, to change.
    #[inline]
    pub(crate) fn get_mut(&mut self, place: u32) -> &mut V {
        &mut self.values[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_and_given_away_again() {
        let mut slab = Slab::default();
        let [a, b, c] = [1, 2, 3].map(|value| slab.insert(value));
        assert_eq!((slab.remove(b), *slab.get(a), *slab.get(c)), (2, 1, 3));
        let d = slab.insert(4);
        *slab.get_mut(d) += 1;
        assert_eq!((d, *slab.get(d), *slab.get(c)), (b, 5, 3));
    }
}
