//! The tables of the file: their names and contents. docs/state.md describes them.
//!
//! Values are JSON: other programs can read them, also in ten years, and an added field needs no new version.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use ioward_model::{
    AdapterState, Assignment, AuditDropped, AuditEntry, Ended, Name, OpenOperation, OutOfService, Owner,
    PartitionHead, PlanRecord, Row, Spec, State, StepRecord, VfId, handover::Move,
};
use ioward_pci::Bdf;
use redb::{
    Database, Key, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
    TableHandle, WriteTransaction,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::audit::{self, Log};
use crate::{Change, Contents, Export, ExportedPlan, ExportedStep, Interrupted};

/// The version of the tables and of the values in them. Version 1 was `state.json`.
pub const SCHEMA: u64 = 5;

/// The oldest version that can be read as it is. 2 has no reconciling plans yet, 3 no domains and namespaces, 4 no adapters out of service. The next commit turns it
/// into [`SCHEMA`].
const OLDEST: u64 = 2;

/// What is written instead as long as a partition is being moved to or from another host: an ioward that does not know of that would start it here
/// though it is another's, or tell the other host that there is no such move.
pub(crate) const WITH_MOVES: u64 = 6;

/// Number of plans kept: of users' plans, and of repairs, each including the running one.
pub const KEPT_PLANS: usize = 8;

type Json = &'static [u8];

/// `schema`, `revision`, `boot`; `commits`: their number; `audit`: the number of the latest entry of the audit log.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// By PCI address.
const ADAPTERS: TableDefinition<'_, &str, Json> = TableDefinition::new("adapters");
/// By name.
const PARTITIONS: TableDefinition<'_, &str, Json> = TableDefinition::new("partitions");
/// By the names of the partition and of the VF in it.
const ASSIGNMENTS: TableDefinition<'_, (&str, &str), Json> = TableDefinition::new("assignments");
/// Under `spec`, the Spec that was last applied. Files of an older ioward do not have this table.
const WANTED: TableDefinition<'_, &str, Json> = TableDefinition::new("wanted");
/// By PCI address. Files of an older ioward do not have this table.
const OUT_OF_SERVICE: TableDefinition<'_, &str, Json> = TableDefinition::new("out-of-service");
/// By the partition's name. Only files with moves have this table.
const MOVES: TableDefinition<'_, &str, Json> = TableDefinition::new("moves");
/// By [`PlanRecord::number`].
const PLANS: TableDefinition<'_, u64, Json> = TableDefinition::new("plans");
/// The outcome of each plan. Apart from the plans, which can be long.
const ENDS: TableDefinition<'_, u64, Json> = TableDefinition::new("plan-ends");
/// By the plan's number and the step's.
const JOURNAL: TableDefinition<'_, (u64, u64), Json> = TableDefinition::new("journal");
/// By the address of the PF and the index of the VF.
const OPERATIONS: TableDefinition<'_, (&str, u16), Json> = TableDefinition::new("operations");

/// The fault in a file whose tables can be opened.
pub(crate) enum Wrong {
    /// The underlying storage fails.
    Storage(redb::Error),
    /// A table or a value is invalid.
    Content(String),
    /// It has this version.
    Version(u64),
}

impl<E: Into<redb::Error>> From<E> for Wrong {
    fn from(error: E) -> Self {
        Self::Storage(error.into())
    }
}

/// A change with its values in their written form.
pub(crate) enum Written {
    Clear,
    Revision(u64),
    Boot(u64),
    Adapter(Bdf, Option<Vec<u8>>),
    Partition(Name, Option<Vec<u8>>),
    Assignment(Owner, Option<Vec<u8>>),
    OutOfService(Bdf, Option<Vec<u8>>),
    Move(Name, Option<Vec<u8>>),
    Wanted(Option<Vec<u8>>),
    PlanBegun(u64, Vec<u8>),
    Step(u64, u64, Vec<u8>),
    PlanEnded(u64, Vec<u8>),
    OperationBegun(VfId, Vec<u8>),
    OperationEnded(VfId),
    Audit(audit::Written),
    AuditDropped(Name, AuditDropped),
}

impl Written {
    pub(crate) fn of(change: &Change) -> serde_json::Result<Self> {
        fn maybe<T: Serialize>(value: &Option<T>) -> serde_json::Result<Option<Vec<u8>>> {
            value.as_ref().map(serde_json::to_vec).transpose()
        }
        Ok(match change {
            Change::Clear => Self::Clear,
            Change::Row(Row::Revision(revision)) => Self::Revision(*revision),
            Change::Boot(boot) => Self::Boot(*boot),
            Change::Row(Row::Adapter(pf, adapter)) => Self::Adapter(*pf, maybe(adapter)?),
            Change::Row(Row::Partition(name, head)) => Self::Partition(name.clone(), maybe(head)?),
            Change::Row(Row::Assignment(owner, held)) => Self::Assignment(owner.clone(), maybe(held)?),
            Change::Row(Row::OutOfService(pf, out)) => Self::OutOfService(*pf, maybe(out)?),
            Change::Row(Row::Move(name, moving)) => Self::Move(name.clone(), maybe(moving)?),
            Change::Row(Row::Wanted(spec)) => Self::Wanted(maybe(spec)?),
            Change::PlanBegun(record) => Self::PlanBegun(record.number, serde_json::to_vec(record)?),
            Change::Step { plan, number, record } => {
                Self::Step(*plan, *number as u64, serde_json::to_vec(record)?)
            }
            Change::PlanEnded { plan, ended } => Self::PlanEnded(*plan, serde_json::to_vec(ended)?),
            Change::OperationBegun(operation) => {
                Self::OperationBegun(operation.vf, serde_json::to_vec(operation)?)
            }
            Change::OperationEnded(vf) => Self::OperationEnded(*vf),
            Change::Audit(entry) => Self::Audit(audit::Written::of(entry)?),
            Change::AuditDropped { partition, dropped } => Self::AuditDropped(partition.clone(), *dropped),
        })
    }
}

/// Writes the version into a new file, which also makes its tables.
pub(crate) fn begin(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(NUMBERS)?.insert("schema", SCHEMA)?;
    transaction.open_table(ADAPTERS)?;
    transaction.open_table(PARTITIONS)?;
    transaction.open_table(ASSIGNMENTS)?;
    transaction.open_table(OUT_OF_SERVICE)?;
    transaction.open_table(WANTED)?;
    transaction.open_table(PLANS)?;
    transaction.open_table(ENDS)?;
    transaction.open_table(JOURNAL)?;
    transaction.open_table(OPERATIONS)?;
    // An older ioward expects it.
    transaction.open_table(audit::OLD)?;
    transaction.open_table(audit::ENTRIES)?;
    transaction.open_table(audit::COUNTS)?;
    Ok(())
}

/// Writes changes, and the number of this commit.
pub(crate) fn write(transaction: &WriteTransaction, changes: &[Written]) -> Result<u64, redb::Error> {
    let mut numbers = transaction.open_table(NUMBERS)?;
    let commit = numbers.get("commits")?.map_or(1, |commits| commits.value() + 1);
    numbers.insert("commits", commit)?;
    drop(numbers);
    write_audit(transaction, changes)?;
    for change in changes {
        match change {
            Written::Clear => clear(transaction)?,
            Written::Revision(revision) => {
                transaction.open_table(NUMBERS)?.insert("revision", revision)?;
            }
            Written::Boot(boot) => {
                transaction.open_table(NUMBERS)?.insert("boot", boot)?;
            }
            Written::Adapter(pf, adapter) => {
                put(&mut transaction.open_table(ADAPTERS)?, &*pf.to_string(), adapter.as_deref())?;
            }
            Written::Partition(name, head) => {
                put(&mut transaction.open_table(PARTITIONS)?, name.as_str(), head.as_deref())?;
            }
            Written::Assignment(Owner { partition, vf }, held) => {
                let key = (partition.as_str(), vf.as_str());
                put(&mut transaction.open_table(ASSIGNMENTS)?, key, held.as_deref())?;
            }
            Written::OutOfService(pf, out) => {
                put(&mut transaction.open_table(OUT_OF_SERVICE)?, &*pf.to_string(), out.as_deref())?;
            }
            Written::Wanted(spec) => {
                put(&mut transaction.open_table(WANTED)?, "spec", spec.as_deref())?;
            }
            Written::PlanBegun(number, record) => {
                forget_plans(transaction, *number, record)?;
                transaction.open_table(PLANS)?.insert(number, &**record)?;
            }
            Written::Step(plan, number, record) => {
                transaction.open_table(JOURNAL)?.insert((*plan, *number), &**record)?;
            }
            Written::PlanEnded(number, ended) => {
                transaction.open_table(ENDS)?.insert(number, &**ended)?;
            }
            Written::OperationBegun(vf, operation) => {
                let mut operations = transaction.open_table(OPERATIONS)?;
                operations.insert((&*vf.pf.to_string(), vf.index), &**operation)?;
            }
            Written::OperationEnded(vf) => {
                transaction.open_table(OPERATIONS)?.remove((&*vf.pf.to_string(), vf.index))?;
            }
            Written::Move(name, moving) => {
                put(&mut transaction.open_table(MOVES)?, name.as_str(), moving.as_deref())?;
            }
            Written::Audit(_) | Written::AuditDropped(..) => {}
        }
    }
    let schema = if has_moves(transaction)? { WITH_MOVES } else { SCHEMA };
    transaction.open_table(NUMBERS)?.insert("schema", schema)?;
    Ok(commit)
}

/// Whether a partition is being moved. A file without that has no table for it.
fn has_moves(transaction: &WriteTransaction) -> Result<bool, redb::Error> {
    if !transaction.list_tables()?.any(|table| table.name() == MOVES.name()) {
        return Ok(false);
    }
    let is_empty = transaction.open_table(MOVES)?.first()?.is_none();
    if is_empty {
        transaction.delete_table(MOVES)?;
    }
    Ok(!is_empty)
}

fn write_audit(transaction: &WriteTransaction, changes: &[Written]) -> Result<(), redb::Error> {
    if !changes.iter().any(|change| matches!(change, Written::Audit(_) | Written::AuditDropped(..))) {
        return Ok(());
    }
    let last = transaction.open_table(NUMBERS)?.get("audit")?.map(|last| last.value());
    let mut log = Log::open(transaction, last.unwrap_or(0))?;
    for change in changes {
        match change {
            Written::Audit(entry) => log.add(entry)?,
            Written::AuditDropped(partition, dropped) => log.count_dropped(partition, dropped),
            _ => {}
        }
    }
    let last = log.close()?;
    transaction.open_table(NUMBERS)?.insert("audit", last)?;
    Ok(())
}

/// The latest commit.
pub(crate) fn last_commit(database: &Database) -> Result<u64, Wrong> {
    Ok(Tables::of(database)?.open(NUMBERS)?.get("commits")?.map_or(0, |commits| commits.value()))
}

fn put<'k, K: Key>(
    table: &mut Table<'_, K, Json>,
    key: K::SelfType<'k>,
    value: Option<&[u8]>,
) -> Result<(), redb::Error> {
    match value {
        Some(value) => table.insert(key, value)?,
        None => table.remove(key)?,
    };
    Ok(())
}

