//! Moving a machine that runs into another QEMU (QEMU docs/devel/migration/): the state goes through a socket whose other end is given
//! to whoever asked, so that QEMU needs no network and no address, and nobody can name one.
//!
//! ```text
//!   source       running ── send ──> under way ──> complete ── stop ──> ended
//!                   ^                    │ fails      │
//!                   └────────────────────┴─ resume <──┘
//!   destination  stopped ── receive ──> under way ──> complete ── resume ──> running
//!                   ^                    │ fails      │
//!                   └────────────────────┴─── stop <──┘
//! ```
//! Complete on both sides, both stand still with the same state, and one of them is resumed and the other one ended. Which, is for
//! their two daemons to settle: whoever resumes both has one guest run twice.
//!
//! VFs do not go along. QEMU can unplug the primary of a standby by itself and plug in another one there, but a VF that was let go of has
//! to be made ready for the next one first, and its MAC taken from its PF: so they are taken out before and given back afterwards, as they
//! are at any time. Nothing of the VFs is in the state then, and their slots need not be the same.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use ioward_model::{Accelerator, MachineLayout, MachineType, Migration, Name};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    QemuHypervisor,
    folder::io_error,
    machine::{Machine, POLL},
    partition::Partition,
    record::{Record, SLOTS},
};
use crate::HypervisorError;

/// QEMU's name for the end of the socket that it is given.
const STATE: &str = "state";

impl QemuHypervisor {
    pub(super) async fn layout_now(&self, name: &Name) -> Result<MachineLayout, HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        let machine = running(&partition)?;
        let record = partition.record();
        machine.check_is_defined(&record).await?;
        Ok(MachineLayout {
            machine: machine.machine_type().await?,
            accelerator: machine.running().await?,
            channel: record.channel,
            standbys: record.standbys.iter().map(|it| (it.name.clone(), it.slot)).collect(),
        })
    }

    pub(super) async fn receive_now(
        &self,
        name: &Name,
        layout: &MachineLayout,
    ) -> Result<OwnedFd, HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        if partition.machine().is_some() || self.find_machine(&partition).await?.is_some() {
            return Err(HypervisorError::Running(name.clone()));
        }
        let mut record = partition.record();
        lay_out(&mut record, layout).map_err(|why| not_moved(name, why))?;
        partition.change(|now| *now = record)?;
        let machine = self.spawn(&partition, Some(layout)).await?;
        self.run(&partition, Arc::clone(&machine));
        let waits = self.wait_for(&partition, &machine, machine.waits_for_state(layout)).await;
        let (ours, its) = socket()?;
        let listening = match waits {
            Ok(()) => machine.receive(&its).await,
            Err(error) => return Err(error),
        };
        match listening {
            Ok(()) => Ok(ours),
            Err(error) => {
                let _expected = machine.expect_end();
                machine.force_off().await?;
                Err(error)
            }
        }
    }

    pub(super) async fn send_now(&self, name: &Name) -> Result<OwnedFd, HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        let machine = running(&partition)?;
        if let Some(vf) = partition.record().vfs.first() {
            let why = format!("it holds {}, and VFs do not go along; detach them first", vf.name);
            return Err(not_moved(name, why));
        }
        match machine.migration().await? {
            Migration::None | Migration::Failed { .. } => {}
            Migration::UnderWay { .. } | Migration::Complete => {
                return Err(not_moved(name, "it is being moved already".into()));
            }
        }
        let (ours, its) = socket()?;
        machine.send(&its).await?;
        Ok(ours)
    }

    pub(super) async fn migration_now(&self, name: &Name) -> Result<Migration, HypervisorError> {
        running(&*self.partition(name)?)?.migration().await
    }

    pub(super) async fn resume_now(&self, name: &Name) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        running(&partition)?.resume().await
    }
}

fn not_moved(partition: &Name, why: String) -> HypervisorError {
    HypervisorError::NotMoved { partition: partition.clone(), why }
}

fn running(partition: &Partition) -> Result<Arc<Machine>, HypervisorError> {
    partition.machine().ok_or_else(|| HypervisorError::NotRunning(partition.name.clone()))
}

