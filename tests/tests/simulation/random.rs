//! Random numbers from a seed: `SplitMix64`, so that a story repeats on every machine and with every version of
//! every crate.

/// A source of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u16) -> u16 {
        u16::try_from(self.next() % u64::from(bound)).unwrap()
    }

    /// True with this chance in percent.
    pub fn percent(&mut self, chance: u16) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Clone>(&mut self, among: &[T]) -> T {
        among[usize::from(self.below(u16::try_from(among.len()).unwrap()))].clone()
    }

    /// A value with this chance in percent.
    pub fn maybe<T>(&mut self, chance: u16, what: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.percent(chance).then(|| what(self))
    }
}