fn clear(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(ADAPTERS)?.retain(|_, _| false)?;
    transaction.open_table(PARTITIONS)?.retain(|_, _| false)?;
    transaction.open_table(ASSIGNMENTS)?.retain(|_, _| false)?;
    transaction.open_table(OUT_OF_SERVICE)?.retain(|_, _| false)?;
    transaction.open_table(WANTED)?.retain(|_, _| false)?;
    transaction.delete_table(MOVES)?;
    transaction.open_table(OPERATIONS)?.retain(|_, _| false)?;
    Ok(())
}

/// Makes room for a plan of this number: deletes the oldest of its kind, and the remains of an attempt to begin one
/// of this number.
fn forget_plans(transaction: &WriteTransaction, number: u64, new: &[u8]) -> Result<(), redb::Error> {
    let mut kept = BTreeSet::new();
    let mut counts = BTreeMap::from([(is_of_repairs(new), 1)]);
    let mut plans = transaction.open_table(PLANS)?;
    for row in plans.range(..number)?.rev() {
        let (number, record) = row?;
        let count = counts.entry(is_of_repairs(record.value())).or_insert(0);
        if *count < KEPT_PLANS {
            *count += 1;
            kept.insert(number.value());
        }
    }
    plans.retain(|number, _| kept.contains(&number))?;
    drop(plans);
    transaction.open_table(ENDS)?.retain(|number, _| kept.contains(&number))?;
    transaction.open_table(JOURNAL)?.retain(|(number, _), _| kept.contains(&number))?;
    Ok(())
}