/// Two ends of one socket: the second is for QEMU. Both are closed in every other program.
fn socket() -> Result<(OwnedFd, OwnedFd), HypervisorError> {
    let (ours, its) = UnixStream::pair().map_err(io_error("make", std::path::Path::new("a socket")))?;
    Ok((ours.into(), its.into()))
}

/// Gives a partition that is stopped the layout of the machine whose state it is to take over; or why it can't.
fn lay_out(record: &mut Record, layout: &MachineLayout) -> Result<(), String> {
    if let Some(vf) = record.vfs.first() {
        return Err(format!("it holds {}, and VFs are given to it only once it runs", vf.name));
    }
    if record.channel != layout.channel {
        let of = |has| if has { "has a channel" } else { "has none" };
        return Err(format!("its machine {}, and here it {}", of(layout.channel), of(record.channel)));
    }
    let here: Vec<_> = record.standbys.iter().map(|standby| &standby.name).collect();
    if here.len() != layout.standbys.len() || !here.iter().all(|name| layout.standbys.contains_key(name)) {
        let names = |names: Vec<&Name>| match names.is_empty() {
            true => "no standby".to_owned(),
            false => {
                format!("standbys of {}", names.into_iter().map(Name::as_str).collect::<Vec<_>>().join(", "))
            }
        };
        let there = names(layout.standbys.keys().collect());
        return Err(format!("its machine has {there}, and here it has {}", names(here)));
    }
    let mut slots: Vec<u8> = layout.standbys.values().copied().collect();
    slots.sort_unstable();
    slots.dedup();
    if slots.len() != layout.standbys.len() || slots.iter().any(|slot| !(1..=SLOTS).contains(slot)) {
        return Err("the slots of its standbys make no sense".into());
    }
    for standby in &mut record.standbys {
        standby.slot = layout.standbys.get(&standby.name).copied().unwrap_or(standby.slot);
    }
    Ok(())
}

impl Machine {
    /// That it is what its partition's definition says now, and not what that said when it was started.
    async fn check_is_defined(&self, record: &Record) -> Result<(), HypervisorError> {
        let defined = &record.spec.machine;
        let cpus = match self.command("query-cpus-fast", Value::Null).await? {
            Value::Array(cpus) => cpus.len() as u64,
            _ => return Err(self.refused("query-cpus-fast", "its answer is no list")),
        };
        let memory = self.command("query-memory-size-summary", Value::Null).await?;
        let memory = memory["base-memory"].as_u64().unwrap_or_default() >> 20;
        if (cpus, memory) != (defined.cpus.into(), defined.memory.mebibytes().into()) {
            let why = format!(
                "it runs with {cpus} processors and {memory} MiB, and its definition was changed since; stop it and start it again, \
                 and it is as defined"
            );
            return Err(self.not_moved(why));
        }
        Ok(())
    }

    async fn machine_type(&self) -> Result<MachineType, HypervisorError> {
        let class = self.command("qom-get", json!({"path": "/machine", "property": "type"})).await?;
        let name = class.as_str().and_then(|class| class.strip_suffix("-machine")).unwrap_or_default();
        name.parse().map_err(|error| self.refused("qom-get", error))
    }

    /// Waits until it waits for a state, and sees whether it executes on what the state is from.
    async fn waits_for_state(&self, layout: &MachineLayout) -> Result<(), HypervisorError> {
        let accelerator = self.executes(&["inmigrate"]).await?;
        if accelerator == layout.accelerator {
            return Ok(());
        }
        let named = |accelerator| match accelerator {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "emulation",
            Accelerator::Sim => "simulation",
        };
        let (there, here) = (named(layout.accelerator), named(accelerator));
        Err(self.not_moved(format!("its machine runs under {there}, and here it would under {here}")))
    }

    /// The disk is not touched before it is resumed: until then it is the other machine's.
    async fn receive(&self, from: &OwnedFd) -> Result<(), HypervisorError> {
        self.set_capability("late-block-activate").await?;
        self.hand_over_state(from).await?;
        self.command("migrate-incoming", json!({"uri": format!("fd:{STATE}")})).await.map(drop)
    }

