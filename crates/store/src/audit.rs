//! The audit log: on the disk, and entries that wait to be written. Each kind of entry of each partition has a
//! limit of its own, and all together have another; dropped entries are counted.
//!
//! ```text
//!   web   changes   1,000 │ refusals  250 │ reads   50 │ users' 1,000   the oldest of a kind gives way to the next of that kind
//!   db    changes   1,000 │ refusals  250 │ reads   50 │ users' 1,000
//!   …     50,000 altogether: then the oldest of the partition that has most gives way, its reads first
//! ```

use std::collections::{BTreeMap, VecDeque};

use ioward_model::{AuditDropped, AuditEntry, AuditKind, Name};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use crate::Change;

type Json = &'static [u8];

/// Total number of entries kept: guests can't fill the disk.
pub const KEPT_AUDIT_ENTRIES: u64 = 50_000;
/// Number of entries kept in memory while the disk can't be written.
const MAX_WAITING: usize = 10_000;

/// Numbered in order of arrival. Written by an older ioward; its entries move with the next entry.
pub(crate) const OLD: TableDefinition<'_, u64, Json> = TableDefinition::new("audit");
/// By the partition's name, the entry's kind, and a number across all of them.
pub(crate) const ENTRIES: TableDefinition<'_, (&str, u8, u64), Json> = TableDefinition::new("audit-entries");
/// By the partition's name and the kind: the number of entries kept, and of those dropped.
pub(crate) const COUNTS: TableDefinition<'_, (&str, u8), (u64, u64)> = TableDefinition::new("audit-counts");

/// Number of entries of this kind kept for a partition.
#[must_use]
pub fn kept_of_a_partition(kind: AuditKind) -> u64 {
    match kind {
        AuditKind::User | AuditKind::Change => 1_000,
        AuditKind::Refusal => 250,
        AuditKind::Read => 50,
    }
}

fn number_of(kind: AuditKind) -> u8 {
    match kind {
        AuditKind::Change => 0,
        AuditKind::Refusal => 1,
        AuditKind::Read => 2,
        AuditKind::User => 3,
    }
}

pub(crate) fn kind_of(number: u8) -> Option<AuditKind> {
    AuditKind::ALL.into_iter().find(|kind| number_of(*kind) == number)
}

/// An entry in its written form.
pub(crate) struct Written {
    partition: Name,
    kind: AuditKind,
    json: Vec<u8>,
}

impl Written {
    pub(crate) fn of(entry: &AuditEntry) -> serde_json::Result<Self> {
        let json = serde_json::to_vec(entry)?;
        Ok(Self { partition: entry.partition.clone(), kind: entry.kind(), json })
    }
}

/// The log during a write.
pub(crate) struct Log<'t> {
    transaction: &'t WriteTransaction,
    counts: BTreeMap<(String, u8), (u64, u64)>,
    last: u64,
}

impl<'t> Log<'t> {
    /// `last` is the number of the latest entry.
    pub(crate) fn open(transaction: &'t WriteTransaction, last: u64) -> Result<Self, redb::Error> {
        let mut counts = BTreeMap::new();
        for row in transaction.open_table(COUNTS)?.iter()? {
            let (key, value) = row?;
            let (partition, kind) = key.value();
            counts.insert((partition.to_owned(), kind), value.value());
        }
        let mut log = Self { transaction, counts, last };
        log.take_over()?;
        Ok(log)
    }