/// Whether the daemon made the plan itself, to reconcile the host. Such plans can be many.
fn is_of_repairs(record: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Record {
        plan: OfPlan,
    }
    #[derive(Deserialize)]
    struct OfPlan {
        intent: OfIntent,
    }
    #[derive(Deserialize)]
    struct OfIntent {
        intent: String,
    }
    serde_json::from_slice::<Record>(record).is_ok_and(|record| record.plan.intent.intent == "reconcile")
}

/// All tables, in one read transaction.
struct Tables(redb::ReadTransaction);

impl Tables {
    fn of(database: &Database) -> Result<Self, Wrong> {
        Ok(Self(database.begin_read()?))
    }

    fn open<K: Key, V: redb::Value>(
        &self,
        table: TableDefinition<'_, K, V>,
    ) -> Result<ReadOnlyTable<K, V>, Wrong> {
        self.0.open_table(table).map_err(|error| match error {
            TableError::Storage(error) => Wrong::Storage(error.into()),
            error => Wrong::Content(error.to_string()),
        })
    }

    /// A table that an older ioward, or a new file, lacks.
    fn open_if_there<K: Key, V: redb::Value>(
        &self,
        table: TableDefinition<'_, K, V>,
    ) -> Result<Option<ReadOnlyTable<K, V>>, Wrong> {
        match self.0.open_table(table) {
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(TableError::Storage(error)) => Err(Wrong::Storage(error.into())),
            table => table.map(Some).map_err(|error| Wrong::Content(error.to_string())),
        }
    }