    async fn send(&self, to: &OwnedFd) -> Result<(), HypervisorError> {
        self.hand_over_state(to).await?;
        self.command("migrate", json!({"uri": format!("fd:{STATE}")})).await.map(drop)
    }

    async fn set_capability(&self, name: &str) -> Result<(), HypervisorError> {
        let capabilities = json!({"capabilities": [{"capability": name, "state": true}]});
        self.command("migrate-set-capabilities", capabilities).await.map(drop)
    }

    async fn hand_over_state(&self, end: &OwnedFd) -> Result<(), HypervisorError> {
        let handed = self.connected(async |qmp, bound| qmp.hand_over(end.as_fd(), STATE, bound).await);
        handed.await.map_err(|error| self.refused("getfd", error))
    }

    /// QEMU's word for what it is doing (`RunState`, qapi/run-state.json).
    async fn run_state(&self) -> Result<String, HypervisorError> {
        let status = self.command("query-status", Value::Null).await?;
        Ok(crate::text::printable(status["status"].as_str().unwrap_or("unknown"), 40))
    }

    /// That nobody is moving it: what is plugged in meanwhile is in the one machine and not in the other.
    pub(super) async fn check_stays(&self) -> Result<(), HypervisorError> {
        match self.migration().await? {
            Migration::None | Migration::Failed { .. } => Ok(()),
            Migration::UnderWay { .. } | Migration::Complete => {
                Err(self.not_moved("it is being moved, and is changed only before or afterwards".into()))
            }
        }
    }

    /// How far the move is.
    pub(super) async fn migration(&self) -> Result<Migration, HypervisorError> {
        // The move first: one that ends in between is seen one look later. The other way round, a machine that ran a moment ago and whose
        // move is complete by now looked like one that was resumed.
        let migration = self.command("query-migrate", Value::Null).await?;
        let state = self.run_state().await?;
        Ok(read(&state, &migration))
    }

    /// Has it run: one that was to be sent away stays here, and one whose state has come goes on.
    async fn resume(&self) -> Result<(), HypervisorError> {
        let deadline = Instant::now() + self.bounds().command;
        loop {
            let migration = self.command("query-migrate", Value::Null).await?;
            let state = self.run_state().await?;
            match (state.as_str(), read(&state, &migration)) {
                // QEMU would run as soon as the state has come, whatever is settled by then.
                ("inmigrate", _) => {
                    return Err(
                        self.not_moved("its state has not come wholly, and it can't run without".into())
                    );
                }
                (_, Migration::UnderWay { .. }) => {
                    self.command("migrate_cancel", Value::Null).await?;
                }
                ("running", _) => return Ok(()),
                ("paused" | "postmigrate", _) => {
                    self.command("cont", Value::Null).await?;
                    // Bridges and switches learn where it is now. A guest with an agent of its own for that does more.
                    let announce = json!({"initial": 50, "max": 550, "rounds": 5, "step": 100});
                    self.command("announce-self", announce).await?;
                }
                ("finish-migrate", _) => {}
                (other, _) => return Err(self.refused("cont", format!("its state is {other}"))),
            }
            if Instant::now() >= deadline {
                return Err(self.refused("cont", format!("its state is {state}")));
            }
            sleep(POLL).await;
        }
    }

    fn not_moved(&self, why: String) -> HypervisorError {
        not_moved(self.partition(), why)
    }
}