    /// Moves the entries of an older ioward.
    fn take_over(&mut self) -> Result<(), redb::Error> {
        let mut old = self.transaction.open_table(OLD)?;
        while let Some((number, json)) = old.pop_first()? {
            // An invalid entry is useless.
            if let Ok(entry) = serde_json::from_slice::<AuditEntry>(json.value()) {
                self.last = number.value().max(self.last + 1);
                let number = self.last;
                self.insert(entry.partition.as_str(), entry.kind(), number, json.value())?;
            }
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, entry: &Written) -> Result<(), redb::Error> {
        self.last += 1;
        self.insert(entry.partition.as_str(), entry.kind, self.last, &entry.json)
    }

    pub(crate) fn count_dropped(&mut self, partition: &Name, dropped: &AuditDropped) {
        for kind in AuditKind::ALL.into_iter().filter(|kind| dropped.of(*kind) > 0) {
            let (_, count) = self.counts.entry((partition.to_string(), number_of(kind))).or_default();
            *count = count.saturating_add(dropped.of(kind));
        }
    }

    fn insert(
        &mut self,
        partition: &str,
        kind: AuditKind,
        number: u64,
        json: &[u8],
    ) -> Result<(), redb::Error> {
        let key = (partition.to_owned(), number_of(kind));
        self.transaction.open_table(ENTRIES)?.insert((partition, key.1, number), json)?;
        let (kept, _) = self.counts.entry(key.clone()).or_default();
        *kept += 1;
        while self.counts[&key].0 > kept_of_a_partition(kind) {
            self.drop_oldest(&key)?;
        }
        Ok(())
    }

    fn drop_oldest(&mut self, key: &(String, u8)) -> Result<(), redb::Error> {
        let mut entries = self.transaction.open_table(ENTRIES)?;
        let (partition, kind) = (key.0.as_str(), key.1);
        let oldest = entries.range((partition, kind, 0)..=(partition, kind, u64::MAX))?.next();
        let oldest = oldest.transpose()?.map(|(key, _)| key.value().2);
        if let Some(number) = oldest {
            entries.remove((partition, kind, number))?;
        }
        let (kept, dropped) = self.counts.entry(key.clone()).or_default();
        *kept = if oldest.is_some() { kept.saturating_sub(1) } else { 0 };
        *dropped = dropped.saturating_add(oldest.is_some().into());
        Ok(())
    }

    /// Makes room when the total is too high, and writes the total. Returns the number of the latest entry.
    pub(crate) fn close(mut self) -> Result<u64, redb::Error> {
        let mut total: u64 = self.counts.values().map(|(kept, _)| kept).sum();
        while total > KEPT_AUDIT_ENTRIES {
            let mut of_partition: BTreeMap<&str, u64> = BTreeMap::new();
            for ((partition, _), (kept, _)) in &self.counts {
                *of_partition.entry(partition).or_default() += kept;
            }
            let Some((most, _)) = of_partition.into_iter().max_by_key(|(_, kept)| *kept) else { break };
            let of_it = self.counts.iter().filter(|((of, _), (kept, _))| of == most && *kept > 0);
            // A kind that only a newer ioward knows goes last.
            let least_worth = of_it.max_by_key(|((_, kind), _)| kind_of(*kind));
            let Some((key, _)) = least_worth else { break };
            let key = key.clone();
            self.drop_oldest(&key)?;
            total -= 1;
        }
        let mut counts = self.transaction.open_table(COUNTS)?;
        for ((partition, kind), count) in &self.counts {
            let key = (partition.as_str(), *kind);
            if counts.get(key)?.map(|before| before.value()) != Some(*count) {
                counts.insert(key, count)?;
            }
        }
        Ok(self.last)
    }
}

/// Entries that wait to be written, with the same limits as the log.
#[derive(Debug, Default)]
pub struct AuditQueue {
    rings: BTreeMap<(Name, AuditKind), VecDeque<(u64, AuditEntry)>>,
    dropped: BTreeMap<Name, AuditDropped>,
    count: u64,
    length: usize,
}

impl AuditQueue {
    /// Adds an entry.
    pub fn push(&mut self, entry: AuditEntry) {
        self.count += 1;
        let number = self.count;
        self.insert(number, entry);
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0 && self.dropped.is_empty()
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<AuditEntry> {
        let mut entries: Vec<_> = self.rings.values().flatten().collect();
        entries.sort_by_key(|(number, _)| *number);
        entries.into_iter().map(|(_, entry)| entry.clone()).collect()
    }

    /// Number of dropped entries, by partition.
    #[must_use]
    pub fn dropped(&self) -> &BTreeMap<Name, AuditDropped> {
        &self.dropped
    }

    /// The changes that write everything.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let entries = self.entries().into_iter().map(Change::Audit);
        let dropped = self.dropped.iter();
        let dropped = dropped.map(|(partition, dropped)| Change::AuditDropped {
            partition: partition.clone(),
            dropped: *dropped,
        });
        entries.chain(dropped).collect()
    }

    /// Takes everything out.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let count = self.count;
        std::mem::replace(self, Self { count, ..Self::default() })
    }

    /// Puts back entries that could not be written, before those added meanwhile.
    pub fn put_back(&mut self, taken: Self) {
        let newer = std::mem::replace(self, Self { count: self.count, ..taken });
        for (partition, dropped) in newer.dropped {
            self.dropped.entry(partition).or_default().add_all(&dropped);
        }
        let mut entries: Vec<_> = newer.rings.into_values().flatten().collect();
        entries.sort_by_key(|(number, _)| *number);
        entries.into_iter().for_each(|(number, entry)| self.insert(number, entry));
    }

    fn insert(&mut self, number: u64, entry: AuditEntry) {
        let key = (entry.partition.clone(), entry.kind());
        let ring = self.rings.entry(key.clone()).or_default();
        ring.push_back((number, entry));
        self.length += 1;
        if ring.len() as u64 > kept_of_a_partition(key.1) {
            self.drop_oldest(&key);
        } else if self.length > MAX_WAITING
            && let Some(key) = self.least_worth()
        {
            self.drop_oldest(&key);
        }
    }

    /// The least valuable kind of the partition with the most entries.
    fn least_worth(&self) -> Option<(Name, AuditKind)> {
        let mut of_partition: BTreeMap<&Name, usize> = BTreeMap::new();
        for ((partition, _), ring) in &self.rings {
            *of_partition.entry(partition).or_default() += ring.len();
        }
        let (most, _) = of_partition.into_iter().max_by_key(|(_, length)| *length)?;
        let of_it = self.rings.iter().rev().find(|((of, _), ring)| of == most && !ring.is_empty());
        of_it.map(|(key, _)| key.clone())
    }

    fn drop_oldest(&mut self, key: &(Name, AuditKind)) {
        let oldest = self.rings.get_mut(key).and_then(VecDeque::pop_front);
        if oldest.is_some() {
            self.length -= 1;
            self.dropped.entry(key.0.clone()).or_default().add(key.1, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use ioward_model::{Verdict, VfOp};

    use super::*;

    fn entry(partition: &str, time_ms: u64, verdict: Verdict) -> AuditEntry {
        AuditEntry { time_ms, partition: partition.parse().unwrap(), uid: None, request: VfOp::List, verdict }
    }

    #[test]
    fn unwritten_entries_come_before_those_added_meanwhile() {
        let mut queue = AuditQueue::default();
        (1..=60).for_each(|time| queue.push(entry("web", time, Verdict::Granted)));
        let taken = queue.take();
        (61..=70).for_each(|time| queue.push(entry("web", time, Verdict::Granted)));
        queue.push(entry("db", 71, Verdict::Refused("no".into())));
        queue.put_back(taken);
        let times: Vec<_> = queue.entries().iter().map(|entry| entry.time_ms).collect();
        assert_eq!(times, (21..=71).collect::<Vec<_>>());
        let web = queue.dropped()[&"web".parse::<Name>().unwrap()];
        assert_eq!(web, AuditDropped { reads: 20, ..AuditDropped::default() });
    }
}