    /// The version, if this program can read it.
    fn check_schema(&self) -> Result<(), Wrong> {
        match self.open(NUMBERS)?.get("schema")?.map(|schema| schema.value()) {
            Some(OLDEST..=WITH_MOVES) => Ok(()),
            Some(schema) => Err(Wrong::Version(schema)),
            None => Err(Wrong::Content("it has no version".to_owned())),
        }
    }

    fn state(&self) -> Result<State, Wrong> {
        let revision = self.open(NUMBERS)?.get("revision")?.map_or(0, |revision| revision.value());
        let mut state = State { revision, ..State::default() };
        for row in self.open(ADAPTERS)?.iter()? {
            let (key, value) = row?;
            let pf = key_of(&ADAPTERS, key.value())?;
            state.put(Row::Adapter(pf, Some(value_of::<AdapterState>(&ADAPTERS, pf, value.value())?)));
        }
        for row in self.open(PARTITIONS)?.iter()? {
            let (key, value) = row?;
            let name: Name = key_of(&PARTITIONS, key.value())?;
            let head: PartitionHead = value_of(&PARTITIONS, &name, value.value())?;
            if head.spec.name != name {
                return Err(nonsense(&PARTITIONS, &name, format!("it speaks of {}", head.spec.name)));
            }
            state.put(Row::Partition(name, Some(head)));
        }
        for row in self.open(ASSIGNMENTS)?.iter()? {
            let (key, value) = row?;
            let (partition, vf) = key.value();
            let owner = Owner { partition: key_of(&ASSIGNMENTS, partition)?, vf: key_of(&ASSIGNMENTS, vf)? };
            let held: Assignment = value_of(&ASSIGNMENTS, &owner, value.value())?;
            if let Some(other) = state.owner(held.vf) {
                return Err(nonsense(&ASSIGNMENTS, &owner, format!("{} is {other}'s too", held.vf)));
            }
            if !state.put(Row::Assignment(owner.clone(), Some(held))) {
                return Err(nonsense(&ASSIGNMENTS, &owner, "there is no such partition"));
            }
        }
        if let Some(table) = self.open_if_there(OUT_OF_SERVICE)? {
            for row in table.iter()? {
                let (key, value) = row?;
                let pf = key_of(&OUT_OF_SERVICE, key.value())?;
                let out: OutOfService = value_of(&OUT_OF_SERVICE, pf, value.value())?;
                state.put(Row::OutOfService(pf, Some(out)));
            }
        }
        if let Some(table) = self.open_if_there(MOVES)? {
            for row in table.iter()? {
                let (key, value) = row?;
                let name: Name = key_of(&MOVES, key.value())?;
                let moving: Move = value_of(&MOVES, &name, value.value())?;
                state.put(Row::Move(name, Some(moving)));
            }
        }
        state.wanted = self.wanted()?;
        Ok(state)
    }

