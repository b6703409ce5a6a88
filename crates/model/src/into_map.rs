//! Maps, built entry by entry.

use std::collections::BTreeMap;

/// Builds a [`BTreeMap`] by insertion. `collect` sorts the entries first, and that sort and the bulk load after it are compiled once
/// for each type of entry: some 8 kB of the package's binary for each of fifty types.
pub trait IntoMap<K, V>: Iterator<Item = (K, V)> + Sized {
    /// The map of these entries. Of two with the same key, the later one stays.
    fn into_map(self) -> BTreeMap<K, V>
    where
        K: Ord,
    {
        let mut map = BTreeMap::new();
        map.extend(self);
        map
    }
}

impl<K, V, I: Iterator<Item = (K, V)>> IntoMap<K, V> for I {}