/// What QEMU's two answers come to: its run state, and `MigrationInfo` (qapi/migration.json).
fn read(state: &str, migration: &Value) -> Migration {
    let status = migration["status"].as_str().unwrap_or("none");
    let under_way = || {
        let ram = |key: &str| migration["ram"][key].as_u64().unwrap_or_default();
        Migration::UnderWay { sent: ram("transferred"), remaining: ram("remaining"), total: ram("total") }
    };
    let failed = |otherwise: &str| {
        let why = migration["error-desc"].as_str().unwrap_or(otherwise);
        Migration::Failed { why: crate::text::printable(why, 300) }
    };
    match (state, status) {
        (_, "failed") => failed("QEMU does not say why"),
        (_, "cancelled") => failed("it was cancelled"),
        ("internal-error" | "guest-panicked" | "shutdown" | "io-error", _) => {
            Migration::Failed { why: format!("the state of the machine is {state}") }
        }
        ("inmigrate" | "finish-migrate", _) => under_way(),
        ("postmigrate" | "paused", "completed") => Migration::Complete,
        (_, "none" | "completed") => Migration::None,
        // Being set up, waiting for guests, sending, being cancelled.
        _ => under_way(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::tests, *};

    #[test]
    fn a_machine_that_moves_is_complete_only_once_it_stands_still_with_all_its_state() {
        let look = |state, status| read(state, &json!({"status": status}));
        assert_eq!(read("running", &json!({})), Migration::None);
        let under_way = Migration::UnderWay { sent: 0, remaining: 0, total: 0 };
        for status in ["setup", "wait-unplug", "active", "device", "pre-switchover", "cancelling"] {
            assert_eq!(look("running", status), under_way, "{status}");
        }
        assert_eq!(look("finish-migrate", "completed"), under_way);
        assert_eq!(look("inmigrate", "active"), under_way);
        assert_eq!(look("inmigrate", "completed"), under_way);
        assert_eq!(look("postmigrate", "completed"), Migration::Complete);
        assert_eq!(look("paused", "completed"), Migration::Complete);
        assert_eq!(look("running", "completed"), Migration::None, "it was resumed");
        assert_eq!(look("paused", "none"), Migration::None, "nobody moves it");
        let answer = json!({"status": "active", "ram": {"transferred": 5, "remaining": 7, "total": 12}});
        assert_eq!(read("running", &answer), Migration::UnderWay { sent: 5, remaining: 7, total: 12 });
    }

    #[test]
    fn a_move_that_came_to_nothing_says_why() {
        let why = |state, answer| match read(state, &answer) {
            Migration::Failed { why } => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why("running", json!({"status": "failed", "error-desc": "no\n route"})), "no  route");
        assert_eq!(why("running", json!({"status": "cancelled"})), "it was cancelled");
        assert!(why("internal-error", json!({"status": "completed"})).contains("internal-error"));
    }

    fn layout(standbys: &[(&str, u8)]) -> MachineLayout {
        MachineLayout {
            machine: "pc-q35-10.0".parse().unwrap(),
            accelerator: Accelerator::Kvm,
            channel: false,
            standbys: standbys.iter().map(|(name, slot)| (name.parse().unwrap(), *slot)).collect(),
        }
    }

    #[test]
    fn standbys_go_into_the_slots_that_they_have_in_the_machine_that_is_moved() {
        let mut record = tests::record("boot = { kernel = \"/k\" }");
        record.standbys = vec![tests::standby("net0", 1), tests::standby("net1", 2)];
        lay_out(&mut record, &layout(&[("net0", 2), ("net1", 5)])).unwrap();
        assert_eq!(record.standbys, [tests::standby("net0", 2), tests::standby("net1", 5)]);
    }

    #[test]
    fn a_partition_that_is_not_like_the_machine_is_refused_and_stays_as_it_is() {
        let mut record = tests::record("boot = { kernel = \"/k\" }");
        record.standbys = vec![tests::standby("net0", 1)];
        let with_channel = MachineLayout { channel: true, ..layout(&[("net0", 1)]) };
        for (layout, why) in [
            (layout(&[]), "has no standby, and here it has standbys of net0"),
            (layout(&[("net1", 1)]), "standbys of net1"),
            (layout(&[("net0", 0)]), "no sense"),
            (layout(&[("net0", SLOTS + 1)]), "no sense"),
            (with_channel, "has a channel, and here it has none"),
        ] {
            let before = record.clone();
            let refused = lay_out(&mut record, &layout).unwrap_err();
            assert!(refused.contains(why), "{refused}");
            assert_eq!(record, before);
        }
        record.standbys.push(tests::standby("net1", 2));
        assert!(lay_out(&mut record, &layout(&[("net0", 3), ("net1", 3)])).unwrap_err().contains("no sense"));
        record.standbys.clear();
        record.vfs.push(tests::held("net0", "0000:01:10.0", 1));
        assert!(lay_out(&mut record, &layout(&[])).unwrap_err().contains("only once it runs"));
    }
}