    fn wanted(&self) -> Result<Option<Box<Spec>>, Wrong> {
        let table = match self.0.open_table(WANTED) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            table => table.map_err(redb::Error::from)?,
        };
        let Some(spec) = table.get("spec")? else { return Ok(None) };
        value_of(&WANTED, "spec", spec.value()).map(Some)
    }

    /// The latest plans, at most `limit`, the latest first.
    fn plans(&self, limit: usize) -> Result<Vec<PlanRecord>, Wrong> {
        let ends = self.open(ENDS)?;
        let mut plans = Vec::new();
        for row in self.open(PLANS)?.iter()?.rev().take(limit) {
            let (key, value) = row?;
            let number = key.value();
            let mut record: PlanRecord = value_of(&PLANS, number, value.value())?;
            let ended = ends.get(number)?.map(|ended| value_of::<Ended>(&ENDS, number, ended.value()));
            record.ended = ended.transpose()?;
            plans.push(record);
        }
        Ok(plans)
    }

    fn journal(&self, plan: u64) -> Result<BTreeMap<usize, StepRecord>, Wrong> {
        let mut steps = BTreeMap::new();
        for row in self.open(JOURNAL)?.range((plan, 0)..=(plan, u64::MAX))? {
            let (key, value) = row?;
            let (plan, number) = key.value();
            let record = value_of(&JOURNAL, format!("step {number} of plan {plan}"), value.value())?;
            steps.insert(usize::try_from(number).unwrap_or(usize::MAX), record);
        }
        Ok(steps)
    }

    fn operations(&self) -> Result<Vec<OpenOperation>, Wrong> {
        let mut operations = Vec::new();
        for row in self.open(OPERATIONS)?.iter()? {
            let (key, value) = row?;
            let (pf, index) = key.value();
            operations.push(value_of(&OPERATIONS, format!("VF {index} of {pf}"), value.value())?);
        }
        Ok(operations)
    }

    fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, Wrong> {
        // By number; of plans that are not requested, only the number is read.
        let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
        if let Some(old) = self.open_if_there(audit::OLD)? {
            for row in old.iter()?.rev().take(limit) {
                let (number, value) = row?;
                found.push((number.value(), value.value().to_owned()));
            }
        }
        if let Some(entries) = self.open_if_there(audit::ENTRIES)? {
            for row in entries.iter()? {
                let (key, value) = row?;
                found.push((key.value().2, value.value().to_owned()));
            }
        }
        found.sort_by_key(|(number, _)| *number);
        found.drain(..found.len().saturating_sub(limit));
        found.iter().map(|(number, value)| value_of(&audit::ENTRIES, number, value)).collect()
    }

    fn audit_after(
        &self,
        number: u64,
        limit: usize,
        partition: Option<&Name>,
    ) -> Result<Vec<(u64, AuditEntry)>, Wrong> {
        let mut found: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        if let Some(entries) = self.open_if_there(audit::ENTRIES)? {
            for row in entries.iter()? {
                let (key, value) = row?;
                let (of, _, at) = key.value();
                if at > number && partition.is_none_or(|partition| partition.as_str() == of) {
                    found.insert(at, value.value().to_owned());
                    // No more is held than is given.
                    if found.len() > limit {
                        found.pop_last();
                    }
                }
            }
        }
        let numbered = |(at, value): (u64, Vec<u8>)| Ok((at, value_of(&audit::ENTRIES, at, &value)?));
        found.into_iter().map(numbered).collect()
    }

    fn audit_dropped(&self) -> Result<BTreeMap<Name, AuditDropped>, Wrong> {
        let mut all = BTreeMap::<Name, AuditDropped>::new();
        let Some(counts) = self.open_if_there(audit::COUNTS)? else { return Ok(all) };
        for row in counts.iter()? {
            let (key, value) = row?;
            let ((partition, kind), (_, dropped)) = (key.value(), value.value());
            if let Some(kind) = audit::kind_of(kind).filter(|_| dropped > 0) {
                all.entry(key_of(&audit::COUNTS, partition)?).or_default().add(kind, dropped);
            }
        }
        Ok(all)
    }
}

/// Everything that a starting daemon needs to know.
pub(crate) fn contents(database: &Database) -> Result<Contents, Wrong> {
    let tables = Tables::of(database)?;
    tables.check_schema()?;
    let latest = tables.plans(1)?.pop();
    let last_plan = latest.as_ref().map_or(0, |latest| latest.number);
    let interrupted = match latest.filter(|latest| latest.ended.is_none()) {
        Some(record) => Some(Interrupted { steps: tables.journal(record.number)?, record }),
        None => None,
    };
    let boot = tables.open(NUMBERS)?.get("boot")?.map(|boot| boot.value());
    let (state, operations) = (tables.state()?, tables.operations()?);
    Ok(Contents { state, boot, last_plan, interrupted, operations })
}

pub(crate) fn audit(database: &Database, limit: usize) -> Result<Vec<AuditEntry>, Wrong> {
    Tables::of(database)?.audit(limit)
}

pub(crate) fn audit_after(
    database: &Database,
    number: u64,
    limit: usize,
    partition: Option<&Name>,
) -> Result<Vec<(u64, AuditEntry)>, Wrong> {
    Tables::of(database)?.audit_after(number, limit, partition)
}

pub(crate) fn audit_dropped(database: &Database) -> Result<BTreeMap<Name, AuditDropped>, Wrong> {
    Tables::of(database)?.audit_dropped()
}

pub(crate) fn export(database: &Database) -> Result<Export, Wrong> {
    let tables = Tables::of(database)?;
    tables.check_schema()?;
    let mut plans = Vec::new();
    for record in tables.plans(usize::MAX)?.into_iter().rev() {
        let steps = tables.journal(record.number)?;
        let steps = steps.into_iter().map(|(number, record)| ExportedStep { number, record }).collect();
        plans.push(ExportedPlan { record, steps });
    }
    let (state, operations) = (tables.state()?, tables.operations()?);
    let (audit, audit_dropped) = (tables.audit(usize::MAX)?, tables.audit_dropped()?);
    Ok(Export { schema: SCHEMA, state, plans, operations, audit, audit_dropped })
}

fn key_of<T: std::str::FromStr<Err: Display>>(table: &impl TableHandle, key: &str) -> Result<T, Wrong> {
    key.parse().map_err(|error: T::Err| nonsense(table, key, error))
}

fn value_of<T: DeserializeOwned>(
    table: &impl TableHandle,
    key: impl Display,
    value: &[u8],
) -> Result<T, Wrong> {
    serde_json::from_slice(value).map_err(|error| nonsense(table, key, error))
}

fn nonsense(table: &impl TableHandle, key: impl Display, why: impl Display) -> Wrong {
    Wrong::Content(format!("in the table {}, {key}: {why}", table.name()))
}
